"""Published results are shown for runs of the same protocol, and for no others."""

from __future__ import annotations

from functools import cache
from pathlib import Path

import pytest

from cnnbench.config.compose import compose
from cnnbench.report.analysis.published_results import PUBLISHED_RESULTS, published_results_for
from cnnbench.report.load.run import Run, read_config
from cnnbench.runs.run_dir import RunDir
from cnnbench.text import flatten

BOOK = ("experiment=residual_vs_plain",)
PAPER = ("recipe=resnet_cifar_paper", "data=cifar10", "augment=basic")
CIFAR = {20: 0.9125, 32: 0.9249, 44: 0.9283, 56: 0.9303, 110: 0.9357}


@cache
def frozen(*overrides):
    return compose(list(overrides)).dump()


def run_of(tmp_path, *overrides, **changed):
    """A run of these overrides, read from its config.yaml, with dotted keys or choices changed."""
    (tmp_path / "config.yaml").write_text(frozen(*overrides))
    config = read_config(tmp_path / "config.yaml", [])
    choices = {
        **config.pop("choices"),
        **{key[8:]: value for key, value in changed.items() if key.startswith("choices.")},
    }
    keys = {key: value for key, value in changed.items() if not key.startswith("choices.")}
    return Run(RunDir(Path("r")), {}, "done", config={**flatten(config), **keys}, choices=choices)


def accuracies(*runs):
    return [result.accuracy for result in published_results_for(runs)]


@pytest.mark.parametrize(
    ("model", "rate", "expected"),
    [("plain18", 0.005, [0.81]), ("resnet18", 0.01, [0.88]), ("plain18", 0.01, []), ("resnet18", 0.005, [])],
)
def test_the_two_settings_of_the_book_have_its_results_and_the_other_two_none(tmp_path, model, rate, expected):
    assert accuracies(run_of(tmp_path, *BOOK, f"model={model}", f"optimizer.lr={rate}")) == expected


CHANGES = {
    "epochs": 6, "batch_size": 32, "data.train_size": None, "data.test_size": 1000, "data.image_size": 64, "init": "torch",
    "label_smoothing": 0.1, "ema": 0.9, "early_stopping": 3, "clip_grad": 1.0, "model.stem": "cifar", "choices.augment": "basic",
    "choices.data": "mnist5k", "choices.optimizer": "adam", "choices.scheduler": "cosine", "data.label_noise": 0.2,
    "trainer.val_every_steps": None, "accumulate": 2, "mixup": 0.2, "cutmix": 1.0, "data.fraction": 0.5,
}  # fmt: skip


def test_a_run_that_differs_in_one_key_is_of_another_protocol(tmp_path):
    overrides = (*BOOK, "model=resnet18", "optimizer.lr=0.01")
    assert accuracies(run_of(tmp_path, *overrides)) == [0.88]
    matching = [key for key, value in CHANGES.items() if accuracies(run_of(tmp_path, *overrides, **{key: value}))]
    assert matching == []


def test_published_results_have_conditions_only_on_keys_of_the_config(tmp_path):
    conditions = {key for result in PUBLISHED_RESULTS for key in result.conditions if not key.startswith("choices.")}
    book, paper = (
        run_of(tmp_path, *BOOK, "model=resnet18", "optimizer.lr=0.01"),
        run_of(tmp_path, *PAPER, "model=resnet20"),
    )
    assert conditions <= book.config.keys() | paper.config.keys()


@pytest.mark.parametrize(("depth", "accuracy"), CIFAR.items())
def test_the_nets_of_the_paper_have_its_results_on_cifar(tmp_path, depth, accuracy):
    assert accuracies(run_of(tmp_path, *PAPER, f"model=resnet{depth}", "trainer.max_steps=64000")) == [accuracy]


def test_fewer_steps_than_in_the_paper_are_another_protocol(tmp_path):
    assert accuracies(run_of(tmp_path, *PAPER, "model=resnet20", "trainer.max_steps=1000")) == []


def test_all_runs_of_a_setting_must_match(tmp_path):
    same = run_of(tmp_path, *BOOK, "model=resnet18", "optimizer.lr=0.01")
    different = run_of(tmp_path, *BOOK, "model=resnet18", "optimizer.lr=0.005")
    assert accuracies(same, same) == [0.88]
    assert accuracies(same, different) == []


def test_runs_without_a_config_have_no_published_results():
    assert published_results_for([Run(RunDir(Path("r")), {}, "missing")]) == []


def test_the_default_run_has_no_published_result(tmp_path):
    assert accuracies(run_of(tmp_path)) == []


@pytest.mark.parametrize(("init", "expected"), [("paddle_create", [0.87]), ("paddle", []), ("torch", [])])
def test_the_lenet_of_the_book_has_its_result_only_with_its_initial_weights(tmp_path, init, expected):
    assert accuracies(run_of(tmp_path, "experiment=lenet5_init", f"init={init}")) == expected
