"""Images drawn from a seed, of any shape and number of classes, that a net can learn."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F

from cnnbench.data.datamodule import ImageData, Official
from cnnbench.data.loader import Images
from cnnbench.data.splits import Size
from cnnbench.errors import ConfigError


class Synthetic(ImageData):
    """Each class is a smooth random pattern; an image is its class's pattern, shifted around, dimmed, under pixel noise.

    The classes take turns. The first n images of a split are the same whatever the split's size. Labels and patterns come
    from `seed` alone, so that train and test differ in their images only.
    """

    name = "synthetic"
    measured_on = "nothing: the middle of the range, and a deviation that is about right"
    licence = origin = "made here"

    def __init__(
        self,
        *,
        channels: int = 1,
        num_classes: int = 10,
        seed: int = 0,
        noise: float = 0.2,
        image_size: Any = "auto",
        **keys: Any,
    ) -> None:
        for key, value, least in (("channels", channels, 1), ("num_classes", num_classes, 2), ("seed", seed, 0)):
            if not isinstance(value, int) or isinstance(value, bool) or value < least:
                raise ConfigError(
                    f"data.{key}={value}: expected an integer of at least {least}; for instance data.{key}={least}"
                )
        if not isinstance(noise, int | float) or isinstance(noise, bool) or not 0 <= noise < math.inf:
            raise ConfigError(f"data.noise={noise}: expected a number of at least 0; for instance data.noise=0.2")
        self.channels, self.seed, self.noise = channels, seed, noise
        self.classes = tuple(f"class{number}" for number in range(num_classes))
        self.own_mean, self.own_std = (0.5,) * channels, (0.25,) * channels
        self.size = self.size if image_size == "auto" else image_size  # drawn at the size that is asked for
        super().__init__(image_size=image_size, **keys)

    def count(self, official: Official) -> int:
        """As many images as the sizes reach."""
        if official == "test":
            return _reach(self.test_size)
        if isinstance(self.val_size, int):
            return _reach(self.train_size) + self.val_size
        return max(_reach(self.train_size), _reach(self.val_size))

    def read(self, official: Official) -> Images:
        """Draws an official split."""
        total = self.count(official)
        patterns = self._patterns()
        split = ("train", "test").index(official)
        shifts, contrasts, noise = (np.random.default_rng([self.seed, split, part]) for part in (1, 2, 3))
        labels = np.arange(total) % self.num_classes
        span = max(1, self.size // 8)
        images = np.empty((total, self.channels, self.size, self.size), dtype=np.uint8)
        for number, label in enumerate(labels):
            shift = shifts.integers(-span, span + 1, size=2)
            image = 0.5 + contrasts.uniform(0.6, 1.0) * (np.roll(patterns[label], shift, axis=(1, 2)) - 0.5)
            image = image + noise.normal(0, self.noise, image.shape)
            images[number] = np.clip(image * 255, 0, 255).round()
        return Images(torch.from_numpy(images), torch.from_numpy(labels))

    def _patterns(self) -> np.ndarray:
        """(num_classes, C, size, size) in 0..1: four by four random values each, smoothly enlarged."""
        coarse = np.random.default_rng([self.seed, 0]).uniform(0, 1, (self.num_classes, self.channels, 4, 4))
        smooth = F.interpolate(torch.from_numpy(coarse), (self.size, self.size), mode="bicubic", align_corners=False)
        return smooth.clamp(0, 1).numpy()


def _reach(size: Size) -> int:
    """One more than the last index that a size names; a size must be given, since nothing else bounds the set."""
    if size is None:
        raise ConfigError("data=synthetic: its sizes are counts and cannot be null; for instance data.train_size=2000")
    return size if isinstance(size, int) else size[1]
