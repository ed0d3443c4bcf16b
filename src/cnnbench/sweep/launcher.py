"""Runs the jobs of a sweep: each in processes of its own, as many at a time as there are slots, until none is left."""

from __future__ import annotations

import signal
import time
import traceback
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field, replace
from multiprocessing.connection import wait
from pathlib import Path
from types import FrameType
from typing import Any

from cnnbench.config.schema import Config
from cnnbench.distributed import fork_server as executors
from cnnbench.distributed import signals
from cnnbench.errors import CnnbenchError, ConfigError, Interrupted
from cnnbench.files import write_atomic
from cnnbench.runs.liveness import HEARTBEAT_S, living
from cnnbench.runs.run_dir import RunDir, State
from cnnbench.runs.sweep_dir import Job, Summary
from cnnbench.sweep.plan import Plan, Planned

TICK_S = 0.25  # how often what is shown, and what has run too long, is looked at
PATIENCE_S = 60.0  # for a job that is to save and end


@dataclass
class Running:
    """A job that is on."""

    planned: Planned
    processes: executors.Job
    slots: list[int]
    begun: float = field(default_factory=time.monotonic)
    timed_out: bool = False


class Launcher:
    """Starts what is due, looks after it, and says what becomes of it.

    Args:
        plan: which jobs; they are frozen on disk already.
        command: what the user typed, for the results.
        told: is called with a job, its new status and how long it took, when it has begun or ended.
        tick: is called some times a second.
        work: what each process of a job calls with its config, its directory and the command; its exit code.
    """

    def __init__(
        self,
        plan: Plan,
        command: str,
        told: Callable[[Job, dict[str, Any], float | None], None] = lambda job, status, took: None,
        tick: Callable[[], None] = lambda: None,
        work: Callable[[Config, Path, str], int] | None = None,
    ) -> None:
        self.plan, self.command, self.told, self.tick, self.work = plan, command, told, tick, work or run_job
        self.queue = list(plan.due)
        self.running: list[Running] = []
        self.states = {planned.job.name: planned.status for planned in plan.jobs}
        self.failures = 0
        self.received = 0  # the signal that stops the sweep
        self.at_once = False  # it was not the first
        self._received_at = 0.0
        self._free = list(range(plan.slots.count))
        self._beat_at = 0.0
        jobs = [planned.job for planned in plan.jobs] + plan.others
        self.summary = Summary(plan.sweep, jobs, plan.record["keys"])

    def run(self) -> int:
        """Until nothing is left to do; the exit code.

        Raises:
            Interrupted: a signal came; what ran was saved.
        """
        before = {number: signal.signal(number, self._receive) for number in signals.NUMBERS}
        self.summary.write()
        try:
            while self.running or (self.queue and not self._stopped):
                self._start()
                self._wait()
                self._look_after()
        finally:
            for running in self.running:  # none, unless something unexpected came
                running.processes.kill()
            self.summary.close()
            for number, handler in before.items():
                signal.signal(number, handler)
        if self.received:
            raise Interrupted(f"stopped by {signal.Signals(self.received).name}", self.received)
        return 0 if all(status["state"] == "done" for status in self.states.values()) else 3

    @property
    def _stopped(self) -> bool:
        """No further job is to be started."""
        policy = self.plan.policy
        most = 1 if policy.on_failure == "stop" else policy.max_failures
        return bool(self.received) or (most is not None and self.failures >= most)

    def _start(self) -> None:
        """Fills the free slots, in the jobs' order; a job for which there are too few waits, and lets others by."""
        for planned in list(self.queue):
            if self._stopped or not self._free:
                return
            devices = planned.config.trainer.devices
            if min(devices, self.plan.slots.count) > len(self._free):
                continue
            if living(planned.job.directory.status()) and planned.job.status()["state"] == "running":
                continue  # a job of a launcher that was killed is still saving
            self.queue.remove(planned)
            taken = [self._free.pop(0) for _ in range(min(devices, len(self._free)))]
            directory = planned.job.directory
            if directory.status()["state"] != "pending":  # what an earlier launch made of it is told no more
                with suppress(OSError):
                    directory.write_status("pending")
            processes = executors.Job(
                self.work,
                (planned.config, directory.path, self.command),
                devices,
                self.plan.slots.environment(taken, devices),
                directory.log,
            )
            with executors.held_back():  # it comes to all that are on
                processes.start()
                self.running.append(Running(planned, processes, taken))
            self._say(planned.job, {"state": "running"})

    def _wait(self) -> None:
        """For a job's end, at most until it is time to look around."""
        sentinels = [sentinel for running in self.running for sentinel in running.processes.sentinels]
        if sentinels:
            wait(sentinels, timeout=TICK_S)
        elif self.queue:  # what is left is on elsewhere
            time.sleep(TICK_S)

    def _look_after(self) -> None:
        now = time.monotonic()
        if now - self._beat_at > HEARTBEAT_S:
            self._beat_at = now
            with suppress(OSError):  # there may be no room on the disk
                self.plan.sweep.beat()
        for running in list(self.running):
            code = running.processes.ended()
            if code is not None:
                self._end(running, code)
            elif self.plan.policy.timeout and now - running.begun > self.plan.policy.timeout and not running.timed_out:
                running.timed_out = True
                running.processes.kill()
            elif self.received and now - self._received_at > PATIENCE_S:
                running.processes.kill()
        self.tick()

    def _end(self, running: Running, code: int) -> None:
        """A job has ended, somehow; its directory is to say how."""
        running.processes.kill()  # what it may have started
        self.running.remove(running)
        self._free = sorted(self._free + running.slots)
        job = running.planned.job
        took = time.monotonic() - running.begun
        status = job.directory.status()
        if running.timed_out and not job.directory.result.is_file():
            status = self._write(job, f"took longer than sweep.timeout={self.plan.policy.timeout:g} s")
        elif job.directory.result.is_file():  # it is written last; whatever came after that
            status = {**status, "state": "done"}
        elif -code in signals.NUMBERS or (self.received and code == -signal.SIGKILL):
            status = job.status()  # it had not begun, or was not quick enough; it goes on from what it saved
        elif status["state"] in ("running", "pending", "done"):
            status = self._write(job, how_it_ended(code))
        if status["state"] in ("failed", "diverged"):
            self.failures += 1
        self._say(job, status, took)

    def _write(self, job: Job, reason: str) -> dict[str, Any]:
        with suppress(OSError):
            job.directory.write_status("failed", reason)
        return {"state": "failed", "reason": reason}

    def _say(self, job: Job, status: dict[str, Any], took: float | None = None) -> None:
        self.states[job.name] = status
        if status["state"] != "running":
            self.summary.update(job, status)
        self.told(job, status, took)

    def _receive(self, number: int, frame: FrameType | None) -> None:
        """The first signal has every job save and end, the second ends all at once."""
        if self.received:
            if time.monotonic() - self._received_at < signals.SAME_S:
                return  # timeout(1) sends it to its child, and then to all of the group
            for running in self.running:
                running.processes.kill()
            self.at_once = True
            raise Interrupted(f"stopped at once by {signal.Signals(number).name}", number)
        self.received, self._received_at = number, time.monotonic()
        for running in self.running:
            running.processes.send(number)


