"""Sweeps that are planned in this process and do not train; their runs are written to disk as real runs would be."""

from __future__ import annotations

import json
import platform
import re
from collections.abc import Callable
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import yaml

from cnnbench.config.compose import Composition, compose_values
from cnnbench.config.schema import Config
from cnnbench.runs.environment import code_version
from cnnbench.runs.liveness import this_process
from cnnbench.runs.run_dir import RunDir
from cnnbench.sweep.expand import expand_grid
from cnnbench.sweep.plan import Plan, PlannedJob, make_plan
from cnnbench.sweep.schema import SweepKeys
from owners import DEAD

SMALL = [
    "data=synthetic", "data.train_size=100", "data.val_size=20", "data.test_size=20", "epochs=2", "batch_size=32", "threads=1",
    "trainer=cpu",
]  # fmt: skip
POLICY = re.compile(r"sweep\.(slots|retry|stale|extend|seeds)=[\w]+")  # with simple values
METRICS = {"best/val/acc": 0.75, "best/val/loss": 0.5, "last/val/acc": 0.7, "test/acc": 0.625, "test/loss": 0.6}


@pytest.fixture
def in_this_process(monkeypatch, tmp_path):
    """Changes to an empty folder; jobs are frozen in this process, which has imported torch; compositions are cached."""
    use_this_process(monkeypatch, tmp_path)


def use_this_process(monkeypatch: pytest.MonkeyPatch, folder: Path) -> None:
    monkeypatch.chdir(folder)
    monkeypatch.setattr("cnnbench.sweep.plan.run_in_subprocess", call_here)
    monkeypatch.setattr("cnnbench.sweep.time_estimates.run_in_subprocess", call_here)
    monkeypatch.setattr("cnnbench.cli.plan.stop_fork_server", lambda: None)
    monkeypatch.setattr("cnnbench.sweep.expand.compose_values", compose_cached)
    monkeypatch.setattr("cnnbench.sweep.composer.compose_values", compose_cached)
    monkeypatch.setattr("cnnbench.config.compose.compose_values", compose_cached)


def call_here(work: Callable[..., Any], *arguments: Any, progress: Callable[..., None] | None = None) -> Any:
    return work(*arguments, progress or (lambda *values: None))


def compose_cached(overrides: list[str], config_dir: Path | None, missing: bool = False) -> Composition:
    """A cached composition of the overrides; simple `sweep.*` keys are set on it afterwards."""
    policy = dict(text.split("=") for text in overrides if POLICY.fullmatch(text))
    others = tuple(text for text in overrides if not POLICY.fullmatch(text))
    composed = _composed(others, config_dir, missing)
    of_sweep = {**composed.values["sweep"], **{key[6:]: yaml.safe_load(value) for key, value in policy.items()}}
    return replace(composed, values={**composed.values, "sweep": of_sweep})


@cache
def _composed(overrides: tuple[str, ...], config_dir: Path | None, missing: bool) -> Composition:
    return compose_values(list(overrides), config_dir, missing)


def settings_of(
    swept: dict[str, list[Any]] | None = None, fixed: tuple[str, ...] = (), **policy: Any
) -> list[dict[str, Any]]:
    """The settings of `sweep.*` keys and of typed values."""
    return expand_grid(SweepKeys.from_values(policy), swept or {}, dict.fromkeys(fixed))[0]


def experiment(folder: Path, **content: Any) -> Path:
    """A conf folder with an experiment `mine`."""
    path = folder / "conf" / "experiment" / "mine.yaml"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("# @package _global_\n" + yaml.safe_dump(content, sort_keys=False))
    return folder / "conf"


def plan(*overrides: str, config_dir: Path | None = None) -> Plan:
    """The plan of a sweep of LeNet-5 on a few synthetic images."""
    return make_plan([*SMALL, *overrides], config_dir)


def write_run(planned: PlannedJob, state: str, owner: dict[str, Any] | None = None, **result: Any) -> RunDir:
    """Writes the directory of a run in this state; by default its owner is dead."""
    return write_run_in(planned.job.directory.path, planned.config, state, owner, **result)


def write_run_in(path: Path, config: Config, state: str, owner: dict[str, Any] | None = None, **result: Any) -> RunDir:
    path.mkdir(parents=True, exist_ok=True)
    (path / "config.yaml").write_text(config.model_copy(update={"name": path.parent.name}).dump())
    gone = {**this_process().model_dump(), **DEAD}
    reason = "it went wrong" if state in ("failed", "diverged") else None
    (path / "status.json").write_text(json.dumps({**(owner or gone), "state": state, "reason": reason}))
    if state == "done":
        (path / "result.json").write_text(json.dumps({**result_values(), **result}))
    return RunDir(path)


def result_values() -> dict[str, Any]:
    return {
        "schema": 1,
        "status": "done",
        "metrics": METRICS,
        "best_epoch": 2,
        "n": {"train": 100, "val": 20, "test": 20},
        "time": {"fit_s": 3.0},
        "samples_per_s": 200.0,
        "code": code_version(),
        "hardware": {"system": f"{platform.system()} {platform.machine()}"},
    }


def tree(folder: Path) -> dict[str, bytes | None]:
    """Every file and folder below, with its content."""
    return {str(path.relative_to(folder)): path.read_bytes() if path.is_file() else None for path in folder.rglob("*")}
