"""The layers of LeNet-5 and ResNet-18 against the book's tables, and its rules for counting."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from cnnbench.complexity.layers import Layer, ModelSummary, summarize
from cnnbench.models.layers import PoolTo
from cnnbench.models.lenet5 import LeNet5
from cnnbench.models.resnet import ResNet
from cnnbench.ops.convolution import Conv2d as Conv2dByHand
from cnnbench.ops.lenet5 import LeNet5ByHand
from cnnbench.ops.normalization import BatchNorm2d as BatchNorm2dByHand
from cnnbench.ops.pooling import MaxPool2d as MaxPool2dByHand
from cnnbench.ops.pooling import MeanPool2d

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
