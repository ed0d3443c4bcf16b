"""Writes folders of runs as a sweep leaves them, from a few numbers: nothing trains."""

from __future__ import annotations

import csv
import json
import re
import zlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import yaml

from cnnbench.runs.liveness import this_process

GROUPS = ("model", "data", "augment", "optimizer", "scheduler", "recipe")
CODE = "0123456789ab"
Outcome = float | str | Mapping[str, Any]


def sweep(
    path: Path,
    cells: Sequence[tuple[Mapping[str, Any], Mapping[int, Outcome]]],
    listed: bool = True,
    **record: Any,
) -> Path:
    """Writes a folder with a run directory for each seed of each cell.

    Args:
        path: the folder.
        cells: (setting, outcomes by seed); an outcome is an accuracy, a state, or arguments of `run`.
        listed: whether to write sweep.json; only there can a run be `missing`.
        record: more fields of sweep.json, as `question baseline claims`.

    Returns:
        The folder.
    """
    jobs = []
    for setting, outcomes in cells:
        for seed, outcome in outcomes.items():
            name = directory(setting, seed)
            if outcome != "missing":
                run(path / name, setting, seed, **run_arguments(outcome))
            jobs.append({"directory": name, "identity": name[-8:], "setting": {**setting, "seed": seed}, "facts": {}})
    keys = list(dict.fromkeys(key for setting, _ in cells for key in setting))
    fields = {"schema": 1, "name": path.name, "keys": [*keys, "seed"], "fixed": {}, "command": "cnnbench -m"}
    path.mkdir(parents=True, exist_ok=True)
    if listed:
        (path / "sweep.json").write_text(json.dumps({**fields, **record, "jobs": jobs}))
    return path


def directory(setting: Mapping[str, Any], seed: int) -> str:
    """The name of a run's directory: the values of the setting, the seed, a hash."""
    values = "_".join(re.sub(r"[^\w.-]+", "-", str(value)) for value in setting.values())
    return f"{values}_seed{seed}_{zlib.crc32(f'{setting} {seed}'.encode()):08x}"


def run_arguments(outcome: Outcome) -> dict[str, Any]:
    """Converts an accuracy or a state to arguments of `run`."""
    if isinstance(outcome, str):
        return {"state": outcome}
    return dict(outcome) if isinstance(outcome, Mapping) else {"accuracy": outcome}


def run(
    path: Path,
    setting: Mapping[str, Any],
    seed: int = 0,
    accuracy: float | None = 0.5,
    state: str = "done",
    reason: str | None = None,
    config: Mapping[str, Any] | None = None,
    result: Mapping[str, Any] | None = None,
    metrics: Mapping[str, Any] | None = None,
    epochs: Sequence[Mapping[str, Any]] = (),
    logits: Any = None,
    targets: Any = None,
    images: Mapping[int, np.ndarray] | None = None,
) -> Path:
    """Writes a run directory.

    Args:
        path: the directory.
        setting: values of dotted keys and groups.
        seed: the seed.
        accuracy: test accuracy; None: the result has none.
        state: `done` or another state; only a `running` run has a living owner.
        reason: reason of a failure.
        config: more values of dotted keys.
        result: fields of result.json that replace the usual ones.
        metrics: more metrics.
        epochs: rows of metrics.csv.
        logits: (N, num_classes) of the test images.
        targets: (N,) true classes.
        images: index in the test split -> (H, W, C) uint8, for mistakes.npz.

    Returns:
        The directory.
    """
    path.mkdir(parents=True)
    (path / "config.yaml").write_text(
        yaml.safe_dump(frozen_config({**setting, **(config or {})}, seed), sort_keys=False)
    )
    (path / "status.json").write_text(json.dumps({**this_process().model_dump(), "state": state, "reason": reason}))
    if state == "done":
        made = result_json(setting, seed, {} if accuracy is None else {"test/acc": accuracy}, metrics or {})
        (path / "result.json").write_text(json.dumps({**made, **(result or {})}))
    if epochs:
        with (path / "metrics.csv").open("w", newline="") as file:
            table = csv.DictWriter(file, list(epochs[0]))
            table.writeheader()
            table.writerows(epochs)
    if logits is not None:
        np.savez_compressed(
            path / "predictions.npz", logits=np.asarray(logits, np.float32), targets=np.asarray(targets)
        )
    if images:
        np.savez_compressed(path / "mistakes.npz", index=np.array(list(images)), images=np.stack(list(images.values())))
    return path


def frozen_config(setting: Mapping[str, Any], seed: int) -> dict[str, Any]:
    """A frozen config: the keys that the report reads."""
    config: dict[str, Any] = {
        "model": {"_target_": "nets.Net"}, "data": {"image_size": 28, "root": "/data"}, "optimizer": {"lr": 0.1},
        "trainer": {"accelerator": "cpu", "devices": 1, "max_steps": None}, "seed": seed, "epochs": 5, "batch_size": 64,
        "name": "made", "runs_dir": "runs", "choices": dict.fromkeys(GROUPS, "none"),
    }  # fmt: skip
    for key, value in setting.items():
        if key in GROUPS:
            config["choices"][key] = value
            config.setdefault(key, {})["_target_"] = f"{key}s.{value}"
        else:
            *inner, last = key.split(".")
            place = config
            for name in inner:
                place = place.setdefault(name, {})
            place[last] = value
    return config


def result_json(setting: Mapping[str, Any], seed: int, *metrics: Mapping[str, Any]) -> dict[str, Any]:
    """The content of a result.json."""
    return {
        "schema": 1, "status": "done", "seed": seed, "metrics": {key: value for each in metrics for key, value in each.items()},
        "best_epoch": 2, "n": {"train": 800, "val": 100, "test": 1000}, "label_hash": "aa", "params": 1000, "macs": 5000,
        "time": {"fit_s": 10.0}, "samples_per_s": 400.0, "precision": "32", "devices": 1, "threads": 1, "code": CODE,
        "versions": {"torch": "2.6"}, "git": {"commit": "c0ffee", "dirty": False},
        "hardware": {"cpu": "x", "cores": 2, "gpus": [], "system": "Linux x86_64"},
        "command": "cnnbench model=none",
    }  # fmt: skip


def epochs(
    losses: Sequence[float | None], accuracies: Sequence[float | None] | None = None, epoch_s: float = 2.0
) -> list[dict[str, Any]]:
    """Rows of metrics.csv, with equal values on training and on validation."""
    both = zip(losses, accuracies or [0.5] * len(losses), strict=True)
    return [
        {
            "epoch": number, "step": 10 * number, "train/loss": loss, "train/acc": accuracy, "val/loss": loss,
            "val/acc": accuracy, "val/ema_loss": None, "lr": 0.1, "epoch_s": epoch_s, "samples_per_s": 400.0,
        }
        for number, (loss, accuracy) in enumerate(both, 1)
    ]  # fmt: skip


def logits_for(predicted: Sequence[int], num_classes: int, scale: float = 5.0) -> np.ndarray:
    """Logits (N, num_classes) of a net that predicts these classes, each with the same confidence."""
    return scale * np.eye(num_classes, dtype=np.float32)[list(predicted)]
