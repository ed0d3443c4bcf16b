"""What runs show, as numbers: cells with intervals, differences to a baseline, main effects, what is best."""

from __future__ import annotations

import itertools
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from cnnbench.notation import as_typed, canonical
from cnnbench.report import stats
from cnnbench.report.read import GROUPS, Run, Runs, by_cell, finite

METRIC = "test/acc"
ALPHA = 0.05


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
        found = []
        for run in self.runs:
            value: Any = run.result or {}
            for name in path:
                value = value.get(name) if isinstance(value, dict) else None
            found += [] if finite(value) is None else [float(value)]
        return statistics.fmean(found) if found else None


@dataclass(frozen=True)
class Effect:
    """What a level of a factor does against another, on average over the other factors, paired by seed."""

    key: str
    level: Any
    base: Any
    others: tuple[str, ...]
    difference: stats.Difference
    differences: tuple[float, ...]  # of the seeds
    p: float | None = None

    @property
    def label(self) -> str:
        """The level in words."""
        return word(self.key, self.level)


@dataclass(frozen=True)
class Interplay:
    """By how much the effect of one factor differs between two levels of another."""

    first: Effect
    key: str
    level: Any
    base: Any
    difference: stats.Difference
    p: float | None = None


@dataclass(frozen=True)
class Review:
    """What a folder of runs shows.

    Attributes:
        runs: what was read.
        cells: in the order in which they were asked for.
        stated: whether the baseline is the one that somebody stated.
        effects, interplays: where the cells are a whole grid of several factors.
    """

    runs: Runs
    cells: list[Cell]
    stated: bool
    effects: list[Effect] = field(default_factory=list)
    interplays: list[Interplay] = field(default_factory=list)

    @property
    def question(self) -> str | None:
        """As it was asked."""
        return self.runs.asked.get("question")

    @property
    def comparisons(self) -> int:
        """How many p values the answer judges by; each is corrected for the others."""
        return sum(each.p is not None for each in self.effects or self.cells)

    def settling(self, differences: Sequence[float], settle: float) -> tuple[int, int] | None:
        """How many more seeds would settle a difference of `settle`, at least and at most; None where one cannot say."""
        if len(differences) < 2:
            return None
        return stats.more_pairs(differences, settle, alpha=ALPHA / max(1, self.comparisons))


def review(runs: Runs) -> Review:
    """All of it, from what was read."""
    cells = [of_cell(members) for members in by_cell(runs.runs)]
    cells, stated = compared(cells, runs)
    cells = ranked(cells)
    effects = main_effects(cells, runs) if whole_grid(cells, runs.keys) else []
    return Review(runs, cells, stated, effects, interplays(cells, effects))


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


def compared(cells: list[Cell], runs: Runs) -> tuple[list[Cell], bool]:
    """The cells with their differences to the baseline; and whether it was stated, rather than the first that has results."""
    stated = {key: value for key, value in (runs.asked.get("baseline") or {}).items() if key in runs.keys}
    place = {canonical(cell.setting): number for number, cell in enumerate(cells)}
    bases = [place.get(canonical({**cell.setting, **stated})) for cell in cells]
    if not stated or all(base is None for base in bases):  # it is none of the cells
        first = next((number for number, cell in enumerate(cells) if cell.n), 0)
        stated, bases = {}, [first] * len(cells)
    made = []
    for number, (cell, base) in enumerate(zip(cells, bases, strict=True)):
        if base is None or base == number:
            made.append(cell)
            continue
        difference, paired = difference_of(cell.values, cells[base].values)
        made.append(replace(cell, base=base, difference=difference, paired=paired))
    corrected = stats.holm([cell.difference.p if cell.difference else None for cell in made])
    return [replace(cell, p=p) for cell, p in zip(made, corrected, strict=True)], bool(stated)


def difference_of(ours: Mapping[Any, float], theirs: Mapping[Any, float]) -> tuple[stats.Difference | None, bool]:
    """Ours less theirs by common seeds, else unpaired; and whether it is paired."""
    common = [seed for seed in ours if seed in theirs]
    if len(common) < 2 <= min(len(ours), len(theirs)):
        return stats.welch(list(ours.values()), list(theirs.values())), False
    if not common:
        return None, True
    return stats.paired([ours[seed] for seed in common], [theirs[seed] for seed in common]), True


def ranked(cells: list[Cell]) -> list[Cell]:
    """The best is marked, and what cannot be told from it, however the pair was come upon (Bonferroni over all pairs)."""
    means = [cell.mean if cell.mean is not None else -1.0 for cell in cells]
    if len([mean for mean in means if mean >= 0]) < 2:
        return cells
    best = means.index(max(means))
    known = sum(cell.n > 0 for cell in cells)
    pairs = known * (known - 1) / 2

    def alike(cell: Cell) -> bool:
        difference, _ = difference_of(cells[best].values, cell.values)
        return difference is None or difference.p is None or difference.p * pairs >= ALPHA

    return [
        replace(cell, best=number == best, alike=number != best and cell.n > 0 and alike(cell))
        for number, cell in enumerate(cells)
    ]


