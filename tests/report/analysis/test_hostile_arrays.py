"""predictions.npz and mistakes.npz from somebody else: each that is wrong is a problem in one line."""

from __future__ import annotations

import io
import os
import pickle
import sys
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from cnnbench.report.analysis import predictions
from cnnbench.report.analysis.predictions import load_images, load_predictions
from cnnbench.report.analysis.reproducibility import logit_differences
from cnnbench.report.load.run import read_run

LOGITS, TARGETS = np.eye(10, dtype=np.float32), np.arange(10)


def header(descr: str, shape: tuple) -> bytes:
    """An array file that claims a shape and holds nothing."""
    text = f"{{'descr': {descr!r}, 'fortran_order': False, 'shape': {shape}, }}".ljust(117) + "\n"
    return b"\x93NUMPY\x01\x00" + len(text).to_bytes(2, "little") + text.encode()


def members(**contents: bytes) -> Callable[[Path], None]:
    def write(path: Path) -> None:
        with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
            for name, content in contents.items():
                archive.writestr(f"{name}.npy", content)

    return write


def arrays(**values) -> Callable[[Path], None]:
    return lambda path: np.savez_compressed(path, **values)


def array_bytes(value: np.ndarray) -> bytes:
    file = io.BytesIO()
    np.save(file, value)
    return file.getvalue()


class Touch:
    def __reduce__(self):
        return os.mkdir, ("touched",)


def bomb(path: Path) -> None:
    """512 MB of zeros in half a megabyte."""
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive, archive.open("logits.npy", "w") as member:
        member.write(header("<f4", (1 << 24, 8)))
        for _ in range(512):
            member.write(bytes(1 << 20))


HOSTILE = {
    "objects": arrays(logits=np.array([Touch()], object), targets=TARGETS),
    "a pickle": lambda path: path.write_bytes(pickle.dumps(Touch())),
    "a member that is a pickle": members(logits=pickle.dumps(Touch()), targets=pickle.dumps(Touch())),
    "a claim of 10**12 rows": members(logits=header("<f4", (10**12, 10)), targets=array_bytes(TARGETS)),
    "a claim of 10**18 rows": members(logits=header("<f4", (10**18, 10)), targets=array_bytes(TARGETS)),
    "a negative shape": members(logits=header("<f4", (-1, 10)), targets=array_bytes(TARGETS)),
    "a long header": members(logits=b"\x93NUMPY\x02\x00" + (1 << 30).to_bytes(4, "little") + b"(" * 10**6),
    "a bomb": bomb,
    "complex": arrays(logits=LOGITS.astype(complex), targets=TARGETS),
    "text": arrays(logits=LOGITS.astype(str), targets=TARGETS),
    "bool": arrays(logits=LOGITS > 0, targets=TARGETS),
    "dates": arrays(logits=LOGITS.astype("m8[s]"), targets=TARGETS),
    "records": arrays(logits=np.zeros(10, [("a", "f4")]), targets=TARGETS),
    "nan": arrays(logits=LOGITS * np.nan, targets=TARGETS),
    "inf": arrays(logits=LOGITS / 0.0 if False else np.full((10, 10), np.inf), targets=TARGETS),
    "too large for single precision": arrays(logits=LOGITS.astype(float) * 1e300, targets=TARGETS),
    "one row": arrays(logits=LOGITS[0], targets=TARGETS),
    "no row": arrays(logits=LOGITS[:0], targets=TARGETS[:0]),
    "three axes": arrays(logits=LOGITS[None], targets=TARGETS[:1]),
    "no axes": arrays(logits=np.float32(1), targets=np.int64(1)),
    "more targets": arrays(logits=LOGITS, targets=np.arange(11)),
    "a negative target": arrays(logits=LOGITS, targets=TARGETS - 1),
    "a target that is no class": arrays(logits=LOGITS, targets=TARGETS + 1),
    "nan targets": arrays(logits=LOGITS, targets=np.full(10, np.nan)),
    "text targets": arrays(logits=LOGITS, targets=TARGETS.astype(str)),
    "no targets": arrays(logits=LOGITS),
    "no logits": arrays(targets=TARGETS),
    "a million classes": arrays(logits=np.zeros((1, 1_000_000), np.float32), targets=np.zeros(1, np.int64)),
    "empty": lambda path: path.write_bytes(b""),
    "truncated": lambda path: (arrays(logits=LOGITS, targets=TARGETS)(path), path.write_bytes(path.read_bytes()[:-40])),
    "one array": lambda path: path.write_bytes(array_bytes(LOGITS)),
    "a FIFO": os.mkfifo if hasattr(os, "mkfifo") else None,
    "a folder": Path.mkdir,
    "a device": lambda path: path.symlink_to("/dev/zero"),
    "a link to itself": lambda path: path.symlink_to(path.name),
}


