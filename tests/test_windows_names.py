"""Without the names that Python lacks on Windows: a run, the report, and a sweep with one job at a time."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from processes import CommandProcess, wait_until
from small_nets import TINY

NAMES = str(Path(__file__).parent / "windows_names")
ONE_AT_A_TIME = "this system cannot start several jobs from one process: they run one at a time"


def started(folder: Path, *arguments: str) -> CommandProcess:
    return CommandProcess(folder, *arguments, PYTHONPATH=NAMES)


def test_the_names_are_absent_in_a_process_and_in_those_that_it_starts():
    inner = "import os, signal; print(hasattr(os, 'pwrite'), hasattr(signal, 'pthread_sigmask'), hasattr(signal, 'SIGKILL'))"
    outer = f"import subprocess, sys; subprocess.run([sys.executable, '-c', {inner!r}])"
    done = subprocess.run(
        [sys.executable, "-c", outer], env={**os.environ, "PYTHONPATH": NAMES}, capture_output=True, text=True
    )
    assert done.stdout == "False False False\n"


@pytest.mark.parametrize("arguments", [["list", "model"], ["status", "nowhere"], ["report", "nowhere"], ["epochs=0"]])
def test_a_command_without_torch_starts(arguments, tmp_path):
    command = started(tmp_path, *arguments)
    assert command.wait() in (0, 2)
    assert "Traceback" not in command.err


@pytest.mark.slow
def test_a_run_and_its_report_work(tmp_path):
    run = started(tmp_path, *TINY, "threads=1", "trainer=cpu")
    assert (run.wait(), run.err) == (0, "")
    report = started(tmp_path, "report", "runs/lenet5_synthetic")
    assert (report.wait(), report.err) == (0, "")
    assert (tmp_path / "runs/lenet5_synthetic/report.html").is_file()


@pytest.mark.slow
def test_a_sweep_runs_one_job_at_a_time_and_says_so(tmp_path):
    sweep = started(tmp_path, "-m", *TINY, "threads=1", "seed=0,1", "sweep.slots=2")
    assert (sweep.wait(), sweep.err) == (0, "")
    lines = sweep.out.splitlines()
    assert "2 to run, 1 at a time" in lines[0]
    assert lines[1] == ONE_AT_A_TIME
    assert [line.split()[1] for line in lines if line.startswith("[")] == ["running", "done", "running", "done"]


@pytest.mark.slow
@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGKILL, -signal.SIGKILL)])
def test_a_job_of_a_stopped_launcher_saves_and_exits(number, code, tmp_path):
    sweep = started(tmp_path, "-m", *TINY, "threads=1", "epochs=5000", "seed=0,1")
    wait_until(lambda: list(tmp_path.glob("runs/*/*/metrics.csv")), "an epoch")
    os.kill(sweep.process.pid, number)
    assert sweep.wait() == code
    wait_until(
        lambda: not [each for each in sweep.family() if "spawn_main" in " ".join(each.cmdline())], "the job's end"
    )
    (status,) = tmp_path.glob("runs/*/seed0*/status.json")
    assert json.loads(status.read_text())["state"] == "interrupted"
