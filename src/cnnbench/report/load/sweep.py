"""A folder of run directories as a table: the settings, the state and the result of each run. Loads no torch."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from cnnbench.errors import ConfigError
from cnnbench.report.load.run import GROUPS, NON_CELL_KEYS, Run, read_run
from cnnbench.runs.run_dir import RunDir
from cnnbench.runs.schema import SweepRecord
from cnnbench.runs.sweep_dir import HASHED, Job, SweepDir
from cnnbench.text import canonical_json

NO_RECORD = SweepRecord(schema=1, name="", keys=[], fixed={}, jobs=[])


@dataclass(frozen=True)
class Runs:
    """The runs in a folder.

    Attributes:
        path: the folder.
        sweep_record: content of sweep.json; `NO_RECORD` where there is none.
        keys: keys that vary, without the seed.
        runs: in the order of the sweep's jobs.
        duplicates: excluded runs: another run has the same setting and seed; of two that are done the later one counts.
        unlisted: names of excluded runs that the sweep does not list.
        problems: files that cannot be read, one line each.
        launcher: process that starts the sweep's jobs now, None if there is none.
        repetitions: names of finished runs that repeat a job, as `reproduce` makes them; excluded too.
    """

    path: Path
    sweep_record: SweepRecord
    keys: tuple[str, ...]
    runs: list[Run]
    duplicates: list[Run] = field(default_factory=list)
    unlisted: list[str] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)
    launcher: str | None = None
    repetitions: list[str] = field(default_factory=list)

    @property
    def done(self) -> list[Run]:
        """The runs that have a result."""
        return [run for run in self.runs if run.done]


def read_runs(path: Path) -> Runs:
    """Reads the runs in a folder: a sweep, some runs copied together, or a single run.

    Raises:
        ConfigError: there is no run.
    """
    problems: list[str] = []
    if (path / "config.yaml").is_file() or (path / "result.json").is_file():
        return infer_runs(path, [path], problems)
    sweep = SweepDir(path)
    try:
        record = sweep.read()
        jobs = sweep.jobs(record) if record else []
    except ConfigError as error:
        problems.append(str(error))
        record, jobs = None, []
    folders = sorted({found.parent for name in ("config.yaml", "result.json") for found in path.glob(f"*/{name}")})
    if not folders and not jobs:
        raise ConfigError(f"{path}: holds no runs{folder_hint(path)}")
    if record is None or not jobs:
        return infer_runs(path, folders, problems)
    kept, duplicates = split_duplicates([read_listed_run(job, problems) for job in jobs])
    names = {job.name for job in jobs}
    others = [folder for folder in folders if folder.name not in names]
    return Runs(
        path,
        record,
        tuple(key for key in record.keys if key != "seed"),
        kept,
        duplicates,
        unlisted=[folder.name for folder in others if not is_repetition(folder, jobs)],
        problems=problems,
        launcher=sweep.launcher(),
        repetitions=[
            folder.name for folder in others if is_repetition(folder, jobs) and (folder / "result.json").is_file()
        ],
    )


def folder_hint(path: Path) -> str:
    """Suggests a folder with runs instead of one without, or the command that makes runs."""
    inside = sorted(path.glob("*/sweep.json")) + sorted(path.glob("*/*/config.yaml")) if path.is_dir() else []
    if inside:
        return f"; did you mean {inside[-1].parent if inside[-1].name == 'sweep.json' else inside[-1].parent.parent}?"
    if path.is_file():
        return f"; it is a file, did you mean {path.parent}?"
    return "; python -m cnnbench -m key=a,b ... makes some" if path.is_dir() else "; the folder does not exist"


def read_listed_run(job: Job, problems: list[str]) -> Run:
    """Reads the run of a sweep's job, with the setting that the sweep lists."""
    if not job.directory.path.is_dir():
        return Run(job.directory, job.setting, "missing")
    return replace(read_run(job.directory, problems), setting=job.setting)


def is_repetition(folder: Path, jobs: Iterable[Job]) -> bool:
    """Whether a directory repeats one of the jobs, as `..._0123abcd-2` repeats `..._0123abcd`."""
    ending = HASHED.search(folder.name)
    hashes = {hashed for job in jobs for hashed in (job.identity[:8], job.directory_hash)}
    return ending is not None and ending[1] in hashes


def infer_runs(path: Path, folders: Iterable[Path], problems: list[str]) -> Runs:
    """Reads runs without a sweep.json: the keys that vary are those in which their configs differ. Skips runs without config.

    Raises:
        ConfigError: no config can be read.
    """
    runs = [run for folder in folders if (run := read_run(RunDir(folder), problems)).config]
    if not runs:
        raise ConfigError(f"{path}: holds no run whose config.yaml can be read; {problems[0]}")
    keys = distinguishing_keys(
        [run.config for run in runs], [run.choices for run in runs], {key for run in runs for key in run.swept}
    )

    def setting(run: Run) -> dict[str, Any]:
        values = {key: (run.choices if key in GROUPS else run.config).get(key) for key in keys}
        return {**values, "seed": run.seed}

    found = [replace(run, setting=setting(run)) for run in runs]
    kept, duplicates = split_duplicates(sorted(found, key=lambda run: canonical_json(run.cell_setting)))
    return Runs(path, NO_RECORD, keys, kept, duplicates, problems=problems)


def distinguishing_keys(
    configs: list[dict[str, Any]], choices: list[dict[str, str]], swept: Iterable[str] = ()
) -> tuple[str, ...]:
    """Selects a few keys that distinguish the configs, apart from the seed; a group's choice before the keys in its file.

    Args:
        configs: config of each run, by dotted keys.
        choices: chosen options of the same runs, by group.
        swept: keys that count although they are in `NON_CELL_KEYS`.
    """
    columns = {key: [chosen.get(key) for chosen in map(dict, choices)] for key in GROUPS}
    for key in dict.fromkeys(key for config in configs for key in config):
        if key in swept or key not in (*NON_CELL_KEYS, "seed"):
            columns[key] = [config.get(key) for config in configs]
    labels = [""] * len(configs)  # the values of the selected keys, for each config
    keys = []
    for key, values in columns.items():
        finer = [f"{label}|{canonical_json(value)}" for label, value in zip(labels, values, strict=True)]
        if len(set(finer)) > len(set(labels)):
            labels = finer
            keys.append(key)
    return tuple(keys)


def split_duplicates(runs: list[Run]) -> tuple[list[Run], list[Run]]:
    """(kept, excluded): keeps one run per setting and seed, the last that is done, else the last."""
    chosen: dict[str, Run] = {}
    for run in runs:
        place = canonical_json(run.setting)
        if place not in chosen or run.done or not chosen[place].done:
            chosen[place] = run
    names = {run.name for run in chosen.values()}
    return [run for run in runs if run.name in names], [run for run in runs if run.name not in names]


def group_by_cell(runs: Iterable[Run]) -> list[list[Run]]:
    """Groups runs by cell, in the order of the cells' first runs."""
    cells: dict[str, list[Run]] = {}
    for run in runs:
        cells.setdefault(canonical_json(run.cell_setting), []).append(run)
    return list(cells.values())