@pytest.fixture
def one_problem(copied, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)

    def call(path: Path, make, load) -> str:
        path.unlink()
        with np.errstate(all="ignore"):
            make(path)
        problems: list[str] = []
        with np.errstate(over="ignore", invalid="ignore"):
            found = load(read_run(copied, []), problems)
        assert not found
        assert not Path("touched").exists()
        (problem,) = problems
        assert problem.startswith(f"{path}: cannot be read (")
        assert "\n" not in problem
        return problem

    return call


@pytest.mark.filterwarnings("ignore")
@pytest.mark.skipif(sys.platform == "win32", reason="needs FIFOs and links")
@pytest.mark.parametrize("make", HOSTILE.values(), ids=HOSTILE)
def test_wrong_predictions_are_one_problem(one_problem, copied, make):
    one_problem(copied.predictions, make, load_predictions)


INDEX, IMAGES = np.arange(3), np.zeros((3, 8, 8, 1), np.uint8)
HOSTILE_IMAGES = {
    "objects": arrays(index=INDEX, images=np.array([Touch()], object)),
    "an index of objects": arrays(index=np.array([Touch()] * 3, object), images=IMAGES),
    "a claim of 10**12 rows": members(index=array_bytes(INDEX), images=header("|u1", (10**12, 8, 8, 1))),
    "four channels": arrays(index=INDEX, images=np.zeros((3, 8, 8, 4), np.uint8)),
    "floats": arrays(index=INDEX, images=IMAGES.astype(float)),
    "no pixels": arrays(index=INDEX, images=np.zeros((3, 0, 8, 1), np.uint8)),
    "more indices": arrays(index=np.arange(4), images=IMAGES),
    "a table of indices": arrays(index=np.zeros((3, 1)), images=IMAGES),
    "an index of text": arrays(index=INDEX.astype(str), images=IMAGES),
    "no index": arrays(images=IMAGES),
    "a FIFO": os.mkfifo if hasattr(os, "mkfifo") else None,
    "a device": lambda path: path.symlink_to("/dev/zero"),
}


@pytest.mark.skipif(sys.platform == "win32", reason="needs FIFOs and links")
@pytest.mark.parametrize("make", HOSTILE_IMAGES.values(), ids=HOSTILE_IMAGES)
def test_wrong_images_are_one_problem(one_problem, copied, make):
    one_problem(copied.mistakes, make, lambda run, problems: load_images([run], problems))


@pytest.mark.parametrize(
    "name", ["a bomb", "a claim of 10**12 rows", "truncated", "objects", "empty", "a FIFO", "no logits"]
)
def test_predictions_that_cannot_be_compared_are_one_difference(copied, finished, name):
    copied.predictions.unlink()
    HOSTILE[name](copied.predictions)
    (difference,), clause = logit_differences(copied, finished)
    assert difference.startswith("predictions.npz cannot be read (")
    assert clause == ""


def test_large_predictions_of_an_honest_run_are_loaded(copied, monkeypatch):
    monkeypatch.setattr(predictions, "SMALL_BYTES", 0)
    problems: list[str] = []
    assert load_predictions(read_run(copied, []), problems) is not None
    assert problems == []
