"""MNIST's file format: checked before it is trusted, fetched where it is absent, read by torchvision."""

from __future__ import annotations

import struct
from pathlib import Path
from typing import Literal

from cnnbench.data.base import ImageData
from cnnbench.data.store import Images
from cnnbench.errors import DataError

FILES = ("train-images-idx3-ubyte", "train-labels-idx1-ubyte", "t10k-images-idx3-ubyte", "t10k-labels-idx1-ubyte")
AGAIN = "delete it and run again to fetch it anew"


class IdxData(ImageData):
    """A set in MNIST's files, `<root>/<torchvision class>/raw/*-ubyte`."""

    fetchable = True
    torchvision_name: str

    @property
    def folder(self) -> Path:
        """Where the four files lie."""
        return self.root / self.torchvision_name / "raw"

    def files(self) -> list[Path]:
        """Images and labels of the train and the test split, unpacked."""
        return [self.folder / file for file in FILES]

    def download(self) -> None:
        """By torchvision, which knows mirrors and checksums."""
        import torchvision.datasets

        getattr(torchvision.datasets, self.torchvision_name)(str(self.root), download=True)

    def count(self, official: Literal["train", "test"]) -> int:
        """From the labels' header."""
        return idx_shape(self.files()[1 if official == "train" else 3], 1)[0]

    def check(self) -> None:
        """Header, size, as many labels as images, and only labels of classes that there are, in each split."""
        for images, labels in (self.files()[:2], self.files()[2:]):
            height, width = self.size, self.size
            n, *image = idx_shape(images, 3)
            (m,) = idx_shape(labels, 1)
            if [height, width] != image:
                raise DataError(
                    f"data={self.name}: {images} holds images of {image[0]}×{image[1]}, expected {height}×{width}"
                )
            if n != m:
                raise DataError(f"data={self.name}: {images} holds {n} images, {labels.name} {m} labels; {AGAIN}")
            if not n:
                raise DataError(f"data={self.name}: {images} holds no images; {AGAIN}")
            largest = max(labels.read_bytes()[8:], default=0)
            if largest >= self.num_classes:
                raise DataError(
                    f"{labels}: corrupt, it has a label {largest}, expected 0 to {self.num_classes - 1}; {AGAIN}"
                )

    def read(self, official: Literal["train", "test"]) -> Images:
        """One of the two splits."""
        from torchvision.datasets.mnist import read_image_file, read_label_file

        images, labels = self.files()[:2] if official == "train" else self.files()[2:]
        return Images(read_image_file(str(images)).unsqueeze(1), read_label_file(str(labels)))


def idx_shape(path: Path, dimensions: int) -> list[int]:
    """The shape in an idx file's header, once the file's magic number and length agree with it.

    Raises:
        DataError: absent, not an idx file of unsigned bytes, or shorter or longer than its header says.
    """
    try:
        with path.open("rb") as file:
            header = file.read(4 + 4 * dimensions)
        length = path.stat().st_size
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({error.strerror})") from error
    if len(header) < 4 + 4 * dimensions or header[:4] != bytes([0, 0, 8, dimensions]):
        raise DataError(f"{path}: corrupt, it does not begin as an idx file of {dimensions} dimensions does; {AGAIN}")
    shape = list(struct.unpack(f">{dimensions}I", header[4:]))
    expected = len(header)
    volume = 1
    for extent in shape:
        volume *= extent
    if length != expected + volume:
        raise DataError(f"{path}: corrupt, {length:,} bytes where its header says {expected + volume:,}; {AGAIN}")
    return shape
