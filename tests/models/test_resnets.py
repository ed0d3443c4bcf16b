"""ResNet, its plain twin, the ResNets for small images and the ResNet of a course are those of their papers."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from cnnbench.complexity.layers import count_macs, count_parameters
from cnnbench.models.cifar_resnet import CifarResNet
from cnnbench.models.notes_resnet import NotesResNet
from cnnbench.models.residual import (
    BasicBlock,
    Bottleneck,
    PadChannels,
    PreActivationBlock,
    no_shortcut,
    projection_shortcut,
)
from cnnbench.models.resnet import ResNet
from deep import CIFAR, IMAGENET, images_of, on_meta, seasoned, sides

# ---- ResNet ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("depth", [18, 34, 50])
def test_resnets_stages_have_the_sizes_of_table_1(depth):
    e = 4 if depth == 50 else 1
    found = sides(on_meta(ResNet, depth, "imagenet", **IMAGENET), 224, "stem.conv", *(f"stage{n}" for n in range(1, 5)))
    table = [(64, 112), (64 * e, 56), (128 * e, 28), (256 * e, 14), (512 * e, 7)]
    assert found == [(channels, side, side) for channels, side in table]


@pytest.mark.parametrize(
    ("depth", "blocks", "each"), [(18, [2, 2, 2, 2], 2), (34, [3, 4, 6, 3], 2), (50, [3, 4, 6, 3], 3)]
)
def test_resnet_has_the_blocks_of_table_1_and_as_many_layers_as_its_name(depth, blocks, each):
    net = on_meta(ResNet, depth, shortcut="none", **IMAGENET)
    assert [len(getattr(net, f"stage{n}")) for n in range(1, 5)] == blocks
    layers = [m for m in net.modules() if isinstance(m, nn.Conv2d | nn.Linear)]
    assert len(layers) == 1 + each * sum(blocks) + 1 == depth


def test_the_stem_for_small_images_keeps_their_size():
    found = sides(on_meta(ResNet, 18, "cifar", **CIFAR), 32, "stem", *(f"stage{n}" for n in range(1, 5)))
    assert found == [(64, 32, 32), (64, 32, 32), (128, 16, 16), (256, 8, 8), (512, 4, 4)]


@pytest.mark.parametrize(
    ("depth", "projected"),
    [
        (18, [(64, 128), (128, 256), (256, 512)]),
        (34, [(64, 128), (128, 256), (256, 512)]),
        (50, [(64, 256), (256, 512), (512, 1024), (1024, 2048)]),
    ],
)
def test_a_plain_net_lacks_the_projections_of_its_resnet_and_nothing_else(depth, projected):
    residual, plain = (on_meta(ResNet, depth, shortcut=shortcut, **CIFAR) for shortcut in ("residual", "none"))
    projections = sum(ins * outs + 2 * outs for ins, outs in projected)  # 1×1 and a batch norm
    assert count_parameters(residual) - count_parameters(plain) == projections
    assert [n for n in residual.state_dict() if "shortcut" not in n] == list(plain.state_dict())


@pytest.mark.parametrize(
    "make",
    [
        *(lambda depth=depth: ResNet(depth, shortcut="none", **CIFAR) for depth in (18, 34, 50)),
        *(lambda early=early: CifarResNet(20, "none", early, **CIFAR) for early in (False, True)),
    ],
    ids=["plain18", "plain34", "plain50", "plain20", "plain20-preactivation"],
)
def test_a_plain_net_has_no_shortcut_modules(make):
    net = on_meta(make)
    assert not [name for name, _ in net.named_modules() if "shortcut" in name]
    assert not [name for name in net.state_dict() if "shortcut" in name]


def silent(block: nn.Module) -> nn.Module:
    """Sets all convolutions except the shortcut's to zero; norms keep their initial values."""
    for name, module in block.named_modules():
        if isinstance(module, nn.Conv2d) and "shortcut" not in name:
            nn.init.zeros_(module.weight)
    return block


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize(
    ("block", "ins", "expected"),
    [(BasicBlock, 8, torch.relu), (Bottleneck, 32, torch.relu), (PreActivationBlock, 8, lambda x: x)],
)
def test_a_residual_block_with_zero_convolutions_returns_its_input(block, ins, expected, training):
    x = images_of(6, channels=ins)
    assert torch.equal(silent(block(ins, 8, 1, projection_shortcut())).train(training)(x), expected(x))


