"""Joins copies of a sweep, each with some of its runs, as several machines make them with `sweep.part`. Loads no torch."""

from __future__ import annotations

import csv
import os
import shutil
import zipfile
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from io import StringIO
from pathlib import Path

from cnnbench.config.schema import Config
from cnnbench.errors import CnnbenchError, ConfigError
from cnnbench.files import TEMPORARY_NAME, open_append, read_bytes, read_text
from cnnbench.runs.commands import checked_command, without_key
from cnnbench.runs.run_dir import RunDir, numbered_paths
from cnnbench.runs.schema import Result, SweepRecord
from cnnbench.runs.sweep_dir import MERGING, Job, Summary, SweepDir
from cnnbench.sweep.extend import differing_keys
from cnnbench.text import Values, canonical_json, file_size, first_few, flatten, printable, to_override

EQUAL_FACTS = ("best_epoch", "n", "split_hash", "label_hash", "params", "macs")  # of two results of one run
COMPLETE = ("config", "status_file", "metrics", "predictions", "best", "result")  # files of every finished run
# files that end with a table of contents, which a cut one lacks
ARCHIVES = ("best", "best_ema", "last", "previous", "predictions", "mistakes")


@dataclass(frozen=True)
class MergePlan:
    """What a merge will do.

    Attributes:
        into: the sweep that the runs are copied to.
        record: the content of its sweep.json afterwards, without its jobs.
        jobs: those of all copies, each in its directory in `into`.
        copies: the runs to copy, each with its directory afterwards.
        repeated: number of runs that are finished in several copies, with equal results.
        notes: warnings for the user.
    """

    into: SweepDir
    record: SweepRecord
    jobs: list[Job]
    copies: list[tuple[RunDir, RunDir]]
    repeated: int
    notes: list[str]


def plan_merge(into: SweepDir, sources: Sequence[SweepDir]) -> MergePlan:
    """Compares copies of a sweep, and chooses each job's run: a finished one, else the one that got furthest. Writes nothing.

    Args:
        into: the sweep that the runs will be copied to; of two equal runs, its own stays.
        sources: the others.

    Raises:
        ConfigError: a sweep or one of its runs is live, is half copied, or is named twice.
        CnnbenchError: they are different sweeps, or have different results of a job.
    """
    sweeps = [into, *sources]
    records = [require_idle(sweep) for sweep in sweeps]
    chosen: dict[str, Job] = {}  # by setting
    repeated = set()
    for sweep, record in zip(sweeps, records, strict=True):
        require_same_sweep(into, records[0], sweep, record)
        for job in sweep.jobs(record):
            key = canonical_json(job.setting)
            before = chosen.setdefault(key, job)
            if before is job:
                continue
            require_same_identity(before, job, record.keys)
            if _is_finished(before.directory) and _is_finished(job.directory):
                require_equal_results(before, job)
                repeated.add(key)
            elif _progress(job) > _progress(before):
                chosen[key] = job
    listed = {canonical_json(job.setting): job for job in into.jobs(records[0])}
    taken = {job.name for job in listed.values()}
    jobs, copies = [], []
    for key, job in chosen.items():
        place = listed[key].directory if key in listed else _free_directory(into, job.name, taken)
        taken.add(place.path.name)
        jobs.append(replace(job, directory=place))
        if job.directory.path.parent != into.path and _has_begun(job.directory):
            require_complete(job)
            require_replaceable(place)
            copies.append((job.directory, place))
    require_room(into, copies)
    command = max(records, key=lambda record: len(record.jobs)).command  # others may ask for a part of the jobs only
    if checked := checked_command(command or ""):
        command = without_key(checked, "sweep.part")
    record = records[0].model_copy(update={"command": command, "part": None})
    return MergePlan(into, record, jobs, copies, len(repeated), list(code_notes(chosen.values())))


def apply_merge(plan: MergePlan, progress: Callable[[str], None]) -> None:
    """Copies the chosen runs, and rewrites sweep.json and summary.csv. After a kill, the same merge does what is left.

    Each run is copied to a hidden folder and renamed when it is complete; the jobs are listed before, as pending ones.

    Args:
        plan: of the merge.
        progress: called with a text before each run.

    Raises:
        ConfigError: a process has started to run the sweep.
        CnnbenchError: a file cannot be read or written.
    """
    into, scratch = plan.into, plan.into.path / MERGING
    with into.lock():
        try:
            shutil.rmtree(scratch, ignore_errors=True)  # of a merge that was killed
            into.write(plan.record, plan.jobs)
            for number, (source, place) in enumerate(plan.copies, 1):
                progress(f"copying {number} of {len(plan.copies)} runs")
                if _is_finished(place):  # since the comparison
                    continue
                new = scratch / place.path.name
                copy_files(source.path, new)
                if place.path.exists():  # an unfinished run, which got less far
                    place.path.rename(scratch / f"{place.path.name}.replaced")
                new.rename(place.path)
                with open_append(into.log) as log:
                    log.write(printable(f"merged {place.path.name} from {source.path}") + "\n")
        except OSError as error:
            raise CnnbenchError(
                f"{error.filename or into.path}: {error.strerror}; the merge is not complete, type it again when this is solved"
            ) from error
        finally:
            shutil.rmtree(scratch, ignore_errors=True)
        summary = Summary(into, plan.jobs, plan.record.keys)
        summary.close()
    if summary.trouble:
        raise CnnbenchError(summary.trouble)


