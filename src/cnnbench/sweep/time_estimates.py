"""Expected time and memory of a job: from finished runs with the same cost key, or from a few measured steps."""

from __future__ import annotations

import platform
import statistics
from collections.abc import Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cnnbench.config.schema import Config
from cnnbench.distributed.fork_server import run_in_subprocess
from cnnbench.errors import ConfigError
from cnnbench.files import read_bytes, read_text
from cnnbench.runs.run_dir import RunDir
from cnnbench.runs.schema import Result
from cnnbench.sweep.expand import Progress
from cnnbench.sweep.plan import PlannedJob
from cnnbench.text import canonical_json

OVERHEAD_S = 1.0  # a job's start, its files, and other work outside of training
MEASURED_STEPS = 12
MAX_RUNS_READ = 400  # finished runs, the newest first
COST_KEYS = ("model", "augment", "batch_size", "accumulate", "precision", "compile", "threads", "trainer", "ema", "mixup",
             "cutmix")  # fmt: skip


@dataclass(frozen=True)
class Estimate:
    """Expected cost of a job.

    Attributes:
        seconds: of the whole job.
        peak_mb: peak memory of one process in MB; None: unknown.
        source: where the numbers come from, for the user.
    """

    seconds: float
    peak_mb: float | None
    source: str


@dataclass(frozen=True)
class FinishedRun:
    """Cost of a finished run: seconds per training image, further seconds per epoch, peak memory in MB."""

    per_image: float
    per_epoch: float
    peak_mb: float | None


def finished_runs(runs_dir: Path) -> dict[str, list[FinishedRun]]:
    """The runs below `runs_dir` that finished on a machine of this kind, by their `cost_key`; skips unreadable ones."""
    found: dict[str, list[FinishedRun]] = {}
    results = sorted(runs_dir.glob("*/*/result.json"), key=lambda path: path.stat().st_mtime, reverse=True)
    for path in results[:MAX_RUNS_READ]:
        with suppress(OSError, ValueError, KeyError, TypeError, ZeroDivisionError, ConfigError):
            run = RunDir(path.parent)
            result = Result.parse(read_bytes(path))[0]
            config = Config.load(run.config)
            per_image = 1 / (result.samples_per_s or 0)
            per_epoch = result.time["fit_s"] / trained_epochs(run, config) - result.n["train"] * per_image
            peak_mb = (run.status().peak_mb or {}).get("cpu")
            if result.hardware["system"] == f"{platform.system()} {platform.machine()}":
                found.setdefault(cost_key(config), []).append(FinishedRun(per_image, max(0.0, per_epoch), peak_mb))
    return found


def trained_epochs(run: RunDir, config: Config) -> int:
    """Epochs that a run trained: the rows of metrics.csv, as early stopping or `max_steps` may end it; else `epochs`."""
    rows = 0
    with suppress(OSError, ValueError):
        rows = read_text(run.metrics).strip().count("\n")
    return rows or config.epochs


def cost_key(config: Config) -> str:
    """The keys that decide the time of a training image, as one text."""
    values = config.as_dict()
    data = {key: values["data"][key] for key in ("image_size", "_target_")}
    return canonical_json([{key: values[key] for key in COST_KEYS}, data])


def estimate_from_finished(planned: PlannedJob, finished: dict[str, list[FinishedRun]]) -> Estimate | None:
    """The cost of a job from medians over the finished runs with its cost key; None without such runs."""
    runs = finished.get(cost_key(planned.config))
    if not runs:
        return None
    facts = planned.job.facts
    images, epochs = facts["n"]["train"], facts["epochs"]
    if planned.config.trainer.max_steps:  # may end the job earlier
        epochs = min(epochs, facts["steps"] * facts["batch_size"] / images)
    per_image = statistics.median(run.per_image for run in runs)
    per_epoch = statistics.median(run.per_epoch for run in runs)
    peak_mb = max((run.peak_mb for run in runs if run.peak_mb), default=None)
    source = f"as {len(runs)} finished runs" if len(runs) > 1 else "as a finished run"
    return Estimate(epochs * (images * per_image + per_epoch) + OVERHEAD_S, peak_mb, source)


def makespan(jobs: Iterable[tuple[int, float]], slots: int) -> float:
    """Seconds until all jobs are done, if they start in their order as soon as enough slots are free.

    Args:
        jobs: devices and seconds of each; a job takes one slot per device, at most all of them.
        slots: number of slots.
    """
    free_at = [0.0] * slots
    for devices, seconds in jobs:
        used = min(slots, devices)
        free_at.sort()
        free_at[:used] = [free_at[used - 1] + seconds] * used
    return max(free_at)


def measure_each(configs: Sequence[Config], progress: Progress) -> list[Estimate]:
    """Times a few real steps of each config, one config after another, each in its own process.

    Args:
        configs: frozen configs.
        progress: called with a text before each config.
    """
    estimates = []
    for number, config in enumerate(configs, 1):
        progress(f"measuring {number} of {len(configs)} cells")
        seconds, peak_mb = run_in_subprocess(_measure, config)
        estimates.append(Estimate(seconds + OVERHEAD_S, peak_mb, f"{MEASURED_STEPS} steps measured"))
    return estimates


def _measure(config: Config, progress: Any) -> tuple[float, float]:
    from cnnbench.sweep.benchmark_steps import measure_job

    return measure_job(config, MEASURED_STEPS)
