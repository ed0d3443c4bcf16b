"""CIFAR-10."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

import torch

from cnnbench.data.base import ImageData
from cnnbench.data.store import Images
from cnnbench.errors import DataError

FILES = (*(f"data_batch_{number}" for number in range(1, 6)), "test_batch", "batches.meta")


class CIFAR10(ImageData):
    """50,000 + 10,000 photographs, 32×32 (Krizhevsky 2009). Mean and deviation over all train pixels of a channel."""

    name = "cifar10"
    fetchable = True
    classes = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")
    channels, size = 3, 32
    own_mean, own_std = (0.4914, 0.4822, 0.4465), (0.2470, 0.2435, 0.2616)

    def files(self) -> list[Path]:
        """The Python version's seven files."""
        return [self.root / "cifar-10-batches-py" / file for file in FILES]

    def download(self) -> None:
        """By torchvision."""
        self._torchvision(train=True, download=True)

    def count(self, official: Literal["train", "test"]) -> int:
        """As published; the checksums see to it."""
        return 50_000 if official == "train" else 10_000

    def check(self) -> None:
        """The published checksums: the files are pickles, and are read only when these hold."""
        from torchvision.datasets import CIFAR10 as Torchvision  # noqa: N811  (the same name for the same set)
        from torchvision.datasets.utils import check_integrity

        sums = dict(Torchvision.train_list + Torchvision.test_list)
        sums[Torchvision.meta["filename"]] = Torchvision.meta["md5"]
        for path in self.files():
            if not check_integrity(str(path), sums[path.name]):
                raise DataError(
                    f"{path}: corrupt, its MD5 sum is not {sums[path.name]}; delete it and run again to fetch it anew"
                )

    def read(self, official: Literal["train", "test"]) -> Images:
        """One of the two splits."""
        dataset = self._torchvision(train=official == "train", download=False)
        return Images(torch.from_numpy(dataset.data).permute(0, 3, 1, 2).contiguous(), torch.tensor(dataset.targets))

    def _torchvision(self, **options: Any) -> Any:
        from torchvision.datasets import CIFAR10 as Torchvision  # noqa: N811

        return Torchvision(str(self.root), **options)
