"""Writes a report's files."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from cnnbench.errors import ConfigError
from cnnbench.files import write_atomic


def write(report: Any, out: Path, command: str) -> dict[str, Path]:
    """All files of a report."""
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
    return {**files, "pictures": out / "figures"}


def summary(report: Any) -> str:
    """A row a run, as the sweep writes it, of what is there now."""
    from cnnbench.report.load.run import final
    from cnnbench.runs.sweep_dir import as_cell, as_csv

    runs = report.review.runs
    rows = [
        {
            "job": run.name,
            "state": run.state,
            **{key: as_cell(value) for key, value in run.setting.items()},
            **final(run),
            "reason": run.reason or "",
        }
        for run in runs.runs
    ]
    return as_csv(rows, [*runs.keys, "seed"])
