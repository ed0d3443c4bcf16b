"""The files of one run directory as a typed record. A broken file does not stop the report: it is named, and counts as absent."""

from __future__ import annotations

import csv
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from io import StringIO
from math import inf
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from cnnbench.config.identity import add_earlier_values
from cnnbench.config.schema import OUTSIDE_IDENTITY
from cnnbench.config.shipped_parts import with_current_paths
from cnnbench.config.yaml_file import read_yaml
from cnnbench.files import read_bytes, read_text
from cnnbench.runs.run_dir import RunDir
from cnnbench.runs.schema import Result, Status, problem_of
from cnnbench.text import Values, flatten, to_override

LABEL_KEYS = ("name", "runs_dir", "resume", "choices", "swept")  # config keys that do not change what a run computes
# runs that differ in these share a cell
NON_CELL_KEYS = ("seed", *(key for key in OUTSIDE_IDENTITY if key not in LABEL_KEYS))
METRIC = "test/acc"  # the metric that runs are compared by
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
    setting: Values
    state: str
    reason: str | None = None
    config: Values = field(default_factory=dict)
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
        return hashable_level("seed", self.setting.get("seed", self.config.get("seed")))

    @property
    def cell_setting(self) -> Values:
        """The setting without the seed."""
        return {key: value for key, value in self.setting.items() if key != "seed"}

    @property
    def accuracy(self) -> float | None:
        """The test accuracy, between 0 and 1; None where it is unknown."""
        return self.metric(METRIC)

    @property
    def cell_config(self) -> Values:
        """The config without the keys in which runs of one cell may differ."""
        return {key: value for key, value in self.config.items() if key not in NON_CELL_KEYS}

    @property
    def final_values(self) -> Values:
        """The columns of its result in a table: metrics, `best_epoch params macs samples_per_s fit_s`; empty without a result."""
        if self.result is None:
            return {}
        names = ("best_epoch", "params", "macs", "samples_per_s", "fit_s")
        return {**self.result.metrics, **{name: getattr(self.result, name) for name in names}}

    def metric(self, name: str) -> float | None:
        """A metric of the result, as `test/acc`; None where it is absent or not finite."""
        return self.result.metric(name) if self.result else None


@contextmanager
def broken_file_reported(path: Path, problems: list[str]) -> Iterator[None]:
    """Skips a file that is missing or broken; adds a broken one to the problems, with the first line of the error."""
    try:
        yield
    except FileNotFoundError:
        pass
    except Exception as error:  # numpy raises nearly any exception for a damaged archive
        reason = str(error).strip().partition("\n")[0] or type(error).__name__
        problems.append(f"{path}: cannot be read ({reason})")


def read_run(directory: RunDir, problems: list[str]) -> Run:
    """Reads a run directory; a file that cannot be read counts as absent, and is added to the problems.

    The setting is empty, for the caller to fill in. The state is `missing` where there is no directory.
    """
    if not directory.path.is_dir():
        return Run(directory, {}, "missing")
    values = read_config(directory.config, problems)
    choices, swept = values.get("choices"), values.get("swept")
    pairs = choices.items() if isinstance(choices, dict) else ()
    status, result = read_status(directory, problems), None
    if status.state == "done":
        result = read_result(directory.result, problems)
        if result is None:
            status = Status(state="interrupted", reason="its result.json cannot be read")
    return Run(
        directory,
        setting={},
        state=status.state,
        reason=status.reason,
        config=flatten({str(key): value for key, value in values.items() if key not in LABEL_KEYS}),
        choices={group: name for group, name in pairs if isinstance(group, str) and isinstance(name, str)},
        swept=tuple(map(str, swept)) if isinstance(swept, list) else (),
        result=result,
        epochs=read_epochs(directory.metrics, problems),
    )


def read_status(directory: RunDir, problems: list[str]) -> Status:
    """Reads a run's effective status; a status.json of wrong content is added to the problems."""
    path = directory.path / "status.json"
    try:
        Status.model_validate_json(read_bytes(path))
    except FileNotFoundError:
        pass
    except (OSError, ValueError):
        problems.append(f"{path}: not the status of a run")
        return Status(state="done" if directory.result.is_file() else "interrupted")
    return directory.effective_status()


def read_config(path: Path, problems: list[str]) -> Values:
    """Reads a run's config.yaml as nested keys; empty where it cannot be read."""
    with broken_file_reported(path, problems):
        values = read_yaml(path)
        if isinstance(values, dict):
            values = with_current_paths(add_earlier_values(values))
            flatten(values)  # fails here if it is nested too deeply
            return values
        problems.append(f"{path}: not a config")
    if not path.exists() and path.with_name("result.json").is_file():
        problems.append(f"{path}: does not exist")
    return {}


def read_result(path: Path, problems: list[str]) -> Result | None:
    """Reads a run's result.json without the fields that are wrong; None where it cannot be read or has no metrics."""
    try:
        result, wrong = Result.parse(read_bytes(path))
    except (OSError, ValidationError) as error:
        problems.append(f"{path}: {problem_of(error)}")
        return None
    if wrong:
        problems.append(f"{path}: {' and '.join(wrong)} cannot be understood")
    impossible = result.impossible_metrics()
    problems += [f"{path}: {name} {reason}" for name, reason in impossible.items()]
    metrics = {name: value for name, value in result.metrics.items() if name not in impossible}
    return result.model_copy(update={"metrics": metrics})


def read_epochs(path: Path, problems: list[str]) -> list[dict[str, float | None]]:
    """Reads the rows of a run's metrics.csv, one per epoch; empty where it cannot be read."""
    with broken_file_reported(path, problems):
        rows = csv.DictReader(StringIO(read_text(path)))
        return [{name: _number(text) for name, text in row.items() if name} for row in rows]
    return []


def _number(text: Any) -> float | None:
    try:
        value = float(text)
    except (TypeError, ValueError):
        return None
    return None if LARGEST < abs(value) < inf else value


def hashable_level(key: str, value: Any) -> Any:
    """A factor's value as a hashable one: `crop+rotate` for the steps of a group, `[1,2]` for another list."""
    if isinstance(value, list) and key in GROUPS:
        return "+".join(map(to_override, value)) or "none"
    return to_override(value) if isinstance(value, list | dict) else value
