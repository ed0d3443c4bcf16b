"""Receptive fields against the textbooks' recursion, published numbers, and the pixels that a gradient reaches."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
import torchvision
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from torch import nn

from cnnbench.complexity.layers import Layer, summarize
from cnnbench.complexity.receptive_field import Axis
from cnnbench.config.compose import conf_dir
from cnnbench.models.lenet_leaky import SqueezeExcitation
from cnnbench.models.residual import PadChannels
from cnnbench.ops import pooling
from cnnbench.ops.lenet5 import LeNet5ByHand
from receptive_fields import Call, both, build, predicted, reached, seen_by, traced

NAMES = sorted(file.stem for file in (conf_dir() / "model").glob("*.yaml") if file.stem != "custom")
BY_HAND = "lenet5_by_hand"
VARIANTS = [  # files of conf/model/, and knobs that are turned
    *("resnet18 stem=imagenet", "resnet50 stem=imagenet", "resnet20 shortcut=B", "resnet20 preactivation=true"),
    *("googlenet branch5x5=double3", "lenet_3x3 se=true", "lenet5 pooling=mean", "lenet_leaky stride=2"),
]


MOST_LAYERS = 24  # of a net whose gradients are looked at


# ---- the textbooks' recursion and published numbers -------------------------------------------------------------------


def textbook(chain) -> int:
    """r <- r + (k - 1) j, j <- j s, over (kernel, stride): Araujo, Norris, Sim 2019, "Computing receptive fields", section 2."""
    field, jump = 1, 1
    for kernel, stride in chain:
        field += (kernel - 1) * jump
        jump *= stride
    return field


def vgg(*convolutions: int) -> list[tuple[int, int]]:
    """Stages of so many 3×3 convolutions, each stage with its 2×2 pooling."""
    return [pair for count in convolutions for pair in [(3, 1)] * count + [(2, 2)]]


def resnet(blocks: list[int], convolutions: int) -> list[tuple[int, int]]:
    """The 7×7 stem with its pooling, then stages of so many blocks of so many 3×3 convolutions."""
    chain = [(7, 2), (3, 2)] + [(3, 1)] * blocks[0] * convolutions
    for count in blocks[1:]:
        chain += [(3, 2)] + [(3, 1)] * (count * convolutions - 1)
    return chain


ALEXNET = [(11, 4), (3, 2), (5, 1), (3, 2), (3, 1), (3, 1), (3, 1), (3, 2)]
GOOGLENET = [(7, 2), (3, 2), (3, 1), (3, 2), *[(5, 1)] * 2, (3, 2), *[(5, 1)] * 5, (2, 2), *[(5, 1)] * 2]
PUBLISHED = {  # case, layer: (pixels, chain)
    ("alexnet", "features.pool5"): (195, ALEXNET),
    ("alexnet", "features.conv5"): (163, ALEXNET[:-1]),
    ("vgg16", "stage5.pool5"): (212, vgg(2, 2, 3, 3, 3)),
    ("vgg16", "stage5.conv5_3"): (196, vgg(2, 2, 3, 3, 3)[:-1]),
    ("vgg11", "stage5.pool5"): (150, vgg(1, 1, 2, 2, 2)),
    ("vgg19", "stage5.pool5"): (268, vgg(2, 2, 4, 4, 4)),
    ("resnet18 stem=imagenet", "stage4.1.conv2"): (435, resnet([2, 2, 2, 2], 2)),
    ("resnet34 stem=imagenet", "stage4.2.conv2"): (899, resnet([3, 4, 6, 3], 2)),
    ("resnet50 stem=imagenet", "stage4.2.conv3"): (427, resnet([3, 4, 6, 3], 1)),  # stride in the 3×3
    ("googlenet", "inception5b.branch5x5.conv.conv"): (699, GOOGLENET),
    ("resnet20", "stage3.2.conv2"): (81, [(3, 1)] * 7 + [(3, 2)] + [(3, 1)] * 5 + [(3, 2)] + [(3, 1)] * 5),
}


@pytest.mark.parametrize(("case", "layer"), PUBLISHED)
def test_a_net_has_the_published_receptive_field(case, layer):
    pixels, chain = PUBLISHED[case, layer]
    assert textbook(chain) == pixels
    net, side = build(case, side=224)
    found = {row.name: row.receptive_field for row in summarize(net, (3, side, side)).layers}
    assert found[layer] == pixels


def test_torchvisions_vgg_with_in_place_relu_has_the_published_receptive_field():
    with torch.device("meta"):
        net = torchvision.models.vgg16_bn().features.eval()
    rows, columns = seen_by(net, 3, 224, 224)
    assert (rows.size, columns.size, rows.jump) == (212, 212, 32)


@pytest.mark.parametrize(("count", "kernel"), [(2, 5), (3, 7)])
@pytest.mark.parametrize("padded", [True, False])
def test_stacked_3x3_convolutions_have_the_receptive_field_of_one_larger(count, kernel, padded):
    stack = nn.Sequential(*(nn.Conv2d(1, 1, 3, padding=int(padded)) for _ in range(count)))
    single = nn.Conv2d(1, 1, kernel, padding=kernel // 2 * padded)
    assert seen_by(stack, 1, 16, 16) == seen_by(single, 1, 16, 16)
    assert seen_by(single, 1, 16, 16)[0].size == kernel


def test_rows_and_columns_are_independent():
    net = nn.Sequential(nn.Conv2d(1, 1, (3, 5), stride=(2, 1), padding=(0, 2)), nn.MaxPool2d((1, 4), stride=(3, 2)))
    assert seen_by(net, 1, 20, 30) == (Axis(0, 6, 3), Axis(-2, 2, 8))


def test_a_layers_row_has_the_longer_side_and_the_larger_stride():
    row = summarize(nn.Conv2d(1, 1, (3, 7), stride=(4, 2)), (1, 20, 20)).layers[0]
    assert (row.receptive_field, row.stride) == (7, 4)


def transparent(net: nn.Module) -> nn.Module:
    """The same net with nothing in it that could cancel or stop a gradient, and hardly any work.

    Convolutions are all positive and give one channel, the mean of what all would give; poolings are means; norms do nothing.
    Windows, strides, paddings and branches stay. Parameters are not used and may be on the meta device.
    """
    generator = torch.Generator().manual_seed(0)

    def convolve(layer: nn.Conv2d):
        kernel = torch.rand(1, 1, *layer.kernel_size, dtype=torch.double, generator=generator) + 0.5
        kernel /= kernel.sum()
        return lambda x: F.conv2d(x.mean(1, keepdim=True), kernel, None, layer.stride, layer.padding, layer.dilation)

    def pool(layer: nn.MaxPool2d):
        return lambda x: F.avg_pool2d(x, layer.kernel_size, layer.stride, layer.padding, layer.ceil_mode)

    def linear(layer: nn.Linear):
        return lambda x: x.mean(-1, keepdim=True).expand(*x.shape[:-1], layer.out_features)

    substitutes = {
        nn.Conv2d: convolve,
        nn.MaxPool2d: pool,
        nn.Linear: linear,
        nn.BatchNorm2d: lambda layer: lambda x: x,
    }
    for module in net.modules():
        if type(module) in substitutes:
            module.forward = substitutes[type(module)](module)
    return net


def evenly(layer: Layer) -> bool:
    """Whether its windows reach the last pixel."""
    size, stride, padding, dilation = layer.window
    return (layer.input[-1] + 2 * padding - dilation * (size - 1) - 1) % stride <= padding


def some(layers: list[Layer]) -> list[Layer]:
    """Not more than `MOST_LAYERS` or so: every k-th, and the last of each resolution."""
    if len(layers) <= MOST_LAYERS:
        return layers
    last = {layer.stride: layer for layer in layers}
    every = -(-len(layers) // (MOST_LAYERS - len(last)))
    return [layer for index, layer in enumerate(layers) if index % every == 0 or layer is last[layer.stride]]


@pytest.mark.slow
@pytest.mark.parametrize("case", [*(name for name in NAMES if name != BY_HAND), *VARIANTS])
def test_receptive_fields_of_a_net_are_the_pixels_that_gradients_reach(case):
    net, side = build(case)
    rows, axes = traced(net, 3, side, side)
    layers, kept = [row for row in rows if row.window], {}
    assert layers
    transparent(net)
    chosen = some(layers)
    for layer in chosen:
        module = net.get_submodule(layer.name)
        module.register_forward_hook(lambda module, inputs, output, name=layer.name: kept.update({name: output}))
    image = torch.rand(1, 3, side, side, dtype=torch.double, generator=torch.Generator().manual_seed(1)).add_(0.5)
    image.requires_grad_()
    net(image)
    for layer in chosen:
        assert {(axis.size, axis.jump) for axis in axes[layer.name]} == {(layer.receptive_field, layer.stride)}
        output, even = kept[layer.name], all(map(evenly, layers[: layers.index(layer) + 1]))
        row, column = output.shape[-2] // 2, output.shape[-1] - 1  # the middle, and a border
        found = reached(image, output, row, column)
        for axis, position, pixels in zip(axes[layer.name], (row, column), found, strict=True):
            bounds = predicted(axis, position)
            assert pixels[0] == max(bounds[0], 0), layer.name
            if even or bounds[1] < side:
                assert pixels[1] == min(bounds[1], side - 1), layer.name
            else:  # no window reaches the last pixels
                assert pixels[1] < side, layer.name


def test_receptive_fields_of_layers_by_hand_are_the_pixels_that_gradients_reach():
    torch.manual_seed(0)
    net, kept = LeNet5ByHand(in_channels=1, num_classes=10).double(), {}
    layers = [
        layer for layer in summarize(LeNet5ByHand(in_channels=1, num_classes=10), (1, 32, 32)).layers if layer.window
    ]
    net.pool2.forward = pooling.MeanPool2d(2).forward
    for name, parameter in net.named_parameters():
        nn.init.constant_(parameter, 0) if name.endswith("bias") else nn.init.uniform_(parameter, 0.01, 0.03)
    for name, module in net.named_children():
        module.register_forward_hook(lambda module, inputs, output, name=name: kept.update({name: output}))
    image = torch.rand(1, 1, 32, 32, dtype=torch.double).requires_grad_()
    net(image)
    assert [layer.name for layer in layers] == ["conv1", "pool2", "conv3", "pool4", "conv5"]
    for layer in layers:
        middle = kept[layer.name].shape[-1] // 2
        first = middle * layer.stride  # nothing is padded
        expected = (first, first + layer.receptive_field - 1)
        assert reached(image, kept[layer.name], middle, middle) == (expected, expected), layer.name


def test_a_net_by_hand_has_the_receptive_fields_of_its_twin():
    rows = [
        [(layer.name, layer.receptive_field, layer.stride) for layer in summarize(build(name)[0], (3, 32, 32)).layers]
        for name in ("lenet5", BY_HAND)
    ]
    assert rows[0] == rows[1]


# ---- chains of convolutions and poolings ------------------------------------------------------------------------------


@st.composite
def chains(draw):
    """Convolutions and poolings of one channel, as (class, kernel, stride, padding, dilation), each a pair of sides."""
    layers = []
    for _ in range(draw(st.integers(1, 5))):
        kind = draw(st.sampled_from([nn.Conv2d, nn.MaxPool2d, nn.AvgPool2d]))
        kernel, stride = (
            (draw(st.integers(1, 4)), draw(st.integers(1, 4))),
            (draw(st.integers(1, 3)), draw(st.integers(1, 2))),
        )
        padding = tuple(draw(st.integers(0, side // 2 if kind is not nn.Conv2d else 2)) for side in kernel)
        dilation = (draw(st.integers(1, 2)), draw(st.integers(1, 3))) if kind is nn.Conv2d else (1, 1)
        layers.append((kind, kernel, stride, padding, dilation))
    return layers


def recursion(layers, side: int) -> Axis:
    """Start, jump and size along one side."""
    start, jump, size = 0, 1, 1
    for _, kernel, stride, padding, dilation in layers:
        start -= padding[side] * jump
        size += dilation[side] * (kernel[side] - 1) * jump
        jump *= stride[side]
    return Axis(start, jump, size)


def made(layers, mean: bool = False) -> nn.Sequential:
    """The chain as a net; `mean` puts mean poolings for all, so that no gradient is stopped."""
    net = nn.Sequential()
    for kind, kernel, stride, padding, dilation in layers:
        if kind is nn.Conv2d:
            layer = nn.Conv2d(1, 1, kernel, stride, padding, dilation, bias=False).double()
            nn.init.uniform_(layer.weight, 0.5, 1.5)
        else:
            layer = (nn.AvgPool2d if mean else kind)(kernel, stride, padding)
        net.append(layer)
    return net


def smallest(axis: Axis) -> tuple[int, int]:
    """The first position that sees no padding, and the image's side that this takes."""
    position = -(axis.start // axis.jump)
    return position, predicted(axis, position)[1] + 1


@settings(deadline=None, max_examples=30)
@given(chains())
def test_a_chain_follows_the_textbook_recursion(layers):
    expected = recursion(layers, 0), recursion(layers, 1)
    with torch.device("meta"):
        assert seen_by(made(layers), 1, *(smallest(axis)[1] + 2 for axis in expected)) == expected


@settings(deadline=None, max_examples=40)
@given(chains(), st.integers(0, 3))
def test_a_chains_gradient_fills_the_receptive_field(layers, margin):
    (row, height), (column, width) = (smallest(recursion(layers, side)) for side in (0, 1))
    assume(height * width < 40_000)
    image = torch.ones(1, 1, height + margin, width + margin, dtype=torch.double, requires_grad=True)
    with torch.device("meta"):
        rows, columns = seen_by(made(layers), 1, *image.shape[-2:])
    assert reached(image, made(layers, mean=True)(image), row, column) == (
        predicted(rows, row),
        predicted(columns, column),
    )


# ---- branches, functional calls, padding --------------------------------------------------------------------------------

CONV3, CONV5 = nn.Conv2d(2, 2, 3, padding=1), nn.Conv2d(2, 2, 5, padding=2)
HALF, UNPADDED = nn.Conv2d(2, 2, 3, stride=2, padding=1), nn.Conv2d(2, 2, 3)
KERNEL = torch.ones(2, 2, 3, 3)
FOLLOWED = {
    "a residual sum sees what the longer branch sees": (lambda x: x + CONV3(CONV3(x)), both(-2, 1, 5)),
    "concatenated branches see what the largest sees": (
        lambda x: torch.cat([x, CONV3(x), CONV5(x)], 1),
        both(-2, 1, 5),
    ),
    "a 1×1 shortcut with stride adds nothing": (lambda x: x[:, :, ::2, ::2] + HALF(x), both(-1, 2, 3)),
    "a cropped shortcut is where its pixels were": (lambda x: x[:, :, 2:, 2:] + UNPADDED(x), both(0, 1, 3)),
    "a sum with the second neighbour": (lambda x: x[:, :, 2:, 2:] + x[:, :, :-2, :-2], both(0, 1, 3)),
    "a crop from the end": (lambda x: x[:, :, -3:, -3:], both(9, 1, 1)),
    "zero padding shifts the image": (lambda x: F.pad(x, (2, 0, 3, 1)), (Axis(-3, 1, 1), Axis(-2, 1, 1))),
    "negative padding crops": (lambda x: F.pad(x, (-2, 0, -3, 0)), (Axis(3, 1, 1), Axis(2, 1, 1))),
    "option A takes every second pixel": (PadChannels(2, 2), both(0, 2, 1)),
    "option A before a convolution": (lambda x: F.conv2d(PadChannels(0, 2)(x), KERNEL, padding=1), both(-2, 2, 5)),
    "a functional convolution": (lambda x: F.conv2d(x, KERNEL, stride=2, padding=1, dilation=2), both(-1, 2, 5)),
    "functional poolings": (lambda x: F.avg_pool2d(F.max_pool2d(x, 3, 2, 1), 2), both(-1, 4, 5)),
    "a dilated max pooling": (lambda x: F.max_pool2d(x, 3, 1, dilation=2), both(0, 1, 5)),
    "padding=same": (nn.Conv2d(2, 2, 5, padding="same"), both(-2, 1, 5)),
    "adaptive pooling to a divisor": (lambda x: F.adaptive_avg_pool2d(x, 4), both(0, 3, 3)),
    "adaptive max pooling to a divisor": (lambda x: F.adaptive_max_pool2d(x, 6), both(0, 2, 2)),
    "adaptive pooling to something else": (lambda x: F.adaptive_avg_pool2d(x, 5), both(0, 0, 12)),
    "global pooling sees everything": (nn.AdaptiveAvgPool2d(1), both(0, 0, 12)),
    "a mean over rows and columns sees everything": (lambda x: CONV3(x).mean((2, 3)), both(-1, 0, 14)),
    "flattening loses the position": (lambda x: HALF(x).flatten(1), both(-1, 0, 13)),
    "squeeze and excitation see everything": (SqueezeExcitation(2, 1), both(0, 0, 12)),
    "norm, activation and dropout see a pixel": (
        nn.Sequential(nn.BatchNorm2d(2), nn.ReLU(inplace=True), nn.Dropout(), nn.SiLU()).eval(),
        both(0, 1, 1),
    ),
    "local response normalisation sees a pixel": (nn.LocalResponseNorm(2), both(0, 1, 1)),
    "channels in another order see a pixel": (
        lambda x: x.view(1, 2, 1, 12, 12).transpose(1, 2).reshape(1, 2, 12, 12),
        both(0, 1, 1),
    ),
    "some of the channels see a pixel": (lambda x: x.chunk(2, 1)[0] + x.split(1, 1)[1] + x[:, 1:], both(0, 1, 1)),
    "channels summed up see a pixel": (lambda x: x.sum(1, keepdim=True) + x.amax(1, keepdim=True), both(0, 1, 1)),
    "a sum in place sees both": (lambda x: CONV3(x).add_(CONV5(x)), both(-2, 1, 5)),
    "what is pooled and multiplied back sees everything": (lambda x: x * x.mean((2, 3), keepdim=True), both(0, 0, 12)),
}


@pytest.mark.parametrize("what", FOLLOWED)
def test_an_operation_has_the_known_receptive_field(what):
    function, expected = FOLLOWED[what]
    assert seen_by(Call(lambda x: function(x)).eval(), 2, 12, 12) == expected


def test_a_layer_that_runs_twice_has_two_receptive_fields():
    conv = nn.Conv2d(1, 1, 3)
    rows = summarize(nn.Sequential(conv, nn.ReLU(), conv), (1, 9, 9)).layers
    assert [row.receptive_field for row in rows] == [3, 3, 5]


def test_an_output_that_does_not_depend_on_the_image_has_no_receptive_field():
    assert seen_by(Call(lambda x: torch.ones(1, 1, 4, 4)), 1, 4, 4) is None
