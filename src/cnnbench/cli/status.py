"""`python -m cnnbench status DIR`: shows the state of a sweep or a run, whether or not a process still runs it."""

from __future__ import annotations

import shlex
import time
from pathlib import Path
from typing import Any

from rich.console import Group
from rich.live import Live
from rich.text import Text

from cnnbench.cli.parser import Parser
from cnnbench.console import make_console
from cnnbench.runs.commands import resume_command
from cnnbench.runs.run_dir import RunDir
from cnnbench.runs.sweep_dir import SweepDir
from cnnbench.sweep.progress import MAX_SAMPLE, ProgressTracker
from cnnbench.sweep.status_table import progress_columns, retry_override, status_view

REFRESH_S = 1.0


def main(arguments: list[str]) -> None:
    """Prints the state once, or refreshes it until Ctrl-C or until the owner has ended."""
    parser = Parser("status", "Shows the state of a sweep or a run.")
    parser.add_path("directory", "DIR", "a sweep's, runs/NAME, or a run's")
    parser.add_switch("--watch", "refresh every second, until Ctrl-C or the end")
    options = parser.parse_args(arguments)
    console = make_console()
    if not options.watch:
        console.print(view(options.directory)[0])
        return
    with Live(console=console, auto_refresh=False) as live:
        while True:
            screen, owner = view(options.directory)
            live.update(screen, refresh=True)
            if owner is None:
                return
            time.sleep(REFRESH_S)


def view(directory: Path) -> tuple[Group, str | None]:
    """Returns what is printed, and the living process that owns the run or sweep."""
    if (directory / "config.yaml").is_file():
        return run_view(RunDir(directory))
    return sweep_view(SweepDir.open(directory))


def run_view(run: RunDir) -> tuple[Group, str | None]:
    """The state of one run: its progress while it is running, else what to type next."""
    status, state, owner = run.status(), run.effective_status().state, run.owner()
    lines = [f"{run.path}  {state}"]
    if owner:
        epoch, loss, accuracy, left = progress_columns(status)
        lines.append(f"epoch {epoch}  loss {loss}  val acc {accuracy}  {left} left  ({owner})")
    if status.reason:
        lines.append(status.reason)
    if state == "interrupted":
        lines.append(f"to resume: {resume_command(run.path)}")
    return Group(*map(Text, lines)), owner


def sweep_view(sweep: SweepDir) -> tuple[Group, str | None]:
    """The state of all jobs of a sweep, and what to type next."""
    record = sweep.read()
    assert record is not None  # the sweep was opened
    jobs, launcher = sweep.jobs(record), sweep.launcher()
    statuses = [(job, job.status()) for job in jobs]
    finished = [job for job, status in statuses if status.state == "done"][-MAX_SAMPLE:]
    results = [(job.name, job.result()) for job in finished]
    took = {name: result.fit_s for name, result in results if result and result.fit_s is not None}
    tracker = ProgressTracker(statuses, record.slots or 1, took)
    parts: list[Any] = [status_view(tracker, str(sweep.path), launcher)]
    if record.question:
        parts.insert(0, Text(record.question, "italic"))
    command = record.command or f"python -m cnnbench -m name={shlex.quote(record.name)} ..."
    if not launcher:
        if tracker.finished < tracker.total:
            parts.append(Text(f"no process runs it. To continue, type the same command again: {command}"))
        if retry := retry_override(tracker.counts):
            parts.append(Text(f"to run the failed jobs again as well: {command}{retry}"))
    return Group(*parts), launcher
