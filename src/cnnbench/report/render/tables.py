"""The tables of a report, as texts: for the page, for Markdown, for a terminal."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from cnnbench.report.analysis.cell import Cell, word
from cnnbench.report.analysis.claims import Verdict
from cnnbench.report.analysis.comparisons import Review
from cnnbench.report.analysis.published_results import Published
from cnnbench.report.analysis.report_data import Comparison
from cnnbench.report.number_format import p_value, percent, signed
from cnnbench.stats import Difference, Interval


@dataclass(frozen=True)
class Row:
    """A row's texts; what they are sorted by, where that is not the text; which arm it is of."""

    texts: list[str]
    sort: list[float | None] | None = None
    arm: int | None = None
    classes: str = ""


@dataclass(frozen=True)
class Table:
    """Columns, which of them are numbers, rows."""

    columns: list[str]
    numbers: frozenset[int] = frozenset()
    rows: list[Row] = field(default_factory=list)


def of_cells(review: Review) -> Table:
    """A row a cell."""
    columns = [
        "cell", "n", "mean", "sd", "95 % interval", "difference", "95 % interval of it", "p", "parameters", "MACs", "seconds",
        "samples/s",
    ]  # fmt: skip
    bases = {cell.base for cell in review.cells}
    rows = [_cell(cell, number, number in bases) for number, cell in enumerate(review.cells)]
    return Table(columns, frozenset(range(1, 12)), rows)


def _cell(cell: Cell, number: int, baseline: bool) -> Row:
    difference = cell.difference
    facts = [cell.fact("params"), cell.fact("macs"), cell.fact("time", "fit_s"), cell.fact("samples_per_s")]
    mark = "★ " if cell.best else "≈ " if cell.alike else ""
    missing = f"/{len(cell.runs)}" if cell.n < len(cell.runs) else ""
    texts = [
        cell.label, f"{cell.n}{missing}", mark + percent(cell.mean), percent(cell.sd), _interval(cell.interval),
        signed(difference.point) if difference else "", _points(difference), p_value(cell.p), *map(_count, facts[:2]),
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
    """A row a level of a factor, and a row for each pair of levels of two."""
    columns = ["factor", "level", "against", "difference", "95 % interval", "seeds", "p"]
    rows = []
    for effect in review.effects:
        rows.append(_effect(effect.key, effect.label, word(effect.key, effect.base), effect.difference, effect.p))
    for each in review.interplays:
        label = f"{each.first.label} at {word(each.key, each.level)}"
        against = f"{each.first.label} at {word(each.key, each.base)}"
        rows.append(_effect("both", label, against, each.difference, each.p))
    return Table(columns, frozenset({3, 4, 5, 6}), rows)


def _effect(key: str, level: str, base: str, difference: Difference, p: float | None) -> Row:
    texts = [key, level, base, signed(difference.point), _points(difference), str(difference.n), p_value(p)]
    low = difference.interval[0] if difference.interval else None
    return Row(texts, [None, None, None, difference.point, low, float(difference.n), p])


def of_claims(verdicts: Sequence[Verdict]) -> Table:
    """A row a claim."""
    columns = ["claim", "check", "it came out", "95 % interval", "seeds", "verdict"]
    rows = [
        Row(
            [
                each.says,
                each.wants,
                "" if each.point is None else f"{each.point:.4f}",
                _interval(each.interval),
                str(each.n),
                f"{each.outcome}: {each.why}" if each.why else each.outcome,
            ],
            [None, None, each.point, each.interval[0] if each.interval else None, float(each.n), None],
        )
        for each in verdicts
    ]
    return Table(columns, frozenset({2, 3, 4}), rows)


def of_published(found: Sequence[tuple[Cell, Published]]) -> Table:
    """A row a figure that is published of a cell."""
    columns = ["cell", "ours", "95 % interval", "n", "published", "measured on", "source"]
    rows = [
        Row(
            [
                cell.label,
                percent(cell.mean),
                _interval(cell.interval),
                str(cell.n),
                percent(figure.accuracy),
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
    return f"{signed(difference.interval[0])} to {signed(difference.interval[1])}"


def _count(value: float | None) -> str:
    return "" if value is None else f"{value:,.0f}"


def _number(value: float | None) -> str:
    return "" if value is None else f"{value:,.1f}" if value < 1000 else f"{value:,.0f}"


def of_comparisons(comparisons: Sequence[Comparison], cells: Sequence[Cell]) -> Table:
    """A row a pair of arms, on the same images."""
    place = {id(cell): number for number, cell in enumerate(cells)}
    columns = ["A", "B", "only A right", "only B right", "A less B", "95 % interval", "p"]
    rows = []
    for each in comparisons:
        ours, theirs = each.only
        interval = each.difference.interval
        texts = [
            each.ours.cell.label, each.theirs.cell.label, f"{ours:,}", f"{theirs:,}", signed(each.difference.point),
            f"{signed(interval[0])} to {signed(interval[1])}" if interval else "", p_value(each.p),
        ]  # fmt: skip
        low = interval[0] if interval else None
        sort = [None, None, float(ours), float(theirs), each.difference.point, low, each.p]
        rows.append(Row(texts, sort, place[id(each.ours.cell)]))
    return Table(columns, frozenset({2, 3, 4, 5, 6}), rows)
