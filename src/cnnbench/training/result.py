"""Makes what a finished run writes: result.json, predictions.npz, and the facts from which its net can be rebuilt."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

from cnnbench.config.schema import Config
from cnnbench.config.trusted_names import foreign_modules
from cnnbench.data.datamodule import ImageData
from cnnbench.errors import Diverged
from cnnbench.runs.environment import code_version, git_state, hardware, versions
from cnnbench.runs.schema import Result
from cnnbench.training.callbacks.history import History
from cnnbench.training.classifier import Classifier
from cnnbench.training.determinism import numeric_settings
from cnnbench.training.misclassified import save_npz
from cnnbench.training.validate import Prepared


def make_result(prepared: Prepared, history: History, classifier: Classifier, compiled: bool) -> Result:
    """Returns the content of result.json but for the command.

    Args:
        prepared: the run's config and data, its net's size.
        history: of the fit.
        classifier: after the test.
        compiled: whether the net was compiled; `compile=true` continues without where PyTorch cannot.

    Raises:
        Diverged: a test loss is not a finite number.
    """
    config, data, graph = prepared.config, prepared.data, classifier.graphed_step
    best = history.best
    assert best is not None
    for scores, whose in ((classifier.scores, ""), (classifier.ema_scores, " of the averaged weights")):
        if scores and not math.isfinite(scores["loss"]):
            raise Diverged(f"the test loss{whose} is {scores['loss']}")
    return Result(
        schema=1,
        status="done",
        seed=config.seed,
        choices=config.choices,
        classes=list(data.classes),  # in the order of the logits
        metrics={
            "best/val/acc": best.val_acc,
            "best/val/loss": best.val_loss,
            "last/val/acc": history.validations[-1].val_acc,
            "test/acc": classifier.scores["acc"],
            "test/loss": classifier.scores["loss"],
            **ema_metrics(history, classifier),
        },
        best_epoch=math.ceil(best.epoch),
        n={split: len(data.indices[split]) for split in ("train", "val", "test")},
        split_hash=data.split_hash,
        label_hash=data.label_hash,
        params=prepared.params,
        macs=prepared.macs,
        time={"fit_s": history.fit_s, "data_wait_share": history.waited_s / history.train_s},
        samples_per_s=history.images / history.train_s,
        precision=config.precision,
        devices=config.trainer.devices * config.trainer.num_nodes,
        threads=int(config.threads),
        numerics={**numeric_settings(config), "compiled": compiled, "cuda_graph": bool(graph and graph.recorded)},
        versions=versions(),
        code=code_version(foreign_modules(config)),
        git=git_state(),
        hardware=hardware(),
        config_hash=config.identity(),
    )


def ema_metrics(history: History, classifier: Classifier) -> dict[str, float | None]:
    """Returns the metrics of the averaged weights, at the epoch in which they were best on validation; nothing without `ema`."""
    if history.best_ema is None:
        return {}
    return {
        "best/val/ema_acc": history.best_ema.val_ema_acc,
        "best/val/ema_loss": history.best_ema.val_ema_loss,
        "test/ema_acc": classifier.ema_scores["acc"],
        "test/ema_loss": classifier.ema_scores["loss"],
    }


def rebuild_facts(config: Config, data: ImageData) -> dict[str, Any]:
    """Returns what a net is rebuilt from and how its images are prepared, in plain types."""
    facts = ("channels", "image_size", "mean", "std", "fit")
    return {
        "config": config.as_dict(),
        "data": {"classes": list(data.classes), **{name: getattr(data, name) for name in facts}},
    }


def save_predictions(classifier: Classifier, path: Path) -> None:
    """Saves the test's logits (N, num_classes) and targets (N,), in the order of the test split."""
    assert classifier.outputs is not None
    logits, targets = classifier.outputs
    save_npz(path, logits=logits.numpy(), targets=targets.numpy())
