"""A run resumes only from its own checkpoint with matching best weights; else it starts from the beginning, and ends with the same bits."""

from __future__ import annotations

import io
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from rich.console import Console
from torch import nn

from cnnbench.config.compose import compose
from cnnbench.errors import ConfigError, Interrupted, RunFailed
from cnnbench.runs.run_dir import RunDir
from cnnbench.training.callbacks.checkpoints import Checkpoints
from cnnbench.training.callbacks.curves import Curves
from cnnbench.training.run import run
from processes import assert_same_run, copy_of, only_run_in
from small_nets import Signalled

# 3 steps an epoch, 3 epochs, validations after each; averaged weights
KEYS = (
    "threads=1 trainer=cpu epochs=3 batch_size=32 data=synthetic data.image_size=8 data.train_size=96 data.val_size=60"
)
KEYS += (
    " data.test_size=40 data.noise=0.1 model=custom model._target_=small_nets.Small ema=0.5 optimizer.lr=0.03 seed=2"
)
FROM_THE_BEGINNING = "no checkpoint to resume from; starts from the beginning"


def train(folder: Path, *more: str) -> tuple[RunDir, str]:
    """Trains in a folder; returns the run directory and the output."""
    screen = io.StringIO()
    with pytest.MonkeyPatch.context() as patched:
        patched.chdir(folder)
        outcome = run(compose([*KEYS.split(), *more]), console=Console(file=screen, width=1000))
    return RunDir(folder / outcome.directory.path), screen.getvalue()


@pytest.fixture(autouse=True)
def no_curves(monkeypatch):
    monkeypatch.setattr(Curves, "draw", lambda self: None)  # would take most of the time


def stopped_run(folder: Path, at: int, *more: str) -> RunDir:
    """Returns a run stopped after step `at`: last.ckpt is of that step, previous.ckpt of the end of the epoch before."""
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(Signalled, "steps", 0)
        patched.setenv("NETS_STEP", str(at))
        patched.setenv("NETS_SIGNAL", "SIGTERM")
        with pytest.raises(Interrupted):
            train(folder, *more)
    return RunDir(only_run_in(folder))


@pytest.fixture(scope="module")
def whole(tmp_path_factory) -> RunDir:
    """The uninterrupted run."""
    return train(tmp_path_factory.mktemp("whole"))[0]


@pytest.fixture(scope="module")
def begun(tmp_path_factory) -> RunDir:
    """The same run, stopped in its second epoch; its best validation is that after step 3."""
    return stopped_run(tmp_path_factory.mktemp("begun"), 5)


@pytest.fixture
def stopped(begun, tmp_path) -> RunDir:
    return copy_of(begun, tmp_path)


def resume(directory: RunDir) -> str:
    """Resumes a run to its end; returns the output."""
    same, output = train(directory.path.parents[2], "resume=auto")
    assert same == directory
    return output


def edit(path: Path, change: Callable[[dict], object]) -> None:
    content = torch.load(path, weights_only=True)
    change(content)
    torch.save(content, path)


# ---- best weights ------------------------------------------------------------------------------------------------


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-100])


def of_another_validation(path: Path) -> None:
    edit(path, lambda content: content.update(step=2, epoch=0.666667))


def of_another_accuracy(path: Path) -> None:
    edit(path, lambda content: content.update({"val/acc": content["val/acc"] + 0.01}))


def of_another_run(path: Path) -> None:
    edit(path, lambda content: content["config"].update(seed=1))


def of_another_net(path: Path) -> None:
    edit(path, lambda content: content["state_dict"].pop("linear.bias"))


@pytest.mark.slow
@pytest.mark.parametrize("name", ["best", "best_ema"])
@pytest.mark.parametrize(
    "spoil", [Path.unlink, cut, of_another_validation, of_another_accuracy, of_another_run, of_another_net]
)
def test_without_its_best_weights_a_run_starts_anew_and_ends_with_the_same_bits(spoil, name, stopped, whole):
    spoil(getattr(stopped, name))
    output = resume(stopped)
    for path in ("last", "previous"):
        line = f"checkpoints/{path}.ckpt: does not match {name}.ckpt, not used\n"
        assert (output.count(line), stopped.log.read_text().count(line)) == (1, 1)
    assert output.count(f"{stopped.path.name}: {FROM_THE_BEGINNING}\n") == 1
    assert_same_run(stopped, whole)


