"""One run directory as its files tell of it. Fails on no broken file: what cannot be read is named, and counts as absent."""

from __future__ import annotations

import csv
import json
from dataclasses import dataclass, field
from math import inf
from pathlib import Path
from typing import Any

import yaml

from cnnbench.config.identity import fill_earlier
from cnnbench.config.schema import OUTSIDE_IDENTITY
from cnnbench.config.shipped_parts import with_current_paths
from cnnbench.runs.run_dir import RunDir
from cnnbench.text import as_typed, flat, numeric

Loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
LABELS = ("name", "runs_dir", "resume", "choices", "swept")  # of a config: they say nothing of what was done
DETAILS = tuple(key for key in OUTSIDE_IDENTITY if key not in LABELS)  # they make no cell of their own
PARTS = {  # of result.json, and what each is where it is there
    **dict.fromkeys(("n", "time", "versions", "hardware", "numerics", "git"), dict | None),
    **dict.fromkeys(("code", "split_hash", "label_hash", "precision"), str | None), "classes": list | None,
}  # fmt: skip
LARGEST = 1e100  # numbers beyond cannot be squared
GROUPS = ("model", "data", "augment", "optimizer", "scheduler", "recipe")


@dataclass(frozen=True)
class Run:
    """One run, as its directory tells of it.

    Attributes:
        directory: where it lies.
        setting: the keys that vary and their values here, the seed among them.
        state: done, running, pending, interrupted, failed, diverged; `missing` where a sweep lists it and nothing is there.
        reason: why it failed, where it did.
        config: frozen, by dotted keys.
        choices: of groups, as `{"model": "lenet5"}`.
        swept: keys that would make no cell of their own, but that its sweep varied.
        result: what result.json holds, if the run is done.
        epochs: rows of metrics.csv, by column; what is not known is None.
    """

    directory: RunDir
    setting: dict[str, Any]
    state: str
    reason: str | None = None
    config: dict[str, Any] = field(default_factory=dict)
    choices: dict[str, str] = field(default_factory=dict)
    swept: tuple[str, ...] = ()
    result: dict[str, Any] | None = None
    epochs: list[dict[str, float | None]] = field(default_factory=list)

    @property
    def name(self) -> str:
        """Of its directory."""
        return self.directory.path.name or self.directory.path.resolve().name

    @property
    def done(self) -> bool:
        """It has a result."""
        return self.result is not None

    @property
    def seed(self) -> Any:
        """Its seed; None where nothing is known of it."""
        seed = self.setting.get("seed", self.config.get("seed"))
        return as_typed(seed) if isinstance(seed, list | dict) else seed

    @property
    def cell(self) -> dict[str, Any]:
        """The setting without its seed."""
        return {key: value for key, value in self.setting.items() if key != "seed"}

    def metric(self, name: str) -> float | None:
        """A final metric, as `test/acc`; None where there is none, or it is not finite."""
        return numeric(self.result, "metrics", name)


def read_run(directory: RunDir, problems: list[str]) -> Run:
    """One run's files; what cannot be read is named, and counts as absent."""
    values = read_config(directory.config, problems)
    choices, swept = values.get("choices"), values.get("swept")
    config = flat({str(key): value for key, value in values.items() if key not in LABELS})
    status, result = standing(directory, problems), None
    if status["state"] == "done":
        result = read_result(directory.result, problems)
        if result is None:
            status = {**status, "state": "interrupted", "reason": "its result.json cannot be read"}
    epochs = read_epochs(directory.metrics, problems)
    setting = {"seed": config.get("seed")}
    reason = status.get("reason")
    return Run(
        directory, setting, str(status["state"]), str(reason) if reason else None, config,
        {group: choice for group, choice in choices.items() if isinstance(group, str) and isinstance(choice, str)}
        if isinstance(choices, dict)
        else {},
        tuple(map(str, swept)) if isinstance(swept, list) else (), result, epochs,
    )  # fmt: skip


def standing(directory: RunDir, problems: list[str]) -> dict[str, Any]:
    """How a run stands; a status.json that makes no sense is named."""
    path = directory.path / "status.json"
    try:
        if not isinstance(json.loads(path.read_text(encoding="utf-8"))["state"], str):
            raise ValueError("state")
        return directory.found()
    except FileNotFoundError:
        return directory.found()
    except (OSError, ValueError, TypeError, LookupError, RecursionError):
        problems.append(f"{path}: is no status")
        return {"state": "done" if directory.result.is_file() else "interrupted"}


def read_config(path: Path, problems: list[str]) -> dict[str, Any]:
    """A run's config.yaml."""
    try:
        values = yaml.load(path.read_text(encoding="utf-8"), Loader)
        values = with_current_paths(fill_earlier(values)) if isinstance(values, dict) else values
        flat(values if isinstance(values, dict) else {})
    except FileNotFoundError:
        if (path.parent / "result.json").is_file():
            problems.append(f"{path}: is not there")
        return {}
    except (OSError, ValueError, yaml.YAMLError, TypeError, RecursionError) as error:
        problems.append(f"{path}: cannot be read ({first_line(error)})")
        return {}
    if not isinstance(values, dict):
        problems.append(f"{path}: is no config")
        return {}
    return values


def read_result(path: Path, problems: list[str]) -> dict[str, Any] | None:
    """A run's result.json."""
    try:
        result = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        problems.append(f"{path}: cannot be read ({first_line(error)})")
        return None
    if not isinstance(result, dict) or not isinstance(result.get("metrics"), dict):
        problems.append(f"{path}: is no result, it has no metrics")
        return None
    wrong = [name for name, kind in PARTS.items() if not isinstance(result.get(name), kind)]
    if wrong:
        problems.append(f"{path}: {' and '.join(wrong)} cannot be understood")
    accuracy = numeric(result, "metrics", "test/acc")
    if accuracy is not None and not 0 <= accuracy <= 1:
        problems.append(f"{path}: test/acc {accuracy:g} is no accuracy")
        result["metrics"].pop("test/acc")
    return {key: value for key, value in result.items() if key not in wrong and (value is not None or key not in PARTS)}


def read_epochs(path: Path, problems: list[str]) -> list[dict[str, float | None]]:
    """The rows of a run's metrics.csv."""
    try:
        with path.open(encoding="utf-8", newline="") as file:
            return [{name: _number(text) for name, text in row.items() if name} for row in csv.DictReader(file)]
    except FileNotFoundError:
        return []
    except (OSError, ValueError, csv.Error) as error:
        problems.append(f"{path}: cannot be read ({first_line(error)})")
        return []


def _number(text: Any) -> float | None:
    try:
        value = float(text)
    except (TypeError, ValueError):
        return None
    return None if LARGEST < abs(value) < inf else value


def first_line(error: Exception) -> str:
    """What an error says, short."""
    return str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__


def final(run: Run) -> dict[str, Any]:
    """What a run came to, by column."""
    if run.result is None:
        return {}
    whole = {name: run.result.get(name) for name in ("best_epoch", "params", "macs", "samples_per_s")}
    return {**run.result["metrics"], **whole, "fit_s": run.result.get("time", {}).get("fit_s")}


def as_level(key: str, value: Any) -> Any:
    """A factor's value as it can be grouped by: `crop+rotate` for steps of a group, `[1,2]` for another list."""
    if not isinstance(value, list | dict):
        return value
    return "+".join(map(as_typed, value)) or "none" if isinstance(value, list) and key in GROUPS else as_typed(value)
