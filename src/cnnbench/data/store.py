"""A data set as one uint8 tensor in memory, and the loaders that cut normalised batches from it."""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

Batch = tuple[Tensor, Tensor]  # images (n, C, H, W) float32, labels (n,) int64


@dataclass(frozen=True)
class Images:
    """Decoded images: `pixels` (N, C, H, W) uint8, `labels` (N,) int64, both on one device."""

    pixels: Tensor
    labels: Tensor

    def __len__(self) -> int:
        return len(self.labels)

    def select(self, indices: np.ndarray) -> Images:
        """A copy of these images alone, in this order."""
        index = torch.from_numpy(indices)
        return Images(self.pixels[index], self.labels[index])

    def resized(self, side: int) -> Images:
        """Every image scaled to `side` × `side`, bilinear with antialiasing, as PIL does it."""
        return self if self.pixels.shape[-2:] == (side, side) else Images(resize(self.pixels, side), self.labels)

    def to(self, device: torch.device) -> Images:
        """The same on another device."""
        return Images(self.pixels.to(device), self.labels.to(device))


def resize(pixels: Tensor, side: int) -> Tensor:
    """(N, C, H, W) uint8 -> (N, C, side, side) uint8, bilinear with antialiasing, a thousand images at a time."""
    parts = [F.interpolate(part, (side, side), mode="bilinear", antialias=True) for part in pixels.split(1024)]
    return torch.cat(parts)


class Loader:
    """Iterates over `images` in batches of normalised floats on `device`.

    `x = (pixels / 255 - mean) / std`, per channel. Images are in the stored order, or, with `shuffle_seed`, in an order
    that is a function of (shuffle_seed, epoch) alone. A last batch of one image joins the one before it when shuffling:
    batch norm cannot train on it.

    Attributes:
        epoch: which order the next pass takes; counts up as a pass begins.
        start: how many batches the next pass leaves out; set by `seek`, else 0.
        waited_s: seconds spent in cutting batches since the loader was made.
    """

    def __init__(
        self,
        images: Images,
        batch_size: int,
        mean: list[float],
        std: list[float],
        device: torch.device | None = None,
        shuffle_seed: int | None = None,
    ) -> None:
        self.images, self.batch_size, self.shuffle_seed = images, batch_size, shuffle_seed
        self.device = device or torch.device("cpu")
        scale = torch.tensor(std, dtype=torch.float64).mul(255).reciprocal()
        shift = torch.tensor(mean, dtype=torch.float64) / torch.tensor(std, dtype=torch.float64)
        self.scale = scale.float().view(1, -1, 1, 1).to(self.device)
        self.shift = shift.float().view(1, -1, 1, 1).to(self.device)
        self.epoch = self.start = 0
        self.waited_s = 0.0

    def __len__(self) -> int:
        """Batches in a pass."""
        joined = self.shuffle_seed is not None and len(self.images) % self.batch_size == 1
        return max(1, -(-len(self.images) // self.batch_size) - joined)

    def seek(self, epoch: int, batch: int = 0) -> None:
        """The next pass is that of `epoch`, from its `batch`-th batch on."""
        self.epoch, self.start = epoch, batch

    def order(self, epoch: int) -> np.ndarray | None:
        """The permutation of an epoch; None where images come in the stored order."""
        if self.shuffle_seed is None:
            return None
        return np.random.default_rng([self.shuffle_seed, epoch]).permutation(len(self.images))

    def __iter__(self) -> Iterator[Batch]:
        order, batches, first = self.order(self.epoch), len(self), self.start
        self.seek(self.epoch + 1)  # at once: whoever counts batches may never ask for the end of this pass
        index = None if order is None else torch.from_numpy(order).to(self.images.labels.device)
        for number in range(first, batches):
            begun = time.perf_counter()
            stop = (number + 1) * self.batch_size if number + 1 < batches else len(self.images)
            batch = self._cut(slice(number * self.batch_size, stop), index)
            self.waited_s += time.perf_counter() - begun
            yield batch

    def _cut(self, span: slice, index: Tensor | None) -> Batch:
        at = span if index is None else index[span]
        pixels, labels = self.images.pixels[at], self.images.labels[at]
        if pixels.device != self.device:
            pixels, labels = pixels.pin_memory(), labels.pin_memory()
            pixels = pixels.to(self.device, non_blocking=True)
            labels = labels.to(self.device, non_blocking=True)
        return pixels.to(torch.float32).mul_(self.scale).sub_(self.shift), labels
