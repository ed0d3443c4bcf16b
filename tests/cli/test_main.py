"""The command line: output on the screen, exit codes, signals, and imports before the first error message."""

import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pexpect
import pytest

from cnnbench.__main__ import main

TINY = "threads=1 data=synthetic data.train_size=256 data.val_size=32 data.test_size=32 epochs=2".split()


def cnnbench(*arguments: str, cwd: Path, **environment: str) -> subprocess.CompletedProcess:
    """Runs the command in a new process."""
    return subprocess.run(
        [sys.executable, "-m", "cnnbench", *arguments],
        cwd=cwd,
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
    )


def test_a_run_prints_its_result_and_the_next_commands(tmp_path):
    done = cnnbench(*TINY, cwd=tmp_path)
    assert done.returncode == 0
    lines = done.stdout.splitlines()
    directory = lines[0]
    assert re.fullmatch(r"runs/lenet5_synthetic/seed0_[0-9a-f]{8}", directory)
    assert lines[1].startswith("epoch 1/2  loss ")
    assert lines[2].startswith("epoch 2/2  loss ")
    assert re.search(r"^test +0\.\d{4} +\d\.\d{4} +32 +0\.\d{4} to [01]\.\d{4}", done.stdout, re.M)
    for command in (
        f"python -m cnnbench evaluate {directory}",
        f"python -m cnnbench predict {directory} IMAGE",
        "tensorboard --logdir runs",
    ):
        assert command in done.stdout
    assert done.stderr == ""


@pytest.mark.slow
def test_a_mistake_found_after_the_imports_gets_one_line_and_leaves_no_file(tmp_path):
    failed = cnnbench(*TINY, "data.image_size=16", cwd=tmp_path)
    assert failed.returncode == 2
    assert failed.stdout == ""
    assert failed.stderr.count("\n") == 1
    assert failed.stderr.startswith("cnnbench: data.image_size=16: ")
    assert not list(tmp_path.iterdir())


@pytest.mark.slow
def test_hydra_full_error_shows_the_traceback(tmp_path):
    failed = cnnbench("epochs=-1", cwd=tmp_path, HYDRA_FULL_ERROR="1")
    assert failed.returncode == 2
    assert "Traceback" in failed.stderr
    assert "ConfigError: epochs=-1" in failed.stderr


@pytest.mark.parametrize(
    ("arguments", "line"),
    [
        (
            ["trian"],
            "cnnbench: trian: no such command; commands: plan, status, report, compare, reproduce, evaluate, predict, info, "
            "features, fetch, preview, ops, list, or key=value to train",
        ),
        (["evalute", "x"], "cnnbench: evalute: no such command; did you mean evaluate? commands: "),
        (["list", "modle"], "cnnbench: list modle: no such group; did you mean model? groups: "),
        (["--colour"], "cnnbench: --colour: no such flag; "),
        (["--config-dir"], "cnnbench: argument --config-dir: expected one argument; "),
        (["evaluate"], "cnnbench: the following arguments are required: RUN_DIR"),
    ],
)
def test_a_wrong_command_gets_one_line(arguments, line, capsys):
    assert main(arguments) == 2
    error = capsys.readouterr().err
    assert error.startswith(line)
    assert error.count("\n") == 1


@pytest.mark.slow
@pytest.mark.parametrize(
    ("number", "code"), [(signal.SIGINT, 130), pytest.param(signal.SIGTERM, 143, marks=pytest.mark.soak)]
)
def test_a_stopped_command_exits_with_the_signals_code_and_prints_the_resume_command(number, code, tmp_path):
    command = [sys.executable, "-m", "cnnbench", "threads=1", "epochs=500"]
    process = subprocess.Popen(command, cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    wait_for(tmp_path, "metrics.csv")
    process.send_signal(number)
    _, error = process.communicate(timeout=60)
    assert process.returncode == code
    directory = next((tmp_path / "runs").glob("*/*"))
    assert f"python -m cnnbench resume={directory.relative_to(tmp_path)}" in error
    assert error.count("\n") == 1
    assert '"interrupted"' in (directory / "status.json").read_text()


@pytest.mark.slow
def test_a_second_signal_stops_a_run_at_once(tmp_path):
    """During a step that hangs: the first signal waits for the end of the step, the second does not."""
    (tmp_path / "slow.py").write_text(
        "import time\nfrom cnnbench.models.lenet5 import LeNet5\nclass Slow(LeNet5):\n    def forward(self, x):\n"
        "        if self.training and x.device.type == 'cpu':\n            open('stepping', 'w').close(); time.sleep(600)\n"
        "        return super().forward(x)\n"
    )
    command = [
        sys.executable,
        "-m",
        "cnnbench",
        *TINY,
        "model=custom",
        "model._target_=slow.Slow",
        "data.image_size=32",
    ]
    process = subprocess.Popen(command, cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    wait_for(tmp_path, "stepping")
    process.send_signal(signal.SIGTERM)
    time.sleep(0.5)
    assert process.poll() is None
    process.send_signal(signal.SIGTERM)
    assert process.wait(timeout=10) == 143


def wait_for(folder: Path, name: str, seconds: float = 90) -> None:
    deadline = time.monotonic() + seconds
    while not list(folder.rglob(name)):
        assert time.monotonic() < deadline, f"no {name} within {seconds} s"
        time.sleep(0.05)


@pytest.mark.slow
def test_a_terminal_shows_a_bar_with_epoch_loss_accuracy_and_time_left(tmp_path):
    environment = {**os.environ, "TERM": "xterm", "COLUMNS": "120"}
    child = pexpect.spawn(
        sys.executable,
        ["-m", "cnnbench", "threads=1", "epochs=3"],
        cwd=str(tmp_path),
        env=environment,
        encoding="utf-8",
        dimensions=(24, 120),
    )
    child.expect(r"epoch 2/3.*?loss \d\.\d{4}.*?acc \d\.\d{4}.*?val acc \d\.\d{4}.*?left.*?\d:\d\d:\d\d", timeout=90)
    child.expect(r"95 % interval")
    child.expect(pexpect.EOF)
    child.close()
    assert child.exitstatus == 0
    assert "epoch 3/3" in next(tmp_path.glob("runs/*/*/log.txt")).read_text()


@pytest.mark.slow
def test_the_bar_is_gone_when_a_stopped_run_prints_the_resume_command(tmp_path):
    child = pexpect.spawn(
        sys.executable,
        ["-m", "cnnbench", "threads=1", "epochs=50"],
        cwd=str(tmp_path),
        env={**os.environ, "TERM": "xterm-256color"},
        encoding="utf-8",
        dimensions=(24, 120),
    )
    child.expect(r"epoch 2/50.*?loss", timeout=90)
    child.sendintr()
    child.expect(pexpect.EOF)
    child.close()
    shown = child.before
    assert child.exitstatus == 130
    assert "epoch" not in shown[shown.index("stopped by SIGINT") :]
    assert "\x1b[?25h" in shown  # the cursor is visible again
