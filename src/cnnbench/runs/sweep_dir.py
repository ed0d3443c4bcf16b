"""The jobs of a sweep and how each of them stands: read from its directory, by any process, at any time; loads no torch.

runs/<name>/
  sweep.json     what was asked, and the jobs in their order, each with its directory
  launcher.json  which process starts them
  summary.csv    a row a job
  <job>/         a run
"""

from __future__ import annotations

import csv
import io
import json
import re
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from types import UnionType
from typing import Any, TypeVar

from filelock import FileLock, Timeout

from cnnbench.config.identity import fill_earlier
from cnnbench.config.shipped_parts import with_current_paths
from cnnbench.errors import ConfigError
from cnnbench.files import write_atomic
from cnnbench.metric_names import FINAL, FINAL_EMA
from cnnbench.runs.liveness import living, this_process
from cnnbench.runs.run_dir import RunDir
from cnnbench.text import canonical, flat, nested

T = TypeVar("T")
SCHEMA = 1
METRICS = FINAL + FINAL_EMA
ENDS = ("done", "failed", "diverged")
HASHED = re.compile(r"_([0-9a-f]{8})(-\d+)?$")  # how a run's directory ends


@dataclass(frozen=True)
class Job:
    """One job: its place on disk, what sets it apart, what is known of it before it runs.

    Attributes:
        directory: of the run.
        identity: of its frozen config.
        setting: the swept keys and their values.
        facts: `params macs image n steps epochs lr batch_size devices threads`.
    """

    directory: RunDir
    identity: str
    setting: dict[str, Any]
    facts: dict[str, Any] = field(default_factory=dict)

    @property
    def name(self) -> str:
        """Of its directory."""
        return self.directory.path.name

    @property
    def label(self) -> str:
        """The same without the hash."""
        return self.name.rpartition("_")[0]

    @property
    def directory_hash(self) -> str | None:
        """The hash in its directory's name; not the identity's where an earlier version of cnnbench made the directory."""
        found = HASHED.search(self.name)
        return found[1] if found else None

    @property
    def cell(self) -> dict[str, Any]:
        """The setting without its seed."""
        return {key: value for key, value in self.setting.items() if key != "seed"}

    def status(self) -> dict[str, Any]:
        """Its status, as its directory is found."""
        return self.directory.found()

    def result(self) -> dict[str, Any] | None:
        """Its result; None where there is none that can be read."""
        try:
            result = json.loads(self.directory.result.read_text(encoding="utf-8"))
        except (OSError, ValueError):
            return None
        return result if isinstance(result, dict) and isinstance(result.get("metrics"), dict) else None


def as_today(fixed: dict[str, Any]) -> dict[str, Any]:
    """The fixed keys of a sweep.json as this version of cnnbench writes them."""
    return flat(fill_earlier(with_current_paths(nested(fixed))))


def by_cell(items: Iterable[T], job_of: Callable[[T], Job]) -> list[list[T]]:
    """What is of jobs, those of a cell together."""
    cells: dict[str, list[T]] = {}
    for item in items:
        cells.setdefault(canonical(job_of(item).cell), []).append(item)
    return list(cells.values())


Shape = dict[str, type | UnionType]
RECORD: Shape = {
    "name": str, "question": str | None, "baseline": dict | None, "claims": list | None, "keys": list, "fixed": dict, "jobs": list,
    "slots": int | None, "command": str | None
}  # fmt: skip
JOB: Shape = {"directory": str, "identity": str, "setting": dict, "facts": dict}
CLAIM: Shape = {
    "says": str, "of": dict, "over": dict | None, "metric": str | None, "above": float | int | None, "below": float | int | None
}  # fmt: skip


def misshapen(record: dict[str, Any]) -> str | None:
    """The part of a sweep.json that is absent, or not of its kind; None where all are as `write` writes them."""

    def wrong(values: Any, shape: Shape) -> str | None:
        if not isinstance(values, dict):
            return "entry"
        return next((key for key, kind in shape.items() if not isinstance(values.get(key), kind)), None)

    if part := wrong(record, RECORD):
        return part
    if not all(isinstance(key, str) for key in record["keys"]):
        return "keys"
    listed = [("jobs", each, JOB) for each in record["jobs"]] + [
        ("claims", each, CLAIM) for each in record.get("claims") or []
    ]
    return next((f"{name} ({part})" for name, each, shape in listed if (part := wrong(each, shape))), None)


