"""Published figures stand beside the runs that they were measured on, and beside no others."""

from __future__ import annotations

from functools import cache
from pathlib import Path

import pytest

from cnnbench.config.compose import compose
from cnnbench.report.analysis.published_results import FIGURES, figures_for
from cnnbench.report.load.run import Run, read_config
from cnnbench.runs.run_dir import RunDir
from cnnbench.text import flat

BOOK = ("experiment=residual_vs_plain",)
PAPER = ("recipe=resnet_cifar_paper", "data=cifar10", "augment=basic")
CIFAR = {20: 0.9125, 32: 0.9249, 44: 0.9283, 56: 0.9303, 110: 0.9357}


@cache
def frozen(*overrides):
    return compose(list(overrides)).dump()


def run_of(tmp_path, *overrides, **changed):
    """A run of what is typed, as its directory tells of it, with dotted keys or choices changed."""
    (tmp_path / "config.yaml").write_text(frozen(*overrides))
    config = read_config(tmp_path / "config.yaml", [])
    choices = {
        **config.pop("choices"),
        **{key[8:]: value for key, value in changed.items() if key.startswith("choices.")},
    }
    own = {key: value for key, value in changed.items() if not key.startswith("choices.")}
    return Run(RunDir(Path("r")), {}, "done", config={**flat(config), **own}, choices=choices)


def accuracies(*runs):
    return [figure.accuracy for figure in figures_for(runs)]


@pytest.mark.parametrize(
    ("model", "rate", "wanted"),
    [("plain18", 0.005, [0.81]), ("resnet18", 0.01, [0.88]), ("plain18", 0.01, []), ("resnet18", 0.005, [])],
)
def test_the_books_two_cells_have_its_figures_and_the_other_two_none(tmp_path, model, rate, wanted):
    assert accuracies(run_of(tmp_path, *BOOK, f"model={model}", f"optimizer.lr={rate}")) == wanted


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("epochs", 6), ("batch_size", 32), ("data.train_size", None), ("data.test_size", 1000), ("data.image_size", 64), ("init", "torch"),
        ("label_smoothing", 0.1), ("ema", 0.9), ("early_stopping", 3), ("clip_grad", 1.0), ("model.stem", "cifar"),
        ("choices.augment", "basic"),
        ("choices.data", "mnist5k"), ("choices.optimizer", "adam"), ("choices.scheduler", "cosine"), ("data.label_noise", 0.2),
        ("trainer.val_every_steps", None), ("accumulate", 2), ("mixup", 0.2), ("cutmix", 1.0), ("data.fraction", 0.5),
    ],
)  # fmt: skip
def test_one_key_changed_is_another_protocol(tmp_path, key, value):
    typed = (*BOOK, "model=resnet18", "optimizer.lr=0.01")
    assert accuracies(run_of(tmp_path, *typed)) == [0.88]
    assert accuracies(run_of(tmp_path, *typed, **{key: value})) == []


@pytest.mark.parametrize(
    "key", sorted({key for figure in FIGURES for key in figure.where if not key.startswith("choices.")})
)
def test_a_figure_asks_only_for_keys_that_configs_have(tmp_path, key):
    known = (
        run_of(tmp_path, *BOOK, "model=resnet18", "optimizer.lr=0.01").config
        | run_of(tmp_path, *PAPER, "model=resnet20").config
    )
    assert key in known


@pytest.mark.parametrize(("depth", "accuracy"), CIFAR.items())
def test_the_papers_nets_on_cifar_have_its_figures(tmp_path, depth, accuracy):
    assert accuracies(run_of(tmp_path, *PAPER, f"model=resnet{depth}", "trainer.max_steps=64000")) == [accuracy]


def test_fewer_steps_are_not_the_papers(tmp_path):
    assert accuracies(run_of(tmp_path, *PAPER, "model=resnet20", "trainer.max_steps=1000")) == []


def test_all_runs_of_a_cell_must_match(tmp_path):
    right = run_of(tmp_path, *BOOK, "model=resnet18", "optimizer.lr=0.01")
    wrong = run_of(tmp_path, *BOOK, "model=resnet18", "optimizer.lr=0.005")
    assert accuracies(right, right) == [0.88]
    assert accuracies(right, wrong) == []


def test_runs_without_a_config_have_no_figures():
    assert figures_for([Run(RunDir(Path("r")), {}, "missing")]) == []


def test_the_default_run_has_no_published_figure(tmp_path):
    assert accuracies(run_of(tmp_path)) == []


@pytest.mark.parametrize(("init", "wanted"), [("paddle_create", [0.87]), ("paddle", []), ("torch", [])])
def test_the_books_lenet_has_its_figure_from_its_initial_weights_alone(tmp_path, init, wanted):
    assert accuracies(run_of(tmp_path, "experiment=lenet5_init", f"init={init}")) == wanted
