"""What TensorBoard's table of runs has for columns."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from tensorboard.compat.proto.summary_pb2 import Summary
from tensorboard.plugins.hparams.plugin_data_pb2 import HParamsPluginData
from torch.utils.tensorboard.summary import hparams

from cnnbench.config.schema import Config
from cnnbench.metric_names import FINAL, FINAL_EMA
from cnnbench.text import as_typed, flat

GROUPS = ("model", "data", "augment", "optimizer", "scheduler", "recipe", "trainer", "experiment")
USUAL = ("model", "data", "optimizer", "lr", "seed")  # what varies where no sweep says
SHOWN_AS = {"optimizer.lr": "lr", "optimizer.weight_decay": "weight_decay", "data.image_size": "image_size"}

Setting = dict[str, Any]  # swept key -> value


def summaries(config: Config, directory: Path) -> tuple[Summary, Summary, Summary]:
    """Of the run in `directory`: the table's columns, the run's values, and that it is done.

    Columns and their types are the same in every run of a sweep: those that all runs have, then those that the sweep varies
    besides. TensorBoard shows the first five, those that vary before the others.
    """
    settings = _settings(directory.parent)
    varied = {SHOWN_AS.get(key, key) for setting in settings.values() for key in setting}
    values = {**common(config), **_varied(config, directory.name, settings)}
    metrics = (*FINAL, *(FINAL_EMA if config.ema or "ema" in varied else ()))
    experiment, start, end = hparams(values, dict.fromkeys(metrics, 0.0))
    table = HParamsPluginData.FromString(experiment.value[0].metadata.plugin_data.content)
    for info in table.experiment.hparam_infos:
        info.differs = info.name in (varied or USUAL)
    experiment.value[0].metadata.plugin_data.content = table.SerializeToString()
    return experiment, start, end


def common(config: Config) -> dict[str, str | float]:
    """The columns of every run: choices and init as strings, the others as floats."""
    return {
        **{group: config.choices.get(group, "none") for group in GROUPS},
        "init": config.init,
        "lr": config.optimizer.lr,
        "weight_decay": config.optimizer.weight_decay,
        "label_smoothing": config.label_smoothing,
        "mixup": config.mixup,
        "cutmix": config.cutmix,
        "ema": config.ema,
        "batch_size": float(config.batch_size),
        "epochs": float(config.epochs),
        "image_size": float(config.data.image_size),
        "seed": float(config.seed),
    }


def _varied(config: Config, job: str, settings: dict[str, Setting]) -> dict[str, str | float]:
    """The columns of a sweep, of a run beside its jobs too: floats where all of these say a number, else strings."""
    own = settings.get(job, {})
    shared, whole = common(config), flat(config.as_dict())
    keys = dict.fromkeys(key for setting in settings.values() for key in setting)
    found: dict[str, str | float] = {}
    for key in (key for key in keys if SHOWN_AS.get(key, key) not in shared):
        value = own.get(key, whole.get(key, "none"))
        if not all(_is_number(setting.get(key)) for setting in settings.values()):
            found[key] = as_typed(value)
        elif _is_number(value):
            found[key] = float(value)
    return found


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _settings(folder: Path) -> dict[str, Setting]:
    """Of each job of the sweep that has this folder, what is its own; none where there is no sweep."""
    try:
        jobs = json.loads((folder / "sweep.json").read_text(encoding="utf-8"))["jobs"]
        return {job["directory"]: job["setting"] for job in jobs}
    except (OSError, ValueError, LookupError, TypeError):
        return {}
