"""Helpers for tests of data sets: small files in MNIST's format, sets that are set up or refused."""

from __future__ import annotations

import struct
from pathlib import Path

import numpy as np
import pytest
import torch

from cnnbench.data.datamodule import ImageData
from cnnbench.errors import DataError


def ready(data: ImageData) -> ImageData:
    """Sets up all splits of a set, and returns it."""
    data.prepare_data()
    data.setup("fit")
    data.setup("test")
    return data


def refused(data: ImageData) -> str:
    """The message of the `DataError` with which the set refuses its files."""
    with pytest.raises(DataError) as caught:
        data.prepare_data()
    return str(caught.value)


def equal(one, other) -> bool:
    return torch.equal(one.pixels, other.pixels) and torch.equal(one.labels, other.labels)


def idx(array: np.ndarray) -> bytes:
    """The bytes of an idx file."""
    return (
        bytes([0, 0, 8, array.ndim]) + struct.pack(f">{array.ndim}I", *array.shape) + array.astype(np.uint8).tobytes()
    )


def write_idx(root: Path, train: int = 40, test: int = 20, name: str = "MNIST") -> Path:
    """Writes small files of random images, whose labels run through the classes, where torchvision expects them."""
    folder = root / name / "raw"
    folder.mkdir(parents=True, exist_ok=True)
    random = np.random.default_rng(0)
    for prefix, n in (("train", train), ("t10k", test)):
        (folder / f"{prefix}-images-idx3-ubyte").write_bytes(idx(random.integers(0, 256, (n, 28, 28))))
        (folder / f"{prefix}-labels-idx1-ubyte").write_bytes(idx(np.arange(n) % 10))
    return folder
