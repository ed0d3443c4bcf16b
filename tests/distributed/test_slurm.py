"""Runs under a real Slurm with one node: srun starts the ranks; an allocation without srun does not."""

from __future__ import annotations

import json
import shlex
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from cnnbench.runs.run_dir import RunDir
from processes import CommandProcess, assert_same_run, child_environment, has_saved, only_run_in, run_forked, wait_until

pytestmark = pytest.mark.slurm

NET = ["trainer=cpu", "threads=1", "data=synthetic", "data.image_size=32", "data.train_size=640", "data.val_size=101"]
NET += ["data.test_size=101", "epochs=3", "optimizer=momentum", "trainer.checkpoint_every_s=0.05"]
NET += ["model=custom", "model._target_=nets.Slow"]
CNNBENCH = (sys.executable, "-m", "cnnbench")
SRUN = ("srun", "--ntasks", "2", "--overlap")


@pytest.fixture(scope="module", autouse=True)
def node():
    """Skips without Slurm or without an idle node."""
    if shutil.which("srun") is None:
        pytest.skip("no srun")
    found = subprocess.run(["sinfo", "--noheader", "--format", "%T"], capture_output=True, text=True, timeout=60)
    if not {"idle", "mixed"} & set(found.stdout.split()):
        pytest.skip(f"no Slurm node is idle: {found.stdout.strip() or found.stderr.strip()}")


@pytest.fixture(scope="module")
def whole(tmp_path_factory) -> RunDir:
    """A run of two processes that Slurm did not start."""
    return run_forked(tmp_path_factory.mktemp("whole"), *NET, "trainer.devices=2", ranks=2)


class Job:
    """A submitted batch script of one command."""

    def __init__(self, folder: Path, *command: str, tasks: int = 1, wait: str = "0") -> None:
        script = folder / "script"  # exec: a signal would end the shell instead of the command
        script.write_text(f"#!/bin/bash\nexec {shlex.join(command)}\n")
        options = ["--parsable", "--ntasks", str(tasks), "--output", "job.out", "--error", "job.err"]
        given = subprocess.run(
            ["sbatch", *options, str(script)], cwd=folder, env=child_environment("slurm", {"NETS_WAIT": wait}),
            capture_output=True, text=True, check=True, timeout=60,
        )  # fmt: skip
        self.number = given.stdout.strip().partition(";")[0]

    def facts(self) -> dict[str, str]:
        shown = subprocess.run(["scontrol", "--oneliner", "show", "job", self.number], capture_output=True, text=True)
        return dict(fact.partition("=")[::2] for fact in shown.stdout.split() if "=" in fact)

    @property
    def has_ended(self) -> bool:
        return self.facts()["JobState"] not in ("PENDING", "RUNNING", "COMPLETING")

    def wait(self) -> int:
        """Waits for its end; returns the exit code of its command."""
        wait_until(lambda: self.has_ended, f"job {self.number} ends", seconds=180, every=0.3)
        return int(self.facts()["ExitCode"].partition(":")[0])


@pytest.fixture
def batch(tmp_path):
    """Submits jobs; kills those that are still running at the end of the test."""
    submitted = []

    def submit(*command: str, **more: Any) -> Job:
        submitted.append(Job(tmp_path, *command, **more))
        return submitted[-1]

    yield submit
    for job in submitted:
        if not job.has_ended:
            scancel("--signal", "KILL", "--full", job.number)


def scancel(*arguments: str) -> None:
    subprocess.run(["scancel", *arguments], check=True, timeout=60)


def assert_interrupted(folder: Path, name: str) -> RunDir:
    """Asserts that the run is interrupted, and that the command to resume is printed once."""
    directory = RunDir(only_run_in(folder))
    wait_until(lambda: directory.status().state != "running", "it ends")
    assert directory.status().state == "interrupted"
    error = (folder / "job.err").read_text()
    assert error.count(f"cnnbench: stopped by {name}; saved. To resume: cnnbench resume=") == 1
    assert "Traceback" not in error
    return directory