def copy_files(source: Path, target: Path) -> None:
    """Copies a directory without links and partly written files, and waits until the disk has stored it."""
    for folder, _, names in os.walk(source, onerror=_raise):  # does not follow links
        place = target / Path(folder).relative_to(source)
        place.mkdir(parents=True)
        for name in names:
            path = Path(folder, name)
            if path.is_file() and not path.is_symlink() and name != ".lock" and not TEMPORARY_NAME.fullmatch(name):
                shutil.copy2(path, place / name)
                with (place / name).open("rb") as file:
                    os.fsync(file.fileno())


def _raise(error: OSError) -> None:
    raise error


# ---- the sweeps --------------------------------------------------------------------------------------------------------------


def require_idle(sweep: SweepDir) -> SweepRecord:
    """Checks that no process runs a sweep or a job of it, and returns the content of its sweep.json.

    Raises:
        ConfigError: a process does.
    """
    record = sweep.read()
    assert record is not None  # the sweep was opened
    if launcher := sweep.launcher():
        raise ConfigError(f"{sweep.path}: this sweep is live ({launcher}); merge when it has ended")
    for job in sweep.jobs(record):
        if owner := job.directory.owner():
            raise ConfigError(f"{job.directory.path}: this run is live ({owner}); merge when it has ended")
    return record


def require_same_sweep(one: SweepDir, record: SweepRecord, other: SweepDir, others: SweepRecord) -> None:
    """Checks that two sweeps vary the same keys and fix the others to the same values.

    Raises:
        CnnbenchError: names the differences.
    """
    differences = [f"{key} varies only in {one.path}" for key in record.keys if key not in others.keys]
    differences += [f"{key} varies only in {other.path}" for key in others.keys if key not in record.keys]
    if differences := differences or _differences(record.fixed, others.fixed):
        raise CnnbenchError(f"{other.path}: is another sweep than {one.path} ({first_few(differences)})")


def require_same_identity(one: Job, other: Job, keys: Sequence[str]) -> None:
    """Checks that the same setting has the same config in two sweeps.

    Raises:
        CnnbenchError: names the differences, as of the data files or of the devices.
    """
    ours, theirs = one.directory.readable_config(), other.directory.readable_config()
    if {one.identity, *_identities(ours)} & {other.identity, *_identities(theirs)}:
        return
    # a job that has not begun has no config: others of its sweep share all but the keys that vary
    ours, theirs = (config or _any_config(job) for config, job in ((ours, one), (theirs, other)))
    below = tuple(f"{key}." for key in keys)
    values = [
        {
            key: value
            for key, value in flatten(config.identity_values()).items()
            if key not in keys and not key.startswith(below)
        }
        for config in (ours, theirs)
        if config
    ]
    differences = _differences(*values) if len(values) == 2 else []
    what = first_few(differences) or f"identity {one.identity[:8]}, there {other.identity[:8]}"
    raise CnnbenchError(f"{other.directory.path}: is another run than {one.directory.path} ({what})")


def require_equal_results(one: Job, other: Job) -> None:
    """Checks that a job that is finished in two sweeps has the same results, to the last bit.

    Raises:
        ConfigError: one of them is half copied.
        CnnbenchError: names the differences.
    """
    require_complete(one)
    require_complete(other)
    ours, theirs = one.result(), other.result()
    assert ours is not None  # both are finished
    assert theirs is not None
    differences = _differences(_compared(ours), _compared(theirs))
    if differences:
        differences += _differences({"code version": ours.code}, {"code version": theirs.code})
        raise CnnbenchError(
            f"{other.directory.path}: has another result than {one.directory.path} ({first_few(differences)}); "
            "delete the directory that is not to count, and merge again"
        )


def require_complete(job: Job) -> None:
    """Checks that a run's directory was copied completely.

    Raises:
        ConfigError: a file is absent, cut off or damaged.
    """
    run = job.directory
    config, finished = run.readable_config(), run.result.is_file()
    needed = [*COMPLETE, *["best_ema"] * bool(config and config.ema)] if finished else []
    absent = [path for name in needed if not (path := getattr(run, name)).is_file()]
    present = [path for name in {*COMPLETE, *ARCHIVES} if (path := getattr(run, name)).is_file()]
    if links := [path for path in sorted(present) if path.is_symlink() or path.parent.is_symlink()]:
        raise ConfigError(
            f"{links[0]}: is a link, which is not copied; make a copy of the sweep with cp -rL, and merge that"
        )
    cut = [path for name in ARCHIVES if (path := getattr(run, name)).is_file() and not zipfile.is_zipfile(path)]
    if finished and not _is_finished(run):
        cut.append(run.result)
    elif finished and not absent:
        cut += [run.metrics] * (not _has_whole_metrics(run, config)) + [run.status_file] * (run.status().pid is None)
    if config is None:
        (cut if run.config.is_file() else absent).append(run.config)
    if absent or cut:
        file, what = (absent[0], "is absent") if absent else (cut[0], "is cut off or damaged")
        raise ConfigError(f"{run.path}: is half copied, {file.relative_to(run.path)} {what}; copy this run again")
    if config and job.identity not in config.identities():
        raise ConfigError(f"{run.path}: its config.yaml is of another run than sweep.json lists; copy this run again")


