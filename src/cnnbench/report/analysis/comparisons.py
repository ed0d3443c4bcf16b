"""The findings of a folder of runs as numbers: intervals, differences from a baseline, main effects, the best cell."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from math import comb

from cnnbench import stats
from cnnbench.report.analysis.cell import Cell, difference_by_seed, group_by_cell, is_significant, with_corrected_p
from cnnbench.report.analysis.main_effects import Effect, Interaction, interactions, is_full_grid, main_effects
from cnnbench.report.load.sweep import Runs
from cnnbench.stats import ALPHA
from cnnbench.text import canonical_json

TARGET_DIFFERENCE = 0.01  # the difference for which the needed seeds are estimated: 1 point


@dataclass(frozen=True)
class Review:
    """The findings of a folder of runs.

    Attributes:
        runs: the runs.
        cells: in the order of the sweep's jobs.
        baseline_stated: whether the baseline is the one that the experiment states.
        effects, interactions: where the cells are a full grid of several factors.
    """

    runs: Runs
    cells: list[Cell]
    baseline_stated: bool
    effects: list[Effect]
    interactions: list[Interaction]

    @property
    def question(self) -> str | None:
        """The question of the experiment."""
        return self.runs.sweep_record.question

    @property
    def known_cells(self) -> list[Cell]:
        """The cells that have results."""
        return [cell for cell in self.cells if cell.n]

    @property
    def number_of_comparisons(self) -> int:
        """Number of p values in the answer; each is corrected for this number."""
        return sum(each.p is not None for each in self.effects or self.cells)

    def seeds_needed(self, differences: Sequence[float], target: float = TARGET_DIFFERENCE) -> tuple[int, int] | None:
        """(low, high): how many more seeds would detect a difference of size `target`; None where the variation is unknown.

        Args:
            differences: one per seed, as fractions.
            target: the true difference to detect, as a fraction.
        """
        if len(differences) < 2:
            return None
        return stats.more_pairs(differences, target, alpha=ALPHA / max(1, self.number_of_comparisons))


def review(runs: Runs) -> Review:
    """Computes the findings of a folder of runs."""
    cells, stated = with_differences(group_by_cell(runs.runs), runs)
    cells = mark_best(cells)
    effects = main_effects(cells, runs) if is_full_grid(cells, runs.keys) else []
    return Review(runs, cells, stated, effects, interactions(cells, effects))


def with_differences(cells: list[Cell], runs: Runs) -> tuple[list[Cell], bool]:
    """Adds to each cell its difference from the baseline; returns the cells, and whether the stated baseline is used.

    Where no baseline is stated, or the stated one has no result, it is the first cell with results.
    """
    stated = runs.baseline
    index = {canonical_json(cell.setting): number for number, cell in enumerate(cells)}
    bases = [index.get(canonical_json({**cell.setting, **stated})) for cell in cells]
    if not stated or not any(base is not None and cells[base].n for base in bases):
        first = next((number for number, cell in enumerate(cells) if cell.n), 0)
        stated, bases = {}, [first] * len(cells)
    compared = []
    for number, (cell, base) in enumerate(zip(cells, bases, strict=True)):
        if base is not None and base != number:
            cell = replace(cell, base=base, difference=difference_by_seed(cell.values, cells[base].values))
        compared.append(cell)
    return with_corrected_p(compared), bool(stated)


def mark_best(cells: list[Cell]) -> list[Cell]:
    """Marks the cell with the highest mean, and the cells that are not significantly different from it.

    Cells that the answer compares are judged by that p value; others by a new one, corrected (Bonferroni) over all pairs.
    """
    known = [number for number, cell in enumerate(cells) if cell.n]
    if len(known) < 2:
        return cells
    best = max(known, key=lambda number: cells[number].mean or 0.0)
    pairs = comb(len(known), 2)

    def is_tied(number: int) -> bool:
        for one, other in ((number, best), (best, number)):
            if cells[one].base == other and cells[one].difference:
                return not is_significant(cells[one].p)
        difference = difference_by_seed(cells[best].values, cells[number].values)
        return difference is None or difference.p is None or difference.p * pairs >= ALPHA

    return [
        replace(cell, best=number == best, tied_with_best=number != best and cell.n > 0 and is_tied(number))
        for number, cell in enumerate(cells)
    ]
