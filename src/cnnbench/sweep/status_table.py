"""Shows the state of a sweep: a view for a terminal, one line per started or finished job, and a table with a row per cell."""

from __future__ import annotations

import shlex
import statistics
from collections.abc import Iterable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.console import Group
from rich.live import Live
from rich.table import Table
from rich.text import Text

from cnnbench.console import Console, plain_text, print_plain
from cnnbench.errors import PROGRAM
from cnnbench.files import open_append
from cnnbench.runs.commands import without_key
from cnnbench.runs.schema import Status
from cnnbench.runs.sweep_dir import Job, group_by_cell
from cnnbench.sweep.progress import ProgressTracker
from cnnbench.text import duration, printable, to_override

if TYPE_CHECKING:
    from cnnbench.sweep.plan import Plan

STATE_COLORS = {  # in the order in which the counts are shown
    "done": "green", "running": "cyan", "pending": "dim", "interrupted": "yellow", "failed": "red", "diverged": "magenta",
}  # fmt: skip
MAX_FAILURES = 5  # shown in the view


class SweepDisplay:
    """Shows a running sweep: on a terminal a table that is kept up to date, else a line per started or finished job.

    Writes the same lines to sweep.log.

    Attributes:
        tracker: counts the jobs by state.
        live: the table on a terminal, a context in which it is shown; None elsewhere.
    """

    def __init__(self, plan: Plan, console: Console) -> None:
        self.sweep, self.console = plan.sweep, console
        self.name = sweep_name(plan.sweep.path, plan.policy.part)
        self.tracker = ProgressTracker(((planned.job, planned.status) for planned in plan.own), plan.slots.count)
        self.live = Live(console=console, auto_refresh=False, transient=True) if console.is_terminal else None

    def job_changed(self, job: Job, status: Status, took: float | None) -> None:
        """Writes the line of a job that has started or ended; on a terminal prints failures only."""
        tracker = self.tracker
        tracker.update(job, status, took)
        text = job_line(job, status, took, tracker.finished, tracker.total, tracker.seconds_left())
        self.note(text)
        failed = status.state in ("failed", "diverged")
        if failed or not self.live:
            print_plain(self.console, text, "red" if failed else None)
        if failed and not self.live:
            print_plain(self.console, f"  its log: {job.directory.log}")

    def note(self, text: str) -> None:
        """Appends a line to sweep.log."""
        with suppress(OSError), open_append(self.sweep.log) as log:
            log.write(printable(text) + "\n")

    def refresh(self) -> None:
        """Updates the table on a terminal."""
        if self.live:
            self.live.update(status_view(self.tracker, self.name), refresh=True)


def status_view(progress: ProgressTracker, name: str, launcher: str | None = None) -> Group:
    """The counts, a row per running job, and the latest failures.

    Args:
        progress: of the sweep.
        name: shown first.
        launcher: the process that runs the sweep; None: no process runs it.
    """
    counts, running, failures = progress.counts, progress.running, progress.failures
    counted = [Text(f"{counts[state]} {state}", style) for state, style in STATE_COLORS.items() if counts[state]]
    head = Text.assemble(plain_text(name, "bold"), "  ", Text(", ").join(counted), f" of {progress.total}")
    if (running or launcher) and (left_s := progress.left_s) is not None:
        head.append(f"   {duration(left_s)} left")
    if launcher:
        head.append(plain_text(f"   ({launcher})", "dim"))
    parts: list[Any] = [head]
    if running:
        table = make_table(["job"], ["epoch", "loss", "val acc", "left"])
        for job, status in running:
            table.add_row(plain_text(job.name), *progress_columns(status))
        parts.append(table)
    for job, status in failures[-MAX_FAILURES:]:
        text = f"{status.state}: {job.name}: {status.reason}"
        parts.append(plain_text(text, "red", overflow="ellipsis", no_wrap=True))
    if len(failures) > MAX_FAILURES:
        parts.append(Text(f"and {len(failures) - MAX_FAILURES} earlier failures", "red"))
    return Group(*parts)


def sweep_name(path: Path, part: str | None) -> str:
    """The folder of a sweep, and which part of its jobs this machine runs: `runs/demo, part 1/2`."""
    return f"{path}, part {part}" if part else str(path)


