"""The memory of a training step against counts by hand and what autograd saves."""

from __future__ import annotations

from functools import partial

import pytest
import torch
from torch import nn

from cnnbench.complexity.memory import training_memory
from cnnbench.models.googlenet import GoogLeNet
from cnnbench.models.lenet5 import LeNet5

# ---- memory -------------------------------------------------------------------------------------------------------------

SGD = partial(torch.optim.SGD, lr=0.1)
MOMENTUM = partial(torch.optim.SGD, lr=0.1, momentum=0.9)


def lenet5(device: str) -> nn.Module:
    with torch.device(device):
        return LeNet5(in_channels=1, num_classes=10)


def test_weights_and_gradients_take_four_bytes_a_parameter():
    memory = training_memory(lenet5("meta"), (1, 32, 32), 2, SGD)
    assert (memory.weights, memory.gradients) == (4 * 61_706, 4 * 61_706)


def test_running_statistics_take_memory_but_have_no_gradient():
    net = nn.Sequential(nn.Conv2d(1, 3, 3, bias=False), nn.BatchNorm2d(3), nn.Flatten())
    memory = training_memory(net.to("meta"), (1, 4, 4), 2, SGD)
    assert memory.weights == 4 * (27 + 6 + 6) + 8  # and the count of batches
    assert memory.gradients == 4 * (27 + 6)


def test_frozen_parameters_have_no_gradient_nor_optimizer_state():
    net = lenet5("meta")
    net.conv5.requires_grad_(False)
    memory = training_memory(net, (1, 32, 32), 2, MOMENTUM)
    assert memory.gradients == memory.optimizer == 4 * (61_706 - 48_120)


@pytest.mark.parametrize(
    ("optimizer", "numbers"),
    [
        (SGD, 0),
        (MOMENTUM, 61_706),
        (torch.optim.Adam, 2 * 61_706 + 10),  # two a parameter, and a count of steps for each of ten tensors
        (partial(torch.optim.Adam, amsgrad=True), 3 * 61_706 + 10),
    ],
    ids=["SGD", "momentum", "Adam", "AMSGrad"],
)
def test_an_optimizer_holds_its_averages_for_each_parameter(optimizer, numbers):
    assert training_memory(lenet5("meta"), (1, 32, 32), 2, optimizer).optimizer == 4 * numbers


# Of one image, in bytes: each layer keeps what its gradient needs, ReLU its output (which is the next layer's input), max
# pooling its input and the winners' 8-byte places; the loss keeps its logarithms and labels. One number for each batch: the
# sum of the loss's weights.
KEPT_LINEAR = 4 * (12 + 5 + 3) + 8
KEPT_LENET5 = (
    4 * (32 * 32 + 6 * 28 * 28 + 6 * 14 * 14 + 16 * 10 * 10 + 16 * 5 * 5 + 120 + 84 + 10) + 8 * (6 * 14 * 14) + 8
)


@pytest.mark.parametrize(("batch_size", "device"), [(1, "meta"), (7, "meta"), (2, "cpu")])
def test_two_linear_layers_and_the_loss_save_their_inputs(batch_size, device):
    with torch.device(device):
        net = nn.Sequential(nn.Flatten(), nn.Linear(12, 5), nn.ReLU(), nn.Linear(5, 3))
    memory = training_memory(net, (1, 3, 4), batch_size, SGD)
    assert memory.activations == batch_size * KEPT_LINEAR + 4


@pytest.mark.parametrize(("batch_size", "device"), [(1, "meta"), (64, "meta"), (2, "cpu")])
def test_lenet5_saves_as_much_as_counted_by_hand(batch_size, device):
    memory = training_memory(lenet5(device), (1, 32, 32), batch_size, SGD)
    assert memory.activations == batch_size * KEPT_LENET5 + 4


def test_memory_on_the_cpu_and_on_the_meta_device_agrees():
    on_meta, on_cpu = (training_memory(lenet5(device), (1, 32, 32), 3, torch.optim.Adam) for device in ("meta", "cpu"))
    assert on_meta == on_cpu


def test_nothing_is_saved_before_the_first_trainable_layer():
    frozen = lenet5("meta")
    frozen.conv1.requires_grad_(False)
    kept = training_memory(frozen, (1, 32, 32), 2, SGD).activations
    assert kept == 2 * (KEPT_LENET5 - 4 * (32 * 32 + 6 * 28 * 28) - 8 * (6 * 14 * 14)) + 4


def test_batch_norm_saves_its_input_and_the_batchs_statistics():
    with torch.device("meta"):
        net = nn.Sequential(nn.BatchNorm2d(3), nn.Flatten(), nn.Linear(48, 5))
    kept = training_memory(net, (3, 4, 4), 2, SGD).activations
    images, normalised, loss, per_batch = 2 * 48 * 4, 2 * 48 * 4, 2 * (5 * 4 + 8), 4
    assert kept == images + normalised + loss + per_batch + 2 * 3 * 4  # mean and deviation of three channels


def test_auxiliary_heads_take_memory_in_training():
    sizes = {}
    for heads in (False, True):
        with torch.device("meta"):
            net = GoogLeNet(aux_heads=heads, in_channels=3, num_classes=10)
        sizes[heads] = training_memory(net, (3, 32, 32), 4, SGD)
    assert sizes[True].activations > sizes[False].activations
    assert sizes[True].gradients - sizes[False].gradients == 4 * 4_350_484


def test_the_total_is_the_sum_of_its_parts():
    memory = training_memory(lenet5("meta"), (1, 32, 32), 2, torch.optim.Adam)
    assert memory.total == memory.weights + memory.gradients + memory.optimizer + memory.activations
