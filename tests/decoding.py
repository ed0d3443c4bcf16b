"""What the tests of the cache of decoded images share."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from cnnbench.data import parallel
from cnnbench.data.decoded_cache import Decoded

SHAPE = (10, 2, 8, 8)
ALL = np.arange(10)
ROW = 2 * 8 * 8
LOG = "cnnbench.run"


def image(row: int, shape: tuple[int, ...] = SHAPE[1:]) -> np.ndarray:
    return np.random.default_rng(row).integers(0, 256, shape, dtype=np.uint8)


class Maker:
    """Makes rows, and notes which."""

    def __init__(self) -> None:
        self.made: list[int] = []

    def __call__(self, rows: np.ndarray) -> np.ndarray:
        self.made += rows.tolist()
        return np.stack([image(row) for row in rows])


@pytest.fixture
def root(tmp_path, monkeypatch) -> Path:
    """An empty folder for all that is kept."""
    monkeypatch.setenv("CNNBENCH_DATA", str(tmp_path / "root"))
    return tmp_path / "root"


@pytest.fixture
def folder(root) -> Path:
    return root / "decoded" / "set-0123"


@pytest.fixture
def made(folder):
    """Asks a new instance for rows; which of them it had to make. They must be right."""

    def ask(wanted=ALL, key="train", maker=None) -> list[int]:
        make = maker or Maker()
        rows = Decoded(folder, key, SHAPE).rows(np.asarray(wanted), make, "x")
        assert (rows.shape, rows.dtype) == (SHAPE, np.uint8)
        for row in wanted:
            np.testing.assert_array_equal(rows[row], image(row))
        return make.made

    return ask


@pytest.fixture
def chunks_of_three(monkeypatch):
    monkeypatch.setattr(parallel, "CHUNK", 3)


def change(path: Path, at: int, content: bytes) -> None:
    with path.open("r+b") as file:
        file.seek(at)
        file.write(content)
