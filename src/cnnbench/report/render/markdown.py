"""Renders report.md: answer, tables and links to the figures, to keep with an experiment."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from cnnbench.report.analysis.report_data import Report
from cnnbench.report.render import tables


def render(report: Report, figures: Sequence[Path], folder: Path, command: str) -> str:
    """Renders the Markdown text.

    Args:
        report: the findings.
        figures: the files of the figures.
        folder: where the text will be saved; links are relative to it.
        command: the command that was typed; the text ends with it.
    """
    review = report.review
    name = review.runs.sweep_record.name or review.runs.path.resolve().name
    parts = [f"# {plain(review.question or name)}", " ".join(map(plain, report.answer))]
    if report.limits:
        parts.append("Limitations:\n\n" + "\n".join(f"- {plain(sentence)}" for sentence in report.limits))
    parts += ["## Settings", of_table(tables.of_cells(review))]
    if any(cell.best for cell in review.cells):
        parts.append("★ highest mean; ≈ not significantly different from the best.")
    if review.effects:
        parts += ["## Main effects", of_table(tables.of_effects(review))]
    if report.verdicts:
        parts += ["## Claims", of_table(tables.of_claims(report.verdicts))]
    if report.published:
        parts += ["## Published results", of_table(tables.of_published(report.published))]
    pictures = [path for path in figures if path.suffix == ".svg"]
    if pictures:
        parts += [
            "## Figures",
            "\n\n".join(f"![{path.stem}]({path.relative_to(folder).as_posix()})" for path in pictures),
        ]
    done = len(review.runs.done)
    parts.append(f"{done} of {len(review.runs.runs)} runs; `{command}`")
    return "\n\n".join(parts) + "\n"


def of_table(table: tables.Table) -> str:
    """A Markdown table, without its empty columns."""
    kept = [number for number in range(len(table.columns)) if any(row.texts[number] for row in table.rows)]
    lines = ["| " + " | ".join(table.columns[number] for number in kept) + " |"]
    lines.append("|" + "|".join("--:" if number in table.numbers else "---" for number in kept) + "|")
    lines += ["| " + " | ".join(plain(row.texts[number]) for number in kept) + " |" for row in table.rows]
    return "\n".join(lines)


def plain(text: str) -> str:
    """Escapes what Markdown or HTML would interpret."""
    for mark in "\\`*_[]<>|#&$~":
        text = text.replace(mark, f"\\{mark}")
    return " ".join(text.split())
