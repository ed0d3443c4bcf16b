"""Run directories as one table: what was asked, how each run stands, what came out. Loads no torch, and fails on no broken file."""

from __future__ import annotations

import csv
import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml

from cnnbench.errors import ConfigError
from cnnbench.notation import UNDECISIVE, canonical, flat
from cnnbench.rundir import RunDir
from cnnbench.sweep.ledger import HASHED, Job, SweepDir

if TYPE_CHECKING:
    import pandas

Loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
LABELS = ("name", "runs_dir", "resume", "choices", "swept")  # of a config: they say nothing of what was done
DETAILS = tuple(key for key in UNDECISIVE if key not in LABELS)  # they make no cell of their own
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
        return self.directory.path.name

    @property
    def done(self) -> bool:
        """It has a result."""
        return self.result is not None

    @property
    def seed(self) -> Any:
        """Its seed; None where nothing is known of it."""
        return self.setting.get("seed", self.config.get("seed"))

    @property
    def cell(self) -> dict[str, Any]:
        """The setting without its seed."""
        return {key: value for key, value in self.setting.items() if key != "seed"}

    def metric(self, name: str) -> float | None:
        """A final metric, as `test/acc`; None where there is none, or it is not finite."""
        return finite((self.result or {}).get("metrics", {}).get(name))


def finite(value: Any) -> float | None:
    """A finite number as a float; None for anything else."""
    return float(value) if isinstance(value, int | float) and -1e300 < value < 1e300 else None  # nan is neither


@dataclass(frozen=True)
class Runs:
    """The runs below a folder.

    Attributes:
        path: the folder.
        asked: what sweep.json says: `question baseline claims command ...`; empty where there is none.
        keys: that vary, without the seed.
        runs: in the order in which they were asked for.
        twice: runs that repeat a seed of their cell, and are left out; the later of two that are done is kept.
        unlisted: names of runs that lie beside those that the sweep lists, and are left out.
        problems: files that could not be read, each in a line.
        launcher: the process that starts its jobs now, if any does.
    """

    path: Path
    asked: dict[str, Any]
    keys: tuple[str, ...]
    runs: list[Run]
    twice: list[Run] = field(default_factory=list)
    unlisted: list[str] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)
    launcher: str | None = None

    @property
    def done(self) -> list[Run]:
        """Those that have a result."""
        return [run for run in self.runs if run.done]


def read(path: Path) -> Runs:
    """All that is known of the runs in a folder: a sweep's, some runs copied together, or a single run's.

    Raises:
        ConfigError: there is no run.
    """
    problems: list[str] = []
    if (path / "config.yaml").is_file():
        return inferred(path, [path], problems)
    sweep = SweepDir(path)
    try:
        asked, jobs = sweep.read(), sweep.jobs()
    except (ConfigError, KeyError, TypeError, AttributeError) as error:
        problems.append(
            str(error) if isinstance(error, ConfigError) else f"{sweep.record}: a part is missing ({error!r})"
        )
        asked, jobs = {}, []
    folders = sorted(found.parent for found in path.glob("*/config.yaml")) if path.is_dir() else []
    if not jobs:
        if not folders:
            raise ConfigError(f"{path}: holds no runs{near(path)}")
        return inferred(path, folders, problems)
    runs = [listed(job, problems) for job in jobs]
    beside = [
        folder.name for folder in folders if folder.name not in {job.name for job in jobs} and not copy(folder, jobs)
    ]
    keys = tuple(key for key in asked.get("keys", []) if key != "seed")
    kept, twice = once(runs)
    return Runs(path, asked, keys, kept, twice, beside, problems, sweep.launcher())


def near(path: Path) -> str:
    """What was perhaps meant instead of a folder without runs."""
    inside = sorted(path.glob("*/sweep.json")) + sorted(path.glob("*/*/config.yaml")) if path.is_dir() else []
    if inside:
        return f"; did you mean {inside[-1].parent if inside[-1].name == 'sweep.json' else inside[-1].parent.parent}?"
    return "; python -m cnnbench -m key=a,b ... makes some" if path.is_dir() else "; there is no such folder"


def listed(job: Job, problems: list[str]) -> Run:
    """A run that a sweep lists, with the setting that it has there."""
    if not job.directory.path.is_dir():
        return Run(job.directory, job.setting, "missing")
    run = read_run(job.directory, problems)
    return replace(run, setting=job.setting)


def copy(folder: Path, jobs: Iterable[Job]) -> bool:
    """Whether a directory is of an earlier go at a job that the sweep lists, as `..._0123abcd` beside `..._0123abcd-2`."""
    ending = HASHED.search(folder.name)
    return ending is not None and any(job.identity.startswith(ending[1]) for job in jobs)


def read_run(directory: RunDir, problems: list[str]) -> Run:
    """One run's files; what cannot be read is named, and counts as absent."""
    values = read_config(directory.config, problems)
    choices, swept = values.get("choices"), values.get("swept")
    config = flat({str(key): value for key, value in values.items() if key not in LABELS})
    status, result = standing(directory), None
    if status["state"] == "done":
        result = read_result(directory.result, problems)
        if result is None:
            status = {**status, "state": "interrupted", "reason": "its result.json cannot be read"}
    epochs = read_epochs(directory.metrics, problems)
    setting = {"seed": config.get("seed")}
    reason = status.get("reason")
    return Run(
        directory, setting, str(status["state"]), str(reason) if reason else None, config,
        choices if isinstance(choices, dict) else {}, tuple(map(str, swept)) if isinstance(swept, list) else (), result, epochs,
    )  # fmt: skip


