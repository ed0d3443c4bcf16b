"""Counts the jobs of a sweep by state as they change, and estimates how long the rest takes."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from cnnbench.runs.schema import Status
from cnnbench.runs.sweep_dir import ENDS, Job
from cnnbench.text import canonical_json

WAITING = ("pending", "interrupted")
MAX_SAMPLE = 100  # finished jobs whose times are read for the estimate

JobStatus = tuple[Job, Status]


@dataclass(frozen=True)
class SweepProgress:
    """The state of a sweep at one moment.

    Attributes:
        counts: jobs by state.
        running: the running jobs with their statuses.
        failures: the jobs that failed or diverged with their statuses, the latest last.
        left_s: expected seconds until all jobs are done; None: unknown.
    """

    counts: Counter[str]
    running: list[JobStatus]
    failures: list[JobStatus]
    left_s: float | None

    @property
    def total(self) -> int:
        """Number of jobs."""
        return sum(self.counts.values())


class ProgressTracker:
    """Keeps the counts and the expected time of a sweep of any size up to date, one changed job at a time.

    Args:
        jobs: all jobs.
        states: the status of each job by its name.
        slots: number of jobs that run at a time.
        took: seconds that finished jobs took, by name.
    """

    def __init__(
        self,
        jobs: Iterable[Job],
        states: Mapping[str, Status],
        slots: int,
        took: Mapping[str, float] | None = None,
    ) -> None:
        self.slots, self.counts = slots, Counter[str]()
        self._cell_of: dict[str, CellTimes] = {}
        self._jobs: dict[str, JobStatus] = {}  # in the order of their last change
        self._all = CellTimes()
        self._work_s, self._unknown = 0.0, 0  # sums over the cells
        cells = defaultdict[str, CellTimes](CellTimes)
        for job in jobs:
            self._cell_of[job.name] = cells[canonical_json(job.cell)]
            self.update(job, states[job.name], (took or {}).get(job.name))

    @property
    def total(self) -> int:
        """Number of jobs."""
        return len(self._jobs)

    @property
    def finished(self) -> int:
        """Number of jobs that are done, failed or diverged."""
        return sum(self.counts[state] for state in ENDS)

    def update(self, job: Job, status: Status, took: float | None = None) -> None:
        """Sets the status of a job, and the seconds that it took."""
        cell, state = self._cell_of[job.name], status.state
        self._work_s, self._unknown = self._work_s - cell.work_s, self._unknown - cell.unknown
        if before := self._jobs.pop(job.name, None):
            self.counts[before[1].state] -= 1
            cell.waiting -= before[1].state in WAITING
        self._jobs[job.name] = (job, status)
        self.counts[state] += 1
        cell.waiting += state in WAITING
        if took is not None and state == "done":
            cell.add(took)
            self._all.add(took)
        self._work_s, self._unknown = self._work_s + cell.work_s, self._unknown + cell.unknown

    def snapshot(self) -> SweepProgress:
        """The state of the sweep now; reads the status files of the running jobs."""
        running, failures = [], []
        for job, status in self._jobs.values():
            if status.state == "running":
                running.append((job, job.directory.status()))
            elif status.state in ("failed", "diverged"):
                failures.append((job, status))
        return SweepProgress(self.counts, running, failures, self._left([status.left_s for _, status in running]))

    def seconds_left(self) -> float | None:
        """Expected seconds until all jobs are done, without reading any file; None: unknown."""
        return self._left([None] * self.counts["running"])

    def _left(self, running: list[float | None]) -> float | None:
        """Expected seconds of all jobs.

        Expected duration of a job: the mean of its cell's finished jobs, else of all finished jobs. If none has finished: the
        longest time that a running job has left, if each of them knows it.

        Args:
            running: seconds that each running job has left; None: it counts as one that has just begun.
        """
        usual = self._all.mean
        if usual is None:
            known = [left for left in running if left is not None]
            if len(known) < len(running) or not known:
                return None
            usual = max(known)
        now = [usual if left is None else left for left in running]
        work = max(0.0, self._work_s)  # rounding errors may make it negative
        return max([(work + self._unknown * usual + sum(now)) / max(1, self.slots), *now])


@dataclass
class CellTimes:
    """Total seconds and number of a cell's finished jobs, and number of its waiting jobs."""

    seconds: float = 0.0
    finished: int = 0
    waiting: int = 0

    @property
    def mean(self) -> float | None:
        """Seconds of a finished job; None if none has finished."""
        return self.seconds / self.finished if self.finished else None

    @property
    def work_s(self) -> float:
        """Expected seconds of the waiting jobs; 0 if none has finished."""
        return self.waiting * (self.mean or 0.0)

    @property
    def unknown(self) -> int:
        """Number of waiting jobs if none has finished, else 0."""
        return 0 if self.finished else self.waiting

    def add(self, seconds: float) -> None:
        """Counts a finished job."""
        self.seconds, self.finished = self.seconds + seconds, self.finished + 1