def freeze_to_disk(plan: Plan, command: str) -> Plan:
    """Makes the directories of all jobs that are due, with their configs, and sweep.json; gives the plan as it is then."""
    jobs = []
    for planned in plan.jobs:
        if planned.due and not has_config(planned.job.directory):
            path = planned.job.directory.path
            (path / "checkpoints").mkdir(parents=True, exist_ok=True)
            config = planned.config.model_copy(update={"name": plan.asked.name})
            write_atomic(planned.job.directory.config, config.dump(), lasting=False)
        elif planned.due and planned.job.result() is None:
            planned.job.directory.result.unlink(missing_ok=True)  # it cannot be read
        elif planned.status["state"] == "done" and planned.job.directory.status()["state"] != "done":
            planned.job.directory.tidy()  # it was killed before it could say so
        jobs.append(planned)
    plan = replace(plan, jobs=jobs)
    record = {**plan.record, "command": command, "slots": plan.slots.count}
    plan.sweep.write(record, [planned.job for planned in jobs] + plan.others)
    return plan


def has_config(directory: RunDir) -> bool:
    """There is a config that can be read: not after a power cut just when it was written."""
    try:
        return bool(Config.load(directory.config))
    except ConfigError:
        return False


def run_job(config: Config, path: Path, command: str) -> int:
    """What each process of a job does: a plain run of a frozen config in its directory; its exit code."""
    from cnnbench.distributed.ranks import placed
    from cnnbench.training.run import run

    def unsaid(state: State, reason: str) -> None:
        directory = RunDir(path)
        if placed()[0] == 0 and directory.status()["state"] in ("pending", "running"):
            directory.write_status(state, reason)

    try:
        run(config.model_copy(update={"resume": str(path)}), command)
    except CnnbenchError as error:
        unsaid("failed", str(error))
        return error.exit_code
    except Exception as error:
        traceback.print_exc()
        unsaid("failed", f"{type(error).__name__}: {' '.join(str(error).split())}")
        return 1
    return 0


def how_it_ended(code: int) -> str:
    """Why a job that said nothing is gone."""
    if code >= 0:
        return f"its process ended with exit code {code}, and without a result"
    name = signal.Signals(-code).name
    return f"its process was ended by {name}" + ("; was there memory enough?" if name == "SIGKILL" else "")
