"""AlexNet, VGG and GoogLeNet are those of their papers."""

from __future__ import annotations

import re

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from cnnbench.complexity.layers import count_parameters
from cnnbench.models.alexnet import AlexNet
from cnnbench.models.googlenet import GoogLeNet, Inception
from cnnbench.models.vgg import VGG
from deep import CIFAR, IMAGENET, VGGS, empty, images_of, on_meta, seasoned, sides

# ---- AlexNet --------------------------------------------------------------------------------------------------------


def test_alexnets_maps_have_the_sizes_of_its_table():
    layers = "conv1 pool1 conv2 pool2 conv3 conv4 conv5 pool5".split()
    found = sides(on_meta(AlexNet, **IMAGENET), 224, *(f"features.{layer}" for layer in layers))
    table = [(64, 55), (64, 27), (192, 27), (192, 13), (384, 13), (256, 13), (256, 13), (256, 6)]
    assert found == [(channels, side, side) for channels, side in table]


@pytest.mark.parametrize(
    ("side", "stride", "last"),
    [
        (32, 1, 2),  # 26, 12, 5, 2
        (62, 1, 6),  # 56, 27, 13, 6
        (63, 4, 1),  # 15, 7, 3, 1
        (64, 4, 1),
        (224, 4, 6),  # 55, 27, 13, 6
    ],
)
def test_alexnet_has_stride_4_unless_nothing_would_be_left(side, stride, last):
    net = on_meta(AlexNet, **CIFAR, image_size=side)
    assert net.features.conv1.stride == (stride, stride)
    assert net.classifier.linear6.in_features == 256 * last * last
    assert net(torch.empty(2, 3, side, side, device="meta")).shape == (2, 10)


def test_alexnet_built_for_64_pixels_accepts_larger_images():
    side = 96
    net = seasoned(empty(AlexNet, **CIFAR, image_size=64)).eval()
    with torch.no_grad():
        pooled = F.adaptive_avg_pool2d(net.features(images_of(side)), 1).flatten(1)
        torch.testing.assert_close(net(images_of(side)), net.classifier(pooled))


# ---- VGG ------------------------------------------------------------------------------------------------------------

PAPER = {  # 3×3 unless a size precedes the channels, M max pooling
    "A": "64 M 128 M 256 256 M 512 512 M 512 512 M",
    "A-LRN": "64 LRN M 128 M 256 256 M 512 512 M 512 512 M",
    "B": "64 64 M 128 128 M 256 256 M 512 512 M 512 512 M",
    "C": "64 64 M 128 128 M 256 256 1x256 M 512 512 1x512 M 512 512 1x512 M",
    "D": "64 64 M 128 128 M 256 256 256 M 512 512 512 M 512 512 512 M",
    "E": "64 64 M 128 128 M 256 256 256 256 M 512 512 512 512 M 512 512 512 512 M",
}


