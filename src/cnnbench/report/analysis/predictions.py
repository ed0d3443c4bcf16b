"""What the nets get wrong: confusion, calibration, which images; from the logits that runs leave."""

from __future__ import annotations

import base64
import io
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property, lru_cache
from typing import Any

import numpy as np

from cnnbench import stats
from cnnbench.report.analysis.cell import Cell
from cnnbench.report.load.run import Run, first_line
from cnnbench.text import some

SHOWN = 24  # images of a gallery
SEED = 0  # of the bootstrap


@dataclass(frozen=True)
class Predictions:
    """What a run said of the test images, in their order.

    Attributes:
        targets: (N,) what they are.
        said: (N,) what it said.
        confidence: (N,) the probability that it gave to that.
        loss: (N,) the cross-entropy.
    """

    targets: np.ndarray
    said: np.ndarray
    confidence: np.ndarray
    loss: np.ndarray
    num_classes: int

    @cached_property
    def right(self) -> np.ndarray:
        """(N,) whether it was right."""
        return self.said == self.targets


def predictions_of(run: Run, problems: list[str]) -> Predictions | None:
    """Those of a finished run; None where they are absent or broken, which is named."""
    path = run.directory.predictions
    try:
        with np.load(path, allow_pickle=False) as file:
            logits, targets = np.asarray(file["logits"], np.float32), np.asarray(file["targets"], np.int64)
        if logits.ndim != 2 or targets.shape != logits.shape[:1] or not logits.size:
            raise ValueError("logits and targets do not go together")
        if not np.isfinite(logits).all() or targets.min() < 0 or targets.max() >= logits.shape[1]:
            raise ValueError("a logit is not finite, or a target is no class")
        return predicted(logits, targets)
    except FileNotFoundError:
        return None
    except Exception as error:  # of a damaged archive numpy raises nearly anything
        problems.append(f"{path}: cannot be read ({first_line(error)})")
        return None


def predicted(logits: np.ndarray, targets: np.ndarray) -> Predictions:
    """From logits (N, num_classes) and targets (N,)."""
    shifted = logits - logits.max(1, keepdims=True)
    total = np.exp(shifted).sum(1)
    rows = np.arange(len(targets))
    said = shifted.argmax(1)
    loss = np.log(total) - shifted[rows, targets]
    return Predictions(targets, said, 1 / total, loss, logits.shape[1])


@dataclass(frozen=True)
class Arm:
    """What the finished runs of a cell said, together.

    Attributes:
        cell: which.
        seeds: how many runs.
        targets: (N,).
        confusion: (num_classes, num_classes) counts: what they are × what was said.
        share: (N,) of the runs that were right.
        said: (N,) what most runs said.
        loss: (N,) the cross-entropy, mean over the runs.
        calibration: over all runs' answers.
        ece: expected calibration error and its interval.
    """

    cell: Cell
    seeds: int
    targets: np.ndarray
    confusion: np.ndarray
    share: np.ndarray
    said: np.ndarray
    loss: np.ndarray
    calibration: Any
    ece: tuple[float, stats.Interval]

    @property
    def per_class(self) -> np.ndarray:
        """(num_classes,) accuracies; not a number for classes without test images."""
        with np.errstate(invalid="ignore"):
            return self.confusion.diagonal() / self.confusion.sum(1)


def arm_of(cell: Cell, problems: list[str]) -> Arm | None:
    """A cell's; None where no run has left what is needed, or they were tested on different images."""
    found = [said for run in cell.runs if run.done and (said := predictions_of(run, problems)) is not None]
    if not found or any(not np.array_equal(each.targets, found[0].targets) for each in found):
        return None
    targets, classes = found[0].targets, max(each.num_classes for each in found)
    confusion = np.zeros((classes, classes), int)
    votes = np.zeros((len(targets), classes), int)
    rows = np.arange(len(targets))
    for each in found:
        confusion += np.bincount(targets * classes + each.said, minlength=classes**2).reshape(classes, classes)
        votes[rows, each.said] += 1
    share = votes[rows, targets] / len(found)
    confidence, right = (np.stack([getattr(each, name) for each in found]) for name in ("confidence", "right"))
    loss = np.mean([each.loss for each in found], 0)
    return Arm(
        cell, len(found), targets, confusion, share, votes.argmax(1), loss,
        stats.calibration(confidence.ravel(), right.ravel()), stats.ece_interval(confidence, right, drawn(len(targets))),
    )  # fmt: skip


def of_one_size(arms: Sequence[Arm]) -> list[Arm]:
    """The same with confusions of as many classes as any of them has."""
    most = max((len(arm.confusion) for arm in arms), default=0)
    return [replace(arm, confusion=np.pad(arm.confusion, (0, most - len(arm.confusion)))) for arm in arms]


