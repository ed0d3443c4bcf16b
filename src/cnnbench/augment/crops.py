"""Augmentation steps that cut out a part of the image or change its size."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np
import torch
from numpy.random import Generator
from torch import Tensor

from cnnbench.augment import functional
from cnnbench.augment.step import Draws, Step
from cnnbench.checks import require_number, require_range


class RandomCrop(Step):
    """Cuts out a random window of the net's image size, after padding the image with black.

    Args:
        padding: pixels on every side.
        image_size: pixels a side of the net's input.
    """

    def __init__(self, padding: int = 0, *, image_size: int) -> None:
        require_number("padding", padding, integer=True, at_least=0)
        self.padding, self.side = padding, image_size
        self.change = partial(functional.crop, height=image_size, width=image_size)

    def draw(self, random: Generator, n: int, height: int, width: int) -> Draws:
        """Draws upper left corners (top, left), uniform over all positions."""
        rooms = [extent + 2 * self.padding - self.side for extent in (height, width)]
        if min(rooms) < 0:
            raise ValueError(
                f"images of {height}×{width} have no window of {self.side}×{self.side}; put a step before it that enlarges them"
            )
        return tuple(random.integers(0, room + 1, n) for room in rooms)

    def apply(self, images: Tensor, draws: tuple[Tensor, ...]) -> Tensor:
        """Pads and crops the images; keeps their dtype."""
        return super().apply(functional.pad(images, self.padding) if self.padding else images, draws)


class CenterCrop(Step):
    """Cuts out the middle of the image, at the net's image size; keeps the dtype."""

    def __init__(self, *, image_size: int) -> None:
        self.change = partial(functional.center_crop, side=image_size)


class Pad(Step):
    """Adds `pixels` black pixels on every side of the image; keeps the dtype."""

    def __init__(self, pixels: int = 4) -> None:
        require_number("pixels", pixels, integer=True, at_least=0)
        self.change = partial(functional.pad, pixels=pixels)


class Resize(Step):
    """Scales every image to the same size. As the first step it runs only once, when the images are stored.

    Args:
        side: pixels a side if the net's input is `of` pixels; for another input in proportion.
        of: see `side`; None: `side` holds for every input size.
        image_size: pixels a side of the net's input.
    """

    def __init__(self, side: int, of: int | None = None, *, image_size: int) -> None:
        require_number("side", side, integer=True, at_least=1)
        self.side = scale_side(side, of, image_size)

    def stored_side(self, native: int, image_size: int) -> int:
        """The step's output size, so that storing the images does the step's work."""
        return self.side

    def apply(self, images: Tensor, draws: tuple[Tensor, ...]) -> Tensor:
        """Scales the images to float32; images that already have the size are returned unchanged."""
        if images.shape[-1] == self.side:
            return images
        zero = torch.zeros(len(images), dtype=torch.int64, device=images.device)
        return functional.scaled_crop(images, zero + self.side, zero, zero, self.side)


class ScaleJitter(Step):
    """Scale jitter of VGG (section 3.1): scales the short side to a random S, then takes a random crop of the net's image size.

    Args:
        short_side: [smallest, largest] S, inclusive, if the net's input is `of` pixels; for another input in proportion.
        of: see `short_side`; None: `short_side` holds for every input size.
        image_size: pixels a side of the net's input.
    """

    def __init__(self, short_side: Sequence[int] = (256, 512), of: int | None = 224, *, image_size: int) -> None:
        require_range("short_side", short_side, integer=True, at_least=1)
        self.low, self.high = (scale_side(side, of, image_size) for side in short_side)
        if self.low < image_size:
            raise ValueError(
                f"short_side: {self.low} pixels have no window of {image_size}×{image_size}; type at least that"
            )
        self.side, self.change = image_size, partial(functional.scaled_crop, side=image_size)

    def stored_side(self, native: int, image_size: int) -> int:
        """The images' size, at most the largest S: no image is enlarged and then reduced."""
        return min(native, self.high)

    def draw(self, random: Generator, n: int, height: int, width: int) -> Draws:
        """Draws S, uniform over the integers of its range, then a corner, uniform over all positions."""
        scaled = random.integers(self.low, self.high + 1, n)
        top, left = (random.integers(0, scaled - self.side + 1) for _ in range(2))
        return scaled, top, left


class RandomResizedCrop(Step):
    """Cuts out a box of random area and aspect ratio and scales it to the net's image size: Szegedy et al. 2015, section 6.

    Args:
        scale: [least, most] share of the image's area.
        ratio: [least, most] width / height, log-uniform.
        image_size: pixels a side of the net's input.
    """

    def __init__(
        self, scale: Sequence[float] = (0.08, 1.0), ratio: Sequence[float] = (3 / 4, 4 / 3), *, image_size: int
    ) -> None:
        self.boxes, self.change = RandomBoxes(scale, ratio), partial(functional.resized_crop, side=image_size)

    def stored_side(self, native: int, image_size: int) -> int:
        """The images' size, at most twice the net's input: a small box then still has enough pixels."""
        return min(native, 2 * image_size)

    def draw(self, random: Generator, n: int, height: int, width: int) -> Draws:
        """Draws boxes (top, left, height, width); if ten draws do not fit, takes the largest allowed box in the middle."""
        h, w, fits = self.boxes.draw(random, n, height, width)
        narrowest, widest = self.boxes.ratio
        shape = min(max(width / height, narrowest), widest)
        middle = (min(height, max(1, round(width / shape))), min(width, max(1, round(height * shape))))
        h, w = np.where(fits, h, middle[0]), np.where(fits, w, middle[1])
        top, left = random.integers(0, height - h + 1), random.integers(0, width - w + 1)
        return np.where(fits, top, (height - h) // 2), np.where(fits, left, (width - w) // 2), h, w


@dataclass(frozen=True)
class RandomBoxes:
    """Draws the sizes of random boxes.

    Attributes:
        scale: [least, most] share of the image's area, uniform.
        ratio: [least, most] width / height, log-uniform.

    Raises:
        ValueError: one of them is no range of numbers above 0, or a share is above 1.
    """

    scale: Sequence[float]
    ratio: Sequence[float]

    def __post_init__(self) -> None:
        require_range("scale", self.scale, above=0, at_most=1)
        require_range("ratio", self.ratio, above=0)

    def draw(
        self, random: Generator, n: int, height: int, width: int, smaller: bool = False
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Draws ten boxes for each of n images of height × width and takes the first that fits.

        With `smaller` a box must be smaller than the image along both sides.

        Returns:
            heights, widths and whether a box fits, each (n,).
        """
        (least, most), (narrowest, widest) = self.scale, map(math.log, self.ratio)
        area = height * width * random.uniform(least, most, (10, n))
        shape = np.exp(random.uniform(narrowest, widest, (10, n)))
        w, h = np.sqrt(area * shape).round().astype(int), np.sqrt(area / shape).round().astype(int)
        fits = (w > 0) & (h > 0) & (w <= width - smaller) & (h <= height - smaller)
        first, image = fits.argmax(axis=0), np.arange(n)
        return h[first, image], w[first, image], fits.any(axis=0)


def scale_side(side: int, of: int | None, image_size: int) -> int:
    """Scales `side`, meant for a net's input of `of` pixels, to an input of `image_size`; `of` None: returns `side`.

    Raises:
        ValueError: `of` is neither None nor an integer above 0.
    """
    if of is None:
        return side
    require_number("of", of, integer=True, at_least=1)
    return max(1, round(side * image_size / of))