@dataclass(frozen=True)
class SweepDir:
    """The files of one sweep."""

    path: Path

    @property
    def record(self) -> Path:
        """What was asked."""
        return self.path / "sweep.json"

    @property
    def summary(self) -> Path:
        """A row a job."""
        return self.path / "summary.csv"

    @property
    def log(self) -> Path:
        """What became of the jobs, line by line."""
        return self.path / "sweep.log"

    @classmethod
    def open(cls, path: Path) -> SweepDir:
        """An existing sweep."""
        sweep = cls(path)
        if sweep.record.is_file():
            return sweep
        near = sorted(path.glob("*/sweep.json")) if path.is_dir() else []
        hint = (
            f"; did you mean {near[-1].parent}?" if near else "; a sweep is made by python -m cnnbench -m key=a,b ..."
        )
        raise ConfigError(f"{path}: not a sweep, it holds no sweep.json{hint}")

    def read(self) -> dict[str, Any]:
        """What `write` wrote; nothing where there is no sweep yet."""
        try:
            record = json.loads(self.record.read_text(encoding="utf-8"))
        except (FileNotFoundError, NotADirectoryError):
            return {}
        except (OSError, ValueError) as error:
            raise ConfigError(
                f"{self.record}: cannot be read ({error}); delete it, and type the sweep again"
            ) from error
        if not isinstance(record, dict) or record.get("schema") != SCHEMA:
            raise ConfigError(f"{self.record}: not the sweep.json of this version of cnnbench")
        if wrong := misshapen(record):
            raise ConfigError(f"{self.record}: its {wrong} cannot be understood; delete it, and type the sweep again")
        return {**with_current_paths(record), "fixed": as_today(record["fixed"])}

    def write(self, record: dict[str, Any], jobs: Iterable[Job]) -> None:
        """What was asked, and its jobs."""
        listed = [
            {"directory": job.name, "identity": job.identity, "setting": job.setting, "facts": job.facts}
            for job in jobs
        ]
        write_atomic(self.record, json.dumps({"schema": SCHEMA, **record, "jobs": listed}, indent=1) + "\n")

    def jobs(self) -> list[Job]:
        """The jobs, in their order."""
        return [
            Job(RunDir(self.path / job["directory"]), job["identity"], job["setting"], job["facts"])
            for job in self.read().get("jobs", [])
        ]

    def runs(self) -> dict[str, list[RunDir]]:
        """Every run's directory here, by the hash in its name; the oldest first."""
        found: dict[str, list[RunDir]] = {}
        for path in sorted(self.path.iterdir()) if self.path.is_dir() else []:
            ending = HASHED.search(path.name)
            if ending and (path / "config.yaml").is_file():
                found.setdefault(ending[1], []).append(RunDir(path))
        return found

    # ---- who starts jobs -------------------------------------------------------------------------------------------

    def launcher(self) -> str | None:
        """The process that starts its jobs now, else None."""
        try:
            return living(json.loads((self.path / "launcher.json").read_text(encoding="utf-8")))
        except (OSError, ValueError):
            return None

    def beat(self) -> None:
        """This process starts its jobs."""
        write_atomic(self.path / "launcher.json", json.dumps(this_process()) + "\n")

    @contextmanager
    def held(self) -> Iterator[None]:
        """No other process starts its jobs meanwhile.

        Raises:
            ConfigError: one does.
        """
        try:
            self.path.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise ConfigError(
                f"runs_dir: cannot write to {self.path} ({error.strerror}); choose another with runs_dir=..."
            ) from error
        lock = FileLock(self.path / ".launcher.lock")
        try:
            lock.acquire(timeout=0)
        except Timeout:
            raise self._live() from None
        try:
            if self.launcher():  # on a machine that does not see the lock
                raise self._live()
            self.beat()
            try:
                yield
            finally:
                (self.path / "launcher.json").unlink(missing_ok=True)
        finally:
            lock.release()

    def _live(self) -> ConfigError:
        who = self.launcher() or "another process"
        return ConfigError(f"{self.path}: this sweep is live ({who}); python -m cnnbench status {self.path} shows it")


class Summary:
    """summary.csv: a row a job, written anew when one has changed; where that takes long, not each time."""

    def __init__(self, sweep: SweepDir, jobs: list[Job], keys: Iterable[str]) -> None:
        self.path, self.keys = sweep.summary, tuple(keys)
        self._rows = {job.name: row(job, job.status(), self.keys) for job in jobs}
        self._next = 0.0
        self._late = True
        self.trouble = ""  # why it could not be written

    def update(self, job: Job, status: dict[str, Any]) -> None:
        """A job has another status."""
        self._rows[job.name] = row(job, status, self.keys)
        self._late = True
        if time.monotonic() >= self._next:
            self.write()

    def write(self) -> None:
        """All of it. Where that fails, as on a full disk, the sweep goes on: the jobs' own directories say the same."""
        begun = time.monotonic()
        text = as_csv(self._rows.values(), self.keys)
        try:
            write_atomic(self.path, text)
            self._late, self.trouble = False, ""
        except OSError as error:
            self.trouble = f"{self.path}: cannot be written ({error.strerror})"
        now = time.monotonic()
        self._next = now + 20 * (now - begun) if now - begun > 0.05 else now

    def close(self) -> None:
        """What was put off."""
        if self._late:
            self.write()


def as_csv(rows: Iterable[dict[str, Any]], keys: Iterable[str]) -> str:
    """summary.csv: a row a job; what a row lacks is empty."""
    text = io.StringIO()
    columns = ["job", "state", *keys, *METRICS, "best_epoch", "params", "macs", "fit_s", "samples_per_s", "reason"]
    table = csv.DictWriter(text, columns, lineterminator="\n", restval="", extrasaction="ignore")
    table.writeheader()
    table.writerows(rows)
    return text.getvalue()


def row(job: Job, status: dict[str, Any], keys: Iterable[str]) -> dict[str, Any]:
    """A job's row."""
    known: dict[str, Any] = {"job": job.name, "state": status["state"], "reason": status.get("reason") or ""}
    known |= {key: as_cell(job.setting[key]) for key in keys if key in job.setting}
    known |= {name: job.facts.get(name, "") for name in ("params", "macs")}
    result = job.result() if status["state"] == "done" else None
    if result:
        known |= {name: result["metrics"][name] for name in METRICS if name in result["metrics"]}
        known |= {"best_epoch": result.get("best_epoch"), "samples_per_s": result.get("samples_per_s")}
        known["fit_s"] = result.get("time", {}).get("fit_s")
    return known


def as_cell(value: Any) -> Any:
    """A setting's value as summary.csv has it."""
    return json.dumps(value) if isinstance(value, list | dict) or value is None else value
