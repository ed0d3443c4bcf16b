"""Augmentation steps that mirror or rotate the image, or change its values."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

import numpy as np
import torch
from numpy.random import Generator

from cnnbench.augment import functional
from cnnbench.augment.crops import RandomBoxes
from cnnbench.augment.step import Draws, Step
from cnnbench.checks import require_choice, require_number, require_range


class RandomHorizontalFlip(Step):
    """Mirrors the image left to right, with probability `p`."""

    dimension = -1

    def __init__(self, p: float = 0.5) -> None:
        require_number("p", p, at_least=0, at_most=1)
        self.p, self.change = p, partial(functional.flip, dimension=self.dimension)

    def draw(self, random: Generator, n: int, height: int, width: int) -> Draws:
        """Draws which images are mirrored, bool."""
        return (random.random(n) < self.p,)


class RandomVerticalFlip(RandomHorizontalFlip):
    """Mirrors the image upside down, with probability `p`."""

    dimension = -2


class RandomRotation(Step):
    """Rotates the image about its middle; pixels from outside the image are black.

    Args:
        degrees: a number d, for angles from -d to d, or a range [a, b]; counter-clockwise.
        angles: instead of a range, a list from which each image gets one angle.
        interpolation: bilinear, which gives float32, or nearest, which keeps the dtype.
    """

    def __init__(
        self,
        degrees: float | Sequence[float] | None = 15,
        angles: Sequence[float] | None = None,
        interpolation: str = "bilinear",
    ) -> None:
        if (degrees is None) == (angles is None):
            raise ValueError("type either degrees, a number or a range, or angles, a list; set the other one to null")
        require_choice("interpolation", interpolation, ("bilinear", "nearest"))
        if angles is None:
            is_number = isinstance(degrees, int | float) and not isinstance(degrees, bool)
            degrees = [-abs(degrees), abs(degrees)] if is_number else degrees  # type: ignore[arg-type]
            require_range("degrees", degrees)
        else:
            if not isinstance(angles, Sequence) or isinstance(angles, str) or not angles:
                raise ValueError(f"angles={angles}: expected a list of numbers, as in [30,90,180]")
            for angle in angles:
                require_number("angles", angle)
        self.span, self.angles = degrees, angles
        self.change = partial(functional.rotate, interpolation=interpolation)

    def draw(self, random: Generator, n: int, height: int, width: int) -> Draws:
        """Draws angles in degrees."""
        if self.angles is not None:
            return (random.choice(np.asarray(self.angles, dtype=float), n),)
        low, high = self.span  # type: ignore[misc]
        return (random.uniform(low, high, n),)


class RandomErasing(Step):
    """Fills a random box of the image, with probability `p`: Zhong et al. 2017.

    Args:
        p: probability that an image is changed.
        scale: [least, most] share of the image's area.
        ratio: [least, most] width / height, log-uniform.
        mean: the colour, one number for each channel in 0..1: the data's mean, which the net sees as 0.
    """

    def __init__(
        self,
        p: float = 0.5,
        scale: Sequence[float] = (0.02, 0.33),
        ratio: Sequence[float] = (0.3, 3.3),
        *,
        mean: Sequence[float],
    ) -> None:
        require_number("p", p, at_least=0, at_most=1)
        self.p, self.boxes = p, RandomBoxes(scale, ratio)
        self.change = partial(functional.erase, value=torch.tensor(mean).mul(255).round().clamp(0, 255))

    def draw(self, random: Generator, n: int, height: int, width: int) -> Draws:
        """Draws boxes (top, left, height, width); an empty box if the image stays as it is, or if ten draws do not fit."""
        h, w, fits = self.boxes.draw(random, n, height, width, smaller=True)
        fits &= random.random(n) < self.p
        h, w = np.where(fits, h, 0), np.where(fits, w, 0)
        return random.integers(0, height - h + 1), random.integers(0, width - w + 1), h, w


class RandomBrightness(Step):
    """Multiplies all pixels by a random factor from 1 - `amount` to 1 + `amount`."""

    change = staticmethod(functional.adjust_brightness)

    def __init__(self, amount: float = 0.2) -> None:
        require_number("amount", amount, at_least=0)
        self.amount = amount

    def draw(self, random: Generator, n: int, height: int, width: int) -> Draws:
        """Draws factors, uniform, at least 0."""
        return (random.uniform(max(0.0, 1 - self.amount), 1 + self.amount, n),)


class RandomContrast(RandomBrightness):
    """Multiplies each pixel's distance from the image's mean grey value by a random factor from 1 - `amount` to 1 + `amount`."""

    change = staticmethod(functional.adjust_contrast)
