"""The files of one run directory as a typed record. A broken file fails nothing: it is named, and counts as absent."""

from __future__ import annotations

import csv
from dataclasses import dataclass, field
from math import inf
from pathlib import Path
from typing import Any

import yaml
from pydantic import ValidationError

from cnnbench.config.identity import add_earlier_values
from cnnbench.config.schema import OUTSIDE_IDENTITY
from cnnbench.config.shipped_parts import with_current_paths
from cnnbench.runs.run_dir import RunDir
from cnnbench.runs.schema import Result, Status, problem_of
from cnnbench.text import flatten, to_override

Loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
LABEL_KEYS = ("name", "runs_dir", "resume", "choices", "swept")  # config keys that do not change what a run computes
NON_CELL_KEYS = tuple(
    key for key in OUTSIDE_IDENTITY if key not in LABEL_KEYS
)  # runs that differ in these share a cell
LARGEST = 1e100  # the square of a larger number overflows
GROUPS = ("model", "data", "augment", "optimizer", "scheduler", "recipe")


@dataclass(frozen=True)
class Run:
    """One run, as its directory describes it.

    Attributes:
        directory: its run directory.
        setting: the keys that vary and their values in this run, the seed among them.
        state: done, running, pending, interrupted, failed or diverged; `missing` where a sweep lists it without a directory.
        reason: why it failed or was interrupted.
        config: frozen config, by dotted keys.
        choices: chosen option by config group, as `{"model": "lenet5"}`.
        swept: keys outside the identity that its sweep varied.
        result: content of result.json, if the run is done.
        epochs: rows of metrics.csv, by column; an unknown value is None.
    """

    directory: RunDir
    setting: dict[str, Any]
    state: str
    reason: str | None = None
    config: dict[str, Any] = field(default_factory=dict)
    choices: dict[str, str] = field(default_factory=dict)
    swept: tuple[str, ...] = ()
    result: Result | None = None
    epochs: list[dict[str, float | None]] = field(default_factory=list)

    @property
    def name(self) -> str:
        """Name of its directory."""
        return self.directory.path.name or self.directory.path.resolve().name

    @property
    def done(self) -> bool:
        """Whether it has a result."""
        return self.result is not None

    @property
    def seed(self) -> Any:
        """Its seed; None where it is unknown."""
        seed = self.setting.get("seed", self.config.get("seed"))
        return to_override(seed) if isinstance(seed, list | dict) else seed

    @property
    def cell_setting(self) -> dict[str, Any]:
        """The setting without the seed."""
        return {key: value for key, value in self.setting.items() if key != "seed"}

    def metric(self, name: str) -> float | None:
        """A metric of the result, as `test/acc`; None where it is absent or not finite."""
        return self.result.metric(name) if self.result else None


def read_run(directory: RunDir, problems: list[str]) -> Run:
    """Reads a run directory; a file that cannot be read counts as absent, and is added to the problems."""
    values = read_config(directory.config, problems)
    config = flatten({str(key): value for key, value in values.items() if key not in LABEL_KEYS})
    choices, swept = values.get("choices"), values.get("swept")
    choices = choices if isinstance(choices, dict) else {}
    status, result = read_status(directory, problems), None
    if status.state == "done":
        result = read_result(directory.result, problems)
        if result is None:
            status = Status(state="interrupted", reason="its result.json cannot be read")
    return Run(
        directory,
        setting={"seed": config.get("seed")},
        state=status.state,
        reason=status.reason or None,
        config=config,
        choices={group: name for group, name in choices.items() if isinstance(group, str) and isinstance(name, str)},
        swept=tuple(map(str, swept)) if isinstance(swept, list) else (),
        result=result,
        epochs=read_epochs(directory.metrics, problems),
    )


def read_status(directory: RunDir, problems: list[str]) -> Status:
    """Reads a run's effective status; a status.json of wrong content is added to the problems."""
    path = directory.path / "status.json"
    try:
        Status.model_validate_json(path.read_bytes())
    except FileNotFoundError:
        pass
    except (OSError, ValueError):
        problems.append(f"{path}: not the status of a run")
        return Status(state="done" if directory.result.is_file() else "interrupted")
    return directory.effective_status()


def read_config(path: Path, problems: list[str]) -> dict[str, Any]:
    """Reads a run's config.yaml as nested keys; empty where it cannot be read."""
    try:
        values = yaml.load(path.read_text(encoding="utf-8"), Loader)
        if isinstance(values, dict):
            values = with_current_paths(add_earlier_values(values))
            flatten(values)  # fails here if it is nested too deeply
            return values
        problems.append(f"{path}: not a config")
    except FileNotFoundError:
        if (path.parent / "result.json").is_file():
            problems.append(f"{path}: does not exist")
    except (OSError, ValueError, yaml.YAMLError, TypeError, RecursionError) as error:
        problems.append(f"{path}: cannot be read ({first_line(error)})")
    return {}


def read_result(path: Path, problems: list[str]) -> Result | None:
    """Reads a run's result.json without the fields that are wrong; None where it cannot be read or has no metrics."""
    try:
        result, wrong = Result.parse(path.read_bytes())
    except (OSError, ValidationError) as error:
        problems.append(f"{path}: {problem_of(error)}")
        return None
    if wrong:
        problems.append(f"{path}: {' and '.join(wrong)} cannot be understood")
    accuracy = result.metric("test/acc")
    if accuracy is not None and not 0 <= accuracy <= 1:
        problems.append(f"{path}: test/acc {accuracy:g} is not an accuracy, expected 0 to 1")
        metrics = {name: value for name, value in result.metrics.items() if name != "test/acc"}
        return result.model_copy(update={"metrics": metrics})
    return result


def read_epochs(path: Path, problems: list[str]) -> list[dict[str, float | None]]:
    """Reads the rows of a run's metrics.csv, one per epoch; empty where it cannot be read."""
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
    """The first line of an error's message, else the name of its class."""
    return str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__


def final_values(run: Run) -> dict[str, Any]:
    """The columns of a run's result in a table: metrics, `best_epoch params macs samples_per_s fit_s`; empty without a result."""
    result = run.result
    if result is None:
        return {}
    columns = {name: getattr(result, name) for name in ("best_epoch", "params", "macs", "samples_per_s", "fit_s")}
    return {**result.metrics, **columns}


def hashable_level(key: str, value: Any) -> Any:
    """A factor's value as a hashable one: `crop+rotate` for the steps of a group, `[1,2]` for another list."""
    if not isinstance(value, list | dict):
        return value
    return (
        "+".join(map(to_override, value)) or "none" if isinstance(value, list) and key in GROUPS else to_override(value)
    )
