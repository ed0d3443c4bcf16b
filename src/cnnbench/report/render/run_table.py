"""One row per run: state, config differences, the command that repeats it, its environment."""

from __future__ import annotations

import shlex
from dataclasses import dataclass
from typing import Any

from cnnbench.config.trusted_names import TRUSTED_NAME
from cnnbench.report.analysis.cell import METRIC, setting_label
from cnnbench.report.analysis.confounds import run_facts
from cnnbench.report.analysis.report_data import Report
from cnnbench.report.load.run import Run
from cnnbench.report.number_format import accuracy_text
from cnnbench.runs.schema import Result
from cnnbench.text import NAME, to_override

MOST_DIFFERENCES = 12  # config differences in a row


@dataclass(frozen=True)
class RunRow:
    """A row of the page's table of runs; `setting` is the number of the run's setting, `label` its name."""

    setting: int
    label: str
    seed: str
    state: str
    reason: str
    accuracy: str
    best_epoch: str
    seconds: str
    differs: str
    command: str
    environment: dict[str, str]


def run_row(run: Run, setting: int, base: Run | None) -> RunRow:
    """Describes a run.

    Args:
        run: the run.
        setting: number of its setting.
        base: the run that its config is compared with; None: with no run.
    """
    result = run.result
    seconds = f"{result.fit_s:.1f}" if result and result.fit_s is not None else ""
    best_epoch = str(result.best_epoch or "") if result else ""
    return RunRow(
        setting, setting_label(run.cell_setting) or run.name, "" if run.seed is None else str(run.seed), run.state, run.reason or "",
        accuracy_text(run.metric(METRIC)), best_epoch, seconds, config_differences(run, base) if base else "",
        repeat_command(run), environment(result) if result else {},
    )  # fmt: skip


def repeat_command(run: Run) -> str:
    """The command that repeats a finished run, or resumes one without a result; empty for a run without config."""
    if not run.config:
        return ""
    targets = [str(value) for key, value in run.config.items() if key.endswith("_target_")]
    trust = "" if all(TRUSTED_NAME.fullmatch(target) for target in targets) else " --trust"
    path = run.directory.path if run.directory.path.name else run.directory.path.resolve()
    if not run.done:
        return f"python -m cnnbench resume={shlex.quote(str(path))}{trust}"
    runs_dir = "" if NAME.fullmatch(path.resolve().parent.name) else " runs_dir=runs"
    return f"python -m cnnbench reproduce {shlex.quote(str(path))}{runs_dir}{trust}"


def baseline_run(report: Report) -> Run | None:
    """The run that the other runs' configs are compared with: one of a baseline, if there is one."""
    bases = {cell.base for cell in report.review.cells}
    numbered = sorted(enumerate(report.review.cells), key=lambda each: each[0] not in bases)
    cells = [cell for _, cell in numbered]
    return next((run for cell in cells for run in cell.runs if run.config), None)


def config_differences(run: Run, base: Run) -> str:
    """`key=value` for each key in which a run's config differs from the base's, the first twelve."""
    if not run.config:
        return ""
    ours, theirs = facts_of_config(run), facts_of_config(base)
    differences = [
        f"{key}={to_override(ours.get(key))}" for key in {**theirs, **ours} if ours.get(key) != theirs.get(key)
    ]
    more = f" and {len(differences) - MOST_DIFFERENCES} more" if len(differences) > MOST_DIFFERENCES else ""
    return " ".join(differences[:MOST_DIFFERENCES]) + more


def facts_of_config(run: Run) -> dict[str, Any]:
    """The dotted keys of a run's config that decide what it computes, with their values."""
    return {key: value for key, value in run_facts(run).items() if key in run.config}


def environment(result: Result) -> dict[str, str]:
    """What a result was computed with: commit, code, versions, hardware, precision, devices, threads, command."""
    parts = {
        name: getattr(result, name)
        for name in ("git", "code", "versions", "hardware", "precision", "devices", "threads", "command")
    }
    return {
        name: ", ".join(f"{key} {value}" for key, value in part.items()) if isinstance(part, dict) else str(part)
        for name, part in parts.items()
        if part not in (None, {})
    }
