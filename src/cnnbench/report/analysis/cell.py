"""A cell: one setting with all its seeds, their mean and its interval."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, TypeVar

from cnnbench import stats
from cnnbench.report.load.run import Run, hashable_level
from cnnbench.text import finite_number, to_override

METRIC = "test/acc"
T = TypeVar("T", bound=Any)  # a dataclass with `difference` and `p`


@dataclass(frozen=True)
class Cell:
    """One setting with all its seeds; pages call it a setting.

    Attributes:
        setting: its swept keys and their values.
        runs: all its runs, in any state.
        values: the metric of the finished runs, by seed.
        mean, sd, interval: of these values; the interval is the 95 % interval of the mean.
        base: index of the cell that it is compared with; None for a baseline, or where there is none.
        difference: difference from that cell, paired by seed; unpaired where the cells share fewer than two seeds and both have
            two.
        paired: whether the difference is paired.
        p: p value of the difference, corrected (Holm) over all cells.
        best: whether its mean is the highest.
        tied_with_best: whether it is not significantly different from the best.
    """

    setting: dict[str, Any]
    runs: list[Run]
    values: dict[Any, float]
    mean: float | None = None
    sd: float | None = None
    interval: stats.Interval = None
    base: int | None = None
    difference: stats.Difference | None = None
    paired: bool = True
    p: float | None = None
    best: bool = False
    tied_with_best: bool = False

    @property
    def n(self) -> int:
        """Number of finished seeds."""
        return len(self.values)

    @property
    def label(self) -> str:
        """The setting in words."""
        return setting_label(self.setting) or "the run"

    def mean_result(self, name: str) -> float | None:
        """Averages a number of the results, `params`, `macs`, `fit_s` or `samples_per_s`, over the finished runs."""
        found = [finite_number(getattr(run.result, name, None)) for run in self.runs]
        numbers = [value for value in found if value is not None]
        return statistics.fmean(numbers) if numbers else None


def summarize_cell(runs: list[Run]) -> Cell:
    """Computes the mean and the interval of the runs of one cell; the comparisons are added later."""
    values = {run.seed: value for run in runs if (value := run.metric(METRIC)) is not None}
    cell = Cell(runs[0].cell_setting, runs, values)
    if not values:
        return cell
    mean, interval = stats.mean_interval(list(values.values()))
    sd = statistics.stdev(values.values()) if len(values) > 1 else None
    if interval is not None:  # an accuracy is between 0 and 1
        interval = max(0.0, interval[0]), min(1.0, interval[1])
    return replace(cell, mean=mean, sd=sd, interval=interval)


def difference_by_seed(ours: Mapping[Any, float], theirs: Mapping[Any, float]) -> tuple[stats.Difference | None, bool]:
    """(ours minus theirs, whether it is paired): paired over the shared seeds; Welch where fewer than two are shared.

    None without a shared seed where one side has a single value.
    """
    shared = [seed for seed in ours if seed in theirs]
    if len(shared) < 2 <= min(len(ours), len(theirs)):
        return stats.welch(list(ours.values()), list(theirs.values())), False
    if not shared:
        return None, True
    return stats.paired([ours[seed] for seed in shared], [theirs[seed] for seed in shared]), True


def means_over_shared_seeds(
    pairs: Sequence[tuple[Mapping[Any, float], Mapping[Any, float]]],
) -> tuple[list[float], list[float]]:
    """(ours, theirs): the means over the pairs, for each seed that all values of all pairs have.

    Args:
        pairs: (our values by seed, their values by seed).
    """
    seeds = [seed for seed in pairs[0][0] if all(seed in side for pair in pairs for side in pair)] if pairs else []
    ours, theirs = ([statistics.fmean(pair[side][seed] for pair in pairs) for seed in seeds] for side in (0, 1))
    return ours, theirs


def with_corrected_p(comparisons: Sequence[T]) -> list[T]:
    """Sets the `p` of each comparison: the p value of its `difference`, corrected (Holm) over all of them."""
    corrected = stats.holm([each.difference.p if each.difference else None for each in comparisons])
    return [replace(each, p=p) for each, p in zip(comparisons, corrected, strict=True)]


def level_label(key: str, value: Any) -> str:
    """A factor's value in words: `resnet18`, `lr 0.01`, `activation relu`."""
    text = to_override(hashable_level(key, value))
    return text if key in ("model", "data") else f"{key.rpartition('.')[2]} {text}"


def setting_label(setting: Mapping[str, Any]) -> str:
    """A setting in words: the labels of its values."""
    return ", ".join(level_label(key, value) for key, value in setting.items())
