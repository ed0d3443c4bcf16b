"""Runs the jobs of a sweep, each in its own processes, as many at a time as there are slots."""

from __future__ import annotations

import signal
import time
from collections.abc import Callable
from contextlib import nullcontext, suppress
from dataclasses import dataclass, field
from multiprocessing.connection import wait
from pathlib import Path
from types import FrameType

from cnnbench.config.schema import Config
from cnnbench.distributed import signals
from cnnbench.distributed.fork_server import KILL, RankProcesses, signals_blocked
from cnnbench.errors import CnnbenchError, Interrupted, RunFailed, print_traceback
from cnnbench.files import write_atomic
from cnnbench.runs.links import find_outside_link
from cnnbench.runs.liveness import HEARTBEAT_S
from cnnbench.runs.run_dir import RunDir
from cnnbench.runs.schema import Status
from cnnbench.runs.sweep_dir import Job, Summary
from cnnbench.sweep.plan import Plan, PlannedJob
from cnnbench.sweep.status_table import SweepDisplay

TICK_S = 0.25  # seconds between refreshes of the display and checks of timeouts
SAVE_TIMEOUT_S = 60.0  # seconds a job may take to save and exit after a signal


@dataclass
class RunningJob:
    """A job whose processes have started."""

    planned: PlannedJob
    processes: RankProcesses
    slots: list[int]
    start: float = field(default_factory=time.monotonic)
    timed_out: bool = False


def run_job(config: Config, path: Path, command: str) -> int:
    """Runs a frozen config in its directory, in each process of a job; returns the exit code.

    Writes the status `failed` if the run itself has not, as for an error before it began.
    """
    from cnnbench.distributed.ranks import rank_and_world_size
    from cnnbench.training.run import run

    try:
        # the plan has seen the data: where they have vanished since, nothing is downloaded in their place
        run(config.model_copy(update={"resume": str(path)}), command, download=False)
        return 0
    except Exception as error:
        if isinstance(error, CnnbenchError):
            code, reason = error.exit_code, str(error)
        else:
            print_traceback(error)
            code, reason = 1, f"{type(error).__name__}: {' '.join(str(error).split())}"
        directory = RunDir(path)
        if rank_and_world_size()[0] == 0 and directory.status().state in ("pending", "running"):
            directory.write_outcome("failed", reason)
        return code


