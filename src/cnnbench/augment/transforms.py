"""Steps of an augmentation that turn the image, or change its values."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from numpy.random import Generator
from torch import Tensor

from cnnbench.augment import functional as geometry
from cnnbench.augment.crops import random_boxes
from cnnbench.augment.step import Draws, Step, check, check_range


class RandomHorizontalFlip(Step):
    """Left to right, with probability `p`."""

    dimension = -1

    def __init__(self, p: float = 0.5) -> None:
        check("p", p, float, at_least=0, at_most=1)
        self.p = p

    def draw(self, random: Generator, n: int, height: int, width: int) -> Draws:
        """Which."""
        return (random.random(n) < self.p,)

    def apply(self, images: Tensor, draws: tuple[Tensor, ...]) -> Tensor:
        """Keeps the type."""
        (which,) = draws
        return geometry.flip(images, which, self.dimension)


class RandomVerticalFlip(RandomHorizontalFlip):
    """Upside down, with probability `p`."""

    dimension = -2


class RandomRotation(Step):
    """About the middle; black comes in from outside.

    Args:
        degrees: a number d, for -d to d, or a range [a, b], counter-clockwise.
        angles: in place of a range, a list of which each image gets one.
        interpolation: bilinear or nearest.
    """

    def __init__(
        self,
        degrees: float | Sequence[float] | None = 15,
        angles: Sequence[float] | None = None,
        interpolation: str = "bilinear",
    ) -> None:
        if (degrees is None) == (angles is None):
            raise ValueError("either degrees, a number or a range, or angles, a list; the other one is null")
        if interpolation not in ("bilinear", "nearest"):
            raise ValueError(f"interpolation={interpolation}: expected bilinear or nearest")
        span = [-abs(degrees), abs(degrees)] if isinstance(degrees, int | float) else degrees
        if isinstance(degrees, bool) or span is not None:
            check_range("degrees", degrees if isinstance(degrees, bool) else span)
        if angles is not None:
            if not isinstance(angles, Sequence) or isinstance(angles, str) or not angles:
                raise ValueError(f"angles={angles}: expected a list of numbers, as in [30,90,180]")
            for angle in angles:
                check("angles", angle, float)
        self.span, self.angles, self.interpolation = span, angles, interpolation

    def draw(self, random: Generator, n: int, height: int, width: int) -> Draws:
        """Degrees."""
        if self.angles is not None:
            return (random.choice(np.asarray(self.angles, dtype=float), n),)
        assert self.span is not None
        return (random.uniform(self.span[0], self.span[1], n),)

    def apply(self, images: Tensor, draws: tuple[Tensor, ...]) -> Tensor:
        """Float32 where bilinear."""
        (degrees,) = draws
        return geometry.rotate(images, degrees, self.interpolation)


class RandomErasing(Step):
    """With probability `p` a box is painted over: Zhong et al. 2017.

    Args:
        p: of an image.
        scale: [least, most] share of the image's area.
        ratio: [least, most] width over height, log-uniform.
        mean: the colour, one a channel in 0..1: the data's mean, which is 0 to the net.
    """

    def __init__(
        self,
        p: float = 0.5,
        scale: Sequence[float] = (0.02, 0.33),
        ratio: Sequence[float] = (0.3, 3.3),
        *,
        mean: Sequence[float],
    ) -> None:
        check("p", p, float, at_least=0, at_most=1)
        check_range("scale", scale, above=0, at_most=1)
        check_range("ratio", ratio, above=0)
        self.p, self.scale, self.ratio = p, scale, ratio
        self.value = torch.tensor(mean).mul(255).round().clamp(0, 255)

    def draw(self, random: Generator, n: int, height: int, width: int) -> Draws:
        """Boxes; an empty one where there is none, or where ten did not fit."""
        h, w, fits = random_boxes(random, n, height, width, self.scale, self.ratio, smaller=True)
        fits &= random.random(n) < self.p
        h, w = np.where(fits, h, 0), np.where(fits, w, 0)
        return random.integers(0, height - h + 1), random.integers(0, width - w + 1), h, w

    def apply(self, images: Tensor, draws: tuple[Tensor, ...]) -> Tensor:
        """Keeps the type."""
        top, left, height, width = draws
        return geometry.erase(images, top, left, height, width, self.value.to(images.device))


class RandomBrightness(Step):
    """Pixels times a factor from 1 - `amount` to 1 + `amount`."""

    def __init__(self, amount: float = 0.2) -> None:
        check("amount", amount, float, at_least=0)
        self.amount = amount

    def draw(self, random: Generator, n: int, height: int, width: int) -> Draws:
        """Factors, uniform."""
        return (random.uniform(max(0.0, 1 - self.amount), 1 + self.amount, n),)

    def apply(self, images: Tensor, draws: tuple[Tensor, ...]) -> Tensor:
        """Float32."""
        (factor,) = draws
        return geometry.adjust_brightness(images, factor)


class RandomContrast(RandomBrightness):
    """Distances from the image's mean grey times a factor from 1 - `amount` to 1 + `amount`."""

    def apply(self, images: Tensor, draws: tuple[Tensor, ...]) -> Tensor:
        """Float32."""
        (factor,) = draws
        return geometry.adjust_contrast(images, factor)
