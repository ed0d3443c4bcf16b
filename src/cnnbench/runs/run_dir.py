"""A run's directory: claimed by one process, its files written whole or not at all, its state readable by any other.

runs/<name>/<job>/
  config.yaml      resolved and frozen: exactly what ran
  status.json      pending | running | done | failed | diverged | interrupted, and who owns the run
  result.json      present only when done; written last
  log.txt  metrics.csv  curves.png  predictions.npz  mistakes.npz  events.out.tfevents.*
  test_reads.txt   once evaluate has scored the test split again
  checkpoints/     best.ckpt last.ckpt previous.ckpt, with ema=... best_ema.ckpt
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from cnnbench.errors import ConfigError
from cnnbench.files import write_atomic, write_over
from cnnbench.runs.commands import resume_command
from cnnbench.runs.liveness import living, this_process

LIVE = "this run is live ({}); wait for it, or type resume=never for a second one"
State = Literal["pending", "running", "done", "failed", "diverged", "interrupted"]


@dataclass(frozen=True)
class RunDir:
    """The files of one run."""

    path: Path

    @property
    def config(self) -> Path:
        """The frozen config."""
        return self.path / "config.yaml"

    @property
    def result(self) -> Path:
        """The result, once there is one."""
        return self.path / "result.json"

    @property
    def log(self) -> Path:
        """What the run said."""
        return self.path / "log.txt"

    @property
    def metrics(self) -> Path:
        """A row an epoch."""
        return self.path / "metrics.csv"

    @property
    def curves(self) -> Path:
        """Loss and accuracy over epochs."""
        return self.path / "curves.png"

    @property
    def predictions(self) -> Path:
        """Test logits and targets."""
        return self.path / "predictions.npz"

    @property
    def mistakes(self) -> Path:
        """Which test images the net got wrong, and what they look like."""
        return self.path / "mistakes.npz"

    @property
    def test_reads(self) -> Path:
        """A line for each time that the test split was scored after the run."""
        return self.path / "test_reads.txt"

    @property
    def best(self) -> Path:
        """The weights that were best on validation, and what a net is rebuilt from."""
        return self.path / "checkpoints" / "best.ckpt"

    @property
    def best_ema(self) -> Path:
        """The same of the averaged weights, where there are any."""
        return self.path / "checkpoints" / "best_ema.ckpt"

    @property
    def last(self) -> Path:
        """All that a run needs to go on."""
        return self.path / "checkpoints" / "last.ckpt"

    @property
    def previous(self) -> Path:
        """The `last.ckpt` before, should that one be damaged."""
        return self.path / "checkpoints" / "previous.ckpt"

    @classmethod
    def claim(cls, folder: Path, job: str) -> RunDir:
        """Makes `folder/job`, or the first of `job-2`, `job-3`, ... that no other process has."""
        number = 1
        while True:
            path = folder / (job if number == 1 else f"{job}-{number}")
            try:
                folder.mkdir(parents=True, exist_ok=True)
                path.mkdir()
                (path / "checkpoints").mkdir()
                return cls(path)
            except FileExistsError:
                if not folder.is_dir():
                    raise ConfigError(f"runs_dir: {folder} is not a folder; choose another with runs_dir=...") from None
                number += 1
            except OSError as error:
                raise ConfigError(
                    f"runs_dir: cannot write to {folder} ({error.strerror}); choose another with runs_dir=..."
                ) from error

    @classmethod
    def open(cls, path: Path) -> RunDir:
        """An existing run."""
        if not (path / "config.yaml").is_file():
            inside = sorted(path.glob("*/config.yaml")) + sorted(path.glob("*/*/config.yaml")) if path.is_dir() else []
            near = f"; did you mean {inside[-1].parent}?" if inside else ""
            raise ConfigError(f"{path}: not a run directory, it holds no config.yaml{near}")
        return cls(path)

    def write_status(self, state: State, reason: str | None = None, **progress: Any) -> None:
        """Who owns the run, since when, and how it stands; how it ended also where there is no room for a second file."""
        path, status = self.path / "status.json", {"state": state, "reason": reason, **this_process(), **progress}
        text = json.dumps(status, indent=2) + "\n"
        try:
            write_atomic(path, text, lasting=state != "running" or not progress)
        except OSError:
            if state == "running":
                raise
            write_over(path, text.encode())

    def status(self) -> dict[str, Any]:
        """What `write_status` wrote; a directory without it was claimed and never begun: `pending`."""
        try:
            status = json.loads((self.path / "status.json").read_text(encoding="utf-8"))
        except (OSError, ValueError):
            status = None
        return status if isinstance(status, dict) and "state" in status else {"state": "pending"}

    def found(self) -> dict[str, Any]:
        """The status, whatever a kill left of it: `done` is what has a result, `interrupted` what runs without a living owner."""
        status = self.status()
        if self.result.is_file():
            return {**status, "state": "done"}
        if status["state"] == "done" or (status["state"] == "running" and living(status) is None):
            return {**status, "state": "interrupted", "reason": status.get("reason") or "its process is gone"}
        return status

    def outcome(self) -> dict[str, Any]:
        """The result.

        Raises:
            ConfigError: the file holds none.
        """
        try:
            result = json.loads(self.result.read_text(encoding="utf-8"))
        except (OSError, ValueError):
            result = None
        if isinstance(result, dict) and {"metrics", "n", "status"} <= result.keys():
            return result
        raise ConfigError(
            f"{self.result}: damaged, expected the result of a run; remove it, and {resume_command(self.path)} tests anew"
        )

    def owner(self) -> str | None:
        """`'pid 12 on host'` while a living process runs this, else None."""
        status = self.status()
        return living(status) if status["state"] == "running" else None

    @contextmanager
    def taken(self) -> Iterator[None]:
        """This process alone goes on with the run while the context lasts; a kill ends it as well.

        Where the file system has no locks, the status alone says whose the run is.

        Raises:
            ConfigError: another process has it.
        """
        from filelock import FileLock, Timeout

        lock = FileLock(self.path / ".lock")
        try:
            lock.acquire(timeout=0)
        except Timeout:
            owner = self.owner() or "another process has just gone on with it"
            raise ConfigError(f"{self.path}: {LIVE.format(owner)}") from None
        except (OSError, NotImplementedError):
            yield
            return
        try:
            yield
        finally:
            with suppress(OSError):
                Path(lock.lock_file).unlink()
            lock.release()

    def tidy(self) -> None:
        """Puts right what a kill left: files half written; a result whose run does not say that it is done."""
        for path in self.path.rglob(".*.tmp"):
            path.unlink(missing_ok=True)
        if self.result.is_file() and self.status()["state"] != "done":
            self.write_status("done")


def runs_of(folder: Path, identities: Sequence[str]) -> Iterator[RunDir]:
    """The runs of a config in `runs/<name>`, newest first: `<label>_<hash8>` or `<label>_<hash8>-2`, no copies beside them.

    Args:
        folder: `runs/<name>`.
        identities: the config's, and the hash that earlier versions gave it: their directories are named after that.
    """
    from cnnbench.config.schema import Config

    hashes = "|".join(identity[:8] for identity in identities)
    name = re.compile(rf".+_({hashes})(-[0-9]+)?")
    found = [path for path in folder.glob("*") if name.fullmatch(path.name)]
    found = [path for path in found if (path / "config.yaml").is_file()]
    for path in sorted(found, key=lambda path: (path / "config.yaml").stat().st_mtime_ns, reverse=True):
        with suppress(ConfigError):
            if Config.load(path / "config.yaml").identity() in identities:
                yield RunDir(path)
