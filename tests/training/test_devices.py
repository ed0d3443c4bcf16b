"""One run on several CPU processes: it gives the numbers of one process, and all processes end together."""

from __future__ import annotations

import csv
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest
import torch

from cnnbench.distributed.ranks import rank_and_world_size
from cnnbench.runs.run_dir import RunDir
from processes import run_forked

BASE = [
    *("trainer=cpu", "threads=1", "epochs=2", "batch_size=60", "optimizer=sgd", "optimizer.lr=0.05", "data=mnist5k"),
    *("data.train_size=301", "data.val_size=[2000,2101]", "data.test_size=101"),
]
ENVIRONMENT = {name: value for name, value in os.environ.items() if name not in ("RANK", "LOCAL_RANK", "WORLD_SIZE")}


def command(*overrides: str, by: tuple[str, ...] = ("-m",)) -> list[str]:
    return [sys.executable, *by, "cnnbench", *BASE, *overrides]


def train(folder: Path, *overrides: str, by: tuple[str, ...] = ("-m",)) -> RunDir:
    """Trains in a child process and returns the run directory."""
    done = subprocess.run(
        command(f"runs_dir={folder}", *overrides, by=by), capture_output=True, text=True, env=ENVIRONMENT, check=False
    )
    assert done.returncode == 0, done.stderr
    (path,) = folder.glob("*/*")
    return RunDir(path)


def result(directory: RunDir) -> dict:
    return json.loads(directory.result.read_text())


def losses(directory: RunDir) -> list[float]:
    with directory.metrics.open() as file:
        return [float(row[name]) for row in csv.DictReader(file) for name in ("train/loss", "val/loss")]


@pytest.fixture(scope="module")
def on_two(tmp_path_factory) -> RunDir:
    return train(tmp_path_factory.mktemp("two"), "trainer.devices=2")


@pytest.fixture(scope="module")
def on_one(tmp_path_factory) -> RunDir:
    return train(tmp_path_factory.mktemp("one"))


@pytest.mark.slow
def test_two_processes_write_one_run_directory(tmp_path):
    directory = run_forked(tmp_path, *BASE, "trainer.devices=2", ranks=2)
    assert result(directory)["devices"] == 2
    assert directory.status().state == "done"
    assert (directory.path / "log_rank1.txt").is_file()


@pytest.mark.slow
def test_two_processes_give_the_losses_and_scores_of_one(on_one, on_two):
    assert losses(on_two) == pytest.approx(losses(on_one), rel=1e-5)
    one, two = result(on_one), result(on_two)
    assert two["metrics"] == pytest.approx(one["metrics"], rel=1e-5)
    assert (two["n"], two["split_hash"], two["config_hash"]) == (one["n"], one["split_hash"], one["config_hash"])


@pytest.mark.soak
def test_three_processes_give_the_losses_and_scores_of_one(on_one, tmp_path):
    on_three = train(tmp_path, "trainer.devices=3")
    assert losses(on_three) == pytest.approx(losses(on_one), rel=1e-5)
    assert result(on_three)["metrics"] == pytest.approx(result(on_one)["metrics"], rel=1e-5)


@pytest.mark.soak
def test_mixing_augmentation_and_accumulation_do_not_depend_on_the_number_of_processes(tmp_path):
    keys = ("mixup=0.4", "cutmix=1", "augment=crop", "accumulate=2", "label_smoothing=0.1", "clip_grad=1")
    one, two = (train(tmp_path / str(n), f"trainer.devices={n}", *keys) for n in (1, 2))
    assert losses(two) == pytest.approx(losses(one), rel=1e-5)


@pytest.mark.slow
def test_processes_started_by_torchrun_give_the_same_weights(on_two, tmp_path):
    started = train(tmp_path, "trainer.devices=2", by=("-m", "torch.distributed.run", "--nproc-per-node", "2", "-m"))
    ours, theirs = (torch.load(run.last, weights_only=True)["state_dict"] for run in (on_two, started))
    assert all(torch.equal(ours[name], theirs[name]) for name in ours)


