"""A data set as one uint8 tensor, and the loaders that cut normalised batches from it."""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from cnnbench.augment.mixup_cutmix import Mixing
from cnnbench.augment.step import Augment

Batch = tuple[Tensor, Tensor]  # images (n, C, H, W) float32, labels (n,) int64 or, mixed, shares of the classes (n, K)


@dataclass(frozen=True)
class Images:
    """Decoded images and their labels, on one device.

    Attributes:
        source: (M, C, H, W) uint8; in the host's memory it may be a file that other processes map as well.
        labels: (N,) int64.
        rows: (N,) int64, which rows of `source` the images are; None: all of them, in their order.
    """

    source: Tensor
    labels: Tensor
    rows: Tensor | None = None

    def __len__(self) -> int:
        return len(self.labels)

    @property
    def pixels(self) -> Tensor:
        """(N, C, H, W) uint8."""
        return self.source if self.rows is None else self.source[self.rows]

    @property
    def nbytes(self) -> int:
        """Bytes of the images."""
        return len(self) * self.source[0].numel() if len(self.source) else 0

    def take(self, at: slice | Tensor) -> tuple[Tensor, Tensor]:
        """Pixels (n, C, H, W) uint8 and labels (n,) of some of the images."""
        index = at if self.rows is None else self.rows[at]
        pixels = self.source[index] if isinstance(index, slice) else self.source.index_select(0, index)
        return pixels, self.labels[at]

    def select(self, indices: np.ndarray) -> Images:
        """These images alone, in this order; the pixels are not copied."""
        index = torch.from_numpy(indices)
        return Images(self.source, self.labels[index], index if self.rows is None else self.rows[index])

    def relabelled(self, labels: np.ndarray) -> Images:
        """The same images with other labels, (N,) int64."""
        return Images(self.source, torch.from_numpy(labels), self.rows)

    def statistics(self) -> tuple[list[float], list[float]]:
        """Mean and deviation of each channel, of pixels in 0..1, over all images."""
        total = square = torch.zeros(self.source.shape[1], dtype=torch.float64)
        for at in torch.arange(len(self)).split(1024):
            pixels = self.take(at)[0].to(torch.float64).div_(255)
            total, square = total + pixels.sum(dim=(0, 2, 3)), square + pixels.square_().sum(dim=(0, 2, 3))
        count = len(self) * self.source[0, 0].numel()
        mean = total / count
        std = (square / count - mean.square()).clamp(min=0).sqrt()
        return mean.tolist(), [value or 1.0 for value in std.tolist()]

    def to(self, device: torch.device) -> Images:
        """These images alone, on another device."""
        return self if self.source.device == device else Images(self.pixels.to(device), self.labels.to(device))


def resize(pixels: Tensor, side: int) -> Tensor:
    """(N, C, H, W) uint8 -> (N, C, side, side) uint8, bilinear with antialiasing as PIL has it, a thousand images at a time."""
    if pixels.shape[-2:] == (side, side):
        return pixels
    parts = [F.interpolate(part, (side, side), mode="bilinear", antialias=True) for part in pixels.split(1024)]
    return torch.cat(parts)


