"""Finds the errors of the nets: confusion, calibration, misclassified images; from the logits that runs save."""

from __future__ import annotations

import base64
import io
import os
import zipfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path

import numpy as np
from numpy import ndarray

from cnnbench import stats
from cnnbench.files import open_read
from cnnbench.report.analysis.cell import Cell
from cnnbench.report.load.run import Run, broken_file_reported
from cnnbench.text import first_few

MAX_IMAGES = 24  # of a gallery
SEED = 0  # of the bootstrap
SMALL_BYTES = 256 << 20  # of arrays that are loaded from a file of any size
MOST_CLASSES = 10_000  # of a confusion matrix, which then takes 800 MB
MOST_COMPRESSION = 4  # logits compress by a tenth, labels eightfold


@dataclass(frozen=True)
class Predictions:
    """The predictions of one run on the N test images, in the order of the split.

    Attributes:
        targets: (N,) true classes.
        predicted: (N,) predicted classes.
        confidence: (N,) probability of the predicted class.
        loss: (N,) cross-entropy.
        num_classes: number of classes.
    """

    targets: ndarray
    predicted: ndarray
    confidence: ndarray
    loss: ndarray
    num_classes: int


def load_arrays(path: Path, *names: str) -> list[ndarray]:
    """Loads arrays of an npz file, which may be from somebody else; raises nearly any exception for a damaged one.

    Raises:
        ValueError: an array is larger than a file of this size holds; few bytes may be compressed zeros of many gigabytes.
    """
    with open_read(path) as file:
        most = max(SMALL_BYTES, MOST_COMPRESSION * os.fstat(file.fileno()).st_size)
        with zipfile.ZipFile(file) as archive:
            unpacked = sum(member.file_size for member in archive.infolist())
        if unpacked > most:
            raise ValueError(f"its arrays have {unpacked:,} bytes, expected at most {most:,} in a file of this size")
        file.seek(0)
        with np.load(file, allow_pickle=False) as arrays:
            return [_require_array(arrays[name], name) for name in names]


def _require_array(value: object, name: str) -> ndarray:
    """Checks what an npz file holds under a name, which may be bytes that are no array.

    Raises:
        ValueError: it is no array of numbers.
    """
    if not isinstance(value, ndarray) or value.dtype.kind not in "iuf":
        raise ValueError(f"{name} is no array of numbers")
    return value


def load_predictions(run: Run, problems: list[str]) -> Predictions | None:
    """Loads the predictions of a finished run; None where they are missing or broken. A broken file is added to the problems."""
    path = run.directory.predictions
    with broken_file_reported(path, problems):
        logits, targets = load_arrays(path, "logits", "targets")
        logits, targets = logits.astype(np.float32), targets.astype(np.int64)
        if logits.ndim != 2 or targets.shape != logits.shape[:1] or not logits.size:
            raise ValueError("the shapes of logits and targets do not match")
        if logits.shape[1] > MOST_CLASSES:
            raise ValueError(f"it has {logits.shape[1]:,} classes, expected at most {MOST_CLASSES:,}")
        if not np.isfinite(logits).all() or targets.min() < 0 or targets.max() >= logits.shape[1]:
            raise ValueError("a logit is not finite, or a target is not a class")
        return predictions_from_logits(logits, targets)
    return None


def predictions_from_logits(logits: ndarray, targets: ndarray) -> Predictions:
    """Computes predictions from logits (N, num_classes) and targets (N,)."""
    shifted = logits - logits.max(1, keepdims=True)
    total = np.exp(shifted).sum(1)
    predicted = shifted.argmax(1)
    loss = np.log(total) - shifted[np.arange(len(targets)), targets]
    return Predictions(targets, predicted, 1 / total, loss, logits.shape[1])


@dataclass(frozen=True)
class CellPredictions:
    """The predictions of all finished runs of a cell on the N test images.

    Attributes:
        index: position of the cell in `Review.cells`.
        cell: the cell.
        seeds: number of runs.
        targets: (N,) true classes.
        confusion: (num_classes, num_classes) counts; rows: true class, columns: predicted class.
        share_correct: (N,) fraction of the runs that are correct.
        predicted: (N,) class that most runs predict.
        loss: (N,) cross-entropy, mean over the runs.
        calibration: over the predictions of all runs.
        ece: expected calibration error and its interval.
    """

    index: int
    cell: Cell
    seeds: int
    targets: ndarray
    confusion: ndarray
    share_correct: ndarray
    predicted: ndarray
    loss: ndarray
    calibration: stats.Calibration
    ece: tuple[float, tuple[float, float]]

    @property
    def confusion_shares(self) -> ndarray:
        """(num_classes, num_classes) the confusion as fractions of each true class; nan for a class without test images."""
        with np.errstate(invalid="ignore"):
            return self.confusion / self.confusion.sum(1, keepdims=True)

    @property
    def per_class(self) -> ndarray:
        """(num_classes,) accuracy for each true class; nan for a class without test images."""
        return self.confusion_shares.diagonal()


