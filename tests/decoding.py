"""Helpers for the tests of the cache of decoded images."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from cnnbench.data import parallel
from cnnbench.data.decoded_cache import load_or_decode

SHAPE = (2, 8, 8)
ALL = np.arange(10)
ROW = 2 * 8 * 8
LOG = "cnnbench.run"


def image(row: int) -> np.ndarray:
    """(C, H, W) uint8, random pixels that depend on the row."""
    return np.random.default_rng(row).integers(0, 256, SHAPE, dtype=np.uint8)


class Decoder:
    """Decodes rows, and records which."""

    def __init__(self) -> None:
        self.decoded: list[int] = []

    def __call__(self, rows: np.ndarray) -> np.ndarray:
        self.decoded += rows.tolist()
        return np.stack([image(row) for row in rows])


def load(path: Path, decode=None, rows: np.ndarray = ALL, source: Path | None = None) -> np.ndarray:
    """(n, C, H, W) uint8, from the file or decoded."""
    return load_or_decode([path], rows, SHAPE, decode or Decoder(), "decoding", source)


@pytest.fixture
def root(tmp_path, monkeypatch) -> Path:
    """An empty default root, and an empty cache folder of the user's own."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "own"))
    monkeypatch.setenv("CNNBENCH_DATA", str(tmp_path / "root"))
    return tmp_path / "root"


@pytest.fixture
def path(root) -> Path:
    """A file for decoded images that does not exist yet."""
    return root / "decoded" / "set-0123" / "train.npy"


@pytest.fixture
def decoded(path):
    """A function that loads images, checks their pixels, and returns the rows that it had to decode."""

    def call(rows=ALL, file=path) -> list[int]:
        decoder = Decoder()
        images = load(file, decoder, np.asarray(rows))
        assert (images.shape, images.dtype) == ((len(rows), *SHAPE), np.uint8)
        for number, row in enumerate(rows):
            np.testing.assert_array_equal(images[number], image(row))
        return decoder.decoded

    return call


@pytest.fixture
def chunks_of_three(monkeypatch):
    monkeypatch.setattr(parallel, "CHUNK", 3)


def change(path: Path, at: int, content: bytes) -> None:
    """Overwrites bytes of a file; a negative position counts from its end."""
    with path.open("r+b") as file:
        file.seek(at, 2 if at < 0 else 0)
        file.write(content)
