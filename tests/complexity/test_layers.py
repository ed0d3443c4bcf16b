"""Parameters and multiply-accumulates against counts by hand and torchvision's published numbers; the rows of a summary."""

from __future__ import annotations

from functools import partial

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from torchvision import models

from cnnbench.complexity.layers import OUTSIDE_LAYERS, count_macs, count_parameters, summarize
from cnnbench.models.googlenet import GoogLeNet
from cnnbench.models.resnet import ResNet

PUBLISHED = {
    "alexnet": (models.alexnet, models.AlexNet_Weights.IMAGENET1K_V1),
    "vgg11_bn": (models.vgg11_bn, models.VGG11_BN_Weights.IMAGENET1K_V1),
    "resnet18": (models.resnet18, models.ResNet18_Weights.IMAGENET1K_V1),
    "resnext50_32x4d": (models.resnext50_32x4d, models.ResNeXt50_32X4D_Weights.IMAGENET1K_V1),
    "mobilenet_v2": (models.mobilenet_v2, models.MobileNet_V2_Weights.IMAGENET1K_V1),
}


@pytest.mark.parametrize("name", PUBLISHED)
def test_parameters_equal_torchvisions_published_numbers(name):
    build, weights = PUBLISHED[name]
    with torch.device("meta"):
        assert count_parameters(build()) == weights.meta["num_params"]


@pytest.mark.parametrize("name", PUBLISHED)
def test_macs_equal_torchvisions_published_numbers(name):
    build, weights = PUBLISHED[name]
    with torch.device("meta"):
        net = build()
    published = weights.meta["_ops"]  # to 3 places
    assert count_macs(net, (3, 224, 224)) / 1e9 == pytest.approx(published, abs=6e-4)


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
def test_macs_of_a_convolution_are_kernel_size_times_outputs(case):
    layer, height, width = case
    sides = [
        (side + 2 * layer["padding"] - layer["dilation"] * (layer["kernel_size"] - 1) - 1) // layer["stride"] + 1
        for side in (height, width)
    ]
    kernel = layer["in_channels"] // layer["groups"] * layer["kernel_size"] ** 2
    expected = sides[0] * sides[1] * layer["out_channels"] * kernel
    assert count_macs(nn.Conv2d(**layer, device="meta"), (layer["in_channels"], height, width)) == expected


@settings(deadline=None, max_examples=60)
@given(convolutions())
def test_a_convolution_has_its_kernels_and_biases_as_parameters(case):
    layer, _, _ = case
    kernel = layer["in_channels"] // layer["groups"] * layer["kernel_size"] ** 2
    expected = layer["out_channels"] * (kernel + layer["bias"])
    assert count_parameters(nn.Conv2d(**layer, device="meta")) == expected


@pytest.mark.parametrize("bias", [True, False])
def test_macs_of_a_linear_layer_are_inputs_times_outputs_with_or_without_bias(bias):
    net = nn.Sequential(nn.Flatten(), nn.Linear(48, 7, bias=bias))
    assert count_macs(net, (3, 4, 4)) == 48 * 7


def test_a_linear_layer_over_positions_counts_each_of_them():
    assert count_macs(nn.Linear(5, 7), (2, 3, 5)) == 2 * 3 * 5 * 7


def test_an_odd_count_of_macs_is_exact():
    assert count_macs(nn.Conv2d(1, 1, 3), (1, 3, 3)) == 9


def test_activations_pooling_and_normalization_have_no_macs():
    net = nn.Sequential(nn.BatchNorm2d(3), nn.ReLU(), nn.MaxPool2d(2), nn.AvgPool2d(2), nn.Dropout())
    assert count_macs(net, (3, 8, 8)) == 0


def test_a_net_without_parameters_has_none_and_can_be_counted():
    assert (count_parameters(nn.ReLU()), count_macs(nn.ReLU(), (1, 4, 4))) == (0, 0)


def test_frozen_parameters_do_not_count():
    net = nn.Sequential(nn.Linear(3, 4), nn.Linear(4, 2))
    net[0].requires_grad_(False)
    assert count_parameters(net) == 4 * 2 + 2


