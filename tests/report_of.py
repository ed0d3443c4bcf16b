"""Reviews of numbers, without a folder."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from cnnbench.report.analysis.comparisons import Review, review
from cnnbench.report.load.run import Run
from cnnbench.report.load.sweep import Runs
from cnnbench.runs.run_dir import RunDir


def reviewed(cells: Iterable[tuple[Mapping[str, Any], Any]], **asked: Any) -> Review:
    """Of accuracies in the order of seeds, or by seed; None where a run has failed."""
    listed = list(cells)
    runs = [
        Run(
            RunDir(Path(f"{setting}{seed}")), {**setting, "seed": seed}, "failed" if accuracy is None else "done",
            config={"seed": seed}, result=None if accuracy is None else {"metrics": {"test/acc": accuracy}},
        )
        for setting, values in listed
        for seed, accuracy in (values.items() if isinstance(values, dict) else enumerate(values))
    ]  # fmt: skip
    keys = tuple(dict.fromkeys(key for setting, _ in listed for key in setting))
    return review(Runs(Path("made"), asked, keys, runs))
