"""Which targets a loaded config may name without `--trust`."""

import pytest

from cnnbench.config.compose import compose
from cnnbench.config.schema import Node
from cnnbench.config.trusted_names import TRUSTED_NAME, foreign_modules, foreign_parts, parts_of


@pytest.mark.parametrize(
    "name", ["cnnbench.models.lenet5.LeNet5", "torch.nn.Linear", "torch.optim.SGD", "torchvision.models.vgg16"]
)
def test_public_names_of_the_three_packages_are_trusted(name):
    assert TRUSTED_NAME.fullmatch(name)


@pytest.mark.parametrize(
    "name",
    [
        "os.system",
        "torch.hub.load",
        "torch.nn",
        "torch.nnx.Linear",
        "torch.nn._os.system",
        "torch.nn.modules.__builtins__",
        "mypkg.Net",
    ],
)
def test_other_packages_and_private_names_are_not_trusted(name):
    assert not TRUSTED_NAME.fullmatch(name)


def test_foreign_parts_are_found_in_every_group_and_step():
    config = compose(["augment=basic", "+augment.noise._target_=theirs.steps.Noise", "optimizer._target_=mypkg.Lion"])
    assert foreign_parts(config) == [
        ("augment", Node(_target_="theirs.steps.Noise")),
        ("optimizer", config.optimizer),
    ]
    assert foreign_modules(config) == ["mypkg", "theirs.steps"]
    assert [key for _, key, _ in parts_of(config)] == [
        *("model", "data", "augment.crop", "augment.flip", "augment.noise", "optimizer", "scheduler"),
    ]