def test_shared_parameters_count_once():
    layer = nn.Linear(3, 3)
    assert count_parameters(nn.Sequential(layer, nn.ReLU(), layer)) == 3 * 3 + 3


def test_a_layer_that_is_used_twice_is_computed_twice():
    layer = nn.Linear(3, 3)
    assert count_macs(nn.Sequential(layer, nn.ReLU(), layer), (1, 1, 3)) == 2 * 9


def test_buffers_are_not_parameters():
    assert count_parameters(nn.BatchNorm2d(5)) == 2 * 5


@pytest.mark.parametrize("training", [True, False])
def test_counting_keeps_the_mode(training):
    net = nn.Sequential(nn.Conv2d(1, 2, 3), nn.Dropout()).train(training)
    count_macs(net, (1, 8, 8))
    assert [module.training for module in net.modules()] == [training] * 3


def test_counting_keeps_running_statistics_and_weights():
    net = nn.Sequential(nn.Conv2d(1, 2, 3), nn.BatchNorm2d(2))
    before = {name: value.clone() for name, value in net.state_dict().items()}
    count_macs(net, (1, 8, 8))
    assert all(torch.equal(value, before[name]) for name, value in net.state_dict().items())


def test_counting_one_image_works_where_batch_norm_could_not_train_on_it():
    net = nn.Sequential(nn.Conv2d(1, 2, 3), nn.BatchNorm2d(2))
    assert count_macs(net, (1, 3, 3)) == 18


def test_counts_on_the_cpu_and_on_the_meta_device_agree():
    build = models.squeezenet1_1
    with torch.device("meta"):
        without_memory = build(num_classes=3)
    with_memory = build(num_classes=3)
    assert count_parameters(with_memory) == count_parameters(without_memory)
    assert count_macs(with_memory, (3, 32, 32)) == count_macs(without_memory, (3, 32, 32)) > 0


def test_a_net_whose_output_is_a_parameter_has_no_macs():
    class Bias(nn.Module):
        def __init__(self):
            super().__init__()
            self.bias = nn.Parameter(torch.zeros(10))

        def forward(self, x):
            return self.bias.expand(len(x), -1)

    assert count_macs(Bias(), (1, 8, 8)) == 0


# ---- rows and totals ----------------------------------------------------------------------------------------------------


class Functional(nn.Module):
    """Two parameters outside of layers and one layer; the last linear map is a function."""

    def __init__(self):
        super().__init__()
        self.scale, self.weight = nn.Parameter(torch.ones(3, 1, 1)), nn.Parameter(torch.ones(7, 3))
        self.conv = nn.Conv2d(3, 3, 3)

    def forward(self, x):
        return F.linear(self.conv(self.scale * x).mean((2, 3)), self.weight)


class Attention(nn.Module):
    """Each pixel attends to all others; the layer within the layer is never called."""

    def __init__(self):
        super().__init__()
        self.attention = nn.MultiheadAttention(4, 2, batch_first=True)

    def forward(self, x):
        pixels = x.flatten(2).transpose(1, 2)  # (N, H W, 4)
        return self.attention(pixels, pixels, pixels, need_weights=False)[0]


class OtherOrder(nn.Module):
    """Defined in one order, run in another, with a layer that is never called."""

    def __init__(self):
        super().__init__()
        self.last, self.unused, self.first = nn.Conv2d(2, 3, 1), nn.Conv2d(5, 5, 5), nn.Conv2d(1, 2, 1)

    def forward(self, x):
        return self.last(self.first(x))


def test_layers_are_in_the_order_in_which_they_run():
    assert [row.name for row in summarize(OtherOrder(), (1, 4, 4)).layers][:2] == ["first", "last"]


def test_a_row_has_shapes_without_the_batch_dimension_and_the_number_of_activations():
    row = summarize(nn.Conv2d(2, 5, 3, stride=2, padding=1), (2, 9, 7)).layers[0]
    assert (row.input, row.output, row.activations) == ((2, 9, 7), (5, 5, 4), 5 * 5 * 4)


