"""Learning curves: loss and accuracy over epochs and over seconds, for each run and as a mean with a band."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields
from itertools import accumulate, groupby
from math import fsum, sqrt

from cnnbench.report.load.run import Run
from cnnbench.text import finite_number

METRIC_LABELS = {
    "train/loss": "training loss",
    "val/loss": "validation loss",
    "train/acc": "training accuracy",
    "val/acc": "validation accuracy",
}


@dataclass(frozen=True)
class Curve:
    """A metric of one run.

    Attributes:
        run: name of the run.
        epochs: 1, 2, ...
        seconds: training time until the end of each epoch.
        values: at the end of each epoch; None where it is unknown or not finite.
    """

    run: str
    epochs: list[float]
    seconds: list[float]
    values: list[float | None]


@dataclass(frozen=True)
class Band:
    """The mean of several curves after each epoch, with a band of one standard deviation to either side.

    Attributes:
        epochs: 1, 2, ...
        count: number of curves that have a value.
        seconds: mean training time.
        mean: mean of the values.
        low, high: mean minus and plus one standard deviation.
    """

    epochs: list[float]
    count: list[int]
    seconds: list[float]
    mean: list[float]
    low: list[float]
    high: list[float]


def runs_to_average(runs: Sequence[Run]) -> list[Run]:
    """Selects the finished runs; all runs as long as none is finished."""
    return [run for run in runs if run.done] or list(runs)


def cell_band(runs: Sequence[Run], metric: str) -> Band:
    """Averages a metric's curves over the runs of a cell that `runs_to_average` selects."""
    return mean_band(curves(runs_to_average(runs), metric))


def curves(runs: Sequence[Run], metric: str) -> list[Curve]:
    """Extracts a metric's curve from each run that has finished an epoch."""
    found = []
    for run in runs:
        rows = [row for row in run.epochs if row.get("epoch") is not None]
        if rows:
            seconds = list(accumulate(row.get("epoch_s") or 0.0 for row in rows))
            values = [finite_number(row.get(metric)) for row in rows]
            found.append(Curve(run.name, [row["epoch"] or 0.0 for row in rows], seconds, values))
    return found


def mean_band(curves: Sequence[Curve]) -> Band:
    """Averages curves epoch by epoch over the curves that have a value there."""
    points = sorted(
        (epoch, second, value)
        for curve in curves
        for epoch, second, value in zip(curve.epochs, curve.seconds, curve.values, strict=True)
        if value is not None
    )
    rows: list[tuple] = []
    for epoch, group in groupby(points, key=lambda point: point[0]):
        _, seconds, values = zip(*group, strict=True)
        mean = fsum(values) / len(values)
        sd = sqrt(fsum((value - mean) ** 2 for value in values) / (len(values) - 1)) if len(values) > 1 else 0.0
        rows.append((epoch, len(values), fsum(seconds) / len(seconds), mean, mean - sd, mean + sd))
    columns = zip(*rows, strict=True) if rows else [()] * len(fields(Band))
    return Band(*map(list, columns))
