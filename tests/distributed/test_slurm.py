"""On a real Slurm of one node: srun's processes are used as they are, an allocation alone is no reason for several."""

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
from processes import Typed, assert_same_run, forked, own_environment, run_of, saved_in, until

pytestmark = pytest.mark.slurm

NET = ["trainer=cpu", "threads=1", "data=synthetic", "data.image_size=32", "data.train_size=640", "data.val_size=101"]
NET += ["data.test_size=101", "epochs=3", "optimizer=momentum", "trainer.checkpoint_every_s=0.05"]
NET += ["model=custom", "model._target_=nets.Slow"]
CNNBENCH = (sys.executable, "-m", "cnnbench")
SRUN = ("srun", "--ntasks", "2", "--overlap")


@pytest.fixture(scope="module", autouse=True)
def node():
    """Skips where there is no Slurm, or none that has a node."""
    if shutil.which("srun") is None:
        pytest.skip("no srun here")
    found = subprocess.run(["sinfo", "--noheader", "--format", "%T"], capture_output=True, text=True, timeout=60)
    if not {"idle", "mixed"} & set(found.stdout.split()):
        pytest.skip(f"no node of Slurm's is idle: {found.stdout.strip() or found.stderr.strip()}")


@pytest.fixture(scope="module")
def whole(tmp_path_factory) -> RunDir:
    """The run of two processes that Slurm did not start."""
    return forked(tmp_path_factory.mktemp("whole"), *NET, "trainer.devices=2", ranks=2)


class Job:
    """A script of one command, submitted."""

    def __init__(self, folder: Path, *command: str, tasks: int = 1, wait: str = "0") -> None:
        script = folder / "script"  # exec: the shell would end by the signals that it is sent
        script.write_text(f"#!/bin/bash\nexec {shlex.join(command)}\n")
        options = ["--parsable", "--ntasks", str(tasks), "--output", "job.out", "--error", "job.err"]
        given = subprocess.run(
            ["sbatch", *options, str(script)], cwd=folder, env=own_environment("slurm", {"NETS_WAIT": wait}),
            capture_output=True, text=True, check=True, timeout=60,
        )  # fmt: skip
        self.number = given.stdout.strip().partition(";")[0]

    def facts(self) -> dict[str, str]:
        shown = subprocess.run(["scontrol", "--oneliner", "show", "job", self.number], capture_output=True, text=True)
        return dict(fact.partition("=")[::2] for fact in shown.stdout.split() if "=" in fact)

    @property
    def ended(self) -> bool:
        return self.facts()["JobState"] not in ("PENDING", "RUNNING", "COMPLETING")

    def wait(self) -> int:
        """The exit code of its command."""
        until(lambda: self.ended, f"job {self.number} ends", seconds=180, every=0.3)
        return int(self.facts()["ExitCode"].partition(":")[0])


@pytest.fixture
def batch(tmp_path):
    """Submits jobs; those that have not ended with the test are killed."""
    submitted = []

    def submit(*command: str, **more: Any) -> Job:
        submitted.append(Job(tmp_path, *command, **more))
        return submitted[-1]

    yield submit
    for job in submitted:
        if not job.ended:
            scancel("--signal", "KILL", "--full", job.number)


def scancel(*arguments: str) -> None:
    subprocess.run(["scancel", *arguments], check=True, timeout=60)


def assert_interrupted(folder: Path, name: str) -> RunDir:
    """The run says so, and its last line, which is told once, how to go on."""
    directory = RunDir(run_of(folder))
    until(lambda: directory.status()["state"] != "running", "it ends")
    assert directory.status()["state"] == "interrupted"
    said = (folder / "job.err").read_text()
    assert said.count(f"cnnbench: stopped by {name}; saved. To go on: python -m cnnbench resume=") == 1
    assert "Traceback" not in said
    return directory


