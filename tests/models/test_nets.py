"""Every net of conf/model/ does what a net must; LeNet-5 and SimpleCNN are those of their documents."""

from __future__ import annotations

import io
from functools import cache

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from cnnbench.accounting import macs, parameters
from cnnbench.build import construct, locate
from cnnbench.compose import compose, conf_dir
from cnnbench.models.lenet5 import LeNet5
from cnnbench.models.simplecnn import SimpleCNN

NAMES = sorted(file.stem for file in (conf_dir() / "model").glob("*.yaml") if file.stem != "custom")
CLASSES, IMAGES = 7, 4


@cache
def node_of(name: str):
    return compose([f"model={name}"]).model


def smallest(name: str) -> int:
    return getattr(locate(node_of(name), "model"), "min_image_size", 1)


def build(name: str, channels: int, seed: int = 0) -> nn.Module:
    torch.manual_seed(seed)
    return construct(
        node_of(name), "model", in_channels=channels, num_classes=CLASSES, image_size=smallest(name)
    ).train()


def pictures(name: str, channels: int, images: int = IMAGES) -> torch.Tensor:
    return torch.randn(images, channels, smallest(name), smallest(name), generator=torch.Generator().manual_seed(1))


def stir(net: nn.Module) -> nn.Module:
    """Moves scales and biases off their initial values, so that no branch is shut by a zero that training would open."""
    torch.manual_seed(2)
    with torch.no_grad():
        for parameter in net.parameters():
            if parameter.ndim < 2:
                parameter.add_(0.1 * torch.rand_like(parameter))
    return net


def test_every_choice_of_a_net_is_tested():
    assert {"lenet5", "simplecnn"} <= set(NAMES)


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("name", NAMES)
def test_every_parameter_of_a_net_learns_at_its_smallest_size(name, channels):
    net = stir(build(name, channels))
    logits = net(pictures(name, channels))
    assert logits.shape == (IMAGES, CLASSES)
    F.cross_entropy(logits, torch.arange(IMAGES) % CLASSES).backward()
    for parameter_name, parameter in net.named_parameters():
        assert parameter.grad is not None, f"no gradient for {parameter_name}"
        assert parameter.grad.isfinite().all(), f"no finite gradient for {parameter_name}"
        assert parameter.grad.any(), f"no gradient for {parameter_name}"


@pytest.mark.parametrize("name", NAMES)
def test_a_net_in_evaluation_gives_the_same_answers_again_and_changes_nothing(name):
    net = build(name, 1)
    with torch.no_grad():
        net(pictures(name, 1))
        before = {key: value.clone() for key, value in net.eval().state_dict().items()}
        assert torch.equal(net(pictures(name, 1)), net(pictures(name, 1)))
    assert all(torch.equal(value, before[key]) for key, value in net.state_dict().items())


