"""MNIST's file format: verified here, read by torchvision."""

from __future__ import annotations

import math
import struct
from pathlib import Path

from cnnbench.data.datamodule import ImageData, Official
from cnnbench.data.download.mirrors import Remote
from cnnbench.data.loader import Images
from cnnbench.data.ownership import advice_for
from cnnbench.data.read_only import is_read_only
from cnnbench.errors import CorruptFile, DataError

FILES = ("train-images-idx3-ubyte", "train-labels-idx1-ubyte", "t10k-images-idx3-ubyte", "t10k-labels-idx1-ubyte")
# images of MNIST, FashionMNIST and similar sets
PUBLISHED_COUNTS: dict[Official, int] = {"train": 60_000, "test": 10_000}


def idx_remotes(mirrors: tuple[str, ...], *published: tuple[int, str]) -> tuple[Remote, ...]:
    """The four published archives, from (size in bytes, checksum) of each in the order of `FILES`."""
    return tuple(
        Remote(f"{file}.gz", size, checksum, mirrors, (file,))
        for file, (size, checksum) in zip(FILES, published, strict=True)
    )


class IdxData(ImageData):
    """A set in MNIST's files, `<root>/<folder_name>/raw/*-ubyte`, where torchvision expects them.

    A split with another number of images than published is accepted: it may be a part of the set, or the user's own.
    """

    channels, size = 1, 28
    folder_name: str

    @property
    def folder(self) -> Path:
        """Folder of the four files."""
        return self.root / self.folder_name / "raw"

    def count(self, official: Official) -> int:
        """Number of images in an official split, from its labels' header; the published one in the read-only mode without files."""
        labels = self._split_files(official)[1]
        return PUBLISHED_COUNTS[official] if is_read_only() and not labels.is_file() else idx_shape(labels, 1)[0]

    def check(self) -> None:
        """Checks each split's headers, sizes and labels, and its published checksums where its size is the published one.

        Raises:
            DataError: a file is absent or wrong.
        """
        for official, published in PUBLISHED_COUNTS.items():
            has_published_size = self._check_split(official) == published
            for path in self._split_files(official):
                if has_published_size or path.name not in self.sums:
                    self.require_checksum(path)

    def _split_files(self, official: str) -> list[Path]:
        """Images and labels of an official split."""
        return self.files()[:2] if official == "train" else self.files()[2:]

    def _check_split(self, official: str) -> int:
        """Number of images in a split; checks that their size, the number of labels and the classes are right."""
        images, labels = self._split_files(official)
        try:
            n, *image = idx_shape(images, 3)
            (m,) = idx_shape(labels, 1)
        except CorruptFile as error:
            raise CorruptFile(f"{error}; {self.repair_hint}", error.path) from error
        if image != [self.size, self.size]:
            raise DataError(
                f"data={self.name}: {images} holds images of {image[0]}×{image[1]}, expected {self.size}×{self.size}"
            )
        if n != m:
            raise DataError(
                f"data={self.name}: {images} holds {n} images, {labels.name} {m} labels; {self.repair_hint}"
            )
        if not n:
            raise DataError(f"data={self.name}: {images} holds no images; {self.repair_hint}")
        largest, last = max(labels.read_bytes()[8:]), self.num_classes - 1
        if largest > last:
            raise CorruptFile(
                f"{labels}: corrupt, it has a label {largest}, expected 0 to {last}; {self.repair_hint}", labels
            )
        return n

    def read(self, official: Official) -> Images:
        """Reads an official split: pixels (N, 1, 28, 28) uint8 and labels (N,) int64."""
        from torchvision.datasets.mnist import read_image_file, read_label_file

        images, labels = self._split_files(official)
        return Images(read_image_file(str(images)).unsqueeze(1), read_label_file(str(labels)))


def idx_shape(path: Path, dimensions: int) -> list[int]:
    """The shape in an idx file's header, after checking the magic number and the file's length.

    Raises:
        DataError: the file cannot be read; `CorruptFile` if it is not an idx file of unsigned bytes, or is too short or long.
    """
    try:
        with path.open("rb") as file:
            header = file.read(4 + 4 * dimensions)
        length = path.stat().st_size
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({error.strerror}){advice_for(error)}") from error
    if len(header) < 4 + 4 * dimensions or header[:4] != bytes([0, 0, 8, dimensions]):
        raise CorruptFile(f"{path}: corrupt, it does not begin as an idx file of {dimensions} dimensions does", path)
    shape = list(struct.unpack(f">{dimensions}I", header[4:]))
    expected = len(header) + math.prod(shape)
    if length != expected:
        raise CorruptFile(f"{path}: corrupt, {length:,} bytes, expected {expected:,} by its header", path)
    return shape
