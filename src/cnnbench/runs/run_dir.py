"""The directory of a run: one process owns it and writes its files atomically, any process can read its state.

runs/<name>/<job>/
  config.yaml      resolved and frozen: exactly what ran (training/run; of a sweep's job sweep/launcher)
  status.json      pending | running | done | failed | diverged | interrupted, and the owner process (runs/status_and_log)
  log.txt          messages; of the other ranks log_rank1.txt, ... (runs/status_and_log)
  metrics.csv      one row per epoch (training/callbacks/history)
  curves.png       (training/callbacks/curves)
  checkpoints/     best.ckpt last.ckpt previous.ckpt, with ema=... best_ema.ckpt (training/callbacks/checkpoints)
  events.out.tfevents.*  (training/callbacks/tensorboard)
  predictions.npz  (training/result)
  mistakes.npz     (training/misclassified)
  result.json      present only when done; written last (training/run)
  test_reads.txt   present once `evaluate` has scored the test split again (training/evaluate)
  .lock            locked by the process that runs it (file_lock)

In brackets: the module that writes the file.
Loads no torch.
"""

from __future__ import annotations

import itertools
import re
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cnnbench.errors import ConfigError
from cnnbench.file_lock import Locked, exclusive_lock, is_locked
from cnnbench.files import TEMPORARY_NAME, overwrite_in_place, read_bytes, write_atomic
from cnnbench.runs.commands import resume_command
from cnnbench.runs.links import require_no_outside_links
from cnnbench.runs.liveness import Owner, find_owner, is_this_process, this_process
from cnnbench.runs.schema import ProcessRecord, Result, State, Status

if TYPE_CHECKING:
    from cnnbench.config.schema import Config

HASHED = re.compile(r"_([0-9a-f]{8})(-\d+)?$")  # the end of a run directory's name
LIVE = "this run is live ({}); wait for it, or type resume=never for a second one"


class FileIn:
    """A file of a run or sweep: `directory.config` returns the full path, `directory.path / name`."""

    def __init__(self, name: str) -> None:
        self.name = name

    def __get__(self, directory: Any, owner: type) -> Path:
        return directory.path / self.name


