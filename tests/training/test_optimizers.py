"""Each optimizer of conf/ against its update rule written out, and which parameters weight decay applies to."""

from __future__ import annotations

import pytest
import torch
import yaml
from torch import nn

from cnnbench.config.compose import conf_dir
from cnnbench.config.instantiate import construct
from cnnbench.config.schema import Node, OptimizerKeys
from cnnbench.errors import ConfigError
from cnnbench.ops.normalization import BatchNorm2d
from cnnbench.training.factories import build_optimizer
from cnnbench.training.parameter_groups import parameter_groups

CHOICES = sorted(path.stem for path in (conf_dir() / "optimizer").glob("*.yaml"))
NETS = sorted(path.stem for path in (conf_dir() / "model").glob("*.yaml") if path.stem != "custom")
STEPS = 6


def read(group: str, name: str) -> dict:
    """Reads a file of `conf/`."""
    return yaml.safe_load((conf_dir() / group / f"{name}.yaml").read_text())


class Chosen:
    """The part of a config that an optimizer is built from."""

    def __init__(self, name: str, precision: str = "32", clip_grad: float | None = None, **keys) -> None:
        self.precision, self.clip_grad = precision, clip_grad
        self.optimizer = OptimizerKeys.model_validate({**read("optimizer", name), **keys})


def gradients(size: int) -> list[torch.Tensor]:
    """Returns a gradient for every step, with a mean that is not 0, so that momentum accumulates."""
    torch.manual_seed(1)
    return [torch.randn(size, dtype=torch.float64) + 0.5 for _ in range(STEPS)]


# ---- update rules, written out: weights w, gradients gs -> weights ---------------------------------------------------


def sgd(w, gs, lr, momentum=0.0, nesterov=False, decay=0.0):
    v = 0
    for g in gs:
        g = g + decay * w
        v = momentum * v + g
        w = w - lr * (g + momentum * v if nesterov else v)
    return w


def adam(w, gs, lr, decay=0.0, decoupled=0.0, b1=0.9, b2=0.999, eps=1e-8):
    m = v = 0
    for t, g in enumerate(gs, start=1):
        w = w - lr * decoupled * w
        g = g + decay * w
        m, v = b1 * m + (1 - b1) * g, b2 * v + (1 - b2) * g**2
        w = w - lr * (m / (1 - b1**t)) / ((v / (1 - b2**t)).sqrt() + eps)
    return w


def rmsprop(w, gs, lr, decay=0.0, alpha=0.99, eps=1e-8):
    v = torch.zeros_like(w)
    for g in gs:
        g = g + decay * w
        v = alpha * v + (1 - alpha) * g**2
        w = w - lr * g / (v.sqrt() + eps)
    return w


RULES = {  # as the files of conf/optimizer set them
    "sgd": lambda w, gs, decay: sgd(w, gs, 0.1, decay=decay or 0),
    "momentum": lambda w, gs, decay: sgd(w, gs, 0.01, 0.9, decay=decay or 0),
    "nesterov": lambda w, gs, decay: sgd(w, gs, 0.01, 0.9, nesterov=True, decay=decay or 0),
    "adam": lambda w, gs, decay: adam(w, gs, 0.003, decay=decay or 0),
    "adamw": lambda w, gs, decay: adam(w, gs, 0.001, decoupled=0.01 if decay is None else decay),
    "rmsprop": lambda w, gs, decay: rmsprop(w, gs, 0.001, decay=decay or 0),
}


def test_all_optimizers_of_conf_are_tested_here():
    assert sorted(RULES) == CHOICES


@pytest.mark.parametrize("decay", [None, 0.3])
@pytest.mark.parametrize("name", CHOICES)
def test_each_optimizer_follows_its_update_rule(name, decay):
    net = nn.Linear(3, 2, bias=False, dtype=torch.float64)
    before = net.weight.detach().flatten().clone()
    optimizer = build_optimizer(Chosen(name, **({} if decay is None else {"weight_decay": decay})), net)
    for gradient in gradients(6):
        net.weight.grad = gradient.view(2, 3).clone()
        optimizer.step()
    expected = RULES[name](before, gradients(6), decay)
    torch.testing.assert_close(net.weight.detach().flatten(), expected, rtol=1e-9, atol=1e-12)
    assert (expected - before).abs().min() > 1e-4


