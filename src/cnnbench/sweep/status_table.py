"""How a sweep stands, to look at: on a terminal a table that keeps up, elsewhere a line a job, at the end a row a cell."""

from __future__ import annotations

import statistics
from collections.abc import Iterable, Mapping
from typing import Any

from rich.console import Group
from rich.markup import escape
from rich.table import Table
from rich.text import Text

from cnnbench.runs.sweep_dir import Job, by_cell
from cnnbench.sweep.progress import Standing
from cnnbench.text import as_typed, duration, numeric

STATES = {  # in the order in which they are told
    "done": "green", "running": "cyan", "pending": "dim", "interrupted": "yellow", "failed": "red", "diverged": "magenta",
}  # fmt: skip
SHOWN = 5  # failures


def rendered(standing: Standing, name: str, launcher: str | None = None) -> Group:
    """For a terminal."""
    head = Text.assemble((name, "bold"), "  ", _counted(standing.counts), f" of {standing.total}")
    if standing.left_s is not None and (standing.running or launcher):
        head.append(f"   {duration(standing.left_s)} left")
    if launcher:
        head.append(f"   ({launcher})", "dim")
    parts: list[Any] = [head]
    if standing.running:
        table = Table(box=None, padding=(0, 2, 0, 0), header_style="dim")
        for column in ("job", "epoch", "loss", "val acc", "left"):
            left = column == "job"
            table.add_column(column, justify="left" if left else "right", no_wrap=not left, overflow="fold")
        for job, status in standing.running:
            table.add_row(Text(job.name), *progress_of(status))
        parts.append(table)
    for job, status in standing.bad[-SHOWN:]:
        parts.append(
            Text(f"{status['state']}: {job.name}: {status.get('reason')}", "red", overflow="ellipsis", no_wrap=True)
        )
    if len(standing.bad) > SHOWN:
        parts.append(Text(f"and {len(standing.bad) - SHOWN} before", "red"))
    return Group(*parts)


def progress_of(status: Mapping[str, Any]) -> tuple[str, str, str, str]:
    """Epoch, loss, validation accuracy and time left of a running job, as far as it has told them."""
    epoch = f"{status['epoch']}/{status['epochs']}" if status.get("epochs") else "begins"
    loss, accuracy, left = (status.get(key) for key in ("loss", "val_acc", "left_s"))
    return (
        epoch,
        "" if loss is None else f"{loss:.4f}",
        "" if accuracy is None else f"{accuracy:.4f}",
        "" if left is None else duration(left),
    )


def retry(counts: Mapping[str, int]) -> str:
    """What is typed besides, for jobs that failed or diverged to be run again; nothing where none did."""
    states = [state for state in ("failed", "diverged") if counts.get(state)]
    return f" sweep.retry={states[0] if len(states) == 1 else 'all'}" if states else ""


def _counted(counts: Mapping[str, int]) -> Text:
    parts = [(f"{counts[state]} {state}", style) for state, style in STATES.items() if counts.get(state)]
    return Text(", ").join(Text(text, style) for text, style in parts)


def line(job: Job, status: dict[str, Any], took: float | None, number: int, total: int, left_s: float | None) -> str:
    """A job has begun or ended, in a line."""
    state = status["state"]
    place = f"[{number:>{len(str(total))}}/{total}] {state:<11} {job.name}"
    if state == "done":
        metrics = (job.result() or {}).get("metrics", {})
        shown = [
            f"{label} {metrics[key]:.4f}"
            for key, label in {"best/val/acc": "val acc", "test/acc": "test acc"}.items()
            if key in metrics
        ]
        place = "  ".join([place, *shown])
    elif status.get("reason") and state != "running":
        place += f": {status['reason']}"
    if took is not None:
        place += f"  {duration(took)}"
    if left_s is not None and state != "running":
        place += f"  {duration(left_s)} left"
    return place


def cells(jobs: Iterable[Job], keys: Iterable[str]) -> Table | None:
    """A row a cell: how many seeds, mean and deviation of its accuracies; None where nothing is done."""
    columns = [key for key in keys if key != "seed"]
    table = Table(
        *[column.rpartition(".")[2] for column in columns], box=None, padding=(0, 2, 0, 0), header_style="bold"
    )
    for column in ("n", "test acc", "sd", "val acc", "sd", "parameters", "time"):
        table.add_column(column, justify="right", no_wrap=True)
    any_done = False
    for members in by_cell(jobs, lambda job: job):
        results = [result for result in (job.result() for job in members) if result]
        any_done = any_done or bool(results)
        test, val, seconds = (
            [number for result in results if (number := numeric(result, *path)) is not None]
            for path in (("metrics", "test/acc"), ("metrics", "best/val/acc"), ("time", "fit_s"))
        )
        first = members[0]
        table.add_row(
            *(escape(as_typed(first.setting[key])) if key in first.setting else "" for key in columns),
            f"{len(results)}" if len(results) == len(members) else f"{len(results)}/{len(members)}",
            *_mean_sd(test),
            *_mean_sd(val),
            f"{first.facts['params']:,}" if "params" in first.facts else "",
            duration(statistics.mean(seconds)) if seconds else "",
            style=None if len(results) == len(members) else "yellow",
        )
    return table if any_done else None


def _mean_sd(values: list[float]) -> tuple[str, str]:
    mean = f"{statistics.mean(values):.4f}" if values else ""
    return mean, f"{statistics.stdev(values):.4f}" if len(values) > 1 else ""
