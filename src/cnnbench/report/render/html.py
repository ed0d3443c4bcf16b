"""Renders report.html: one self-contained file that opens from disk and loads nothing from a network."""

from __future__ import annotations

from datetime import datetime

import cnnbench
from cnnbench.report.analysis import learning_curves as curves
from cnnbench.report.analysis.report_data import Report
from cnnbench.report.render import tables
from cnnbench.report.render.plotly_data import plotly_data
from cnnbench.report.render.run_table import baseline_run, run_row
from cnnbench.text import printable

SECTIONS = {  # anchor -> title
    "answer": "Answer", "cells": "Settings", "curves": "Curves", "costs": "Cost", "errors": "Errors", "claims": "Claims",
    "runs": "Runs",
}  # fmt: skip


def render(report: Report, command: str) -> str:
    """Renders the page.

    Args:
        report: the findings.
        command: the command that was typed; the page shows it.
    """
    from jinja2 import Environment, PackageLoader
    from markupsafe import Markup  # text that the page does not escape

    data = plotly_data(report)
    contents = {**data, "claims": report.verdicts or report.published}  # an empty section is left out
    environment = Environment(
        loader=PackageLoader("cnnbench.report.render"),
        autoescape=True,
        finalize=lambda value: printable(value) if isinstance(value, str) and not isinstance(value, Markup) else value,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    review, base = report.review, baseline_run(report)
    plots = review.known_cells or data["curves"]
    content = {
        "title": review.runs.sweep_record.name or review.runs.path.resolve().name,
        "report": report,
        "sections": [(anchor, title) for anchor, title in SECTIONS.items() if contents.get(anchor, True)],
        "cells": tables.cells_table(review),
        "effects": tables.effects_table(review),
        "comparisons": tables.comparisons_table(report.comparisons),
        "claims": tables.claims_table(report.verdicts),
        "published": tables.published_table(report.published),
        "metrics": curves.METRIC_LABELS,
        "runs": [run_row(run, number, base) for number, cell in enumerate(review.cells) for run in cell.runs],
        "base": base,
        "data": data,
        "plotly": Markup(plotly()) if plots else "",
        "version": cnnbench.__version__,
        "made_at": datetime.now().astimezone().strftime("%Y-%m-%d %H:%M %Z"),
        "command": command,
    }
    return environment.get_template("report.html.j2").render(content)


def plotly() -> str:
    """The source of plotly.js, safe inside a script element."""
    from importlib.resources import files

    library = files("plotly") / "package_data" / "plotly.min.js"
    return library.read_text(encoding="utf-8").replace("</script", "<\\/script")
