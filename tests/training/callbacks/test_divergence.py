"""A loss, gradient or weight that is not finite ends a run before it is saved."""

from __future__ import annotations

import math
from collections.abc import Callable
from types import SimpleNamespace

import pytest
import torch
from torch import nn

from cnnbench.errors import Diverged
from cnnbench.runs.run_dir import RunDir
from cnnbench.training.callbacks.divergence import Divergence
from cnnbench.training.metrics import Score
from options import LINEAR, LR, slow, validations

# ---- divergence ------------------------------------------------------------------------------------------------------


def cosine(step: int, steps: int = 6) -> float:
    """Returns the learning rate of a step, counted from 1."""
    return LR * (1 + math.cos(math.pi * (step - 1) / steps)) / 2


def assert_checkpoints_finite(directory: RunDir, step: int) -> None:
    """Asserts that last.ckpt is of `step`, and that all saved weights are finite."""
    assert not directory.result.exists()
    assert torch.load(directory.last, weights_only=True)["global_step"] == step
    for path in directory.path.glob("checkpoints/*"):
        for name, value in torch.load(path, weights_only=True)["state_dict"].items():
            assert torch.isfinite(value).all(), f"{path.name}: {name}"


SPOILED = "model._target_=small_nets.Spoiled scheduler=cosine trainer.checkpoint_every_s=0.000001"


@pytest.mark.parametrize(
    ("what", "reason"),
    [
        ("loss", "the training loss is nan in step 5"),
        ("infinite", "the training loss is inf in step 5"),
        ("gradient", "the gradient's norm is nan in step 5"),
    ],
)
@pytest.mark.parametrize("option", ["", slow("clip_grad=1.0"), slow("ema=0.9")])
def test_a_loss_or_gradient_that_is_not_finite_ends_the_run_before_its_step(what, reason, option, train, only):
    with pytest.raises(Diverged) as raised:
        train(f"{SPOILED} model.what={what} model.at=5 {option}")
    directory, message = only(), f"{reason}, lr {cosine(5):g}"
    assert str(raised.value) == f"{directory.path}: diverged, {message}; try a smaller learning rate: optimizer.lr=..."
    assert raised.value.exit_code == 3
    assert (directory.status().state, directory.status().reason) == ("diverged", message)
    assert_checkpoints_finite(directory, step=4)


def test_a_loss_that_is_not_finite_in_one_part_ends_the_run_before_the_step(train, only):
    with pytest.raises(Diverged, match=rf"the training loss is nan in step 4, lr {cosine(4):g};"):
        train(f"{SPOILED} model.what=loss model.at=14 accumulate=4")
    assert_checkpoints_finite(only(), step=3)


def test_a_validation_loss_that_is_not_finite_ends_the_run_and_is_not_recorded(train, only):
    with pytest.raises(Diverged, match=rf"the validation loss is nan after step 6, lr {cosine(6):g};"):
        train(f"{SPOILED} model.what=validation model.at=6")
    directory = only()
    assert directory.status().state == "diverged"
    assert_checkpoints_finite(directory, step=5)
    assert [record["step"] for record in validations(directory)] == [3]
    assert torch.load(directory.best, weights_only=True)["step"] == 3


def test_a_validation_loss_of_the_averaged_weights_that_is_not_finite_ends_the_run(train, monkeypatch):
    def spoil(self):
        scores = original(self)
        computed.append(scores)
        return {**scores, "loss": math.nan} if len(computed) == 4 else scores  # the net's, then the average's

    computed, original = [], Score.compute_and_reset
    monkeypatch.setattr(Score, "compute_and_reset", spoil)
    with pytest.raises(Diverged, match=r"the validation loss of the averaged weights is nan after step 6, lr 0\.1;"):
        train("ema=0.9")


def overflowing(scaler: torch.amp.GradScaler, steps: int, which: Callable[[int], bool], start: int = 0) -> Divergence:
    """Returns a callback that has seen `steps` steps of half precision, some of which overflow."""
    weight = nn.Parameter(torch.ones(1))
    optimizer = torch.optim.SGD([weight], lr=0.1)
    callback, net = Divergence(), nn.Module()
    net.net, net.train_sums = nn.Linear(1, 1), torch.zeros(2)
    for step in range(steps):
        trainer = SimpleNamespace(
            precision="16-mixed", precision_plugin=SimpleNamespace(scaler=scaler), global_step=start + step
        )
        optimizer.zero_grad()
        scaler.scale((weight * (math.inf if which(step) else 1.0)).sum()).backward()
        callback.on_before_optimizer_step(trainer, net, optimizer)
        scaler.step(optimizer)
        scaler.update()
    return callback


def test_half_precision_gradients_that_always_overflow_end_the_run():
    with pytest.raises(Diverged, match=r"^the gradient of half precision overflows, 20 steps in a row, lr 0\.1$"):
        overflowing(torch.amp.GradScaler("cpu"), 22, lambda step: True)


def test_half_precision_gradients_may_overflow_sometimes():
    callback = overflowing(torch.amp.GradScaler("cpu"), 80, lambda step: step % 20 != 0)
    callback.check()


def test_a_huge_learning_rate_ends_the_run(train, only):
    with pytest.raises(Diverged, match=r"in step 2, lr 1e\+30; try a smaller"):
        train(f"{LINEAR} optimizer.lr=1e30 trainer.checkpoint_every_s=0.000001")
    assert_checkpoints_finite(only(), step=1)


def test_weights_that_are_not_finite_are_never_saved(train, only):
    with pytest.raises(Diverged, match=r"a weight is not a finite number after step 1, lr 0.1; try"):
        train(f"{SPOILED} model.what=weights optimizer=adam optimizer.lr=0.1 optimizer.eps=0")  # 0 divided by 0
    directory = only()
    assert directory.status().state == "diverged"
    assert not list(directory.path.glob("checkpoints/*"))
