"""MNIST's file format: checked before it is trusted, read by torchvision."""

from __future__ import annotations

import struct
from pathlib import Path

from cnnbench.data.datamodule import ImageData, Official
from cnnbench.data.download.mirrors import Remote
from cnnbench.data.loader import Images
from cnnbench.errors import CorruptFile, DataError

FILES = ("train-images-idx3-ubyte", "train-labels-idx1-ubyte", "t10k-images-idx3-ubyte", "t10k-labels-idx1-ubyte")
PUBLISHED = (60_000, 10_000)  # images in the two splits of MNIST and of those that took its form


def idx_remotes(mirrors: tuple[str, ...], *published: tuple[int, str]) -> tuple[Remote, ...]:
    """The four published files, from their sizes and checksums in the order of `FILES`."""
    return tuple(
        Remote(f"{file}.gz", size, checksum, mirrors, (file,))
        for file, (size, checksum) in zip(FILES, published, strict=True)
    )


class IdxData(ImageData):
    """A set in MNIST's files, `<root>/<folder_name>/raw/*-ubyte`, where torchvision looks for it.

    Files of other lengths than the published ones, a part of the set or one's own, are read as they are.
    """

    channels, size = 1, 28
    folder_name: str

    @property
    def folder(self) -> Path:
        """Where the four files lie."""
        return self.root / self.folder_name / "raw"

    def count(self, official: Official) -> int:
        """From the labels' header."""
        return idx_shape(self.files()[1 if official == "train" else 3], 1)[0]

    def check(self) -> None:
        """Each split's header, size, labels, and published checksum where it is as large as published."""
        for number, files in zip(PUBLISHED, (self.files()[:2], self.files()[2:]), strict=True):
            own = self._check_split(*files) != number  # then of the published sums none can hold
            for path in files:
                if not own or path.name not in self.sums:
                    self.require_sum(path)

    def _check_split(self, images: Path, labels: Path) -> int:
        """How many images there are, once there are as many labels, all of classes that there are."""
        try:
            n, *image = idx_shape(images, 3)
            (m,) = idx_shape(labels, 1)
        except CorruptFile as error:
            raise CorruptFile(f"{error}; {self.again}", error.path) from error
        if image != [self.size, self.size]:
            raise DataError(
                f"data={self.name}: {images} holds images of {image[0]}×{image[1]}, expected {self.size}×{self.size}"
            )
        if n != m:
            raise DataError(f"data={self.name}: {images} holds {n} images, {labels.name} {m} labels; {self.again}")
        if not n:
            raise DataError(f"data={self.name}: {images} holds no images; {self.again}")
        largest = max(labels.read_bytes()[8:], default=0)
        if largest >= self.num_classes:
            message = f"{labels}: corrupt, it has a label {largest}, expected 0 to {self.num_classes - 1}; {self.again}"
            raise CorruptFile(message, labels)
        return n

    def read(self, official: Official) -> Images:
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
        raise CorruptFile(f"{path}: corrupt, it does not begin as an idx file of {dimensions} dimensions does", path)
    shape = list(struct.unpack(f">{dimensions}I", header[4:]))
    expected = len(header)
    volume = 1
    for extent in shape:
        volume *= extent
    if length != expected + volume:
        raise CorruptFile(f"{path}: corrupt, {length:,} bytes where its header says {expected + volume:,}", path)
    return shape
