"""Reviews made from accuracies, without a folder of runs."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from cnnbench.report.analysis.comparisons import Review, review
from cnnbench.report.load.run import Run
from cnnbench.report.load.sweep import NO_RECORD, Runs
from cnnbench.runs.run_dir import RunDir
from cnnbench.runs.schema import Result, SweepRecord


def review_of(cells: Iterable[tuple[Mapping[str, Any], Any]], **record: Any) -> Review:
    """Reviews cells that are given as (setting, accuracies): in the order of the seeds, or by seed; None for a failed run.

    Args:
        cells: the cells.
        record: fields of sweep.json, as `baseline`.
    """
    listed = list(cells)
    runs = [
        Run(
            RunDir(Path(f"{setting}{seed}")), {**setting, "seed": seed}, "failed" if accuracy is None else "done",
            config={"seed": seed}, result=None if accuracy is None else Result(metrics={"test/acc": accuracy}),
        )
        for setting, values in listed
        for seed, accuracy in (values.items() if isinstance(values, dict) else enumerate(values))
    ]  # fmt: skip
    keys = tuple(dict.fromkeys(key for setting, _ in listed for key in setting))
    return review(Runs(Path("made"), SweepRecord.model_validate({**NO_RECORD.model_dump(), **record}), keys, runs))
