"""The file format of the CIFAR sets: pickles, which torchvision reads after their published checksums were verified."""

from __future__ import annotations

from typing import Any

import torch

from cnnbench.data.datamodule import ImageData, Official
from cnnbench.data.loader import Images


class CifarData(ImageData):
    """A set in the Python version of the CIFAR archives, unpacked in the root, where torchvision expects it."""

    channels, size = 3, 32
    torchvision_name: str
    licence = "none stated; cite Krizhevsky 2009"
    origin = "Krizhevsky 2009, Learning Multiple Layers of Features from Tiny Images; https://www.cs.toronto.edu/~kriz/cifar.html"

    def count(self, official: Official) -> int:
        """The published number of images, which the checksums guarantee."""
        return 50_000 if official == "train" else 10_000

    def read(self, official: Official) -> Images:
        """Reads an official split: pixels (N, 3, 32, 32) uint8 and labels (N,) int64."""
        import torchvision.datasets

        dataset: Any = getattr(torchvision.datasets, self.torchvision_name)(str(self.root), train=official == "train")
        return Images(torch.from_numpy(dataset.data).permute(0, 3, 1, 2).contiguous(), torch.tensor(dataset.targets))
