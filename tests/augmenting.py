"""Helpers of the tests of augmentation: steps, images, statistical tests."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy import stats
from torch import Tensor
from torchvision.transforms import InterpolationMode

from cnnbench.augment.crops import CenterCrop, Pad, RandomCrop, RandomResizedCrop, Resize, ScaleJitter
from cnnbench.augment.step import Augment, Step
from cnnbench.augment.transforms import (
    RandomBrightness,
    RandomContrast,
    RandomErasing,
    RandomHorizontalFlip,
    RandomRotation,
    RandomVerticalFlip,
)
from cnnbench.config.compose import groups

IMPOSSIBLE = 1e-6  # a smaller p-value fails a test; the seeds are fixed
GREY = [0.5, 0.25, 0.75]


# steps for images of 3 × 32 × 32
RANDOM = {
    "crop": RandomCrop(4, image_size=32),
    "scale_jitter": ScaleJitter((40, 60), None, image_size=32),
    "resized_crop": RandomResizedCrop(image_size=32),
    "flip": RandomHorizontalFlip(),
    "flip_vertical": RandomVerticalFlip(),
    "rotate": RandomRotation(30),
    "rotate_list": RandomRotation(None, [30, 90, 180]),
    "rotate_nearest": RandomRotation([-180, 180], interpolation="nearest"),
    "erase": RandomErasing(mean=GREY),
    "brightness": RandomBrightness(0.4),
    "contrast": RandomContrast(0.4),
}


STEPS = RANDOM | {"centre": CenterCrop(image_size=28), "pad": Pad(), "scale": Resize(40, image_size=32)}
CHOICES = sorted(groups()["augment"])


every_step = pytest.mark.parametrize("name", STEPS)


every_random_step = pytest.mark.parametrize("name", RANDOM)


every_choice = pytest.mark.parametrize("choice", CHOICES)


def pictures(n: int, channels: int = 3, side: int = 32, seed: int = 0) -> Tensor:
    pixels = np.random.default_rng([seed, n]).integers(0, 256, (n, channels, side, side), dtype=np.uint8)
    return torch.from_numpy(pixels)


def addresses(n: int, height: int, width: int) -> Tensor:
    """(n, 2, height, width) uint8: row and column of each pixel, counted from one."""
    y, x = torch.meshgrid(torch.arange(1, height + 1), torch.arange(1, width + 1), indexing="ij")
    return torch.stack([y, x]).to(torch.uint8).expand(n, -1, -1, -1)


def changed(steps, images: Tensor, seed: int = 0, epoch: int = 0, batch: int = 0) -> Tensor:
    """Changes a whole batch by a dict of steps, or by the named step of `STEPS`."""
    steps = {steps: STEPS[steps]} if isinstance(steps, str) else steps
    return Augment(steps)(images, seed, epoch, batch, slice(0, len(images)), len(images))


def drawn(step: Step, n: int, height: int = 32, width: int | None = None, seed: int = 0) -> tuple[np.ndarray, ...]:
    return step.draw(np.random.default_rng(seed), n, height, width or height)


def is_uniform_over(values: np.ndarray, cells: int) -> bool:
    """Whether integers are uniform over 0 to cells - 1."""
    counts = np.bincount(values, minlength=cells)
    return len(counts) == cells and (cells == 1 or stats.chisquare(counts).pvalue > IMPOSSIBLE)


def is_uniform_between(values: np.ndarray, low: float, high: float) -> bool:
    return stats.kstest(values, stats.uniform(low, high - low).cdf).pvalue > IMPOSSIBLE


def have_one_distribution(ours, theirs) -> bool:
    return stats.ks_2samp(ours, theirs).pvalue > IMPOSSIBLE


def are_independent(one_way: np.ndarray, other: np.ndarray) -> bool:
    """Whether two sequences of small integers are independent."""
    table = stats.contingency.crosstab(one_way, other).count
    return min(table.shape) > 1 and stats.chi2_contingency(table, correction=False).pvalue > IMPOSSIBLE


def spread(corner: np.ndarray, room: np.ndarray, seed: int = 1) -> np.ndarray:
    """Turns integers of 0 to `room` into numbers of 0 to 1 that are uniform if the integers are."""
    return (corner + np.random.default_rng(seed).random(len(corner))) / (room + 1)


BILINEAR = InterpolationMode.BILINEAR


def same(one_way, other, atol: float = 0) -> bool:
    return len(one_way) == len(other) and all(
        torch.allclose(x, u, rtol=0, atol=atol) and torch.equal(y, v)
        for (x, y), (u, v) in zip(one_way, other, strict=True)
    )
