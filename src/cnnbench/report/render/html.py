"""Renders report.html: one self-contained file that opens from disk and loads nothing from a network."""

from __future__ import annotations

import json
from collections.abc import Mapping
from datetime import datetime
from pathlib import Path
from typing import Any

import cnnbench
from cnnbench.report.analysis import learning_curves as curves
from cnnbench.report.analysis.report_data import Report
from cnnbench.report.render import tables
from cnnbench.report.render.plotly_data import plotly_data
from cnnbench.report.render.run_table import baseline_run, run_row

TEMPLATES = Path(__file__).parent / "templates"


def render(report: Report, command: str) -> str:
    """Renders the page.

    Args:
        report: the findings.
        command: the command that was typed; the page shows it.
    """
    from jinja2 import Environment, FileSystemLoader
    from markupsafe import Markup

    data = plotly_data(report)
    plots = any(setting["values"] for setting in data["settings"]) or bool(data["curves"])
    environment = Environment(loader=FileSystemLoader(TEMPLATES), autoescape=True, trim_blocks=True, lstrip_blocks=True)
    review, path, base = report.review, report.review.runs.path, baseline_run(report)
    content = {
        "title": review.runs.sweep_record.name or path.resolve().name,
        "question": review.question,
        "path": str(path),
        "sections": sections(report, data),
        "answer": report.answer,
        "limits": report.limits,
        "cells": tables.of_cells(review),
        "interactions": review.interactions,
        "effects": tables.of_effects(review),
        "comparisons": tables.of_comparisons(report.comparisons, review.cells),
        "claims": tables.of_claims(report.verdicts),
        "published": tables.of_published(report.published),
        "metrics": curves.METRIC_LABELS,
        "runs": [run_row(run, number, base) for number, cell in enumerate(review.cells) for run in cell.runs],
        "baseline_config": base.name if base else None,
        "data": data,
        "json": Markup(json.dumps(data, separators=(",", ":"), allow_nan=False).replace("<", "\\u003c")),
        "css": Markup((TEMPLATES / "report.css").read_text(encoding="utf-8")),
        "js": Markup((TEMPLATES / "report.js").read_text(encoding="utf-8")),
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


def sections(report: Report, data: Mapping[str, Any]) -> list[tuple[str, str]]:
    """(anchor, title) of each section that has content."""
    there = {
        "answer": ("Answer", True),
        "cells": ("Settings", True),
        "curves": ("Curves", data["curves"]),
        "costs": ("Cost", data["costs"]),
        "errors": ("Errors", data["errors"]),
        "claims": ("Claims", report.verdicts or report.published),
        "runs": ("Runs", True),
    }
    return [(name, title) for name, (title, shown) in there.items() if shown]
