"""AlexNet, VGG, GoogLeNet and the ResNets are those of their papers and, with copied weights, torchvision's."""

from __future__ import annotations

import re

import pytest
import torch
import torch.nn.functional as F
import torchvision.models as tv
from torch import Tensor, nn

from cnnbench.accounting import macs, parameters
from cnnbench.models.alexnet import AlexNet
from cnnbench.models.cifar_resnet import CifarResNet
from cnnbench.models.googlenet import GoogLeNet, Inception
from cnnbench.models.notes_resnet import NotesResNet
from cnnbench.models.residual import BasicBlock, Bottleneck, PadChannels, PreActivationBlock, none, projection
from cnnbench.models.resnet import ResNet
from cnnbench.models.vgg import VGG
from cnnbench.models.weights import copy_weights

IMAGENET = {"in_channels": 3, "num_classes": 1000}
CIFAR = {"in_channels": 3, "num_classes": 10}
VGGS = ["A", "A-LRN", "B", "C", "D", "E"]


def on_meta(make, *args, **knobs) -> nn.Module:
    with torch.device("meta"):
        return make(*args, **knobs)


def images_of(side: int, images: int = 2, channels: int = 3) -> Tensor:
    return torch.randn(images, channels, side, side, generator=torch.Generator().manual_seed(1))


def sides(net: nn.Module, side: int, *names: str) -> list[tuple[int, ...]]:
    """The channels and sides of what the layers of these names give for one image."""
    found: dict[str, tuple[int, ...]] = {}
    for name in names:
        layer = net.get_submodule(name)
        layer.register_forward_hook(
            lambda module, inputs, output, name=name: found.update({name: tuple(output.shape[1:])})
        )
    net.eval()(torch.empty(1, 3, side, side, device=next(net.parameters()).device))
    return [found[name] for name in names]


# ---- counts: torchvision's and the papers' --------------------------------------------------------------------------

COUNTS = [  # at 224 pixels, 1000 classes: parameters, multiply-accumulates
    (AlexNet, (), {}, 61_100_840, 714_188_480),
    (VGG, ("A", "none"), {}, 132_863_336, 7_609_090_048),
    (VGG, ("B", "none"), {}, 133_047_848, 11_308_466_176),
    (VGG, ("D", "none"), {}, 138_357_544, 15_470_264_320),
    (VGG, ("E", "none"), {}, 143_667_240, 19_632_062_464),
    (VGG, ("A", "batch"), {}, 132_868_840, 7_609_090_048),
    (VGG, ("B", "batch"), {}, 133_053_736, 11_308_466_176),
    (VGG, ("D", "batch"), {}, 138_365_992, 15_470_264_320),
    (VGG, ("E", "batch"), {}, 143_678_248, 19_632_062_464),
    (ResNet, (18, "imagenet"), {}, 11_689_512, 1_814_073_344),
    (ResNet, (34, "imagenet"), {}, 21_797_672, 3_663_761_408),
    (ResNet, (50, "imagenet"), {}, 25_557_032, 4_089_184_256),
    (GoogLeNet, (5, "batch"), {}, 7_005_832, 1_582_671_872),
    (GoogLeNet, (5, "none"), {}, 6_998_552, 1_582_671_872),
    (GoogLeNet, (3, "batch"), {}, 6_624_904, 1_498_376_192),
    (GoogLeNet, (3, "batch"), {"aux_heads": True}, 13_004_888, 1_498_376_192),  # the heads are not run in evaluation
]


@pytest.mark.parametrize(
    ("make", "args", "knobs", "count", "multiplications"),
    [pytest.param(*row, id="-".join([row[0].__name__, *map(str, row[1]), *row[2]])) for row in COUNTS],
)
def test_a_net_has_its_known_parameters_and_macs(make, args, knobs, count, multiplications):
    net = on_meta(make, *args, **knobs, **IMAGENET)
    assert parameters(net) == count
    assert macs(net, (3, 224, 224)) == multiplications


@pytest.mark.parametrize(
    ("depth", "count"), [(20, 269_722), (32, 464_154), (44, 658_586), (56, 853_018), (110, 1_727_962)]
)
@pytest.mark.parametrize("shortcut", ["A", "none"])
def test_a_resnet_for_small_images_and_its_plain_twin_have_the_known_parameters(depth, shortcut, count):
    assert parameters(on_meta(CifarResNet, depth, shortcut, **CIFAR)) == count


