"""Steps of an augmentation that choose a part of the image, or its size."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import torch
from numpy.random import Generator
from torch import Tensor

from cnnbench.augment import functional as geometry
from cnnbench.augment.step import Draws, Step, check, check_range


class RandomCrop(Step):
    """A window as large as the net's images, anywhere in the image with `padding` black pixels around it.

    Args:
        padding: pixels.
        image_size: pixels a side that the net takes.
    """

    def __init__(self, padding: int = 0, *, image_size: int) -> None:
        check("padding", padding, int, at_least=0)
        self.padding, self.side = padding, image_size

    def draw(self, random: Generator, n: int, height: int, width: int) -> Draws:
        """Upper left corners, uniform over all places."""
        rooms = (height + 2 * self.padding - self.side, width + 2 * self.padding - self.side)
        if min(rooms) < 0:
            raise ValueError(
                f"images of {height}×{width} have no window of {self.side}×{self.side}; scale them up before"
            )
        return tuple(random.integers(0, room + 1, n) for room in rooms)

    def apply(self, images: Tensor, draws: tuple[Tensor, ...]) -> Tensor:
        """Keeps the type."""
        padded = geometry.pad(images, self.padding) if self.padding else images
        top, left = draws
        return geometry.crop(padded, top, left, self.side, self.side)


class CenterCrop(Step):
    """The middle of the image, as large as the net's images."""

    def __init__(self, *, image_size: int) -> None:
        self.side = image_size

    def apply(self, images: Tensor, draws: tuple[Tensor, ...]) -> Tensor:
        """Keeps the type."""
        return geometry.center_crop(images, self.side)


class Pad(Step):
    """Black around the image, `pixels` on every side."""

    def __init__(self, pixels: int = 4) -> None:
        check("pixels", pixels, int, at_least=0)
        self.pixels = pixels

    def apply(self, images: Tensor, draws: tuple[Tensor, ...]) -> Tensor:
        """Keeps the type."""
        return geometry.pad(images, self.pixels)


class Resize(Step):
    """Every image scaled to the same size. As the first step it is done once, when the images are stored.

    Args:
        side: pixels a side, for nets that take `of`; for others in proportion.
        of: see `side`; None: `side` is meant as it stands.
        image_size: pixels a side that the net takes.
    """

    def __init__(self, side: int, of: int | None = None, *, image_size: int) -> None:
        check("side", side, int, at_least=1)
        check_of(of)
        self.side = in_proportion(side, of, image_size)

    def stored_side(self, native: int, image_size: int) -> int:
        """Its own size: that is how it is done once."""
        return self.side

    def draw(self, random: Generator, n: int, height: int, width: int) -> Draws:
        """The same for all."""
        return (np.full(n, self.side),)

    def apply(self, images: Tensor, draws: tuple[Tensor, ...]) -> Tensor:
        """Float32, unless they have the size already."""
        (scaled,) = draws
        if images.shape[-1] == self.side:
            return images
        zero = torch.zeros_like(scaled)
        return geometry.scaled_crop(images, scaled, zero, zero, self.side)


class ScaleJitter(Step):
    """Scale jitter of VGG's section 3.1: the short side to S, drawn for each image, then a random crop of the net's size.

    Args:
        short_side: [smallest, largest] S, both included, for nets that take `of` pixels a side; for others in proportion.
        of: see `short_side`.
        image_size: pixels a side that the net takes.
    """

    def __init__(self, short_side: Sequence[int] = (256, 512), of: int | None = 224, *, image_size: int) -> None:
        check_range("short_side", short_side, int, at_least=1)
        check_of(of)
        self.low, self.high = (in_proportion(side, of, image_size) for side in short_side)
        if self.low < image_size:
            raise ValueError(
                f"short_side: {self.low} pixels have no window of {image_size}×{image_size}; type at least that"
            )
        self.side = image_size

    def stored_side(self, native: int, image_size: int) -> int:
        """As large as the images are, where S is never larger: nothing is scaled up and down again."""
        return min(native, self.high)

    def draw(self, random: Generator, n: int, height: int, width: int) -> Draws:
        """S uniform over the integers of its range, then a corner uniform over all places."""
        scaled = random.integers(self.low, self.high + 1, n)
        top, left = (random.integers(0, scaled - self.side + 1) for _ in range(2))
        return scaled, top, left

    def apply(self, images: Tensor, draws: tuple[Tensor, ...]) -> Tensor:
        """Float32."""
        scaled, top, left = draws
        return geometry.scaled_crop(images, scaled, top, left, self.side)


class RandomResizedCrop(Step):
    """A box of random area and shape, scaled to the net's size: Szegedy et al. 2015, section 6.

    Args:
        scale: [least, most] share of the image's area.
        ratio: [least, most] width over height, log-uniform.
        image_size: pixels a side that the net takes.
    """

    def __init__(
        self, scale: Sequence[float] = (0.08, 1.0), ratio: Sequence[float] = (3 / 4, 4 / 3), *, image_size: int
    ) -> None:
        check_range("scale", scale, above=0, at_most=1)
        check_range("ratio", ratio, above=0)
        self.scale, self.ratio, self.side = scale, ratio, image_size

    def stored_side(self, native: int, image_size: int) -> int:
        """As large as the images are, up to twice what the net takes: a small box is to show what the picture shows."""
        return min(native, 2 * image_size)

    def draw(self, random: Generator, n: int, height: int, width: int) -> Draws:
        """Boxes that fit; after ten that do not, the largest of an allowed shape, in the middle."""
        h, w, fits = random_boxes(random, n, height, width, self.scale, self.ratio)
        shape = min(max(width / height, self.ratio[0]), self.ratio[1])
        middle = (min(height, max(1, round(width / shape))), min(width, max(1, round(height * shape))))
        h, w = np.where(fits, h, middle[0]), np.where(fits, w, middle[1])
        top, left = random.integers(0, height - h + 1), random.integers(0, width - w + 1)
        return np.where(fits, top, (height - h) // 2), np.where(fits, left, (width - w) // 2), h, w

    def apply(self, images: Tensor, draws: tuple[Tensor, ...]) -> Tensor:
        """Float32."""
        top, left, height, width = draws
        return geometry.resized_crop(images, top, left, height, width, self.side)


def random_boxes(
    random: Generator,
    n: int,
    height: int,
    width: int,
    scale: Sequence[float],
    ratio: Sequence[float],
    smaller: bool = False,
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """(heights, widths, whether they fit), each (n,): the first of ten draws that fits, `smaller` than the image if so asked."""
    area = height * width * random.uniform(scale[0], scale[1], (10, n))
    shape = np.exp(random.uniform(math.log(ratio[0]), math.log(ratio[1]), (10, n)))
    w, h = np.sqrt(area * shape).round().astype(int), np.sqrt(area / shape).round().astype(int)
    fits = (w > 0) & (h > 0) & (w <= width - smaller) & (h <= height - smaller)
    first, one = fits.argmax(axis=0), np.arange(n)
    return h[first, one], w[first, one], fits.any(axis=0)


def check_of(of: int | None) -> None:
    """Raises where `of` is neither null nor a number of pixels."""
    if of is not None:
        check("of", of, int, at_least=1)


def in_proportion(side: int, of: int | None, image_size: int) -> int:
    """`side` for nets that take `of` pixels, scaled to those that take `image_size`."""
    return side if of is None else max(1, round(side * image_size / of))
