"""What a run leaves behind when it is done: result.json, predictions.npz, and what its net can be rebuilt from."""

from __future__ import annotations

import io
import math
from pathlib import Path
from typing import Any

import numpy as np

from cnnbench.config.schema import Config
from cnnbench.config.trusted_names import foreign_modules
from cnnbench.data.datamodule import ImageData
from cnnbench.errors import Diverged
from cnnbench.files import write_atomic
from cnnbench.runs.environment import code_version, git_state, hardware, versions
from cnnbench.training.callbacks.history import History
from cnnbench.training.classifier import Classifier
from cnnbench.training.determinism import numerics
from cnnbench.training.validate import Prepared


def summarize(prepared: Prepared, history: History, classifier: Classifier, compiled: bool) -> dict[str, Any]:
    """`result.json`, but for the command; `compiled` is what became of `compile`."""
    config, data, replay = prepared.config, prepared.data, classifier.replay
    last = history.validations[-1]
    for scores, whose in ((classifier.scores, ""), (classifier.ema_scores, " of the averaged weights")):
        if scores and not math.isfinite(scores["loss"]):
            raise Diverged(f"the test loss{whose} is {scores['loss']}")
    return {
        "schema": 1,
        "status": "done",
        "seed": config.seed,
        "choices": config.choices,
        "classes": list(data.classes),  # in the order of the logits
        "metrics": {
            "best/val/acc": history.best["val/acc"],
            "best/val/loss": history.best["val/loss"],
            "last/val/acc": last["val/acc"],
            "test/acc": classifier.scores["acc"],
            "test/loss": classifier.scores["loss"],
            **of_the_average(history, classifier),
        },
        "best_epoch": math.ceil(history.best["epoch"]),
        "n": {split: len(data.indices[split]) for split in ("train", "val", "test")},
        "split_hash": data.split_hash,
        "label_hash": data.label_hash,
        "params": prepared.params,
        "macs": prepared.macs,
        "time": {"fit_s": history.fit_s, "data_wait_share": history.waited_s / history.train_s},
        "samples_per_s": history.images / history.train_s,
        "precision": config.precision,
        "devices": config.trainer.devices * config.trainer.num_nodes,
        "threads": config.threads,
        "numerics": {**numerics(config), "compiled": compiled, "cuda_graph": bool(replay and replay.recorded)},
        "versions": versions(),
        "code": code_version(foreign_modules(config)),
        "git": git_state(),
        "hardware": hardware(),
        "config_hash": config.identity(),
    }


def of_the_average(history: History, classifier: Classifier) -> dict[str, float]:
    """The metrics of averaged weights, if there are any; theirs is the epoch in which they were best on validation."""
    if not history.best_ema:
        return {}
    return {
        "best/val/ema_acc": history.best_ema["val/ema_acc"],
        "best/val/ema_loss": history.best_ema["val/ema_loss"],
        "test/ema_acc": classifier.ema_scores["acc"],
        "test/ema_loss": classifier.ema_scores["loss"],
    }


def origin(config: Config, data: ImageData) -> dict[str, Any]:
    """What a net is rebuilt from and fed with, in plain types."""
    return {
        "config": config.as_dict(),
        "data": {
            "channels": data.channels,
            "classes": list(data.classes),
            "image_size": data.image_size,
            "mean": data.mean,
            "std": data.std,
            "fit": data.fit,
        },
    }


def save_predictions(classifier: Classifier, path: Path) -> None:
    """Test logits (N, num_classes) and targets (N,), in the order of the test split."""
    assert classifier.outputs is not None
    logits, targets = classifier.outputs
    content = io.BytesIO()
    np.savez_compressed(content, logits=logits.numpy(), targets=targets.numpy())
    write_atomic(path, content.getvalue())