@pytest.mark.parametrize("name", CHOICES)
def test_every_key_of_an_optimizers_file_can_be_changed(name):
    own = {key: value for key, value in read("optimizer", name).items() if key not in ("_target_", "decay")}
    changed = {"lr": 0.5, "weight_decay": 0.25, "momentum": 0.75, "betas": [0.5, 0.25], "eps": 0.125, "alpha": 0.5}
    keys = {key: changed.get(key, not value) for key, value in own.items()}
    group = build_optimizer(Chosen(name, **keys), nn.Linear(1, 1)).param_groups[0]
    assert {key: list(group[key]) if key == "betas" else group[key] for key in keys} == keys


@pytest.mark.parametrize("name", ["sgd", "momentum", "nesterov", "adam", "adamw"])
def test_optimizers_with_a_fused_step_use_it(name):
    assert build_optimizer(Chosen(name), nn.Linear(1, 1)).param_groups[0]["fused"] is True


@pytest.mark.parametrize(
    "keys", [{"precision": "16"}, {"precision": "bf16", "clip_grad": 0.5}, {"fused": False}, {"foreach": True}]
)
def test_a_step_is_not_fused_if_gradients_are_clipped_or_another_kind_is_typed(keys):
    assert not build_optimizer(Chosen("adam", **keys), nn.Linear(1, 1)).param_groups[0]["fused"]


# ---- weight decay ----------------------------------------------------------------------------------------------------


def shipped(name: str) -> nn.Module:
    """Builds a net of conf/model on the meta device."""
    with torch.device("meta"):
        return construct(
            Node.model_validate(read("model", name)), "model", in_channels=3, num_classes=10, image_size=32
        )


@pytest.mark.parametrize("name", NETS)
def test_only_weights_decay_and_every_parameter_of_a_shipped_net_is_in_a_group(name):
    net = shipped(name)
    decayed, exempt = ([id(p) for p in group["params"]] for group in parameter_groups(net, "weights"))
    assert sorted(decayed + exempt) == sorted(id(parameter) for parameter in net.parameters())
    norms = {id(p) for module in net.modules() if isinstance(module, nn.BatchNorm2d) for p in module.parameters()}
    biases = {id(p) for key, p in net.named_parameters() if key.split(".")[-1] == "bias"}
    assert set(exempt) == norms | biases


@pytest.mark.parametrize("name", NETS[:3])
def test_decay_all_gives_one_group(name):
    net = shipped(name)
    (group,) = parameter_groups(net)
    assert [id(p) for p in group["params"]] == [id(p) for p in net.parameters()]
    assert "weight_decay" not in group


@pytest.mark.parametrize("name", CHOICES)
def test_weight_decay_without_a_gradient_shrinks_weights_only(name):
    net = nn.Sequential(nn.Conv2d(1, 2, 3), nn.BatchNorm2d(2), nn.Flatten(), nn.Linear(8, 3))
    nn.init.normal_(net[1].weight)
    nn.init.normal_(net[1].bias)
    before = {key: parameter.detach().clone() for key, parameter in net.named_parameters()}
    optimizer = build_optimizer(Chosen(name, decay="weights", weight_decay=0.1, lr=1e-4), net)
    for parameter in net.parameters():
        parameter.grad = torch.zeros_like(parameter)
    optimizer.step()
    for key, parameter in net.named_parameters():
        if key in ("0.weight", "3.weight"):
            assert ((parameter - before[key]) * before[key] < 0).all()
        else:
            assert torch.equal(parameter, before[key])


def test_there_is_no_empty_group():
    assert [len(group["params"]) for group in parameter_groups(nn.Linear(2, 2, bias=False), "weights")] == [1]
    assert [len(group["params"]) for group in parameter_groups(nn.BatchNorm2d(2), "weights")] == [2]


