"""The CIFAR sets' file format: pickles, which are read, by torchvision, only when their published checksums hold."""

from __future__ import annotations

from typing import Any

import torch

from cnnbench.data.datamodule import ImageData, Official
from cnnbench.data.loader import Images


class CifarData(ImageData):
    """A set in the Python version of the CIFAR archives, unpacked in the root, where torchvision looks for it."""

    channels, size = 3, 32
    torchvision_name: str

    def count(self, official: Official) -> int:
        """As published; the checksums see to it."""
        return 50_000 if official == "train" else 10_000

    def read(self, official: Official) -> Images:
        """One of the two splits."""
        import torchvision.datasets

        dataset: Any = getattr(torchvision.datasets, self.torchvision_name)(str(self.root), train=official == "train")
        return Images(torch.from_numpy(dataset.data).permute(0, 3, 1, 2).contiguous(), torch.tensor(dataset.targets))
