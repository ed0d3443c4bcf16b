"""Writes the files of a report."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from cnnbench.errors import ConfigError
from cnnbench.files import write_atomic
from cnnbench.runs.links import require_no_outside_links


def write(report: Any, out: Path, command: str) -> dict[str, Path]:
    """Writes report.html, report.md, summary.csv and figures/ into `out`.

    Returns:
        The files by what they are: page, text, table, figures.

    Raises:
        ConfigError: the folder cannot be written to, or a link leads out of it.
    """
    from cnnbench.report.render import figures, html, markdown

    files = {
        "page": out / "report.html",
        "text": out / "report.md",
        "table": out / "summary.csv",
        "figures": out / "figures",
    }
    require_no_outside_links(out)
    try:
        drawn = figures.draw(report, files["figures"])
        write_atomic(files["page"], html.render(report, command))
        write_atomic(files["text"], markdown.render(report, drawn, out, command))
        write_atomic(files["table"], summary(report))
    except OSError as error:
        raise ConfigError(
            f"{out}: cannot be written to ({error.strerror}); choose another folder with --out DIR"
        ) from error
    return files


def summary(report: Any) -> str:
    """The text of summary.csv: one row per run, with its present state."""
    from cnnbench.runs.sweep_dir import csv_value, summary_csv

    runs = report.review.runs
    rows = (
        {
            "job": run.name,
            "state": run.state,
            **{key: csv_value(value) for key, value in run.setting.items()},
            **run.final_values,
            "reason": run.reason or "",
        }
        for run in runs.runs
    )
    return summary_csv(rows, [*runs.keys, "seed"])
