"""Compares two folders of runs, A and B, cell by cell: which cells are better, which are worse, and whether that is significant."""

from __future__ import annotations

import statistics
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Literal

from cnnbench import stats
from cnnbench.errors import ConfigError
from cnnbench.report.analysis.cell import (
    Cell,
    SeedDifference,
    difference_by_seed,
    group_by_cell,
    is_significant,
    means_over_shared_seeds,
    unpaired_difference,
    with_corrected_p,
)
from cnnbench.report.load.run import Run
from cnnbench.report.load.sweep import Runs
from cnnbench.report.number_format import higher_or_lower, p_value, plural, signed_points
from cnnbench.text import canonical_json, first_few

ROUNDING = 1e-9  # of a difference of accuracies
Verdict = Literal["better", "worse", "equal", "undecided", "no result"]


@dataclass(frozen=True)
class CellPair:
    """A cell in A and the same cell in B.

    Attributes:
        before, after: the cell in A and in B.
        difference: test accuracy of B minus that of A, paired by seed, else unpaired; None where one has no result.
        p: p value of the difference, corrected (Holm) over all pairs.
    """

    before: Cell
    after: Cell
    difference: SeedDifference | None
    p: float | None = None

    @property
    def label(self) -> str:
        """The setting in words, from the folder where more keys vary."""
        return max(self.before, self.after, key=lambda cell: len(cell.setting)).label

    @property
    def means(self) -> tuple[float | None, float | None]:
        """The test accuracies of A and B: means over the seeds that are compared."""
        if self.difference is None or not self.difference.paired:
            return self.before.mean, self.after.mean
        before, after = means_over_shared_seeds([(self.before.values, self.after.values)])
        return statistics.fmean(before), statistics.fmean(after)

    @property
    def verdict(self) -> Verdict:
        """How B compares with A; better and worse are significant (p < 0.05)."""
        if self.difference is None:
            return "no result"
        if self.difference.paired and not any(self.difference.by_seed):
            return "equal"
        if not is_significant(self.p):
            return "undecided"
        return "better" if self.difference.point > 0 else "worse"


@dataclass(frozen=True)
class SweepComparison:
    """Two folders of runs, cell by cell.

    Attributes:
        before, after: the folders A and B.
        pairs: the cells of both folders.
        only_before, only_after: the cells of one folder.
        overall: mean difference over the paired cells, by the seeds that all of them share.
    """

    before: Runs
    after: Runs
    pairs: list[CellPair]
    only_before: list[Cell]
    only_after: list[Cell]
    overall: stats.Difference | None

    def failures(self, limit: float) -> list[str]:
        """Lists, in words, what `--fail-if-worse` fails for.

        A cell fails where its mean is worse by more than the limit, and either that is significant or each seed alone is
        worse by more than the limit. All cells together fail where their mean is worse by more than the limit, and that is
        significant. A cell also fails where B has no result of a run that A has a result of.

        Args:
            limit: the accepted loss of test accuracy, as a fraction.
        """
        bound = -limit - ROUNDING
        failures = [f"{pair.label} {loss}" for pair in self.pairs if (loss := loss_beyond(bound, pair))]
        overall = self.overall if len(self.pairs) > 1 else None
        if overall and overall.point < bound and is_significant(overall.p):
            failures.append(f"all settings {signed_points(overall.point)} points (p {p_value(overall.p)})")
        for pair in self.pairs:
            if lost := runs_without_result(pair):
                states = ", ".join(f"seed {run.seed} {run.state}" for run in lost)
                failures.append(f"{pair.label} without a result ({states})")
        return failures


def loss_beyond(bound: float, pair: CellPair) -> str:
    """`-2.0 points (p 0.012)` where a cell's difference is below the bound, and is significant or below it for each seed alone.

    Unpaired seeds are all below the bound where each seed of B is against each seed of A. Empty where the cell is not worse.
    """
    found = pair.difference
    if found is None or found.point >= bound:
        return ""
    if pair.verdict == "worse":
        why = f"p {p_value(pair.p)}"
    else:
        best = max(pair.after.values.values()) - min(pair.before.values.values())
        if max(found.by_seed, default=best) >= bound:
            return ""
        why = "one seed: by its point alone" if found.n == 1 else f"each of {found.n} seeds"
    return f"{signed_points(found.point)} points ({why})"


