"""Feature extraction: any layer's output, the first children, all layers of a class; the net is not changed."""

from __future__ import annotations

from collections import OrderedDict

import pytest
import torch
from torch import nn

from cnnbench.models.cifar_resnet import CifarResNet
from cnnbench.models.feature_extraction import _shortened, children_upto, extract, layers_of
from cnnbench.models.googlenet import GoogLeNet
from cnnbench.models.lenet5 import LeNet5
from cnnbench.models.simplecnn import SimpleCNN


def images_of(side: int = 32, channels: int = 3) -> torch.Tensor:
    return torch.randn(2, channels, side, side, generator=torch.Generator().manual_seed(0))


def hooks_of(net: nn.Module) -> int:
    return sum(len(module._forward_hooks) for module in net.modules())


def exactly(one: torch.Tensor, other: torch.Tensor) -> None:
    torch.testing.assert_close(one, other, rtol=0, atol=0)


@pytest.fixture
def lenet5() -> LeNet5:
    torch.manual_seed(0)
    return LeNet5(in_channels=1, num_classes=10).eval()


@pytest.fixture
def simple() -> SimpleCNN:
    torch.manual_seed(0)
    return SimpleCNN(in_channels=3, num_classes=10).eval()


@pytest.fixture
def in_place() -> nn.Sequential:
    """A convolution whose output the next layer overwrites."""
    torch.manual_seed(0)
    return nn.Sequential(OrderedDict(conv=nn.Conv2d(3, 4, 3), relu=nn.ReLU(inplace=True), last=nn.Flatten()))


# ---- extract ------------------------------------------------------------------------------------------------------


def test_each_layers_output_is_that_of_a_forward_by_hand(lenet5):
    x = images_of(channels=1)
    by_hand = OrderedDict()
    for name, layer in lenet5.named_children():
        by_hand[name] = x = layer(x)
    found = extract(lenet5, by_hand)(images_of(channels=1))
    assert list(found) == list(by_hand)
    for name, value in by_hand.items():
        exactly(found[name], value)


def test_a_single_name_is_accepted(lenet5):
    found = extract(lenet5, "pool2")(images_of(channels=1))
    assert list(found) == ["pool2"]
    assert found["pool2"].shape == (2, 6, 14, 14)


def test_outputs_have_the_order_of_the_names(lenet5):
    assert list(extract(lenet5, ["linear7", "conv1", "pool4"])(images_of(channels=1))) == ["linear7", "conv1", "pool4"]


def test_names_may_come_from_an_iterator(lenet5):
    assert list(extract(lenet5, iter(["conv1", "conv3"]))(images_of(channels=1))) == ["conv1", "conv3"]


def test_a_layer_within_a_layer_is_named_with_dots():
    torch.manual_seed(0)
    net = CifarResNet(8, in_channels=3, num_classes=10).eval()
    name = next(name for name, module in net.named_modules() if name.count(".") > 1 and isinstance(module, nn.Conv2d))
    caught = []
    net.get_submodule(name).register_forward_hook(lambda module, inputs, output: caught.append(output))
    found = extract(net, name)(images_of())[name]
    exactly(found, caught[0])


def test_the_output_of_a_stage_is_that_of_its_last_layer(simple):
    found = extract(simple, ["layer2", "layer2.pool2"])(images_of())
    exactly(found["layer2"], found["layer2.pool2"])


def test_the_last_layers_output_is_the_nets(simple):
    exactly(extract(simple, "layer4")(images_of())["layer4"], simple(images_of()))


def test_weights_are_shared_not_copied(lenet5):
    extractor = extract(lenet5, "conv1")
    before = extractor(images_of(channels=1))["conv1"]
    with torch.no_grad():
        lenet5.conv1.bias += 1
    torch.testing.assert_close(extractor(images_of(channels=1))["conv1"], before + 1)
    assert {id(p) for p in extractor.parameters()} == {id(p) for p in lenet5.parameters()}


def test_an_output_is_not_changed_by_a_later_in_place_activation(in_place):
    found = extract(in_place, ["conv", "relu"])(images_of())
    exactly(found["conv"], in_place.conv(images_of()))
    assert found["conv"].min() < 0
    exactly(found["relu"], found["conv"].clamp(min=0))


def test_changing_an_output_does_not_change_another(lenet5):
    found = extract(lenet5, ["conv5", "act5", "flatten"])(images_of(channels=1))
    kept = found["flatten"].clone()
    found["act5"].zero_()
    exactly(found["flatten"], kept)


