"""A folder of run directories as a table: the settings, the state and the result of each run. Loads no torch."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from itertools import chain
from pathlib import Path
from typing import Any

from cnnbench.errors import PROGRAM, ConfigError
from cnnbench.report.load.run import GROUPS, NON_CELL_KEYS, Run, read_run
from cnnbench.runs.part import in_part
from cnnbench.runs.run_dir import HASHED, RunDir
from cnnbench.runs.schema import SweepRecord
from cnnbench.runs.sweep_dir import SweepDir
from cnnbench.text import Values, canonical_json

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
        awaited: names of runs that are not here because another machine runs them, with `sweep.part`; they are pending.
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
    awaited: list[str] = field(default_factory=list)

    @property
    def done(self) -> list[Run]:
        """The runs that have a result."""
        return [run for run in self.runs if run.done]

    @property
    def scored(self) -> list[Run]:
        """The runs whose result has a test accuracy."""
        return [run for run in self.runs if run.accuracy is not None]

    @property
    def baseline(self) -> Values:
        """The values that the experiment states for its baseline, by the keys that vary."""
        return {key: value for key, value in self.sweep_record.baseline.items() if key in self.keys}


def read_runs(path: Path) -> Runs:
    """Reads the runs in a folder: a sweep, some runs copied together, or a single run.

    Raises:
        ConfigError: there is no run.
    """
    problems: list[str] = []
    if (path / "config.yaml").is_file() or (path / "result.json").is_file():
        return infer_runs(path, [path], problems)
    sweep = SweepDir(path)
    record = NO_RECORD
    try:
        record = sweep.read() or NO_RECORD
    except ConfigError as error:
        problems.append(str(error))
    jobs = sweep.jobs(record)
    folders = sorted({found.parent for name in ("config.yaml", "result.json") for found in path.glob(f"*/{name}")})
    if not folders and not jobs:
        raise ConfigError(f"{path}: holds no runs{folder_hint(path)}")
    if not jobs:
        return infer_runs(path, folders, problems)
    found = [replace(read_run(job.directory, problems), setting=job.setting) for job in jobs]
    own = {job.name for job in in_part(jobs, record.part)}
    awaited = {run.name for run in found if run.state == "missing"} - own
    kept, duplicates = split_duplicates(
        [replace(run, state="pending") if run.name in awaited else run for run in found]
    )
    names = {job.name for job in jobs}
    others = [folder for folder in folders if folder.name not in names]
    hashes = {hashed for job in jobs for hashed in (job.identity[:8], job.directory_hash)}
    endings = {folder: HASHED.search(folder.name) for folder in others}  # `..._0123abcd-2` repeats `..._0123abcd`
    repeated = [folder for folder, ending in endings.items() if ending and ending[1] in hashes]
    return Runs(
        path,
        record,
        tuple(key for key in record.keys if key != "seed"),
        kept,
        duplicates,
        unlisted=[folder.name for folder in others if folder not in repeated],
        problems=problems,
        launcher=sweep.launcher(),
        repetitions=[folder.name for folder in repeated if (folder / "result.json").is_file()],
        awaited=sorted(awaited),
    )


def folder_hint(path: Path) -> str:
    """Suggests a folder with runs instead of one without, or the command that makes runs."""
    if path.is_file():
        return f"; it is a file, did you mean {path.parent}?"
    if not path.is_dir():
        return "; the folder does not exist"
    inside = [file.parent for file in sorted(path.glob("*/sweep.json"))]
    inside += [file.parents[1] for file in sorted(path.glob("*/*/config.yaml"))]
    return f"; did you mean {inside[-1]}?" if inside else f"; {PROGRAM} -m key=a,b ... makes some"


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

    found = []
    for run in runs:
        setting = {key: (run.choices if key in GROUPS else run.config).get(key) for key in keys}
        found.append(replace(run, setting={**setting, "seed": run.seed}))
    kept, duplicates = split_duplicates(sorted(found, key=lambda run: canonical_json(run.cell_setting)))
    return Runs(path, NO_RECORD, keys, kept, duplicates, problems=problems)


def distinguishing_keys(
    configs: list[Values], choices: list[dict[str, str]], swept: Iterable[str] = ()
) -> tuple[str, ...]:
    """Selects a few keys that distinguish the configs, apart from the seed; a group's choice before the keys in its file.

    Args:
        configs: config of each run, by dotted keys.
        choices: chosen options of the same runs, by group.
        swept: keys that count although they are in `NON_CELL_KEYS`.
    """
    columns: dict[str, list[Any]] = {key: [chosen.get(key) for chosen in choices] for key in GROUPS}
    columns |= {
        key: [config.get(key) for config in configs]
        for key in dict.fromkeys(chain(*configs))
        if key in swept or key not in NON_CELL_KEYS
    }
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
    finished_last = sorted(runs, key=lambda run: run.done)
    names = set({canonical_json(run.setting): run.name for run in finished_last}.values())
    return [run for run in runs if run.name in names], [run for run in runs if run.name not in names]