def other_parts_line(path: Path, states: Iterable[str]) -> str:
    """Says how many jobs of the other parts are done, and how those of another machine are added; empty if there are no such jobs.

    Args:
        path: of the sweep.
        states: of the jobs of the other parts.
    """
    known = list(states)
    done, total = known.count("done"), len(known)
    add = f"{PROGRAM} merge {shlex.quote(str(path))} FOLDER adds those of another machine's folder"
    return f"other parts: {done} of {total} jobs are done here{f'; {add}' * (done < total)}" if known else ""


def progress_columns(status: Status) -> tuple[str, str, str, str]:
    """Epoch, loss, validation accuracy and time left of a running job; empty where its status does not have them yet."""
    return (
        f"{status.epoch}/{status.epochs}" if status.epochs else "starting",
        "" if status.loss is None else f"{status.loss:.4f}",
        "" if status.val_acc is None else f"{status.val_acc:.4f}",
        "" if status.left_s is None else duration(status.left_s),
    )


def retry_command(command: str, counts: Mapping[str, int]) -> str:
    """A sweep's command, with the override that runs failed and diverged jobs again if there are any.

    Args:
        command: what the user typed.
        counts: jobs by state.
    """
    states = [state for state in ("failed", "diverged") if counts.get(state)]
    retry = f" sweep.retry={states[0] if len(states) == 1 else 'all'}" if states else ""
    return without_key(command, "sweep.retry") + retry if retry else command


def job_line(job: Job, status: Status, took: float | None, number: int, total: int, left_s: float | None) -> str:
    """One line for a job that has started or finished.

    Args:
        job: the job.
        status: its new status.
        took: seconds that it took, if it has finished.
        number: finished jobs so far.
        total: all jobs.
        left_s: expected seconds until all jobs are done.
    """
    text = f"[{number:>{len(str(total))}}/{total}] {status.state:<11} {job.name}"
    if status.state == "done" and (result := job.result()):
        for key, label in {"best/val/acc": "val acc", "test/acc": "test acc"}.items():
            text += f"  {label} {value:.4f}" if (value := result.metric(key)) is not None else ""
    elif status.reason and status.state != "running":
        text += f": {status.reason}"
    if took is not None:
        text += f"  {duration(took)}"
    if left_s is not None and status.state != "running":
        text += f"  {duration(left_s)} left"
    return text


def cell_table(jobs: Iterable[Job], keys: Iterable[str]) -> Table | None:
    """A row per cell: its number of finished seeds, mean and standard deviation of its accuracies; None if no job is done."""
    columns = [key for key in keys if key != "seed"]
    names = [column.rpartition(".")[2] for column in columns]
    table = make_table(names, ["n", "test acc", "sd", "val acc", "sd", "parameters", "time"])
    finished = 0
    for members in group_by_cell(jobs, lambda job: job):
        results = [result for job in members if (result := job.result())]
        finished += len(results)
        seconds = [result.fit_s for result in results if result.fit_s is not None]
        first, complete = members[0], len(results) == len(members)
        table.add_row(
            *(to_override(first.setting[key]) if key in first.setting else "" for key in columns),
            f"{len(results)}" if complete else f"{len(results)}/{len(members)}",
            *_mean_and_sd(result.metric("test/acc") for result in results),
            *_mean_and_sd(result.metric("best/val/acc") for result in results),
            f"{first.facts['params']:,}" if "params" in first.facts else "",
            duration(statistics.mean(seconds)) if seconds else "",
            style=None if complete else "yellow",
        )
    return table if finished else None


def make_table(text: Iterable[str], numbers: Iterable[str]) -> Table:
    """An empty table without borders.

    Args:
        text: heads of the columns that are aligned left.
        numbers: heads of the columns that are aligned right and never wrapped.
    """
    table = Table(box=None, padding=(0, 2, 0, 0), header_style="bold")
    for name in text:
        table.add_column(name, overflow="fold")
    for name in numbers:
        table.add_column(name, justify="right", no_wrap=True)
    return table


def _mean_and_sd(values: Iterable[float | None]) -> tuple[str, str]:
    """The mean and the standard deviation of the known values; empty where there are too few of them."""
    known = [value for value in values if value is not None]
    mean = f"{statistics.mean(known):.4f}" if known else ""
    return mean, f"{statistics.stdev(known):.4f}" if len(known) > 1 else ""