def predictions_of_cell(index: int, cell: Cell, problems: list[str]) -> CellPredictions | None:
    """Combines the predictions of a cell's finished runs; None where no run has saved any, or their test images differ.

    Args:
        index: position of the cell in `Review.cells`.
        cell: the cell.
        problems: files that cannot be read are added here.
    """
    runs = [found for run in cell.runs if run.done and (found := load_predictions(run, problems)) is not None]
    if not runs or any(not np.array_equal(run.targets, runs[0].targets) for run in runs):
        return None
    targets, classes = runs[0].targets, max(run.num_classes for run in runs)
    predicted, confidence, loss = (
        np.stack([getattr(run, name) for run in runs]) for name in ("predicted", "confidence", "loss")
    )
    correct = predicted == targets
    counts = np.bincount((targets * classes + predicted).ravel(), minlength=classes**2)
    votes = np.stack([(predicted == label).sum(0) for label in range(classes)])
    return CellPredictions(
        index,
        cell,
        seeds=len(runs),
        targets=targets,
        confusion=counts.reshape(classes, classes),
        share_correct=correct.mean(0),
        predicted=votes.argmax(0),
        loss=loss.mean(0),
        calibration=stats.calibration(confidence.ravel(), correct.ravel()),
        ece=stats.ece_interval(confidence, correct, bootstrap_draws(len(targets))),
    )


def pad_confusions(predictions: Sequence[CellPredictions]) -> list[CellPredictions]:
    """Pads every confusion matrix with zeros to the largest number of classes."""
    most = max((len(each.confusion) for each in predictions), default=0)
    return [replace(each, confusion=np.pad(each.confusion, (0, most - len(each.confusion)))) for each in predictions]


def missing_predictions(cells: Sequence[Cell], predictions: Sequence[CellPredictions]) -> Iterator[str]:
    """Names, in sentences, the cells for which no run or not every run has saved its predictions."""
    if not predictions:
        return
    seeds = {each.index: each.seeds for each in predictions}
    partly, none = [], []
    for index, cell in enumerate(cells):
        known, done = seeds.get(index, 0), sum(run.done for run in cell.runs)
        if 0 < known < done:
            partly.append(f"{cell.label} ({known} of {done})")
        elif not known and done:
            none.append(cell.label)
    if partly:
        yield f"Errors are counted only in the runs that saved their predictions: {first_few(partly)}."
    if none:
        yield (
            "Errors are unknown for these settings, because their runs saved no predictions, or their test images differ from "
            f"seed to seed: {first_few(none)}."
        )


@lru_cache(maxsize=1)
def bootstrap_draws(images: int) -> ndarray:
    """Draws the bootstrap samples: the same for all cells with this number of test images."""
    return stats.bootstrap_counts(images, np.random.default_rng(SEED))


def same_test_images(predictions: Sequence[CellPredictions]) -> list[CellPredictions]:
    """Selects the cells with the test images of the first: elsewhere an index of the split is another image."""
    return [each for each in predictions if np.array_equal(each.targets, predictions[0].targets)]


@dataclass(frozen=True)
class Misclassified:
    """A test image that some runs get wrong.

    Attributes:
        index: its index in the test split.
        target: its true class.
        predicted: for each cell the class that most runs predict, and the fraction of runs that are correct.
    """

    index: int
    target: int
    predicted: list[tuple[int, float]]


Images = Mapping[int, ndarray]  # index in the test split -> (H, W, C) uint8


def most_misclassified(predictions: Sequence[CellPredictions], images: Images) -> list[Misclassified]:
    """Selects the saved images that more than half of all runs get wrong: the most often wrong first, then by loss."""
    wrong = np.average(
        [1 - each.share_correct for each in predictions], axis=0, weights=[each.seeds for each in predictions]
    )
    order = np.lexsort((-np.mean([each.loss for each in predictions], 0), -wrong))
    return _gallery(order[wrong[order] > 0.5], predictions, images)


def correct_only_in_first(ours: CellPredictions, theirs: CellPredictions, images: Images) -> list[Misclassified]:
    """Selects the saved images that most runs of `ours` get right and at most half of the runs of `theirs`."""
    order = np.lexsort((ours.loss - theirs.loss, theirs.share_correct - ours.share_correct))
    differ = (ours.share_correct > 0.5) & (theirs.share_correct <= 0.5)
    return _gallery(order[differ[order]], [ours, theirs], images)


def _gallery(order: ndarray, predictions: Sequence[CellPredictions], images: Images) -> list[Misclassified]:
    """The first images of an order that are saved, with the prediction of each cell."""
    return [
        Misclassified(
            index,
            int(predictions[0].targets[index]),
            [(int(each.predicted[index]), float(each.share_correct[index])) for each in predictions],
        )
        for index in [index for index in order.tolist() if index in images][:MAX_IMAGES]
    ]


def load_images(runs: Sequence[Run], problems: list[str]) -> Images:
    """Loads the misclassified test images that runs have saved: index in the split -> (H, W, C) uint8.

    A file that cannot be read is added to the problems.
    """
    found: Images = {}
    for run in runs:
        path = run.directory.mistakes
        with broken_file_reported(path, problems):
            index, images = load_arrays(path, "index", "images")
            wrong_shape = images.ndim != 4 or 0 in images.shape[1:] or images.shape[3] not in (1, 3)
            if wrong_shape or images.dtype != np.uint8 or index.shape != images.shape[:1]:
                raise ValueError("the shapes of index and images do not match")
            found = {**dict(zip(index.tolist(), images, strict=True)), **found}
    return found


def png_data_uri(image: ndarray) -> str:
    """Encodes an image (H, W, C) as a `data:` URI of a PNG."""
    from PIL import Image

    content = io.BytesIO()
    Image.fromarray(image[..., 0] if image.shape[-1] == 1 else image).save(content, "PNG", optimize=True)
    return f"data:image/png;base64,{base64.b64encode(content.getvalue()).decode()}"


def class_names(runs: Sequence[Run], num_classes: int) -> list[str]:
    """Returns the class names that a result has, else the numbers of the classes."""
    for run in runs:
        names = run.result.classes if run.result else None
        if names and len(names) == num_classes:
            return names
    return list(map(str, range(num_classes)))
