"""Initial weights have the distributions that `info --params` states."""

from __future__ import annotations

import re

import pytest
import torch
from scipy.stats import kstest, norm, uniform
from torch import Tensor, nn

from cnnbench.cli.info import describe
from cnnbench.config.compose import compose
from cnnbench.models.initialization import distributions, initialize
from cnnbench.training.factories import build_net, data_for_net

# ---- initial weights have their stated distributions -----------------------------------------------------------------------

INITS = ["torch", "paddle", "paddle_create", "normal", "xavier_normal", "kaiming_normal"]
CHANCE = 1e-5  # p-value below which a draw counts as wrong; some hundred right draws hardly ever reach it
NUMBER = r"(-?[\d.e-]+)"


class Others(nn.Module):
    """Layers that the nets of conf/model/ lack."""

    def __init__(self):
        super().__init__()
        self.grouped = nn.Conv2d(32, 64, 3, groups=4)
        self.transposed = nn.ConvTranspose2d(64, 16, 5)
        self.row = nn.Conv1d(16, 24, 7)
        self.group_norm, self.layer_norm = nn.GroupNorm(4, 64), nn.LayerNorm([16, 3])
        self.linear = nn.Linear(300, 40, bias=False)


def assert_drawn(values: Tensor, stated: str, name: str) -> None:
    """Asserts that `values` fit N(mean, deviation) or U(from, to), or equal the number."""
    if match := re.fullmatch(rf"([NU])\({NUMBER}, {NUMBER}\)", stated):
        kind, first, second = match[1], float(match[2]), float(match[3])
        assert second > first
        expected = norm(first, second) if kind == "N" else uniform(first, second - first)
        assert kstest(values.flatten()[:5_000].double().numpy(), expected.cdf).pvalue > CHANCE, (name, stated)
    else:
        assert (values == float(stated)).all(), (name, stated)


@pytest.mark.parametrize("init", INITS)
def test_weights_have_the_stated_distribution(init):
    for model in ("mnist_cnn", "lenet5_by_hand", "resnet20 model.shortcut=B"):
        config = compose([*f"model={model}".split(), f"init={init}", "init_std=0.3"])
        torch.manual_seed(0)
        net = build_net(config, data_for_net(config))
        stated = distributions(net, config.init, config.init_std)
        assert list(stated) == [name for name, _ in net.named_parameters()]
        for name, values in net.named_parameters():
            assert_drawn(values.detach(), stated[name], name)


def test_stated_distributions_are_those_of_the_runs_init():
    stated = {p["name"]: p["init"] for p in describe(compose(["init=normal", "init_std=0.3"]))["parameters"]}
    assert (stated["conv1.weight"], stated["linear7.weight"], stated["linear7.bias"]) == ("N(0, 0.3)", "N(0, 0.3)", "0")


@pytest.mark.parametrize("init", INITS)
def test_weights_of_other_layers_have_the_stated_distribution(init):
    torch.manual_seed(1)
    net = Others()
    initialize(net, init, 0.3)
    stated = distributions(net, init, 0.3)
    for name, values in net.named_parameters():
        assert_drawn(values.detach(), stated[name], name)


def test_a_layer_with_its_own_initialization_is_named():
    assert distributions(nn.Sequential(nn.PReLU()), "torch") == {"0.weight": "as PReLU draws it"}


@pytest.mark.parametrize(
    ("values", "stated"),
    [
        (torch.linspace(-1, 1, 4_999), "U(-0.9, 0.9)"),
        (torch.linspace(-1, 1, 4_999), "N(0, 0.577)"),
        (torch.zeros(3), "1"),
    ],
)
def test_a_wrong_distribution_would_be_detected(values, stated):
    with pytest.raises(AssertionError):
        assert_drawn(values, stated, "")
