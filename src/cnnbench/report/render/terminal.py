"""Prints the answer and the tables on the terminal, for `report --text`."""

from __future__ import annotations

from rich.table import Table

from cnnbench.console import Console, plain_text
from cnnbench.report.analysis.report_data import Report
from cnnbench.report.render import tables


def print_report(report: Report, console: Console) -> None:
    """Prints question, answer, limitations, settings, main effects and claims."""
    if report.review.question:
        console.print(plain_text(report.review.question, "italic"), soft_wrap=True)
    for sentence in report.answer:
        console.print(plain_text(sentence, "bold"), highlight=False)
    for sentence in report.limits:
        console.print(plain_text(f"- {sentence}", "yellow"), highlight=False)
    review = report.review
    for table in (tables.cells_table(review), tables.effects_table(review), tables.claims_table(report.verdicts)):
        if table.rows:
            console.print()
            console.print(rich_table(table))


def rich_table(table: tables.Table) -> Table:
    """A table for the terminal, without its empty columns."""
    filled = table.filled
    made = Table(box=None, padding=(0, 2, 0, 0), header_style="bold")
    for index in filled:
        made.add_column(table.columns[index], justify="right" if index in table.numbers else "left", overflow="fold")
    for row in table.rows:
        made.add_row(
            *(plain_text(row.texts[index]) for index in filled), style="bold" if "best" in row.classes else None
        )
    return made
