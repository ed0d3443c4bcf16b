"""Helpers of the tests of training options: short runs of small nets, and the same loop in plain PyTorch."""

from __future__ import annotations

import csv
from collections.abc import Callable, Iterator
from functools import cache
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn.functional import one_hot

from cnnbench.complexity.channels_last import to_memory_format
from cnnbench.config.compose import compose
from cnnbench.config.schema import Config
from cnnbench.runs.run_dir import RunDir
from cnnbench.training.callbacks.curves import Curves
from cnnbench.training.factories import build_net
from cnnbench.training.metrics import Score
from cnnbench.training.run import Outcome, run, seed_everything
from cnnbench.training.validate import prepare

# three steps of 32 images an epoch, two epochs
BASE = "threads=1 data=synthetic data.image_size=8 data.train_size=96 data.val_size=40 data.test_size=40 data.noise=0.4"
BASE += " batch_size=32 epochs=2 model=custom optimizer=sgd scheduler=constant trainer=cpu"
SMALL, LINEAR = "model._target_=small_nets.Small model.dropout=0", "model._target_=nets.Linear model.hidden=12"
LR = 0.1  # of optimizer=sgd


def slow(*case: Any) -> Any:
    return pytest.param(*case, marks=pytest.mark.slow)


@cache
def composed(keys: str) -> Config:
    keys = f"{BASE} {keys if 'model' in keys else f'{SMALL} {keys}'}"
    own = ("model.dropout=", "model.hidden=", "model.heads=", "model.what=", "model.at=")
    return compose([f"+{key}" if key.startswith(own) else key for key in keys.split()])


@pytest.fixture
def train(tmp_path, monkeypatch) -> Callable[[str], Outcome]:
    """Trains in an empty folder, without drawing the curves, which would take most of the time."""
    monkeypatch.setattr(Curves, "draw", lambda self: None)
    return lambda keys="": run(composed(keys).model_copy(update={"runs_dir": str(tmp_path)}))


@pytest.fixture
def only(tmp_path) -> Callable[..., RunDir]:
    """Returns the only run of the folder, or of a name."""

    def directory(name: str = "*") -> RunDir:
        (path,) = tmp_path.glob(f"{name}/*")
        return RunDir(path)

    return directory


class Plain:
    """The net, the batches and the seed of a run, for a plain PyTorch loop."""

    def __init__(self, keys: str = "") -> None:
        prepared = prepare(composed(keys))
        self.config, self.data = prepared.config, prepared.data
        seed_everything(self.config.seed)
        self.net = to_memory_format(build_net(self.config, self.data), self.config)
        self.loader = self.data.train_dataloader()

    def batches(self) -> Iterator[tuple[int, Tensor, Tensor]]:
        """Yields the batches of the whole run, with their numbers."""
        number = 0
        for _ in range(self.config.epochs):
            for x, y in self.loader:
                yield number, x, y
                number += 1

    def evaluate(self, split: str, net: nn.Module | None = None) -> tuple[float, float]:
        """Returns loss and accuracy on a split."""
        self.data.setup("test")
        net = (net or self.net).eval()
        with torch.no_grad():
            batches = [(net(x), y) for x, y in self.data.loader(split)]
        self.net.train()
        logits, labels = map(torch.cat, zip(*batches, strict=True))
        return cross_entropy(logits, labels).item(), (logits.argmax(1) == labels).double().mean().item()


def targets(y: Tensor, smoothing: float = 0.0) -> Tensor:
    """Returns smoothed targets (N, 10) for labels or class shares."""
    shares = one_hot(y, 10).float() if y.ndim == 1 else y
    return shares * (1 - smoothing) + smoothing / 10


def cross_entropy(logits: Tensor, y: Tensor, smoothing: float = 0.0) -> Tensor:
    return -(targets(y, smoothing) * logits.log_softmax(1)).sum(1).mean()


def descend(net: nn.Module, loss: Tensor, lr: float = LR) -> None:
    """Takes a step of gradient descent."""
    for parameter, gradient in zip(net.parameters(), torch.autograd.grad(loss, list(net.parameters())), strict=True):
        parameter.data -= lr * gradient


def weights(path: Any, of: str = "net") -> dict[str, Tensor]:
    """Returns the weights of the net, or of the averaged net, in a checkpoint."""
    states = torch.load(path, weights_only=True)["state_dict"]
    prefix = {"net": "net.", "averaged": "averaged.module.", "": ""}[of]
    return {key.removeprefix(prefix): value for key, value in states.items() if key.startswith(prefix)}


def assert_close(found: dict[str, Tensor], expected: dict[str, Tensor], tolerance: float = 1e-6) -> None:
    assert found.keys() == expected.keys()
    for key in found:
        torch.testing.assert_close(
            found[key], expected[key], rtol=0, atol=tolerance, msg=lambda text, key=key: f"{key}: {text}"
        )


def rows(directory: RunDir) -> list[dict[str, float]]:
    """Reads metrics.csv as numbers."""
    with directory.metrics.open(newline="") as file:
        return [{key: float(value) for key, value in row.items() if value} for row in csv.DictReader(file)]


def validations(directory: RunDir) -> list[dict[str, Any]]:
    return torch.load(directory.last, weights_only=True)["callbacks"]["History"]["validations"]


def set_accuracies(monkeypatch, *accuracies: float) -> None:
    """Replaces the accuracies of the following scores."""
    original, following = Score.compute_and_reset, iter(accuracies)
    monkeypatch.setattr(Score, "compute_and_reset", lambda self: {**original(self), "acc": next(following)})