def require_replaceable(place: RunDir) -> None:
    """Checks that a run may be copied to a directory: there is nothing, or a run of the sweep.

    Raises:
        ConfigError: a file or folder of another kind is there.
    """
    if (place.path.exists() or place.path.is_symlink()) and not (
        place.config.is_file() and not place.path.is_symlink()
    ):
        raise ConfigError(
            f"{place.path}: holds no run, and a run is to be copied there; move it elsewhere, and merge again"
        )


def require_room(into: SweepDir, copies: Sequence[tuple[RunDir, RunDir]]) -> None:
    """Checks that the folder can be written to, and that its disk has room for the copies.

    Raises:
        ConfigError: it cannot, or has not.
    """
    if not os.access(into.path, os.W_OK):
        raise ConfigError(f"{into.path}: cannot be written to; copy it to another folder, and merge into that")
    needed = 0
    for path in (path for run, _ in copies for path in run.path.rglob("*")):
        with suppress(OSError):
            needed += path.lstat().st_size
    free = shutil.disk_usage(into.path).free
    if needed > free:
        raise ConfigError(
            f"{into.path}: {file_size(needed)} are to be copied, {file_size(free)} are free; free some space"
        )


def code_notes(jobs: Iterable[Job]) -> Iterator[str]:
    """Names the code versions of the finished runs, if there are several."""
    versions = Counter(result.code or "unknown" for job in jobs if (result := job.result()))
    if len(versions) > 1:
        made = ", ".join(f"{count} by {version}" for version, count in versions.most_common())
        yield (
            f"the finished runs were made by {len(versions)} versions of the code: {made}; the report says so, and sweep.stale=rerun "
            "runs those again that the installed version did not make"
        )


# ---- runs --------------------------------------------------------------------------------------------------------------------


def _is_finished(run: RunDir) -> bool:
    """Whether a directory holds a result that can be read."""
    return Job(run, "", {}).result() is not None


def _has_begun(run: RunDir) -> bool:
    """Whether a directory holds more than the config of a run."""
    return run.result.exists() or run.status_file.exists() or run.last.exists()


def _progress(job: Job) -> tuple[bool, bool, int, bool]:
    """How far a run got: is it finished, can it resume, how many epochs are complete, has it begun."""
    run = job.directory
    return _is_finished(run), run.last.is_file() or run.previous.is_file(), len(_epochs(run)), _has_begun(run)


def _epochs(run: RunDir) -> list[dict[str, str | None]]:
    """The rows of metrics.csv; empty if the file is absent or cannot be read. None stands for a field that is absent."""
    with suppress(OSError, ValueError, csv.Error):
        return list(csv.DictReader(StringIO(read_text(run.metrics))))
    return []


def _has_whole_metrics(run: RunDir, config: Config | None) -> bool:
    """Whether metrics.csv of a finished run has all its rows, as far as the config states their number."""
    rows = _epochs(run)
    if not rows or any(None in row.values() for row in rows) or not read_bytes(run.metrics).endswith(b"\n"):
        return False
    if config is None or config.early_stopping or config.trainer.max_steps:
        return True
    return len(rows) == config.epochs


def _free_directory(into: SweepDir, name: str, taken: set[str]) -> RunDir:
    """A directory in a sweep that no job has: of this name, or `<name>-2`, `<name>-3`, ..."""
    return RunDir(
        next(path for path in numbered_paths(into.path, name) if path.name not in taken and not path.exists())
    )


def _identities(config: Config | None) -> tuple[str, ...]:
    return config.identities() if config else ()


def _any_config(job: Job) -> Config | None:
    """The config of any run in the folder of a job's directory."""
    folders = sorted(job.directory.path.parent.glob("*/config.yaml"))
    return next((config for path in folders if (config := RunDir(path.parent).readable_config())), None)


def _compared(result: Result) -> Values:
    """What must be equal in two results of one run: metrics, and facts of its data and net."""
    return {**result.metrics, **{name: getattr(result, name) for name in EQUAL_FACTS}}


def _differences(ours: Mapping[str, object], theirs: Mapping[str, object]) -> list[str]:
    """The keys that differ, with both values: `epochs: 2, there 3`; of a group with another class, only the class."""
    keys = differing_keys(ours, theirs)
    groups = {key.removesuffix("_target_") for key in keys if key.endswith("._target_")}

    def shown(values: Mapping[str, object], key: str) -> str:
        return to_override(values[key]) if key in values else "not set"

    return [
        f"{key}: {shown(ours, key)}, there {shown(theirs, key)}"
        for key in keys
        if key.endswith("._target_") or not key.startswith(tuple(groups))
    ]
