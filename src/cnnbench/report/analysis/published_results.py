"""Test accuracies that others have published, each with the protocol under which a run is comparable."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from cnnbench.report.load.run import Run

NOTHING_ADDED = {
    "choices.augment": "none", "accumulate": 1, "clip_grad": None, "label_smoothing": 0.0, "mixup": 0.0, "cutmix": 0.0, "ema": 0.0,
    "early_stopping": None, "data.fraction": 1.0, "data.label_noise": 0.0,
}  # fmt: skip
NNDL_PROTOCOL = {
    **NOTHING_ADDED, "choices.data": "mnist", "data.train_size": 1000, "data.val_size": [50000, 50200], "data.test_size": 200,
    "epochs": 5, "batch_size": 64, "choices.optimizer": "sgd", "choices.scheduler": "constant", "trainer.val_every_steps": 15,
}  # fmt: skip
NNDL_RESNET = {
    **NNDL_PROTOCOL, "choices.recipe": "nndl_resnet", "init": "paddle", "model.stem": "imagenet", "data.image_size": 32,
}  # fmt: skip
NNDL_LENET = {
    **NNDL_PROTOCOL, "choices.recipe": "nndl_lenet", "choices.model": "lenet5", "init": "paddle_create", "optimizer.lr": 0.1,
}  # fmt: skip
PAPER_RESNET = {
    **NOTHING_ADDED, "choices.augment": "basic", "choices.data": "cifar10", "choices.recipe": "resnet_cifar_paper",
    "choices.optimizer": "momentum", "choices.scheduler": "multistep", "optimizer.lr": 0.1, "batch_size": 128,
    "trainer.max_steps": 64000, "data.train_size": None, "data.val_size": None, "data.test_size": None, "model.shortcut": "A",
    "init": "kaiming_normal",
}  # fmt: skip
NNDL = "Neural Networks and Deep Learning: Cases and Practice"
HE = "He et al. 2015, arXiv:1512.03385, table 6"


@dataclass(frozen=True)
class PublishedResult:
    """A published test accuracy.

    Attributes:
        accuracy: between 0 and 1.
        source: publication and section or table.
        note: what it was measured on.
        conditions: values that a comparable run's config has; dotted keys, and choices of groups as `choices.model`.
    """

    accuracy: float
    source: str
    note: str
    conditions: dict[str, Any]


PUBLISHED_RESULTS = (
    *(
        PublishedResult(accuracy, f"{NNDL}, section {section}", "one run, 200 test images", conditions)
        for section, accuracy, conditions in (
            ("5.3", 0.870, NNDL_LENET),
            ("5.4", 0.810, {**NNDL_RESNET, "choices.model": "plain18", "optimizer.lr": 0.005}),
            ("5.4", 0.880, {**NNDL_RESNET, "choices.model": "resnet18", "optimizer.lr": 0.01}),
        )
    ),
    *(
        PublishedResult(accuracy, HE, "one run, last step", {**PAPER_RESNET, "choices.model": f"resnet{depth}"})
        for depth, accuracy in {20: 0.9125, 32: 0.9249, 44: 0.9283, 56: 0.9303}.items()
    ),
    PublishedResult(
        0.9357, HE, "best of five runs, whose mean is 0.9339", {**PAPER_RESNET, "choices.model": "resnet110"}
    ),
)  # fmt: skip


def published_results_for(runs: Iterable[Run]) -> list[PublishedResult]:
    """Selects the published results of the same net, data and protocol as all of these runs."""
    configs = [
        {**run.config, **{f"choices.{key}": value for key, value in run.choices.items()}} for run in runs if run.config
    ]
    return [
        result
        for result in PUBLISHED_RESULTS
        if configs and all(result.conditions.items() <= config.items() for config in configs)
    ]
