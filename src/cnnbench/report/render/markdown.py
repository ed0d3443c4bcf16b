"""report.md: the same in plain text, to keep beside the experiment, with the pictures beside it."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from cnnbench.report.analysis.report_data import Report
from cnnbench.report.render import tables


def render(report: Report, figures: Sequence[Path], folder: Path, command: str) -> str:
    """The text.

    Args:
        report: what it says.
        figures: files of pictures.
        folder: where the text will lie.
        command: what was typed for it.
    """
    review = report.review
    name = review.runs.asked.get("name") or review.runs.path.resolve().name
    parts = [f"# {plain(review.question or name)}", " ".join(map(plain, report.answer))]
    if report.limits:
        parts.append("What limits it:\n\n" + "\n".join(f"- {plain(sentence)}" for sentence in report.limits))
    parts += ["## Cells", of_table(tables.of_cells(review))]
    if any(cell.best for cell in review.cells):
        parts.append("★ the highest mean, ≈ not to be told from it.")
    if review.effects:
        parts += ["## Main effects", of_table(tables.of_effects(review))]
    if report.verdicts:
        parts += ["## Claims", of_table(tables.of_claims(report.verdicts))]
    if report.published:
        parts += ["## Published figures", of_table(tables.of_published(report.published))]
    pictures = [path for path in figures if path.suffix == ".svg"]
    if pictures:
        parts += [
            "## Pictures",
            "\n\n".join(f"![{path.stem}]({path.relative_to(folder).as_posix()})" for path in pictures),
        ]
    done = len(review.runs.done)
    parts.append(f"{done} of {len(review.runs.runs)} runs; `{command}`")
    return "\n\n".join(parts) + "\n"


def of_table(table: tables.Table) -> str:
    """Columns that say nothing are left out."""
    kept = [number for number in range(len(table.columns)) if any(row.texts[number] for row in table.rows)]
    lines = ["| " + " | ".join(table.columns[number] for number in kept) + " |"]
    lines.append("|" + "|".join("--:" if number in table.numbers else "---" for number in kept) + "|")
    lines += ["| " + " | ".join(plain(row.texts[number]) for number in kept) + " |" for row in table.rows]
    return "\n".join(lines)


def plain(text: str) -> str:
    """A text as it is, whatever Markdown or HTML would make of it."""
    for mark in "\\`*_[]<>|#&$~":
        text = text.replace(mark, f"\\{mark}")
    return " ".join(text.split())