def test_sruns_processes_end_as_ours_do(whole, tmp_path):
    run = Typed(tmp_path, *NET, "trainer.devices=2", program=(*SRUN, *CNNBENCH))
    assert run.wait() == 0, run.err
    directory = RunDir(run_of(tmp_path))
    assert_same_run(directory, whole)
    assert json.loads(directory.result.read_text())["devices"] == 2


def test_another_number_of_processes_than_devices_is_told_in_one_line_by_each(tmp_path):
    run = Typed(tmp_path, *NET, program=(*SRUN, *CNNBENCH))
    assert run.wait() == 2
    said = "cnnbench: 2 processes were started, trainer.devices × trainer.num_nodes is 1; type trainer.devices=2"
    lines = [line for line in run.err.splitlines() if line.startswith("cnnbench")]
    assert set(lines) == {said}
    assert "Traceback" not in run.err
    assert not (tmp_path / "runs").exists()


@pytest.mark.parametrize("tasks", [1, 2])
def test_a_job_without_srun_trains_in_one_process(tasks, batch, tmp_path):
    job = batch(*CNNBENCH, *NET, tasks=tasks)
    assert job.wait() == 0, (tmp_path / "job.err").read_text()
    directory = RunDir(run_of(tmp_path))
    assert json.loads(directory.result.read_text())["devices"] == 1
    assert not (directory.path / "log_rank1.txt").exists()


def test_a_job_without_srun_trains_in_as_many_processes_as_it_has_devices(whole, batch, tmp_path):
    job = batch(*CNNBENCH, *NET, "trainer.devices=2", tasks=2)
    assert job.wait() == 0, (tmp_path / "job.err").read_text()
    assert_same_run(RunDir(run_of(tmp_path)), whole)


def test_sruns_processes_save_at_a_signal_and_go_on_to_the_same_bits(whole, batch, tmp_path):
    arguments = (*NET, "trainer.devices=2", "resume=auto")
    job = batch(*SRUN, *CNNBENCH, *arguments, tasks=2, wait="0.1")
    until(lambda: saved_in(tmp_path), "it saves")
    scancel("--signal", "USR1", job.number)
    assert job.wait() == 128 + signal.SIGUSR1
    directory = assert_interrupted(tmp_path, "SIGUSR1")
    again = batch(*SRUN, *CNNBENCH, *arguments, tasks=2)
    assert again.wait() == 0, (tmp_path / "job.err").read_text()
    assert_same_run(directory, whole)


@pytest.mark.parametrize("name", ["SIGTERM", "SIGUSR1"])
def test_ranks_of_ours_that_get_a_jobs_signal_twice_save_and_go_on_to_the_same_bits(name, whole, batch, tmp_path):
    """Slurm sends it to all processes of the job, the launcher passes it on."""
    arguments = (*NET, "trainer.devices=2", "resume=auto")
    job = batch(*CNNBENCH, *arguments, tasks=2, wait="0.1")
    until(lambda: saved_in(tmp_path), "it saves")
    scancel("--signal", name.removeprefix("SIG"), "--full", job.number)
    assert job.wait() == 128 + getattr(signal, name)
    directory = assert_interrupted(tmp_path, name)
    assert batch(*CNNBENCH, *arguments, tasks=2).wait() == 0
    assert_same_run(directory, whole)


def test_a_job_that_is_cancelled_has_saved(whole, batch, tmp_path):
    """scancel without more: SIGTERM, and half a minute later SIGKILL."""
    arguments = (*NET, "trainer.devices=2", "resume=auto")
    job = batch(*SRUN, *CNNBENCH, *arguments, tasks=2, wait="0.1")
    until(lambda: saved_in(tmp_path), "it saves")
    begun = time.monotonic()
    scancel(job.number)
    job.wait()
    assert time.monotonic() - begun < 25
    assert_interrupted(tmp_path, "SIGTERM")
    assert_same_run(forked(tmp_path, *arguments, ranks=2), whole)
