"""Helpers for tests of image folders: folders of pictures, and data sets of them."""

from __future__ import annotations

import os
import time
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from cnnbench.__main__ import main
from cnnbench.data.sets.imagefolder import ImageFolder
from cnnbench.errors import DataError
from datafiles import ready

FITS = ("crop", "pad", "stretch")
NET = ["threads=1", "epochs=1", "data=imagefolder", "model=simplecnn", "trainer=cpu"]


def picture(key: str, width: int = 12, height: int = 12) -> Image.Image:
    """A picture of random colours that depend on the key."""
    random = np.random.default_rng(zlib.crc32(key.encode("utf-8", "surrogateescape")))
    return Image.fromarray(random.integers(0, 256, (height, width, 3), dtype=np.uint8))


def smooth(width: int, height: int) -> Image.Image:
    """A picture whose colours change slowly, so that all good filters give nearly equal results."""
    x, y = np.meshgrid(np.linspace(0, 1, width), np.linspace(0, 1, height))
    return Image.fromarray((255 * np.stack([x, y, (x + y) / 2], 2)).round().astype(np.uint8))


def folders(top: Path, counts: dict[str, int], width: int = 12, height: int = 12) -> Path:
    """Writes the given number of PNG files into each folder below `top`: 000.png, 001.png, ..."""
    for name, count in counts.items():
        (top / name).mkdir(parents=True)
        for number in range(count):
            picture(f"{name}/{number}", width, height).save(top / name / f"{number:03}.png")
    return top


def built(top: Path, **keys) -> ImageFolder:
    return ImageFolder(root=top, **keys)


def loaded(top: Path, **keys) -> ImageFolder:
    return ready(built(top, **keys))


def refusal(top: Path, **keys) -> str:
    """The error message for a folder, from the constructor or a later step."""
    with pytest.raises(DataError) as caught:
        loaded(top, **keys)
    return str(caught.value)


def names(data: ImageFolder, split: str) -> list[str]:
    """Paths of a split's pictures below the root, in the split's order."""
    official = data.official_pictures("test" if split == "test" else "train")
    return [str(official[row].path.relative_to(data.top)) for row in data.indices[split]]


def row_of(data: ImageFolder, name: str) -> np.ndarray:
    """(H, W, C) uint8 of the picture of that name, from the split that has it."""
    for split in data.images:
        if name in names(data, split):
            return data.images[split].pixels[names(data, split).index(name)].permute(1, 2, 0).numpy()
    raise KeyError(name)


def command(capsys, *arguments) -> tuple[int, str, str]:
    capsys.readouterr()
    code = main([str(argument) for argument in arguments])
    return code, *capsys.readouterr()


@pytest.fixture(autouse=True)
def nothing_decoded_yet(tmp_path_factory, monkeypatch):
    """Gives every test an empty folder for decoded images."""
    monkeypatch.setenv("CNNBENCH_DATA", str(tmp_path_factory.mktemp("decoded")))


@pytest.fixture
def flat(tmp_path) -> Path:
    """A folder of two classes with ten pictures each, without splits."""
    return folders(tmp_path / "flat", {"cat": 10, "dog": 10})


@pytest.fixture
def split(tmp_path) -> Path:
    """A folder of two classes in train, val and test."""
    counts = {"train/cat": 6, "train/dog": 6, "val/cat": 3, "val/dog": 3, "test/cat": 4, "test/dog": 4}
    return folders(tmp_path / "split", counts)


def an_hour_old(top: Path) -> Path:
    """Dates the files of a folder an hour back, so that facts about them are kept."""
    for path in top.rglob("*.png"):
        os.utime(path, (time.time() - 3600,) * 2)
    return top


def solid(mode: str, colour, width: int = 12, height: int = 12) -> Image.Image:
    return Image.new(mode, (width, height), colour)