@dataclass(frozen=True)
class RunDir:
    """The files of one run."""

    path: Path

    config = FileIn("config.yaml")  # resolved and frozen
    status_file = FileIn("status.json")  # `schema.Status`
    lock_file = FileIn(".lock")  # locked by the process that runs it
    result = FileIn("result.json")  # `schema.Result`, when the run is done
    log = FileIn("log.txt")  # messages, warnings and tracebacks
    metrics = FileIn("metrics.csv")  # one row per epoch
    curves = FileIn("curves.png")  # loss and accuracy over epochs
    predictions = FileIn("predictions.npz")  # test logits (N, num_classes) and targets (N,)
    mistakes = FileIn("mistakes.npz")  # indices and pixels of misclassified test images
    test_reads = FileIn("test_reads.txt")  # one line for each evaluation on the test split after the run
    best = FileIn("checkpoints/best.ckpt")  # the weights that were best on validation, and facts to rebuild the net
    best_ema = FileIn("checkpoints/best_ema.ckpt")  # the averaged weights that were best on validation, with ema=...
    last = FileIn("checkpoints/last.ckpt")  # from which the run resumes
    previous = FileIn("checkpoints/previous.ckpt")  # the one before, in case `last` is damaged

    @classmethod
    def create(cls, folder: Path, job: str) -> RunDir:
        """Makes `folder/job`, or if that exists the first free one of `job-2`, `job-3`, ...

        Raises:
            ConfigError: the folder cannot be written to.
        """
        try:
            folder.mkdir(parents=True, exist_ok=True)
            for path in numbered_paths(folder, job):
                with suppress(FileExistsError):
                    path.mkdir()
                    break
            (path / "checkpoints").mkdir()
        except FileExistsError:
            raise ConfigError(f"runs_dir: {folder} is not a folder; choose another with runs_dir=...") from None
        except OSError as error:
            raise ConfigError(
                f"runs_dir: cannot write to {folder} ({error.strerror}); choose another with runs_dir=..."
            ) from error
        return cls(path)

    @classmethod
    def open(cls, path: Path) -> RunDir:
        """An existing run directory.

        Raises:
            ConfigError: the path holds no config.yaml; the message names a run directory below it.
        """
        if not (path / "config.yaml").is_file():
            inside = sorted(path.glob("*/config.yaml")) + sorted(path.glob("*/*/config.yaml"))
            near = f"; did you mean {inside[-1].parent}?" if inside else ""
            raise ConfigError(f"{path}: not a run directory, it holds no config.yaml{near}")
        return cls(path)

    def write_status(self, state: State, reason: str | None = None, **progress: Any) -> None:
        """Writes the state, this process as the run's owner, and the progress.

        On a full disk the last state overwrites the old one in place.

        Args:
            state: of the run.
            reason: why it failed or was interrupted.
            progress: other fields of `Status`.
        """
        status = Status(state=state, reason=reason, **this_process().model_dump(), **progress)
        self._write(status, lasting=state != "running" or not progress)

    def write_outcome(self, state: State, reason: str | None = None) -> None:
        """Writes the state of a run that another process has run, or was to run; the status keeps that process as the owner.

        Changes nothing while a living process other than this one runs it.
        """
        with suppress(ConfigError), self.lock():
            require_no_outside_links(self.path)
            status = self.status()
            others = status.state == "running" and not is_this_process(status)
            if others and find_owner(status, self.status_file).living:  # on a file system without locks
                return
            process = ProcessRecord.model_validate(status.model_dump(exclude_unset=True))
            self._write(Status(state=state, reason=reason, **process.model_dump(exclude_unset=True)))

    def _write(self, status: Status, lasting: bool = True) -> None:
        """Writes status.json; on a full disk the last state overwrites the old one in place."""
        text = status.to_json()
        try:
            write_atomic(self.status_file, text, lasting)
        except OSError:
            if status.state == "running":
                raise
            overwrite_in_place(self.status_file, text.encode())

    def status(self) -> Status:
        """The content of status.json; `pending` where it is absent or cannot be read: the run has not started."""
        try:
            return Status.model_validate_json(read_bytes(self.status_file))
        except (OSError, ValueError):
            return Status(state="pending")

    def inspect(self) -> tuple[Status, Owner]:
        """The status, corrected for a kill, and the process that runs it, which is alive for a running one only.

        The state is `done` where there is a result, and `interrupted` where the owner is dead.
        """
        status, owner = self.status(), Owner(None)
        if status.state == "running":
            owner = find_owner(status, self.status_file, self.lock_file)
        if self.result.is_file():
            return status.model_copy(update={"state": "done"}), owner
        # status.json is damaged, or lags behind
        if status.state in ("pending", "interrupted") and is_locked(self.lock_file):
            running = status.model_copy(update={"state": "running", "reason": None})
            return running, Owner("another process, which holds its lock")
        if status.state == "done" or (status.state == "running" and owner.living is None):
            reason = status.reason or owner.doubt or "its process is gone"
            return status.model_copy(update={"state": "interrupted", "reason": reason}), owner
        return status, owner

    def effective_status(self) -> Status:
        """The status, corrected for a kill: `done` where there is a result, `interrupted` where the owner is dead."""
        return self.inspect()[0]

    def owner(self) -> str | None:
        """`'pid 12 on host'` while a living process runs this, else None."""
        return self.inspect()[1].living

    def readable_config(self) -> Config | None:
        """The frozen config; None where config.yaml is absent, damaged or not the config of a run."""
        from cnnbench.config.schema import Config

        with suppress(ConfigError):
            return Config.load(self.config)
        return None

    def load_result(self) -> Result:
        """The result.

        Raises:
            ConfigError: result.json is absent, damaged, or cannot be read.
        """
        try:
            with suppress(FileNotFoundError, ValueError):
                result, wrong = Result.parse(read_bytes(self.result))
                if result.n and not wrong and not result.impossible_metrics():
                    return result
        except OSError as error:  # the file may be intact
            raise ConfigError(f"{self.result}: cannot be read ({error.strerror or error})") from error
        raise ConfigError(
            f"{self.result}: damaged, expected the result of a run; remove it, and {resume_command(self.path)} tests the net again"
        )

    @contextmanager
    def lock(self) -> Iterator[None]:
        """Locks the run for this process until the end of the context, or of the process.

        On a file system without locks, status.json alone shows the owner.

        Raises:
            ConfigError: another process holds the lock.
        """
        with ExitStack() as held:
            try:
                held.enter_context(exclusive_lock(self.lock_file))
            except Locked:
                reason = LIVE.format(self.owner() or "another process has just resumed it")
                raise ConfigError(f"{self.path}: {reason}") from None
            yield

    def require_no_owner(self) -> None:
        """Makes sure that no other process runs this, before the caller, which has locked it, takes it over.

        Raises:
            ConfigError: a living process runs it.
        """
        status = self.status()
        if status.state == "running" and (owner := find_owner(status, self.status_file, before_takeover=True).living):
            raise ConfigError(f"{self.path}: {LIVE.format(owner)}")

    def repair(self) -> None:
        """Removes partly written files, and sets the status of a run with a result to done: a kill may leave both.

        Raises:
            ConfigError: a link leads out of the directory.
        """
        require_no_outside_links(self.path)
        for folder in (self.path, self.last.parent):
            for path in folder.glob(".*.tmp"):
                if TEMPORARY_NAME.fullmatch(path.name):
                    path.unlink(missing_ok=True)
        if self.result.is_file() and self.status().state != "done":
            self.write_outcome("done")


def numbered_paths(folder: Path, name: str) -> Iterator[Path]:
    """Yields the paths that a run may have in a folder: `name`, then `name-2`, `name-3`, ..."""
    yield folder / name
    yield from (folder / f"{name}-{number}" for number in itertools.count(2))


def hashed_runs(folder: Path) -> dict[str, list[RunDir]]:
    """The run directories in a folder by the hash in their names, `<label>_<hash8>` and `<label>_<hash8>-2`.

    Leaves out renamed copies and directories without a config. The folder may be absent.
    """
    found = defaultdict[str, list[RunDir]](list)
    for path in sorted(folder.glob("*_*")):
        ending = HASHED.search(path.name)
        if ending and (path / "config.yaml").is_file():
            found[ending[1]].append(RunDir(path))
    return found


def runs_of_identity(runs: Mapping[str, list[RunDir]], identities: Sequence[str]) -> list[RunDir]:
    """The runs of a config, newest first.

    Args:
        runs: from `hashed_runs`.
        identities: the config's identity now and under earlier versions, which named directories by theirs.
    """
    named = [run for identity in identities for run in runs.get(identity[:8], [])]
    found = [run for run in named if (config := run.readable_config()) and config.identity() in identities]
    return sorted(found, key=lambda run: run.config.stat().st_mtime_ns, reverse=True)
