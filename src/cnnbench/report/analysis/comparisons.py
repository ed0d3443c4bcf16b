"""What runs show, as numbers: cells with intervals, differences to a baseline, main effects, what is best."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace

from cnnbench import stats
from cnnbench.report.analysis.cell import Cell, difference_of, of_cell
from cnnbench.report.analysis.main_effects import Effect, Interplay, interplays, main_effects, whole_grid
from cnnbench.report.load.sweep import Runs, by_cell
from cnnbench.stats import ALPHA
from cnnbench.text import canonical


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


def compared(cells: list[Cell], runs: Runs) -> tuple[list[Cell], bool]:
    """The cells with their differences to the baseline; and whether it was stated, rather than the first that has results."""
    stated = {key: value for key, value in (runs.asked.get("baseline") or {}).items() if key in runs.keys}
    place = {canonical(cell.setting): number for number, cell in enumerate(cells)}
    bases = [place.get(canonical({**cell.setting, **stated})) for cell in cells]
    if not stated or not any(
        base is not None and cells[base].n for base in bases
    ):  # it has no result, or is none of the cells
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


def ranked(cells: list[Cell]) -> list[Cell]:
    """The best is marked, and what cannot be told from it: by p where they are compared, else by Bonferroni over all pairs."""
    means = [cell.mean if cell.mean is not None else -1.0 for cell in cells]
    if len([mean for mean in means if mean >= 0]) < 2:
        return cells
    best = means.index(max(means))
    known = sum(cell.n > 0 for cell in cells)
    pairs = known * (known - 1) / 2

    def alike(number: int, cell: Cell) -> bool:
        for one, other in ((cell, best), (cells[best], number)):  # its difference is told, and judged
            if one.base == other and one.difference is not None:
                return one.p is None or one.p >= ALPHA
        difference, _ = difference_of(cells[best].values, cell.values)
        return difference is None or difference.p is None or difference.p * pairs >= ALPHA

    return [
        replace(cell, best=number == best, alike=number != best and cell.n > 0 and alike(number, cell))
        for number, cell in enumerate(cells)
    ]
