"""A run and its repetition: bit-equal, or what differs, and whether the difference is within the spread of the seeds."""

from __future__ import annotations

import statistics
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import chain
from math import sqrt
from typing import Any

import numpy as np

from cnnbench import stats
from cnnbench.config.schema import Config
from cnnbench.report.analysis.cell import metric_by_seed
from cnnbench.report.analysis.config_diff import environment_differences
from cnnbench.report.analysis.predictions import load_arrays
from cnnbench.report.load.run import Run, read_run
from cnnbench.report.number_format import plural
from cnnbench.runs.run_dir import RunDir
from cnnbench.runs.schema import Result
from cnnbench.text import one_line

TIMES = ("epoch_s", "samples_per_s")  # columns of metrics.csv that differ from run to run
RESULT_FACTS = ("best_epoch", "n", "split_hash", "label_hash", "params", "macs")  # attributes that must be equal


@dataclass(frozen=True)
class SeedSpread:
    """The spread of the test accuracy over the other seeds of a run's cell.

    Attributes:
        values: test accuracy by seed.
        interval: contains the accuracy of a new run with probability 0.95; None where it is unknown.
    """

    values: dict[int, float]
    interval: stats.Interval

    def __contains__(self, accuracy: float) -> bool:
        return self.interval is not None and self.interval[0] <= accuracy <= self.interval[1]

    def sentence(self) -> str:
        """Describes the spread."""
        n = plural(len(self.values), "other seed")
        if self.interval is None:
            why = f"all of {n} have the same accuracy" if len(self.values) > 1 else f"{n} of its setting finished"
            return f"the spread of the seeds is unknown: {why}"
        low, high = max(0.0, self.interval[0]), min(1.0, self.interval[1])
        values = self.values.values()
        return (
            f"{n} have mean {statistics.fmean(values):.4f}, standard deviation {statistics.stdev(values):.4f}: "
            f"95 % of new runs have {low:.4f} to {high:.4f}"
        )


@dataclass(frozen=True)
class Reproduction:
    """The result of repeating a run.

    Attributes:
        differences: each difference in words; an empty list means bit-equal.
        compared: what was compared, in words.
        reasons: differences of the environment that may be the cause.
        accuracy: test accuracy before and now.
        spread: spread of the seeds.
    """

    differences: list[str]
    compared: str
    reasons: list[str]
    accuracy: tuple[float | None, float | None]
    spread: SeedSpread

    @property
    def equal(self) -> bool:
        """Whether the repetition is equal to the last bit."""
        return not self.differences

    @property
    def within(self) -> bool:
        """Whether both test accuracies are in the interval of a new run."""
        return all(value is not None and value in self.spread for value in self.accuracy)

    @property
    def verdict(self) -> str:
        """The result in a few words."""
        if self.equal:
            return "equal"
        if self.within:
            return "within the spread of the seeds"
        return "outside the spread of the seeds" if self.spread.interval else "not equal"


def compare_with_repetition(before: RunDir, now: RunDir) -> Reproduction:
    """Compares a run with its repetition."""
    problems: list[str] = []
    ours, theirs = (read_run(directory, problems) for directory in (before, now))
    results = [run.result or Result(metrics={}) for run in (ours, theirs)]
    logits, compared_logits = logit_differences(before, now)
    return Reproduction(
        differences=[*metric_differences(*results), *epoch_differences(ours, theirs), *logits, *problems],
        compared=f"every metric, loss and accuracy of {plural(len(ours.epochs), 'epoch')}{compared_logits}",
        reasons=possible_causes(*results),
        accuracy=(ours.accuracy, theirs.accuracy),
        spread=seed_spread(before),
    )


def metric_differences(before: Result, now: Result) -> Iterator[str]:
    """Lists the final metrics and facts that differ."""
    for name in {**before.metrics, **now.metrics}:
        was, new = before.metrics.get(name), now.metrics.get(name)
        if was is None or new is None:
            yield f"{name} exists only {'now' if was is None else 'before'}"
        elif was != new:
            yield f"{name} {was:.6g}, now {new:.6g} ({new - was:+.1e})"
    for name in RESULT_FACTS:
        was, new = getattr(before, name), getattr(now, name)
        if was != new:
            yield f"{name} {was}, now {new}"


def epoch_differences(before: Run, now: Run) -> Iterator[str]:
    """Lists the columns of metrics.csv that differ."""
    if len(before.epochs) != len(now.epochs):
        yield f"{plural(len(before.epochs), 'epoch')}, now {len(now.epochs)}"
    pairs = list(zip(before.epochs, now.epochs, strict=False))
    for name in dict.fromkeys(chain(*before.epochs, *now.epochs)):
        values = [(row.get("epoch"), row.get(name), new.get(name)) for row, new in pairs]
        differing = [(epoch, was, new) for epoch, was, new in values if was != new and name not in TIMES]
        if differing:
            changes = [abs(new - was) for _, was, new in differing if was is not None and new is not None]
            by = f", by at most {max(changes):.1e}" if changes else ""
            yield f"{name} of {len(differing)} of {plural(len(pairs), 'epoch')}, first in epoch {differing[0][0]:g}{by}"


def logit_differences(before: RunDir, now: RunDir) -> tuple[list[str], str]:
    """(differences of the test logits, a clause that they were compared); both empty where a run has saved none."""
    try:
        ours, theirs = (load_arrays(directory.predictions, "logits")[0] for directory in (before, now))
    except FileNotFoundError:
        return [], ""
    except Exception as error:  # numpy raises nearly any exception for a damaged archive
        return [f"predictions.npz cannot be read ({one_line(error) or type(error).__name__})"], ""
    compared = f", logits of {plural(len(ours), 'test image')}"
    if ours.shape != theirs.shape:
        return [f"logits of shape {ours.shape}, now {theirs.shape}"], compared
    if ours.tobytes() == theirs.tobytes():
        return [], compared
    changed = int((ours.argmax(1) != theirs.argmax(1)).sum())
    most = np.abs(ours - theirs).max()
    return [f"logits by at most {most:.1e}; {changed} of {len(ours):,} predicted classes"], compared


def possible_causes(before: Result, now: Result) -> list[str]:
    """Lists the differences of the environment that may make two runs of one config differ."""
    texts = [f"{kind}: {text}" for kind, found in environment_differences([before], [now]).items() for text in found]
    deterministic: Any = now.numerics.get("deterministic", True)
    if deterministic is not True:
        texts.append(f"deterministic={str(deterministic).lower()}: the order of additions may vary")
    return texts


def seed_spread(run: RunDir) -> SeedSpread:
    """Computes the spread over the other finished seeds of the run's cell in the same folder."""
    config = Config.load(run.config)
    values: dict[int, float] = {}
    for path in sorted(run.path.resolve().parent.glob("*/config.yaml")):
        directory = RunDir(path.parent)
        other = directory.readable_config()
        if other and other.seed != config.seed:
            same_seed = other.model_copy(update={"seed": config.seed})
            if same_seed.identity() == config.identity():
                values |= metric_by_seed([read_run(directory, [])])
    return SeedSpread(values, prediction_interval(list(values.values())))


def prediction_interval(values: list[float]) -> stats.Interval:
    """The interval that contains one more value with probability 0.95 (Student's t); None where the spread is unknown."""
    if len(values) < 2:
        return None
    mean, interval = stats.mean_interval(values)
    if interval is None:
        return None
    half = (interval[1] - mean) * sqrt(len(values) + 1)  # t · sd · sqrt(1 + 1/n)
    return mean - half, mean + half
