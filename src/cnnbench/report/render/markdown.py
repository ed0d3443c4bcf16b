"""Renders report.md: answer, tables and links to the figures, to keep with an experiment."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

from cnnbench.report.analysis.report_data import Report
from cnnbench.report.render import tables
from cnnbench.text import printable


def render(report: Report, figures: Sequence[Path], folder: Path, command: str) -> str:
    """Renders the Markdown text.

    Args:
        report: the findings.
        figures: the files of the figures.
        folder: where the text will be saved; links are relative to it.
        command: the command that was typed; the text ends with it.
    """
    review = report.review
    title = review.question or review.runs.sweep_record.name or review.runs.path.resolve().name
    parts = [f"# {plain(title)}", " ".join(map(plain, report.answer))]
    if report.limits:
        parts.append("Limitations:\n\n" + "\n".join(f"- {plain(sentence)}" for sentence in report.limits))
    parts += ["## Settings", table_text(tables.cells_table(review))]
    if any(cell.best for cell in review.cells):
        parts.append("★ highest mean; ≈ not significantly different from the best.")
    others = {
        "Main effects": tables.effects_table(review),
        "Claims": tables.claims_table(report.verdicts),
        "Published results": tables.published_table(report.published),
    }
    for title, table in others.items():
        if table.rows:
            parts += [f"## {title}", table_text(table)]
    if pictures := [path.relative_to(folder) for path in figures if path.suffix == ".svg"]:
        parts += ["## Figures", *(f"![{path.stem}]({path.as_posix()})" for path in pictures)]
    parts.append(f"{len(review.runs.done)} of {len(review.runs.runs)} runs; {code(command)}")
    return "\n\n".join(parts) + "\n"


def table_text(table: tables.Table) -> str:
    """A Markdown table, without its empty columns."""
    filled = table.filled
    rows = [[table.columns[index] for index in filled]]
    rows += [[plain(row.texts[index]) for index in filled] for row in table.rows]
    head, *lines = (f"| {' | '.join(row)} |" for row in rows)
    rule = "|".join("--:" if index in table.numbers else "---" for index in filled)
    return "\n".join([head, f"|{rule}|", *lines])


def code(text: str) -> str:
    """A text as code: between more backticks than it has in a row."""
    text = printable(text)
    fence = "`" * (1 + max(map(len, re.findall("`+", text)), default=0))
    return f"{fence}{text}{fence}" if len(fence) == 1 else f"{fence} {text} {fence}"


def plain(text: str) -> str:
    """A text in one line, with escapes for what Markdown, HTML or a terminal would interpret."""
    text = printable(" ".join(text.split()))
    for mark in "\\`*_[]<>|#&$~":
        text = text.replace(mark, f"\\{mark}")
    return text
