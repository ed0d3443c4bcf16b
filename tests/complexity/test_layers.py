"""Parameters, multiply-accumulates and memory against counts by hand, the book's tables and torchvision's published numbers."""

from __future__ import annotations

from functools import partial

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from torchvision import models

from cnnbench.complexity.layers import OUTSIDE_LAYERS, Layer, ModelSummary, count_macs, count_parameters, summarize
from cnnbench.complexity.memory import training_memory
from cnnbench.models.googlenet import GoogLeNet
from cnnbench.models.layers import PoolTo
from cnnbench.models.lenet5 import LeNet5
from cnnbench.models.resnet import ResNet
from cnnbench.ops.convolution import Conv2d as Conv2dByHand
from cnnbench.ops.lenet5 import LeNet5ByHand
from cnnbench.ops.normalization import BatchNorm2d as BatchNorm2dByHand
from cnnbench.ops.pooling import MaxPool2d as MaxPool2dByHand
from cnnbench.ops.pooling import MeanPool2d

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


# ---- layer by layer: the book's tables ----------------------------------------------------------------------------------

BOOK_LENET5 = [  # nndl-practice, section 5.3: output, parameters, FLOPs
    ("conv1", (6, 28, 28), 156, 122_304),
    ("pool2", (6, 14, 14), 0, 0),
    ("conv3", (16, 10, 10), 2_416, 241_600),
    ("pool4", (16, 5, 5), 0, 400),
    ("conv5", (120, 1, 1), 48_120, 48_120),
    ("linear6", (84,), 10_164, 10_080),
    ("linear7", (10,), 850, 840),
]
BOOK_RESNET18 = [  # section 5.4: output, numbers with the running statistics, FLOPs; a convolution and its norm in one line
    ("stem.conv", "stem.norm", (64, 16, 16), (3_200, 256), (819_200, 32_768)),
    ("stage1.0.conv1", "stage1.0.norm1", (64, 8, 8), (36_864, 256), (2_359_296, 8_192)),
    ("stage1.0.conv2", "stage1.0.norm2", (64, 8, 8), (36_864, 256), (2_359_296, 8_192)),
    ("stage1.1.conv1", "stage1.1.norm1", (64, 8, 8), (36_864, 256), (2_359_296, 8_192)),
    ("stage1.1.conv2", "stage1.1.norm2", (64, 8, 8), (36_864, 256), (2_359_296, 8_192)),
    ("stage2.0.conv1", "stage2.0.norm1", (128, 4, 4), (73_728, 512), (1_179_648, 4_096)),
    ("stage2.0.conv2", "stage2.0.norm2", (128, 4, 4), (147_456, 512), (2_359_296, 4_096)),
    ("stage2.0.shortcut.conv", "stage2.0.shortcut.norm", (128, 4, 4), (8_192, 512), (131_072, 4_096)),
    ("stage2.1.conv1", "stage2.1.norm1", (128, 4, 4), (147_456, 512), (2_359_296, 4_096)),
    ("stage2.1.conv2", "stage2.1.norm2", (128, 4, 4), (147_456, 512), (2_359_296, 4_096)),
    ("stage3.0.conv1", "stage3.0.norm1", (256, 2, 2), (294_912, 1_024), (1_179_648, 2_048)),
    ("stage3.0.conv2", "stage3.0.norm2", (256, 2, 2), (589_824, 1_024), (2_359_296, 2_048)),
    ("stage3.0.shortcut.conv", "stage3.0.shortcut.norm", (256, 2, 2), (32_768, 1_024), (131_072, 2_048)),
    ("stage3.1.conv1", "stage3.1.norm1", (256, 2, 2), (589_824, 1_024), (2_359_296, 2_048)),
    ("stage3.1.conv2", "stage3.1.norm2", (256, 2, 2), (589_824, 1_024), (2_359_296, 2_048)),
    ("stage4.0.conv1", "stage4.0.norm1", (512, 1, 1), (1_179_648, 2_048), (1_179_648, 1_024)),
    ("stage4.0.conv2", "stage4.0.norm2", (512, 1, 1), (2_359_296, 2_048), (2_359_296, 1_024)),
    ("stage4.0.shortcut.conv", "stage4.0.shortcut.norm", (512, 1, 1), (131_072, 2_048), (131_072, 1_024)),
    ("stage4.1.conv1", "stage4.1.norm1", (512, 1, 1), (2_359_296, 2_048), (2_359_296, 1_024)),
    ("stage4.1.conv2", "stage4.1.norm2", (512, 1, 1), (2_359_296, 2_048), (2_359_296, 1_024)),
]
BOTH = [LeNet5, LeNet5ByHand]


def resnet18(bias: bool, **knobs) -> nn.Module:
    with torch.device("meta"):
        return ResNet(18, "imagenet", bias, in_channels=1, num_classes=10, **knobs)


def statistics(module: nn.Module) -> int:
    """Running means and variances."""
    return sum(value.numel() for value in module.buffers() if value.is_floating_point())


def rows(summary: ModelSummary) -> dict[str, Layer]:
    return {layer.name: layer for layer in summary.layers}


