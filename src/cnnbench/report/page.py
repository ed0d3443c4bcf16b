"""report.html: one file that opens from disk and asks nobody for anything."""

from __future__ import annotations

import json
import math
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

import cnnbench
from cnnbench.notation import OURS, as_typed
from cnnbench.report import curves, mistakes, tables
from cnnbench.report.costs import costs
from cnnbench.report.limits import facts
from cnnbench.report.looks import look
from cnnbench.report.mistakes import Arm, Pictured
from cnnbench.report.read import Run
from cnnbench.report.report import Comparison, Report
from cnnbench.report.review import METRIC, named
from cnnbench.report.words import interval_of, p_value, percent, signed

TEMPLATES = Path(__file__).parent / "templates"
PAIRS = 12  # arms whose mistakes are shown beside the baseline's
MOST_DIFFERENCES = 12  # of a run's config that are told


def render(report: Report, command: str) -> str:
    """The page.

    Args:
        report: what it says.
        command: what was typed for it.
    """
    from jinja2 import Environment, FileSystemLoader
    from markupsafe import Markup

    data = page_data(report)
    plots = any(arm["values"] for arm in data["arms"]) or bool(data["curves"])
    environment = Environment(loader=FileSystemLoader(TEMPLATES), autoescape=True, trim_blocks=True, lstrip_blocks=True)
    review, path, base = report.review, report.review.runs.path, baseline_run(report)
    content = {
        "title": review.runs.asked.get("name") or path.resolve().name,
        "question": review.question,
        "path": str(path),
        "sections": sections(report, data),
        "answer": report.answer,
        "limits": report.limits,
        "cells": tables.of_cells(review),
        "effects": tables.of_effects(review),
        "comparisons": of_comparisons(report.comparisons, review.cells),
        "claims": tables.of_claims(report.verdicts),
        "published": tables.of_published(report.published),
        "metrics": curves.SHOWN,
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
    """The library, as it goes into a page."""
    from importlib.resources import files

    return (
        (files("plotly") / "package_data" / "plotly.min.js")
        .read_text(encoding="utf-8")
        .replace("</script", "<\\/script")
    )


def sections(report: Report, data: Mapping[str, Any]) -> list[tuple[str, str]]:
    """Those that the page has."""
    there = {
        "answer": ("Answer", True),
        "cells": ("Cells", True),
        "curves": ("Curves", data["curves"]),
        "costs": ("Cost", data["costs"]),
        "errors": ("Errors", data["errors"]),
        "claims": ("Claims", report.verdicts or report.published),
        "runs": ("Runs", True),
    }
    return [(name, title) for name, (title, shown) in there.items() if shown]


# ---- what its plots show ---------------------------------------------------------------------------------------------


def page_data(report: Report) -> dict[str, Any]:
    """Plain types, for JavaScript."""
    cells = report.review.cells
    arms = []
    for number, cell in enumerate(cells):
        done = [run for run in cell.runs if run.metric(METRIC) is not None]
        low, high = cell.interval or (None, None)
        arms.append(
            {
                "number": number, "label": cell.label, **asdict(look(number)), "mean": short(cell.mean), "low": short(low),
                "high": short(high), "values": [short(run.metric(METRIC)) for run in done], "runs": [run.name for run in done],
            }
        )  # fmt: skip
    drawn = {metric: of_curves(report, metric) for metric in curves.SHOWN}
    losses = [value for arm in drawn["train/loss"] for value in arm["band"]["mean"] if value > 0]
    return {
        "arms": arms,
        "curves": drawn if any(drawn.values()) else {},
        "log_loss": bool(losses) and max(losses) > 20 * min(losses),
        "costs": of_costs(report),
        "errors": of_errors(report) if report.arms else None,
    }


def of_curves(report: Report, metric: str) -> list[dict[str, Any]]:
    """A metric's curves, by arm."""
    made = []
    for number, cell in enumerate(report.review.cells):
        found = curves.curves(cell.runs, metric)
        band = curves.band(curves.curves(curves.averaged(cell.runs), metric))
        if band.epochs:
            runs = [{key: shortened(value) for key, value in vars(curve).items()} for curve in found]
            made.append(
                {"arm": number, "band": {key: shortened(value) for key, value in vars(band).items()}, "runs": runs}
            )
    return made


def of_costs(report: Report) -> list[dict[str, Any]]:
    """Accuracy against each cost."""
    return [
        {
            "name": name,
            "points": [
                {"arm": point.arm, "x": short(point.cost), "y": short(point.accuracy), "front": point.front}
                for point in points
            ],
        }
        for name, points in costs(report.review.cells).items()
    ]


def of_errors(report: Report) -> dict[str, Any]:
    """Confusion, calibration, pictures."""
    cells, arms = report.review.cells, report.arms
    place = {id(cell): number for number, cell in enumerate(cells)}
    classes = mistakes.class_names(report.review.runs.done, max(len(arm.confusion) for arm in arms))
    listed = [
        {
            "arm": place[id(arm.cell)], "confusion": arm.confusion.tolist(), "per_class": shortened(arm.per_class.tolist()),
            "confidence": shortened(arm.calibration.confidence), "accuracy": shortened(arm.calibration.accuracy),
            "count": [int(count) for count in arm.calibration.count], "ece": of_ece(arm),
        }
        for arm in arms
    ]  # fmt: skip
    numbers = [place[id(arm.cell)] for arm in arms]
    pairs = report.comparisons
    first = [numbers.index(place[id(arm.cell)]) for arm in (pairs[0].ours, pairs[0].theirs)] if pairs else [0, 0]
    made: dict[str, Any] = {
        "classes": classes, "arms": listed, "first": first,
        "pairs": {f"{place[id(each.ours.cell)]} {place[id(each.theirs.cell)]}": on_images(each) for each in pairs},
        "pictures": None,
    }  # fmt: skip
    if report.pictures:
        made |= of_pictures(report, place)
    return made


def of_ece(arm: Arm) -> str:
    """The calibration error, and how sure that is."""
    point, interval = arm.ece
    return f"{point:.4f}" if interval is None else f"{point:.4f} ({interval[0]:.4f} to {interval[1]:.4f})"


def of_pictures(report: Report, place: Mapping[int, int]) -> dict[str, Any]:
    """The galleries, and each picture once."""
    same = mistakes.alike(report.arms)
    missed = mistakes.most_missed(same, report.pictures)
    few = same[:3]
    only: dict[str, tuple[list[Pictured], list[int]]] = {}
    pairs = [each for each in report.comparisons if any(each.ours is arm for arm in same)]
    for each in pairs[:PAIRS]:
        for ours, theirs in ((each.ours, each.theirs), (each.theirs, each.ours)):
            numbers = [place[id(ours.cell)], place[id(theirs.cell)]]
            only[f"{numbers[0]} {numbers[1]}"] = (mistakes.only_first(ours, theirs, report.pictures), numbers)
    galleries = {name: [as_tile(image, numbers) for image in images] for name, (images, numbers) in only.items()}
    shown = [as_tile(image, [place[id(arm.cell)] for arm in few]) for image in missed]
    indices = {tile["index"] for listed in (*galleries.values(), shown) for tile in listed}
    pictures = {index: mistakes.as_uri(report.pictures[index]) for index in sorted(indices)}
    return {"missed": shown, "only": galleries, "pictures": pictures}


def as_tile(image: Pictured, arms: Sequence[int]) -> Any:
    """A picture of a gallery, with what the first arms said of it."""
    said = [[arm, said, round(share, 3)] for arm, (said, share) in zip(arms, image.said, strict=False)]
    return {"index": image.index, "target": image.target, "said": said}


def on_images(each: Comparison) -> str:
    """A pair on the same images, in a sentence."""
    ours, theirs = each.only
    labels = each.ours.cell.label, each.theirs.cell.label
    return (
        f"Of {len(each.ours.targets):,} images {ours:,} count for {labels[0]} and {theirs:,} for {labels[1]}: "
        f"{signed(each.difference.point)} points ({interval_of(each.difference.interval)}), p {p_value(each.p)}."
    )


def of_comparisons(comparisons: Sequence[Comparison], cells: Sequence[Any]) -> tables.Table:
    """A row a pair."""
    place = {id(cell): number for number, cell in enumerate(cells)}
    columns = ["A", "B", "only A right", "only B right", "A less B", "95 % interval", "p"]
    rows = []
    for each in comparisons:
        ours, theirs = each.only
        interval = each.difference.interval
        texts = [
            each.ours.cell.label, each.theirs.cell.label, f"{ours:,}", f"{theirs:,}", signed(each.difference.point),
            f"{signed(interval[0])} to {signed(interval[1])}" if interval else "", p_value(each.p),
        ]  # fmt: skip
        sort = [
            None,
            None,
            float(ours),
            float(theirs),
            each.difference.point,
            interval[0] if interval else None,
            each.p,
        ]
        rows.append(tables.Row(texts, sort, place[id(each.ours.cell)]))
    return tables.Table(columns, frozenset({2, 3, 4, 5, 6}), rows)


# ---- its runs --------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class RunRow:
    """A run as the page lists it."""

    arm: int
    cell: str
    seed: str
    state: str
    reason: str
    accuracy: str
    best_epoch: str
    seconds: str
    differs: str
    command: str
    made: dict[str, str]


def run_row(run: Run, arm: int, base: Run | None) -> RunRow:
    """Of one run of an arm, whose config is held against another's."""
    result = run.result or {}
    fit_s = result.get("time", {}).get("fit_s")
    seconds = f"{fit_s:.1f}" if isinstance(fit_s, int | float) else ""
    return RunRow(
        arm, named(run.cell) or run.name, "" if run.seed is None else str(run.seed), run.state, run.reason or "",
        percent(run.metric(METRIC)), str(result.get("best_epoch") or ""), seconds, differing(run, base) if base else "",
        repeating(run), made_with(result),
    )  # fmt: skip


def repeating(run: Run) -> str:
    """What to type to run it again."""
    if not run.config:
        return ""
    targets = [str(value) for key, value in run.config.items() if key.endswith("_target_")]
    trust = "" if all(OURS.fullmatch(target) for target in targets) else " --trust"
    return f"python -m cnnbench reproduce {shlex.quote(str(run.directory.path))}{trust}"


def baseline_run(report: Report) -> Run | None:
    """The run whose config the others are held against."""
    bases = {cell.base for cell in report.review.cells}
    numbered = sorted(enumerate(report.review.cells), key=lambda each: each[0] not in bases)
    cells = [cell for _, cell in numbered]
    return next((run for cell in cells for run in cell.runs if run.config), None)


def differing(run: Run, base: Run) -> str:
    """What a run's config has otherwise."""
    if not run.config:
        return ""
    ours, theirs = facts_of_config(run), facts_of_config(base)
    told = [f"{key}={as_typed(ours.get(key))}" for key in {**theirs, **ours} if ours.get(key) != theirs.get(key)]
    more = f" and {len(told) - MOST_DIFFERENCES} more" if len(told) > MOST_DIFFERENCES else ""
    return " ".join(told[:MOST_DIFFERENCES]) + more


def facts_of_config(run: Run) -> dict[str, Any]:
    """The dotted keys of a run's config that decide what it does."""
    return {key: value for key, value in facts(run).items() if key in run.config}


def made_with(result: Mapping[str, Any]) -> dict[str, str]:
    """Commit, versions, machine."""
    parts = {
        name: result.get(name)
        for name in ("git", "code", "versions", "hardware", "precision", "devices", "threads", "command")
    }
    return {
        name: ", ".join(f"{key} {value}" for key, value in part.items()) if isinstance(part, dict) else str(part)
        for name, part in parts.items()
        if part is not None
    }


# ---- numbers ---------------------------------------------------------------------------------------------------------


def short(value: float | None) -> float | None:
    """Six digits are plenty on a screen; what is no number is none."""
    return None if value is None or not math.isfinite(value) else float(f"{value:.6g}")


def shortened(value: Any) -> Any:
    """The same for lists."""
    return (
        [short(float(each)) if each is not None else None for each in value]
        if isinstance(value, list | tuple)
        else value
    )
