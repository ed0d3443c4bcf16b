"""Two folders of runs against each other: which cells are the same ones, what became better or worse, and how surely."""

from __future__ import annotations

import statistics
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

from cnnbench import stats
from cnnbench.errors import ConfigError
from cnnbench.report.analysis.cell import METRIC, Cell, difference_of, of_cell
from cnnbench.report.load.run import DETAILS, Run
from cnnbench.report.load.sweep import Runs, by_cell
from cnnbench.report.number_format import NAMED, p_value, plural, points, signed
from cnnbench.stats import ALPHA
from cnnbench.text import canonical

ROUNDING = 1e-9  # of a difference of accuracies
Verdict = Literal["better", "worse", "equal", "not decided", "no result"]


@dataclass(frozen=True)
class Pair:
    """A cell as it was and as it is.

    Attributes:
        before, after: the cell in A and in B.
        difference: of their test accuracies, B less A, paired by seed, else unpaired; None where one has no result.
        paired: whether it is paired.
        p: of the difference, Holm-corrected over all pairs.
    """

    before: Cell
    after: Cell
    difference: stats.Difference | None = None
    paired: bool = True
    p: float | None = None

    @property
    def label(self) -> str:
        """The cell in words, by the folder that tells more of it."""
        return max(self.before, self.after, key=lambda cell: len(cell.setting)).label

    @property
    def by_seed(self) -> list[float]:
        """The differences of the seeds that both have."""
        return [
            self.after.values[seed] - value for seed, value in self.before.values.items() if seed in self.after.values
        ]

    @property
    def shared(self) -> bool:
        """It is compared by seeds that both have."""
        return self.difference is not None and self.paired

    @property
    def means(self) -> tuple[float | None, float | None]:
        """The test accuracy before and after, of the seeds that are compared."""
        if not self.shared:
            return self.before.mean, self.after.mean
        common = [seed for seed in self.before.values if seed in self.after.values]
        before, after = (statistics.fmean(cell.values[seed] for seed in common) for cell in (self.before, self.after))
        return before, after

    @property
    def verdict(self) -> Verdict:
        """What became of the cell; it is better or worse where p < 0.05."""
        if self.difference is None:
            return "no result"
        if self.paired and not any(self.by_seed):
            return "equal"
        if self.p is None or self.p >= ALPHA:
            return "not decided"
        return "better" if self.difference.point > 0 else "worse"


@dataclass(frozen=True)
class Matched:
    """Two folders of runs, cell by cell.

    Attributes:
        before, after: the folders A and B.
        pairs: cells that both were asked for.
        only_before, only_after: the others.
        overall: the difference over the cells that share a seed, paired by the seeds that all of them share.
    """

    before: Runs
    after: Runs
    pairs: list[Pair]
    only_before: list[Cell]
    only_after: list[Cell]
    overall: stats.Difference | None

    def worse_by(self, limit: float) -> list[str]:
        """What `--fail-if-worse` fails for, in words: cells that are worse by more than `limit`, runs without a result.

        A cell counts where its mean difference is beyond the limit, and either p < 0.05 or each seed is by itself; all cells
        together do where p < 0.05.
        """
        bound = -limit - ROUNDING
        together = self.overall if len(self.pairs) > 1 else None
        return [
            *(f"{pair.label} {_how(pair)}" for pair in self.pairs if beyond(pair, bound)),
            *(
                [f"all cells {_size(together)} (p {p_value(together.p)})"]
                if together and surely(together, bound)
                else []
            ),
            *(f"{pair.label} without a result ({lost})" for pair in self.pairs if (lost := missing(pair))),
        ]


def beyond(pair: Pair, bound: float) -> bool:
    """Whether a cell is worse by more than the limit, and one is sure enough of it."""
    if pair.difference is None or pair.difference.point >= bound:
        return False
    return pair.verdict == "worse" or each_beyond(pair, bound)


def each_beyond(pair: Pair, bound: float) -> bool:
    """Whether each seed is; of seeds that are not paired, each of B against each of A."""
    if pair.paired:
        return max(pair.by_seed) < bound
    return max(pair.after.values.values()) - min(pair.before.values.values()) < bound


def surely(difference: stats.Difference, bound: float) -> bool:
    """Whether a difference is worse than the limit, and significant."""
    return difference.point < bound and difference.p is not None and difference.p < ALPHA


def _how(pair: Pair) -> str:
    assert pair.difference is not None
    if pair.verdict == "worse":
        return f"{_size(pair.difference)} (p {p_value(pair.p)})"
    n = pair.difference.n
    return f"{_size(pair.difference)} ({'one seed: by its point alone' if n == 1 else f'each of {n} seeds'})"


def _size(difference: stats.Difference) -> str:
    return f"{signed(difference.point)} points"


def missing(pair: Pair) -> str:
    """The runs that B was asked for and has no result of, where A has."""
    values = pair.before.values
    if not values:
        return ""
    lost = [
        run for run in pair.after.runs if run.metric(METRIC) is None and (run.seed in values or not pair.after.values)
    ]
    return ", ".join(f"seed {run.seed} {run.state}" for run in lost)


# ---- which cells are the same ones ---------------------------------------------------------------------------------------


