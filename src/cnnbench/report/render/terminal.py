"""Prints the answer and the tables on the terminal, for `report --text`."""

from __future__ import annotations

from rich.console import Console
from rich.table import Table
from rich.text import Text

from cnnbench.report.analysis.report_data import Report
from cnnbench.report.render import tables


def print_report(report: Report, console: Console) -> None:
    """Prints question, answer, limitations, settings, main effects and claims."""
    if report.review.question:
        console.print(Text(report.review.question, "italic"), soft_wrap=True)
    for sentence in report.answer:
        console.print(Text(sentence, "bold"), highlight=False)
    for sentence in report.limits:
        console.print(Text(f"- {sentence}", "yellow"), highlight=False)
    console.print()
    console.print(of_table(tables.of_cells(report.review)))
    if report.review.effects:
        console.print()
        console.print(of_table(tables.of_effects(report.review)))
    if report.verdicts:
        console.print()
        console.print(of_table(tables.of_claims(report.verdicts)))


def of_table(table: tables.Table) -> Table:
    """A table for the terminal, without its empty columns."""
    kept = [number for number in range(len(table.columns)) if any(row.texts[number] for row in table.rows)]
    made = Table(box=None, padding=(0, 2, 0, 0), header_style="bold")
    for number in kept:
        right = number in table.numbers
        made.add_column(table.columns[number], justify="right" if right else "left", overflow="fold")
    for row in table.rows:
        made.add_row(*(Text(row.texts[number]) for number in kept), style="bold" if "best" in row.classes else None)
    return made
