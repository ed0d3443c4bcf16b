"""The small nets equal those of their documents: the LeNets, the nets of the PyTorch course, squeeze and excitation."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from cnnbench.complexity.layers import count_macs, count_parameters
from cnnbench.models.lenet import LeNet
from cnnbench.models.lenet5 import LeNet5
from cnnbench.models.lenet_leaky import LeakyLeNet, SqueezeExcitation
from cnnbench.models.mnist_cnn import MnistCNN
from cnnbench.models.simplecnn import SimpleCNN
from cnnbench.models.weights import copy_weights

SMALL = {"in_channels": 1, "num_classes": 10}
LENET_3X3 = {"channels": [[2, 4], [8, 16]], "kernel_size": 3}


def images_of(side: int, channels: int = 1, images: int = 3) -> Tensor:
    return torch.randn(images, channels, side, side, generator=torch.Generator().manual_seed(1))


def with_seed(make, *args, **knobs) -> nn.Module:
    torch.manual_seed(0)
    return make(*args, **knobs)


def features(net: nn.Module) -> int:
    """Input features of the first linear layer."""
    return next(module.in_features for module in net.modules() if isinstance(module, nn.Linear))


def kinds(net: nn.Module, *classes: type) -> list[nn.Module]:
    return [module for module in net.modules() if isinstance(module, classes)]


def assert_same_logits(net: nn.Module, document: nn.Module, images: Tensor) -> None:
    """Asserts that the document's net with `net`'s weights gives the same logits, in training and in evaluation."""
    copy_weights(net, document)
    for training in (True, False):
        torch.testing.assert_close(net.train(training)(images), document.train(training)(images))


# ---- LeNet ------------------------------------------------------------------------------------------------------


def test_lenet_is_the_sequence_of_its_course():
    document = nn.Sequential(
        *(nn.Conv2d(1, 6, 3, padding=1), nn.MaxPool2d(2, 2)),
        *(nn.Conv2d(6, 16, 5), nn.MaxPool2d(2, 2)),
        *(nn.Flatten(), nn.Linear(400, 120), nn.Linear(120, 84), nn.Linear(84, 10)),
    )
    assert_same_logits(with_seed(LeNet, **SMALL), document, images_of(28))


def test_lenet_has_61610_parameters():
    expected = 6 * (9 + 1) + 16 * (6 * 25 + 1) + 120 * (400 + 1) + 84 * (120 + 1) + 10 * (84 + 1)
    assert count_parameters(LeNet(**SMALL)) == expected == 61_610


def test_lenet_has_the_macs_of_its_five_layers():
    expected = 28**2 * 6 * 9 + 10**2 * 16 * 6 * 25 + 400 * 120 + 120 * 84 + 84 * 10
    assert count_macs(LeNet(**SMALL), (1, 28, 28)) == expected


def test_lenet_with_mean_pooling_and_no_activations_is_an_affine_map():
    net = with_seed(LeNet, pooling="mean", **SMALL).double()
    a, b = images_of(28).double(), images_of(28).double().flip(0)
    torch.testing.assert_close(net(a) + net(b) - net(torch.zeros_like(a)), net(a + b))


def test_lenet_with_an_activation_is_not_affine():
    net = with_seed(LeNet, activation="relu", pooling="mean", **SMALL).double()
    a, b = images_of(28).double(), images_of(28).double().flip(0)
    assert not torch.allclose(net(a) + net(b) - net(torch.zeros_like(a)), net(a + b), atol=1e-3)


@pytest.mark.parametrize(
    ("knobs", "count"),
    [
        ({}, 16 * 5 * 5),
        ({"kernel_size": 3}, 16 * 6 * 6),  # 28, 14, 12, 6
        ({"kernel_size": 7}, 16 * 4 * 4),  # 28, 14, 8, 4
        ({"stride": 2}, 16 * 1 * 1),  # 14, 7, 2, 1
        ({"pooling": "mean"}, 16 * 5 * 5),
        ({"image_size": 32}, 16 * 6 * 6),  # 32, 16, 12, 6
        ({"image_size": 29}, 16 * 5 * 5),  # 29, 14, 10, 5
    ],
)
def test_lenet_flattens_to_the_size_after_its_windows_and_strides(knobs, count):
    net = LeNet(**knobs, **SMALL)
    assert features(net) == count
    assert net(images_of(knobs.get("image_size", 28))).shape == (3, 10)


def test_the_stride_of_lenet_is_of_both_convolutions_and_its_kernel_size_of_the_second():
    first, second = kinds(LeNet(kernel_size=3, stride=2, **SMALL), nn.Conv2d)
    assert (first.kernel_size, first.stride, first.padding) == ((3, 3), (2, 2), (1, 1))
    assert (second.kernel_size, second.stride, second.padding) == ((3, 3), (2, 2), (0, 0))


@pytest.mark.parametrize(
    ("activation", "expected"),
    [
        ("none", lambda x: x),
        ("relu", lambda x: x.clamp(min=0)),
        ("leaky_relu", lambda x: torch.where(x > 0, x, 0.1 * x)),
        ("tanh", lambda x: 2 / (1 + torch.exp(-2 * x)) - 1),
        ("sigmoid", lambda x: 1 / (1 + torch.exp(-x))),
    ],
)
def test_an_activation_follows_every_layer_of_lenet_but_the_last(activation, expected):
    net = with_seed(LeNet, activation=activation, **SMALL)
    (w1, b1, w2, b2), linear = [value for _, value in net.named_parameters()][:4], kinds(net, nn.Linear)
    x = F.max_pool2d(expected(F.conv2d(images_of(28), w1, b1, padding=1)), 2)
    x = F.max_pool2d(expected(F.conv2d(x, w2, b2)), 2).flatten(1)
    x = linear[2](expected(linear[1](expected(linear[0](x)))))
    torch.testing.assert_close(net(images_of(28)), x)


def test_both_poolings_of_lenet_with_mean_pooling_take_means():
    net = with_seed(LeNet, pooling="mean", **SMALL)
    w1, b1, w2, b2 = [value for _, value in net.named_parameters()][:4]
    x = F.avg_pool2d(F.conv2d(images_of(28), w1, b1, padding=1), 2)
    x = F.avg_pool2d(F.conv2d(x, w2, b2), 2).flatten(1)
    for linear in kinds(net, nn.Linear):
        x = linear(x)
    torch.testing.assert_close(net(images_of(28)), x)


# ---- LeNet-5 ----------------------------------------------------------------------------------------------------


def lenet5(**knobs) -> LeNet5:
    return with_seed(LeNet5, **knobs, **SMALL)


def test_lenet5_has_61706_parameters():
    assert count_parameters(lenet5()) == 61_706


@pytest.mark.parametrize(
    ("layer", "count"),
    [("conv1", 156), ("conv3", 2_416), ("conv5", 48_120), ("linear6", 10_164), ("linear7", 850)],
)
def test_each_layer_of_lenet5_has_the_parameters_of_its_table(layer, count):
    assert count_parameters(getattr(lenet5(), layer)) == count


def test_lenet5_has_no_parameters_outside_its_five_layers():
    assert {name.split(".")[0] for name in lenet5().state_dict()} == {"conv1", "conv3", "conv5", "linear6", "linear7"}


def test_lenet5_has_416520_macs_for_an_image():
    convolutions = 28 * 28 * 6 * 25 + 10 * 10 * 16 * 6 * 25 + 120 * 16 * 25
    assert count_macs(lenet5(), (1, 32, 32)) == convolutions + 120 * 84 + 84 * 10 == 416_520


def test_lenet5_is_the_sequence_of_its_table():
    document = nn.Sequential(
        *(nn.Conv2d(1, 6, 5), nn.ReLU(), nn.MaxPool2d(2, 2)),
        *(nn.Conv2d(6, 16, 5), nn.ReLU(), nn.AvgPool2d(2, 2)),
        *(nn.Conv2d(16, 120, 5), nn.ReLU(), nn.Flatten()),
        *(nn.Linear(120, 84), nn.ReLU(), nn.Linear(84, 10)),
    )
    assert_same_logits(lenet5(), document, images_of(32))


def test_lenet5_accepts_images_of_32_pixels_only():
    assert (LeNet5.min_image_size, LeNet5.max_image_size) == (32, 32)
    for side in (31, 36):
        with pytest.raises(RuntimeError):
            lenet5()(torch.zeros(1, 1, side, side))


@pytest.mark.parametrize(
    ("pooling", "pooling2", "pooling4"), [("max_mean", "max", "mean"), ("max", "max", "max"), ("mean", "mean", "mean")]
)
def test_the_poolings_of_lenet5_are_the_given_ones(pooling, pooling2, pooling4):
    pools = {"max": F.max_pool2d, "mean": F.avg_pool2d}
    net = lenet5(pooling=pooling)
    x = pools[pooling2](net.conv1(images_of(32)).relu(), 2)
    x = pools[pooling4](net.conv3(x).relu(), 2)
    x = net.linear6(net.conv5(x).relu().flatten(1)).relu()
    torch.testing.assert_close(net(images_of(32)), net.linear7(x))


@pytest.mark.parametrize(
    ("knobs", "side"),
    [
        ({}, 5),
        ({"kernel_size": 3}, 6),  # 30, 15, 13, 6
        ({"kernel_size": 7}, 3),  # 26, 13, 7, 3
        ({"stride": 2}, 1),  # 14, 7, 2, 1
    ],
)
def test_the_third_convolution_of_lenet5_is_as_large_as_its_map(knobs, side):
    net = lenet5(**knobs)
    assert net.conv5.kernel_size == (side, side)
    assert net(images_of(32)).shape == (3, 10)


def test_lenet5_has_its_activation_after_every_layer_but_the_last():
    net = lenet5(activation="tanh")
    x = F.max_pool2d(net.conv1(images_of(32)).tanh(), 2)
    x = F.avg_pool2d(net.conv3(x).tanh(), 2)
    x = net.linear6(net.conv5(x).tanh().flatten(1)).tanh()
    torch.testing.assert_close(net(images_of(32)), net.linear7(x))


# ---- LeNet with leaky ReLU, and of 3×3 convolutions -------------------------------------------------------------


def test_leaky_lenet_is_the_sequence_of_its_course():
    document = nn.Sequential(
        *(nn.Conv2d(1, 6, 5), nn.LeakyReLU(0.1), nn.MaxPool2d(2, 2)),
        *(nn.Conv2d(6, 16, 5), nn.LeakyReLU(0.1), nn.MaxPool2d(2, 2), nn.Flatten()),
        *(nn.Linear(16 * 4 * 4, 120), nn.LeakyReLU(0.1), nn.Linear(120, 84), nn.ReLU(), nn.Linear(84, 10)),
    )
    assert_same_logits(with_seed(LeakyLeNet, **SMALL), document, images_of(28))


def test_lenet_of_3x3_convolutions_is_the_sequence_of_its_course():
    document = nn.Sequential(
        *(nn.Conv2d(1, 2, 3), nn.LeakyReLU(0.1), nn.Conv2d(2, 4, 3), nn.LeakyReLU(0.1), nn.MaxPool2d(2, 2)),
        *(nn.Conv2d(4, 8, 3), nn.LeakyReLU(0.1), nn.Conv2d(8, 16, 3), nn.LeakyReLU(0.1), nn.MaxPool2d(2, 2)),
        *(nn.Flatten(), nn.Linear(16 * 4 * 4, 120), nn.LeakyReLU(0.1), nn.Linear(120, 84), nn.ReLU()),
        nn.Linear(84, 10),
    )
    assert_same_logits(with_seed(LeakyLeNet, **LENET_3X3, **SMALL), document, images_of(28))


def test_squeeze_and_excitation_of_lenet_is_the_block_of_its_course():
    net = with_seed(LeakyLeNet, **LENET_3X3, se=True, **SMALL)
    excite = nn.Sequential(nn.Linear(16, 2), nn.ReLU(), nn.Linear(2, 16), nn.Sigmoid())
    copy_weights(net.se, excite)
    feature = net.conv(images_of(28))
    feature = feature * excite(F.adaptive_avg_pool2d(feature, 1).view(3, 16)).view(3, 16, 1, 1)
    torch.testing.assert_close(net(images_of(28)), net.fc(feature.view(3, -1)))


def test_squeeze_and_excitation_halves_a_map_while_its_last_layer_is_0():
    block = SqueezeExcitation(16, 2)
    for parameter in block.excite[2].parameters():
        nn.init.zeros_(parameter)
    x = torch.randn(2, 16, 5, 3)
    torch.testing.assert_close(block(x), x / 2)  # the sigmoid of 0


def test_squeeze_and_excitation_adds_its_two_layers_and_no_other_parameters():
    plain, squeezed = (LeakyLeNet(**LENET_3X3, se=se, **SMALL) for se in (False, True))
    assert count_parameters(squeezed) - count_parameters(plain) == 2 * (16 + 1) + 16 * (2 + 1)


HEAD = 120 * (256 + 1) + 84 * (120 + 1) + 10 * (84 + 1)


def test_leaky_lenet_has_44426_parameters():
    assert count_parameters(LeakyLeNet(**SMALL)) == 6 * (25 + 1) + 16 * (6 * 25 + 1) + HEAD == 44_426


def test_lenet_of_3x3_convolutions_has_43414_parameters():
    convolutions = 2 * (9 + 1) + 4 * (2 * 9 + 1) + 8 * (4 * 9 + 1) + 16 * (8 * 9 + 1)
    assert count_parameters(LeakyLeNet(**LENET_3X3, **SMALL)) == convolutions + HEAD == 43_414


def test_lenet_of_3x3_convolutions_has_the_macs_of_its_seven_layers():
    convolutions = 26**2 * 2 * 9 + 24**2 * 4 * 2 * 9 + 10**2 * 8 * 4 * 9 + 8**2 * 16 * 8 * 9
    assert count_macs(LeakyLeNet(**LENET_3X3, **SMALL), (1, 28, 28)) == convolutions + 256 * 120 + 120 * 84 + 84 * 10


@pytest.mark.parametrize("knobs", [{}, LENET_3X3, {"se": True}])
def test_leaky_lenets_flatten_28_pixels_to_256_features(knobs):
    net = LeakyLeNet(**knobs, **SMALL)
    flat = net.flatten(net.se(net.conv(images_of(28))))
    assert flat.shape == (3, 16 * 4 * 4)


@pytest.mark.parametrize(
    ("knobs", "count"),
    [
        ({"kernel_size": 3}, 16 * 5 * 5),  # 26, 13, 11, 5
        ({"kernel_size": 7}, 16 * 2 * 2),  # 22, 11, 5, 2
        ({"kernel_size": 3, "stride": 2}, 16 * 1 * 1),  # 13, 6, 2, 1
        ({"pooling": "mean"}, 16 * 4 * 4),
        ({"channels": [[3], [5]]}, 5 * 4 * 4),
        ({"channels": [[3, 4], [5]], "kernel_size": 3}, 5 * 5 * 5),  # 26, 24, 12, 10, 5
        ({"image_size": 32}, 16 * 5 * 5),  # 28, 14, 10, 5
    ],
)
def test_leaky_lenet_flattens_to_the_size_after_its_windows_and_strides(knobs, count):
    net = LeakyLeNet(**knobs, **SMALL)
    assert features(net) == count
    assert net(images_of(knobs.get("image_size", 28))).shape == (3, 10)


def test_kernel_size_and_stride_of_leaky_lenet_are_those_of_every_convolution():
    net = LeakyLeNet([[2, 4], [8, 16]], kernel_size=2, stride=2, image_size=64, **SMALL)
    assert [(c.kernel_size, c.stride) for c in kinds(net, nn.Conv2d)] == 4 * [((2, 2), (2, 2))]


def test_leaky_lenet_with_mean_pooling_has_no_max_pooling_left():
    net = LeakyLeNet(pooling="mean", **SMALL)
    assert len(kinds(net, nn.AvgPool2d)) == 2
    assert not kinds(net, nn.MaxPool2d)


def test_a_relu_is_before_leaky_lenets_last_layer_with_any_activation():
    net = LeakyLeNet(activation="tanh", **SMALL)
    assert [type(layer) for layer in net.fc] == [nn.Linear, nn.Tanh, nn.Linear, nn.ReLU, nn.Linear]
    assert len(kinds(net.conv, nn.Tanh)) == 2


# ---- what shrinks to nothing ------------------------------------------------------------------------------------


@pytest.mark.parametrize("cls", [LeNet, LeakyLeNet, MnistCNN])
def test_the_smallest_image_size_of_a_class_is_the_smallest_that_fits_its_windows(cls):
    side = cls.min_image_size
    cls(image_size=side, **SMALL)
    with pytest.raises(ValueError, match=f"an image of {side - 1}×{side - 1} pixels shrinks to nothing"):
        cls(image_size=side - 1, **SMALL)


@pytest.mark.parametrize(
    ("cls", "knobs", "message"),
    [
        (LeNet, {"stride": 3}, "an image of 28×28 pixels shrinks to nothing: a 2×2 window meets a map of 1×1"),
        (LeNet, {"stride": 8}, "an image of 28×28 pixels shrinks to nothing: a 5×5 window meets a map of 2×2"),
        (
            LeNet,
            {"kernel_size": 15},
            "an image of 28×28 pixels shrinks to nothing: a 15×15 window meets a map of 14×14",
        ),
        (LeNet5, {"stride": 3}, "an image of 32×32 pixels shrinks to nothing: a 2×2 window meets a map of 1×1"),
        (
            LeNet5,
            {"kernel_size": 33},
            "an image of 32×32 pixels shrinks to nothing: a 33×33 window meets a map of 32×32",
        ),
        (LeakyLeNet, {"stride": 2}, "an image of 28×28 pixels shrinks to nothing: a 2×2 window meets a map of 1×1"),
        (LeakyLeNet, {"stride": 4}, "an image of 28×28 pixels shrinks to nothing: a 5×5 window meets a map of 3×3"),
    ],
)
def test_a_stride_or_window_that_leaves_nothing_of_an_image_is_refused_with_the_sizes(cls, knobs, message):
    with pytest.raises(ValueError, match="shrinks to nothing") as caught:
        cls(**knobs, **SMALL)
    assert str(caught.value) == f"{message}; take larger images, or smaller windows or strides"


# ---- the net for MNIST ------------------------------------------------------------------------------------------


def test_mnist_cnn_is_the_sequence_of_its_course():
    document = nn.Sequential(
        *(nn.Conv2d(1, 16, 3), nn.BatchNorm2d(16), nn.ReLU()),
        *(nn.Conv2d(16, 32, 3), nn.BatchNorm2d(32), nn.ReLU(), nn.MaxPool2d(2, 2)),
        *(nn.Conv2d(32, 64, 3), nn.BatchNorm2d(64), nn.ReLU()),
        *(nn.Conv2d(64, 128, 3), nn.BatchNorm2d(128), nn.ReLU(), nn.MaxPool2d(2, 2), nn.Flatten()),
        *(nn.Linear(128 * 4 * 4, 1024), nn.ReLU(), nn.Linear(1024, 128), nn.ReLU(), nn.Linear(128, 10)),
    )
    assert_same_logits(with_seed(MnistCNN, **SMALL), document, images_of(28))


def test_mnist_cnn_flattens_28_pixels_to_2048_features():
    assert features(MnistCNN(**SMALL)) == 128 * 4 * 4


def test_mnist_cnn_has_the_parameters_of_its_layers():
    convolutions = 16 * (9 + 1) + 32 * (16 * 9 + 1) + 64 * (32 * 9 + 1) + 128 * (64 * 9 + 1)
    norms = 2 * (16 + 32 + 64 + 128)
    linear = 1024 * (2048 + 1) + 128 * (1024 + 1) + 10 * (128 + 1)
    assert count_parameters(MnistCNN(**SMALL)) == convolutions + norms + linear


def test_mnist_cnn_has_the_macs_of_its_seven_layers():
    convolutions = 26**2 * 16 * 9 + 24**2 * 32 * 16 * 9 + 10**2 * 64 * 32 * 9 + 8**2 * 128 * 64 * 9
    assert count_macs(MnistCNN(**SMALL), (1, 28, 28)) == convolutions + 2048 * 1024 + 1024 * 128 + 128 * 10


# ---- SimpleCNN --------------------------------------------------------------------------------------------------


def test_simplecnn_is_the_sequence_of_its_table():
    document = nn.Sequential(
        *(nn.Conv2d(3, 32, 3, 1, padding=1), nn.ReLU(), nn.MaxPool2d(2, 2)),
        *(nn.Conv2d(32, 64, 3, 1, padding=1), nn.ReLU(), nn.MaxPool2d(2, 2)),
        *(nn.Conv2d(64, 128, 3, 1, padding=1), nn.ReLU(), nn.MaxPool2d(2, 2), nn.Flatten()),
        *(nn.Linear(2048, 512), nn.ReLU(), nn.Linear(512, 64), nn.ReLU(), nn.Linear(64, 10)),
    )
    assert_same_logits(with_seed(SimpleCNN, in_channels=3, num_classes=10), document, images_of(32, 3))


def test_the_layers_of_simplecnn_have_the_names_of_its_course():
    net = SimpleCNN(in_channels=3, num_classes=10)
    layers = "layer1.conv1 layer2.conv2 layer3.conv3 layer4.fc1 layer4.fc2 layer4.fc3".split()
    assert [name for name, _ in net.named_parameters()] == [
        f"{n}.{kind}" for n in layers for kind in ("weight", "bias")
    ]


def test_simplecnn_flattens_a_32_pixel_image_to_2048_features():
    net = SimpleCNN(in_channels=3, num_classes=10)
    shapes = []
    net.layer4.fc1.register_forward_pre_hook(lambda module, inputs: shapes.append(tuple(inputs[0].shape)))
    net(torch.zeros(5, 3, 32, 32))
    assert shapes == [(5, 2048)]


def test_simplecnn_has_the_parameters_of_its_six_layers():
    convolutions = 32 * (3 * 9 + 1) + 64 * (32 * 9 + 1) + 128 * (64 * 9 + 1)
    linear = 512 * (2048 + 1) + 64 * (512 + 1) + 10 * (64 + 1)
    assert count_parameters(SimpleCNN(in_channels=3, num_classes=10)) == convolutions + linear


def test_simplecnn_has_the_macs_of_its_six_layers():
    convolutions = 32**2 * 32 * 3 * 9 + 16**2 * 64 * 32 * 9 + 8**2 * 128 * 64 * 9
    expected = convolutions + 2048 * 512 + 512 * 64 + 64 * 10
    assert count_macs(SimpleCNN(in_channels=3, num_classes=10), (3, 32, 32)) == expected


@pytest.mark.parametrize("side", [8, 9, 15, 16, 33, 64])
def test_simplecnn_accepts_images_of_any_size_from_8(side):
    with torch.device("meta"):
        net = SimpleCNN(in_channels=1, num_classes=10, image_size=side)
        assert net(torch.empty(2, 1, side, side)).shape == (2, 10)
