"""A run that was stopped or killed, and resumed, ends with the same bits and files as an uninterrupted one."""

import csv
import json
import os
import signal
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest
import torch
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from cnnbench.__main__ import main
from cnnbench.config.compose import compose
from cnnbench.errors import ConfigError, Interrupted, RunFailed
from cnnbench.runs.run_dir import RunDir
from cnnbench.training.callbacks.curves import Curves
from cnnbench.training.run import run
from nets import Signalled

# 640 images make 10 steps an epoch; 3 epochs; best and last differ; dropout draws random numbers
NET = [
    "threads=1",
    "model=custom",
    "model._target_=nets.Signalled",
    "data.image_size=32",
    "epochs=3",
    "data.train_size=640",
]
NET += [
    "data=synthetic",
    "data.val_size=100",
    "data.test_size=100",
    "optimizer=momentum",
    "trainer.checkpoint_every_s=0.0001",
]


def train(runs: Path, *overrides: str):
    return run(compose([*NET, f"runs_dir={runs}", *overrides]))


@pytest.fixture(scope="module")
def uninterrupted(tmp_path_factory) -> RunDir:
    return train(tmp_path_factory.mktemp("uninterrupted")).directory


@pytest.fixture
def signalled(monkeypatch):
    """Makes the net send a signal at a training step."""

    def at(step: int, name: str) -> None:
        monkeypatch.setattr(Signalled, "steps", 0)
        monkeypatch.setenv("NETS_STEP", str(step))
        monkeypatch.setenv("NETS_SIGNAL", name)

    at(0, "SIGTERM")
    return at


def assert_same(one: RunDir, other: RunDir) -> None:
    """Asserts that weights, metrics, results and TensorBoard's points are equal to the bit, times and rates excluded."""
    assert one.best_ema.exists() == other.best_ema.exists()
    for name in ("best", "last", *["best_ema"] * one.best_ema.exists()):
        states = [torch.load(getattr(directory, name), weights_only=True)["state_dict"] for directory in (one, other)]
        assert all(torch.equal(states[0][key], states[1][key]) for key in states[0]), name
    results = [json.loads(directory.result.read_text()) for directory in (one, other)]
    for key in results[0].keys() - {"time", "samples_per_s", "command"}:
        assert results[0][key] == results[1][key], key
    rows = [[row[:9] for row in csv.reader(directory.metrics.open())] for directory in (one, other)]
    assert rows[0] == rows[1]
    assert points(one) == points(other)


def points(directory: RunDir) -> dict:
    events = EventAccumulator(str(directory.path))
    events.Reload()
    return {
        tag: [(e.step, e.value) for e in events.Scalars(tag)]
        for tag in events.Tags()["scalars"]
        if tag != "samples_per_s"
    }


@pytest.mark.parametrize(
    ("step", "name", "code"),
    [
        (14, "SIGINT", 130),
        pytest.param(20, "SIGTERM", 143, marks=pytest.mark.slow),
        pytest.param(3, "SIGUSR1", 128 + signal.SIGUSR1, marks=pytest.mark.slow),
    ],
)
def test_a_signal_saves_and_the_resumed_run_has_the_same_bits(step, name, code, tmp_path, signalled, uninterrupted):
    signalled(step, name)
    with pytest.raises(Interrupted, match=r"saved. To resume: cnnbench resume=") as raised:
        train(tmp_path)
    directory = RunDir(next(tmp_path.glob("*/*")))
    assert raised.value.exit_code == code
    assert directory.status().state == "interrupted"
    assert not directory.result.exists()
    assert torch.load(directory.last, weights_only=True)["global_step"] == step
    signalled(0, name)
    assert train(tmp_path, "resume=auto").directory == directory
    assert_same(directory, uninterrupted)


