"""Every run in a line: what became of it, what it has otherwise, what repeats it, what it was made with."""

from __future__ import annotations

import shlex
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from cnnbench.config.trusted_names import OURS
from cnnbench.report.analysis.cell import METRIC, named
from cnnbench.report.analysis.confounds import facts
from cnnbench.report.analysis.report_data import Report
from cnnbench.report.load.run import Run
from cnnbench.report.number_format import percent
from cnnbench.text import NAME, as_typed

MOST_DIFFERENCES = 12  # of a run's config that are told


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
    """What to type to run it again; where it has no result, to run it to its end."""
    if not run.config:
        return ""
    targets = [str(value) for key, value in run.config.items() if key.endswith("_target_")]
    trust = "" if all(OURS.fullmatch(target) for target in targets) else " --trust"
    path = run.directory.path if run.directory.path.name else run.directory.path.resolve()
    if not run.done:
        return f"python -m cnnbench resume={shlex.quote(str(path))}{trust}"
    elsewhere = "" if NAME.fullmatch(path.resolve().parent.name) else " runs_dir=runs"
    return f"python -m cnnbench reproduce {shlex.quote(str(path))}{elsewhere}{trust}"


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
