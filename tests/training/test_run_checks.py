"""Checks of a run: each passes what is right, and raises one line that says what to type."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
from torch import nn

from cnnbench.config.compose import compose
from cnnbench.errors import ConfigError
from cnnbench.training.checks import check_batch_parts, check_image_size, check_net, recipe_hint

TEN = SimpleNamespace(num_classes=10)


def refused(check, *arguments) -> str:
    with pytest.raises(ConfigError) as raised:
        check(*arguments)
    assert "\n" not in str(raised.value)
    return str(raised.value)


@pytest.mark.parametrize(("side", "smallest", "largest"), [(32, 32, 32), (33, 8, None), (8, 8, 64)])
def test_an_image_size_within_the_models_bounds_passes(side, smallest, largest):
    check_image_size(SimpleNamespace(image_size=side), "Net", smallest, largest)


@pytest.mark.parametrize(
    ("side", "smallest", "largest", "bounds"),
    [(31, 32, 32, "32×32 pixels"), (33, 32, 32, "32×32 pixels"), (7, 8, None, "at least 8×8 pixels")],
)
def test_an_image_size_out_of_bounds_is_refused(side, smallest, largest, bounds):
    message = refused(check_image_size, SimpleNamespace(image_size=side), "Net", smallest, largest)
    typed = f"type data.image_size={smallest}, or leave it auto"
    assert message == f"data.image_size={side}: Net takes images of {bounds}; {typed}"


def test_a_batch_may_have_at_most_as_many_parts_as_training_images():
    config = compose(["trainer=cpu", "accumulate=4", "batch_size=16"])
    check_batch_parts(config, SimpleNamespace(images={"train": range(4)}))
    message = refused(check_batch_parts, config, SimpleNamespace(images={"train": range(3)}))
    assert message.startswith("accumulate=4: 3 train images cannot be cut into 4 parts; type smaller numbers")


def test_a_net_must_have_one_logit_a_class_and_trainable_parameters():
    check_net(nn.Linear(3, 10), (2, 10), TEN)
    assert "gives (2, 7) for a batch of 2, expected logits of shape (2, 10)" in refused(
        check_net, nn.Linear(3, 7), (2, 7), TEN
    )
    assert "gives ('tuple',) for a batch of 2" in refused(check_net, nn.Linear(3, 7), ("tuple",), TEN)
    assert "Flatten has no trainable parameters" in refused(check_net, nn.Flatten(), (2, 10), TEN)


def test_a_refused_optimizer_names_the_keys_of_the_recipe_that_do_not_suit_it():
    config = compose(["recipe=resnet_cifar_paper", "optimizer=adam"])

    def build() -> None:
        with recipe_hint(config, "optimizer"):
            raise ConfigError("optimizer.momentum: Adam takes no momentum")

    message = refused(build)
    assert message.startswith(
        "optimizer.momentum: Adam takes no momentum; recipe=resnet_cifar_paper sets it: type ~optimizer.momentum"
    )


def test_an_error_without_a_recipe_has_no_hint():
    def build() -> None:
        with recipe_hint(compose([]), "optimizer"):
            raise ConfigError("optimizer.lr: wrong")

    assert refused(build) == "optimizer.lr: wrong"
