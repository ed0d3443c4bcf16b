"""Loss and accuracy over epochs and over seconds: each run's, and an arm's mean with a band."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate
from math import fsum, isfinite, sqrt

from cnnbench.report.load.run import Run

SHOWN = {
    "train/loss": "training loss",
    "val/loss": "validation loss",
    "train/acc": "training accuracy",
    "val/acc": "validation accuracy",
}


@dataclass(frozen=True)
class Curve:
    """One quantity of one run.

    Attributes:
        run: its name.
        epochs: 1, 2, ...
        seconds: of training until the end of each.
        values: at the end of each; None where it was not measured, or is not finite.
    """

    run: str
    epochs: list[float]
    seconds: list[float]
    values: list[float | None]


@dataclass(frozen=True)
class Band:
    """The mean of curves after each epoch, and one standard deviation to either side.

    Attributes:
        count: how many curves got so far.
    """

    epochs: list[float]
    count: list[int]
    seconds: list[float]
    mean: list[float]
    low: list[float]
    high: list[float]


def averaged(runs: Sequence[Run]) -> list[Run]:
    """Those whose mean is shown: the finished ones; as long as there is none, all."""
    return [run for run in runs if run.done] or list(runs)


def curves(runs: Sequence[Run], metric: str) -> list[Curve]:
    """Of each run that has any epoch."""
    made = []
    for run in runs:
        rows = [row for row in run.epochs if row.get("epoch") is not None]
        if rows:
            seconds = list(accumulate(row.get("epoch_s") or 0.0 for row in rows))
            values = [_finite(row.get(metric)) for row in rows]
            made.append(Curve(run.name, [row["epoch"] or 0.0 for row in rows], seconds, values))
    return made


def _finite(value: float | None) -> float | None:
    return value if value is not None and isfinite(value) else None


def band(curves: Sequence[Curve]) -> Band:
    """Of the curves of an arm."""
    known: dict[float, list[tuple[float, float]]] = {}
    for curve in curves:
        for epoch, second, value in zip(curve.epochs, curve.seconds, curve.values, strict=True):
            if value is not None:
                known.setdefault(epoch, []).append((second, value))
    made = Band([], [], [], [], [], [])
    for epoch in sorted(known):
        seconds, values = zip(*known[epoch], strict=True)
        mean = fsum(values) / len(values)
        sd = sqrt(fsum((value - mean) ** 2 for value in values) / (len(values) - 1)) if len(values) > 1 else 0.0
        made.epochs.append(epoch)
        made.count.append(len(values))
        made.seconds.append(fsum(seconds) / len(seconds))
        made.mean.append(mean)
        made.low.append(mean - sd)
        made.high.append(mean + sd)
    return made
