"""Every net of conf/model/: training, evaluation, arguments and errors, on its smallest images and with few channels."""

from __future__ import annotations

import inspect
import io
import json
from functools import cache
from typing import Any

import pytest
import torch
import torch.nn.functional as F
import torchvision
import yaml
from torch import Tensor, nn

from cnnbench.config.compose import compose, conf_dir
from cnnbench.config.instantiate import construct, locate
from cnnbench.config.schema import INITS, Node
from cnnbench.errors import ConfigError
from cnnbench.models.initialization import initialize
from cnnbench.training.classifier import Classifier
from cnnbench.training.validate import prepare

NAMES = sorted(file.stem for file in (conf_dir() / "model").glob("*.yaml") if file.stem != "custom")
HEADS = "googlenet aux_heads=true"
CASES = [*NAMES, HEADS]  # a file of conf/model/, and changed arguments
VARIANTS = [
    *("googlenet branch5x5=3", "googlenet branch5x5=double3", f"{HEADS} norm=none"),
    *(
        "lenet_3x3 se=true",
        "lenet5 pooling=mean activation=tanh",
        "lenet kernel_size=3",
    ),
    *("resnet20 shortcut=B", "resnet20 shortcut=C", "resnet20 shortcut=none", "resnet20 preactivation=true"),
    *("resnet20 preactivation=true shortcut=B", "resnet20 preactivation=true shortcut=C"),
    *("resnet20 preactivation=true shortcut=none", "notes_resnet blocks=[1,3,2]"),
    *("resnet18 stem=imagenet", "resnet18 stem_bias=true", "resnet50 shortcut=none"),
    *("vgg11 head=pool", "vgg11 norm=none", "vgg_a_lrn norm=none"),
]
FACTS = {"in_channels", "num_classes", "image_size"}  # arguments from the data set
# The arguments in which a file may differ from its class's defaults: those that its name stands for.
NAMED = {
    "CifarResNet": {"depth"},
    "LeakyLeNet": {"channels", "kernel_size"},
    "ResNet": {"depth", "shortcut"},
    "VGG": {"configuration"},
}
CLASSES, IMAGES = 7, 4
HEAVY = ("plain34", "resnet34", "resnet44", "resnet50", "resnet56", "resnet110")


def light_first(cases: list[str]) -> list[object]:
    """Marks nets as slow that are a smaller net with more layers, or have twenty million weights."""
    return [pytest.param(case, marks=pytest.mark.slow) if case in HEAVY else case for case in cases]


@cache
def written(name: str) -> dict[str, Any]:
    """The arguments in the file."""
    values = yaml.safe_load((conf_dir() / "model" / f"{name}.yaml").read_text())
    return {knob: value for knob, value in values.items() if knob != "_target_"}


@cache
def node_of(case: str) -> Node:
    """The node that composing would give, without its time."""
    name, *turned = case.split()
    file = yaml.safe_load((conf_dir() / "model" / f"{name}.yaml").read_text())
    knobs = {knob: yaml.safe_load(value) for knob, _, value in (knob.partition("=") for knob in turned)}
    assert knobs.keys() <= file.keys()
    return Node(**file | ({"width": 0.125} if "width" in file else {}) | knobs)


def class_of(case: str) -> type[nn.Module]:
    return locate(node_of(case), "model")


# one file of each class, its lightest, and GoogLeNet with its heads
ONE_OF_EACH = [*{class_of(name): name for name in reversed(NAMES) if name not in HEAVY}.values(), HEADS]


def smallest(case: str) -> int:
    return getattr(class_of(case), "min_image_size", 1)


def build(case: str, channels: int, seed: int = 0) -> nn.Module:
    torch.manual_seed(seed)
    facts = {"in_channels": channels, "num_classes": CLASSES, "image_size": smallest(case)}
    return construct(node_of(case), "model", **facts).train()


def pictures(case: str, channels: int, images: int = IMAGES) -> Tensor:
    return torch.randn(images, channels, smallest(case), smallest(case), generator=torch.Generator().manual_seed(1))


def labels(images: int = IMAGES) -> Tensor:
    return torch.arange(images) % CLASSES


def outputs(net: nn.Module, images: Tensor) -> tuple[Tensor, ...]:
    """The logits, and in training those of auxiliary heads."""
    output = net(images)
    return (output,) if isinstance(output, Tensor) else tuple(output)


def stir(net: nn.Module) -> nn.Module:
    """Moves scales and biases off their initial values, so that no zero blocks the gradient of a branch."""
    torch.manual_seed(2)
    with torch.no_grad():
        for parameter in net.parameters():
            if parameter.ndim < 2:
                parameter.add_(0.1 * torch.rand_like(parameter))
    return net


