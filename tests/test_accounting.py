"""Parameters and multiply-accumulates against hand counts, the layers' formulas and torchvision's published numbers."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from torchvision import models

from cnnbench.accounting import macs, parameters

PUBLISHED = {
    "alexnet": (models.alexnet, models.AlexNet_Weights.IMAGENET1K_V1),
    "vgg11_bn": (models.vgg11_bn, models.VGG11_BN_Weights.IMAGENET1K_V1),
    "resnet18": (models.resnet18, models.ResNet18_Weights.IMAGENET1K_V1),
    "resnext50_32x4d": (models.resnext50_32x4d, models.ResNeXt50_32X4D_Weights.IMAGENET1K_V1),
    "mobilenet_v2": (models.mobilenet_v2, models.MobileNet_V2_Weights.IMAGENET1K_V1),
}


@pytest.mark.parametrize("name", PUBLISHED)
def test_parameters_are_those_that_torchvision_publishes(name):
    build, weights = PUBLISHED[name]
    with torch.device("meta"):
        assert parameters(build()) == weights.meta["num_params"]


@pytest.mark.parametrize("name", PUBLISHED)
def test_macs_are_those_that_torchvision_publishes(name):
    build, weights = PUBLISHED[name]
    with torch.device("meta"):
        net = build()
    assert macs(net, (3, 224, 224)) / 1e9 == pytest.approx(weights.meta["_ops"], abs=6e-4)  # published to 3 places


@st.composite
def convolutions(draw):
    groups = draw(st.sampled_from([1, 2, 4]))
    layer = {
        "in_channels": groups * draw(st.integers(1, 3)),
        "out_channels": groups * draw(st.integers(1, 3)),
        "kernel_size": draw(st.integers(1, 4)),
        "stride": draw(st.integers(1, 3)),
        "padding": draw(st.integers(0, 2)),
        "dilation": draw(st.integers(1, 2)),
        "groups": groups,
        "bias": draw(st.booleans()),
    }
    return layer, draw(st.integers(8, 15)), draw(st.integers(8, 15))


@settings(deadline=None, max_examples=60)
@given(convolutions())
def test_a_convolution_takes_its_kernel_times_its_outputs(case):
    layer, height, width = case
    sides = [
        (side + 2 * layer["padding"] - layer["dilation"] * (layer["kernel_size"] - 1) - 1) // layer["stride"] + 1
        for side in (height, width)
    ]
    kernel = layer["in_channels"] // layer["groups"] * layer["kernel_size"] ** 2
    expected = sides[0] * sides[1] * layer["out_channels"] * kernel
    assert macs(nn.Conv2d(**layer, device="meta"), (layer["in_channels"], height, width)) == expected


@settings(deadline=None, max_examples=60)
@given(convolutions())
def test_a_convolution_has_its_kernels_and_biases_as_parameters(case):
    layer, _, _ = case
    kernel = layer["in_channels"] // layer["groups"] * layer["kernel_size"] ** 2
    expected = layer["out_channels"] * (kernel + layer["bias"])
    assert parameters(nn.Conv2d(**layer, device="meta")) == expected


@pytest.mark.parametrize("bias", [True, False])
def test_a_linear_layer_takes_inputs_times_outputs_with_or_without_bias(bias):
    net = nn.Sequential(nn.Flatten(), nn.Linear(48, 7, bias=bias))
    assert macs(net, (3, 4, 4)) == 48 * 7


def test_a_linear_layer_over_positions_counts_each_of_them():
    assert macs(nn.Linear(5, 7), (2, 3, 5)) == 2 * 3 * 5 * 7


def test_an_odd_count_of_macs_is_exact():
    assert macs(nn.Conv2d(1, 1, 3), (1, 3, 3)) == 9


def test_activations_pooling_and_normalisation_count_nothing():
    net = nn.Sequential(nn.BatchNorm2d(3), nn.ReLU(), nn.MaxPool2d(2), nn.AvgPool2d(2), nn.Dropout())
    assert macs(net, (3, 8, 8)) == 0


def test_a_net_without_parameters_has_none_and_can_be_counted():
    assert (parameters(nn.ReLU()), macs(nn.ReLU(), (1, 4, 4))) == (0, 0)


def test_frozen_parameters_do_not_count():
    net = nn.Sequential(nn.Linear(3, 4), nn.Linear(4, 2))
    net[0].requires_grad_(False)
    assert parameters(net) == 4 * 2 + 2


def test_shared_parameters_count_once():
    layer = nn.Linear(3, 3)
    assert parameters(nn.Sequential(layer, nn.ReLU(), layer)) == 3 * 3 + 3


def test_a_layer_that_is_used_twice_is_computed_twice():
    layer = nn.Linear(3, 3)
    assert macs(nn.Sequential(layer, nn.ReLU(), layer), (1, 1, 3)) == 2 * 9


def test_buffers_are_not_parameters():
    assert parameters(nn.BatchNorm2d(5)) == 2 * 5


@pytest.mark.parametrize("training", [True, False])
def test_counting_leaves_the_mode_as_it_was(training):
    net = nn.Sequential(nn.Conv2d(1, 2, 3), nn.Dropout()).train(training)
    macs(net, (1, 8, 8))
    assert [module.training for module in net.modules()] == [training] * 3


def test_counting_leaves_running_statistics_and_weights_as_they_were():
    net = nn.Sequential(nn.Conv2d(1, 2, 3), nn.BatchNorm2d(2))
    before = {name: value.clone() for name, value in net.state_dict().items()}
    macs(net, (1, 8, 8))
    assert all(torch.equal(value, before[name]) for name, value in net.state_dict().items())


def test_counting_one_image_works_where_batch_norm_could_not_train_on_it():
    net = nn.Sequential(nn.Conv2d(1, 2, 3), nn.BatchNorm2d(2))
    assert macs(net, (1, 3, 3)) == 18


def test_counts_on_the_cpu_and_on_the_meta_device_agree():
    build = models.squeezenet1_1
    with torch.device("meta"):
        without_memory = build(num_classes=3)
    with_memory = build(num_classes=3)
    assert parameters(with_memory) == parameters(without_memory)
    assert macs(with_memory, (3, 32, 32)) == macs(without_memory, (3, 32, 32)) > 0


def test_a_net_whose_answer_is_a_parameter_has_no_macs():
    class Bias(nn.Module):
        def __init__(self):
            super().__init__()
            self.bias = nn.Parameter(torch.zeros(10))

        def forward(self, x):
            return self.bias.expand(len(x), -1)

    assert macs(Bias(), (1, 8, 8)) == 0