@pytest.mark.slow
@pytest.mark.parametrize("step", [14, 13])
def test_a_stop_around_a_validation_in_mid_epoch_does_not_lose_it(step, tmp_path, signalled):
    every = "trainer.val_every_steps=7"  # validates after steps 7, 14, 21, 28 and 30
    whole = train(tmp_path / "whole", every).directory
    signalled(step, "SIGTERM")
    with pytest.raises(Interrupted):
        train(tmp_path / "stopped", every)
    signalled(0, "SIGTERM")
    directory = train(tmp_path / "stopped", every, "resume=auto").directory
    assert_same(directory, whole)
    history = torch.load(directory.last, weights_only=True)["callbacks"]["History"]
    assert [record["step"] for record in history["validations"]] == [7, 14, 21, 28, 30]


@pytest.mark.slow
@pytest.mark.parametrize("augment", ["notes", "[crop,rotate,light,erase]"])
def test_a_resumed_run_continues_with_the_next_augmented_batch(augment, tmp_path, signalled):
    keys = (f"augment={augment}", "data.label_noise=0.1")
    whole = train(tmp_path / "whole", *keys).directory
    signalled(14, "SIGTERM")
    with pytest.raises(Interrupted):
        train(tmp_path / "stopped", *keys)
    signalled(0, "SIGTERM")
    assert_same(train(tmp_path / "stopped", *keys, "resume=auto").directory, whole)


def test_a_run_resumes_from_its_directory_alone(tmp_path, signalled, uninterrupted, capsys):
    signalled(14, "SIGTERM")
    with pytest.raises(Interrupted):
        train(tmp_path)
    directory = RunDir(next(tmp_path.glob("*/*")))
    frozen = directory.config.read_text()
    signalled(0, "SIGTERM")
    assert main([f"resume={directory.path}", "--trust"]) == 0
    assert_same(directory, uninterrupted)
    assert directory.config.read_text() == frozen


@pytest.mark.slow
@pytest.mark.parametrize(
    "step", [pytest.param(2, marks=pytest.mark.soak), 14, pytest.param(20, marks=pytest.mark.soak)]
)
def test_a_run_that_is_killed_and_resumed_ends_with_the_same_bits(step, tmp_path, uninterrupted):
    environment = {
        **os.environ,
        "NETS_STEP": str(step),
        "NETS_SIGNAL": "SIGKILL",
        "PYTHONPATH": str(Path(__file__).parents[1]),
    }
    killed = subprocess.run(
        [sys.executable, "-m", "cnnbench", *NET, f"runs_dir={tmp_path}"], env=environment, capture_output=True
    )
    assert killed.returncode == -signal.SIGKILL
    directory = RunDir(next(tmp_path.glob("*/*")))
    assert directory.status().state == "running"
    assert directory.owner() is None
    assert train(tmp_path, "resume=auto").directory == directory
    assert_same(directory, uninterrupted)


def test_checkpoints_are_written_in_their_folder_only(tmp_path, monkeypatch):
    places = []

    def saved(content, file, *args, **kwargs):
        places.append(Path(file.name))
        save(content, file, *args, **kwargs)

    save = torch.save
    monkeypatch.setattr(torch, "save", saved)
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "absent"))  # writing there fails
    directory = train(tmp_path / "runs", "epochs=1").directory
    assert {place.parent for place in places} == {directory.last.parent}
    assert {place.name.rsplit(".", 3)[0] for place in places} == {".best.ckpt", ".last.ckpt"}  # .<name>.<ids>.tmp


@pytest.mark.slow
def test_a_run_that_ended_after_training_is_only_tested_again(tmp_path, uninterrupted, monkeypatch):
    def fails(*_):
        raise OSError("No space left on device")

    with monkeypatch.context() as patched:
        patched.setattr("cnnbench.training.run.save_predictions", fails)
        with pytest.raises(RunFailed, match="No space left"):
            train(tmp_path)
    directory = RunDir(next(tmp_path.glob("*/*")))
    trained = directory.last.stat().st_mtime_ns
    train(tmp_path, "resume=auto")
    assert_same(directory, uninterrupted)
    assert directory.last.stat().st_mtime_ns == trained


