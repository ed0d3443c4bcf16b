"""Every recipe has the settings that its document states, and trains."""

from __future__ import annotations

import pytest
import torch

from cnnbench.config.compose import compose, groups
from cnnbench.errors import ConfigError
from cnnbench.training.factories import build_optimizer, build_scheduler
from cnnbench.training.run import run
from cnnbench.training.validate import prepare

SMALL = ["trainer=cpu", "threads=1", "data=synthetic", "data.train_size=64", "data.val_size=16", "data.test_size=16"]
STATED = {  # in the documents: optimizer, learning rate, momentum, weight decay; epochs; batch size; initial weights; image size; mean
    "nndl_lenet": ("SGD", 0.1, 0, 0, 5, 64, "paddle_create", "auto", 0.5),
    "nndl_resnet": ("SGD", 0.01, 0, 0, 5, 64, "paddle", 32, 0.5),
    "lenet_fashion": ("Adam", 0.001, 0, 0, 10, 256, "torch", "auto", 0.0),
    "vgg_notes": ("Adam", 0.001, 0, 0, 5, 64, "torch", 224, 0.0),
    "vgg_paper": ("SGD", 0.01, 0.9, 5e-4, 74, 256, "normal", 224, "auto"),
    "resnet_cifar_paper": ("SGD", 0.1, 0.9, 1e-4, 182, 128, "kaiming_normal", "auto", "auto"),
}
WITHOUT_DOCUMENT = {"none", "modern"}


def test_every_recipe_with_a_document_is_compared_with_it():
    assert set(STATED) == set(groups()["recipe"]) - WITHOUT_DOCUMENT


@pytest.mark.parametrize("recipe", STATED)
def test_a_recipe_has_the_settings_of_its_document(recipe):
    config = compose([f"recipe={recipe}"])
    optimizer = config.optimizer
    assert (
        optimizer.target.rpartition(".")[2],
        optimizer.lr,
        optimizer.arguments.get("momentum", 0),
        optimizer.weight_decay,
        config.epochs,
        config.batch_size,
        config.init,
        config.data.image_size,
        config.data.mean,
    ) == STATED[recipe]


def test_vgg_starts_from_weights_of_variance_0_01():
    assert compose(["recipe=vgg_paper"]).init_std ** 2 == pytest.approx(0.01)


def test_vgg_reduces_its_learning_rate_tenfold_on_a_plateau_and_uses_scale_jitter():
    config = compose(["recipe=vgg_paper"])
    assert (config.choices["scheduler"], config.scheduler.arguments["factor"]) == ("plateau", 0.1)
    assert config.augment["scale_jitter"].arguments["short_side"] == [256, 512]


@pytest.mark.slow
def test_resnet_reduces_its_learning_rate_tenfold_at_steps_32000_and_48000_of_64000():
    config = compose(["recipe=resnet_cifar_paper"])
    prepared = prepare(compose([*SMALL, "recipe=resnet_cifar_paper", "data.train_size=45000"]))
    optimizer = build_optimizer(prepared.config, torch.nn.Linear(1, 1))
    scheduler = build_scheduler(prepared.config, prepared.data, optimizer)
    (factor,) = scheduler.lr_lambdas
    at = [1.0, 0.1, 0.1, 0.01]
    assert [factor(step) for step in (31_999, 32_000, 47_999, 48_000)] == pytest.approx(at)
    assert config.trainer.max_steps == 64_000 <= config.epochs * len(prepared.data.train_dataloader())


@pytest.mark.slow
@pytest.mark.parametrize("recipe", sorted(groups()["recipe"]))
def test_a_recipe_trains(recipe, tmp_path):
    size = ["data.image_size=32"] if recipe.startswith("vgg") else []
    result = run(compose([*SMALL, f"recipe={recipe}", *size, "epochs=1", "model=simplecnn", f"runs_dir={tmp_path}"]))
    assert result.result.choices["recipe"] == recipe


@pytest.mark.parametrize(
    ("typed", "message"),
    [
        ("optimizer=adam", r"takes no momentum; .*; recipe=modern sets it: type ~optimizer\.momentum; its optimizer\.lr=0\.1 remains$"),
        ("optimizer=adam optimizer.lr=0.01", r"recipe=modern sets it: type ~optimizer\.momentum$"),
        ("optimizer=adam optimizer.momentum=0.5", r"^optimizer\.momentum: Adam takes no momentum; it takes: [a-z_, ]*$"),
        ("scheduler=cosine", r"warmup_epochs=None: expected a number at least 0; recipe=modern sets scheduler\.warmup_epochs=null$"),
    ],
)  # fmt: skip
def test_a_recipes_key_that_a_typed_choice_does_not_take_is_attributed_to_the_recipe(typed, message, tiny):
    with pytest.raises(ConfigError, match=message) as raised:
        prepare(compose([*tiny, "recipe=modern", *typed.split()]))
    assert "\n" not in str(raised.value)


def test_the_override_that_the_message_names_solves_the_conflict(tiny):
    config = prepare(compose([*tiny, "recipe=modern", "optimizer=adam", "~optimizer.momentum"])).config
    assert config.optimizer.lr == 0.1
