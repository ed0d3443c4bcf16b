"""The directory of a sweep: its settings, its jobs and their states, which any process can read. Loads no torch.

runs/<name>/
  sweep.json     the settings of the sweep, and its jobs with their directories
  launcher.json  the process that starts the jobs, while it does; it locks .launcher.lock
  summary.csv    one row per job
  <job>/         one run
"""

from __future__ import annotations

import json
import shlex
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

from pydantic import ValidationError

from cnnbench.errors import PROGRAM, ConfigError
from cnnbench.file_lock import Locked, exclusive_lock
from cnnbench.files import read_bytes, write_atomic
from cnnbench.metric_names import FINAL, FINAL_EMA
from cnnbench.runs.links import require_no_outside_links
from cnnbench.runs.liveness import Owner, find_owner, is_this_process, this_process, write_heartbeat
from cnnbench.runs.run_dir import HASHED, FileIn, RunDir
from cnnbench.runs.schema import (
    JobRecord,
    ProcessRecord,
    Result,
    Status,
    SweepRecord,
    problem_of,
    with_current_keys,
    wrong_field,
)
from cnnbench.text import Values, canonical_json, csv_table

T = TypeVar("T")
METRICS = FINAL + FINAL_EMA
ENDS = ("done", "failed", "diverged")
MERGING = ".merging"  # folder in a sweep for runs that are being copied to it


@dataclass(frozen=True)
class Job:
    """A job of a sweep.

    Attributes:
        directory: of its run.
        identity: of its frozen config.
        setting: the swept keys and their values.
        facts: `params macs image n steps epochs lr batch_size devices threads`.
    """

    directory: RunDir
    identity: str
    setting: Values
    facts: Values = field(default_factory=dict)

    @property
    def name(self) -> str:
        """The name of its directory."""
        return self.directory.path.name

    @property
    def label(self) -> str:
        """The name without the hash."""
        return self.name.rpartition("_")[0]

    @property
    def directory_hash(self) -> str | None:
        """The hash in the directory's name; differs from the identity if an earlier version of cnnbench named it."""
        found = HASHED.search(self.name)
        return found[1] if found else None

    @property
    def cell(self) -> Values:
        """The setting without its seed."""
        return {key: value for key, value in self.setting.items() if key != "seed"}

    def status(self) -> Status:
        """The effective status of its run."""
        return self.directory.effective_status()

    def result(self) -> Result | None:
        """The result of its run; None where it is absent or cannot be read."""
        try:
            return Result.parse(read_bytes(self.directory.result))[0]
        except (OSError, ValueError):
            return None


def group_by_cell(items: Iterable[T], job_of: Callable[[T], Job]) -> list[list[T]]:
    """Groups items by the cell of their jobs; cells and items keep their order.

    Args:
        items: jobs, or items that belong to one job each.
        job_of: returns the job of an item.
    """
    cells: dict[str, list[T]] = {}
    for item in items:
        cells.setdefault(canonical_json(job_of(item).cell), []).append(item)
    return list(cells.values())