@pytest.mark.parametrize(("block", "ins"), [(BasicBlock, 8), (Bottleneck, 32), (PreActivationBlock, 8)])
def test_a_plain_block_with_zero_convolutions_returns_0(block, ins):
    assert not silent(block(ins, 8, 1, no_shortcut))(images_of(6, channels=ins)).any()


@pytest.mark.parametrize("block", [BasicBlock, Bottleneck])
def test_a_block_that_changes_the_shape_adds_a_normed_1x1_convolution_of_its_input(block):
    torch.manual_seed(0)
    net = silent(block(6, 8, 2, projection_shortcut()))
    x = images_of(6, channels=6)
    conv, norm = net.shortcut.conv, net.shortcut.norm
    assert (conv.kernel_size, conv.stride, conv.bias) == ((1, 1), (2, 2), None)
    seen = torch.einsum("oi,nihw->nohw", conv.weight[:, :, 0, 0], x[:, :, ::2, ::2])
    mean, var = seen.mean((0, 2, 3), keepdim=True), seen.var((0, 2, 3), keepdim=True, unbiased=False)
    torch.testing.assert_close(net(x), ((seen - mean) / (var + norm.eps).sqrt()).relu())


def test_a_basic_block_is_two_convolutions_with_norms_and_the_sum_before_the_last_relu():
    torch.manual_seed(0)
    block = BasicBlock(4, 4, 1, projection_shortcut()).eval()
    x = images_of(6, channels=4)
    y = F.conv2d(x, block.conv1.weight, padding=1) / (1 + 1e-5) ** 0.5  # norms as they are made
    y = F.conv2d(y.relu(), block.conv2.weight, padding=1) / (1 + 1e-5) ** 0.5
    torch.testing.assert_close(block(x), (x + y).relu())


# ---- ResNet for small images ----------------------------------------------------------------------------------------


def test_option_a_takes_every_second_pixel_and_zeros_for_new_channels():
    x = torch.arange(1.0, 33).reshape(1, 2, 4, 4)
    expected = torch.tensor([[[1, 3], [9, 11]], [[17, 19], [25, 27]], [[0, 0], [0, 0]], [[0, 0], [0, 0]]])
    assert torch.equal(PadChannels(2, 2)(x)[0], expected.float())


def test_the_padding_shortcuts_of_option_a_are_where_the_shape_changes():
    net = on_meta(CifarResNet, 20, "A", **CIFAR)
    pads = {name: (m.extra, m.stride) for name, m in net.named_modules() if isinstance(m, PadChannels)}
    assert pads == {"stage2.0.shortcut": (16, 2), "stage3.0.shortcut": (32, 2)}


@pytest.mark.parametrize("side", [32, 33, 9])
def test_option_a_fits_images_of_odd_sides_too(side):
    net = on_meta(CifarResNet, 20, "A", **CIFAR)
    assert net(torch.empty(2, 3, side, side, device="meta")).shape == (2, 10)


@pytest.mark.parametrize("depth", [20, 32, 44, 56, 110])
def test_a_resnet_for_small_images_has_6n_plus_2_layers_in_three_stages(depth):
    net = on_meta(CifarResNet, depth, **CIFAR)
    assert len([m for m in net.modules() if isinstance(m, nn.Conv2d | nn.Linear)]) == depth
    assert sides(net, 32, "stage1", "stage2", "stage3") == [(16, 32, 32), (32, 16, 16), (64, 8, 8)]


def test_resnet20_has_40_6_million_macs():
    stage = 32 * 32 * 9 * 16 * 16  # one convolution of any stage: half the side twice, double the channels twice
    halved = 16 * 16 * 9 * 16 * 32  # those that begin a stage
    expected = 32 * 32 * 9 * 3 * 16 + (6 + 5 + 5) * stage + 2 * halved + 64 * 10
    assert count_macs(on_meta(CifarResNet, 20, **CIFAR), (3, 32, 32)) == expected == 40_551_040


@pytest.mark.parametrize("depth", [20, 56])
def test_option_c_has_a_1x1_convolution_with_norm_as_shortcut_of_every_block(depth):
    n = (depth - 2) // 6
    inside = n * (16 * 16 + 2 * 16) + (n - 1) * (32 * 32 + 2 * 32) + (n - 1) * (64 * 64 + 2 * 64)
    between = 16 * 32 + 2 * 32 + 32 * 64 + 2 * 64
    a, c = (count_parameters(on_meta(CifarResNet, depth, shortcut, **CIFAR)) for shortcut in "AC")
    assert c - a == inside + between


