"""Absurd values: numbers too large for a machine, names too long for a disk, and folders removed while a command runs."""

from __future__ import annotations

import shutil

import psutil
import pytest

from cnnbench.__main__ import main
from cnnbench.errors import ConfigError, shorten_words
from cnnbench.sweep.expand import expand_sweep
from cnnbench.training.checks import check_weights_fit
from processes import CommandProcess, wait_until
from small_nets import TINY

LONG = "n" * 5000


def refusal(capsys, *arguments: str) -> str:
    """The line of a command that is refused."""
    assert main(list(arguments)) == 2
    (line,) = capsys.readouterr().err.splitlines()
    return line


@pytest.mark.parametrize(
    ("typed", "message"),
    [
        (
            "threads=100000000000000000000000000",
            "threads=100000000000000000000000000: expected auto or an integer from 1 to 1024",
        ),
        ("threads=inf", "threads=inf: expected auto"),
        ("data.train_size=1000000000000", "data=synthetic: 1,000,000,000,0"),
        (
            "data.train_size=1000000000000000000000000000000",
            "data.train_size=1000000000000000000000000000000: expected a number",
        ),
        ("optimizer.betas=[]", "optimizer: Adam("),
        ("optimizer.betas=''", "optimizer.betas=: Adam refuses it"),
        ("optimizer=nesterov optimizer.nesterov=n", "optimizer.nesterov=n: SGD expects true or false"),
        ("data.fraction=1e-300", "data.fraction=1e-300: keeps none of "),
        ("data.num_classes=1000000000", "data.num_classes=1000000000: expected an integer at least 2, at most 100000"),
        ("data.channels=1000000000", "data.channels=1000000000: expected an integer at least 1, at most 1024"),
        ("model=notes_resnet model.blocks=[1000000000,1,1]", "model: NotesResNet("),
        ("model=vgg11 model.width=100000", "model: VGG has 280,903,685,798,400,"),
        ("model=vgg11 model.width=1e308", "model: VGG("),
        ("scheduler=step scheduler.every_epochs=1e308", "scheduler: step("),
        ("scheduler=cosine scheduler.warmup_epochs=1e308", "scheduler: cosine("),
        ("scheduler=multistep scheduler.milestones=[1e308]", "scheduler: multistep("),
        ("augment=notes augment.scale.side=1000000000", "data=synthetic: "),
    ],
)
def test_a_number_that_no_machine_can_take_is_one_line(typed, message, capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert refusal(capsys, *TINY, *typed.split()).startswith(f"cnnbench: {message}")
    assert not list(tmp_path.iterdir())


def test_more_devices_than_the_cores_can_run_are_refused_before_a_process_starts(capsys, monkeypatch):
    monkeypatch.setattr("cnnbench.runs.environment.usable_cores", lambda: 2)
    line = refusal(capsys, *TINY, "trainer.devices=17", "batch_size=17")
    assert line.endswith("this machine has 2 cores; type at most trainer.devices=16")


def test_weights_that_do_not_fit_in_memory_are_refused():
    check_weights_fit(10**6, "mypkg.MyNet")
    with pytest.raises(ConfigError, match=r"^model: MyNet has .* parameters, which take .* GB .*; type a smaller net$"):
        check_weights_fit(psutil.virtual_memory().total, "mypkg.MyNet")


@pytest.mark.parametrize(
    ("typed", "message"),
    [
        (
            "seed=range(1000000000000)",
            r"^seed=range\(1000000000000\): has 1,000,000,000,000 values; a sweep has at most 100,000 jobs",
        ),
        ("optimizer.lr=range(0,1,0.000000001)", "has 1,000,000,000 values; a sweep has at most 100,000 jobs"),
        ("optimizer.lr=range(1,2,0)", "expected a step other than 0"),
        ("sweep.seeds=1000000000000", "^1,000,000,000,000 combinations: a sweep has at most 100,000 jobs"),
        ("optimizer.lr=range(1,1000) model=lenet5,lenet seed=range(100)", "^199,800 combinations: a sweep has at most"),
        (
            "sweep.slots=1000000000000 seed=0,1",
            "^sweep.slots=1000000000000: expected auto or an integer from 1 to 1024",
        ),
    ],
)
def test_a_sweep_of_absurd_size_is_refused_before_its_jobs_are_listed(typed, message):
    with pytest.raises(ConfigError, match=message):
        expand_sweep(typed.split())


@pytest.mark.parametrize(
    "command",
    [
        f"name={LONG}", f"runs_dir={LONG}", f"data=imagefolder data.root={LONG}", f"data=mnist data.root={LONG}", f"resume={LONG}",
        f"report {LONG}", f"status {LONG}", f"evaluate {LONG}", f"compare {LONG} {LONG}", f"predict {LONG} x", f"reproduce {LONG}",
        f"preview --out {LONG}.png", f"--config-dir {LONG} list", f"ops --out {LONG}.png", f"model={LONG}", f"{LONG}=1",
        f"fetch --root {LONG} mnist", f"-m seed=0,1 runs_dir={LONG}", f"plan seed=0,1 runs_dir={LONG}",
    ],
)  # fmt: skip
def test_a_name_of_5000_letters_is_one_short_line(command, capsys, in_this_process):
    line = refusal(capsys, *command.split())
    assert "...(5,0" in line
    assert len(line) < 800


def test_only_long_words_of_a_message_are_shortened():
    assert shorten_words(f"{'n' * 400}: no such folder") == f"{'n' * 60}...(401 characters): no such folder"
    assert shorten_words("a b " * 500) == "a b " * 500


LASTING = [*TINY, "epochs=5000", "threads=1"]


@pytest.mark.slow
def test_a_run_whose_folder_is_removed_says_so_in_one_line(tmp_path):
    run = CommandProcess(tmp_path, *LASTING)
    wait_until(lambda: list(tmp_path.glob("runs/*/*/metrics.csv")), "an epoch")
    shutil.rmtree(tmp_path / "runs", ignore_errors=True)
    assert run.wait() == 3
    (line,) = run.err.splitlines()
    assert line.endswith("failed, its directory has been removed while it ran; the same command starts it anew")


@pytest.mark.slow
def test_a_sweep_whose_folder_is_removed_ends_in_one_line_and_leaves_no_process(tmp_path):
    sweep = CommandProcess(tmp_path, "-m", *LASTING, "seed=0,1,2", "sweep.slots=2")
    wait_until(lambda: list(tmp_path.glob("runs/*/*/metrics.csv")), "an epoch")
    shutil.rmtree(tmp_path / "runs", ignore_errors=True)
    assert sweep.wait() == 3
    (line,) = sweep.err.splitlines()
    assert "the folder has been removed while the sweep ran. To start it anew, type the same command again: " in line
    wait_until(lambda: not sweep.family(), "the end of its processes", seconds=30)


@pytest.mark.slow
def test_a_job_whose_folder_is_removed_before_it_starts_fails_alone(tmp_path):
    sweep = CommandProcess(tmp_path, "-m", *TINY, "threads=1", "epochs=30", "seed=0,1", "sweep.slots=1")
    wait_until(lambda: list(tmp_path.glob("runs/*/seed0*/metrics.csv")), "an epoch")
    shutil.rmtree(next(tmp_path.glob("runs/*/seed1*")))
    assert sweep.wait() == 3
    assert "its directory has been removed; the same command makes it anew" in sweep.out
    assert "1/2" in sweep.out
    assert "Traceback" not in sweep.out + sweep.err
