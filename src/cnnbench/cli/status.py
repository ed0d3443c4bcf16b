"""`python -m cnnbench status runs/NAME`: how a sweep stands, from any shell, at any time, also when nothing runs it any more."""

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
from cnnbench.runs.sweep_dir import ENDS, SweepDir
from cnnbench.sweep.progress import SAMPLE, Tally
from cnnbench.sweep.status_table import progress_of, rendered, retry
from cnnbench.text import numeric

WATCH_S = 1.0


def main(arguments: list[str]) -> None:
    """Shows it, once or until Ctrl-C."""
    parser = Parser("status", "How the jobs of a sweep stand, or a run.")
    parser.add_argument("directory", type=Path, metavar="DIR", help="a sweep's, runs/NAME, or a run's")
    parser.add_argument("--watch", action="store_true", help="keep showing it, until Ctrl-C or its end")
    options = parser.parse_args(arguments)
    console = make_console()
    if not options.watch:
        console.print(shown(options.directory)[0])
        return
    with Live(console=console, auto_refresh=False) as live:
        while True:
            screen, on = shown(options.directory)
            live.update(screen, refresh=True)
            if not on:
                return
            time.sleep(WATCH_S)


def shown(directory: Path) -> tuple[Group, bool]:
    """How it stands, and whether anything is on."""
    if (directory / "config.yaml").is_file():
        return of_run(RunDir(directory))
    return of_sweep(SweepDir.open(directory))


def of_run(run: RunDir) -> tuple[Group, bool]:
    """A single run."""
    status, state, owner = run.status(), run.found()["state"], run.owner()
    parts = [f"{run.path}  {state}"]
    if owner:
        epoch, loss, accuracy, left = progress_of(status)
        parts += [f"epoch {epoch}  loss {loss}  val acc {accuracy}  {left} left  ({owner})"]
    if status.get("reason"):
        parts.append(str(status["reason"]))
    if state == "interrupted":
        parts.append(f"to go on: {resume_command(run.path)}")
    return Group(*map(Text, parts)), bool(owner)


def of_sweep(sweep: SweepDir) -> tuple[Group, bool]:
    """All jobs of a sweep."""
    record, jobs = sweep.read(), sweep.jobs()
    states = {job.name: job.status() for job in jobs}
    launcher = sweep.launcher()
    done = [job for job in jobs if states[job.name]["state"] == "done"][-SAMPLE:]
    took = {job.name: s for job in done if (s := numeric(job.result(), "time", "fit_s")) is not None}
    now = Tally(jobs, states, record.get("slots") or 1, took).standing()
    parts: list[Any] = [rendered(now, str(sweep.path), launcher)]
    if record.get("question"):
        parts.insert(0, Text(record["question"], "italic"))
    ended = sum(now.counts[state] for state in ENDS)
    command = record.get("command") or f"python -m cnnbench -m name={shlex.quote(record['name'])} ..."
    if not launcher and ended < now.total:
        parts.append(Text(f"nobody runs it. To go on, type the same again: {command}"))
    if not launcher and now.bad:
        parts.append(Text(f"to run what failed again, too: {command}{retry(now.counts)}"))
    return Group(*parts), bool(launcher)