def layers_of(net: VGG) -> str:
    """The net's convolutions, norms over channels and poolings, in the words of `PAPER`."""
    words = []
    for module in net.modules():
        if isinstance(module, nn.Conv2d):
            kernel = module.kernel_size[0]
            assert module.padding == (kernel // 2, kernel // 2)
            words.append(f"{module.out_channels}" if kernel == 3 else f"{kernel}x{module.out_channels}")
        elif isinstance(module, nn.LocalResponseNorm):
            words.append("LRN")
        elif isinstance(module, nn.MaxPool2d):
            assert (module.kernel_size, module.stride) == (2, 2)
            words.append("M")
    return " ".join(words)


@pytest.mark.parametrize("configuration", VGGS)
def test_each_configuration_of_vgg_is_its_column_of_the_table(configuration):
    for norm in ("batch", "none"):
        assert layers_of(on_meta(VGG, configuration, norm, **IMAGENET)) == PAPER[configuration]


@pytest.mark.parametrize("configuration", VGGS)
def test_every_convolution_of_vgg_has_a_norm_and_a_relu_or_a_relu_alone(configuration):
    convolutions = len(re.findall(r"\d\b", PAPER[configuration]))
    for norm, norms in (("batch", convolutions), ("none", 0)):
        stages = [
            module for name, module in on_meta(VGG, configuration, norm, **CIFAR).named_children() if name != "head"
        ]
        kinds = [type(module) for stage in stages for module in stage.children()]
        assert kinds.count(nn.Conv2d) == kinds.count(nn.ReLU) == convolutions
        assert kinds.count(nn.BatchNorm2d) == norms


def test_vggs_stages_have_the_sizes_of_its_table():
    found = sides(on_meta(VGG, "D", **IMAGENET), 224, *(f"stage{number}" for number in range(1, 6)))
    assert found == [(64, 112, 112), (128, 56, 56), (256, 28, 28), (512, 14, 14), (512, 7, 7)]


@pytest.mark.parametrize("configuration", VGGS)
def test_a_vgg_of_an_eighths_width_has_an_eighth_of_all_channels(configuration):
    net = on_meta(VGG, configuration, width=0.125, **CIFAR)
    eighths = re.sub(r"\b(\d+x)?(64|128|256|512)\b", lambda m: f"{m[1] or ''}{int(m[2]) // 8}", PAPER[configuration])
    assert layers_of(net) == eighths
    linear = [(m.in_features, m.out_features) for m in net.head if isinstance(m, nn.Linear)]
    assert linear == [(64 * 7 * 7, 512), (512, 512), (512, 10)]


def test_a_narrow_vgg_has_at_least_one_channel_everywhere():
    net = on_meta(VGG, "A", width=0.001, **CIFAR)
    assert min(m.out_channels for m in net.modules() if isinstance(m, nn.Conv2d)) == 1


def test_the_pooled_head_of_vgg_is_the_mean_of_each_channel_and_one_linear_layer():
    net = seasoned(VGG("A", width=0.125, head="pool", **CIFAR, image_size=64)).eval()
    x = images_of(64)
    with torch.no_grad():
        logits = net(x)
        for number in range(1, 6):
            x = getattr(net, f"stage{number}")(x)
        assert x.shape == (2, 64, 2, 2)
        torch.testing.assert_close(logits, F.linear(x.mean((2, 3)), net.head.linear.weight, net.head.linear.bias))


@pytest.mark.parametrize(
    ("side", "head"), [(32, "paper"), (33, "paper"), (63, "paper"), (64, "paper"), (224, "paper"), (95, "pool")]
)
def test_vgg_accepts_images_of_any_size_from_32(side, head):
    net = on_meta(VGG, "A", width=0.125, head=head, **CIFAR, image_size=side)
    assert net(torch.empty(2, 3, side, side, device="meta")).shape == (2, 10)
    linear = next(module for module in net.head if isinstance(module, nn.Linear))
    assert linear.in_features == (64 * (side // 32) ** 2 if head == "paper" else 64)


def test_vgg_built_for_64_pixels_accepts_images_of_96():
    net = seasoned(VGG("A", width=0.125, **CIFAR, image_size=64)).eval()
    x = images_of(96)
    with torch.no_grad():
        logits = net(x)
        for number in range(1, 6):
            x = getattr(net, f"stage{number}")(x)
        corners = [x[:, :, i : i + 2, j : j + 2].mean((2, 3)) for i in (0, 1) for j in (0, 1)]  # 3×3 to 2×2
        torch.testing.assert_close(logits, net.head[2:](torch.stack(corners, 2).flatten(1)))


def test_local_response_normalization_is_the_formula_of_alexnets_paper():
    k, n, alpha, beta = 2, 5, 1e-4, 0.75
    a = 30 * images_of(3, channels=9)
    b = torch.empty_like(a)
    for i in range(9):
        total = torch.zeros(2, 3, 3)
        for j in range(max(0, i - n // 2), min(9 - 1, i + n // 2) + 1):
            total += a[:, j] ** 2
        b[:, i] = a[:, i] / (k + alpha * total) ** beta
    assert not torch.allclose(b, a / k**beta, rtol=0.01)  # the sum counts
    net = VGG("A-LRN", "none", width=0.125, **CIFAR, image_size=32)
    torch.testing.assert_close(net.stage1.lrn(a), b)


# ---- GoogLeNet ------------------------------------------------------------------------------------------------------

TABLE_1 = {  # 1×1, 3×3 reduce, 3×3, 5×5 reduce, 5×5, pool projection; channels in and out
    "inception3a": (64, 96, 128, 16, 32, 32, 192, 256),
    "inception3b": (128, 128, 192, 32, 96, 64, 256, 480),
    "inception4a": (192, 96, 208, 16, 48, 64, 480, 512),
    "inception4b": (160, 112, 224, 24, 64, 64, 512, 512),
    "inception4c": (128, 128, 256, 24, 64, 64, 512, 512),
    "inception4d": (112, 144, 288, 32, 64, 64, 512, 528),
    "inception4e": (256, 160, 320, 32, 128, 128, 528, 832),
    "inception5a": (256, 160, 320, 32, 128, 128, 832, 832),
    "inception5b": (384, 192, 384, 48, 128, 128, 832, 1024),
}


@pytest.mark.parametrize("branch5x5", [5, 3, "double3"])
def test_the_inceptions_have_the_channels_of_table_1(branch5x5):
    net = on_meta(GoogLeNet, branch5x5, **IMAGENET)
    for name in TABLE_1:
        assert_has_the_channels_of_table_1(net.get_submodule(name), name, branch5x5)


def assert_has_the_channels_of_table_1(block: nn.Module, name: str, branch5x5: int | str) -> None:
    c1, reduce3, c3, reduce5, c5, projected, ins, outs = TABLE_1[name]
    found = [
        (m.in_channels, m.out_channels, m.kernel_size[0], m.padding[0])
        for m in block.modules()
        if isinstance(m, nn.Conv2d)
    ]
    fives = {
        5: [(reduce5, c5, 5, 2)],
        3: [(reduce5, c5, 3, 1)],
        "double3": [(reduce5, c5, 3, 1), (c5, c5, 3, 1)],
    }
    assert found == [
        (ins, c1, 1, 0),
        *((ins, reduce3, 1, 0), (reduce3, c3, 3, 1)),
        *((ins, reduce5, 1, 0), *fives[branch5x5]),
        (ins, projected, 1, 0),
    ]
    assert block(torch.empty(2, ins, 7, 7, device="meta")).shape == (2, outs, 7, 7)
    assert c1 + c3 + c5 + projected == outs


def test_googlenets_maps_have_the_sizes_of_table_1():
    layers = "conv1 pool1 conv3 pool2 inception3b pool3 inception4e pool4 inception5b".split()
    found = sides(on_meta(GoogLeNet, **IMAGENET), 224, *layers)
    table = [(64, 112), (64, 56), (192, 56), (192, 28), (480, 28), (480, 14), (832, 14), (832, 7), (1024, 7)]
    assert found == [(channels, side, side) for channels, side in table]


def test_the_branches_of_an_inception_are_concatenated_in_the_papers_order():
    torch.manual_seed(0)
    block = Inception(6, 2, (3, 4), (2, 3), 5, branch5x5=5, norm="none")
    one, three, five, pooled = block.branch1x1, block.branch3x3, block.branch5x5, block.branch_pool
    x = images_of(7, channels=6)
    expected = [
        one.conv(x).relu(),
        three.conv.conv(three.reduce.conv(x).relu()).relu(),
        five.conv.conv(five.reduce.conv(x).relu()).relu(),
        pooled.conv.conv(F.max_pool2d(x, 3, stride=1, padding=1)).relu(),
    ]
    torch.testing.assert_close(block(x), torch.cat(expected, 1))


@pytest.mark.parametrize(("branch5x5", "seen"), [(5, 5), (3, 3), ("double3", 5)])
def test_two_3x3_convolutions_have_the_receptive_field_of_one_5x5(branch5x5, seen):
    branch = Inception(2, 2, (2, 2), (2, 2), 2, branch5x5=branch5x5, norm="none").branch5x5
    for parameter in branch.parameters():
        nn.init.ones_(parameter)
    x = torch.ones(1, 2, 11, 11, requires_grad=True)
    branch(x)[0, 0, 5, 5].backward()
    expected = torch.zeros(11, 11, dtype=torch.bool)
    around = slice(5 - seen // 2, 5 + seen // 2 + 1)
    expected[around, around] = True
    assert torch.equal(x.grad[0, 0] != 0, expected)


def test_googlenets_of_two_3x3_convolutions_have_the_parameters_of_those():
    five, double = (count_parameters(on_meta(GoogLeNet, branch, **IMAGENET)) for branch in (5, "double3"))
    extra = 0
    for _, _, _, reduce5, c5, _, _, _ in TABLE_1.values():
        extra += 9 * reduce5 * c5 + 9 * c5 * c5 + 2 * c5 - 25 * reduce5 * c5  # with one batch norm more
    assert double - five == extra


def test_googlenets_batch_norms_have_an_eps_of_a_thousandth():
    norms = [m for m in on_meta(GoogLeNet, aux_heads=True, **IMAGENET).modules() if isinstance(m, nn.BatchNorm2d)]
    assert len(norms) == 3 + 9 * 6 + 2
    assert {norm.eps for norm in norms} == {0.001}


def test_googlenet_without_norms_has_biases_instead():
    modules = list(on_meta(GoogLeNet, norm="none", aux_heads=True, **IMAGENET).modules())
    assert not [m for m in modules if isinstance(m, nn.BatchNorm2d)]
    assert all(m.bias is not None for m in modules if isinstance(m, nn.Conv2d))


def test_googlenets_heads_have_the_papers_layers():
    net = on_meta(GoogLeNet, norm="none", aux_heads=True, **IMAGENET)
    for head, channels in ((net.aux1, 512), (net.aux2, 528)):
        expected = 128 * (channels + 1) + 1024 * (128 * 4 * 4 + 1) + 1000 * (1024 + 1)
        assert count_parameters(head) == expected
        assert head.dropout.p == 0.7
    assert net.dropout.p == 0.4