def test_ranks_of_srun_train_the_same_run_as_forked_ones(whole, tmp_path):
    run = CommandProcess(tmp_path, *NET, "trainer.devices=2", program=(*SRUN, *CNNBENCH))
    assert run.wait() == 0, run.err
    directory = RunDir(only_run_in(tmp_path))
    assert_same_run(directory, whole)
    assert json.loads(directory.result.read_text())["devices"] == 2


def test_another_number_of_processes_than_devices_is_refused_in_one_line(tmp_path):
    run = CommandProcess(tmp_path, *NET, program=(*SRUN, *CNNBENCH))
    assert run.wait() == 2
    error = "cnnbench: 2 processes were started, trainer.devices × trainer.num_nodes is 1; type trainer.devices=2"
    lines = [line for line in run.err.splitlines() if line.startswith("cnnbench")]
    assert set(lines) == {error}
    assert "Traceback" not in run.err
    assert not (tmp_path / "runs").exists()


@pytest.mark.parametrize("tasks", [1, 2])
def test_a_job_without_srun_trains_in_one_process(tasks, batch, tmp_path):
    job = batch(*CNNBENCH, *NET, tasks=tasks)
    assert job.wait() == 0, (tmp_path / "job.err").read_text()
    directory = RunDir(only_run_in(tmp_path))
    assert json.loads(directory.result.read_text())["devices"] == 1
    assert not (directory.path / "log_rank1.txt").exists()


def test_a_job_without_srun_trains_in_as_many_processes_as_it_has_devices(whole, batch, tmp_path):
    job = batch(*CNNBENCH, *NET, "trainer.devices=2", tasks=2)
    assert job.wait() == 0, (tmp_path / "job.err").read_text()
    assert_same_run(RunDir(only_run_in(tmp_path)), whole)


def test_ranks_of_srun_save_at_a_signal_and_resume_to_the_same_bits(whole, batch, tmp_path):
    arguments = (*NET, "trainer.devices=2", "resume=auto")
    job = batch(*SRUN, *CNNBENCH, *arguments, tasks=2, wait="0.1")
    wait_until(lambda: has_saved(tmp_path), "it saves")
    scancel("--signal", "USR1", job.number)
    assert job.wait() == 128 + signal.SIGUSR1
    directory = assert_interrupted(tmp_path, "SIGUSR1")
    again = batch(*SRUN, *CNNBENCH, *arguments, tasks=2)
    assert again.wait() == 0, (tmp_path / "job.err").read_text()
    assert_same_run(directory, whole)


@pytest.mark.parametrize("name", ["SIGTERM", "SIGUSR1"])
def test_forked_ranks_that_receive_a_signal_twice_save_and_resume_to_the_same_bits(name, whole, batch, tmp_path):
    """Slurm sends the signal to all processes of the job, and the launcher forwards it."""
    arguments = (*NET, "trainer.devices=2", "resume=auto")
    job = batch(*CNNBENCH, *arguments, tasks=2, wait="0.1")
    wait_until(lambda: has_saved(tmp_path), "it saves")
    scancel("--signal", name.removeprefix("SIG"), "--full", job.number)
    assert job.wait() == 128 + getattr(signal, name)
    directory = assert_interrupted(tmp_path, name)
    assert batch(*CNNBENCH, *arguments, tasks=2).wait() == 0
    assert_same_run(directory, whole)


def test_a_cancelled_job_saves(whole, batch, tmp_path):
    """scancel sends SIGTERM, and SIGKILL half a minute later."""
    arguments = (*NET, "trainer.devices=2", "resume=auto")
    job = batch(*SRUN, *CNNBENCH, *arguments, tasks=2, wait="0.1")
    wait_until(lambda: has_saved(tmp_path), "it saves")
    started = time.monotonic()
    scancel(job.number)
    job.wait()
    assert time.monotonic() - started < 25
    assert_interrupted(tmp_path, "SIGTERM")
    assert_same_run(run_forked(tmp_path, *arguments, ranks=2), whole)
