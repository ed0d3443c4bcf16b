"""The test images that a net got wrong: which, and what they look like."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import torch.nn.functional as F
from torch import Tensor

from cnnbench.data.loader import Images, resize
from cnnbench.files import write_atomic
from cnnbench.training.classifier import Classifier

MOST = 200  # that are kept
SIDE = 64  # pixels; a larger image is shrunk


def mistaken(logits: Tensor, targets: Tensor) -> Tensor:
    """Where in (N,) images another class than the right one has the largest logit: the highest loss first."""
    at = (logits.argmax(1) != targets).nonzero()[:, 0]
    loss = F.cross_entropy(logits[at].double(), targets[at], reduction="none")
    return at[loss.argsort(descending=True, stable=True)]


def stored(images: Images, index: Tensor) -> np.ndarray:
    """(K, H, W, C) uint8 of some images, as they are stored, or shrunk."""
    pixels = images.take(index.to(images.source.device))[0].cpu()
    if len(pixels):
        pixels = resize(pixels, min(SIDE, pixels.shape[-1]))
    return pixels.permute(0, 2, 3, 1).numpy()


def save_mistakes(classifier: Classifier, images: Images, path: Path) -> None:
    """Of the last test's mistakes: index (K,) into the test split, images (K, H, W, C) uint8; the highest loss first."""
    assert classifier.outputs is not None
    index = mistaken(*classifier.outputs)[:MOST]
    content = io.BytesIO()
    np.savez_compressed(content, index=index.numpy(), images=stored(images, index))
    write_atomic(path, content.getvalue())