def test_resnet56_with_projections_has_855770_parameters():
    assert parameters(on_meta(CifarResNet, 56, "B", **CIFAR)) == 855_770


@pytest.mark.parametrize(("stem_bias", "count"), [(True, 11_175_434), (False, 11_175_370)])
def test_the_textbooks_resnet18_has_the_known_parameters(stem_bias, count):
    net = on_meta(ResNet, 18, "imagenet", stem_bias=stem_bias, in_channels=1, num_classes=10)
    assert parameters(net) == count


def test_the_textbooks_resnet18_has_11185034_numbers_with_its_running_statistics():
    net = on_meta(ResNet, 18, "imagenet", stem_bias=True, in_channels=1, num_classes=10)
    running = [value for name, value in net.state_dict().items() if "running" in name]
    assert parameters(net) + sum(value.numel() for value in running) == 11_185_034


def test_resnet18_for_small_images_has_a_stem_of_27_weights_a_channel():
    small, large = (parameters(on_meta(ResNet, 18, stem, **CIFAR)) for stem in ("cifar", "imagenet"))
    assert small == large - 64 * 3 * 49 + 64 * 3 * 9 == 11_173_962


@pytest.mark.parametrize(
    ("configuration", "millions"), [("A", 133), ("A-LRN", 133), ("B", 133), ("C", 134), ("D", 138), ("E", 144)]
)
def test_a_vgg_has_the_millions_of_parameters_of_the_papers_table_2(configuration, millions):
    assert round(parameters(on_meta(VGG, configuration, "none", **IMAGENET)) / 1e6) == millions


# ---- torchvision's, with copied weights -----------------------------------------------------------------------------


def seasoned(net: nn.Module) -> nn.Module:
    """Weights of a fitting size, and scales, shifts and running statistics as after some training."""
    generator = torch.Generator().manual_seed(2)
    with torch.no_grad():
        for name, value in net.state_dict().items():
            if value.ndim > 1:
                value.normal_(std=(2 / value[0].numel()) ** 0.5, generator=generator)
            elif name.endswith("num_batches_tracked"):
                value.fill_(17)
            elif name.endswith(("running_var", "weight")):
                value.uniform_(0.5, 1.5, generator=generator)
            else:
                value.normal_(std=0.1, generator=generator)
    return net


def empty(make, *args, **knobs) -> nn.Module:
    """The net with weights that no one has drawn, which saves most of its building."""
    return on_meta(make, *args, **knobs).to_empty(device="cpu")


def pair(reference, make, *args, **knobs) -> tuple[nn.Module, nn.Module]:
    """torchvision's net with ten classes and ours with its weights, both in evaluation."""
    theirs = seasoned(reference.to_empty(device="cpu"))
    ours = empty(make, *args, **knobs, **CIFAR)
    copy_weights(theirs, ours)
    return theirs.eval(), ours.eval()


def torchvisions(name: str, **knobs) -> nn.Module:
    return on_meta(getattr(tv, name), num_classes=10, **knobs)


def slow(*values) -> object:
    return pytest.param(*values, marks=pytest.mark.slow)


VGG_PAIRS = [
    *(("vgg11", "A", "none"), ("vgg11_bn", "A", "batch")),
    *(slow("vgg13", "B", "none"), slow("vgg13_bn", "B", "batch")),
    *(slow("vgg16", "D", "none"), slow("vgg16_bn", "D", "batch")),
    *(slow("vgg19", "E", "none"), slow("vgg19_bn", "E", "batch")),
]


def assert_equal_logits(theirs: nn.Module, ours: nn.Module, images: Tensor) -> None:
    with torch.no_grad():
        expected, given = theirs(images), ours(images)
    assert expected.std() > 0.01  # else everything is near to everything
    torch.testing.assert_close(given, expected, rtol=0, atol=1e-5 * max(1.0, expected.abs().max().item()))


def test_alexnet_with_torchvisions_weights_has_its_logits_at_any_size():
    nets = pair(torchvisions("alexnet"), AlexNet, image_size=224)
    for side in (224, 160, 256):
        assert_equal_logits(*nets, images_of(side, 1))


@pytest.mark.parametrize(("name", "configuration", "norm"), VGG_PAIRS)
def test_vgg_with_torchvisions_weights_has_its_logits(name, configuration, norm):
    assert_equal_logits(*pair(torchvisions(name, init_weights=False), VGG, configuration, norm), images_of(224, 1))


