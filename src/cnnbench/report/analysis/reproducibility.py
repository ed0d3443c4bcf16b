"""A run and its repetition: equal to the bit, or what differs, and whether by less than seeds do; loads no torch."""

from __future__ import annotations

import statistics
import zipfile
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from math import sqrt
from typing import Any

import numpy as np

from cnnbench import stats
from cnnbench.config.schema import Config
from cnnbench.errors import ConfigError
from cnnbench.report.analysis.cell import METRIC
from cnnbench.report.analysis.config_diff import of_results
from cnnbench.report.load.run import Run, read_result, read_run
from cnnbench.report.number_format import plural
from cnnbench.runs.run_dir import RunDir

TIMES = ("epoch_s", "samples_per_s")  # columns of metrics.csv that are meant to differ
FACTS = ("best_epoch", "n", "split_hash", "label_hash", "params", "macs")  # of result.json, besides its metrics


@dataclass(frozen=True)
class Spread:
    """What the other seeds of a run's cell say of a new run's test accuracy.

    Attributes:
        values: theirs, by seed.
        interval: that a new run falls into with 95 %; None where it is not known.
    """

    values: dict[int, float]
    interval: stats.Interval

    def __contains__(self, accuracy: float) -> bool:
        return self.interval is not None and self.interval[0] <= accuracy <= self.interval[1]

    def told(self) -> str:
        """In words."""
        n = plural(len(self.values), "other seed")
        if self.interval is None:
            why = (
                f"all of {n} have the same accuracy" if len(self.values) > 1 else f"{n} of the same cell done beside it"
            )
            return f"how far seeds spread is not known: {why}"
        low, high = max(0.0, self.interval[0]), min(1.0, self.interval[1])
        values = self.values.values()
        return (
            f"{n} have mean {statistics.fmean(values):.4f}, deviation {statistics.stdev(values):.4f}: "
            f"95 % of new runs fall into {low:.4f} to {high:.4f}"
        )


@dataclass(frozen=True)
class Repeated:
    """What a repetition shows.

    Attributes:
        differences: each in words; none: equal to the bit.
        compared: what was.
        reasons: what differs in how they were made.
        accuracy: on test, before and now.
        spread: of the seeds.
    """

    differences: list[str]
    compared: str
    reasons: list[str]
    accuracy: tuple[float | None, float | None]
    spread: Spread

    @property
    def equal(self) -> bool:
        """To the bit."""
        return not self.differences

    @property
    def verdict(self) -> str:
        """In a few words."""
        if self.equal:
            return "equal"
        known = "outside" if self.spread.interval else "not equal, and not known to be within"
        return f"{'within' if self.within else known} the spread of the seeds"

    @property
    def within(self) -> bool:
        """The test accuracies, before and now, are such as another seed might have had."""
        return all(value is not None and value in self.spread for value in self.accuracy)


def repeated(before: RunDir, now: RunDir) -> Repeated:
    """Two runs of the same config."""
    problems: list[str] = []
    ours, theirs = (read_run(directory, problems) for directory in (before, now))
    results = [run.result or {} for run in (ours, theirs)]
    logits, told = of_predictions(before, now)
    differences = [*of_metrics(*results), *of_epochs(ours, theirs), *logits, *problems]
    compared = f"every metric, loss and accuracy of {plural(len(ours.epochs), 'epoch')}{told}"
    accuracy = (ours.metric(METRIC), theirs.metric(METRIC))
    return Repeated(differences, compared, reasons(*results), accuracy, spread(before))


def of_metrics(before: Mapping[str, Any], now: Mapping[str, Any]) -> Iterator[str]:
    """Final metrics and facts that differ."""
    values = [result.get("metrics", {}) for result in (before, now)]
    for name in dict.fromkeys(name for each in values for name in each):
        was, new = (each.get(name) for each in values)
        if was is None or new is None:
            yield f"{name} is there {'now' if was is None else 'before'} only"
        elif was != new:
            yield f"{name} {was:.6g}, now {new:.6g} ({new - was:+.1e})"
    for name in FACTS:
        if before.get(name) != now.get(name):
            yield f"{name} {before.get(name)}, now {now.get(name)}"


def of_epochs(before: Run, now: Run) -> Iterator[str]:
    """Columns of metrics.csv that differ."""
    if len(before.epochs) != len(now.epochs):
        yield f"{plural(len(before.epochs), 'epoch')}, now {len(now.epochs)}"
    pairs = list(zip(before.epochs, now.epochs, strict=False))
    for name in dict.fromkeys(name for pair in pairs for row in pair for name in row if name not in TIMES):
        apart = [
            (row.get("epoch"), row.get(name), new.get(name)) for row, new in pairs if row.get(name) != new.get(name)
        ]
        if apart:
            most = max((abs(new - was) for _, was, new in apart if was is not None and new is not None), default=None)
            by = "" if most is None else f", by {most:.1e} at most"
            yield f"{name} of {len(apart)} of {plural(len(pairs), 'epoch')}, first in epoch {apart[0][0]:g}{by}"


def of_predictions(before: RunDir, now: RunDir) -> tuple[list[str], str]:
    """How the test logits differ, and that they were compared; neither where a run has left none."""
    try:
        ours, theirs = (_logits(directory) for directory in (before, now))
    except FileNotFoundError:
        return [], ""
    except (OSError, ValueError, KeyError, zipfile.BadZipFile) as error:
        return [f"predictions.npz cannot be read ({error})"], ""
    told = f", logits of {plural(len(ours), 'test image')}"
    if ours.shape != theirs.shape:
        return [f"logits of shape {ours.shape}, now {theirs.shape}"], told
    if ours.tobytes() == theirs.tobytes():
        return [], told
    answers = int((ours.argmax(1) != theirs.argmax(1)).sum())
    return [f"logits by {np.abs(ours - theirs).max():.1e} at most; {answers} of {len(ours):,} answers"], told


def _logits(directory: RunDir) -> np.ndarray:
    with np.load(directory.predictions, allow_pickle=False) as file:
        return file["logits"]


def reasons(before: Mapping[str, Any], now: Mapping[str, Any]) -> list[str]:
    """Why two runs of one config may differ."""
    texts = [f"{kind}: {text}" for kind, found in of_results([before], [now]).items() for text in found]
    deterministic = (now.get("numerics") or {}).get("deterministic", True)
    if deterministic is not True:
        texts.append(f"deterministic={str(deterministic).lower()}: sums are added in any order")
    return texts


def spread(run: RunDir) -> Spread:
    """Of the other finished seeds of the run's cell that lie beside it."""
    own = Config.load(run.config)
    values: dict[int, float] = {}
    for path in sorted(run.path.resolve().parent.glob("*/config.yaml")):
        with suppress(ConfigError):
            config = Config.load(path)
            if config.seed == own.seed or cell(config) != cell(own):
                continue
            result = read_result(path.with_name("result.json"), []) or {}
            accuracy = result.get("metrics", {}).get(METRIC)
            values |= {config.seed: accuracy} if isinstance(accuracy, float | int) else {}
    return Spread(values, new_run(list(values.values())))


def cell(config: Config) -> str:
    """What a config has in common with other seeds of its cell."""
    return config.model_copy(update={"seed": 0}).identity()


def new_run(values: list[float]) -> stats.Interval:
    """The interval that a further value falls into with 95 % (Student's t); None where nothing is known of the spread."""
    if len(values) < 2:
        return None
    mean, interval = stats.mean_interval(values)
    if interval is None:
        return None
    half = (interval[1] - mean) * sqrt(len(values) + 1)  # t · sd · sqrt(1 + 1/n)
    return mean - half, mean + half