@dataclass(frozen=True)
class SweepDir:
    """The files of one sweep."""

    path: Path

    record = FileIn("sweep.json")  # `schema.SweepRecord`
    summary = FileIn("summary.csv")  # one row per job
    log = FileIn("sweep.log")  # one line for each job that has started or ended
    owner = FileIn("launcher.json")  # `schema.ProcessRecord`, while a process starts jobs
    lock_file = FileIn(".launcher.lock")  # locked by that process

    @classmethod
    def open(cls, path: Path) -> SweepDir:
        """An existing sweep.

        Raises:
            ConfigError: the path holds no sweep.json; the message names a sweep below it.
        """
        sweep = cls(path)
        if sweep.record.is_file():
            return sweep
        near = sorted(path.glob("*/sweep.json"))
        hint = f"; did you mean {near[-1].parent}?" if near else f"; a sweep is made by {PROGRAM} -m key=a,b ..."
        raise ConfigError(f"{path}: not a sweep, it holds no sweep.json{hint}")

    def read(self) -> SweepRecord | None:
        """The content of sweep.json; None where there is no sweep yet.

        Raises:
            ConfigError: the file cannot be read, is of another version, or a field is absent or of a wrong type.
        """
        try:
            record = SweepRecord.model_validate_json(read_bytes(self.record))
            return record.model_copy(update={"fixed": with_current_keys(record.fixed)})
        except (FileNotFoundError, NotADirectoryError):
            return None
        except OSError as error:  # the file may be intact
            raise ConfigError(f"{self.record}: {problem_of(error)}") from error
        except ValidationError as error:
            if wrong_field(error) == "schema":
                raise ConfigError(f"{self.record}: not the sweep.json of this version of cnnbench") from error
            raise ConfigError(f"{self.record}: {problem_of(error)}; delete it, and type the sweep again") from error

    def write(self, record: SweepRecord, jobs: Iterable[Job]) -> None:
        """Writes sweep.json: the record with these jobs."""
        listed = [
            JobRecord(directory=job.name, identity=job.identity, setting=job.setting, facts=job.facts) for job in jobs
        ]
        write_atomic(self.record, record.model_copy(update={"jobs": listed}).to_json(indent=1))

    def jobs(self, record: SweepRecord | None = None) -> list[Job]:
        """The jobs of a record, or else of sweep.json, in their order."""
        record = record or self.read()
        return [
            Job(RunDir(self.path / job.directory), job.identity, job.setting, job.facts)
            for job in (record.jobs if record else [])
        ]

    # ---- the process that starts the jobs --------------------------------------------------------------------------

    def find_launcher(self) -> Owner:
        """The process that starts the jobs: living or not."""
        return find_owner(self._recorded() or ProcessRecord(), self.owner, self.lock_file)

    def launcher(self) -> str | None:
        """`'pid 12 on host'` of the living process that starts the jobs, else None."""
        return self.find_launcher().living

    def _recorded(self) -> ProcessRecord | None:
        try:
            return ProcessRecord.model_validate_json(read_bytes(self.owner))
        except (OSError, ValueError):
            return None

    def write_launcher(self) -> None:
        """Records this process, with a heartbeat, as the one that starts the jobs."""
        write_atomic(self.owner, this_process().to_json(indent=None))

    def renew_launcher(self) -> None:
        """Writes the next heartbeat, unless another process took this one for dead and starts the jobs now."""
        recorded = self._recorded()
        if not recorded or is_this_process(recorded) or not find_owner(recorded, self.owner).living:
            write_heartbeat(self.owner, self.write_launcher)

    @contextmanager
    def lock(self, advice: str = "") -> Iterator[None]:
        """Locks the sweep for this process, which alone starts jobs until the end of the context.

        On a file system without locks, launcher.json alone shows the owner.

        Args:
            advice: what to do while another process starts the jobs, for the message.

        Raises:
            ConfigError: another process starts the jobs, the folder cannot be written to, or a link leads out of it.
        """
        require_no_outside_links(self.path)
        with ExitStack() as held:
            try:
                self.path.mkdir(parents=True, exist_ok=True)
                held.enter_context(exclusive_lock(self.lock_file))
                before = self._recorded() or ProcessRecord()
                if owner := find_owner(before, self.owner, before_takeover=True).living:
                    raise self._live_error(owner, advice)
                self.write_launcher()
            except Locked:
                raise self._live_error(self.launcher(), advice) from None
            except OSError as error:
                raise ConfigError(
                    f"runs_dir: cannot write to {self.path} ({error.strerror}); choose another with runs_dir=..."
                ) from error
            try:
                yield
            finally:
                if (now := self._recorded()) and is_this_process(now):
                    self.owner.unlink(missing_ok=True)

    def _live_error(self, owner: str | None, advice: str) -> ConfigError:
        return ConfigError(
            f"{self.path}: this sweep is live ({owner or 'another process'}); "
            f"{PROGRAM} status {shlex.quote(str(self.path))} shows it{advice}"
        )


class Summary:
    """summary.csv: rewritten when a job has changed; less often where writing it takes long.

    Attributes:
        trouble: why the last write failed; an empty string if it succeeded.
    """

    def __init__(self, sweep: SweepDir, jobs: list[Job], keys: Iterable[str]) -> None:
        self.path, self.keys = sweep.summary, tuple(keys)
        self._rows = {job.name: summary_row(job, job.status(), self.keys) for job in jobs}
        self._next = 0.0
        self._changed = True
        self.trouble = ""

    def update(self, job: Job, status: Status) -> None:
        """Replaces the row of a job that has a new status."""
        self._rows[job.name] = summary_row(job, status, self.keys)
        self._changed = True
        if time.monotonic() >= self._next:
            self.write()

    def write(self) -> None:
        """Writes the table. A failure, as on a full disk, is kept in `trouble`: the run directories have the same numbers."""
        began = time.monotonic()
        text = summary_csv(self._rows.values(), self.keys)
        try:
            write_atomic(self.path, text)
            self._changed, self.trouble = False, ""
        except OSError as error:
            self.trouble = f"{self.path}: cannot be written ({error.strerror})"
        now = time.monotonic()
        self._next = now + 20 * (now - began) if now - began > 0.05 else now

    def close(self) -> None:
        """Writes the table if a row has changed since the last write."""
        if self._changed:
            self.write()


def summary_csv(rows: Iterable[Values], keys: Iterable[str]) -> str:
    """The text of summary.csv: one row per job; a missing value is an empty field."""
    columns = ["job", "state", *keys, *METRICS, "best_epoch", "params", "macs", "fit_s", "samples_per_s", "reason"]
    return csv_table(columns, rows)


def summary_row(job: Job, status: Status, keys: Iterable[str]) -> Values:
    """The row of a job, by column."""
    known: Values = {"job": job.name, "state": status.state, "reason": status.reason or ""}
    known |= {key: csv_value(job.setting[key]) for key in keys if key in job.setting}
    known |= {name: job.facts.get(name, "") for name in ("params", "macs")}
    if status.state == "done" and (result := job.result()):
        known |= {name: value for name in METRICS if (value := result.metric(name)) is not None}
        known |= {"best_epoch": result.best_epoch, "samples_per_s": result.samples_per_s, "fit_s": result.fit_s}
    return known


def csv_value(value: Any) -> Any:
    """A value of a setting as summary.csv holds it: lists, dicts and None as JSON."""
    return json.dumps(value) if isinstance(value, list | dict) or value is None else value
