"""The hyperparameter columns of TensorBoard's table of runs."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from tensorboard.compat.proto.summary_pb2 import Summary
from tensorboard.plugins.hparams.plugin_data_pb2 import HParamsPluginData
from torch.utils.tensorboard.summary import hparams

from cnnbench.config.schema import Config
from cnnbench.errors import ConfigError
from cnnbench.metric_names import FINAL, FINAL_EMA
from cnnbench.runs.sweep_dir import SweepDir
from cnnbench.text import flatten, to_override

GROUPS = ("model", "data", "augment", "optimizer", "scheduler", "recipe", "trainer", "experiment")
NUMBERS = (
    "optimizer.lr", "optimizer.weight_decay", "label_smoothing", "mixup", "cutmix", "ema", "batch_size", "epochs", "data.image_size",
    "seed",
)  # fmt: skip
SHOWN_FIRST = ("model", "data", "optimizer", "lr", "seed")  # of a run that belongs to no sweep
COLUMN_OF_KEY = {"optimizer.lr": "lr", "optimizer.weight_decay": "weight_decay", "data.image_size": "image_size"}

Setting = dict[str, Any]  # swept key -> value


def hparams_summaries(config: Config, directory: Path) -> tuple[Summary, Summary, Summary]:
    """Returns three summaries for the run in `directory`: the table's columns, the run's values, and its success.

    All runs of a sweep have the same columns of the same types: those that every run has, then the other keys that the sweep
    varies. TensorBoard shows the first five at once, varying columns before others.
    """
    settings = _settings_of_sweep(directory.parent)
    varied = {COLUMN_OF_KEY.get(key, key) for setting in settings.values() for key in setting}
    values = {**common_columns(config), **_swept_columns(config, directory.name, settings)}
    metrics = (*FINAL, *(FINAL_EMA if config.ema or "ema" in varied else ()))
    experiment, start, end = hparams(values, dict.fromkeys(metrics, 0.0))
    table = HParamsPluginData.FromString(experiment.value[0].metadata.plugin_data.content)
    for info in table.experiment.hparam_infos:
        info.differs = info.name in (varied or SHOWN_FIRST)
    experiment.value[0].metadata.plugin_data.content = table.SerializeToString()
    return experiment, start, end


def common_columns(config: Config) -> dict[str, str | float]:
    """Returns the columns of every run: group choices and init are strings, the others floats."""
    choices = {group: config.choices.get(group, "none") for group in GROUPS}
    values = flatten(config.as_dict())
    return {**choices, "init": config.init, **{COLUMN_OF_KEY.get(key, key): float(values[key]) for key in NUMBERS}}


def _swept_columns(config: Config, job: str, settings: dict[str, Setting]) -> dict[str, str | float]:
    """Returns the columns of the swept keys: floats where every job has a number, else strings.

    A run that is not a job of the sweep, as a repetition, takes its values from its config.
    """
    setting = settings.get(job, {})
    shared, values = common_columns(config), flatten(config.as_dict())
    keys = dict.fromkeys(key for each in settings.values() for key in each)
    columns: dict[str, str | float] = {}
    for key in (key for key in keys if COLUMN_OF_KEY.get(key, key) not in shared):
        value = setting.get(key, values.get(key, "none"))
        if not all(_is_number(each.get(key)) for each in settings.values()):
            columns[key] = to_override(value)
        elif _is_number(value):
            columns[key] = float(value)
    return columns


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _settings_of_sweep(folder: Path) -> dict[str, Setting]:
    """Returns job directory -> setting from the folder's sweep.json; nothing if it is absent or damaged."""
    try:
        return {job.name: job.setting for job in SweepDir(folder).jobs()}
    except ConfigError:
        return {}
