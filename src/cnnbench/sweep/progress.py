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


@dataclass
class CellTimes:
    """Number of a cell's waiting jobs; number and total seconds of its finished jobs whose time is known."""

    waiting: int = 0
    finished: int = 0
    seconds: float = 0.0


class ProgressTracker:
    """Keeps the counts and the expected time of a sweep of any size up to date, one changed job at a time.

    Args:
        jobs: all jobs, each with its status.
        slots: number of jobs that run at a time.
        took: seconds that finished jobs took, by name.

    Attributes:
        counts: number of jobs by state.
    """

    def __init__(
        self,
        jobs: Iterable[JobStatus],
        slots: int,
        took: Mapping[str, float] | None = None,
    ) -> None:
        self.slots, self.counts = slots, Counter[str]()
        self._jobs: dict[str, JobStatus] = {}  # in the order of their last change
        self._cells = defaultdict[str, CellTimes](CellTimes)  # by the setting without the seed
        for job, status in jobs:
            self.update(job, status, (took or {}).get(job.name))

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
        cell = self._cells[canonical_json(job.cell)]
        if before := self._jobs.pop(job.name, None):
            self.counts[before[1].state] -= 1
            cell.waiting -= before[1].state in WAITING
        self._jobs[job.name] = (job, status)
        self.counts[status.state] += 1
        cell.waiting += status.state in WAITING
        if took is not None and status.state == "done":
            cell.finished += 1
            cell.seconds += took

    @property
    def running(self) -> list[JobStatus]:
        """The running jobs, each with the content of its status file now."""
        return [(job, job.directory.status()) for job, status in self._jobs.values() if status.state == "running"]

    @property
    def failures(self) -> list[JobStatus]:
        """The jobs that failed or diverged with their statuses, the latest last."""
        return [(job, status) for job, status in self._jobs.values() if status.state in ("failed", "diverged")]

    @property
    def left_s(self) -> float | None:
        """Expected seconds until all jobs are done; reads the status files of the running jobs; None: unknown."""
        return self._left([status.left_s for _, status in self.running])

    def seconds_left(self) -> float | None:
        """Expected seconds until all jobs are done, without reading any file; None: unknown."""
        return self._left([None] * self.counts["running"])

    def _left(self, running: list[float | None]) -> float | None:
        """Expected seconds of all jobs.

        Expected duration of a job: the mean of its cell's finished jobs, else of all finished jobs. If none has finished: the
        longest time that a running job has left, if each of them knows it. The time left is the work divided by the number of
        slots, and at least the longest time that a running job has left.

        Args:
            running: seconds that each running job has left; None: it counts as one that has just begun.
        """
        cells = self._cells.values()
        known = [left for left in running if left is not None]
        if finished := sum(cell.finished for cell in cells):
            usual = sum(cell.seconds for cell in cells) / finished
        elif known and len(known) == len(running):
            usual = max(known)
        else:
            return None
        now = [usual if left is None else left for left in running]
        work = sum(cell.waiting * (cell.seconds / cell.finished if cell.finished else usual) for cell in cells)
        return max([(work + sum(now)) / self.slots, *now])