def test_a_net_that_is_one_layer_is_called_by_its_class():
    row = summarize(nn.Conv2d(1, 1, 3), (1, 4, 4)).layers[0]
    assert (row.name, row.type) == ("Conv2d", "Conv2d")


def test_activations_are_the_elements_of_layer_outputs():
    net = nn.Sequential(nn.Conv2d(1, 2, 3), nn.ReLU(), nn.MaxPool2d(2), nn.Flatten(), nn.Linear(18, 4))
    summary = summarize(net, (1, 8, 8))
    assert [row.activations for row in summary.layers] == [72, 72, 18, 18, 4]
    assert summary.total("activations") == 184


def test_a_layer_that_runs_twice_has_its_parameters_once_and_its_work_twice():
    layer = nn.Linear(3, 3)
    first, _, second = summarize(nn.Sequential(layer, nn.ReLU(), layer), (1, 1, 3)).layers
    assert [(row.params, row.macs) for row in (first, second)] == [(12, 9), (0, 9)]


def test_parameters_that_two_layers_share_are_those_of_the_first():
    first, second = nn.Linear(3, 3), nn.Linear(3, 3)
    second.weight = first.weight
    summary = summarize(nn.Sequential(first, second), (1, 1, 3))
    assert [row.params for row in summary.layers] == [12, 3]
    assert summary.total("params") == 15


def test_operations_outside_of_layers_have_the_last_row():
    summary = summarize(Functional(), (3, 6, 6))
    assert [row.name for row in summary.layers] == ["conv", OUTSIDE_LAYERS]
    last = summary.layers[-1]
    assert (last.params, last.macs, last.book_flops) == (3 + 21, 21, 21)


@pytest.mark.parametrize(("build", "shape"), [(Functional, (3, 6, 6)), (OtherOrder, (1, 6, 6)), (Attention, (4, 3, 3))])
def test_totals_are_those_of_the_whole_net(build, shape):
    with torch.device("meta"):
        net = build()
    summary = summarize(net, shape)
    assert (summary.total("params"), summary.total("macs")) == (count_parameters(net), count_macs(net, shape))
    assert summary.total("macs") > 0


@pytest.mark.parametrize("device", ["meta", "cpu"])
def test_attention_counts_its_matrix_products_on_every_device(device):
    with torch.device(device):
        summary = summarize(Attention(), (4, 3, 3))
    tokens, width = 9, 4
    projections = 4 * tokens * width**2  # queries, keys, values, output
    assert summary.total("macs") == projections + 2 * tokens**2 * width
    assert summary.idle == {}


def test_without_operations_outside_of_layers_there_is_no_row_for_them():
    with torch.device("meta"):
        net = ResNet(18, "imagenet", in_channels=1, num_classes=10)
    assert all(row.name != OUTSIDE_LAYERS for row in summarize(net, (1, 32, 32)).layers)


def test_a_layer_that_is_never_called_is_idle():
    summary = summarize(OtherOrder(), (1, 4, 4))
    assert summary.idle == {"unused.weight": 5 * 5 * 25, "unused.bias": 5}


def test_a_parameter_that_a_function_uses_is_not_idle():
    assert summarize(Functional(), (3, 6, 6)).idle == {}


def test_googlenets_heads_are_idle_and_counted():
    with torch.device("meta"):
        net = GoogLeNet(aux_heads=True, in_channels=3, num_classes=1000)
    summary = summarize(net, (3, 64, 64))
    assert {name.split(".")[0] for name in summary.idle} == {"aux1", "aux2"}
    assert summary.total("params") == count_parameters(net) == 7_005_832 + sum(summary.idle.values())


def test_frozen_parameters_are_neither_counted_nor_idle():
    net = OtherOrder()
    net.first.requires_grad_(False)
    net.unused.requires_grad_(False)
    summary = summarize(net, (1, 4, 4))
    assert [row.params for row in summary.layers] == [0, 9]
    assert summary.idle == {}


def test_an_identity_has_no_row():
    assert [row.type for row in summarize(nn.Sequential(nn.Identity(), nn.ReLU()), (1, 2, 2)).layers] == ["ReLU"]