@pytest.mark.slow
def test_resume_auto_without_an_earlier_run_starts_one(tmp_path, uninterrupted):
    assert_same(train(tmp_path, "resume=auto").directory, uninterrupted)


def test_resume_auto_of_a_finished_run_writes_nothing(uninterrupted, capsys):
    before = {path: path.stat().st_mtime_ns for path in uninterrupted.path.parent.rglob("*")}
    assert main([*NET, f"runs_dir={uninterrupted.path.parents[1]}", "resume=auto"]) == 0
    assert "is done already" in capsys.readouterr().out
    assert {path: path.stat().st_mtime_ns for path in uninterrupted.path.parent.rglob("*")} == before


def test_resume_of_a_finished_directory_writes_nothing(uninterrupted, capsys):
    before = {path: path.stat().st_mtime_ns for path in uninterrupted.path.rglob("*")}
    assert main([f"resume={uninterrupted.path}"]) == 0
    assert "is done already" in capsys.readouterr().out
    assert {path: path.stat().st_mtime_ns for path in uninterrupted.path.rglob("*")} == before


@pytest.mark.parametrize(("content", "auto"), [('{"a": ', True), ("[]", False), ("{}", True), ("", False)])
def test_a_damaged_result_is_reported_with_the_command_that_replaces_it(content, auto, copied, quick, capsys):
    before = copied.result.read_text()
    folder = copied.path.parent / "runs" / "lenet5_mnist5k"
    folder.mkdir(parents=True)
    directory = RunDir(copied.path.rename(folder / copied.path.name))
    directory.result.write_text(content)
    arguments = [*quick, f"runs_dir={folder.parent}", "resume=auto"] if auto else [f"resume={directory.path}"]
    assert main(arguments) == 2
    error = capsys.readouterr().err
    typed = f"cnnbench resume={directory.path}"
    assert error == (
        f"cnnbench: {directory.result}: damaged, expected the result of a run; remove it, and {typed} tests the net again\n"
    )
    if content:
        return
    directory.result.unlink()
    assert main([f"resume={directory.path}"]) == 0
    assert json.loads(directory.result.read_text())["metrics"] == json.loads(before)["metrics"]


@pytest.mark.slow
def test_a_live_run_is_not_resumed(tmp_path, signalled):
    signalled(14, "SIGTERM")
    with pytest.raises(Interrupted):
        train(tmp_path)
    directory = RunDir(next(tmp_path.glob("*/*")))
    directory.write_status("running")  # by this process, which lives
    with pytest.raises(ConfigError, match=rf"this run is live \(pid {os.getpid()} on "):
        train(tmp_path, "resume=auto")


def test_a_resumed_directory_takes_no_other_keys(uninterrupted):
    assert main([f"resume={uninterrupted.path}", "epochs=5"]) == 2


def test_a_directory_without_a_run_is_refused(tmp_path, capsys):
    assert main([f"resume={tmp_path}"]) == 2
    assert f"{tmp_path}: not a run directory" in capsys.readouterr().err


@pytest.mark.slow
def test_without_resume_a_second_directory_is_made(tmp_path, signalled):
    signalled(14, "SIGTERM")
    with pytest.raises(Interrupted):
        train(tmp_path)
    signalled(0, "SIGTERM")
    first = next(tmp_path.glob("*/*"))
    second = train(tmp_path).directory
    assert second.path.name == f"{first.name}-2"
    assert RunDir(first).status().state == "interrupted"


# ---- every option of training ----------------------------------------------------------------------------------------

# five batches of 32 images an epoch, three epochs; batch norm and dropout
SMALL = (
    "threads=1 trainer=cpu epochs=3 batch_size=32 data=synthetic data.image_size=8 data.train_size=160 data.val_size=60"
)
SMALL += " data.test_size=40 data.noise=0.4 model=custom model._target_=small_nets.Small"

