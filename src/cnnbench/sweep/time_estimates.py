"""How long a job will take, and how much memory: as finished runs of its kind did, or as a few real steps do."""

from __future__ import annotations

import heapq
import json
import platform
import statistics
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cnnbench.config.schema import Config
from cnnbench.errors import ConfigError
from cnnbench.runs.run_dir import RunDir
from cnnbench.sweep.estimate import OVERHEAD_S, Estimate
from cnnbench.sweep.plan import Planned
from cnnbench.text import canonical

READ = 400  # finished runs, the newest, that are looked at
KIND = (
    "model",
    "augment",
    "batch_size",
    "accumulate",
    "precision",
    "compile",
    "threads",
    "trainer",
    "ema",
    "mixup",
    "cutmix",
)


@dataclass(frozen=True)
class Seen:
    """A finished run: seconds for each training image, and for each epoch besides; memory in MB."""

    per_image: float
    per_epoch: float
    peak_mb: float | None


def seen_in(runs_dir: Path) -> dict[str, list[Seen]]:
    """Finished runs of this machine by kind."""
    found: dict[str, list[Seen]] = {}
    results = sorted(runs_dir.glob("*/*/result.json"), key=lambda path: path.stat().st_mtime, reverse=True)
    for path in results[:READ]:
        try:
            result = json.loads(path.read_text(encoding="utf-8"))
            config = Config.load(path.with_name("config.yaml"))
            per_image, epochs = 1 / result["samples_per_s"], trained_epochs(path, config)
            besides = result["time"]["fit_s"] / epochs - result["n"]["train"] * per_image
            status = RunDir(path.parent).status()
            seen = Seen(per_image, max(0.0, besides), status.get("peak_mb", {}).get("cpu"))
            here = result["hardware"]["system"] == f"{platform.system()} {platform.machine()}"
        except (OSError, ValueError, KeyError, TypeError, ZeroDivisionError, ConfigError):
            continue
        if here:
            found.setdefault(kind(config), []).append(seen)
    return found


def trained_epochs(result: Path, config: Config) -> float:
    """How many epochs a run had; early stopping and `max_steps` may have ended it before `epochs`."""
    try:
        rows = result.with_name("metrics.csv").read_text(encoding="utf-8").strip().count("\n")
    except OSError:
        rows = 0
    return rows or config.epochs


def kind(config: Config) -> str:
    """What decides the time of a training image."""
    values = config.as_dict()
    data = {key: values["data"][key] for key in ("image_size", "_target_")}
    return canonical([{key: values[key] for key in KIND}, data])


def from_finished(planned: Planned, seen: dict[str, list[Seen]]) -> Estimate | None:
    """What finished runs of a job's kind say of it."""
    alike = seen.get(kind(planned.config))
    if not alike:
        return None
    facts = planned.job.facts
    per_image, per_epoch = (
        statistics.median(values) for values in zip(*((e.per_image, e.per_epoch) for e in alike), strict=True)
    )
    epochs = facts["epochs"]
    if planned.config.trainer.max_steps:  # may end it before
        epochs = min(epochs, facts["steps"] * facts["batch_size"] / facts["n"]["train"])
    seconds = epochs * (facts["n"]["train"] * per_image + per_epoch)
    peaks = [each.peak_mb for each in alike if each.peak_mb]
    runs = f"{len(alike)} finished runs" if len(alike) > 1 else "a finished run"
    return Estimate(seconds + OVERHEAD_S, max(peaks, default=None), f"as {runs}")


def together(jobs: Iterable[tuple[Planned, Estimate | None]], slots: int) -> tuple[float, int]:
    """Seconds until jobs are done that are started in their order, as slots get free; and how many have no estimate."""
    free, unknown, end = [0.0] * slots, 0, 0.0
    heapq.heapify(free)
    for planned, estimate in jobs:
        if estimate is None:
            unknown += 1
            continue
        taken = [heapq.heappop(free) for _ in range(min(slots, planned.config.trainer.devices))]
        done = max(taken) + estimate.seconds
        end = max(end, done)
        for _ in taken:
            heapq.heappush(free, done)
    return end, unknown


def measured(configs: Sequence[Config], progress: Any = None) -> list[Estimate]:
    """What some real steps of each config take, one after another, each in a process of its own."""
    from cnnbench.distributed.fork_server import elsewhere

    estimates = []
    for number, config in enumerate(configs):
        if progress:
            progress("measuring", number + 1, len(configs))
        estimates.append(elsewhere(_measure, config))
    return estimates


def _measure(config: Config, progress: Any) -> Estimate:
    from cnnbench.sweep.benchmark_steps import measure

    return measure(config)