def test_googlenet_of_3x3_branches_with_torchvisions_weights_has_its_logits():
    theirs = torchvisions("googlenet", init_weights=False, aux_logits=False)
    assert_equal_logits(*pair(theirs, GoogLeNet, branch5x5=3), images_of(224))


def test_googlenet_with_heads_has_torchvisions_three_outputs_in_training():
    theirs = torchvisions("googlenet", init_weights=False, aux_logits=True)
    theirs, ours = pair(theirs, GoogLeNet, branch5x5=3, aux_heads=True)
    for module in (*theirs.modules(), *ours.modules()):
        if isinstance(module, nn.Dropout):
            module.p = 0.0
    with torch.no_grad():
        expected, given = theirs.train()(images_of(128)), ours.train()(images_of(128))
    assert len(given) == 3
    for output, name in zip(given, ("logits", "aux_logits1", "aux_logits2"), strict=True):
        torch.testing.assert_close(output, getattr(expected, name), rtol=1e-5, atol=1e-5)


@pytest.mark.slow
@pytest.mark.parametrize("depth", [34, 50])
def test_resnet_with_torchvisions_weights_has_its_logits(depth):
    assert_equal_logits(*pair(torchvisions(f"resnet{depth}"), ResNet, depth, "imagenet"), images_of(224))


def test_resnet18_with_torchvisions_weights_differs_from_it_by_0():
    theirs, ours = pair(torchvisions("resnet18"), ResNet, 18, "imagenet")
    with torch.no_grad():
        logits = theirs(images_of(224))
        assert logits.std() > 0.01
        assert (ours(images_of(224)) - logits).abs().max() == 0


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
def test_alexnet_moves_by_4_wherever_that_leaves_something(side, stride, last):
    net = on_meta(AlexNet, **CIFAR, image_size=side)
    assert net.features.conv1.stride == (stride, stride)
    assert net.classifier.linear6.in_features == 256 * last * last
    assert net(torch.empty(2, 3, side, side, device="meta")).shape == (2, 10)


@pytest.mark.parametrize("side", [96, 128])
def test_alexnet_built_for_64_pixels_answers_larger_images(side):
    net = seasoned(empty(AlexNet, **CIFAR, image_size=64)).eval()
    with torch.no_grad():
        pooled = F.adaptive_avg_pool2d(net.features(images_of(side)), 1).flatten(1)
        torch.testing.assert_close(net(images_of(side)), net.classifier(pooled))


# ---- VGG ------------------------------------------------------------------------------------------------------------