class Loader:
    """Iterates over `images` in batches of normalised floats on `device`.

    `x = (pixels / 255 - mean) / std`, per channel. Images are in the stored order, or, with `shuffle_seed`, in an order
    that is a function of (shuffle_seed, epoch) alone, and changed by `augment`, whose draws are a function of
    (shuffle_seed, epoch, batch), and mixed by `mixing`.

    Of several ranks each gets its share of every shuffled batch, in `accumulate` parts, or of the stored order; shares differ
    by one image at most, and are never padded: a rank without any gets one empty batch. A last shuffled batch of less than
    two images a part joins the one before it: batch norm cannot train on one image.

    Attributes:
        epoch: which order the next pass takes; counts up as a pass begins.
        start: how many parts of batches the next pass leaves out; set by `seek`, else 0.
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
        augment: Augment | None = None,
        rank: int = 0,
        ranks: int = 1,
        accumulate: int = 1,
        mixing: Mixing | None = None,
    ) -> None:
        self.images, self.batch_size, self.shuffle_seed, self.augment = images, batch_size, shuffle_seed, augment
        self.rank, self.ranks, self.accumulate, self.mixing = rank, ranks, accumulate, mixing
        self.device = device or torch.device("cpu")
        scale = torch.tensor(std, dtype=torch.float64).mul(255).reciprocal()
        shift = torch.tensor(mean, dtype=torch.float64) / torch.tensor(std, dtype=torch.float64)
        self.scale = scale.float().view(1, -1, 1, 1).to(self.device)
        self.shift = shift.float().view(1, -1, 1, 1).to(self.device)
        self.epoch = self.start = 0
        self.waited_s = 0.0

    def __len__(self) -> int:
        """Parts of batches in a pass; as many on every rank when shuffling."""
        if self.shuffle_seed is None:
            begin, end = _slice(0, len(self.images), self.rank, self.ranks)
            return max(1, -(-(end - begin) // self._batch_of_a_rank))
        return self.steps * self.accumulate

    @property
    def steps(self) -> int:
        """Shuffled batches in a pass, each a step of the optimizer."""
        joined = 0 < len(self.images) % self.batch_size < 2 * self.ranks * self.accumulate
        return max(1, -(-len(self.images) // self.batch_size) - joined)

    def weight(self, number: int) -> float:
        """What the mean loss of a part must be multiplied with, for the mean over ranks and parts to be the mean over the batch."""
        begin, end = self._batch(number // self.accumulate)
        low, high = self._part(number)
        return (high - low) * self.ranks * self.accumulate / (end - begin)

    def seek(self, epoch: int, batch: int = 0) -> None:
        """The next pass is that of `epoch`, from its `batch`-th part on."""
        self.epoch, self.start = epoch, batch

    def order(self, epoch: int) -> np.ndarray | None:
        """The permutation of an epoch; None where images come in the stored order."""
        if self.shuffle_seed is None:
            return None
        return np.random.default_rng([self.shuffle_seed, epoch]).permutation(len(self.images))

    def __iter__(self) -> Iterator[Batch]:
        epoch, first = self.epoch, self.start
        order = self.order(epoch)
        self.seek(epoch + 1)  # at once: whoever counts batches may never ask for the end of this pass
        index = None if order is None else torch.from_numpy(order).to(self.images.labels.device)
        for number in range(first, len(self)):
            begun = time.perf_counter()
            batch = self._stored(number) if index is None else self._shuffled(index, epoch, number)
            self.waited_s += time.perf_counter() - begun
            yield batch

    @property
    def _batch_of_a_rank(self) -> int:
        return max(1, self.batch_size // self.ranks)

    def _batch(self, number: int) -> tuple[int, int]:
        """The stretch of a shuffled pass that is its `number`-th batch."""
        begin = number * self.batch_size
        return begin, begin + self.batch_size if number + 1 < self.steps else len(self.images)

    def _part(self, number: int) -> tuple[int, int]:
        """The stretch of a shuffled pass that is its `number`-th part for this rank."""
        begin, end = self._batch(number // self.accumulate)
        part, parts = number % self.accumulate * self.ranks + self.rank, self.ranks * self.accumulate
        return _slice(begin, end, part, parts)

    def _stored(self, number: int) -> Batch:
        begin, end = _slice(0, len(self.images), self.rank, self.ranks)
        begin += number * self._batch_of_a_rank
        pixels, labels = self._fetch(slice(begin, min(begin + self._batch_of_a_rank, end)))
        return self._normalized(pixels), labels

    def _shuffled(self, index: Tensor, epoch: int, number: int) -> Batch:
        assert self.shuffle_seed is not None
        batch = number // self.accumulate
        (begin, end), (low, high) = self._batch(batch), self._part(number)
        at: slice | np.ndarray = slice(low - begin, high - begin)  # within the batch
        rows = index[low:high]
        if self.mixing is not None:  # before them comes the image that the first one is mixed with
            at = np.append((low - begin - 1) % (end - begin), np.arange(low - begin, high - begin))
            rows = index[begin:end][torch.from_numpy(at).to(index.device)]
        pixels, labels = self._fetch(rows)
        if self.augment is not None:
            pixels = self.augment(pixels, self.shuffle_seed, epoch, batch, at, end - begin)
        images = self._normalized(pixels)
        return (images, labels) if self.mixing is None else self.mixing(images, labels, self.shuffle_seed, epoch, batch)

    def _fetch(self, at: slice | Tensor) -> tuple[Tensor, Tensor]:
        """Pixels and labels on the loader's device."""
        pixels, labels = self.images.take(at)
        if pixels.device.type != self.device.type:
            pixels, labels = pixels.pin_memory(), labels.pin_memory()
            pixels = pixels.to(self.device, non_blocking=True)
            labels = labels.to(self.device, non_blocking=True)
        return pixels, labels

    def _normalized(self, pixels: Tensor) -> Tensor:
        return pixels.to(torch.float32, copy=True).mul_(self.scale).sub_(self.shift)


def _slice(begin: int, end: int, part: int, parts: int) -> tuple[int, int]:
    """One of `parts` of a stretch; they differ by one at most."""
    n = end - begin
    return begin + n * part // parts, begin + n * (part + 1) // parts
