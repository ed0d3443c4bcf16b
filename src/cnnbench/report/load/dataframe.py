"""Runs as a pandas frame."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cnnbench.report.load.run import as_level, final
from cnnbench.report.load.sweep import read

if TYPE_CHECKING:
    import pandas


def load_runs(path: Path | str, epochs: bool = False) -> pandas.DataFrame:
    """A sweep as a tidy pandas frame: a row a run, or with `epochs` a row an epoch.

    Columns: `run state`, the keys that vary, `seed`; of runs the final metrics, `best_epoch params macs fit_s samples_per_s`; of
    epochs those of metrics.csv. A run that is not done has a row, too.

    Args:
        path: of a sweep, of a run, or of a folder with runs.
        epochs: give the epochs instead of the runs.

    Raises:
        ConfigError: there is no run.
    """
    import pandas

    found = read(Path(path))
    rows: list[Mapping[str, Any]] = []
    for run in found.runs:
        cell = {key: as_level(key, value) for key, value in run.cell.items()}
        head = {"run": run.name, "state": run.state, **cell, "seed": run.seed}
        if epochs:
            rows += [{**head, **row} for row in run.epochs]
        else:
            rows.append({**head, **final(run)})
    heads = ["run", "state", *found.keys, "seed"]
    columns = dict.fromkeys(
        [*heads, *(key for row in rows for key in row), *([] if epochs else ("test/acc", "test/loss"))]
    )
    return pandas.DataFrame(rows, columns=list(columns))