def test_preactivation_has_the_same_weights_and_other_norms():
    after, before = (on_meta(CifarResNet, 20, "A", early, **CIFAR) for early in (False, True))
    weights = [sorted(tuple(p.shape) for p in net.parameters() if p.ndim > 1) for net in (after, before)]
    assert weights[0] == weights[1]
    # after: 1 + 6 norms of 16, 6 of 32, 6 of 64; before: 6 + 1 of 16 (the next stage's first), 5 + 1 of 32, 5 + 1 of 64
    assert count_parameters(before) == count_parameters(after) == 269_722


def test_preactivation_adds_no_norm_to_its_projections():
    a, b = (count_parameters(on_meta(CifarResNet, 20, shortcut, True, **CIFAR)) for shortcut in "AB")
    assert b - a == 16 * 32 + 32 * 64


def test_a_preactivation_block_norms_and_activates_before_each_convolution():
    torch.manual_seed(0)
    block = PreActivationBlock(4, 4, 1, projection_shortcut(norm=False)).eval()
    x = images_of(6, channels=4)
    y = F.conv2d((x / (1 + 1e-5) ** 0.5).relu(), block.conv1.weight, padding=1)
    y = F.conv2d((y / (1 + 1e-5) ** 0.5).relu(), block.conv2.weight, padding=1)
    torch.testing.assert_close(block(x), x + y)


def test_a_preactivation_block_projects_its_activated_input():
    torch.manual_seed(0)
    block = silent(PreActivationBlock(4, 6, 2, projection_shortcut(norm=False))).eval()
    x = images_of(6, channels=4)
    activated = (x / (1 + 1e-5) ** 0.5).relu()
    torch.testing.assert_close(block(x), F.conv2d(activated, block.shortcut.weight, stride=2))


def test_a_preactivation_net_ends_with_norm_and_activation():
    torch.manual_seed(0)
    net = silent(CifarResNet(8, "A", True, **CIFAR)).eval()
    nn.init.normal_(net.stem.conv.weight)
    x = F.conv2d(images_of(8), net.stem.conv.weight, padding=1)[:, :, ::4, ::4]  # what the identities leave
    mean = (x / (1 + 1e-5) ** 0.5).relu().mean((2, 3))
    expected = F.linear(F.pad(mean, (0, 48)), net.linear.weight, net.linear.bias)
    torch.testing.assert_close(net(images_of(8)), expected)


# ---- the ResNet of a course -----------------------------------------------------------------------------------------


def test_notes_resnet_is_the_net_of_its_course():
    torch.manual_seed(0)
    net = seasoned(NotesResNet([2, 1, 3], **CIFAR)).eval()
    given = [value for name, value in net.state_dict().items() if not name.endswith("num_batches_tracked")]
    left = iter(given)

    def conv_norm(x: Tensor, stride: int = 1) -> Tensor:
        weight, gamma, beta, mean, var = (next(left) for _ in range(5))
        return F.batch_norm(F.conv2d(x, weight, stride=stride, padding=1), mean, var, gamma, beta)

    x = conv_norm(images_of(32)).relu()
    for blocks, first in ((2, 1), (1, 2), (3, 2)):
        for block in range(blocks):
            stride = first if block == 0 else 1
            y = conv_norm(conv_norm(x, stride).relu())
            x = (y + (conv_norm(x, 2) if stride == 2 else x)).relu()
    expected = F.linear(F.avg_pool2d(x, 8).view(2, -1), next(left), next(left))
    assert next(left, None) is None
    torch.testing.assert_close(net(images_of(32)), expected, rtol=1e-4, atol=1e-4)


def test_notes_resnet_has_the_parameters_of_its_table():
    def conv(ins: int, outs: int) -> int:
        return 9 * ins * outs + 2 * outs  # and its batch norm

    stages = 4 * conv(16, 16) + 2 * conv(16, 32) + 3 * conv(32, 32) + 2 * conv(32, 64) + 3 * conv(64, 64)
    assert count_parameters(on_meta(NotesResNet, **CIFAR)) == conv(3, 16) + stages + 64 * 10 + 10 == 195_738


def test_notes_resnet_has_the_given_number_of_blocks():
    net = on_meta(NotesResNet, [1, 3, 2], **CIFAR)
    assert [len(stage) for stage in (net.stage1, net.stage2, net.stage3)] == [1, 3, 2]
