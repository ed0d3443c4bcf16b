"""Several factors, each with each: what a level does on average over the others, and whether that depends on another factor."""

from __future__ import annotations

import itertools
import statistics
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from cnnbench import stats
from cnnbench.report.analysis.cell import Cell, word
from cnnbench.report.load.sweep import Runs
from cnnbench.text import canonical


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
    """Of each level of each factor against the baseline's, else the first; seeds that lack one of the cells are left out.

    Nothing where one of the levels has no such seed, what is told of the others would hide it; nor where it has but one of
    several.
    """
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
        effect = _effect(key, level, base, others, pairs)
        if effect is None or effect.difference.n < min(2, max(cell.n for cell in cells)):
            return []  # the cells by themselves say more
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
