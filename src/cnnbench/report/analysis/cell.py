"""A cell: one setting with all its seeds, their mean and its interval."""

from __future__ import annotations

import statistics
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, TypeVar

from cnnbench import stats
from cnnbench.report.load.run import METRIC, Run, hashable_level
from cnnbench.stats import ALPHA
from cnnbench.text import Values, canonical_json, finite_number, to_override

BySeed = Mapping[Any, float]  # an accuracy or another metric by seed
T = TypeVar("T", bound=Any)  # a dataclass with `difference` and `p`


@dataclass(frozen=True)
class SeedDifference(stats.Difference):
    """A difference of accuracies, ours minus theirs, that is paired by seed where both sides share seeds.

    Attributes:
        by_seed: the difference for each shared seed; empty where it is unpaired, by Welch's test.
    """

    by_seed: tuple[float, ...] = ()

    @property
    def paired(self) -> bool:
        """Whether it is paired by seed."""
        return bool(self.by_seed)

    @classmethod
    def of_pairs(cls, ours: Sequence[float], theirs: Sequence[float]) -> SeedDifference:
        """The difference of values of the same seeds in the same order."""
        by_seed = tuple(one - other for one, other in zip(ours, theirs, strict=True))
        return cls(**vars(stats.paired(ours, theirs)), by_seed=by_seed)


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
        p: p value of the difference, corrected (Holm) over all cells.
        best: whether its mean is the highest.
        tied_with_best: whether it is not significantly different from the best.
    """

    setting: Values
    runs: list[Run]
    values: BySeed
    mean: float | None
    sd: float | None
    interval: stats.Interval
    base: int | None = None
    difference: SeedDifference | None = None
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

    @property
    def example(self) -> Run:
        """One of its runs, one that has a config if there is any."""
        return max(self.runs, key=lambda run: bool(run.config))

    @property
    def full_setting(self) -> Values:
        """The values of all keys, swept or fixed, and the chosen options of the groups."""
        return {**self.example.config, **self.example.choices, **self.setting}

    def mean_result(self, name: str) -> float | None:
        """Averages a number of the results, `params`, `macs`, `fit_s` or `samples_per_s`, over the finished runs."""
        found = (finite_number(getattr(run.result, name, None)) for run in self.runs)
        numbers = [value for value in found if value is not None]
        return statistics.fmean(numbers) if numbers else None


def group_by_cell(runs: Iterable[Run]) -> list[Cell]:
    """Groups runs by cell, in the order of the cells' first runs."""
    members: dict[str, list[Run]] = {}
    for run in runs:
        members.setdefault(canonical_json(run.cell_setting), []).append(run)
    return list(map(summarize_cell, members.values()))


def metric_by_seed(runs: Iterable[Run], metric: str = METRIC) -> BySeed:
    """A metric of the finished runs, by seed."""
    return {run.seed: value for run in runs if (value := run.metric(metric)) is not None}


def summarize_cell(runs: list[Run]) -> Cell:
    """Computes the mean and the interval of the runs of one cell; the comparisons are added later."""
    values = metric_by_seed(runs)
    mean, interval = stats.mean_interval(values.values()) if values else (None, None)
    if interval:  # an accuracy is between 0 and 1
        interval = max(0.0, interval[0]), min(1.0, interval[1])
    sd = statistics.stdev(values.values()) if len(values) > 1 else None
    return Cell(runs[0].cell_setting, runs, values, mean, sd, interval)


def difference_by_seed(ours: BySeed, theirs: BySeed) -> SeedDifference | None:
    """Ours minus theirs, paired over the shared seeds; by Welch's test where fewer than two are shared.

    None without a shared seed where one side has a single value.
    """
    shared = [seed for seed in theirs if seed in ours]
    if len(shared) < 2 <= min(len(ours), len(theirs)):
        return unpaired_difference(ours, theirs)
    if not shared:
        return None
    return SeedDifference.of_pairs([ours[seed] for seed in shared], [theirs[seed] for seed in shared])


def unpaired_difference(ours: BySeed, theirs: BySeed) -> SeedDifference:
    """Ours minus theirs by Welch's test, over all seeds of both."""
    return SeedDifference(**vars(stats.welch(ours.values(), theirs.values())))


def is_significant(p: float | None) -> bool:
    """Whether a p value is below the significance level."""
    return p is not None and p < ALPHA


def means_over_shared_seeds(
    pairs: Sequence[tuple[BySeed, BySeed]],
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


def setting_label(setting: Values) -> str:
    """A setting in words: the labels of its values."""
    return ", ".join(level_label(key, value) for key, value in setting.items())
