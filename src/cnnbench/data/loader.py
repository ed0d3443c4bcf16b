"""A data set as one uint8 tensor, and the loader that cuts normalised batches from it."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from cnnbench.augment.mixup_cutmix import MixUpCutMix
from cnnbench.augment.step import Augment

Batch = tuple[
    Tensor, Tensor
]  # images (n, C, H, W) float32; labels (n,) int64 or, if mixed, class shares (n, K) float32


@dataclass(frozen=True)
class Images:
    """Decoded images and their labels, on one device.

    Attributes:
        source: (M, C, H, W) uint8; on the CPU it may be a file that other processes map as well.
        labels: (N,) int64.
        rows: (N,) int64, the row of `source` that holds each image; None: image k is row k.
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

    def batch(self, at: slice | Tensor) -> tuple[Tensor, Tensor]:
        """Pixels (n, C, H, W) uint8 and labels (n,) int64 of the images at positions `at`."""
        index = at if self.rows is None else self.rows[at]
        pixels = self.source[index] if isinstance(index, slice) else self.source.index_select(0, index)
        return pixels, self.labels[at]

    def select(self, indices: np.ndarray) -> Images:
        """The images at positions `indices`, in that order; the pixels are not copied."""
        index = torch.from_numpy(indices)
        return Images(self.source, self.labels[index], index if self.rows is None else self.rows[index])

    def with_labels(self, labels: np.ndarray) -> Images:
        """The same images with other labels, (N,) int64."""
        return Images(self.source, torch.from_numpy(labels), self.rows)

    def statistics(self) -> tuple[list[float], list[float]]:
        """Mean and standard deviation of each channel over all images, of pixels scaled to 0..1; a deviation of 0 becomes 1."""
        total = square = torch.zeros(self.source.shape[1], dtype=torch.float64)
        for at in torch.arange(len(self)).split(1024):
            pixels = self.batch(at)[0].to(torch.float64).div_(255)
            total, square = total + pixels.sum(dim=(0, 2, 3)), square + pixels.square_().sum(dim=(0, 2, 3))
        count = len(self) * self.source[0, 0].numel()
        mean = total / count
        std = (square / count - mean.square()).clamp(min=0).sqrt()
        return mean.tolist(), [value or 1.0 for value in std.tolist()]

    def to(self, device: torch.device) -> Images:
        """A copy of the images on another device."""
        return self if self.source.device == device else Images(self.pixels.to(device), self.labels.to(device))


def resize(pixels: Tensor, side: int) -> Tensor:
    """(N, C, H, W) uint8 -> (N, C, side, side) uint8, bilinear with antialiasing as in PIL."""
    if pixels.shape[-2:] == (side, side):
        return pixels
    parts = [F.interpolate(part, (side, side), mode="bilinear", antialias=True) for part in pixels.split(1024)]
    return torch.cat(parts)


@dataclass(frozen=True)
class Normalization:
    """`(pixels / 255 - mean) / std`, per channel.

    Attributes:
        mean: (C,), of pixels scaled to 0..1.
        std: (C,), standard deviation of the same.
    """

    mean: Sequence[float]
    std: Sequence[float]

    def scale_and_shift(self, device: torch.device) -> tuple[Tensor, Tensor]:
        """(1, C, 1, 1) each: the normalised image is `pixels * scale - shift`."""
        mean, std = (torch.tensor(list(values), dtype=torch.float64) for values in (self.mean, self.std))
        scale, shift = std.mul(255).reciprocal(), mean / std
        return scale.float().view(1, -1, 1, 1).to(device), shift.float().view(1, -1, 1, 1).to(device)