# ---- several factors -------------------------------------------------------------------------------------------------


def levels(cells: Sequence[Cell], key: str) -> list[Any]:
    """A factor's values, in their order."""
    return list({canonical(cell.setting.get(key)): cell.setting.get(key) for cell in cells}.values())


def whole_grid(cells: Sequence[Cell], keys: Sequence[str]) -> bool:
    """Whether several factors vary, each with each."""
    if any(key not in cell.setting for cell in cells for key in keys):
        return False
    sizes = [len(levels(cells, key)) for key in keys]
    full = 1
    for size in sizes:
        full *= size
    return sum(size > 1 for size in sizes) > 1 and full == len(cells)


def compared_levels(cells: Sequence[Cell], runs: Runs) -> list[tuple[str, Any]]:
    """Every factor's levels but the one that the others are compared with."""
    return [
        (key, level)
        for key in runs.keys
        for level in levels(cells, key)
        if canonical(level) != canonical(base_level(cells, runs, key))
    ]


def base_level(cells: Sequence[Cell], runs: Runs, key: str) -> Any:
    """A factor's level in the stated baseline, else its first."""
    found, stated = levels(cells, key), (runs.asked.get("baseline") or {}).get(key)
    return stated if canonical(stated) in map(canonical, found) else found[0]


def main_effects(cells: Sequence[Cell], runs: Runs) -> list[Effect]:
    """Of each level of each factor against the baseline's, else the first; seeds that lack one of the cells are left out."""
    place = {canonical(cell.setting): cell for cell in cells}
    effects = []
    for key, level in compared_levels(cells, runs):
        base = base_level(cells, runs, key)
        pairs = [
            (cell.values, place[canonical({**cell.setting, key: base})].values)
            for cell in cells
            if canonical(cell.setting[key]) == canonical(level)
        ]
        others = [other for other in runs.keys if other != key and len(levels(cells, other)) > 1]
        if effect := _effect(key, level, base, others, pairs):
            effects.append(effect)
    corrected = stats.holm([effect.difference.p for effect in effects])
    return [replace(effect, p=p) for effect, p in zip(effects, corrected, strict=True)]


def _effect(
    key: str, level: Any, base: Any, others: list[str], pairs: list[tuple[dict[Any, float], dict[Any, float]]]
) -> Effect | None:
    seeds = [seed for seed in pairs[0][0] if all(seed in ours and seed in theirs for ours, theirs in pairs)]
    if not seeds:
        return None
    ours, theirs = ([statistics.fmean(pair[side][seed] for pair in pairs) for seed in seeds] for side in (0, 1))
    by_seed = tuple(a - b for a, b in zip(ours, theirs, strict=True))
    return Effect(key, level, base, tuple(others), stats.paired(ours, theirs), by_seed)


def interplays(cells: Sequence[Cell], effects: Sequence[Effect]) -> list[Interplay]:
    """Of two factors: whether the effect of the first depends on the second."""
    keys = list(dict.fromkeys(effect.key for effect in effects))
    if len(keys) != 2:
        return []
    place = {canonical(cell.setting): cell.values for cell in cells}
    made = []
    for one, other in itertools.product(*([effect for effect in effects if effect.key == key] for key in keys)):
        corners = [
            place[canonical({**cells[0].setting, one.key: first, other.key: second})]
            for first, second in itertools.product((one.level, one.base), (other.level, other.base))
        ]
        seeds = [seed for seed in corners[0] if all(seed in corner for corner in corners)]
        if seeds:
            at_level, at_base = ([corners[at][s] - corners[at + 2][s] for s in seeds] for at in (0, 1))
            made.append(Interplay(one, other.key, other.level, other.base, stats.paired(at_level, at_base)))
    corrected = stats.holm([interplay.difference.p for interplay in made])
    return [replace(interplay, p=p) for interplay, p in zip(made, corrected, strict=True)]


# ---- names -----------------------------------------------------------------------------------------------------------


def word(key: str, value: Any) -> str:
    """A factor's value in words: `resnet18`, `lr 0.01`, `activation relu`."""
    text = "+".join(map(as_typed, value)) if isinstance(value, list) and key in GROUPS else as_typed(value)
    return text if key in GROUPS and key in ("model", "data") else f"{key.rpartition('.')[2]} {text}"


def named(setting: Mapping[str, Any]) -> str:
    """A setting in words."""
    return ", ".join(word(key, value) for key, value in setting.items())