def without_dropout(net: nn.Module) -> nn.Module:
    for module in net.modules():
        if isinstance(module, nn.Dropout):
            module.p = 0.0
    return net


def defaults_of(cls: type) -> dict[str, Any]:
    """The constructor's arguments with their defaults, as a YAML file has them."""
    knobs = {name: p.default for name, p in inspect.signature(cls).parameters.items() if name not in FACTS}
    return json.loads(json.dumps(knobs))  # tuples become lists


def test_conf_model_has_the_nets_of_every_paper():
    papers = "alexnet googlenet lenet lenet5 lenet_3x3 lenet_leaky mnist_cnn notes_resnet plain18 plain34 simplecnn"
    resnets = [f"resnet{depth}" for depth in (18, 20, 32, 34, 44, 50, 56, 110)]
    vggs = ["vgg11", "vgg13", "vgg16", "vgg19", "vgg_a_lrn", "vgg_c"]
    assert {*papers.split(), *resnets, *vggs} <= set(NAMES)


# ---- training -------------------------------------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.parametrize("case", [*CASES, *VARIANTS])
def test_every_parameter_of_a_net_learns_at_its_smallest_size(case):
    assert_every_parameter_learns(case, 3)


@pytest.mark.parametrize("case", light_first(CASES))
def test_every_parameter_of_a_net_learns_on_images_of_one_channel(case):
    assert_every_parameter_learns(case, 1)


def assert_every_parameter_learns(case: str, channels: int) -> None:
    net = stir(build(case, channels))
    logits = outputs(net, pictures(case, channels))
    assert {output.shape for output in logits} == {(IMAGES, CLASSES)}
    torch.stack([F.cross_entropy(output, labels()) for output in logits]).sum().backward()
    for name, parameter in net.named_parameters():
        assert parameter.grad is not None, f"no gradient for {name}"
        assert parameter.grad.isfinite().all(), f"no finite gradient for {name}"
        assert parameter.grad.any(), f"no gradient for {name}"


@pytest.mark.slow
@pytest.mark.parametrize("name", light_first(NAMES))
def test_a_net_learns_eight_images_by_heart(name):
    net, images = without_dropout(build(name, 3)), pictures(name, 3, images=8)
    initialize(net, "kaiming_normal")
    lr = 1e-4 if name == "alexnet" else 2e-3 if name == "lenet_3x3" else 1e-3
    optimizer = torch.optim.Adam(net.parameters(), lr=lr, betas=(0.5, 0.9), fused=True)
    for _ in range(80):
        logits = net(images)
        loss = F.cross_entropy(logits, labels(8))
        if torch.equal(logits.argmax(1), labels(8)) and loss < 0.1:
            return
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    pytest.fail(f"after 80 steps the loss is {loss.item():.3f}")


def test_auxiliary_heads_run_in_training_only():
    net = build(HEADS, 3)
    assert len(outputs(net, pictures(HEADS, 3))) == 3
    assert isinstance(net.eval()(pictures(HEADS, 3)), Tensor)


# ---- evaluation -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("case", ONE_OF_EACH)
def test_a_net_in_evaluation_is_deterministic_and_changes_nothing(case):
    net = build(case, 1)
    with torch.no_grad():
        net(pictures(case, 1))
        before = {key: value.clone() for key, value in net.eval().state_dict().items()}
        assert torch.equal(net(pictures(case, 1)), net(pictures(case, 1)))
    assert all(torch.equal(value, before[key]) for key, value in net.state_dict().items())