@pytest.mark.parametrize(
    ("number", "code"),
    [
        pytest.param(signal.SIGTERM, 143, marks=pytest.mark.soak),
        pytest.param(signal.SIGINT, 130, marks=pytest.mark.soak),
        pytest.param(signal.SIGKILL, -9, marks=pytest.mark.soak),
    ],
)
def test_a_signal_to_the_launcher_stops_all_ranks_and_the_resumed_run_has_equal_weights(number, code, tmp_path):
    keys = ("trainer.devices=2", "model=alexnet", "data.image_size=63", "augment=crop", "epochs=3")  # uses dropout
    whole = train(tmp_path / "whole", *keys)
    launcher = subprocess.Popen(
        command(f"runs_dir={tmp_path}/stopped", *keys),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        env=ENVIRONMENT,
    )
    while not list(tmp_path.glob("stopped/*/*/metrics.csv")):
        assert launcher.poll() is None
        time.sleep(0.05)
    family = psutil.Process(launcher.pid).children(recursive=True)
    launcher.send_signal(number)
    output, _ = launcher.communicate(timeout=60)
    assert launcher.returncode == code
    assert not psutil.wait_procs(family, timeout=30)[1]
    (path,) = (tmp_path / "stopped").glob("*/*")
    assert RunDir(path).status().state == "interrupted"
    assert output.count(f"resume={path}") == 1
    resumed = train(tmp_path / "stopped", *keys, "resume=auto")
    ours, theirs = (torch.load(run.last, weights_only=True)["state_dict"] for run in (whole, resumed))
    assert all(torch.equal(ours[name], theirs[name]) for name in ours)
    assert result(resumed)["metrics"] == result(whole)["metrics"]


@pytest.mark.soak
@pytest.mark.parametrize("rank", [0, 1])
def test_when_a_rank_is_killed_the_others_end_and_the_run_fails(rank, tmp_path):
    launcher = subprocess.Popen(
        command(f"runs_dir={tmp_path}", "trainer.devices=2", "epochs=500"), stderr=subprocess.PIPE, text=True, env=ENVIRONMENT,
        stdout=subprocess.DEVNULL,
    )  # fmt: skip
    while not list(tmp_path.glob("*/*/metrics.csv")):
        assert launcher.poll() is None
        time.sleep(0.05)
    family = psutil.Process(launcher.pid).children(recursive=True)
    _guard, *ranks = sorted((child for child in family if child.ppid() != launcher.pid), key=lambda child: child.pid)
    ranks[rank].kill()
    _, error = launcher.communicate(timeout=60)
    assert launcher.returncode == 3
    assert "a rank was ended by SIGKILL" in error
    assert not psutil.wait_procs(family, timeout=30)[1]
    (path,) = tmp_path.glob("*/*")
    assert RunDir(path).status().state == "failed"


def test_several_nodes_are_refused_with_the_torchrun_command(tmp_path):
    done = subprocess.run(
        command("trainer.num_nodes=2", f"runs_dir={tmp_path}"),
        capture_output=True,
        text=True,
        env=ENVIRONMENT,
        check=False,
    )
    assert done.returncode == 2
    assert "torchrun --nnodes 2 --nproc-per-node 1" in done.stderr
    assert not list(tmp_path.iterdir())


def test_only_a_slurm_step_sets_rank_and_world_size_not_an_allocation(monkeypatch):
    for name in ("RANK", "LOCAL_RANK", "WORLD_SIZE", "SLURM_STEP_ID"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("SLURM_NTASKS", "4")
    assert rank_and_world_size() == (0, 1)
    monkeypatch.setenv("SLURM_STEP_ID", "0")
    monkeypatch.setenv("SLURM_PROCID", "3")
    assert rank_and_world_size() == (3, 4)
