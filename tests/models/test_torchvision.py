"""The deep nets have the published counts and, with copied weights, torchvision's logits."""

from __future__ import annotations

import pytest
import torch
import torchvision.models as tv
from torch import Tensor, nn

from cnnbench.complexity.layers import count_macs, count_parameters
from cnnbench.models.alexnet import AlexNet
from cnnbench.models.cifar_resnet import CifarResNet
from cnnbench.models.googlenet import GoogLeNet
from cnnbench.models.resnet import ResNet
from cnnbench.models.vgg import VGG
from cnnbench.models.weights import copy_weights
from deep import CIFAR, IMAGENET, empty, images_of, on_meta, seasoned

# ---- counts: torchvision's and the papers' --------------------------------------------------------------------------

COUNTS = [  # at 224 pixels, 1000 classes: parameters, multiply-accumulates
    (AlexNet, (), {}, 61_100_840, 714_188_480),
    (VGG, ("A", "none"), {}, 132_863_336, 7_609_090_048),
    (VGG, ("B", "none"), {}, 133_047_848, 11_308_466_176),
    (VGG, ("D", "none"), {}, 138_357_544, 15_470_264_320),
    (VGG, ("E", "none"), {}, 143_667_240, 19_632_062_464),
    (VGG, ("D", "batch"), {}, 138_365_992, 15_470_264_320),
    (ResNet, (18, "imagenet"), {}, 11_689_512, 1_814_073_344),
    (ResNet, (34, "imagenet"), {}, 21_797_672, 3_663_761_408),
    (ResNet, (50, "imagenet"), {}, 25_557_032, 4_089_184_256),
    (GoogLeNet, (5, "batch"), {}, 7_005_832, 1_582_671_872),
    (GoogLeNet, (5, "none"), {}, 6_998_552, 1_582_671_872),
    (GoogLeNet, (3, "batch"), {}, 6_624_904, 1_498_376_192),
    (GoogLeNet, (3, "batch"), {"aux_heads": True}, 13_004_888, 1_498_376_192),  # the heads do not run in evaluation
]


@pytest.mark.parametrize(
    ("make", "args", "knobs", "count", "multiplications"),
    [pytest.param(*row, id="-".join([row[0].__name__, *map(str, row[1]), *row[2]])) for row in COUNTS],
)
def test_a_net_has_its_known_parameters_and_macs(make, args, knobs, count, multiplications):
    net = on_meta(make, *args, **knobs, **IMAGENET)
    assert count_parameters(net) == count
    assert count_macs(net, (3, 224, 224)) == multiplications


@pytest.mark.parametrize(
    ("depth", "count"), [(20, 269_722), (32, 464_154), (44, 658_586), (56, 853_018), (110, 1_727_962)]
)
def test_a_resnet_for_small_images_and_its_plain_twin_have_the_known_parameters(depth, count):
    for shortcut in ("A", "none"):
        assert count_parameters(on_meta(CifarResNet, depth, shortcut, **CIFAR)) == count


def test_resnet56_with_projections_has_855770_parameters():
    assert count_parameters(on_meta(CifarResNet, 56, "B", **CIFAR)) == 855_770


@pytest.mark.parametrize(("stem_bias", "count"), [(True, 11_175_434), (False, 11_175_370)])
def test_the_textbooks_resnet18_has_the_known_parameters(stem_bias, count):
    net = on_meta(ResNet, 18, "imagenet", stem_bias=stem_bias, in_channels=1, num_classes=10)
    assert count_parameters(net) == count


def test_the_textbooks_resnet18_has_11185034_numbers_with_its_running_statistics():
    net = on_meta(ResNet, 18, "imagenet", stem_bias=True, in_channels=1, num_classes=10)
    running = [value for name, value in net.state_dict().items() if "running" in name]
    assert count_parameters(net) + sum(value.numel() for value in running) == 11_185_034


def test_resnet18_for_small_images_has_a_stem_of_27_weights_a_channel():
    small, large = (count_parameters(on_meta(ResNet, 18, stem, **CIFAR)) for stem in ("cifar", "imagenet"))
    assert small == large - 64 * 3 * 49 + 64 * 3 * 9 == 11_173_962


@pytest.mark.parametrize(
    ("configuration", "millions"), [("A", 133), ("A-LRN", 133), ("B", 133), ("C", 134), ("D", 138), ("E", 144)]
)
def test_a_vgg_has_the_millions_of_parameters_of_the_papers_table_2(configuration, millions):
    assert round(count_parameters(on_meta(VGG, configuration, "none", **IMAGENET)) / 1e6) == millions


# ---- torchvision's, with copied weights -----------------------------------------------------------------------------


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


@pytest.mark.slow
def test_alexnet_with_torchvisions_weights_has_its_logits_at_any_size():
    nets = pair(torchvisions("alexnet"), AlexNet, image_size=224)
    for side in (224, 160, 256):
        assert_equal_logits(*nets, images_of(side, 1))


@pytest.mark.slow
@pytest.mark.parametrize(("name", "configuration", "norm"), VGG_PAIRS)
def test_vgg_with_torchvisions_weights_has_its_logits(name, configuration, norm):
    assert_equal_logits(*pair(torchvisions(name, init_weights=False), VGG, configuration, norm), images_of(224, 1))


@pytest.mark.slow
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
