"""One row per run: state, config differences, the command that repeats it, its environment."""

from __future__ import annotations

import shlex
from dataclasses import dataclass

from cnnbench.config.trusted_names import TRUSTED_NAME
from cnnbench.errors import PROGRAM
from cnnbench.report.analysis.cell import setting_label
from cnnbench.report.analysis.report_data import Report
from cnnbench.report.load.run import Run
from cnnbench.report.number_format import accuracy_text
from cnnbench.runs.schema import Result
from cnnbench.text import NAME, first_few, to_override

MOST_DIFFERENCES = 12  # config differences in a row


@dataclass(frozen=True)
class RunRow:
    """A row of the page's table of runs: the run and texts about it.

    Attributes:
        run: the run.
        setting: number of its setting.
        label: name of its setting.
        accuracy: its test accuracy.
        seconds: how long it trained.
        differs: the keys in which its config differs from another run's.
        command: repeats or resumes it.
        environment: what it was computed with.
    """

    run: Run
    setting: int
    label: str
    accuracy: str
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
    result = run.result or Result(metrics={})
    seconds = "" if result.fit_s is None else f"{result.fit_s:.1f}"
    return RunRow(
        run, setting, setting_label(run.cell_setting) or run.name, accuracy_text(run.accuracy), seconds,
        config_differences(run, base) if base else "", repeat_command(run), environment(result),
    )  # fmt: skip


def repeat_command(run: Run) -> str:
    """The command that repeats a finished run, or resumes one without a result; empty for a run without config."""
    if not run.config:
        return ""
    targets = [str(value) for key, value in run.config.items() if key.endswith("_target_")]
    trust = "" if all(TRUSTED_NAME.fullmatch(target) for target in targets) else " --trust"
    path = run.directory.path if run.directory.path.name else run.directory.path.resolve()
    if not run.done:
        return f"{PROGRAM} resume={shlex.quote(str(path))}{trust}"
    runs_dir = "" if NAME.fullmatch(path.resolve().parent.name) else " runs_dir=runs"
    return f"{PROGRAM} reproduce {shlex.quote(str(path))}{runs_dir}{trust}"


def baseline_run(report: Report) -> Run | None:
    """The run that the other runs' configs are compared with: one of a baseline, if there is one."""
    cells = report.review.cells
    bases = {cell.base for cell in cells}
    order = sorted(range(len(cells)), key=lambda number: number not in bases)
    return next((run for number in order for run in cells[number].runs if run.config), None)


def config_differences(run: Run, base: Run) -> str:
    """`key=value` for each key in which a run's config differs from the base's, the first twelve."""
    if not run.config:
        return ""
    ours, theirs = run.cell_config, base.cell_config
    differences = [
        f"{key}={to_override(ours.get(key))}" for key in {**theirs, **ours} if ours.get(key) != theirs.get(key)
    ]
    return first_few(differences, MOST_DIFFERENCES, separator=" ")


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