def untold(cells: Sequence[Cell], arms: Sequence[Arm]) -> list[str]:
    """What the answers to single images leave out: cells whose runs left none, and those of which some did."""
    seeds = {id(arm.cell): arm.seeds for arm in arms}
    done = {cell.label: (seeds.get(id(cell), 0), sum(run.done for run in cell.runs)) for cell in cells}
    some_of = [f"{label} ({known} of {runs})" for label, (known, runs) in done.items() if 0 < known < runs]
    none_of = [label for label, (known, runs) in done.items() if not known and runs]
    told = []
    if arms and some_of:
        told.append(f"What nets get wrong is of the runs alone that left their predictions: {some(some_of)}.")
    if arms and none_of:
        why = "their runs left no predictions, or were tested on images that differ from seed to seed"
        told.append(f"What nets get wrong is not known of these, {why}: {some(none_of)}.")
    return told


@lru_cache(maxsize=1)
def drawn(images: int) -> np.ndarray:
    """The bootstrap's images, the same for all arms."""
    return stats.resampled(images, np.random.default_rng(SEED))


def alike(arms: Sequence[Arm]) -> list[Arm]:
    """Those that were tested on the images of the first: of others a place in the split is another image."""
    return [arm for arm in arms if np.array_equal(arm.targets, arms[0].targets)]


@dataclass(frozen=True)
class Pictured:
    """A test image: its place in the split, what it is, and for each arm what it said and how many of its runs were right."""

    index: int
    target: int
    said: list[tuple[int, float]]


def most_missed(arms: Sequence[Arm], pictures: dict[int, Any], most: int = SHOWN) -> list[Pictured]:
    """The images that most runs get wrong, of those there are pictures of; the highest loss first among equals."""
    missed = np.average([1 - arm.share for arm in arms], axis=0, weights=[arm.seeds for arm in arms])
    return _pictured(missed > 0.5, missed, np.mean([arm.loss for arm in arms], 0), arms, pictures, most)


def only_first(ours: Arm, theirs: Arm, pictures: dict[int, Any], most: int = SHOWN) -> list[Pictured]:
    """The images that most runs of `ours` get right and most of `theirs`, or half of them, wrong."""
    differ = (ours.share > 0.5) & (theirs.share <= 0.5)
    return _pictured(differ, ours.share - theirs.share, theirs.loss - ours.loss, [ours, theirs], pictures, most)


def _pictured(
    which: np.ndarray, by: np.ndarray, then: np.ndarray, arms: Sequence[Arm], pictures: dict[int, Any], most: int
) -> list[Pictured]:
    order = [int(index) for index in np.lexsort((-then, -by)) if which[index] and int(index) in pictures][:most]
    return [
        Pictured(index, int(arms[0].targets[index]), [(int(arm.said[index]), float(arm.share[index])) for arm in arms])
        for index in order
    ]


def pictures_of(runs: Sequence[Run], problems: list[str]) -> dict[int, np.ndarray]:
    """The test images that runs kept of their mistakes: place in the split -> (H, W, C) uint8."""
    found: dict[int, np.ndarray] = {}
    for run in runs:
        try:
            with np.load(run.directory.mistakes, allow_pickle=False) as file:
                index, images = file["index"], file["images"]
            if (
                images.ndim != 4
                or 0 in images.shape[1:]
                or images.shape[3] not in (1, 3)
                or images.dtype != np.uint8
                or index.shape != images.shape[:1]
            ):
                raise ValueError("index and images do not go together")
            places = [int(place) for place in index]
        except FileNotFoundError:
            continue
        except Exception as error:  # of a damaged archive numpy raises nearly anything
            problems.append(f"{run.directory.mistakes}: cannot be read ({first_line(error)})")
            continue
        found |= {place: image for place, image in zip(places, images, strict=True) if place not in found}
    return found


def as_uri(image: np.ndarray) -> str:
    """A picture (H, W, C) as a `data:` URI of a PNG."""
    from PIL import Image

    content = io.BytesIO()
    Image.fromarray(image[..., 0] if image.shape[-1] == 1 else image).save(content, "PNG", optimize=True)
    return f"data:image/png;base64,{base64.b64encode(content.getvalue()).decode()}"


def class_names(runs: Sequence[Run], num_classes: int) -> list[str]:
    """As results name them, else by number."""
    for run in runs:
        names = (run.result or {}).get("classes")
        if isinstance(names, list) and len(names) == num_classes:
            return [str(name) for name in names]
    return [str(number) for number in range(num_classes)]