OPTIMIZERS = [
    "optimizer=sgd",
    "optimizer=momentum optimizer.weight_decay=0.01 optimizer.decay=weights",
    "optimizer=nesterov optimizer.weight_decay=0.01",
    "optimizer=adam",
    "optimizer=adamw optimizer.decay=weights",
    "optimizer=rmsprop optimizer.momentum=0.9",
]
SCHEDULERS = [
    "scheduler=constant scheduler.warmup_epochs=1.5",
    "scheduler=step scheduler.every_epochs=1.3 scheduler.warmup_epochs=1",
    "scheduler=multistep scheduler.milestones=[1,1.5] scheduler.warmup_epochs=0.5",
    "scheduler=cosine scheduler.warmup_epochs=1.5 scheduler.final_lr=0.0001",
    "scheduler=onecycle scheduler.warmup_epochs=1.6 optimizer=momentum",
    "scheduler=onecycle optimizer=adam",
    "scheduler=plateau scheduler.patience=0 scheduler.threshold=0.5 scheduler.warmup_epochs=1 trainer.val_every_steps=3",
]
MIXED = "augment=basic mixup=0.4 cutmix=0.6 label_smoothing=0.1 ema=0.9"
IN_PARTS = "accumulate=4 clip_grad=0.5 trainer.val_every_steps=3"
STOPPING = "early_stopping=2 trainer.val_every_steps=2 optimizer=sgd optimizer.lr=0.5"
HEADS = "+model.heads=true"
ALL = f"{MIXED} {IN_PARTS} {HEADS} {OPTIMIZERS[2]} scheduler=plateau scheduler.patience=0 scheduler.warmup_epochs=1"


def slow(*cases):
    return [pytest.param(*case, marks=pytest.mark.slow) for case in cases]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("keys", "step"),
    [
        (f"{MIXED} optimizer=adamw optimizer.decay=weights scheduler=onecycle", 8),
        (f"{IN_PARTS} {HEADS} optimizer=nesterov", 7),
        (f"{STOPPING} scheduler=plateau scheduler.patience=0 scheduler.warmup_epochs=1", 4),
        *slow(*((keys, 7) for keys in [*OPTIMIZERS, *SCHEDULERS, HEADS])),
        *slow((SCHEDULERS[-1], 2), (SCHEDULERS[-1], 10), (MIXED, 3), (MIXED, 10), (IN_PARTS, 6), (IN_PARTS, 11)),
        *slow((STOPPING, 1), (STOPPING, 4), (STOPPING, 6), (ALL, 4), (ALL, 9), (ALL, 14)),
    ],
)
def test_a_stopped_and_resumed_run_with_any_option_has_the_same_bits(keys, step, tmp_path, signalled, monkeypatch):
    parts = 4 if "accumulate=4" in keys else 1
    config = compose([*SMALL.split(), *keys.split()])
    monkeypatch.setattr(Curves, "draw", lambda self: None)  # would take most of the time

    def train_in(folder: str, resume: str = "never"):
        return run(config.model_copy(update={"runs_dir": str(tmp_path / folder), "resume": resume}))

    whole = train_in("whole")
    signalled((step - 1) * parts + 1, "SIGTERM")
    with pytest.raises(Interrupted):
        train_in("stopped")
    directory = RunDir(next((tmp_path / "stopped").glob("*/*")))
    assert torch.load(directory.last, weights_only=True)["global_step"] in (step, step + 1)  # not before a validation
    signalled(0, "SIGTERM")
    resumed = train_in("stopped", "auto")
    assert resumed.directory == directory
    assert_same(directory, whole.directory)
    for at in points(directory).values():
        assert len({step for step, _ in at}) == len(at)
    ended = torch.load(directory.last, weights_only=True)["global_step"]
    assert ended < 15 if STOPPING in keys else ended == 15