def standing(directory: RunDir) -> dict[str, Any]:
    """How a run stands; one whose status.json makes no sense is as one that has none."""
    try:
        return directory.found()
    except (TypeError, ValueError):
        return {"state": "done" if directory.result.is_file() else "interrupted"}


def read_config(path: Path, problems: list[str]) -> dict[str, Any]:
    """A run's config.yaml."""
    try:
        values = yaml.load(path.read_text(encoding="utf-8"), Loader)
    except (OSError, ValueError, yaml.YAMLError) as error:
        if not isinstance(error, FileNotFoundError):
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
    except (OSError, ValueError) as error:
        problems.append(f"{path}: cannot be read ({first_line(error)})")
        return None
    if not isinstance(result, dict) or not isinstance(result.get("metrics"), dict):
        problems.append(f"{path}: is no result, it has no metrics")
        return None
    wrong = [name for name in ("n", "time") if not isinstance(result.get(name, {}), dict)]
    if wrong:
        problems.append(f"{path}: {' and '.join(wrong)} cannot be understood")
    return {key: value for key, value in result.items() if key not in wrong}


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
        return float(text)
    except (TypeError, ValueError):
        return None


def first_line(error: Exception) -> str:
    """What an error says, short."""
    return str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__


def inferred(path: Path, folders: Iterable[Path], problems: list[str]) -> Runs:
    """Runs that no sweep.json tells of: what varies is what their configs differ in. Those without one belong to no cell.

    Raises:
        ConfigError: no config can be read.
    """
    runs = [run for folder in folders if (run := read_run(RunDir(folder), problems)).config]
    if not runs:
        raise ConfigError(f"{path}: holds no run whose config.yaml can be read; {problems[0]}")
    keys = varying(
        [run.config for run in runs], [run.choices for run in runs], {key for run in runs for key in run.swept}
    )

    def value(run: Run, key: str) -> Any:
        return run.choices.get(key) if key in GROUPS else run.config.get(key)

    found = [replace(run, setting={**{key: value(run, key) for key in keys}, "seed": run.seed}) for run in runs]
    kept, twice = once(sorted(found, key=lambda run: canonical(run.cell)))
    return Runs(path, {}, keys, kept, twice, [], problems)


def varying(configs: list[dict[str, Any]], choices: list[dict[str, str]], swept: Iterable[str] = ()) -> tuple[str, ...]:
    """A few keys that tell the configs apart, seeds aside; a group's choice rather than what is in its file.

    Args:
        configs: dotted.
        choices: of groups, of the same runs.
        swept: keys that count although they are `DETAILS`.
    """
    known = [dict(chosen) for chosen in choices]
    columns = {key: [chosen.get(key) for chosen in known] for key in GROUPS}
    for key in dict.fromkeys(key for config in configs for key in config):
        if key in swept or key not in (*DETAILS, "seed"):
            columns[key] = [config.get(key) for config in configs]
    told = [""] * len(configs)  # what the keys until now say of each config
    keys = []
    for key, values in columns.items():
        finer = [f"{before}|{canonical(value)}" for before, value in zip(told, values, strict=True)]
        if len(set(finer)) > len(set(told)):
            told = finer
            keys.append(key)
    return tuple(keys)


def once(runs: list[Run]) -> tuple[list[Run], list[Run]]:
    """Each seed of a cell once: the last that is done, else the last; and those that are left out."""
    chosen: dict[str, Run] = {}
    for run in runs:
        place = canonical(run.setting)
        if place not in chosen or run.done or not chosen[place].done:
            chosen[place] = run
    names = {run.name for run in chosen.values()}
    return [run for run in runs if run.name in names], [run for run in runs if run.name not in names]


def by_cell(runs: Iterable[Run]) -> list[list[Run]]:
    """Those of a cell together, cells in their order."""
    cells: dict[str, list[Run]] = {}
    for run in runs:
        cells.setdefault(canonical(run.cell), []).append(run)
    return list(cells.values())


def load(path: Path | str, epochs: bool = False) -> pandas.DataFrame:
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
        head = {"run": run.name, "state": run.state, **run.cell, "seed": run.seed}
        if epochs:
            rows += [{**head, **row} for row in run.epochs]
        else:
            rows.append({**head, **final(run)})
    heads = ["run", "state", *found.keys, "seed"]
    columns = dict.fromkeys([*heads, *(key for row in rows for key in row)])
    return pandas.DataFrame(rows, columns=list(columns))


def final(run: Run) -> dict[str, Any]:
    """What a run came to, by column."""
    if run.result is None:
        return {}
    whole = {name: run.result.get(name) for name in ("best_epoch", "params", "macs", "samples_per_s")}
    return {**run.result["metrics"], **whole, "fit_s": run.result.get("time", {}).get("fit_s")}
