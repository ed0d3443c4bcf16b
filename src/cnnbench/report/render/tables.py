"""The tables of a report as texts, for the page, for Markdown and for the terminal."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from cnnbench.report.analysis.cell import Cell, level_label
from cnnbench.report.analysis.claims import Verdict
from cnnbench.report.analysis.comparisons import Review
from cnnbench.report.analysis.published_results import PublishedResult
from cnnbench.report.analysis.report_data import ImageComparison
from cnnbench.report.number_format import accuracy_text, p_value, signed_points
from cnnbench.stats import Difference, Interval


@dataclass(frozen=True)
class Row:
    """A row of a table.

    Attributes:
        texts: one for each column.
        sort: the number by which each column is sorted; None: by its text.
        setting: number of the setting that the row is about.
        classes: CSS classes of the row.
    """

    texts: list[str]
    sort: list[float | None] | None = None
    setting: int | None = None
    classes: str = ""


@dataclass(frozen=True)
class Table:
    """Column heads, the indices of the columns that hold numbers, and rows."""

    columns: list[str]
    numbers: frozenset[int] = frozenset()
    rows: list[Row] = field(default_factory=list)


def of_cells(review: Review) -> Table:
    """One row per setting: accuracy, difference from its baseline, cost."""
    columns = [
        "setting", "n", "mean", "sd", "95 % interval", "difference", "interval of difference", "p", "parameters", "MACs",
        "seconds", "samples/s",
    ]  # fmt: skip
    bases = {cell.base for cell in review.cells}
    rows = [_cell(cell, number, number in bases) for number, cell in enumerate(review.cells)]
    return Table(columns, frozenset(range(1, 12)), rows)


def _cell(cell: Cell, number: int, baseline: bool) -> Row:
    difference = cell.difference
    facts = [
        cell.mean_result("params"),
        cell.mean_result("macs"),
        cell.mean_result("fit_s"),
        cell.mean_result("samples_per_s"),
    ]
    mark = "★ " if cell.best else "≈ " if cell.tied_with_best else ""
    missing = f"/{len(cell.runs)}" if cell.n < len(cell.runs) else ""
    texts = [
        cell.label, f"{cell.n}{missing}", mark + accuracy_text(cell.mean), accuracy_text(cell.sd), _interval(cell.interval),
        signed_points(difference.point) if difference else "", _points(difference), p_value(cell.p), *map(_count, facts[:2]),
        _number(facts[2]), _count(facts[3]),
    ]  # fmt: skip
    low = cell.interval[0] if cell.interval else None
    of_low = difference.interval[0] if difference and difference.interval else None
    sort = [
        None,
        float(cell.n),
        cell.mean,
        cell.sd,
        low,
        difference.point if difference else None,
        of_low,
        cell.p,
        *facts,
    ]
    return Row(texts, sort, number, " ".join(["best"] * cell.best + ["base"] * baseline))


def of_effects(review: Review) -> Table:
    """One row per variant of a factor, and one per pair of variants of two factors."""
    columns = ["factor", "variant", "against", "difference", "95 % interval", "seeds", "p"]
    rows = []
    for effect in review.effects:
        rows.append(
            _effect(effect.key, effect.label, level_label(effect.key, effect.base), effect.difference, effect.p)
        )
    for each in review.interactions:
        label = f"{each.first.label} at {level_label(each.key, each.level)}"
        against = f"{each.first.label} at {level_label(each.key, each.base)}"
        rows.append(_effect("both", label, against, each.difference, each.p))
    return Table(columns, frozenset({3, 4, 5, 6}), rows)


def _effect(key: str, level: str, base: str, difference: Difference, p: float | None) -> Row:
    texts = [key, level, base, signed_points(difference.point), _points(difference), str(difference.n), p_value(p)]
    low = difference.interval[0] if difference.interval else None
    return Row(texts, [None, None, None, difference.point, low, float(difference.n), p])


def of_claims(verdicts: Sequence[Verdict]) -> Table:
    """One row per claim."""
    columns = ["claim", "check", "measured", "95 % interval", "seeds", "verdict"]
    rows = [
        Row(
            [
                each.claim,
                each.condition,
                "" if each.point is None else f"{each.point:.4f}",
                _interval(each.interval),
                str(each.n),
                f"{each.outcome}: {each.reason}" if each.reason else each.outcome,
            ],
            [None, None, each.point, each.interval[0] if each.interval else None, float(each.n), None],
        )
        for each in verdicts
    ]
    return Table(columns, frozenset({2, 3, 4}), rows)


def of_published(found: Sequence[tuple[Cell, PublishedResult]]) -> Table:
    """One row per published result that matches a setting."""
    columns = ["setting", "ours", "95 % interval", "n", "published", "measured on", "source"]
    rows = [
        Row(
            [
                cell.label,
                accuracy_text(cell.mean),
                _interval(cell.interval),
                str(cell.n),
                accuracy_text(figure.accuracy),
                figure.note,
                figure.source,
            ],
            [None, cell.mean, None, float(cell.n), figure.accuracy, None, None],
        )
        for cell, figure in found
    ]
    return Table(columns, frozenset({1, 2, 3, 4}), rows)


def _interval(interval: Interval) -> str:
    return "" if interval is None else f"{interval[0]:.4f} to {interval[1]:.4f}"


def _points(difference: Difference | None) -> str:
    if difference is None or difference.interval is None:
        return ""
    return f"{signed_points(difference.interval[0])} to {signed_points(difference.interval[1])}"


def _count(value: float | None) -> str:
    return "" if value is None else f"{value:,.0f}"


def _number(value: float | None) -> str:
    return "" if value is None else f"{value:,.1f}" if value < 1000 else f"{value:,.0f}"


def of_comparisons(comparisons: Sequence[ImageComparison], cells: Sequence[Cell]) -> Table:
    """One row per pair of settings, compared on the same test images."""
    columns = ["A", "B", "only A right", "only B right", "A minus B", "95 % interval", "p"]
    rows = []
    for each in comparisons:
        ours, theirs = each.only
        interval = each.difference.interval
        texts = [
            each.ours.cell.label, each.theirs.cell.label, f"{ours:,}", f"{theirs:,}", signed_points(each.difference.point),
            f"{signed_points(interval[0])} to {signed_points(interval[1])}" if interval else "", p_value(each.p),
        ]  # fmt: skip
        low = interval[0] if interval else None
        sort = [None, None, float(ours), float(theirs), each.difference.point, low, each.p]
        rows.append(Row(texts, sort, each.ours.index))
    return Table(columns, frozenset({2, 3, 4, 5, 6}), rows)
