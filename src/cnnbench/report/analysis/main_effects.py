"""Main effects and interactions: the effect of a variant averaged over the other factors, and whether it depends on another factor."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import product
from math import prod
from typing import Any

from cnnbench import stats
from cnnbench.report.analysis.cell import Cell, SeedDifference, level_label, means_over_shared_seeds, with_corrected_p
from cnnbench.report.load.sweep import Runs
from cnnbench.text import canonical_json


@dataclass(frozen=True)
class Effect:
    """The main effect of a level against the baseline level of its factor, paired by seed.

    Attributes:
        key: the factor.
        level, base: the level, and the level that it is compared with.
        others: the factors over which the effect is averaged.
        difference: of the means over the other factors.
        p: p value of the difference, corrected (Holm) over all effects.
    """

    key: str
    level: Any
    base: Any
    others: tuple[str, ...]
    difference: SeedDifference
    p: float | None = None

    @property
    def label(self) -> str:
        """The level in words."""
        return level_label(self.key, self.level)

    @property
    def base_label(self) -> str:
        """The level that it is compared with, in words."""
        return level_label(self.key, self.base)


@dataclass(frozen=True)
class Interaction:
    """By how much the effect of one factor differs between two levels of another factor.

    Attributes:
        first: the effect of the first factor.
        second: the effect of the second factor, with its two levels.
        difference: the first effect at the second's level minus the first effect at its base, paired by seed.
        p: p value of the difference, corrected (Holm) over all interactions.
    """

    first: Effect
    second: Effect
    difference: stats.Difference
    p: float | None = None


def levels(cells: Sequence[Cell], key: str) -> list[Any]:
    """The levels of a factor, in the order of the cells."""
    return list({canonical_json(cell.setting.get(key)): cell.setting.get(key) for cell in cells}.values())


def is_full_grid(cells: Sequence[Cell], keys: Sequence[str]) -> bool:
    """Whether at least two factors vary, and there is a cell for each combination of their levels."""
    if any(key not in cell.setting for cell in cells for key in keys):
        return False
    sizes = [len(levels(cells, key)) for key in keys]
    return sum(size > 1 for size in sizes) > 1 and prod(sizes) == len(cells)


def compared_levels(cells: Sequence[Cell], runs: Runs) -> list[tuple[str, Any]]:
    """(factor, level) for every level but the baseline levels."""
    return [
        (key, level)
        for key in runs.keys
        for level in levels(cells, key)
        if canonical_json(level) != canonical_json(baseline_level(cells, runs, key))
    ]


def baseline_level(cells: Sequence[Cell], runs: Runs, key: str) -> Any:
    """The level of a factor in the stated baseline, else its first level."""
    found, stated = levels(cells, key), runs.baseline.get(key)
    return stated if canonical_json(stated) in map(canonical_json, found) else found[0]


def main_effects(cells: Sequence[Cell], runs: Runs) -> list[Effect]:
    """Estimates the effect of each level of each factor against its baseline level, over the seeds that all its cells have.

    The list is empty where one level has no such seed, because the sentences would then not mention that level, and where it has only
    one although cells have several.
    """
    values = {canonical_json(cell.setting): cell.values for cell in cells}
    effects = []
    for key, level in compared_levels(cells, runs):
        base = baseline_level(cells, runs, key)
        pairs = [
            (cell.values, values[canonical_json({**cell.setting, key: base})])
            for cell in cells
            if canonical_json(cell.setting[key]) == canonical_json(level)
        ]
        ours, theirs = means_over_shared_seeds(pairs)
        if len(ours) < max(1, min(2, max(cell.n for cell in cells))):
            return []
        others = tuple(other for other in runs.keys if other != key and len(levels(cells, other)) > 1)
        effects.append(Effect(key, level, base, others, SeedDifference.of_pairs(ours, theirs)))
    return with_corrected_p(effects)


def interactions(cells: Sequence[Cell], effects: Sequence[Effect]) -> list[Interaction]:
    """Estimates how the effects of the first of two factors depend on the second; empty for another number of factors.

    The four cells of an interaction share a seed: all cells of an effect do.
    """
    keys = list(dict.fromkeys(effect.key for effect in effects))
    if len(keys) != 2:
        return []
    values = {canonical_json(cell.setting): cell.values for cell in cells}
    found = []
    for first, second in product(*([effect for effect in effects if effect.key == key] for key in keys)):
        corners = [
            values[canonical_json({**cells[0].setting, first.key: one, second.key: other})]
            for other, one in product((second.level, second.base), (first.level, first.base))
        ]
        shared = [[corner[seed] for corner in corners] for seed in corners[0] if all(seed in each for each in corners)]
        at_level = [level - base for level, base, _, _ in shared]
        at_base = [level - base for _, _, level, base in shared]
        found.append(Interaction(first, second, stats.paired(at_level, at_base)))
    return with_corrected_p(found)
