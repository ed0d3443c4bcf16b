"""Runs the jobs of a sweep, each in its own processes, as many at a time as there are slots."""

from __future__ import annotations

import signal
import time
import traceback
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from multiprocessing.connection import wait
from pathlib import Path
from types import FrameType

from cnnbench.config.schema import Config
from cnnbench.distributed import signals
from cnnbench.distributed.fork_server import RankProcesses, signals_blocked
from cnnbench.errors import CnnbenchError, ConfigError, Interrupted
from cnnbench.files import write_atomic
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
        work: Callable[[Config, Path, str], int] | None = None,
    ) -> None:
        self.plan, self.command, self.display, self.work = plan, command, display, work or run_job
        self.queue = list(plan.due)
        self.running: list[RunningJob] = []
        self.states = {planned.job.name: planned.status for planned in plan.jobs}
        self.failures = 0
        self.received = 0  # the signal that stops the sweep
        self.at_once = False  # a second signal came
        self._received_at = 0.0
        self._free = list(range(plan.slots.count))
        self._heartbeat_at = 0.0
        self.summary = Summary(plan.sweep, [planned.job for planned in plan.jobs] + plan.others, plan.record.keys)

    def run(self) -> int:
        """Runs all due jobs; returns the exit code.

        Raises:
            Interrupted: a signal came; the running jobs have saved.
        """
        with signals.handled_by(self._receive):
            self.summary.write()
            try:
                while self.running or (self.queue and not self._stopped):
                    self._start_jobs()
                    self._wait()
                    self._watch_jobs()
            finally:
                for running in self.running:  # only after an unexpected error
                    running.processes.kill()
                self.summary.close()
        if self.received:
            raise Interrupted(f"stopped by {signal.Signals(self.received).name}", self.received)
        return 0 if all(status.state == "done" for status in self.states.values()) else 3

    @property
    def _stopped(self) -> bool:
        """Whether no further job may start."""
        policy = self.plan.policy
        limit = 1 if policy.on_failure == "stop" else policy.max_failures
        return bool(self.received) or (limit is not None and self.failures >= limit)

    def _start_jobs(self) -> None:
        """Fills the free slots in the jobs' order; a job that needs more slots than are free lets later ones go first."""
        for planned in list(self.queue):
            if self._stopped or not self._free:
                return
            job, devices = planned.job, planned.config.trainer.devices
            if min(devices, self.plan.slots.count) > len(self._free):
                continue
            if job.status().state == "running":
                continue  # a job of a killed launcher is still saving
            self.queue.remove(planned)
            slots = [self._free.pop(0) for _ in range(min(devices, len(self._free)))]
            if job.directory.status().state != "pending":  # the outcome of an earlier launch no longer counts
                with suppress(OSError):
                    job.directory.write_status("pending")
            arguments = (planned.config, job.directory.path, self.command)
            environment = self.plan.slots.environment(slots, devices)
            processes = RankProcesses(self.work, arguments, devices, environment, job.directory.log)
            with signals_blocked():  # a signal is passed on to all running jobs: none may be half started
                processes.start()
                self.running.append(RunningJob(planned, processes, slots))
            self._set_status(job, Status(state="running"))

    def _wait(self) -> None:
        """Waits until a job ends, TICK_S at most."""
        sentinels = [sentinel for running in self.running for sentinel in running.processes.sentinels]
        if sentinels:
            wait(sentinels, timeout=TICK_S)
        elif self.queue:  # jobs that another launcher's processes still hold
            time.sleep(TICK_S)

    def _watch_jobs(self) -> None:
        """Writes the heartbeat, finishes ended jobs, and kills those that exceed `sweep.timeout` or SAVE_TIMEOUT_S."""
        now, timeout = time.monotonic(), self.plan.policy.timeout
        if now - self._heartbeat_at > HEARTBEAT_S:
            self._heartbeat_at = now
            with suppress(OSError):  # a full disk
                self.plan.sweep.write_launcher()
        for running in list(self.running):
            code = running.processes.exit_code()
            if code is not None:
                self._finish(running, code)
            elif timeout and now - running.start > timeout and not running.timed_out:
                running.timed_out = True
                running.processes.kill()
            elif self.received and now - self._received_at > SAVE_TIMEOUT_S:
                running.processes.kill()
        self.display.refresh()

    def _finish(self, running: RunningJob, code: int) -> None:
        """Frees the slots of a job that has ended, and records its status."""
        running.processes.kill()  # child processes that it left
        self.running.remove(running)
        self._free = sorted(self._free + running.slots)
        status = self._final_status(running, code)
        if status.state in ("failed", "diverged"):
            self.failures += 1
        self._set_status(running.planned.job, status, time.monotonic() - running.start)

    def _final_status(self, running: RunningJob, code: int) -> Status:
        """The status of an ended job; written to its directory where the job itself could not.

        Args:
            running: the job.
            code: its exit code; below 0 the signal that killed it.
        """
        job = running.planned.job
        status = job.directory.status()
        if job.directory.result.is_file():  # written last: what happens after that does not matter
            return status.model_copy(update={"state": "done"})
        if running.timed_out:
            return self._write_failed(job, f"took longer than sweep.timeout={self.plan.policy.timeout:g} s")
        if -code in signals.STOP_SIGNALS or (self.received and code == -signal.SIGKILL):
            return job.status()  # stopped before it began or while it saved: it resumes from its last checkpoint
        if status.state in ("running", "pending", "done"):
            return self._write_failed(job, exit_reason(code))
        return status

    def _write_failed(self, job: Job, reason: str) -> Status:
        with suppress(OSError):
            job.directory.write_status("failed", reason)
        return Status(state="failed", reason=reason)

    def _set_status(self, job: Job, status: Status, took: float | None = None) -> None:
        self.states[job.name] = status
        if status.state != "running":
            self.summary.update(job, status)
        self.display.job_changed(job, status, took)

    def _receive(self, number: int, frame: FrameType | None) -> None:
        """Signal handler: at the first signal every job saves and exits, at the second all are killed."""
        if self.received:
            if time.monotonic() - self._received_at < signals.REPEAT_S:
                return  # the same signal: timeout(1) sends it to its child, and then to the whole group
            for running in self.running:
                running.processes.kill()
            self.at_once = True
            raise Interrupted(f"stopped at once by {signal.Signals(number).name}", number)
        self.received, self._received_at = number, time.monotonic()
        for running in self.running:
            running.processes.send(number)


