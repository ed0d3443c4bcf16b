"""`cnnbench status DIR`: shows the state of a sweep or a run, whether or not a process still runs it."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

from rich.console import Group
from rich.live import Live

from cnnbench.cli.parser import Parser
from cnnbench.console import make_console, plain_text
from cnnbench.runs.commands import resume_command, sweep_command
from cnnbench.runs.part import in_part
from cnnbench.runs.run_dir import RunDir
from cnnbench.runs.sweep_dir import SweepDir
from cnnbench.sweep.progress import MAX_SAMPLE, ProgressTracker
from cnnbench.sweep.status_table import other_parts_line, progress_columns, retry_command, status_view, sweep_name

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
    recorded, (status, owner) = run.status(), run.inspect()
    lines = [f"{run.path}  {status.state}"]
    if owner.living:
        epoch, loss, accuracy, left = progress_columns(status)
        lines.append(f"epoch {epoch}  loss {loss}  val acc {accuracy}  {left} left  ({owner.living})")
    if reason := recorded.reason or owner.doubt:
        lines.append(reason)
    if status.state == "interrupted":
        lines.append(f"to resume: {resume_command(run.path)}")
    return Group(*map(plain_text, lines)), owner.living


def sweep_view(sweep: SweepDir) -> tuple[Group, str | None]:
    """The state of all jobs of a sweep, and what to type next."""
    record = sweep.read()
    assert record is not None  # the sweep was opened
    jobs, owner = sweep.jobs(record), sweep.find_launcher()
    statuses = [(job, job.status()) for job in jobs]
    finished = [job for job, status in statuses if status.state == "done"][-MAX_SAMPLE:]
    results = [(job.name, job.result()) for job in finished]
    took = {name: result.fit_s for name, result in results if result and result.fit_s is not None}
    own = in_part(statuses, record.part)
    names = {job.name for job, _ in own}
    others = [status.state for job, status in statuses if job.name not in names]
    tracker = ProgressTracker(own, record.slots or 1, took)
    parts: list[Any] = [status_view(tracker, sweep_name(sweep.path, record.part), owner.living)]
    if line := other_parts_line(sweep.path, others):
        parts.append(plain_text(line))
    if record.question:
        parts.insert(0, plain_text(record.question, "italic"))
    command = sweep_command(record.command, record.name)
    if not owner.living:
        if tracker.finished < tracker.total:
            doubt = f" ({owner.doubt})" if owner.doubt else ""
            runs = "starts further jobs" if tracker.counts["running"] else "runs it"
            parts.append(plain_text(f"no process {runs}{doubt}. To continue, type the same command again: {command}"))
        if (retry := retry_command(command, tracker.counts)) != command:
            parts.append(plain_text(f"to run the failed jobs again as well: {retry}"))
    return Group(*parts), owner.living
