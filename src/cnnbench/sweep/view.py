"""How a sweep stands, to look at: on a terminal a table that keeps up, elsewhere a line a job, at the end a row a cell."""

from __future__ import annotations

import json
import statistics
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from rich.console import Console, Group
from rich.table import Table
from rich.text import Text

from cnnbench.notation import as_typed, duration
from cnnbench.sweep.ledger import ENDS, Job

STATES = {  # in the order in which they are told
    "done": "green", "running": "cyan", "pending": "dim", "interrupted": "yellow", "failed": "red", "diverged": "magenta",
}  # fmt: skip
WAITING = ("pending", "interrupted")
SAMPLE = 100  # finished jobs from whose times the rest is estimated
SHOWN = 5  # failures
FILE_WIDTH = 160  # characters, where it is no terminal


def make_console() -> Console:
    """Where things are shown; a file takes wider tables than a terminal."""
    console = Console()
    return console if console.is_terminal else Console(width=FILE_WIDTH)


@dataclass(frozen=True)
class Standing:
    """How the jobs of a sweep stand.

    Attributes:
        counts: jobs by state.
        running: the jobs that are on, with their status.
        bad: those that failed or diverged, with theirs.
        left_s: seconds until all are done, as far as one can say.
    """

    counts: Counter[str]
    running: list[tuple[Job, dict[str, Any]]]
    bad: list[tuple[Job, dict[str, Any]]]
    left_s: float | None

    @property
    def total(self) -> int:
        """How many jobs there are."""
        return sum(self.counts.values())


class Tally:
    """Keeps count of how jobs stand, however many there are: what changes is a job at a time.

    Args:
        jobs: all of them.
        states: a status by the job's name.
        slots: how many run at a time.
        took: seconds that finished jobs took, by name.
    """

    def __init__(
        self,
        jobs: Iterable[Job],
        states: Mapping[str, dict[str, Any]],
        slots: int,
        took: Mapping[str, float] | None = None,
    ) -> None:
        self.slots, self.counts = slots, Counter[str]()
        self._cells: dict[str, Cell] = {}
        self._cell_of: dict[str, Cell] = {}
        self._jobs: dict[str, tuple[Job, dict[str, Any]]] = {}
        self._running: dict[str, Job] = {}
        self._bad: dict[str, Job] = {}
        self._all = Cell()  # of all jobs: how long one takes
        self._work, self._unknown = (
            0.0,
            0,
        )  # seconds of waiting jobs whose cell has finished ones, and how many others wait
        for job in jobs:
            self._cell_of[job.name] = self._cells.setdefault(key_of(job.cell), Cell())
            self.set(job, states[job.name], (took or {}).get(job.name))

    @property
    def total(self) -> int:
        """How many jobs there are."""
        return len(self._jobs)

    @property
    def ended(self) -> int:
        """How many have come to an end of their own."""
        return sum(self.counts[state] for state in ENDS)

    def set(self, job: Job, status: dict[str, Any], took: float | None = None) -> None:
        """A job has this status now, and took so many seconds."""
        cell, before = self._cell_of[job.name], self._jobs.get(job.name)
        self._work, self._unknown = self._work - cell.work, self._unknown - cell.unknown
        if before is not None:
            self.counts[before[1]["state"]] -= 1
            cell.waiting -= before[1]["state"] in WAITING
        state = status["state"]
        self._jobs[job.name] = (job, status)
        self.counts[state] += 1
        cell.waiting += state in WAITING
        for states, listed in ((("running",), self._running), (("failed", "diverged"), self._bad)):
            listed.pop(job.name, None)
            if state in states:
                listed[job.name] = job
        if took is not None and state == "done":
            cell.add(took)
            self._all.add(took)
        self._work, self._unknown = self._work + cell.work, self._unknown + cell.unknown

    def standing(self) -> Standing:
        """How they stand now; what runs is asked how far it is."""
        running = [(job, job.directory.status()) for job in self._running.values()]
        bad = [self._jobs[name] for name in self._bad]
        return Standing(self.counts, running, bad, self._left([status.get("left_s") for _, status in running]))

    def left(self) -> float | None:
        """Seconds that are left, without asking anybody."""
        return self._left([None] * len(self._running))

    def _left(self, ahead: list[float | None]) -> float | None:
        """A job is thought to take as long as others of its cell, else as others do; what has only begun, as another."""
        usual = self._all.mean
        if usual is None:
            known = [left for left in ahead if left is not None]
            if len(known) < len(ahead) or not known:
                return None
            usual = max(known)
        now = [usual if left is None else left for left in ahead]
        work = max(0.0, self._work)  # of sums and differences
        return max([(work + self._unknown * usual + sum(now)) / max(1, self.slots), *now])


@dataclass
class Cell:
    """How long the jobs of a cell take, and how many of them wait."""

    seconds: float = 0.0
    finished: int = 0
    waiting: int = 0

    @property
    def mean(self) -> float | None:
        """Seconds of one; None where none has finished."""
        return self.seconds / self.finished if self.finished else None

    @property
    def work(self) -> float:
        """Seconds of those that wait, as far as one knows."""
        return self.waiting * (self.mean or 0.0)

    @property
    def unknown(self) -> int:
        """How many wait, if one does not."""
        return 0 if self.finished else self.waiting

    def add(self, seconds: float) -> None:
        """One has finished."""
        self.seconds, self.finished = self.seconds + seconds, self.finished + 1


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
            table.add_row(job.name, *progress_of(status))
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
    by_cell: dict[str, list[Job]] = {}
    for job in jobs:
        by_cell.setdefault(key_of(job.cell), []).append(job)
    columns = [key for key in keys if key != "seed"]
    table = Table(
        *[column.rpartition(".")[2] for column in columns], box=None, padding=(0, 2, 0, 0), header_style="bold"
    )
    for column in ("n", "test acc", "sd", "val acc", "sd", "parameters", "time"):
        table.add_column(column, justify="right", no_wrap=True)
    any_done = False
    for members in by_cell.values():
        results = [result for result in (job.result() for job in members) if result]
        any_done = any_done or bool(results)
        test, val = ([result["metrics"][key] for result in results] for key in ("test/acc", "best/val/acc"))
        seconds = [result["time"]["fit_s"] for result in results]
        first = members[0]
        table.add_row(
            *(as_typed(first.setting[key]) if key in first.setting else "" for key in columns),
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


def key_of(cell: Mapping[str, Any]) -> str:
    """The same for jobs of one cell."""
    return json.dumps(cell, sort_keys=True)
