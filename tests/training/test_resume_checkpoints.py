"""What a run goes on from: its own checkpoint, with the best weights that this one tells of; else it begins anew, and ends all the same."""

from __future__ import annotations

import io
import shutil
from collections.abc import Callable
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
from processes import assert_same_run, copy_of, run_of
from small_nets import Signalled

# 3 steps an epoch, 3 epochs, validations after each; averaged weights
KEYS = (
    "threads=1 trainer=cpu epochs=3 batch_size=32 data=synthetic data.image_size=8 data.train_size=96 data.val_size=60"
)
KEYS += (
    " data.test_size=40 data.noise=0.1 model=custom model._target_=small_nets.Small ema=0.5 optimizer.lr=0.03 seed=2"
)
ANEW = "has no checkpoint to go on from; begins anew"


def train(folder: Path, *more: str) -> tuple[RunDir, str]:
    """The directory of a run in a folder, and what it said on the screen."""
    screen = io.StringIO()
    with pytest.MonkeyPatch.context() as patched:
        patched.chdir(folder)
        outcome = run(compose([*KEYS.split(), *more]), console=Console(file=screen, width=1000))
    return RunDir(folder / outcome.directory.path), screen.getvalue()


@pytest.fixture(autouse=True)
def no_curves(monkeypatch):
    monkeypatch.setattr(Curves, "draw", lambda self: None)  # would take most of the time


def stopped_run(folder: Path, at: int, *more: str) -> RunDir:
    """A run that was stopped after a step: last.ckpt is from then, previous.ckpt from the end of the epoch before."""
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(Signalled, "steps", 0)
        patched.setenv("NETS_STEP", str(at))
        patched.setenv("NETS_SIGNAL", "SIGTERM")
        with pytest.raises(Interrupted):
            train(folder, *more)
    return RunDir(run_of(folder))


@pytest.fixture(scope="module")
def whole(tmp_path_factory) -> RunDir:
    """The run that nothing happened to."""
    return train(tmp_path_factory.mktemp("whole"))[0]


@pytest.fixture(scope="module")
def begun(tmp_path_factory) -> RunDir:
    """The same, stopped in its second epoch; its best validation is that after step 3."""
    return stopped_run(tmp_path_factory.mktemp("begun"), 5)


@pytest.fixture
def stopped(begun, tmp_path) -> RunDir:
    return copy_of(begun, tmp_path)


def go_on(directory: RunDir) -> str:
    """What it says on the way to its end."""
    same, said = train(directory.path.parents[2], "resume=auto")
    assert same == directory
    return said


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
def test_without_the_best_weights_a_run_begins_anew_at_once_says_so_and_ends_with_the_same_bits(
    spoil, name, stopped, whole
):
    spoil(getattr(stopped, name))
    said = go_on(stopped)
    for path in ("last", "previous"):
        line = f"checkpoints/{path}.ckpt: goes with another {name}.ckpt than there is, and left aside\n"
        assert (said.count(line), stopped.log.read_text().count(line)) == (1, 1)
    assert said.count(f"{stopped.path.name}: {ANEW}\n") == 1
    assert_same_run(stopped, whole)


def test_a_run_goes_on_from_the_checkpoint_before_where_that_goes_with_the_best_weights(stopped, whole):
    def another_best(content: dict) -> None:
        history = content["callbacks"]["History"]
        history["validations"].append({**history["validations"][0], "step": 4, "val/acc": 0.99})
        history["best"] = [1, history["best"][1]]

    edit(stopped.last, another_best)
    said = go_on(stopped)
    assert said.count("goes with another best.ckpt than there is, and left aside") == 1
    assert "epoch 1/3" not in said
    assert_same_run(stopped, whole)


def test_best_weights_of_a_validation_after_the_checkpoint_are_to_come_again(stopped, whole):
    """The run was killed after that, and before it saved."""
    assert torch.load(whole.best, weights_only=True)["step"] > 5
    shutil.copy(whole.best, stopped.best)
    assert "left aside" not in go_on(stopped)
    assert_same_run(stopped, whole)


def test_a_run_that_is_trained_to_its_end_and_has_lost_its_best_weights_begins_anew(whole, tmp_path):
    directory = copy_of(whole, tmp_path)
    directory.result.unlink()
    directory.best.unlink()
    assert ANEW in go_on(directory)
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


@pytest.mark.parametrize("spoil", FOREIGN)
def test_a_checkpoint_of_something_else_is_left_aside_and_the_one_before_leads_to_the_same_bits(spoil, stopped, whole):
    spoil(stopped.last)
    said = go_on(stopped)
    assert said.count("checkpoints/last.ckpt: ") == 1
    assert said.count("and left aside") == 1
    assert "epoch 1/3" not in said
    assert_same_run(stopped, whole)


def test_without_its_folder_of_checkpoints_a_run_begins_anew(stopped, whole):
    shutil.rmtree(stopped.last.parent)
    assert "epoch 1/3" in go_on(stopped)
    assert_same_run(stopped, whole)


# ---- by whom ---------------------------------------------------------------------------------------------------------


def test_of_two_that_go_on_at_the_same_moment_one_does(stopped, whole, monkeypatch):
    """The second meets the first between its look at the status and its own word there."""

    def begin_a_second(self, state, *more, **progress):
        if state == "running" and not met:
            met.append("")
            with pytest.raises(ConfigError) as raised:
                go_on(stopped)
            met[0] = str(raised.value)
        write(self, state, *more, **progress)

    met, write = [], RunDir.write_status
    monkeypatch.setattr(RunDir, "write_status", begin_a_second)
    go_on(stopped)
    assert "this run is live (another process has just gone on with it); wait for it" in met[0]
    assert_same_run(stopped, whole)


# ---- what is tested -------------------------------------------------------------------------------------------------


def test_no_other_weights_are_tested_than_those_that_are_reported(tmp_path, monkeypatch):
    def save_another(self, path, net, record):
        saved(self, path, net, {**record, "val/loss": record["val/loss"] / 2})

    saved = Checkpoints._save_net
    monkeypatch.setattr(Checkpoints, "_save_net", save_another)
    monkeypatch.setattr("cnnbench.training.run.Trainer.test", None)
    with pytest.raises(
        RunFailed, match=r"failed, best\.ckpt does not hold the weights of the best validation, that aft"
    ):
        train(tmp_path)
    assert RunDir(run_of(tmp_path)).status()["state"] == "failed"
