"""One setting with all its seeds: its values, their mean, how sure that is."""

from __future__ import annotations

import statistics
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from cnnbench import stats
from cnnbench.report.load.run import GROUPS, Run, as_level
from cnnbench.text import as_typed, numeric

METRIC = "test/acc"


@dataclass(frozen=True)
class Cell:
    """One setting, all its seeds.

    Attributes:
        setting: its keys and values.
        runs: all, whatever became of them.
        values: the metric of those that are done, by seed.
        mean, sd, interval: of these; the interval is the mean's, 95 %.
        base: the number of the cell that it is compared with; None where it is that itself, or there is none.
        difference: to that, paired by seed; where fewer than two seeds are common and both have two, unpaired.
        paired: whether it is paired.
        p: of the difference, Holm-corrected over all cells.
        best: the highest mean; alike: not to be told from it.
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
    alike: bool = False

    @property
    def n(self) -> int:
        """How many seeds are done."""
        return len(self.values)

    @property
    def label(self) -> str:
        """The setting in words."""
        return named(self.setting) or "the run"

    def fact(self, *path: str) -> float | None:
        """The mean over its finished runs of a number in result.json."""
        found = [value for run in self.runs if (value := numeric(run.result, *path)) is not None]
        return statistics.fmean(found) if found else None


def of_cell(members: list[Run]) -> Cell:
    """A cell by itself."""
    values = {run.seed: value for run in members if (value := run.metric(METRIC)) is not None}
    cell = Cell(members[0].cell, members, values)
    if not values:
        return cell
    mean, interval = stats.mean_interval(list(values.values()))
    sd = statistics.stdev(values.values()) if len(values) > 1 else None
    if interval is not None:  # no accuracy lies beyond
        interval = max(0.0, interval[0]), min(1.0, interval[1])
    return replace(cell, mean=mean, sd=sd, interval=interval)


def difference_of(ours: Mapping[Any, float], theirs: Mapping[Any, float]) -> tuple[stats.Difference | None, bool]:
    """Ours less theirs by common seeds, else unpaired; and whether it is paired."""
    common = [seed for seed in ours if seed in theirs]
    if len(common) < 2 <= min(len(ours), len(theirs)):
        return stats.welch(list(ours.values()), list(theirs.values())), False
    if not common:
        return None, True
    return stats.paired([ours[seed] for seed in common], [theirs[seed] for seed in common]), True


def word(key: str, value: Any) -> str:
    """A factor's value in words: `resnet18`, `lr 0.01`, `activation relu`."""
    text = as_typed(as_level(key, value))
    return text if key in GROUPS and key in ("model", "data") else f"{key.rpartition('.')[2]} {text}"


def named(setting: Mapping[str, Any]) -> str:
    """A setting in words."""
    return ", ".join(word(key, value) for key, value in setting.items())
