"""Finds the errors of the nets: confusion, calibration, misclassified images; from the logits that runs save."""

from __future__ import annotations

import base64
import io
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import cached_property, lru_cache
from pathlib import Path

import numpy as np

from cnnbench import stats
from cnnbench.report.analysis.cell import Cell
from cnnbench.report.load.run import Run, first_line
from cnnbench.text import first_few

MAX_IMAGES = 24  # of a gallery
SEED = 0  # of the bootstrap


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

    targets: np.ndarray
    predicted: np.ndarray
    confidence: np.ndarray
    loss: np.ndarray
    num_classes: int

    @cached_property
    def correct(self) -> np.ndarray:
        """(N,) whether the predicted class is the true class."""
        return self.predicted == self.targets


@contextmanager
def _broken_file_reported(path: Path, problems: list[str]) -> Iterator[None]:
    """Skips a file that is missing or broken; adds a broken one to the problems."""
    try:
        yield
    except FileNotFoundError:
        pass
    except Exception as error:  # numpy raises nearly any exception for a damaged archive
        problems.append(f"{path}: cannot be read ({first_line(error)})")


def load_predictions(run: Run, problems: list[str]) -> Predictions | None:
    """Loads the predictions of a finished run; None where they are missing or broken. A broken file is added to the problems."""
    path = run.directory.predictions
    with _broken_file_reported(path, problems):
        with np.load(path, allow_pickle=False) as file:
            logits, targets = np.asarray(file["logits"], np.float32), np.asarray(file["targets"], np.int64)
        if logits.ndim != 2 or targets.shape != logits.shape[:1] or not logits.size:
            raise ValueError("the shapes of logits and targets do not match")
        if not np.isfinite(logits).all() or targets.min() < 0 or targets.max() >= logits.shape[1]:
            raise ValueError("a logit is not finite, or a target is not a class")
        return predictions_from_logits(logits, targets)
    return None


def predictions_from_logits(logits: np.ndarray, targets: np.ndarray) -> Predictions:
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
    targets: np.ndarray
    confusion: np.ndarray
    share_correct: np.ndarray
    predicted: np.ndarray
    loss: np.ndarray
    calibration: stats.Calibration
    ece: tuple[float, stats.Interval]

    @property
    def per_class(self) -> np.ndarray:
        """(num_classes,) accuracy for each true class; nan for a class without test images."""
        with np.errstate(invalid="ignore"):
            return self.confusion.diagonal() / self.confusion.sum(1)


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
    confusion = np.zeros((classes, classes), int)
    votes = np.zeros((len(targets), classes), int)
    rows = np.arange(len(targets))
    for run in runs:
        confusion += np.bincount(targets * classes + run.predicted, minlength=classes**2).reshape(classes, classes)
        votes[rows, run.predicted] += 1
    confidence, correct = np.stack([run.confidence for run in runs]), np.stack([run.correct for run in runs])
    return CellPredictions(
        index,
        cell,
        seeds=len(runs),
        targets=targets,
        confusion=confusion,
        share_correct=votes[rows, targets] / len(runs),
        predicted=votes.argmax(1),
        loss=np.mean([run.loss for run in runs], 0),
        calibration=stats.calibration(confidence.ravel(), correct.ravel()),
        ece=stats.ece_interval(confidence, correct, bootstrap_draws(len(targets))),
    )


def pad_confusions(predictions: Sequence[CellPredictions]) -> list[CellPredictions]:
    """Pads every confusion matrix with zeros to the largest number of classes."""
    most = max((len(each.confusion) for each in predictions), default=0)
    return [replace(each, confusion=np.pad(each.confusion, (0, most - len(each.confusion)))) for each in predictions]


def missing_predictions(cells: Sequence[Cell], predictions: Sequence[CellPredictions]) -> list[str]:
    """Names, in sentences, the cells for which no run or not every run has saved its predictions."""
    if not predictions:
        return []
    seeds = {each.index: each.seeds for each in predictions}
    partly, none = [], []
    for index, cell in enumerate(cells):
        known, done = seeds.get(index, 0), sum(run.done for run in cell.runs)
        if 0 < known < done:
            partly.append(f"{cell.label} ({known} of {done})")
        elif not known and done:
            none.append(cell.label)
    sentences = []
    if partly:
        sentences.append(f"Errors are counted only in the runs that saved their predictions: {first_few(partly)}.")
    if none:
        sentences.append(
            "Errors are unknown for these settings, because their runs saved no predictions, or their test images differ from "
            f"seed to seed: {first_few(none)}."
        )
    return sentences


@lru_cache(maxsize=1)
def bootstrap_draws(images: int) -> np.ndarray:
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


Images = Mapping[int, np.ndarray]  # index in the test split -> (H, W, C) uint8


def most_misclassified(
    predictions: Sequence[CellPredictions], images: Images, most: int = MAX_IMAGES
) -> list[Misclassified]:
    """Selects the saved images that more than half of all runs get wrong: the most often wrong first, then by loss."""
    wrong = np.average(
        [1 - each.share_correct for each in predictions], axis=0, weights=[each.seeds for each in predictions]
    )
    order = np.lexsort((-np.mean([each.loss for each in predictions], 0), -wrong))
    return _gallery([index for index in order if wrong[index] > 0.5], predictions, images, most)


def correct_only_in_first(
    ours: CellPredictions, theirs: CellPredictions, images: Images, most: int = MAX_IMAGES
) -> list[Misclassified]:
    """Selects the saved images that most runs of `ours` get right and at most half of the runs of `theirs`."""
    order = np.lexsort((ours.loss - theirs.loss, theirs.share_correct - ours.share_correct))
    differ = (ours.share_correct > 0.5) & (theirs.share_correct <= 0.5)
    return _gallery([index for index in order if differ[index]], [ours, theirs], images, most)


def _gallery(
    order: Sequence[int], predictions: Sequence[CellPredictions], images: Images, most: int
) -> list[Misclassified]:
    """The first images of an order that are saved, with the prediction of each cell."""
    return [
        Misclassified(
            index,
            int(predictions[0].targets[index]),
            [(int(each.predicted[index]), float(each.share_correct[index])) for each in predictions],
        )
        for index in [int(index) for index in order if int(index) in images][:most]
    ]


def load_images(runs: Sequence[Run], problems: list[str]) -> dict[int, np.ndarray]:
    """Loads the misclassified test images that runs have saved: index in the split -> (H, W, C) uint8.

    A file that cannot be read is added to the problems.
    """
    found: dict[int, np.ndarray] = {}
    for run in runs:
        path = run.directory.mistakes
        with _broken_file_reported(path, problems):
            with np.load(path, allow_pickle=False) as file:
                index, images = file["index"], file["images"]
            wrong_shape = images.ndim != 4 or 0 in images.shape[1:] or images.shape[3] not in (1, 3)
            if wrong_shape or images.dtype != np.uint8 or index.shape != images.shape[:1]:
                raise ValueError("the shapes of index and images do not match")
            found = {**{int(place): image for place, image in zip(index, images, strict=True)}, **found}
    return found


def png_data_uri(image: np.ndarray) -> str:
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
    return [str(number) for number in range(num_classes)]