@dataclass(frozen=True)
class BatchPlan:
    """How images are cut into batches, and which share of them a rank gets.

    Attributes:
        size: images in a batch, over all ranks and parts.
        accumulate: parts that each rank cuts its share of a shuffled batch into.
        rank: this process, from 0.
        world_size: processes that share the images.
        seed: of the shuffled order, another one in every epoch; None: the stored order.
    """

    size: int = 64
    accumulate: int = 1
    rank: int = 0
    world_size: int = 1
    seed: int | None = None

    def steps(self, images: int) -> int:
        """Shuffled batches in an epoch, each an optimizer step; at least 1.

        A last batch of less than two images a part is joined to the one before it: batch norm cannot train on one image.
        """
        last_is_joined = 0 < images % self.size < 2 * self.world_size * self.accumulate
        return max(1, -(-images // self.size) - last_is_joined)

    def for_scoring(self) -> BatchPlan:
        """The same share of the images in the stored order, in batches twice as large as a part of a training batch."""
        return replace(self, size=max(1, 2 * self.size // self.accumulate), accumulate=1, seed=None)


class Loader:
    """Iterates over `images` in batches of normalised floats on `device`.

    Without a seed in the plan the images come in the stored order. With one they come in an order that depends on
    (seed, epoch) only, changed by `augment`, whose random numbers depend on (seed, epoch, batch) only, and mixed by `mixing`.

    Each rank takes a share of every shuffled batch, in `plan.accumulate` parts, or of the stored order. Shares differ by one
    image at most and are never padded: a rank without images gets one empty batch.

    Args:
        images: the images of one split.
        plan: batch size, ranks and seed.
        normalization: mean and standard deviation per channel.
        device: of the batches; None: the CPU.
        augment: changes shuffled images.
        mixing: mixes shuffled images and their labels.

    Attributes:
        epoch: selects the order of the next pass; increases when a pass begins.
        start: parts of batches that the next pass skips; set by `seek`, else 0.
        waited_s: seconds spent on cutting batches since the loader was made.
    """

    def __init__(
        self,
        images: Images,
        plan: BatchPlan,
        normalization: Normalization,
        device: torch.device | None = None,
        augment: Augment | None = None,
        mixing: MixUpCutMix | None = None,
    ) -> None:
        self.images, self.plan, self.augment, self.mixing = images, plan, augment, mixing
        self.device = device or torch.device("cpu")
        self.scale, self.shift = normalization.scale_and_shift(self.device)
        self.epoch = self.start = 0
        self.waited_s = 0.0

    def __len__(self) -> int:
        """Parts of batches in a pass; every rank has the same number when shuffling."""
        if self.plan.seed is None:
            begin, end = self._share
            return max(1, -(-(end - begin) // self._scored_at_once))
        return self.steps * self.plan.accumulate

    @property
    def steps(self) -> int:
        """Shuffled batches in a pass."""
        return self.plan.steps(len(self.images))

    def weight(self, number: int) -> float:
        """Factor for the mean loss of part `number`: the mean over ranks and parts is then the mean over the batch."""
        begin, end = self._batch(number // self.plan.accumulate)
        low, high = self._part(number)
        return (high - low) * self.plan.world_size * self.plan.accumulate / (end - begin)

    def seek(self, epoch: int, batch: int = 0) -> None:
        """Makes the next pass that of `epoch`, from its part number `batch` on."""
        self.epoch, self.start = epoch, batch

    def order(self, epoch: int) -> np.ndarray | None:
        """(N,) int64, the permutation of an epoch; None for the stored order."""
        if self.plan.seed is None:
            return None
        return np.random.default_rng([self.plan.seed, epoch]).permutation(len(self.images))

    def __iter__(self) -> Iterator[Batch]:
        epoch, first = self.epoch, self.start
        order = self.order(epoch)
        self.seek(epoch + 1)  # now, not at the end: a caller that counts batches may never finish this iterator
        index = None if order is None else torch.from_numpy(order).to(self.images.labels.device)
        for number in range(first, len(self)):
            begun = time.perf_counter()
            batch = self._stored(number) if index is None else self._shuffled(index, epoch, number)
            self.waited_s += time.perf_counter() - begun
            yield batch

    @property
    def _share(self) -> tuple[int, int]:
        """[begin, end) of this rank's images in the stored order."""
        return _fair_share(0, len(self.images), self.plan.rank, self.plan.world_size)

    @property
    def _scored_at_once(self) -> int:
        """Images that this rank gets at once in the stored order."""
        return max(1, self.plan.size // self.plan.world_size)

    def _batch(self, number: int) -> tuple[int, int]:
        """[begin, end) of batch `number` in the shuffled order."""
        begin = number * self.plan.size
        return begin, begin + self.plan.size if number + 1 < self.steps else len(self.images)

    def _part(self, number: int) -> tuple[int, int]:
        """[begin, end) of this rank's part `number` in the shuffled order."""
        batch, part = divmod(number, self.plan.accumulate)
        ranks = self.plan.world_size
        return _fair_share(*self._batch(batch), part * ranks + self.plan.rank, ranks * self.plan.accumulate)

    def _stored(self, number: int) -> Batch:
        begin, end = self._share
        begin += number * self._scored_at_once
        pixels, labels = self._to_device(slice(begin, min(begin + self._scored_at_once, end)))
        return self._normalize(pixels), labels

    def _shuffled(self, index: Tensor, epoch: int, number: int) -> Batch:
        seed = self.plan.seed
        assert seed is not None
        batch = number // self.plan.accumulate
        (begin, end), (low, high) = self._batch(batch), self._part(number)
        at: slice | np.ndarray = slice(low - begin, high - begin)  # positions within the batch
        rows = index[low:high]
        if self.mixing is not None:  # preceded by the image that the first one is mixed with
            at = np.append((low - begin - 1) % (end - begin), np.arange(low - begin, high - begin))
            rows = index[begin:end][torch.from_numpy(at).to(index.device)]
        pixels, labels = self._to_device(rows)
        if self.augment is not None:
            pixels = self.augment(pixels, seed, epoch, batch, at, end - begin)
        images = self._normalize(pixels)
        return (images, labels) if self.mixing is None else self.mixing(images, labels, seed, epoch, batch)

    def _to_device(self, at: slice | Tensor) -> tuple[Tensor, Tensor]:
        """Pixels and labels at positions `at`, on the loader's device."""
        pixels, labels = self.images.batch(at)
        if pixels.device.type != self.device.type:
            pixels, labels = pixels.pin_memory(), labels.pin_memory()
            pixels = pixels.to(self.device, non_blocking=True)
            labels = labels.to(self.device, non_blocking=True)
        return pixels, labels

    def _normalize(self, pixels: Tensor) -> Tensor:
        return pixels.to(torch.float32, copy=True).mul_(self.scale).sub_(self.shift)


def _fair_share(begin: int, end: int, part: int, parts: int) -> tuple[int, int]:
    """[begin, end) of one of `parts` consecutive shares, whose sizes differ by one at most."""
    n = end - begin
    return begin + n * part // parts, begin + n * (part + 1) // parts
