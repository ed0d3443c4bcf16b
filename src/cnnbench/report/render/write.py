"""Writes the files of a report."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from cnnbench.errors import ConfigError
from cnnbench.files import write_atomic


def write(report: Any, out: Path, command: str) -> dict[str, Path]:
    """Writes report.html, report.md, summary.csv and figures/ into `out`.

    Returns:
        The files by what they are: page, text, table, figures.

    Raises:
        ConfigError: the folder cannot be written to.
    """
    from cnnbench.report.render import figures as plots
    from cnnbench.report.render import html as page
    from cnnbench.report.render import markdown

    try:
        (out / "figures").mkdir(parents=True, exist_ok=True)
        figures = plots.draw(report, out / "figures")
        files = {
            name: out / file
            for name, file in (("page", "report.html"), ("text", "report.md"), ("table", "summary.csv"))
        }
        write_atomic(files["page"], page.render(report, command))
        write_atomic(files["text"], markdown.render(report, figures, out, command))
        write_atomic(files["table"], summary(report))
    except OSError as error:
        raise ConfigError(
            f"{out}: cannot be written to ({error.strerror}); choose another folder with --out DIR"
        ) from error
    return {**files, "figures": out / "figures"}


def summary(report: Any) -> str:
    """The text of summary.csv: one row per run, with its present state."""
    from cnnbench.report.load.run import final_values
    from cnnbench.runs.sweep_dir import csv_value, summary_csv

    runs = report.review.runs
    rows = [
        {
            "job": run.name,
            "state": run.state,
            **{key: csv_value(value) for key, value in run.setting.items()},
            **final_values(run),
            "reason": run.reason or "",
        }
        for run in runs.runs
    ]
    return summary_csv(rows, [*runs.keys, "seed"])