@pytest.mark.parametrize("case", ONE_OF_EACH)
def test_in_evaluation_the_logits_of_an_image_do_not_depend_on_its_batch(case):
    net = build(case, 1).eval()
    with torch.no_grad():
        together = net(pictures(case, 1))
        alone = torch.cat([net(image[None]) for image in pictures(case, 1)])
    torch.testing.assert_close(alone, together, rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("case", ONE_OF_EACH)
def test_the_output_of_a_net_is_logits_not_probabilities(case):
    with torch.no_grad():
        logits = build(case, 1).eval()(10 * pictures(case, 1, images=16))
    assert logits.min() < 0
    assert not torch.allclose(logits.exp().sum(1), torch.ones(16), atol=1e-3)


@pytest.mark.parametrize("case", ONE_OF_EACH)
def test_a_net_with_saved_and_loaded_weights_gives_the_same_logits(case):
    net, other = build(case, 3, seed=0), build(case, 3, seed=1)
    with torch.no_grad():
        net(pictures(case, 3))  # moves running statistics, where there are any
        expected, before = net.eval()(pictures(case, 3)), other.eval()(pictures(case, 3))
        file = io.BytesIO()
        torch.save(net.state_dict(), file)
        file.seek(0)
        other.load_state_dict(torch.load(file, weights_only=True), strict=True)
        assert not torch.equal(before, expected)
        assert torch.equal(other(pictures(case, 3)), expected)


@pytest.mark.parametrize("case", ONE_OF_EACH)
def test_a_net_is_built_and_run_on_the_meta_device_without_memory(case):
    with torch.device("meta"):
        net = build(case, 3)
        logits = outputs(net, torch.empty(IMAGES, 3, smallest(case), smallest(case)))
    assert {output.shape for output in logits} == {(IMAGES, CLASSES)}
    assert {value.device.type for value in (*logits, *net.state_dict().values())} == {"meta"}


# ---- sizes, knobs, initial weights ----------------------------------------------------------------------------------


def test_every_net_states_its_smallest_image_size():
    for name in NAMES:
        assert isinstance(class_of(name).min_image_size, int), name
        assert class_of(name).min_image_size > 1, name


@pytest.mark.parametrize("name", ONE_OF_EACH[:-1])
def test_a_too_small_image_is_refused_with_the_smallest_size(name):
    least = smallest(name)
    config = compose([f"model={name}", f"data.image_size={least - 1}"])
    with pytest.raises(ConfigError) as caught:
        prepare(config)
    message = str(caught.value)
    assert "\n" not in message
    assert message.startswith(f"data.image_size={least - 1}: {class_of(name).__name__} takes images of ")
    assert f"{least}×{least} pixels; type data.image_size={least}" in message


def test_every_argument_of_a_constructor_is_in_the_nets_file_and_no_other():
    for name in NAMES:
        assert set(written(name)) == set(defaults_of(class_of(name))), name


def test_a_file_has_the_constructors_defaults_except_those_that_its_name_stands_for():
    for name in NAMES:
        defaults = defaults_of(class_of(name))
        changed = {knob for knob, value in written(name).items() if value != defaults[knob]}
        assert changed <= NAMED.get(class_of(name).__name__, set()), name


def test_the_defaults_of_a_class_are_one_of_its_files():
    for cls in {class_of(name) for name in NAMES}:
        files = [written(name) for name in NAMES if class_of(name) is cls]
        assert files.count(defaults_of(cls)) == 1, cls


@pytest.mark.slow
@pytest.mark.parametrize("name", light_first(NAMES))
def test_each_rule_of_initial_weights_draws_all_weights_of_a_net_and_empties_its_biases(name):
    net = build(name, 3)
    layers = {n: m for n, m in net.named_modules() if isinstance(getattr(m, "weight", None), Tensor)}
    drawn = {n: m for n, m in layers.items() if m.weight.ndim > 1}
    norms = {n: m for n, m in layers.items() if m.weight.ndim == 1}
    for init in set(INITS) - {"torch"}:
        with torch.no_grad():
            for module in layers.values():
                for parameter in module.parameters():
                    parameter.fill_(torch.nan)
        initialize(net, init)
        for layer, module in drawn.items():
            assert module.weight.isfinite().all(), f"{init} leaves {layer}.weight"
            assert module.weight.std() > 0, f"{init} draws nothing for {layer}.weight"
            assert module.bias is None or not module.bias.any(), f"{init} leaves {layer}.bias"
        for layer, module in norms.items():
            assert module.weight.isnan().all(), f"{init} draws {layer}.weight"


ACTIVATIONS = "activation={}: expected one of none, relu, leaky_relu, tanh, sigmoid"
REFUSED = [
    ("lenet", {"activation": "gelu"}, ACTIVATIONS),
    ("lenet", {"pooling": "median"}, "pooling={}: expected one of max, mean"),
    ("lenet5", {"pooling": "sum"}, "pooling={}: expected one of max_mean, max, mean"),
    ("vgg16", {"configuration": "F"}, "configuration={}: expected one of A, A-LRN, B, C, D, E"),
    ("vgg16", {"norm": "layer"}, "norm={}: expected one of batch, none"),
    ("vgg16", {"head": "big"}, "head={}: expected one of paper, pool"),
    ("vgg16", {"width": 0}, "width={}: expected a number above 0"),
    ("vgg16", {"width": float("nan")}, "width={}: expected a number above 0"),
    ("googlenet", {"branch5x5": 7}, "branch5x5={}: expected one of 5, 3, double3"),
    ("googlenet", {"norm": "group"}, "norm={}: expected one of batch, none"),
    ("resnet18", {"depth": 20}, "depth={}: expected one of 18, 34, 50"),
    ("resnet18", {"stem": "big"}, "stem={}: expected one of cifar, imagenet"),
    ("resnet18", {"shortcut": "A"}, "shortcut={}: expected one of residual, none"),
    ("googlenet", {"branch5x5": "5"}, "branch5x5='{}': expected one of 5, 3, double3"),
    ("googlenet", {"aux_heads": "yes"}, "aux_heads={}: expected true or false"),
    ("lenet", {"stride": 0}, "stride={}: expected an integer above 0"),
    ("lenet5", {"kernel_size": 2.5}, "kernel_size={}: expected an integer above 0"),
    ("lenet_leaky", {"channels": [6, 16]}, "channels={}: expected a list for each stage, as in [[6],[16]]"),
    ("lenet_leaky", {"channels": [[], [16]]}, "channels={}: expected a list for each stage, as in [[6],[16]]"),
    ("lenet_3x3", {"channels": [[4], [0]]}, "channels=0: expected an integer above 0"),
    ("lenet_3x3", {"se": 1}, "se={}: expected true or false"),
    ("resnet18", {"stem_bias": "maybe"}, "stem_bias={}: expected true or false"),
    ("resnet20", {"preactivation": "no"}, "preactivation={}: expected true or false"),
    ("resnet20", {"depth": 20.0}, "depth={}: expected an integer above 0"),
    ("resnet20", {"depth": 21}, "depth={}: expected 6n + 2 (8, 14, 20, ...), at most 2000"),
    ("resnet20", {"depth": 2}, "depth={}: expected 6n + 2 (8, 14, 20, ...), at most 2000"),
    ("resnet20", {"depth": 600_000_002}, "depth={}: expected 6n + 2 (8, 14, 20, ...), at most 2000"),
    ("resnet20", {"shortcut": "D"}, "shortcut={}: expected one of A, B, C, none"),
    ("notes_resnet", {"blocks": [2, 2]}, "blocks={}: expected three numbers, as in [2,2,2]"),
    ("notes_resnet", {"blocks": [2, 0, 2]}, "blocks=0: expected an integer above 0"),
]


@pytest.mark.parametrize(
    ("name", "knob", "message"), [pytest.param(*case, id=f"{case[0]}-{case[1]}") for case in REFUSED]
)
def test_a_wrong_value_of_an_argument_is_refused_with_the_expected_ones(name, knob, message):
    facts = {"in_channels": 1, "num_classes": CLASSES, "image_size": 32}
    known = inspect.signature(class_of(name)).parameters
    with torch.device("meta"), pytest.raises(ValueError, match="expected") as caught:
        class_of(name)(**knob, **{fact: value for fact, value in facts.items() if fact in known})
    assert message.format(*knob.values()) in str(caught.value)


# ---- in a Classifier ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ONE_OF_EACH[:-1])
def test_a_classifier_trains_every_net_with_the_cross_entropy_of_its_logits(name):
    net, batch = build(name, 3), (pictures(name, 3), labels())
    torch.manual_seed(3)
    expected = F.cross_entropy(net(batch[0]), batch[1])
    torch.manual_seed(3)  # dropout draws the same again
    loss = Classifier(net, CLASSES).training_step(batch, 0)
    assert loss.shape == ()
    torch.testing.assert_close(loss, expected)
    loss.backward()
    assert all(parameter.grad is not None for parameter in net.parameters())


def test_a_classifier_counts_the_loss_of_googlenets_heads_three_tenths_each():
    net, batch = build(HEADS, 3), (pictures(HEADS, 3), labels())
    torch.manual_seed(3)
    main, head1, head2 = (F.cross_entropy(output, batch[1]) for output in net(batch[0]))
    torch.manual_seed(3)
    loss = Classifier(net, CLASSES).training_step(batch, 0)
    torch.testing.assert_close(loss, main + 0.3 * (head1 + head2))
    loss.backward()
    assert net.aux1.linear2.weight.grad.any()
    assert net.aux2.linear2.weight.grad.any()


def test_a_classifier_reports_the_loss_of_the_logits_without_that_of_the_heads():
    net, batch = without_dropout(build(HEADS, 3)), (pictures(HEADS, 3), labels())
    expected = F.cross_entropy(net(batch[0])[0], batch[1]).item()
    classifier = Classifier(net, CLASSES)
    classifier.training_step(batch, 0)
    assert classifier.train_sums[0].item() / IMAGES == pytest.approx(expected, rel=1e-5)


def test_a_classifier_trains_torchvisions_googlenet_with_its_heads():
    torch.manual_seed(0)
    net = torchvision.models.googlenet(aux_logits=True, init_weights=False, num_classes=CLASSES)
    without_dropout(net)
    batch = (torch.randn(IMAGES, 3, 64, 64), labels())
    output = net(batch[0])
    main, *heads = (
        F.cross_entropy(logits, batch[1]) for logits in (output.logits, output.aux_logits1, output.aux_logits2)
    )
    loss = Classifier(net, CLASSES).training_step(batch, 0)
    torch.testing.assert_close(loss, main + 0.3 * sum(heads))
    loss.backward()
    assert all(parameter.grad is not None for parameter in net.parameters())
