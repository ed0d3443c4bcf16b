"""Initial weights: each rule's distribution against its formula, and the layers that it does not change."""

from __future__ import annotations

from math import sqrt
from typing import get_args

import pytest
import torch
from scipy.stats import kstest, norm, uniform
from torch import nn

from cnnbench.config.schema import INITS, Config
from cnnbench.models.initialization import initialize

IN, OUT, SIDE = 24, 96, 3
FEATURES, UNITS = 256, 160
FAN_IN = {"convolution": IN * SIDE * SIDE, "linear": FEATURES}
FAN_OUT = {"convolution": OUT * SIDE * SIDE, "linear": UNITS}
STD = 0.037  # of init=normal


def he(layer: str):
    return norm(0, sqrt(2 / FAN_IN[layer]))


def glorot_uniform(layer: str):
    bound = sqrt(6 / (FAN_IN[layer] + FAN_OUT[layer]))
    return uniform(-bound, 2 * bound)


def glorot_normal(layer: str):
    return norm(0, sqrt(2 / (FAN_IN[layer] + FAN_OUT[layer])))


def fixed(layer: str):
    return norm(0, STD)


RULES = {
    ("paddle", "convolution"): he,
    ("paddle", "linear"): glorot_uniform,
    ("paddle_create", "convolution"): glorot_uniform,
    ("paddle_create", "linear"): glorot_uniform,
    ("normal", "convolution"): fixed,
    ("normal", "linear"): fixed,
    ("xavier_normal", "convolution"): glorot_normal,
    ("xavier_normal", "linear"): glorot_normal,
    ("kaiming_normal", "convolution"): he,
    ("kaiming_normal", "linear"): he,
}
CASES = [pytest.param(*case, rule(case[1]), id="-".join(case)) for case, rule in RULES.items()]
DRAWN = sorted({init for init, _ in RULES})
UNIFORM = [case for case in CASES if RULES[case.values[:2]] is glorot_uniform]


def make(seed: int = 0) -> nn.ModuleDict:
    torch.manual_seed(seed)
    return nn.ModuleDict(
        {
            "convolution": nn.Conv2d(IN, OUT, SIDE),
            "norm": nn.BatchNorm2d(OUT),
            "unbiased": nn.Conv2d(OUT, 8, 1, bias=False),
            "linear": nn.Linear(FEATURES, UNITS),
            "unbiased_linear": nn.Linear(UNITS, 4, bias=False),
        }
    )


def drawn(init: str, seed: int = 1) -> nn.ModuleDict:
    net = make()
    torch.manual_seed(seed)
    initialize(net, init, STD)
    return net


def weights_of(net: nn.Module) -> torch.Tensor:
    return torch.cat([value.flatten() for value in net.state_dict().values()])


def test_every_rule_that_the_config_knows_is_tested_here():
    assert {"torch", *DRAWN} == set(INITS) == set(get_args(Config.model_fields["init"].annotation))


@pytest.mark.parametrize(("init", "layer", "expected"), CASES)
def test_weights_have_the_rules_distribution(init, layer, expected):
    weight = drawn(init)[layer].weight.detach().flatten().double().numpy()
    assert kstest(weight, expected.cdf).pvalue > 0.001
    assert weight.mean() == pytest.approx(0, abs=4 * expected.std() / sqrt(weight.size))
    assert weight.std() == pytest.approx(expected.std(), rel=0.02)


@pytest.mark.parametrize(("init", "layer", "expected"), UNIFORM)
def test_uniform_weights_reach_their_bounds_and_stay_within(init, layer, expected):
    bound = sqrt(6 / (FAN_IN[layer] + FAN_OUT[layer]))
    assert 0.999 * bound < drawn(init)[layer].weight.abs().max().item() <= bound * (1 + 1e-6)


@pytest.mark.parametrize("init", DRAWN)
def test_biases_are_0(init):
    net = drawn(init)
    assert not net["convolution"].bias.any()
    assert not net["linear"].bias.any()


@pytest.mark.parametrize("init", DRAWN)
def test_layers_without_bias_are_drawn_too(init):
    before, after = make(), drawn(init)
    for layer in ("unbiased", "unbiased_linear"):
        assert not torch.equal(before[layer].weight, after[layer].weight)
        assert after[layer].bias is None


@pytest.mark.parametrize("init", INITS)
def test_batch_norm_is_not_changed(init):
    net = make()
    with torch.no_grad():
        for number, value in enumerate(net["norm"].state_dict().values(), 2):
            value.fill_(number)
    initialize(net, init)
    assert [value.unique().tolist() for value in net["norm"].state_dict().values()] == [[2], [3], [4], [5], [6]]


@pytest.mark.parametrize("init", DRAWN)
def test_one_seed_gives_one_set_of_weights(init):
    assert torch.equal(weights_of(drawn(init, seed=5)), weights_of(drawn(init, seed=5)))
    assert not torch.equal(weights_of(drawn(init, seed=5)), weights_of(drawn(init, seed=6)))


def test_torch_changes_no_weight():
    assert torch.equal(weights_of(make()), weights_of(drawn("torch")))


def test_torch_draws_no_random_number():
    net = make()
    before = torch.get_rng_state()
    initialize(net, "torch")
    assert torch.equal(torch.get_rng_state(), before)


def test_the_deviation_of_normal_is_a_hundredth_when_none_is_named():
    net = make()
    initialize(net, "normal")
    assert net["linear"].weight.std().item() == pytest.approx(0.01, rel=0.02)


@pytest.mark.parametrize("init", sorted(set(DRAWN) - {"normal"}))
def test_init_std_changes_no_other_rule(init):
    nets = [make(), make()]
    for net, std in zip(nets, (0.01, 5.0), strict=True):
        torch.manual_seed(1)
        initialize(net, init, std)
    assert torch.equal(weights_of(nets[0]), weights_of(nets[1]))


@pytest.mark.parametrize("init", DRAWN)
def test_weights_stay_trainable_parameters(init):
    assert all(parameter.requires_grad and parameter.is_leaf for parameter in drawn(init).parameters())


@pytest.mark.parametrize("dimensions", [1, 2, 3])
def test_convolutions_of_every_dimension_are_drawn(dimensions):
    kind = {1: nn.Conv1d, 2: nn.Conv2d, 3: nn.Conv3d}[dimensions]
    torch.manual_seed(0)
    net = nn.Sequential(kind(40, 400, 2))
    initialize(net, "kaiming_normal")
    assert net[0].weight.std().item() == pytest.approx(sqrt(2 / (40 * 2**dimensions)), rel=0.03)


@pytest.mark.parametrize("kind", [nn.ConvTranspose1d, nn.ConvTranspose2d, nn.ConvTranspose3d])
def test_transposed_convolutions_are_drawn(kind):
    torch.manual_seed(0)
    net = nn.Sequential(kind(40, 400, 2))
    initialize(net, "normal", 0.2)
    assert net[0].weight.std().item() == pytest.approx(0.2, rel=0.03)
    assert not net[0].bias.any()


def test_layers_within_layers_are_drawn():
    inner = nn.Linear(300, 300)
    initialize(nn.Sequential(nn.Sequential(nn.ReLU(), inner)), "normal", 0.3)
    assert inner.weight.std().item() == pytest.approx(0.3, rel=0.03)


@pytest.mark.parametrize("init", INITS)
def test_a_net_on_the_meta_device_stays_there(init):
    with torch.device("meta"):
        net = make()
    initialize(net, init)
    assert all(value.is_meta for value in net.state_dict().values())