@pytest.mark.parametrize("name", NAMES)
def test_a_net_in_evaluation_answers_an_image_whatever_is_beside_it(name):
    net = build(name, 1).eval()
    with torch.no_grad():
        together = net(pictures(name, 1))
        alone = torch.cat([net(image[None]) for image in pictures(name, 1)])
    torch.testing.assert_close(alone, together, rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("name", NAMES)
def test_a_nets_answers_survive_saving_and_loading_its_weights(name):
    net, other = build(name, 3, seed=0), build(name, 3, seed=1)
    with torch.no_grad():
        net(pictures(name, 3))  # moves running statistics, where there are any
        expected, before = net.eval()(pictures(name, 3)), other.eval()(pictures(name, 3))
        file = io.BytesIO()
        torch.save(net.state_dict(), file)
        file.seek(0)
        other.load_state_dict(torch.load(file, weights_only=True))
        assert not torch.equal(before, expected)
        assert torch.equal(other(pictures(name, 3)), expected)


@pytest.mark.parametrize("name", NAMES)
def test_a_net_is_built_and_run_on_the_meta_device_without_memory(name):
    with torch.device("meta"):
        net = build(name, 3)
        logits = net(torch.empty(IMAGES, 3, smallest(name), smallest(name)))
    assert logits.shape == (IMAGES, CLASSES)
    assert {value.device.type for value in (logits, *net.state_dict().values())} == {"meta"}


@pytest.mark.parametrize("name", NAMES)
def test_no_net_ends_in_probabilities(name):
    with torch.no_grad():
        logits = build(name, 1).eval()(10 * pictures(name, 1, images=16))
    assert logits.min() < 0
    assert not torch.allclose(logits.exp().sum(1), torch.ones(16), atol=1e-3)


# ---- LeNet-5 ----------------------------------------------------------------------------------------------------


def lenet() -> LeNet5:
    torch.manual_seed(0)
    return LeNet5(in_channels=1, num_classes=10)


def test_lenet5_has_61706_parameters():
    assert parameters(lenet()) == 61_706


@pytest.mark.parametrize(
    ("layer", "count"),
    [("conv1", 156), ("conv3", 2_416), ("conv5", 48_120), ("linear6", 10_164), ("linear7", 850)],
)
def test_each_layer_of_lenet5_has_the_parameters_of_its_table(layer, count):
    assert parameters(getattr(lenet(), layer)) == count


def test_lenet5_has_no_parameters_outside_its_five_layers():
    assert {name.split(".")[0] for name in lenet().state_dict()} == {"conv1", "conv3", "conv5", "linear6", "linear7"}


def test_lenet5_takes_416520_macs_for_an_image():
    convolutions = 28 * 28 * 6 * 25 + 10 * 10 * 16 * 6 * 25 + 120 * 16 * 25
    assert macs(lenet(), (1, 32, 32)) == convolutions + 120 * 84 + 84 * 10 == 416_520


def test_lenet5_is_the_sequence_of_its_table():
    net = lenet()
    table = nn.Sequential(
        *(net.conv1, nn.ReLU(), nn.MaxPool2d(2, 2)),
        *(net.conv3, nn.ReLU(), nn.AvgPool2d(2, 2)),
        *(net.conv5, nn.ReLU(), nn.Flatten()),
        *(net.linear6, nn.ReLU(), net.linear7),
    )
    images = torch.randn(3, 1, 32, 32)
    torch.testing.assert_close(net(images), table(images))


def test_lenet5_takes_images_of_32_pixels_only():
    assert (LeNet5.min_image_size, LeNet5.max_image_size) == (32, 32)
    for side in (31, 36):
        with pytest.raises(RuntimeError):
            lenet()(torch.zeros(1, 1, side, side))


# ---- SimpleCNN --------------------------------------------------------------------------------------------------


def test_simplecnn_flattens_a_32_pixel_image_to_2048_features():
    net = SimpleCNN(in_channels=3, num_classes=10)
    shapes = []
    net.layer4.fc1.register_forward_pre_hook(lambda module, inputs: shapes.append(tuple(inputs[0].shape)))
    net(torch.zeros(5, 3, 32, 32))
    assert shapes == [(5, 2048)]


def test_simplecnn_has_the_parameters_of_its_six_layers():
    convolutions = 32 * (3 * 9 + 1) + 64 * (32 * 9 + 1) + 128 * (64 * 9 + 1)
    linear = 512 * (2048 + 1) + 64 * (512 + 1) + 10 * (64 + 1)
    assert parameters(SimpleCNN(in_channels=3, num_classes=10)) == convolutions + linear


def test_simplecnn_takes_the_macs_of_its_six_layers():
    convolutions = 32**2 * 32 * 3 * 9 + 16**2 * 64 * 32 * 9 + 8**2 * 128 * 64 * 9
    expected = convolutions + 2048 * 512 + 512 * 64 + 64 * 10
    assert macs(SimpleCNN(in_channels=3, num_classes=10), (3, 32, 32)) == expected


def test_simplecnn_is_the_sequence_of_its_table():
    torch.manual_seed(0)
    net = SimpleCNN(in_channels=3, num_classes=10)
    layers = [module for module in net.modules() if isinstance(module, nn.Conv2d | nn.Linear)]
    x = images = torch.randn(2, 3, 32, 32)
    for convolution in layers[:3]:
        x = F.max_pool2d(F.conv2d(x, convolution.weight, convolution.bias, padding=1).relu(), 2, 2)
    x = x.flatten(1)
    for linear in layers[3:5]:
        x = F.linear(x, linear.weight, linear.bias).relu()
    torch.testing.assert_close(net(images), F.linear(x, layers[5].weight, layers[5].bias))


@pytest.mark.parametrize("side", [*range(8, 18), 28, 31, 33, 64])
def test_simplecnn_takes_images_of_any_size_from_8(side):
    with torch.device("meta"):
        net = SimpleCNN(in_channels=1, num_classes=10, image_size=side)
        assert net(torch.empty(2, 1, side, side)).shape == (2, 10)
