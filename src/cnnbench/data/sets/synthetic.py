"""Images generated from a seed, of any shape and number of classes, that a net can learn."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F

from cnnbench.checks import require_number
from cnnbench.data.datamodule import ImageData, Official
from cnnbench.data.loader import Images
from cnnbench.errors import ConfigError


class Synthetic(ImageData):
    """Each class is a smooth random pattern; an image is its class's pattern, shifted, dimmed and with pixel noise added.

    Labels run through the classes: 0, 1, ..., 0, 1, ... The first n images of a split are the same for every size of the
    split. Labels and patterns depend on `seed` only, so train and test differ in shifts, brightness and noise only.

    Args:
        channels: of an image, at most 1024.
        num_classes: number of classes, 2 to 100,000.
        seed: of the images; the run's seed does not change them.
        noise: standard deviation of the pixel noise, of pixels scaled to 0..1.
        keys: as for every data set; images are generated at `image_size`, 28 pixels a side where it is `auto`. The sizes of
            the splits may not be null, since nothing else limits the set.

    Raises:
        ConfigError: a key has a wrong value.
    """

    name = "synthetic"
    measured_on = "nothing: 0.5 is the middle of the range, 0.25 a rough estimate"
    licence = origin = "made here"

    def __init__(
        self,
        *,
        channels: int = 1,
        num_classes: int = 10,
        seed: int = 0,
        noise: float = 0.2,
        **keys: Any,
    ) -> None:
        for key, value, least, most, example in (
            ("channels", channels, 1, 1024, 1),
            ("num_classes", num_classes, 2, 100_000, 2),
            ("seed", seed, 0, math.inf, 0),
            ("noise", noise, 0, math.inf, 0.2),
        ):
            try:
                require_number(f"data.{key}", value, integer=isinstance(example, int), at_least=least, at_most=most)
            except ValueError as error:
                raise ConfigError(f"{error}; for instance data.{key}={example}") from error
        self.channels, self.seed, self.noise = channels, seed, noise
        self.classes = tuple(f"class{number}" for number in range(num_classes))
        self.own_mean, self.own_std = (0.5,) * channels, (0.25,) * channels
        super().__init__(**keys)
        self.size = self.image_size

    def count(self, official: Official) -> int:
        """The largest number of images that the sizes ask for."""
        if official == "test":
            return self._end("test_size")
        if isinstance(self.keys.val_size, int):
            return self._end("train_size") + self.keys.val_size
        return max(self._end("train_size"), self._end("val_size"))

    def labels(self, official: Official) -> np.ndarray:
        """(N,) int64, the classes in turn."""
        return np.arange(self.count(official)) % self.num_classes

    def read(self, official: Official) -> Images:
        """Generates an official split: pixels (N, C, H, W) uint8 and labels (N,) int64."""
        total = self.count(official)
        patterns = self._patterns()
        split = ("train", "test").index(official)
        shifts, contrasts, noise = (np.random.default_rng([self.seed, split, part]) for part in (1, 2, 3))
        labels = self.labels(official)
        span = max(1, self.size // 8)
        images = np.empty((total, self.channels, self.size, self.size), dtype=np.uint8)
        for number, label in enumerate(labels):
            shift = shifts.integers(-span, span + 1, size=2)
            image = 0.5 + contrasts.uniform(0.6, 1.0) * (np.roll(patterns[label], shift, axis=(1, 2)) - 0.5)
            image = image + noise.normal(0, self.noise, image.shape)
            images[number] = np.clip(image * 255, 0, 255).round()
        return Images(torch.from_numpy(images), torch.from_numpy(labels))

    def _patterns(self) -> np.ndarray:
        """(num_classes, C, size, size) in 0..1: 4 × 4 random values each, enlarged smoothly."""
        coarse = np.random.default_rng([self.seed, 0]).uniform(0, 1, (self.num_classes, self.channels, 4, 4))
        smooth = F.interpolate(torch.from_numpy(coarse), (self.size, self.size), mode="bicubic", align_corners=False)
        return smooth.clamp(0, 1).numpy()

    def _end(self, key: str) -> int:
        """One more than the last index that a size names."""
        size = getattr(self.keys, key)
        if size is None:
            raise ConfigError(
                "data=synthetic: its sizes are counts and cannot be null; for instance data.train_size=2000"
            )
        return size if isinstance(size, int) else size[1]