def runs_without_result(pair: CellPair) -> list[Run]:
    """The runs of B without a result: of seeds that have one in A, or all runs where B has no result at all."""
    if not pair.before.values:
        return []
    unfinished = [run for run in pair.after.runs if run.accuracy is None]
    return [run for run in unfinished if run.seed in pair.before.values or not pair.after.values]


def compare_sweeps(before: Runs, after: Runs) -> SweepComparison:
    """Compares two folders of runs; cells are the same where their settings agree in every key that varies in either folder.

    A key that varies in one folder only has its fixed value in the other: so a run is compared with the same cell of a sweep.

    Raises:
        ConfigError: no cell is in both.
    """
    keys = list(dict.fromkeys([*before.keys, *after.keys]))
    ours, theirs = (
        {canonical_json(full_setting(cell, runs, keys)): cell for cell in group_by_cell(runs.runs)}
        for runs in (before, after)
    )
    matched = [(cell, theirs[setting]) for setting, cell in ours.items() if setting in theirs]
    if not matched:
        raise ConfigError(
            f"{before.path} and {after.path}: no setting is in both; the first has "
            f"{join_labels([cell.label for cell in ours.values()])}, the second "
            f"{join_labels([cell.label for cell in theirs.values()])}; to compare two runs of different settings, type the "
            "directories of these runs"
        )
    pairs = with_corrected_p([CellPair(*cells, difference_of_cells(*cells)) for cells in matched])
    only_before = [cell for setting, cell in ours.items() if setting not in theirs]
    only_after = [cell for setting, cell in theirs.items() if setting not in ours]
    return SweepComparison(before, after, pairs, only_before, only_after, overall_difference(pairs))


def full_setting(cell: Cell, runs: Runs, keys: Iterable[str]) -> list:
    """The values of a cell for these keys: swept values, else the fixed ones; None for a key that its config does not have."""
    values = {**runs.sweep_record.fixed, **cell.full_setting}
    return [values.get(key) for key in keys]


def difference_of_cells(before: Cell, after: Cell) -> SeedDifference | None:
    """B minus A, paired by seed, else unpaired, also where one side has a single seed; None where one has no result."""
    a, b = before.values, after.values
    difference = difference_by_seed(b, a)
    return unpaired_difference(b, a) if difference is None and a and b else difference


def overall_difference(pairs: Sequence[CellPair]) -> stats.Difference | None:
    """The mean difference over the paired cells, by the seeds that all of them share; None where there is no such seed."""
    paired = [pair for pair in pairs if pair.difference and pair.difference.paired]
    b, a = means_over_shared_seeds([(pair.after.values, pair.before.values) for pair in paired])
    return stats.paired(b, a) if b else None


def summary_sentence(comparison: SweepComparison) -> str:
    """The whole comparison in a sentence."""
    pairs = [(pair, pair.difference) for pair in comparison.pairs if pair.difference]
    if not pairs:
        return "Nothing can be compared: no matched setting has a result in both."
    single = len(pairs) == 1
    found = pairs[0][1] if single else comparison.overall
    if found is None:
        return "The matched settings have no seed in common; each is compared alone."
    over = "" if single else f"Over {plural(sum(difference.paired for _, difference in pairs), 'setting')} "
    seeds = plural(found.n, "paired seed") if pairs[0][1].paired or not single else "unpaired seeds"
    if found.n < max(difference.n for _, difference in pairs):
        seeds += " that all settings have"
    if all(pair.verdict == "equal" for pair, _ in pairs):
        return f"{over or 'For one setting '}A and B have the same test accuracy for every seed ({seeds})."
    start = "The test accuracy" if single else f"{over}the test accuracy"
    undecided = "" if is_significant(found.p) else ", which is not significant"
    return (
        f"{start} of B is {higher_or_lower(found.point)} than that of A{undecided} ({seeds}, {interval_and_p(found)})."
    )


def join_labels(labels: Sequence[str]) -> str:
    """The first few labels, and how many more there are; a label may contain commas."""
    return first_few(labels, separator="; ")


def interval_and_p(difference: stats.Difference) -> str:
    """`95 % interval -0.5 to +0.2, p 0.041`."""
    if difference.interval is None:
        return "no interval: one seed cannot show the variation between seeds" if difference.n == 1 else "no interval"
    low, high = map(signed_points, difference.interval)
    return f"95 % interval {low} to {high}, p {p_value(difference.p)}"
