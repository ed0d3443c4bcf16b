"""Run directories as one table: what was asked, how each run stands, what came out. Loads no torch, and fails on no broken file."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from cnnbench.errors import ConfigError
from cnnbench.report.load.run import DETAILS, GROUPS, Run, read_run
from cnnbench.runs.run_dir import RunDir
from cnnbench.runs.sweep_dir import HASHED, Job, SweepDir
from cnnbench.text import canonical


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
        again: names of finished runs of the same jobs, as `reproduce` makes them, which are left out too.
    """

    path: Path
    asked: dict[str, Any]
    keys: tuple[str, ...]
    runs: list[Run]
    twice: list[Run] = field(default_factory=list)
    unlisted: list[str] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)
    launcher: str | None = None
    again: list[str] = field(default_factory=list)

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
    if (path / "config.yaml").is_file() or (path / "result.json").is_file():
        return inferred(path, [path], problems)
    sweep = SweepDir(path)
    try:
        asked, jobs = sweep.read(), sweep.jobs()
    except ConfigError as error:
        problems.append(str(error))
        asked, jobs = {}, []
    folders = sorted({found.parent for name in ("config.yaml", "result.json") for found in path.glob(f"*/{name}")})
    if not jobs:
        if not folders:
            raise ConfigError(f"{path}: holds no runs{near(path)}")
        return inferred(path, folders, problems)
    runs = [listed(job, problems) for job in jobs]
    others = [folder for folder in folders if folder.name not in {job.name for job in jobs}]
    beside = [folder.name for folder in others if not copy(folder, jobs)]
    again = [folder.name for folder in others if copy(folder, jobs) and (folder / "result.json").is_file()]
    keys = tuple(key for key in asked.get("keys", []) if key != "seed")
    kept, twice = once(runs)
    return Runs(path, asked, keys, kept, twice, beside, problems, sweep.launcher(), again)


def near(path: Path) -> str:
    """What was perhaps meant instead of a folder without runs."""
    inside = sorted(path.glob("*/sweep.json")) + sorted(path.glob("*/*/config.yaml")) if path.is_dir() else []
    if inside:
        return f"; did you mean {inside[-1].parent if inside[-1].name == 'sweep.json' else inside[-1].parent.parent}?"
    if path.is_file():
        return f"; it is a file, did you mean {path.parent}?"
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
    hashes = {hashed for job in jobs for hashed in (job.identity[:8], job.directory_hash)}
    return ending is not None and ending[1] in hashes


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