def match(before: Runs, after: Runs) -> Matched:
    """The cells of two folders against each other: by what varies, where the same keys do; else by config.

    Raises:
        ConfigError: no cell is in both.
    """
    ours, theirs = ([of_cell(members) for members in by_cell(runs.runs)] for runs in (before, after))
    places: list[list[str]] = [[canonical(cell.setting) for cell in cells] for cells in (ours, theirs)]
    if set(before.keys) != set(after.keys) or not set(places[0]) & set(places[1]):
        places = profiles(ours, theirs, {*before.keys, *after.keys})
    at = {place: cell for place, cell in zip(places[1], theirs, strict=True) if place}
    pairs = [Pair(cell, at[place]) for place, cell in zip(places[0], ours, strict=True) if place in at]
    pairs += left_nothing(
        [cell for cell in ours if all(cell is not pair.before for pair in pairs)], theirs, before, after
    )
    if not pairs:
        raise ConfigError(
            f"{before.path} and {after.path}: no cell is in both; the first has {listed([cell.label for cell in ours])}, "
            f"the second {listed([cell.label for cell in theirs])}"
        )
    matched = {id(cell) for pair in pairs for cell in (pair.before, pair.after)}
    only_ours, only_theirs = ([cell for cell in cells if id(cell) not in matched] for cells in (ours, theirs))
    pairs = judged(pairs)
    return Matched(before, after, pairs, only_ours, only_theirs, overall(pairs))


def left_nothing(ours: Sequence[Cell], theirs: Sequence[Cell], before: Runs, after: Runs) -> list[Pair]:
    """Cells of A with those of B that were asked for and left no config: by the keys that vary in both, where that is clear."""
    keys = [key for key in before.keys if key in after.keys]

    def place(cell: Cell) -> str:
        return canonical([cell.setting.get(key) for key in keys])

    bare = [cell for cell in theirs if not configured(cell.runs).config] if keys else []
    places = Counter(map(place, (*ours, *bare)))
    at = {place(cell): cell for cell in bare}
    return [Pair(cell, at[place(cell)]) for cell in ours if place(cell) in at and places[place(cell)] == 2]


def profiles(ours: Sequence[Cell], theirs: Sequence[Cell], swept: set[str]) -> list[list[str]]:
    """What each cell is, seeds aside, less the keys that are fixed in either folder and differ between them."""

    def profile(cell: Cell) -> dict[str, Any]:
        return {
            key: value
            for key, value in configured(cell.runs).config.items()
            if key in swept or key not in (*DETAILS, "seed")
        }

    sides = [[profile(cell) for cell in cells] for cells in (ours, theirs)]
    keys = {key for side in sides for values in side for key in values}
    values = {key: [{canonical(each.get(key)) for each in side if each} for side in sides] for key in keys}
    kept = sorted(key for key, (a, b) in values.items() if a == b or len(a) > 1 or len(b) > 1)
    return [[canonical([each.get(key) for key in kept]) if each else "" for each in side] for side in sides]


def configured(runs: Iterable[Run]) -> Run:
    """One of a cell's runs, one that has a config if there is any."""
    return max(runs, key=lambda run: bool(run.config))


# ---- what became of them -------------------------------------------------------------------------------------------------


def judged(pairs: Sequence[Pair]) -> list[Pair]:
    """With their differences, corrected for how many they are."""
    made = []
    for pair in pairs:
        a, b = pair.before.values, pair.after.values
        difference, paired = difference_of(b, a)
        if difference is None and a and b:  # one seed on a side, and another
            difference, paired = stats.welch(list(b.values()), list(a.values())), False
        made.append(replace(pair, difference=difference, paired=paired))
    corrected = stats.holm([pair.difference.p if pair.difference else None for pair in made])
    return [replace(pair, p=p) for pair, p in zip(made, corrected, strict=True)]


def overall(pairs: Sequence[Pair]) -> stats.Difference | None:
    """The mean difference over cells, by the seeds that all share; cells that are not paired are left out."""
    sides = [(pair.after.values, pair.before.values) for pair in pairs if pair.shared]
    seeds = [seed for seed in sides[0][0] if all(seed in b and seed in a for b, a in sides)] if sides else []
    if not seeds:
        return None
    b, a = ([statistics.fmean(side[which][seed] for side in sides) for seed in seeds] for which in (0, 1))
    return stats.paired(b, a)


def summary(matched: Matched) -> str:
    """All of it in a sentence."""
    pairs = [pair for pair in matched.pairs if pair.difference]
    if not pairs:
        return "Nothing can be compared: no matched cell has a result in both."
    alone = len(pairs) == 1
    found = pairs[0].difference if alone else matched.overall
    if found is None:
        return "The matched cells have no seed in common; each is compared by itself."
    over = "" if alone else f"Over {plural(sum(pair.shared for pair in pairs), 'cell')} "
    seeds = plural(found.n, "paired seed") if pairs[0].paired or not alone else "seeds not paired"
    if not alone and found.n < max(pair.difference.n for pair in pairs if pair.difference):
        seeds += " that all cells have"
    if all(pair.verdict == "equal" for pair in pairs):
        return f"{over or 'For one cell '}A and B have the same test accuracy for every seed ({seeds})."
    more = "higher" if found.point > 0 else "lower"
    sure = "" if found.p is not None and found.p < ALPHA else ", which is not decided"
    told = f"the test accuracy of B is {points(abs(found.point))} points {more} than that of A{sure}"
    return f"{over}{told} ({seeds}, {interval_of(found)}).".replace("the", "The" if alone else "the", 1)


def listed(names: Sequence[str]) -> str:
    """The first of them, and how many more; names may have commas."""
    more = f" and {len(names) - NAMED} more" if len(names) > NAMED else ""
    return "; ".join(names[:NAMED]) + more


def interval_of(difference: stats.Difference) -> str:
    """`95 % interval -0.5 to +0.2, p 0.041`."""
    if difference.interval is None:
        return "no interval: one seed says nothing of chance" if difference.n == 1 else "no interval"
    low, high = map(signed, difference.interval)
    return f"95 % interval {low} to {high}, p {p_value(difference.p)}"
