"""mistakes.npz: which test images the net misclassified, and their pixels."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import torch.nn.functional as F
from torch import Tensor

from cnnbench.data.loader import Images, resize
from cnnbench.files import write_atomic
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
    if len(pixels):
        pixels = resize(pixels, min(MAX_SIDE, pixels.shape[-1]))
    return pixels.permute(0, 2, 3, 1).numpy()


def save_misclassified(classifier: Classifier, images: Images, path: Path) -> None:
    """Saves the last test's misclassified images: index (K,) into the test split, images (K, H, W, C) uint8; highest loss first."""
    assert classifier.outputs is not None
    index = misclassified_indices(*classifier.outputs)[:MAX_IMAGES]
    save_npz(path, index=index.numpy(), images=stored_pixels(images, index))


def save_npz(path: Path, **arrays: np.ndarray) -> None:
    """Writes arrays by name to a compressed file, replacing an earlier one in one rename."""
    content = io.BytesIO()
    np.savez_compressed(content, **arrays)  # type: ignore[arg-type]
    write_atomic(path, content.getvalue())
