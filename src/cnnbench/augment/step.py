"""Random changes of training images, a whole batch at a time, with random numbers of its own for every image.

A step draws its parameters for the whole global batch from a stream of its own, seeded by (seed, epoch, batch, name of the
step): an image is changed in the same way on one device or many, whichever batch a resumed run begins with, and whichever
other steps there are.
"""

from __future__ import annotations

import math
import zlib
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from numpy.random import Generator
from torch import Tensor

Draws = tuple[np.ndarray, ...]  # parameters, each (n,)


class Step:
    """One change: random numbers to parameters, images with parameters to images."""

    def stored_side(self, native: int, image_size: int) -> int | None:
        """Pixels a side of the images that it had best begin with, where it is the first step; None: the net's own.

        Args:
            native: pixels a side that the set's images have.
            image_size: pixels a side that the net takes.
        """
        return None

    def draw(self, random: Generator, n: int, height: int, width: int) -> Draws:
        """Parameters for n images of height × width, each (n,); none, where nothing is random."""
        return ()

    def apply(self, images: Tensor, draws: tuple[Tensor, ...]) -> Tensor:
        """(N, C, H, W) uint8 or float32 in 0..255, parameters (N,) each -> (N, C, H', W')."""
        raise NotImplementedError


class Augment:
    """Steps by name, in their order."""

    def __init__(self, steps: Mapping[str, Step]) -> None:
        self.steps = dict(steps)

    def stored_side(self, native: int, image_size: int) -> int | None:
        """Pixels a side of the images that the first step had best begin with; None: the net's own."""
        first = next(iter(self.steps.values()), None)
        return first.stored_side(native, image_size) if first else None

    def __call__(self, images: Tensor, seed: int, epoch: int, batch: int, at: np.ndarray | slice, n: int) -> Tensor:
        """Changes images that stand at the places `at` among the `n` of a global batch."""
        for name, step in self.steps.items():
            random = np.random.default_rng([seed, epoch, batch, zlib.crc32(name.encode())])
            draws = step.draw(random, n, *images.shape[-2:])
            images = step.apply(images, tuple(_tensor(draw[at], images.device) for draw in draws))
        return images


def _tensor(values: np.ndarray, device: torch.device) -> Tensor:
    return torch.from_numpy(np.ascontiguousarray(values)).to(device, non_blocking=True)


def check(
    key: str,
    value: Any,
    kind: type,
    *,
    at_least: float = -math.inf,
    above: float = -math.inf,
    at_most: float = math.inf,
) -> None:
    """Raises where a value is not a number of its kind within its bounds."""
    right = isinstance(value, int if kind is int else int | float) and not isinstance(value, bool)
    if not right or not (at_least <= value <= at_most and value > above) or not math.isfinite(value):
        bounds = [f"at least {at_least:g}"] * (at_least > -math.inf) + [f"above {above:g}"] * (above > -math.inf)
        bounds += [f"at most {at_most:g}"] * (at_most < math.inf)
        raise ValueError(
            f"{key}={value}: expected {'an integer' if kind is int else 'a number'} {', '.join(bounds)}".rstrip()
        )


def check_range(key: str, values: Any, kind: type = float, **bounds: float) -> None:
    """Raises where values are not [a, b] with a at most b, both within bounds."""
    if not isinstance(values, Sequence) or isinstance(values, str) or len(values) != 2:
        raise ValueError(f"{key}={values}: expected a range [a,b]")
    for value in values:
        check(key, value, kind, **bounds)
    if values[0] > values[1]:
        raise ValueError(f"{key}={list(values)}: expected a range [a,b] with a at most b")
