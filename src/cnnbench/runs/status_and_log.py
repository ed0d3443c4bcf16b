"""log.txt and status.json of a run: everything that is said while it is on, and how it ended."""

from __future__ import annotations

import errno
import logging
import signal
import threading
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.console import Console

from cnnbench.distributed.ranks import Ranks, by_anothers_end
from cnnbench.distributed.signals import Signals
from cnnbench.errors import CnnbenchError, Diverged, Interrupted, RunFailed, SaidElsewhere, say
from cnnbench.runs.commands import resume_command
from cnnbench.runs.environment import peak_mb
from cnnbench.runs.liveness import HEARTBEAT_S
from cnnbench.runs.run_dir import RunDir, State

log = logging.getLogger("cnnbench.run")
ANOTHER_ENDED = "another process of the run has ended"


@contextmanager
def recorded(directory: RunDir, ranks: Ranks) -> Iterator[tuple[Signals, Pulse]]:
    """Keeps log.txt and status.json while a run is on, and says in the status how it ended.

    Gives the signals that it gets, and the pulse that its status has. Other ranks than the first keep a log of their own, and
    write the status only where they fail.

    Raises:
        Interrupted, Diverged, RunFailed: what happened inside, with the directory and what to type next.
    """
    pulse = Pulse(directory)
    record = Record(directory, ranks, pulse)

    def stop_at_once(number: int) -> None:
        error = record.interrupted(number, " at once")
        if ranks.first:
            say(str(error))

    with logged(record.log), Signals(stop_at_once) as signals:
        try:
            record.write("running")
            if ranks.first:
                pulse.start()
            yield signals, pulse
            signals.hold()  # too late
            record.write("done")
        except Interrupted as error:
            record.write("interrupted", str(error))
            raise Interrupted(f"{error}; saved. To go on: {resume_command(directory.path)}", error.signum) from error
        except (KeyboardInterrupt, SystemExit) as error:  # Lightning turns the first into the second
            if (
                isinstance(error, SystemExit)
                and not signals.received
                and not isinstance(error.__context__, KeyboardInterrupt)
            ):
                raise record.failed(RunFailed(f"something in it called sys.exit({error.code})"), 0) from error
            raise record.interrupted(signals.received or signal.SIGINT) from error
        except Diverged as error:
            record.write("diverged", str(error))
            raise Diverged(
                f"{directory.path}: diverged, {error}; try a smaller learning rate: optimizer.lr=..."
            ) from error
        except SaidElsewhere as error:
            raise SaidElsewhere(RunFailed.exit_code) from error
        except Exception as error:
            raise record.failed(error, signals.received) from error
        finally:
            pulse.stop()


class Pulse:
    """Says in the status every few seconds, from a thread of its own, that the process lives, and how far it was told to be.

    So a run shows that it lives also where a net is compiled, or in a long validation. Where there is no room for the
    status, the run will meet that itself. What another rank has written, that it failed, stays.

    Attributes:
        progress: what the status says besides.
    """

    def __init__(self, directory: RunDir) -> None:
        self.directory = directory
        self.progress: dict[str, Any] = {}
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._beat, name="pulse", daemon=True)

    def start(self) -> None:
        """From now on."""
        self._thread.start()

    def stop(self) -> None:
        """When this returns it says nothing more."""
        self._over.set()
        if self._thread.is_alive() and self._thread is not threading.current_thread():
            self._thread.join()

    def _beat(self) -> None:
        while not self._over.wait(HEARTBEAT_S):
            if self.directory.status()["state"] == "running" and not self._over.is_set():
                with suppress(OSError):
                    self.directory.write_status("running", **self.progress)


