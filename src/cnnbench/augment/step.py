"""Random changes of training images, a whole batch at a time, with separate random numbers for each image.

A step draws its parameters for the whole global batch from a random stream seeded by (seed, epoch, batch, name of the
step). So an image is changed in the same way on one device and on many, after a resume, and with other steps before it.
"""

from __future__ import annotations

import zlib
from collections.abc import Callable, Mapping

import numpy as np
import torch
from numpy.random import Generator
from torch import Tensor

Draws = tuple[np.ndarray, ...]  # parameters, each (n,)


class Step:
    """One change of a batch: `draw` turns random numbers into parameters, `apply` changes images by these parameters.

    Attributes:
        change: (images, *parameters) -> images; what `apply` calls in a step that does not define its own `apply`.
    """

    change: Callable[..., Tensor]

    def stored_side(self, native: int, image_size: int) -> int | None:
        """Pixels a side at which images should be stored if this is the first step; None: at the net's image size.

        Args:
            native: pixels a side of the data set's images.
            image_size: pixels a side of the net's input.
        """
        return None

    def draw(self, random: Generator, n: int, height: int, width: int) -> Draws:
        """Draws the parameters, each (n,), for n images of height × width; an empty tuple if nothing is random."""
        return ()

    def apply(self, images: Tensor, draws: tuple[Tensor, ...]) -> Tensor:
        """Changes images (N, C, H, W), uint8 or float32 in 0..255, by parameters (N,) each -> (N, C, H', W')."""
        return self.change(images, *draws)


class Augment:
    """Applies named steps in their order."""

    def __init__(self, steps: Mapping[str, Step]) -> None:
        self.steps = dict(steps)

    def stored_side(self, native: int, image_size: int) -> int | None:
        """Pixels a side at which images should be stored for the first step; None: at the net's image size."""
        return next(iter(self.steps.values()), Step()).stored_side(native, image_size)

    def __call__(self, images: Tensor, seed: int, epoch: int, batch: int, at: np.ndarray | slice, n: int) -> Tensor:
        """Changes images (N, C, H, W) that have the positions `at`, (N,) or a slice, in a global batch of `n` images."""
        for name, step in self.steps.items():
            random = np.random.default_rng([seed, epoch, batch, zlib.crc32(name.encode())])
            draws = step.draw(random, n, *images.shape[-2:])
            parts = (torch.from_numpy(draw[at]).to(images.device, non_blocking=True) for draw in draws)
            images = step.apply(images, tuple(parts))
        return images
