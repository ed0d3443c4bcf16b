"""Folders of runs as a sweep leaves them, made from a few numbers: nothing trains."""

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
    **asked: Any,
) -> Path:
    """A folder with a run for each seed of each cell.

    Args:
        path: of the folder.
        cells: each a setting, and by seed what became of it: an accuracy, a state, or what `run` takes.
        listed: write sweep.json; `missing` runs are there alone.
        asked: what sweep.json says besides, as `question baseline claims`.
    """
    jobs = []
    for setting, outcomes in cells:
        for seed, outcome in outcomes.items():
            name = directory(setting, seed)
            if outcome != "missing":
                run(path / name, setting, seed, **known(outcome))
            jobs.append({"directory": name, "identity": name[-8:], "setting": {**setting, "seed": seed}, "facts": {}})
    keys = list(dict.fromkeys(key for setting, _ in cells for key in setting))
    record = {"schema": 1, "name": path.name, "keys": [*keys, "seed"], "fixed": {}, "command": "python -m cnnbench -m"}
    path.mkdir(parents=True, exist_ok=True)
    if listed:
        (path / "sweep.json").write_text(json.dumps({**record, **asked, "jobs": jobs}))
    return path


def directory(setting: Mapping[str, Any], seed: int) -> str:
    """What its directory is called."""
    values = "_".join(re.sub(r"[^\w.-]+", "-", str(value)) for value in setting.values())
    return f"{values}_seed{seed}_{zlib.crc32(f'{setting} {seed}'.encode()):08x}"


def known(outcome: Outcome) -> dict[str, Any]:
    """What `run` takes, of an accuracy or of a state."""
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
    """A run's directory.

    Args:
        path: of it.
        setting: dotted keys and groups.
        seed: of it.
        accuracy: on test; None where there is none.
        state: done, or what it is else; whoever runs it is gone but for `running`.
        reason: why it failed.
        config: dotted keys besides the setting's.
        result: what result.json says otherwise.
        metrics: besides `test/acc`.
        epochs: rows of metrics.csv.
        logits: (N, num_classes) of the test images; targets: (N,).
        images: place in the test split -> (H, W, C) uint8, as mistakes.npz has them.
    """
    path.mkdir(parents=True)
    (path / "config.yaml").write_text(yaml.safe_dump(frozen({**setting, **(config or {})}, seed), sort_keys=False))
    (path / "status.json").write_text(json.dumps({**this_process(), "state": state, "reason": reason}))
    if state == "done":
        made = a_result(setting, seed, {} if accuracy is None else {"test/acc": accuracy}, metrics or {})
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


def frozen(setting: Mapping[str, Any], seed: int) -> dict[str, Any]:
    """A config as a run freezes it, as far as the review looks at it."""
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


def a_result(setting: Mapping[str, Any], seed: int, *metrics: Mapping[str, Any]) -> dict[str, Any]:
    """A result.json."""
    return {
        "schema": 1, "status": "done", "seed": seed, "metrics": {key: value for each in metrics for key, value in each.items()},
        "best_epoch": 2, "n": {"train": 800, "val": 100, "test": 1000}, "label_hash": "aa", "params": 1000, "macs": 5000,
        "time": {"fit_s": 10.0}, "samples_per_s": 400.0, "precision": "32", "devices": 1, "threads": 1, "code": CODE,
        "versions": {"torch": "2.6"}, "git": {"commit": "c0ffee", "dirty": False},
        "hardware": {"cpu": "x", "cores": 2, "gpus": [], "system": "Linux x86_64"},
        "command": "python -m cnnbench model=none",
    }  # fmt: skip


def epochs(
    losses: Sequence[float | None], accuracies: Sequence[float | None] | None = None, epoch_s: float = 2.0
) -> list[dict[str, Any]]:
    """Rows of metrics.csv: the same on training and on validation."""
    both = zip(losses, accuracies or [0.5] * len(losses), strict=True)
    return [
        {
            "epoch": number, "step": 10 * number, "train/loss": loss, "train/acc": accuracy, "val/loss": loss,
            "val/acc": accuracy, "val/ema_loss": None, "lr": 0.1, "epoch_s": epoch_s, "samples_per_s": 400.0,
        }
        for number, (loss, accuracy) in enumerate(both, 1)
    ]  # fmt: skip


def sayings(said: Sequence[int], num_classes: int, sure: float = 5.0) -> np.ndarray:
    """Logits (N, num_classes) of a net that says so, as sure of each."""
    return sure * np.eye(num_classes, dtype=np.float32)[list(said)]