PAPER = {  # 3×3 unless said otherwise, M max pooling
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


@pytest.mark.parametrize("norm", ["batch", "none"])
@pytest.mark.parametrize("configuration", VGGS)
def test_each_configuration_of_vgg_is_its_column_of_the_table(configuration, norm):
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


@pytest.mark.parametrize("side", [32, 33, 63, 64, 95, 96, 224])
@pytest.mark.parametrize("head", ["paper", "pool"])
def test_vgg_takes_images_of_any_size_from_32(side, head):
    net = on_meta(VGG, "A", width=0.125, head=head, **CIFAR, image_size=side)
    assert net(torch.empty(2, 3, side, side, device="meta")).shape == (2, 10)
    linear = next(module for module in net.head if isinstance(module, nn.Linear))
    assert linear.in_features == (64 * (side // 32) ** 2 if head == "paper" else 64)


def test_vgg_built_for_64_pixels_answers_images_of_96():
    net = seasoned(VGG("A", width=0.125, **CIFAR, image_size=64)).eval()
    x = images_of(96)
    with torch.no_grad():
        logits = net(x)
        for number in range(1, 6):
            x = getattr(net, f"stage{number}")(x)
        corners = [x[:, :, i : i + 2, j : j + 2].mean((2, 3)) for i in (0, 1) for j in (0, 1)]  # 3×3 to 2×2
        torch.testing.assert_close(logits, net.head[2:](torch.stack(corners, 2).flatten(1)))


def test_local_response_normalisation_is_the_formula_of_alexnets_paper():
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


@pytest.mark.parametrize("name", TABLE_1)
@pytest.mark.parametrize("branch5x5", [5, 3, "double3"])
def test_an_inception_has_the_channels_of_table_1(name, branch5x5):
    c1, reduce3, c3, reduce5, c5, projected, ins, outs = TABLE_1[name]
    block = on_meta(GoogLeNet, branch5x5, **IMAGENET).get_submodule(name)
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


def test_the_branches_of_an_inception_stand_side_by_side_in_the_papers_order():
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
def test_two_3x3_convolutions_see_as_much_as_one_of_5x5(branch5x5, seen):
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
    five, double = (parameters(on_meta(GoogLeNet, branch, **IMAGENET)) for branch in (5, "double3"))
    extra = 0
    for _, _, _, reduce5, c5, _, _, _ in TABLE_1.values():
        extra += 9 * reduce5 * c5 + 9 * c5 * c5 + 2 * c5 - 25 * reduce5 * c5  # with one batch norm more
    assert double - five == extra


def test_googlenets_batch_norms_add_a_thousandth():
    norms = [m for m in on_meta(GoogLeNet, aux_heads=True, **IMAGENET).modules() if isinstance(m, nn.BatchNorm2d)]
    assert len(norms) == 3 + 9 * 6 + 2
    assert {norm.eps for norm in norms} == {0.001}


def test_googlenet_without_norms_has_biases_in_their_place():
    modules = list(on_meta(GoogLeNet, norm="none", aux_heads=True, **IMAGENET).modules())
    assert not [m for m in modules if isinstance(m, nn.BatchNorm2d)]
    assert all(m.bias is not None for m in modules if isinstance(m, nn.Conv2d))


def test_googlenets_heads_stand_after_4a_and_4d_with_the_papers_layers():
    net = on_meta(GoogLeNet, norm="none", aux_heads=True, **IMAGENET)
    for head, channels in ((net.aux1, 512), (net.aux2, 528)):
        expected = 128 * (channels + 1) + 1024 * (128 * 4 * 4 + 1) + 1000 * (1024 + 1)
        assert parameters(head) == expected
        assert head.dropout.p == 0.7
    assert net.dropout.p == 0.4


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
    assert parameters(residual) - parameters(plain) == projections
    assert [n for n in residual.state_dict() if "shortcut" not in n] == list(plain.state_dict())


@pytest.mark.parametrize(
    "make",
    [
        *(lambda depth=depth: ResNet(depth, shortcut="none", **CIFAR) for depth in (18, 34, 50)),
        *(lambda early=early: CifarResNet(20, "none", early, **CIFAR) for early in (False, True)),
    ],
    ids=["plain18", "plain34", "plain50", "plain20", "plain20-preactivation"],
)
def test_nothing_in_a_plain_net_is_called_shortcut(make):
    net = on_meta(make)
    assert not [name for name, _ in net.named_modules() if "shortcut" in name]
    assert not [name for name in net.state_dict() if "shortcut" in name]


def silent(block: nn.Module) -> nn.Module:
    """With convolutions of zeros, but for that of the shortcut; norms as they are made."""
    for name, module in block.named_modules():
        if isinstance(module, nn.Conv2d) and "shortcut" not in name:
            nn.init.zeros_(module.weight)
    return block


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize(
    ("block", "ins", "expected"),
    [(BasicBlock, 8, torch.relu), (Bottleneck, 32, torch.relu), (PreActivationBlock, 8, lambda x: x)],
)
def test_a_residual_block_whose_convolutions_are_0_gives_what_it_is_given(block, ins, expected, training):
    x = images_of(6, channels=ins)
    assert torch.equal(silent(block(ins, 8, 1, projection())).train(training)(x), expected(x))


@pytest.mark.parametrize(("block", "ins"), [(BasicBlock, 8), (Bottleneck, 32), (PreActivationBlock, 8)])
def test_a_plain_block_whose_convolutions_are_0_gives_0(block, ins):
    assert not silent(block(ins, 8, 1, none))(images_of(6, channels=ins)).any()


@pytest.mark.parametrize("block", [BasicBlock, Bottleneck])
def test_a_block_that_changes_the_shape_adds_a_normed_1x1_convolution_of_its_input(block):
    torch.manual_seed(0)
    net = silent(block(6, 8, 2, projection()))
    x = images_of(6, channels=6)
    conv, norm = net.shortcut.conv, net.shortcut.norm
    assert (conv.kernel_size, conv.stride, conv.bias) == ((1, 1), (2, 2), None)
    seen = torch.einsum("oi,nihw->nohw", conv.weight[:, :, 0, 0], x[:, :, ::2, ::2])
    mean, var = seen.mean((0, 2, 3), keepdim=True), seen.var((0, 2, 3), keepdim=True, unbiased=False)
    torch.testing.assert_close(net(x), ((seen - mean) / (var + norm.eps).sqrt()).relu())


def test_a_basic_block_is_two_convolutions_with_norms_and_the_sum_before_the_last_relu():
    torch.manual_seed(0)
    block = BasicBlock(4, 4, 1, projection()).eval()
    x = images_of(6, channels=4)
    y = F.conv2d(x, block.conv1.weight, padding=1) / (1 + 1e-5) ** 0.5  # norms as they are made
    y = F.conv2d(y.relu(), block.conv2.weight, padding=1) / (1 + 1e-5) ** 0.5
    torch.testing.assert_close(block(x), (x + y).relu())


# ---- ResNet for small images ----------------------------------------------------------------------------------------


def test_option_a_takes_every_second_pixel_and_zeros_for_new_channels():
    x = torch.arange(1.0, 33).reshape(1, 2, 4, 4)
    expected = torch.tensor([[[1, 3], [9, 11]], [[17, 19], [25, 27]], [[0, 0], [0, 0]], [[0, 0], [0, 0]]])
    assert torch.equal(PadChannels(2, 2)(x)[0], expected.float())


def test_the_shortcuts_of_option_a_stand_where_the_shape_changes():
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


def test_resnet20_takes_40_6_million_macs():
    stage = 32 * 32 * 9 * 16 * 16  # one convolution of any stage: half the side twice, double the channels twice
    halved = 16 * 16 * 9 * 16 * 32  # those that begin a stage
    expected = 32 * 32 * 9 * 3 * 16 + (6 + 5 + 5) * stage + 2 * halved + 64 * 10
    assert macs(on_meta(CifarResNet, 20, **CIFAR), (3, 32, 32)) == expected == 40_551_040


@pytest.mark.parametrize("depth", [20, 56])
def test_option_c_has_a_normed_1x1_convolution_beside_every_block(depth):
    n = (depth - 2) // 6
    inside = n * (16 * 16 + 2 * 16) + (n - 1) * (32 * 32 + 2 * 32) + (n - 1) * (64 * 64 + 2 * 64)
    between = 16 * 32 + 2 * 32 + 32 * 64 + 2 * 64
    a, c = (parameters(on_meta(CifarResNet, depth, shortcut, **CIFAR)) for shortcut in "AC")
    assert c - a == inside + between


def test_preactivation_has_the_same_weights_and_other_norms():
    after, before = (on_meta(CifarResNet, 20, "A", early, **CIFAR) for early in (False, True))
    weights = [sorted(tuple(p.shape) for p in net.parameters() if p.ndim > 1) for net in (after, before)]
    assert weights[0] == weights[1]
    # after: 1 + 6 norms of 16, 6 of 32, 6 of 64; before: 6 + 1 of 16 (the next stage's first), 5 + 1 of 32, 5 + 1 of 64
    assert parameters(before) == parameters(after) == 269_722


def test_preactivation_adds_no_norm_to_its_projections():
    a, b = (parameters(on_meta(CifarResNet, 20, shortcut, True, **CIFAR)) for shortcut in "AB")
    assert b - a == 16 * 32 + 32 * 64


def test_a_preactivation_block_norms_and_activates_before_each_convolution():
    torch.manual_seed(0)
    block = PreActivationBlock(4, 4, 1, projection(norm=False)).eval()
    x = images_of(6, channels=4)
    y = F.conv2d((x / (1 + 1e-5) ** 0.5).relu(), block.conv1.weight, padding=1)
    y = F.conv2d((y / (1 + 1e-5) ** 0.5).relu(), block.conv2.weight, padding=1)
    torch.testing.assert_close(block(x), x + y)


def test_a_preactivation_block_projects_its_activated_input():
    torch.manual_seed(0)
    block = silent(PreActivationBlock(4, 6, 2, projection(norm=False))).eval()
    x = images_of(6, channels=4)
    activated = (x / (1 + 1e-5) ** 0.5).relu()
    torch.testing.assert_close(block(x), F.conv2d(activated, block.shortcut.weight, stride=2))


def test_a_preactivation_net_norms_and_activates_what_its_blocks_add_up_to():
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
    assert parameters(on_meta(NotesResNet, **CIFAR)) == conv(3, 16) + stages + 64 * 10 + 10 == 195_738


def test_notes_resnet_has_the_blocks_that_are_asked_for():
    net = on_meta(NotesResNet, [1, 3, 2], **CIFAR)
    assert [len(stage) for stage in (net.stage1, net.stage2, net.stage3)] == [1, 3, 2]
