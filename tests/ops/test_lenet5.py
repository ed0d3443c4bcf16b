"""LeNet-5 by hand equals LeNet-5: weights, logits, gradients, training; the book's experiment takes under a minute."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from agreement import uniform
from cnnbench.config.schema import INITS
from cnnbench.models.initialization import initialize
from cnnbench.models.lenet5 import LeNet5
from cnnbench.models.weights import copy_weights
from cnnbench.ops.lenet5 import LeNet5ByHand


def pair(seed: int = 0, in_channels: int = 1, num_classes: int = 10) -> tuple[LeNet5ByHand, LeNet5]:
    """Both nets, made with the same seed."""
    nets = []
    for net in (LeNet5ByHand, LeNet5):
        torch.manual_seed(seed)
        nets.append(net(in_channels=in_channels, num_classes=num_classes))
    return tuple(nets)


def assert_equal_states(one: nn.Module, other: nn.Module) -> None:
    ours, theirs = one.state_dict(), other.state_dict()
    assert list(ours) == list(theirs)
    assert [name for name in ours if not ours[name].equal(theirs[name])] == []


def gradients(net: nn.Module, images: torch.Tensor, labels: torch.Tensor) -> dict[str, torch.Tensor]:
    loss = F.cross_entropy(net(images), labels)
    return dict(zip(dict(net.named_parameters()), torch.autograd.grad(loss, list(net.parameters())), strict=True))


# ---- the same net -------------------------------------------------------------------------------------------------


@settings(deadline=None, max_examples=10)
@given(st.integers(0, 10_000), st.sampled_from([1, 3]), st.integers(2, 12))
def test_the_same_seed_makes_the_same_weights(seed, channels, classes):
    assert_equal_states(*pair(seed, channels, classes))


def test_it_has_61706_parameters():
    assert sum(p.numel() for p in pair()[0].parameters()) == 61_706


def test_its_layers_have_the_same_names_in_the_same_order():
    by_hand, theirs = pair()
    assert [name for name, _ in by_hand.named_modules()] == [name for name, _ in theirs.named_modules()]


def test_only_activations_and_linear_layers_are_pytorchs():
    kinds = {type(layer) for layer in pair()[0].children() if type(layer).__module__.startswith("torch.")}
    assert kinds == {nn.ReLU, nn.Linear}


@settings(deadline=None, max_examples=15)
@given(st.integers(0, 10_000), st.integers(1, 6), st.sampled_from([1, 3]))
def test_it_gives_the_same_logits(seed, images, channels):
    by_hand, theirs = pair(seed, channels)
    x = uniform(images, channels, 32, 32, seed=seed)
    torch.testing.assert_close(by_hand(x), theirs(x), rtol=0, atol=1e-5)


@settings(deadline=None, max_examples=10)
@given(st.integers(0, 10_000), st.integers(1, 6), st.sampled_from(["torch", "paddle", "paddle_create"]))
def test_all_its_gradients_are_the_same(seed, images, init):
    nets = pair(seed)
    for net in nets:
        torch.manual_seed(seed)
        initialize(net, init)
    x = uniform(images, 1, 32, 32, seed=seed)
    labels = torch.randint(10, (images,), generator=torch.Generator().manual_seed(seed))
    ours, theirs = (gradients(net, x, labels) for net in nets)
    assert len(ours) == 10
    for name, value in ours.items():
        torch.testing.assert_close(value, theirs[name], rtol=0, atol=1e-5, msg=lambda text, n=name: f"{n}: {text}")


def test_in_double_precision_logits_differ_by_less_than_1e_12():
    by_hand, theirs = pair()
    x = uniform(4, 1, 32, 32, dtype=torch.float64)
    torch.testing.assert_close(by_hand.double()(x), theirs.double()(x), rtol=0, atol=1e-12)


@pytest.mark.parametrize(("source", "target"), [(0, 1), (1, 0)], ids=["to PyTorch's", "from PyTorch's"])
def test_state_dicts_are_exchanged_both_ways(source, target):
    nets = pair(seed=1)[source], pair(seed=2)[target]
    nets[1].load_state_dict(nets[0].state_dict())
    x = uniform(3, 1, 32, 32)
    assert_equal_states(*nets)
    torch.testing.assert_close(nets[0](x), nets[1](x), rtol=0, atol=1e-5)


@pytest.mark.parametrize(("source", "target"), [(0, 1), (1, 0)], ids=["to PyTorch's", "from PyTorch's"])
def test_weights_are_copied_both_ways(source, target):
    nets = pair(seed=1)[source], pair(seed=2)[target]
    copy_weights(*nets)
    assert_equal_states(*nets)


@pytest.mark.parametrize("init", INITS)
def test_every_rule_of_initial_weights_draws_the_same_for_both_nets(init):
    by_hand, theirs = pair()
    for net in (by_hand, theirs):
        torch.manual_seed(5)
        initialize(net, init, 0.1)
    assert_equal_states(by_hand, theirs)
    assert by_hand.conv1.weight.equal(pair()[0].conv1.weight) == (init == "torch")


@pytest.mark.parametrize(("side", "map_side"), [(28, 4), (24, 3)])
def test_a_too_small_image_is_refused_by_the_window_that_does_not_fit(side, map_side):
    with pytest.raises(ValueError, match=f"a window of 5 does not fit a map of {map_side}"):
        pair()[0](torch.zeros(1, 1, side, side))


# ---- trained ------------------------------------------------------------------------------------------------------


def test_training_steps_lead_both_nets_to_the_same_weights():
    nets = pair(seed=3)
    x, labels = uniform(16, 1, 32, 32), torch.arange(16) % 10
    for net in nets:
        torch.manual_seed(3)
        initialize(net, "paddle")
        optimizer = torch.optim.SGD(net.parameters(), lr=0.05)
        first = F.cross_entropy(net(x), labels).item()
        for _ in range(5):
            optimizer.zero_grad()
            F.cross_entropy(net(x), labels).backward()
            optimizer.step()
        assert F.cross_entropy(net(x), labels).item() < first
    for name, value in nets[0].state_dict().items():
        torch.testing.assert_close(value, nets[1].state_dict()[name], rtol=0, atol=1e-5)


@pytest.mark.soak
def test_the_books_training_takes_under_a_minute_and_gives_the_accuracy_of_pytorchs_layers(real_data, tmp_path):
    by_hand = books_training("lenet5_by_hand", real_data, tmp_path)
    theirs = books_training("lenet5", real_data, tmp_path)
    assert by_hand["time"]["fit_s"] < 60
    assert by_hand["params"] == theirs["params"] == 61_706
    assert by_hand["split_hash"] == theirs["split_hash"]
    assert by_hand["metrics"]["test/acc"] > 0.6  # the book has 0.870, 40 seeds have 0.839 ± 0.034
    assert by_hand["metrics"]["test/acc"] == pytest.approx(theirs["metrics"]["test/acc"], abs=0.1)


def books_training(model: str, data: Path, folder: Path) -> dict:
    """The result of "Neural Networks and Deep Learning: Cases and Practice", section 5.3, through the command line."""
    runs = folder / model
    setting = ["experiment=lenet5_init", f"model={model}", "init=paddle_create", "threads=1", f"data.root={data}"]
    command = [sys.executable, "-m", "cnnbench", *setting, f"runs_dir={runs}"]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=300)
    assert (done.returncode, done.stderr) == (0, "")
    (result,) = runs.glob("*/*/result.json")
    return json.loads(result.read_text())