@pytest.mark.parametrize("build", BOTH)
def test_lenet5_has_the_rows_of_the_books_table(build):
    layers = rows(summarize(build(in_channels=1, num_classes=10), (1, 32, 32)))
    for name, output, params, flops in BOOK_LENET5:
        assert (layers[name].output, layers[name].params, layers[name].book_flops) == (output, params, flops), name


@pytest.mark.parametrize("build", BOTH)
def test_lenet5_has_the_books_totals(build):
    summary = summarize(build(in_channels=1, num_classes=10), (1, 32, 32))
    found = [summary.total(key) for key in ("params", "book_flops", "macs")]
    assert found == [61_706, 423_344, 416_520]


def test_lenet5_by_hand_has_every_row_of_its_twin():
    summaries = [summarize(build(in_channels=1, num_classes=10), (1, 32, 32)) for build in BOTH]
    ours, twins = (
        [
            (row.name, row.input, row.output, row.params, row.macs, row.book_flops, row.activations)
            for row in summary.layers
        ]
        for summary in summaries
    )
    assert ours == twins


def test_resnet18_has_the_rows_of_the_books_table():
    net = resnet18(bias=True)
    layers = rows(summarize(net, (1, 32, 32)))
    for conv, norm, output, numbers, flops in BOOK_RESNET18:
        for name, count, work in zip((conv, norm), numbers, flops, strict=True):
            row = layers[name]
            found = (row.output, row.params + statistics(net.get_submodule(name)), row.book_flops)
            assert found == (output, count, work), name


def test_resnet18s_poolings_and_linear_layer_are_the_books():
    layers = rows(summarize(resnet18(bias=True), (1, 32, 32)))
    found = {name: (layers[name].params, layers[name].book_flops) for name in ("stem.pool", "pool", "linear")}
    assert found == {"stem.pool": (0, 0), "pool": (0, 1_024), "linear": (5_130, 5_120)}


@pytest.mark.parametrize(("bias", "flops"), [(True, 35_529_728), (False, 35_513_344)])
def test_resnet18_has_the_books_flops_with_and_without_the_stems_bias(bias, flops):
    assert summarize(resnet18(bias), (1, 32, 32)).total("book_flops") == flops


def test_resnet18_has_the_books_parameters_with_the_running_statistics():
    net = resnet18(bias=True)
    assert summarize(net, (1, 32, 32)).total("params") == 11_175_434
    assert summarize(net, (1, 32, 32)).total("params") + statistics(net) == 11_185_034


def test_the_rows_are_in_the_books_order():
    written = [name for conv, norm, *_ in BOOK_RESNET18 for name in (conv, norm)]
    layers = [row.name for row in summarize(resnet18(bias=True), (1, 32, 32)).layers]
    assert [name for name in layers if name in written] == written


def test_the_books_convolution_has_168_parameters_and_151200_flops():
    row = summarize(nn.Conv2d(3, 6, 3), (3, 32, 32)).layers[0]
    assert (row.params, row.book_flops, row.output) == (168, 151_200, (6, 30, 30))


MAP, OUT = (4, 6, 6), 4 * 6 * 6
BOOK_RULES = {  # layer on a map of 4 × 6 × 6: the book's FLOPs
    "convolution with a bias": (nn.Conv2d(4, 5, 3), 5 * 16 * (4 * 9 + 1)),
    "convolution without": (nn.Conv2d(4, 5, 3, bias=False), 5 * 16 * 4 * 9),
    "grouped convolution": (nn.Conv2d(4, 8, 3, groups=2), 8 * 16 * (2 * 9 + 1)),
    "convolution by hand": (Conv2dByHand(4, 5, 3), 5 * 16 * (4 * 9 + 1)),
    "batch norm": (nn.BatchNorm2d(4), 2 * OUT),
    "batch norm by hand": (BatchNorm2dByHand(4), 2 * OUT),
    "average pooling": (nn.AvgPool2d(2), 4 * 9),
    "average pooling by hand": (MeanPool2d(2), 4 * 9),
    "average pooling that overlaps": (nn.AvgPool2d(3, 1, 1), OUT),
    "adaptive average pooling": (nn.AdaptiveAvgPool2d(3), 4 * 9),
    "global average pooling": (nn.AdaptiveAvgPool2d(1), 2 * 4),
    "pooling to the size that it is": (PoolTo(6), 0),
    "pooling to another size": (PoolTo(2), 4 * 4),
    "max pooling": (nn.MaxPool2d(2), 0),
    "max pooling by hand": (MaxPool2dByHand(2), 0),
    "global max pooling": (nn.AdaptiveMaxPool2d(1), 0),
    "ReLU": (nn.ReLU(), 0),
    "sigmoid": (nn.Sigmoid(), 0),
    "flattening": (nn.Flatten(), 0),
    "dropout": (nn.Dropout(), 0),
    "linear with a bias": (nn.Linear(6, 7), 4 * 6 * 6 * 7),
    "linear without": (nn.Linear(6, 7, bias=False), 4 * 6 * 6 * 7),
}


@pytest.mark.parametrize("what", BOOK_RULES)
def test_a_layer_counts_as_in_the_book(what):
    layer, flops = BOOK_RULES[what]
    assert summarize(layer, MAP).total("book_flops") == flops


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
    assert all(row.name != OUTSIDE_LAYERS for row in summarize(resnet18(bias=True), (1, 32, 32)).layers)


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