def test_a_run_resumes_from_the_previous_checkpoint_if_that_matches_the_best_weights(stopped, whole):
    def another_best(content: dict) -> None:
        history = content["callbacks"]["History"]
        history["validations"].append({**history["validations"][0], "step": 4, "val/acc": 0.99})
        history["best"] = [1, history["best"][1]]

    edit(stopped.last, another_best)
    output = resume(stopped)
    assert output.count("does not match best.ckpt, not used") == 1
    assert "epoch 1/3" not in output
    assert_same_run(stopped, whole)


def test_best_weights_that_are_newer_than_the_checkpoint_are_accepted(stopped, whole):
    """The run may have been killed between the validation and the next save."""
    assert torch.load(whole.best, weights_only=True)["step"] > 5
    shutil.copy(whole.best, stopped.best)
    assert "not used" not in resume(stopped)
    assert_same_run(stopped, whole)


def test_a_fully_trained_run_without_its_best_weights_starts_anew(whole, tmp_path):
    directory = copy_of(whole, tmp_path)
    directory.result.unlink()
    directory.best.unlink()
    assert FROM_THE_BEGINNING in resume(directory)
    assert_same_run(directory, whole)


# ---- checkpoints of something else ----------------------------------------------------------------------------------


def of_plain_pytorch(path: Path) -> None:
    torch.save(nn.Linear(2, 2).state_dict(), path)


def of_an_older_form(path: Path) -> None:
    edit(path, lambda content: content["callbacks"].pop("History"))


def of_a_list(path: Path) -> None:
    torch.save([1, 2], path)


def for_another_seed(path: Path) -> None:
    edit(path, lambda content: content["callbacks"]["Checkpoints"].update(identity="0" * 64))


def for_another_net(path: Path) -> None:
    edit(path, lambda content: content["state_dict"].update({"net.linear.bias": torch.zeros(7)}))


FOREIGN = [of_plain_pytorch, of_an_older_form, for_another_seed, for_another_net, of_a_list]


@pytest.mark.parametrize(
    "spoil",
    [
        spoil if spoil in (for_another_seed, for_another_net) else pytest.param(spoil, marks=pytest.mark.slow)
        for spoil in FOREIGN
    ],
)
def test_a_foreign_checkpoint_is_not_used_and_the_previous_one_gives_the_same_bits(spoil, stopped, whole):
    spoil(stopped.last)
    output = resume(stopped)
    assert output.count("checkpoints/last.ckpt: ") == 1
    assert output.count("not used") == 1
    assert "epoch 1/3" not in output
    assert_same_run(stopped, whole)


def test_a_run_without_its_checkpoint_folder_starts_anew(stopped, whole):
    shutil.rmtree(stopped.last.parent)
    assert "epoch 1/3" in resume(stopped)
    assert_same_run(stopped, whole)


# ---- two processes ---------------------------------------------------------------------------------------------------------


def test_of_two_processes_that_resume_a_run_at_once_one_is_refused(stopped, whole, monkeypatch):
    """The second process starts after the first has read the status and before it has written its own."""

    def start_a_second(self, state, *more, **progress):
        if state == "running" and not met:
            met.append("")
            with pytest.raises(ConfigError) as raised:
                resume(stopped)
            met[0] = str(raised.value)
        write(self, state, *more, **progress)

    met, write = [], RunDir.write_status
    monkeypatch.setattr(RunDir, "write_status", start_a_second)
    resume(stopped)
    assert "this run is live (another process, which holds its lock); wait for it" in met[0]
    assert_same_run(stopped, whole)


# ---- the tested weights -------------------------------------------------------------------------------------------------


def test_only_the_best_weights_of_the_record_are_tested(tmp_path, monkeypatch):
    def save_another(self, path, net, record):
        saved(self, path, net, replace(record, val_loss=record.val_loss / 2))

    saved = Checkpoints._save_net
    monkeypatch.setattr(Checkpoints, "_save_net", save_another)
    monkeypatch.setattr("cnnbench.training.run.Trainer.test", None)
    with pytest.raises(RunFailed, match=r"failed, best\.ckpt does not hold the weights of the best validation, aft"):
        train(tmp_path)
    assert RunDir(only_run_in(tmp_path)).status().state == "failed"
