"""The hyperparameter columns of TensorBoard's table of runs."""

from __future__ import annotations

from contextlib import suppress
from itertools import chain
from pathlib import Path
from typing import Any

from tensorboard.compat.proto.summary_pb2 import Summary
from tensorboard.plugins.hparams.plugin_data_pb2 import HParamsPluginData
from torch.utils.tensorboard.summary import hparams

from cnnbench.config.schema import Config
from cnnbench.errors import ConfigError
from cnnbench.metric_names import FINAL, FINAL_EMA
from cnnbench.runs.sweep_dir import SweepDir
from cnnbench.text import Values, flatten, to_override

GROUPS = ("model", "data", "augment", "optimizer", "scheduler", "recipe", "trainer", "experiment")
NUMBERS = (
    "optimizer.lr", "optimizer.weight_decay", "label_smoothing", "mixup", "cutmix", "ema", "batch_size", "epochs", "data.image_size",
    "seed",
)  # fmt: skip
SHOWN_FIRST = ("model", "data", "optimizer", "lr", "seed")  # of a run that belongs to no sweep
COLUMN_OF_KEY = {"optimizer.lr": "lr", "optimizer.weight_decay": "weight_decay", "data.image_size": "image_size"}


def hparams_summaries(config: Config, directory: Path) -> tuple[Summary, Summary, Summary]:
    """Returns three summaries for the run in `directory`: the table's columns, the run's values, and its success.

    All runs of a sweep have the same columns of the same types: those that every run has, then the other keys that the sweep
    varies. TensorBoard shows the first five at once, varying columns before others.
    """
    settings: dict[str, Values] = {}  # of each job of the sweep, if sweep.json is intact
    with suppress(ConfigError):
        settings = {job.name: job.setting for job in SweepDir(directory.parent).jobs()}
    varied = {COLUMN_OF_KEY.get(key, key) for setting in settings.values() for key in setting}
    columns = run_columns(config, settings, settings.get(directory.name, {}))
    metrics = FINAL + FINAL_EMA if config.ema or "ema" in varied else FINAL
    experiment, start, end = hparams(columns, dict.fromkeys(metrics, 0.0))
    plugin_data = experiment.value[0].metadata.plugin_data
    table = HParamsPluginData.FromString(plugin_data.content)
    for info in table.experiment.hparam_infos:
        info.differs = info.name in (varied or SHOWN_FIRST)
    plugin_data.content = table.SerializeToString()
    return experiment, start, end


def run_columns(config: Config, settings: dict[str, Values], setting: Values) -> dict[str, str | float]:
    """Returns a run's columns and their values.

    Every run has the group choices and init as strings, and other keys as floats. A swept key that is not among them is a float
    where every job of the sweep has a number, else a string.

    Args:
        config: of the run; a run that is not a job of the sweep, as a repetition, takes its values from this.
        settings: of all jobs of the sweep.
        setting: of this job.
    """
    values = flatten(config.as_dict())
    columns: dict[str, str | float] = {group: config.choices.get(group, "none") for group in GROUPS}
    columns |= {"init": config.init, **{COLUMN_OF_KEY.get(key, key): float(values[key]) for key in NUMBERS}}
    for key in dict.fromkeys(chain(*settings.values())):
        value: Any = setting.get(key, values.get(key, "none"))
        if COLUMN_OF_KEY.get(key, key) in columns:
            continue
        if not all(type(each.get(key)) in (int, float) for each in settings.values()):  # true and false are no numbers
            columns[key] = to_override(value)
        elif type(value) in (int, float):
            columns[key] = float(value)
    return columns