def test_the_last_output_of_a_layer_that_runs_twice_is_returned():
    class Twice(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.doubles = nn.Linear(1, 1, bias=False)
            nn.init.constant_(self.doubles.weight, 2)

        def forward(self, x):
            return self.doubles(self.doubles(x))

    assert extract(Twice(), "doubles")(torch.ones(1, 1))["doubles"].tolist() == [[4]]


def test_gradients_flow_through_an_extracted_output(in_place):
    x = images_of().requires_grad_()
    extract(in_place, "conv")(x)["conv"].sum().backward()
    found = x.grad, in_place.conv.weight.grad
    x.grad = None
    in_place.zero_grad()
    in_place.conv(x).sum().backward()
    exactly(found[0], x.grad)
    exactly(found[1], in_place.conv.weight.grad)


def test_the_layers_behind_the_extracted_one_have_no_gradient(lenet5):
    extract(lenet5, "pool2")(images_of(channels=1))["pool2"].sum().backward()
    assert {name for name, p in lenet5.named_parameters() if p.grad is not None} == {"conv1.weight", "conv1.bias"}


@pytest.mark.parametrize("training", [True, False])
def test_the_net_is_not_changed(simple, training):
    simple.train(training)
    before = {name: value.clone() for name, value in simple.state_dict().items()}
    extract(simple, ["layer1", "layer4.fc3"])(images_of())
    after = simple.state_dict()
    assert list(after) == list(before)
    assert all(value.equal(before[name]) for name, value in after.items())
    assert {module.training for module in simple.modules()} == {training}


def test_no_hook_is_left_behind(simple):
    extract(simple, ["layer1", "layer4.fc3"])(images_of())
    assert hooks_of(simple) == 0


def test_no_hook_is_left_behind_by_a_net_that_fails(simple):
    with pytest.raises(RuntimeError):
        extract(simple, ["layer1", "layer4.fc3"])(torch.zeros(1, 7, 32, 32))
    assert hooks_of(simple) == 0


def test_a_users_hook_stays(simple):
    simple.layer1.register_forward_hook(lambda *_: None)
    extract(simple, "layer1")(images_of())
    assert hooks_of(simple) == 1


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("conv2", r"LeNet5 has no layer conv2; did you mean conv\d\? it has conv1, act1, pool2, "),
        ("weights", r"LeNet5 has no layer weights; it has conv1, act1, pool2, conv3, act3, pool4, .*, linear7$"),
        ("", "LeNet5 has no layer ''; it has conv1, "),
        ("conv1.weight", "LeNet5 has no layer conv1.weight; did you mean conv1"),
    ],
)
def test_an_unknown_layer_is_refused_with_the_known_ones(lenet5, name, message):
    with pytest.raises(ValueError, match=message):
        extract(lenet5, name)


def test_one_unknown_name_among_known_ones_is_named(lenet5):
    with pytest.raises(ValueError, match="has no layer nosuch"):
        extract(lenet5, ["conv1", "nosuch", "pool2"])


def test_of_many_layers_a_dozen_are_listed():
    net = GoogLeNet(in_channels=3, num_classes=10)
    with pytest.raises(ValueError, match=r"conv1, conv1\.conv, .*, \.\.\. \(\d{3} in all\)$") as caught:
        extract(net, "zzzz")
    count = sum(1 for name, _ in net.named_modules() if name)
    assert f"({count} in all)" in str(caught.value)


def test_a_dozen_names_are_listed_completely():
    names = [str(number) for number in range(12)]
    assert _shortened(names) == "0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11"
    assert _shortened([*names, "12"]) == "0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, ... (13 in all)"


@pytest.fixture(scope="module")
def with_heads() -> GoogLeNet:
    torch.manual_seed(0)
    return GoogLeNet(aux_heads=True, in_channels=3, num_classes=10)


def test_a_layer_that_does_not_run_in_evaluation_is_refused(with_heads):
    with pytest.raises(ValueError, match="aux1: this layer does not run in evaluation"):
        extract(with_heads.eval(), ["conv1", "aux1"])(images_of())


def test_a_layer_that_runs_in_training_only_is_found_in_training(with_heads):
    assert extract(with_heads.train(), "aux1")(images_of())["aux1"].shape == (2, 10)


# ---- the first children -------------------------------------------------------------------------------------------


def test_the_first_two_children_are_the_books_sequence(simple):
    book = nn.Sequential(*list(simple.children())[:2])
    found = children_upto(simple, 2)
    assert list(found.children()) == list(book.children())
    exactly(found(images_of()), book(images_of()))
    assert found(images_of()).shape == (2, 64, 8, 8)


def test_children_keep_their_names(simple):
    assert [name for name, _ in children_upto(simple, 3).named_children()] == ["layer1", "layer2", "layer3"]


def test_childrens_weights_are_the_nets(simple):
    assert children_upto(simple, 1).layer1.conv1.weight is simple.layer1.conv1.weight


def test_all_children_of_a_sequence_are_the_sequence(in_place):
    exactly(children_upto(in_place, 3)(images_of()), in_place(images_of()))


@pytest.mark.parametrize("count", [0, -1, 6, "2"])
def test_a_wrong_count_of_children_is_refused(simple, count):
    with pytest.raises(ValueError, match=f"count={count}: expected an integer from 1 to 5, the children of SimpleCNN"):
        children_upto(simple, count)


# ---- all layers of a kind -----------------------------------------------------------------------------------------


def test_all_convolutions_are_found_under_the_books_names(simple):
    found = layers_of(simple, nn.Conv2d)
    assert list(found) == ["layer1.conv1", "layer2.conv2", "layer3.conv3"]
    assert list(found.values()) == [simple.layer1.conv1, simple.layer2.conv2, simple.layer3.conv3]


@pytest.mark.parametrize("kind", [nn.Conv2d, nn.BatchNorm2d, nn.ReLU, nn.Linear, nn.Dropout])
def test_layers_of_a_kind_are_those_among_all_modules(with_heads, kind):
    expected = [module for module in with_heads.modules() if isinstance(module, kind)]
    found = layers_of(with_heads, kind)
    assert len(expected) > 0
    assert list(found.values()) == expected
    assert all(with_heads.get_submodule(name) is module for name, module in found.items())


def test_a_class_without_layers_gives_nothing(simple):
    assert layers_of(simple, nn.BatchNorm2d) == {}
