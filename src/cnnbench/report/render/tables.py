"""The tables of a report as texts, for the page, for Markdown and for the terminal."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass

from cnnbench.report.analysis.cell import Cell
from cnnbench.report.analysis.claims import Verdict
from cnnbench.report.analysis.comparisons import Review
from cnnbench.report.analysis.main_effects import Effect, Interaction
from cnnbench.report.analysis.published_results import PublishedResult
from cnnbench.report.analysis.report_data import ImageComparison
from cnnbench.report.number_format import accuracy_text, p_value, signed_points
from cnnbench.stats import Difference, Interval

Number = tuple[str, float | None]  # a text, and the number by which it is sorted; None: it is unknown


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
    numbers: Collection[int]
    rows: list[Row]

    @property
    def filled(self) -> list[int]:
        """The indices of the columns that have a text in any row."""
        return [index for index in range(len(self.columns)) if any(row.texts[index] for row in self.rows)]


def make_row(*entries: str | Number, setting: int | None = None, classes: str = "") -> Row:
    """Makes a row from its entries: texts, and numbers with their texts.

    Args:
        entries: one for each column.
        setting: number of the setting that the row is about.
        classes: CSS classes of the row.
    """
    pairs = [(entry, None) if isinstance(entry, str) else entry for entry in entries]
    return Row([text for text, _ in pairs], [number for _, number in pairs], setting, classes)


# ---- entries -----------------------------------------------------------------------------------------------------------


def _number(value: float | None, form: str = ",.0f") -> Number:
    """A number in Python's format `form`; empty for None."""
    return ("" if value is None else f"{value:{form}}"), value


def _interval(interval: Interval) -> Number:
    """An interval of accuracies, sorted by its lower end."""
    return (f"{interval[0]:.4f} to {interval[1]:.4f}", interval[0]) if interval else ("", None)


def _difference(difference: Difference | None) -> tuple[Number, Number]:
    """A difference in percentage points, and its interval; both empty for None."""
    if difference is None:
        return ("", None), ("", None)
    interval = difference.interval
    ends = (" to ".join(map(signed_points, interval)), interval[0]) if interval else ("", None)
    return (signed_points(difference.point), difference.point), ends


# ---- tables ------------------------------------------------------------------------------------------------------------


def cells_table(review: Review) -> Table:
    """One row per setting: accuracy, difference from its baseline, cost."""
    columns = [
        "setting", "n", "mean", "sd", "95 % interval", "difference", "interval of difference", "p", "parameters", "MACs",
        "seconds", "samples/s",
    ]  # fmt: skip
    bases = {cell.base for cell in review.cells}
    rows = [_cell(cell, number, number in bases) for number, cell in enumerate(review.cells)]
    return Table(columns, range(1, 12), rows)


def _cell(cell: Cell, number: int, baseline: bool) -> Row:
    mark = "★ " if cell.best else "≈ " if cell.tied_with_best else ""
    missing = f"/{len(cell.runs)}" if cell.n < len(cell.runs) else ""
    params, macs, seconds, speed = map(cell.mean_result, ("params", "macs", "fit_s", "samples_per_s"))
    return make_row(
        cell.label, (f"{cell.n}{missing}", cell.n), (mark + accuracy_text(cell.mean), cell.mean), _number(cell.sd, ".4f"),
        _interval(cell.interval), *_difference(cell.difference), (p_value(cell.p), cell.p), _number(params), _number(macs),
        _number(seconds, ",.1f" if seconds and seconds < 1000 else ",.0f"), _number(speed),
        setting=number, classes=" ".join(["best"] * cell.best + ["base"] * baseline),
    )  # fmt: skip


def effects_table(review: Review) -> Table:
    """One row per variant of a factor, and one per pair of variants of two factors."""
    columns = ["factor", "variant", "against", "difference", "95 % interval", "seeds", "p"]
    rows = [_effect(each, each.key, each.label, each.base_label) for each in review.effects]
    for each in review.interactions:
        levels = (each.second.label, each.second.base_label)
        rows.append(_effect(each, "both", *(f"effect of {each.first.label} at {level}" for level in levels)))
    return Table(columns, range(3, 7), rows)


def _effect(each: Effect | Interaction, *names: str) -> Row:
    return make_row(*names, *_difference(each.difference), _number(each.difference.n), (p_value(each.p), each.p))


def claims_table(verdicts: Sequence[Verdict]) -> Table:
    """One row per claim."""
    columns = ["claim", "check", "measured", "95 % interval", "seeds", "verdict"]
    rows = [
        make_row(
            each.claim, each.condition, _number(each.point, ".4f"), _interval(each.interval), _number(each.n),
            f"{each.outcome}: {each.reason}" if each.reason else each.outcome,
        )
        for each in verdicts
    ]  # fmt: skip
    return Table(columns, range(2, 5), rows)


def published_table(found: Sequence[tuple[Cell, PublishedResult]]) -> Table:
    """One row per published result that matches a setting."""
    columns = ["setting", "ours", "95 % interval", "n", "published", "measured on", "source"]
    rows = [
        make_row(
            cell.label, _number(cell.mean, ".4f"), _interval(cell.interval), _number(cell.n), _number(figure.accuracy, ".4f"),
            figure.note, figure.source,
        )
        for cell, figure in found
    ]  # fmt: skip
    return Table(columns, range(1, 5), rows)


def comparisons_table(comparisons: Sequence[ImageComparison]) -> Table:
    """One row per pair of settings, compared on the same test images."""
    columns = ["A", "B", "only A right", "only B right", "A minus B", "95 % interval", "p"]
    rows = [
        make_row(
            each.ours.cell.label, each.theirs.cell.label, *map(_number, each.only), *_difference(each.difference),
            (p_value(each.p), each.p), setting=each.ours.index,
        )
        for each in comparisons
    ]  # fmt: skip
    return Table(columns, range(2, 7), rows)