class Launcher:
    """Starts the due jobs, watches them, and records how each of them ends.

    Args:
        plan: the sweep; its jobs are frozen to disk already.
        command: what the user typed, for the results.
        display: shows each started or ended job, and is refreshed several times a second.
        work: the function that each process of a job runs, with its config, its directory and the command; returns the exit code.
    """

    def __init__(
        self,
        plan: Plan,
        command: str,
        display: SweepDisplay,
        work: Callable[[Config, Path, str], int] = run_job,
    ) -> None:
        self.plan, self.command, self.display, self.work = plan, command, display, work
        self.queue = list(plan.due)
        self.running: list[RunningJob] = []
        self.failures = 0
        self.received = 0  # the signal that stops the sweep
        self._received_at = 0.0
        self._stopped_jobs: list[RunningJob] = []  # those that ran when it came
        self._free = list(range(plan.slots.count))
        self._heartbeat_at = 0.0
        self.summary = Summary(plan.sweep, [planned.job for planned in plan.jobs] + plan.others, plan.record.keys)

    def run(self) -> int:
        """Runs all due jobs; returns the exit code.

        Raises:
            Interrupted: a signal came; the running jobs have saved, unless a second one killed them.
            RunFailed: the sweep's folder has been removed.
        """
        with signals.handled_by(self._receive), self.display.live or nullcontext():
            self.summary.write()
            try:
                while self.running or (self.queue and not self._stopped):
                    self._require_folder()
                    self._start_jobs()
                    # until a job ends; it only sleeps while the processes of another launcher hold all jobs that are left
                    wait([sentinel for running in self.running for sentinel in running.processes.sentinels()], TICK_S)
                    self._require_folder()
                    self._watch_jobs()
            finally:
                for running in self.running:  # only after an unexpected error
                    running.processes.kill()
                self.summary.close()
        if self.received:
            saved = "; saved" * any(running.planned.job.directory.last.is_file() for running in self._stopped_jobs)
            raise Interrupted(
                f"stopped by {signal.Signals(self.received).name}{saved}. "
                f"To resume, type the same command again: {self.command}",
                self.received,
            )
        tracker = self.display.tracker
        return 0 if tracker.counts["done"] == tracker.total else 3

    @property
    def _stopped(self) -> bool:
        """Whether no further job may start."""
        policy = self.plan.policy
        limit = 1 if policy.on_failure == "stop" else policy.max_failures
        return bool(self.received) or (limit is not None and self.failures >= limit)

    def _require_folder(self) -> None:
        """Raises RunFailed if the sweep's folder has been removed: its jobs can write nothing."""
        with suppress(OSError):  # a file server that does not answer
            if not self.plan.sweep.path.is_dir():
                raise RunFailed(
                    f"{self.plan.sweep.path}: the folder has been removed while the sweep ran. "
                    f"To start it anew, type the same command again: {self.command}"
                )

    def _start_jobs(self) -> None:
        """Fills the free slots in the jobs' order; a job that needs more slots than are free waits, and later ones start before it."""
        for planned in list(self.queue):
            if self._stopped or not self._free:
                return
            job, devices = planned.job, planned.config.trainer.devices
            needed = min(devices, self.plan.slots.count)
            if needed > len(self._free):
                continue
            if job.status().state == "running":
                continue  # another process runs it, as the job of a killed launcher that is still saving
            self.queue.remove(planned)
            reason = None
            if not job.directory.config.is_file():
                reason = "its directory has been removed; the same command makes it anew"
            elif link := find_outside_link(job.directory.path):
                reason = f"{link} is a link to outside of its directory; remove it"
            if reason:
                self._record(job, Status(state="failed", reason=reason), 0.0)
                continue
            slots, self._free = self._free[:needed], self._free[needed:]
            if job.directory.status().state not in ("pending", "running"):  # the outcome of an earlier launch
                with suppress(OSError):
                    job.directory.write_outcome("pending")
            arguments = (planned.config, job.directory.path, self.command)
            environment = self.plan.slots.environment(slots, devices)
            processes = RankProcesses(self.work, arguments, devices, environment, job.directory.log)
            with signals_blocked():  # a signal is passed on to all running jobs: none may be half started
                processes.start()
                self.running.append(RunningJob(planned, processes, slots))
            self.display.job_changed(job, Status(state="running"), None)

    def _watch_jobs(self) -> None:
        """Writes the heartbeat, finishes ended jobs, and kills those that exceed `sweep.timeout` or SAVE_TIMEOUT_S."""
        now, timeout = time.monotonic(), self.plan.policy.timeout
        if now - self._heartbeat_at > HEARTBEAT_S:
            self._heartbeat_at = now
            self.plan.sweep.renew_launcher()
        for running in list(self.running):
            code = running.processes.exit_code()
            if code is not None:
                self._finish(running, code)
            elif timeout and now - running.start > timeout:
                running.timed_out = True
                running.processes.kill()
            elif self.received and now - self._received_at > SAVE_TIMEOUT_S:
                running.processes.kill()
        self.display.refresh()

    def _finish(self, running: RunningJob, code: int) -> None:
        """Frees the slots of a job that has ended, and records its status in the summary and on the display."""
        running.processes.kill()  # child processes that it left
        self.running.remove(running)
        self._free = sorted(self._free + running.slots)
        job = running.planned.job
        if code > 0 and (owner := job.directory.owner()) and not job.directory.result.is_file():
            self.queue.append(running.planned)  # refused: another process had begun it in the meantime
            self.display.job_changed(job, Status(state="pending", reason=f"waits for {owner}, which runs it"), None)
            return
        self._record(job, self._final_status(running, code), time.monotonic() - running.start)

    def _record(self, job: Job, status: Status, seconds: float) -> None:
        """Counts the status of an ended job, and shows it in the summary and on the display."""
        self.failures += status.state in ("failed", "diverged")
        self.summary.update(job, status)
        self.display.job_changed(job, status, seconds)

    def _final_status(self, running: RunningJob, code: int) -> Status:
        """The status of an ended job; written to its directory where the job itself could not.

        Args:
            running: the job.
            code: its exit code; below 0 the signal that killed it.
        """
        job, directory = running.planned.job, running.planned.job.directory
        if directory.result.is_file():  # written last: what happens after that does not matter
            return job.status()
        if running.timed_out:
            reason = f"took longer than sweep.timeout={self.plan.policy.timeout:g} s"
        elif -code in signals.STOP_SIGNALS or (self.received and abs(code) == KILL):
            return job.status()  # stopped before it began or while it saved: it resumes from its last checkpoint
        elif (status := directory.status()).state in ("running", "pending", "done"):
            reason = exit_reason(code)
        else:
            return status
        with suppress(OSError):
            directory.write_outcome("failed", reason)
        return Status(state="failed", reason=reason)

    def _receive(self, number: int, frame: FrameType | None) -> None:
        """Signal handler: at the first signal every job saves and exits, at the second all are killed."""
        if self.received:
            if not signals.is_second(number, self._received_at):
                return  # timeout(1) sends a signal to its child, and then to the whole group
            for running in self.running:
                running.processes.kill()
            raise Interrupted(
                f"stopped at once by {signal.Signals(number).name}. "
                f"To resume, type the same command again: {self.command}",
                number,
            )
        self.received, self._received_at, self._stopped_jobs = number, time.monotonic(), list(self.running)
        for running in self.running:
            running.processes.send(number)
        self.display.note(
            f"{signal.Signals(number).name}: no further job starts; running jobs that save: {len(self.running)}"
        )


def freeze_to_disk(plan: Plan, command: str) -> Plan:
    """Makes the directories of all due jobs with their configs, and writes sweep.json; returns the plan.

    Repairs what a killed launch left: an unreadable result, and a finished run whose status is not `done`.
    """
    for planned in plan.jobs:
        directory = planned.job.directory
        if planned.due and not directory.readable_config():  # a power cut may leave an empty file
            (directory.path / "checkpoints").mkdir(parents=True, exist_ok=True)
            config = planned.config.model_copy(update={"name": plan.request.name})
            write_atomic(directory.config, config.dump(), lasting=False)
        elif planned.due and directory.result.is_file() and planned.job.result() is None:
            directory.result.unlink(missing_ok=True)
        elif planned.status.state == "done" and directory.status().state != "done" and not directory.owner():
            directory.repair()
    record = plan.record.model_copy(update={"command": command, "slots": plan.slots.count})
    plan.sweep.write(record, [planned.job for planned in plan.jobs] + plan.others)
    return plan


def exit_reason(code: int) -> str:
    """Returns why a job that wrote no status has ended, from its exit code; below 0 it is a signal."""
    if code >= 0:
        return f"its process exited with code {code} and without a result"
    return f"its process was {signals.killed_by(-code)}"
