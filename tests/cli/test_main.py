"""The command line: output on the screen, exit codes, signals, and imports before the first error message."""

import os
import re
import signal
import subprocess
import sys
import time
from importlib import import_module
from pathlib import Path

import pexpect
import pytest

from cnnbench.__main__ import COMMANDS, FLAGS_WITH_VALUE, main, split_command
from cnnbench.cli.parser import Parser
from cnnbench.errors import ConfigError

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
        f"cnnbench evaluate {directory}",
        f"cnnbench predict {directory} IMAGE",
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
            "cnnbench: trian: no such command; commands: plan, status, report, compare, merge, clean, reproduce, evaluate, "
            "predict, info, features, fetch, preview, ops, list, or key=value to train",
        ),
        (["evalute", "x"], "cnnbench: evalute: no such command; did you mean evaluate? commands: "),
        (["list", "modle"], "cnnbench: list modle: no such group; did you mean model? groups: "),
        (["--colour"], "cnnbench: --colour: no such flag; "),
        (
            ["--config-dir", "conf", "report", "runs/x"],
            "cnnbench: --config-dir: no such flag; type cnnbench report --help",
        ),
        (["report", "--nosuch=3", "runs/x"], "cnnbench: --nosuch: no such flag; type cnnbench report --help"),
        (["--config-dir"], "cnnbench: argument --config-dir: expected one argument; "),
        (["evaluate"], "cnnbench: the following arguments are required: RUN_DIR"),
    ],
)
def test_a_wrong_command_gets_one_line(arguments, line, capsys):
    assert main(arguments) == 2
    error = capsys.readouterr().err
    assert error.startswith(line)
    assert error.count("\n") == 1


@pytest.mark.parametrize(
    ("arguments", "command", "others"),
    [
        ("info model=lenet5", "info", "model=lenet5"),
        ("--config-dir my info model=mine", "info", "--config-dir my model=mine"),
        ("--config-dir=my plan -m seed=0,1", "plan", "--config-dir=my -m seed=0,1"),
        ("--config-dir plan info", "info", "--config-dir plan"),
        ("--config-dir info", "", "--config-dir info"),
        ("--config-dir my -m seed=0,1", "", "--config-dir my -m seed=0,1"),
        ("--out report --text report report", "report", "--out report --text report"),
        ("-m seed=0,1 plan", "", "-m seed=0,1 plan"),
        ("", "", ""),
    ],
)
def test_flags_may_come_before_a_command_and_their_values_are_not_commands(arguments, command, others):
    assert split_command(arguments.split()) == (command, others.split())


def test_every_flag_with_a_value_is_known_before_a_command(monkeypatch):
    found = set()

    def stop_after_noting(parser, *_):
        found.update(flag for action in parser._actions for flag in action.option_strings if action.nargs != 0)
        raise ConfigError("stop")

    monkeypatch.setattr(Parser, "parse_args", stop_after_noting)
    for command in COMMANDS:
        with pytest.raises(ConfigError, match="stop"):
            import_module(f"cnnbench.cli.{command}").main([])
    assert found == set(FLAGS_WITH_VALUE)


def test_a_users_net_is_found_with_the_flag_before_the_command(tmp_path, capsys):
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "mynet.yaml").write_text("_target_: cnnbench.models.lenet5.LeNet5\n")
    for arguments in (["--config-dir", str(tmp_path), "list", "model"], [f"--config-dir={tmp_path}", "list", "model"]):
        assert main(arguments) == 0
        assert "  mynet " in capsys.readouterr().out


@pytest.mark.parametrize("arguments", ["list", "info", "plan seed=0,1", "-m seed=0,1", "seed=1"])
def test_an_absent_conf_folder_is_one_line_for_every_command(arguments, capsys):
    assert main(["--config-dir", "nowhere", *arguments.split()]) == 2
    assert capsys.readouterr().err == "cnnbench: --config-dir nowhere: no such folder\n"


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
    assert f"cnnbench resume={directory.relative_to(tmp_path)}" in error
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
