"""Makes the result of a finished run, and saves its predictions."""

from __future__ import annotations

import math
from pathlib import Path

from cnnbench.config.trusted_names import foreign_modules
from cnnbench.runs.environment import code_version, git_state, hardware, versions
from cnnbench.runs.schema import GitRecord, Result
from cnnbench.text import printable
from cnnbench.training.callbacks.history import History, require_finite_scores
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
        compiled: whether the net was compiled; with `compile=true` a run continues uncompiled where PyTorch cannot compile.

    Raises:
        Diverged: a test loss is not a finite number.
    """
    config, data, graph = prepared.config, prepared.data, classifier.graphed_step
    best, best_ema = history.best, history.best_ema
    assert best is not None
    require_finite_scores("test", classifier)
    metrics = {
        "best/val/acc": best.val_acc,
        "best/val/loss": best.val_loss,
        "last/val/acc": history.validations[-1].val_acc,
        "test/acc": classifier.scores["acc"],
        "test/loss": classifier.scores["loss"],
    }
    if best_ema is not None:  # the averaged weights, at the epoch in which they were best on validation
        metrics |= {
            "best/val/ema_acc": best_ema.val_ema_acc,
            "best/val/ema_loss": best_ema.val_ema_loss,
            "test/ema_acc": classifier.ema_scores["acc"],
            "test/ema_loss": classifier.ema_scores["loss"],
        }
    return Result(
        schema=1,
        status="done",
        seed=config.seed,
        choices=config.choices,
        classes=list(
            map(printable, data.classes)
        ),  # in the order of the logits; JSON holds no bytes of another encoding
        metrics=metrics,
        best_epoch=math.ceil(best.epoch),
        n={split: len(data.indices[split]) for split in ("train", "val", "test")},
        split_hash=data.split_hash,
        label_hash=data.label_hash,
        params=prepared.params,
        macs=prepared.macs,
        time={"fit_s": history.fit_s, "data_wait_share": history.waited_s / history.train_s},
        samples_per_s=history.images / history.train_s,
        precision=config.precision,
        devices=config.world_size,
        threads=int(config.threads),
        numerics={**numeric_settings(config), "compiled": compiled, "cuda_graph": bool(graph and graph.recorded)},
        versions=versions(),
        code=code_version(foreign_modules(config)),
        git=GitRecord.model_validate(state) if (state := git_state()) else None,
        hardware=hardware(),
        config_hash=config.identity(),
    )


def save_predictions(classifier: Classifier, path: Path) -> None:
    """Saves the test's logits (N, num_classes) and targets (N,), in the order of the test split."""
    logits, targets = classifier.outputs
    save_npz(path, logits=logits.numpy(), targets=targets.numpy())
