"""A data set as one uint8 tensor, and the loader that cuts normalised batches from it."""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from cnnbench.augment.mixup_cutmix import MixUpCutMix
from cnnbench.augment.step import Augment

STATISTICS_CHUNK = 1024  # images at a time; another number changes the last bits of a mean
# images (n, C, H, W) float32; labels (n,) int64 or, if mixed, class shares (n, K) float32
Batch = tuple[Tensor, Tensor]


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
        return self.batch(slice(None))[0]

    @property
    def nbytes(self) -> int:
        """Bytes of the images."""
        return len(self) * self.source.shape[1:].numel()

    def batch(self, at: slice | Tensor) -> tuple[Tensor, Tensor]:
        """Pixels (n, C, H, W) uint8 and labels (n,) int64 of the images at positions `at`."""
        index = at if self.rows is None else self.rows[at]
        pixels = self.source[index] if isinstance(index, slice) else self.source.index_select(0, index)
        return pixels, self.labels[at]

    def select(self, indices: np.ndarray) -> Images:
        """The images at positions `indices`, in that order; the pixels are not copied."""
        index = torch.from_numpy(indices)
        return Images(self.source, self.labels[index], index if self.rows is None else self.rows[index])

    def statistics(self) -> tuple[list[float], list[float]]:
        """Mean and standard deviation of each channel over all images, of pixels scaled to 0..1; a deviation of 0 becomes 1."""
        return mean_and_std(self.batch(at)[0] for at in torch.arange(len(self)).split(STATISTICS_CHUNK))

    def to(self, device: torch.device) -> Images:
        """A copy of the images on another device."""
        return self if self.source.device == device else Images(self.pixels.to(device), self.labels.to(device))


def mean_and_std(batches: Iterable[Tensor]) -> tuple[list[float], list[float]]:
    """Mean and standard deviation of each channel of pixels scaled to 0..1, over batches (n, C, H, W) uint8; see `statistics`."""
    sums, count = torch.zeros(2, 1, dtype=torch.float64), 0  # of the pixels, and of their squares
    for batch in batches:
        pixels = batch.to(torch.float64).div_(255)
        sums = sums + torch.stack([pixels.sum(dim=(0, 2, 3)), pixels.square_().sum(dim=(0, 2, 3))])
        count += len(batch) * batch[0, 0].numel()
    mean, mean_square = sums / count
    std = (mean_square - mean.square()).clamp(min=0).sqrt()
    return mean.tolist(), [value or 1.0 for value in std.tolist()]


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
        mean, std = torch.tensor([self.mean, self.std], dtype=torch.float64).view(2, 1, -1, 1, 1)
        return std.mul(255).reciprocal().float().to(device), (mean / std).float().to(device)


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

    def parts(self, images: int) -> list[tuple[range, range]]:
        """The parts of batches that this rank gets in a pass: for each of them the positions of its batch, and its own.

        Shuffled: `accumulate` parts of every batch. In the stored order: this rank's share of all images, some at a time, where
        each part is a batch. A rank without images gets one empty part.
        """
        if self.seed is None:
            share = _fair_share(range(images), self.rank, self.world_size)
            at_once = max(1, self.size // self.world_size)
            pieces = [share[begin : begin + at_once] for begin in range(0, max(1, len(share)), at_once)]
            return [(piece, piece) for piece in pieces]
        bounds = [*range(0, self.steps(images) * self.size, self.size), images]
        shares = self.world_size * self.accumulate
        return [
            (batch, _fair_share(batch, number, shares))
            for batch in map(range, bounds, bounds[1:])
            for number in range(self.rank, shares, self.world_size)
        ]

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
        self._parts = plan.parts(len(images))
        self.epoch = self.start = 0
        self.waited_s = 0.0

    def __len__(self) -> int:
        """Parts of batches in a pass; every rank has the same number when shuffling."""
        return len(self._parts)

    def weight(self, number: int) -> float:
        """Factor for the mean loss of part `number`: the mean over ranks and parts is then the mean over the batch."""
        batch, part = self._parts[number]
        return len(part) * self.plan.world_size * self.plan.accumulate / len(batch)

    def seek(self, epoch: int, batch: int = 0) -> None:
        """Makes the next pass that of `epoch`, from its part number `batch` on."""
        self.epoch, self.start = epoch, batch

    def order(self, epoch: int) -> np.ndarray | None:
        """(N,) int64, the permutation of an epoch; None for the stored order."""
        if self.plan.seed is None:
            return None
        return np.random.default_rng([self.plan.seed, epoch]).permutation(len(self.images))

    def __iter__(self) -> Iterator[Batch]:
        epoch, first, order = self.epoch, self.start, self.order(self.epoch)
        self.seek(epoch + 1)  # now, not at the end: a caller that counts batches may never finish this iterator
        index = None if order is None else torch.from_numpy(order).to(self.images.labels.device)
        for number, (batch, part) in enumerate(self._parts[first:], first):
            begun = time.perf_counter()
            cut = self._cut(index, epoch, number // self.plan.accumulate, batch, part)
            self.waited_s += time.perf_counter() - begun
            yield cut

    def _cut(self, index: Tensor | None, epoch: int, number: int, batch: range, part: range) -> Batch:
        """A part of batch `number`, as it is stored or, with an epoch's order `index` (N,), augmented and mixed."""
        if index is None or self.plan.seed is None:
            pixels, labels = self._to_device(slice(part.start, part.stop))
            return self._normalize(pixels), labels
        before = self.mixing is not None  # the first image is mixed with the one before it; -1 is the batch's last
        at = np.arange(part.start - before, part.stop) - batch.start
        rows = torch.from_numpy(at).to(index.device, non_blocking=True)
        pixels, labels = self._to_device(index[batch.start : batch.stop][rows])
        if self.augment is not None:
            pixels = self.augment(pixels, self.plan.seed, epoch, number, at, len(batch))
        images = self._normalize(pixels)
        return (images, labels) if self.mixing is None else self.mixing(images, labels, self.plan.seed, epoch, number)

    def _to_device(self, at: slice | Tensor) -> tuple[Tensor, Tensor]:
        """Pixels and labels at positions `at`, on the loader's device."""
        pixels, labels = self.images.batch(at)
        if pixels.device.type != self.device.type:
            pixels, labels = (part.pin_memory().to(self.device, non_blocking=True) for part in (pixels, labels))
        return pixels, labels

    def _normalize(self, pixels: Tensor) -> Tensor:
        return pixels.to(torch.float32, copy=True).mul_(self.scale).sub_(self.shift)


def _fair_share(whole: range, part: int, parts: int) -> range:
    """Number `part` of `parts` consecutive shares, whose sizes differ by one at most."""
    n = len(whole)
    return whole[n * part // parts : n * (part + 1) // parts]
