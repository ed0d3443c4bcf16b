"""Norms of gradients and activations, which `log=full` records."""

from types import SimpleNamespace

import numpy as np
import pytest
import torch
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from torch import nn

from cnnbench.config.compose import compose
from cnnbench.training.callbacks.gradient_norms import NormRecorder
from cnnbench.training.run import run

SGD = ["optimizer=sgd", "scheduler=constant", "batch_size=64", "log=full"]


def scalars(path) -> dict[str, list[float]]:
    events = EventAccumulator(str(path))
    events.Reload()
    return {tag: [event.value for event in events.Scalars(tag)] for tag in events.Tags()["scalars"]}


def an_epoch(net: nn.Module, batches: list[torch.Tensor], activations: bool = True) -> dict[str, float]:
    """Returns the norms of an epoch with a step for each batch."""
    norms, module = NormRecorder(activations), SimpleNamespace(net=net)
    for number, batch in enumerate(batches):
        norms.on_train_batch_start(None, module, batch, number)
        net.zero_grad()
        net(batch).square().sum().backward()
        norms.on_before_optimizer_step(None, module, None)
        norms.on_train_batch_end(None, module)
    norms.on_train_epoch_end(None, module)
    return norms.values


@pytest.fixture
def trained(tiny, tmp_path):
    """Returns the weights after a run, and its scalars."""

    def train(*overrides):
        directory = run(compose([*tiny, f"runs_dir={tmp_path}", *SGD, *overrides])).directory
        return torch.load(directory.last, weights_only=True)["state_dict"], scalars(directory.path)

    return train


def test_a_gradients_norm_is_that_of_the_weight_change_divided_by_the_learning_rate(trained):
    one_step = ["data.train_size=64"]
    (slow, shown), (fast, _) = (
        trained(*one_step, "optimizer.lr=0.125"),
        trained(*one_step, "optimizer.lr=0.25", "log=normal"),
    )
    for name in ("conv1.weight", "conv3.bias"):
        gradient = (slow[f"net.{name}"] - fast[f"net.{name}"]).double().numpy() / 0.125
        assert shown[f"gradient_norm/{name}"] == pytest.approx([np.linalg.norm(gradient)], rel=1e-4)


@pytest.mark.slow
def test_a_gradients_norm_covers_the_whole_batch_before_clipping(trained):
    _, plain = trained("data.train_size=64")
    _, parted = trained("data.train_size=64", "accumulate=2", "clip_grad=0.001")
    for tag in plain:
        if tag.startswith("gradient_norm/"):
            assert parted[tag] == pytest.approx(plain[tag], rel=1e-4)


def test_a_gradients_norm_is_averaged_over_steps():
    net = nn.Linear(1, 1, bias=False)
    net.weight.data.fill_(1.0)
    values = an_epoch(net, [torch.tensor([[1.0]]), torch.tensor([[3.0]])])  # gradients 2 · 1² and 2 · 3²
    assert values["gradient_norm/weight"] == 10


def test_a_step_whose_gradient_overflows_is_excluded():
    net = nn.Linear(1, 1, bias=False)
    net.weight.data.fill_(1.0)
    values = an_epoch(net, [torch.tensor([[1.0]]), torch.tensor([[float("inf")]])])
    assert values["gradient_norm/weight"] == 2


def test_a_parameter_without_a_gradient_has_the_norm_0():
    net = nn.Linear(1, 1)
    net.bias.requires_grad_(False)
    assert an_epoch(net, [torch.ones(1, 1)])["gradient_norm/bias"] == 0


def test_an_activations_norm_is_the_rms_of_a_layers_output_in_the_first_batch():
    net = nn.Sequential(nn.Linear(3, 4), nn.ReLU(inplace=True))
    batch = torch.randn(5, 3)
    outputs = batch.double().numpy() @ net[0].weight.detach().double().numpy().T + net[0].bias.detach().numpy()
    values = an_epoch(net, [batch, torch.full((5, 3), 1e6)])
    assert values["activation_rms/0"] == pytest.approx(np.sqrt((outputs**2).mean()), rel=1e-5)
    assert values["activation_rms/1"] == pytest.approx(np.sqrt((outputs.clip(0) ** 2).mean()), rel=1e-5)


def test_hooks_are_removed_after_the_first_batch():
    net = nn.Linear(2, 2)
    an_epoch(net, [torch.ones(1, 2)])
    assert not net._forward_hooks


def test_a_compiled_net_has_no_activation_norms():
    assert {tag.partition("/")[0] for tag in an_epoch(nn.Linear(2, 2), [torch.ones(1, 2)], activations=False)} == {
        "gradient_norm"
    }


def test_each_parameter_and_layer_has_one_point_an_epoch(trained):
    weights, shown = trained("epochs=2")
    kinds = {kind: [tag for tag in shown if tag.startswith(kind)] for kind in ("gradient_norm/", "activation_rms/")}
    assert {tag.partition("/")[2] for tag in kinds["gradient_norm/"]} == {name.removeprefix("net.") for name in weights}
    assert {"activation_rms/conv1", "activation_rms/conv3"} <= set(kinds["activation_rms/"])
    assert {len(shown[tag]) for kind in kinds.values() for tag in kind} == {2}


def test_log_full_changes_no_number(tiny, tmp_path):
    net = ["model=custom", "model._target_=small_nets.Small", "+model.heads=true", "epochs=2", "augment=crop"]
    full, normal = (
        run(compose([*tiny, *net, f"runs_dir={tmp_path / log}", f"log={log}"])) for log in ("full", "normal")
    )
    states = [torch.load(each.directory.last, weights_only=True)["state_dict"] for each in (full, normal)]
    assert all(torch.equal(states[0][key], states[1][key]) for key in states[0])
    assert full.result.metrics == normal.result.metrics