@pytest.mark.parametrize("decay", ["all", "weights"])
def test_a_parameter_that_is_not_trained_is_in_no_group(decay):
    net = nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 2))
    net[0].requires_grad_(False)
    found = [p for group in parameter_groups(net, decay) for p in group["params"]]
    assert {id(p) for p in found} == {id(p) for p in net[1].parameters()}


def test_both_groups_have_the_optimizers_learning_rate():
    optimizer = build_optimizer(Chosen("adamw", decay="weights", lr=0.25), nn.Linear(2, 2))
    assert [group["lr"] for group in optimizer.param_groups] == [0.25, 0.25]
    assert [group["weight_decay"] for group in optimizer.param_groups] == [0.01, 0.0]


def test_a_parameter_shared_by_two_layers_is_in_one_group_once():
    net = nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 2))
    net[1].weight = net[0].weight
    assert [len(group["params"]) for group in parameter_groups(net, "weights")] == [1, 2]


def test_norms_and_biases_of_several_dimensions_do_not_decay():
    """Hand-written layers may have them, and layer norms over whole feature maps do."""

    class Shifted(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.weight, self.bias = nn.Parameter(torch.ones(2, 2)), nn.Parameter(torch.zeros(1, 2, 1, 1))

    net = nn.Sequential(nn.Conv2d(1, 2, 3), nn.LayerNorm([2, 8, 8]), BatchNorm2d(2), nn.BatchNorm2d(2), Shifted())
    decayed, exempt = parameter_groups(net, "weights")
    assert [tuple(weight.shape) for weight in decayed["params"]] == [(2, 1, 3, 3), (2, 2)]
    assert len(decayed["params"]) + len(exempt["params"]) == len(list(net.parameters()))


def test_a_value_of_the_wrong_type_is_refused_with_its_key_and_default():
    with pytest.raises(ConfigError) as raised:
        build_optimizer(Chosen("adam", betas=0.9), nn.Linear(1, 1))
    reason = "'float' object is not subscriptable"
    assert str(raised.value) == f"optimizer.betas=0.9: Adam refuses it ({reason}); its default is [0.9,0.999]"


@pytest.mark.parametrize("decay", ["all", "weights"])
def test_an_optimizer_without_weight_decay_does_not_get_weight_decay_0(decay):
    chosen = Chosen("sgd", _target_="torch.optim.Rprop", decay=decay)
    net = nn.Linear(2, 2)
    optimizer = build_optimizer(chosen, net)
    net(torch.ones(1, 2)).sum().backward()
    before = net.weight.clone()
    optimizer.step()
    assert type(optimizer) is torch.optim.Rprop
    assert not torch.equal(net.weight, before)


# ---- mistakes --------------------------------------------------------------------------------------------------------


def no_optimizer(parameters, lr, weight_decay):
    return parameters


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        ({"nesterov": True}, "Nesterov momentum requires a momentum"),
        ({"momentum": -1}, "Invalid momentum value: -1"),
        (
            {"_target_": "torch.optim.Rprop", "weight_decay": 0.1},
            "optimizer.weight_decay: Rprop takes no weight_decay;",
        ),
        (
            {"_target_": "torch.optim.LBFGS"},
            "optimizer._target_=torch.optim.LBFGS: computes the loss several times a step",
        ),
        ({"momentum": "high"}, "optimizer.momentum=high: SGD refuses it ("),
        ({"momentum": [0.9]}, "its default is 0"),
        ({"momentum": True}, "optimizer.momentum=true: SGD expects a number"),
        ({"moment": 0.9}, "optimizer.moment: SGD takes no moment; did you mean momentum?"),
        ({"_target_": f"{__name__}.no_optimizer"}, "no_optimizer: makes a list, expected a torch.optim.Optimizer"),
    ],
)
def test_arguments_that_an_optimizer_refuses_give_one_line(keys, message):
    with pytest.raises(ConfigError) as raised:
        build_optimizer(Chosen("sgd", **keys), nn.Linear(1, 1))
    assert message in str(raised.value)
    assert str(raised.value).startswith("optimizer")
    assert "\n" not in str(raised.value)
