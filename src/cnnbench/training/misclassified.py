"""mistakes.npz: which test images the net misclassified, and their pixels."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch.nn.functional as F
from torch import Tensor

from cnnbench.augment.functional import resize
from cnnbench.data.loader import Images
from cnnbench.files import open_atomic
from cnnbench.training.classifier import Classifier

MAX_IMAGES = 200  # saved
MAX_SIDE = 64  # pixels; larger images are shrunk


def misclassified_indices(logits: Tensor, targets: Tensor) -> Tensor:
    """Returns the indices (K,) of misclassified images, the highest cross-entropy first; logits (N, num_classes), targets (N,)."""
    at = (logits.argmax(1) != targets).nonzero()[:, 0]
    loss = F.cross_entropy(logits[at].double(), targets[at], reduction="none")
    return at[loss.argsort(descending=True, stable=True)]


def stored_pixels(images: Images, index: Tensor) -> np.ndarray:
    """Returns the images at `index` (K,) as (K, H, W, C) uint8, shrunk to at most 64 pixels a side."""
    pixels = images.batch(index.to(images.source.device))[0].cpu()
    return resize(pixels, min(MAX_SIDE, pixels.shape[-1])).permute(0, 2, 3, 1).numpy()


def save_misclassified(classifier: Classifier, images: Images, path: Path) -> None:
    """Saves the last test's misclassified images: index (K,) into the test split, images (K, H, W, C) uint8; highest loss first."""
    index = misclassified_indices(*classifier.outputs)[:MAX_IMAGES]
    save_npz(path, index=index.numpy(), images=stored_pixels(images, index))


def save_npz(path: Path, **arrays: np.ndarray) -> None:
    """Writes arrays by name to a compressed file, replacing an earlier one in one rename."""
    with open_atomic(path) as file:
        np.savez_compressed(file, **arrays)  # type: ignore[arg-type]