def freeze_to_disk(plan: Plan, command: str) -> Plan:
    """Makes the directories of all due jobs with their configs, and writes sweep.json; returns the plan.

    Repairs what a killed launch left: an unreadable result, and a finished run whose status is not `done`.
    """
    for planned in plan.jobs:
        directory = planned.job.directory
        if planned.due and not has_readable_config(directory):
            (directory.path / "checkpoints").mkdir(parents=True, exist_ok=True)
            config = planned.config.model_copy(update={"name": plan.request.name})
            write_atomic(directory.config, config.dump(), lasting=False)
        elif planned.due and planned.job.result() is None:
            directory.result.unlink(missing_ok=True)
        elif planned.status.state == "done" and directory.status().state != "done":
            directory.repair()
    record = plan.record.model_copy(update={"command": command, "slots": plan.slots.count})
    plan.sweep.write(record, [planned.job for planned in plan.jobs] + plan.others)
    return plan


def has_readable_config(directory: RunDir) -> bool:
    """Whether a run directory has a config that loads; a power cut may leave an empty one."""
    with suppress(ConfigError):
        return bool(Config.load(directory.config))
    return False


def run_job(config: Config, path: Path, command: str) -> int:
    """Runs a frozen config in its directory, in each process of a job; returns the exit code."""
    from cnnbench.distributed.ranks import rank_and_world_size
    from cnnbench.training.run import run

    def record_failure(reason: str) -> None:
        """Writes the status `failed` if the run itself has not."""
        directory = RunDir(path)
        if rank_and_world_size()[0] == 0 and directory.status().state in ("pending", "running"):
            directory.write_status("failed", reason)

    try:
        run(config.model_copy(update={"resume": str(path)}), command)
    except CnnbenchError as error:
        record_failure(str(error))
        return error.exit_code
    except Exception as error:
        traceback.print_exc()
        record_failure(f"{type(error).__name__}: {' '.join(str(error).split())}")
        return 1
    return 0


def exit_reason(code: int) -> str:
    """Returns why a job that wrote no status has ended, from its exit code; below 0 it is a signal."""
    if code >= 0:
        return f"its process exited with code {code} and without a result"
    name = signal.Signals(-code).name
    return f"its process was killed by {name}" + ("; was there enough memory?" if name == "SIGKILL" else "")