@dataclass(frozen=True)
class Record:
    """What one process of a run says of it: in the status, in its log, in the line that it ends with."""

    directory: RunDir
    ranks: Ranks
    pulse: Pulse

    @property
    def log(self) -> Path:
        """Its own log."""
        path = self.directory.log
        return path if self.ranks.first else path.with_name(f"log_rank{self.ranks.rank}.txt")

    def write(self, state: State, reason: str | None = None) -> None:
        """The status; at the end there may be no room for it on the disk, not even in its old place."""
        if state != "running":
            self.pulse.stop()
        if self.ranks.first or state == "failed":
            more = {"peak_mb": peak_mb()} if state == "done" else {}
            with nullcontext() if state == "running" else suppress(OSError):
                self.directory.write_status(state, reason, **more)

    def interrupted(self, number: int, how: str = "") -> Interrupted:
        """A signal has ended the run."""
        what = f"stopped{how} by {signal.Signals(number).name}"
        self.write("interrupted", what)
        begun = self.directory.config.is_file()
        return Interrupted(f"{what}. To go on: {resume_command(self.directory.path)}" if begun else what, number)

    def failed(self, error: Exception, received: int) -> CnnbenchError:
        """An error has, here or in another process, which may have been ended by the signal that was received here too."""
        log.error("failed", exc_info=error)
        reason, advice = explain(error)
        if reason == ANOTHER_ENDED and received:
            return self.interrupted(received)
        if self.ranks.size > 1 and self.directory.status()["state"] in ("failed", "diverged"):  # by another, before
            return SaidElsewhere(RunFailed.exit_code)
        whose = "" if self.ranks.first else f"rank {self.ranks.rank}: "
        self.write("failed", f"{whose}{reason}")
        advice = advice or f"the traceback is in {self.log}"
        return RunFailed(f"{self.directory.path}: {whose}failed, {reason}; {advice}")


def explain(error: Exception) -> tuple[str, str]:
    """What went wrong, in one line, and what to try; nothing, where one must read the traceback."""
    if isinstance(error, RunFailed):
        return str(error), ""
    saving = "inline_container" in str(error)  # PyTorch's writer of files; what ails it is all that can stop it
    if saving and isinstance(error.__context__, OSError):
        error = error.__context__
    reason = f"{type(error).__name__}: {' '.join(str(error).split())}"
    said = reason.lower()
    if isinstance(error, MemoryError) or "out of memory" in said or "can't allocate memory" in said:
        return (
            f"out of memory ({reason[:200]})",
            "try accumulate=2, a smaller batch_size, data.pipeline=memory or precision=bf16",
        )
    full = isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
    if full or saving or "no space left" in said:
        return f"no room on the disk ({reason[:200]})", "make room, and resume the run: what was saved before is good"
    if by_anothers_end(error):
        return ANOTHER_ENDED, "its own message, or its log beside this one's, says why"
    return reason, ""


def caution(console: Console, message: str) -> None:
    """A warning, in the log and on the screen."""
    log.warning(message)
    console.print(message, style="yellow", soft_wrap=True, highlight=False, markup=False)


class LogFile(logging.FileHandler):
    """A log for which there may be no room: what is lost is lost, and not told on the screen."""

    def handleError(self, record: logging.LogRecord) -> None:  # noqa: N802
        """Goes on."""

    def close(self) -> None:
        """Closes the file."""
        with suppress(OSError):
            super().close()


def log_from_thread(ended: threading.ExceptHookArgs) -> None:
    """What a thread ended by; who waits for it, as for TensorBoard's, meets the error as well."""
    exception = ended.exc_value or ended.exc_type()
    log.error("in %s", ended.thread, exc_info=(type(exception), exception, ended.exc_traceback))


@contextmanager
def logged(path: Path) -> Iterator[None]:
    """Appends log messages and warnings to a file; Lightning's go there instead of to the screen."""
    try:
        handler = LogFile(path, encoding="utf-8")
    except OSError as error:
        raise RunFailed(f"{path}: cannot be written ({error.strerror})") from error
    handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(message)s"))
    root, level = logging.getLogger(), log.level
    lightning = [logging.getLogger(name) for name in ("pytorch_lightning", "lightning_fabric")]
    before = [(logger.handlers[:], logger.propagate, logger.level) for logger in lightning]
    for logger in lightning:
        logger.handlers, logger.propagate, logger.level = [], True, logging.WARNING
    root.addHandler(handler)
    hook, threading.excepthook = threading.excepthook, log_from_thread
    log.setLevel(logging.INFO)
    logging.captureWarnings(True)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)  # of libraries among themselves
            warnings.simplefilter("ignore", FutureWarning)
            warnings.filterwarnings("ignore", ".*dataloader is not resumable")  # ours is, by the checkpoints callback
            warnings.filterwarnings("ignore", ".*`srun` command is available")  # our executor starts the processes
            yield
    finally:
        logging.captureWarnings(False)
        threading.excepthook = hook
        log.setLevel(level)
        root.removeHandler(handler)
        handler.close()
        for logger, state in zip(lightning, before, strict=True):
            logger.handlers, logger.propagate, logger.level = state
