"""Runs as a pandas DataFrame."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cnnbench.report.load.run import hashable_level
from cnnbench.report.load.sweep import read_runs

if TYPE_CHECKING:
    import pandas


def load_runs(path: Path | str, epochs: bool = False) -> pandas.DataFrame:
    """Loads a sweep as a tidy DataFrame: one row per run, or with `epochs` one row per epoch.

    Columns: `run state`, the keys that vary, `seed`. A row per run adds the metrics, `best_epoch params macs fit_s
    samples_per_s`; a row per epoch adds the columns of metrics.csv. A run that is not done has a row, too.

    Args:
        path: folder of a sweep, of a run, or of several runs.
        epochs: return one row per epoch.

    Raises:
        ConfigError: there is no run.
    """
    import pandas

    found = read_runs(Path(path))
    rows: list[Mapping[str, Any]] = []
    for run in found.runs:
        levels = {key: hashable_level(key, value) for key, value in run.cell_setting.items()}
        head = {"run": run.name, "state": run.state, **levels, "seed": run.seed}
        rows += [{**head, **row} for row in (run.epochs if epochs else [run.final_values])]
    columns = ["run", "state", *found.keys, "seed", *chain(*rows)]
    columns += [] if epochs else ["test/acc", "test/loss"]
    return pandas.DataFrame(rows, columns=list(dict.fromkeys(columns)))