ACCOUNTED = {
    "alexnet": (models.alexnet, models.AlexNet_Weights.IMAGENET1K_V1),
    "vgg11_bn": (models.vgg11_bn, models.VGG11_BN_Weights.IMAGENET1K_V1),
    "resnet18": (models.resnet18, models.ResNet18_Weights.IMAGENET1K_V1),
    "densenet121": (models.densenet121, models.DenseNet121_Weights.IMAGENET1K_V1),
    "mobilenet_v2": (models.mobilenet_v2, models.MobileNet_V2_Weights.IMAGENET1K_V1),
    "googlenet": (
        partial(models.googlenet, aux_logits=False, init_weights=False),
        models.GoogLeNet_Weights.IMAGENET1K_V1,
    ),
}


@pytest.mark.parametrize("name", ACCOUNTED)
def test_the_rows_of_torchvisions_nets_add_up_to_what_it_publishes(name):
    build, weights = ACCOUNTED[name]
    with torch.device("meta"):
        summary = summarize(build(), (3, 224, 224))
    assert summary.total("params") == weights.meta["num_params"]
    assert summary.total("macs") / 1e9 == pytest.approx(weights.meta["_ops"], abs=6e-4)  # published to 3 places


# ---- side effects of a summary, and nets that fail -------------------------------------------------------------


def state_of(net: nn.Module) -> list:
    """Modes, hooks, forward methods, gradients wanted and held, and every value."""
    return [
        [(m.training, len(m._forward_hooks), len(m._forward_pre_hooks), vars(m).get("forward")) for m in net.modules()],
        [(p.requires_grad, p.grad is None) for p in net.parameters()],
        [value.tolist() for value in net.state_dict().values()],
    ]


def mixed_net() -> nn.Module:
    """In training but for its norm, with a frozen bias and a hook."""
    net = nn.Sequential(nn.Conv2d(1, 2, 3), nn.BatchNorm2d(2), nn.Dropout(), nn.ReLU(inplace=True), nn.Flatten())
    net.append(nn.Linear(72, 2))
    net[1].eval()
    net[0].bias.requires_grad_(False)
    net[3].register_forward_hook(lambda module, inputs, output: None)
    return net


@pytest.mark.parametrize("side", [8, 9])
def test_a_summary_leaves_the_net_unchanged_also_if_it_fails(side):
    net = mixed_net()
    before = state_of(net)
    assert (summarize(net, (1, side, side)).failure is not None) == (side == 9)
    assert state_of(net) == before


def test_a_summary_keeps_gradients_enabled():
    summarize(nn.Conv2d(1, 1, 1), (1, 2, 2))
    assert torch.is_grad_enabled()
    assert not torch.is_inference_mode_enabled()


def test_a_failure_has_its_layer_its_input_and_the_layers_before_it():
    net = nn.Sequential(nn.Conv2d(1, 2, 3), nn.ReLU(), nn.Conv2d(4, 1, 1), nn.ReLU())
    summary = summarize(net, (1, 8, 8))
    assert (summary.failure.name, summary.failure.layer, summary.failure.input) == ("2", net[2], (2, 6, 6))
    assert isinstance(summary.failure.error, RuntimeError)
    assert [row.name for row in summary.layers] == ["0", "1"]


def test_a_failure_between_layers_names_no_layer():
    class Reshaping(nn.Module):
        def __init__(self):
            super().__init__()
            self.conv = nn.Conv2d(1, 2, 3)

        def forward(self, x):
            return self.conv(x).view(1, 5)

    failure = summarize(Reshaping(), (1, 8, 8)).failure
    assert (failure.name, failure.layer) == ("", None)


def test_a_net_that_runs_to_its_end_has_no_failure():
    assert summarize(nn.ReLU(), (1, 2, 2)).failure is None


def test_summaries_on_the_cpu_and_on_the_meta_device_agree():
    with torch.device("meta"):
        without_memory = models.squeezenet1_1(num_classes=3)
    expected = summarize(without_memory, (3, 32, 32))
    assert summarize(models.squeezenet1_1(num_classes=3), (3, 32, 32)).layers == expected.layers
    assert len(expected.layers) > 50
