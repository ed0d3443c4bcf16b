"""How the jobs of a sweep stand, counted as they change, and how long the rest will take."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from cnnbench.runs.sweep_dir import ENDS, Job
from cnnbench.text import canonical

WAITING = ("pending", "interrupted")
SAMPLE = 100  # finished jobs from whose times the rest is estimated


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
        # seconds of waiting jobs whose cell has finished ones, and how many others wait
        self._work, self._unknown = 0.0, 0
        for job in jobs:
            self._cell_of[job.name] = self._cells.setdefault(canonical(job.cell), Cell())
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
