"""Keeps status.json and log.txt of a run up to date: heartbeats and messages while it runs, and how it ended."""

from __future__ import annotations

import errno
import logging
import signal
import threading
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext, suppress
from dataclasses import dataclass
from functools import partial
from io import TextIOWrapper
from pathlib import Path

from cnnbench.console import Console, print_plain
from cnnbench.distributed.ranks import Ranks, is_lost_connection, why_connection_was_lost
from cnnbench.distributed.signals import SignalHandler
from cnnbench.errors import CnnbenchError, DataError, Diverged, Interrupted, ReportedByOtherRank, RunFailed, print_error
from cnnbench.files import open_append
from cnnbench.output import note_lost_output_in
from cnnbench.runs.commands import resume_command
from cnnbench.runs.environment import peak_memory_mb
from cnnbench.runs.liveness import HEARTBEAT_S, is_this_process, write_heartbeat
from cnnbench.runs.run_dir import RunDir
from cnnbench.runs.schema import State
from cnnbench.text import Values, one_line, printable

log = logging.getLogger("cnnbench.run")


@contextmanager
def record_run(directory: RunDir, ranks: Ranks) -> Iterator[tuple[SignalHandler, Heartbeat]]:
    """Writes the log and the status of a run, and at the end of the context how it ended.

    Yields the signal handler and the heartbeat, whose `progress` is written into the status. Ranks other than zero have their
    own logs, and write the status only when they fail.

    Raises:
        Interrupted, Diverged, RunFailed: the context raised an error; the message has the directory and what to type next.
    """
    heartbeat = Heartbeat(directory)
    recorder = RunRecorder(directory, ranks, heartbeat)

    def stop_at_once(number: int) -> None:
        error = recorder.interrupted(number, " at once")
        if ranks.first:
            print_error(str(error))

    with log_to_file(recorder.log), SignalHandler(stop_at_once) as signals:
        note_lost_output_in(recorder.log)
        try:
            recorder.write("running")
            if ranks.first:
                heartbeat.start()
            yield signals, heartbeat
            signals.hold()  # a signal after the run's end changes nothing
            recorder.write("done")
        except (KeyboardInterrupt, SystemExit) as error:  # Lightning turns the first into the second
            if (
                signals.received
                or isinstance(error, KeyboardInterrupt)
                or isinstance(error.__context__, KeyboardInterrupt)
            ):
                raise recorder.interrupted(signals.received or signal.SIGINT) from error
            raise recorder.error(RunFailed(f"something in it called sys.exit({error.code})"), 0) from error
        except Exception as error:
            if signals.has_interrupted:
                raise recorder.interrupted(signals.received) from error
            raise recorder.error(error, signals.received) from error
        finally:
            heartbeat.stop()


class Heartbeat(threading.Thread):
    """Writes a heartbeat and the progress into status.json every few seconds, from a thread.

    So a run shows that it is alive also while a net is compiled or during a long validation. On a full disk, on which the run
    itself fails, only the time of the file is renewed, which other hosts compare. A status in which another rank has reported its
    failure is left as it is, and that of a process which took this one for dead and runs the run now.

    Attributes:
        progress: the fields of `Status` to write, as `epoch` and `loss`.
    """

    def __init__(self, directory: RunDir) -> None:
        super().__init__(name="heartbeat", daemon=True)
        self.directory = directory
        self.progress: Values = {}
        self._ended = threading.Event()

    def stop(self) -> None:
        """Stops the thread; nothing is written after this has returned."""
        self._ended.set()
        if self.is_alive() and self is not threading.current_thread():
            self.join()

    def run(self) -> None:
        """Writes until the thread is stopped."""
        while not self._ended.wait(HEARTBEAT_S):
            status = self.directory.status()
            is_own = status.pid is None or (status.state == "running" and is_this_process(status))  # or cannot be read
            if is_own and not self._ended.is_set():
                write = partial(self.directory.write_status, "running", **self.progress)
                write_heartbeat(self.directory.status_file, write)


@dataclass(frozen=True)
class RunRecorder:
    """Writes how a run ended: in its status, in its log, and in the error that is raised."""

    directory: RunDir
    ranks: Ranks
    heartbeat: Heartbeat

    @property
    def log(self) -> Path:
        """The log of this rank."""
        path = self.directory.log
        return path if self.ranks.first else path.with_name(f"log_rank{self.ranks.rank}.txt")

    def write(self, state: State, reason: str | None = None) -> None:
        """Writes the status; a full disk is ignored at the end of a run."""
        if state != "running":
            self.heartbeat.stop()
        if self.ranks.first or state == "failed":
            more = {"peak_mb": peak_memory_mb()} if state == "done" else {}
            with nullcontext() if state == "running" else suppress(OSError):
                self.directory.write_status(state, reason, **more)

    def error(self, error: Exception, received: int) -> CnnbenchError:
        """Records the error that ended the run, and returns the error to raise.

        Another rank may have ended by the signal that this process has received: then the run was interrupted. If another rank
        has recorded its error before, this one reports nothing.

        Args:
            error: what the run raised.
            received: the signal that this process has received, else 0.
        """
        if isinstance(error, ReportedByOtherRank):
            return ReportedByOtherRank(RunFailed.exit_code)
        if isinstance(error, Interrupted):
            return self.interrupted(error.signum, saved="; saved")
        if isinstance(error, Diverged):
            self.write("diverged", str(error))
            return Diverged(f"{self.directory.path}: diverged, {error}; try a smaller learning rate: optimizer.lr=...")
        log.error("failed", exc_info=error)
        if is_lost_connection(error) and received:
            return self.interrupted(received)
        reason, advice = explain_failure(error)
        if self._is_removed(error):
            reason, advice = "its directory has been removed while it ran", "the same command starts it anew"
        if self.ranks.size > 1 and self.directory.status().state in ("failed", "diverged"):
            return ReportedByOtherRank(RunFailed.exit_code)
        rank = "" if self.ranks.first or is_lost_connection(error) else f"rank {self.ranks.rank}: "
        self.write("failed", f"{rank}{reason}")
        traceback_hint = f"the traceback is in {self.log}"
        return RunFailed(f"{self.directory.path}: {rank}failed, {reason}; {advice or traceback_hint}")

    def _is_removed(self, error: Exception) -> bool:
        """Whether the run's directory has been removed, or is just being removed, so that a file of it was not found."""
        absent = error.filename if isinstance(error, FileNotFoundError) else None
        is_inside = isinstance(absent, str) and Path(absent).is_relative_to(self.directory.path)
        return is_inside or not self.directory.path.is_dir()

    def interrupted(self, number: int, how: str = "", saved: str = "") -> Interrupted:
        """Records that a signal stopped the run, and returns the error to raise, with the command that resumes the run.

        Args:
            number: of the signal.
            how: for the message, after `stopped`.
            saved: for the message, after the signal.
        """
        reason = f"stopped{how} by {signal.Signals(number).name}"
        self.write("interrupted", reason)
        resume = f"{saved}. To resume: {resume_command(self.directory.path)}" if self.directory.config.is_file() else ""
        return Interrupted(f"{reason}{resume}", number)


def explain_failure(error: Exception) -> tuple[str, str]:
    """(the cause in one line, what to do); the second is empty where the traceback must be read."""
    if isinstance(error, RunFailed):
        return str(error), ""
    if isinstance(error, DataError):  # they have moved or changed while it ran
        return one_line(error), "put the data back, and resume the run"
    saving = "inline_container" in str(error)  # PyTorch's file writer; it fails only where writing does
    if saving and isinstance(error.__context__, OSError):
        error = error.__context__
    reason = f"{type(error).__name__}: {' '.join(str(error).split())}"
    message = reason.lower()
    if isinstance(error, MemoryError) or "out of memory" in message or "can't allocate memory" in message:
        advice = "try accumulate=2, a smaller batch_size, data.pipeline=memory or precision=bf16"
        return f"out of memory ({reason[:200]})", advice
    full = isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
    if full or saving or "no space left" in message:
        advice = "free some space, and resume the run: its earlier checkpoint is intact"
        return f"no room on the disk ({reason[:200]})", advice
    if is_lost_connection(error):
        return why_connection_was_lost(), "see its message, or its log next to this one"
    return reason, ""


def print_and_log_warning(console: Console, message: str) -> None:
    """Writes a warning to the log and to the screen."""
    log.warning(message)
    print_plain(console, message, "yellow")


class LogFile(logging.FileHandler):
    """A log file, never behind a link, that ignores a full disk: a message that cannot be written is dropped."""

    def _open(self) -> TextIOWrapper:
        return open_append(Path(self.baseFilename))

    def handleError(self, record: logging.LogRecord) -> None:  # noqa: N802
        """Drops the message."""

    def close(self) -> None:
        """Closes the file."""
        with suppress(OSError):
            super().close()


class LogFormatter(logging.Formatter):
    """One line for each message, and its traceback, in printable characters: a text may be from somebody else's file."""

    def formatMessage(self, record: logging.LogRecord) -> str:  # noqa: N802
        """The line of a message; a warning of Python's has a second line, with the code that raised it."""
        return printable(super().formatMessage(record), keep="\n" if record.name == "py.warnings" else "")

    def format(self, record: logging.LogRecord) -> str:
        """The line of a message with its traceback."""
        return printable(super().format(record), keep="\n")


def log_thread_error(arguments: threading.ExceptHookArgs) -> None:
    """Logs the error that ended a thread; code that waits for the thread, as for TensorBoard's, raises it as well."""
    log.error("in %s", arguments.thread, exc_info=arguments.exc_value or arguments.exc_type())


@contextmanager
def log_to_file(path: Path) -> Iterator[None]:
    """Appends log messages and warnings to a file; Lightning's go there instead of to the screen.

    Raises:
        RunFailed: the file cannot be written.
    """
    try:
        handler = LogFile(path, encoding="utf-8")
    except OSError as error:
        raise RunFailed(f"{path}: cannot be written ({error.strerror})") from error
    handler.setFormatter(LogFormatter("%(asctime)s %(levelname)s %(message)s"))
    root, level = logging.getLogger(), log.level
    lightning = [logging.getLogger(name) for name in ("pytorch_lightning", "lightning_fabric")]
    before = [(logger.handlers[:], logger.propagate, logger.level) for logger in lightning]
    for logger in lightning:
        logger.handlers, logger.propagate, logger.level = [], True, logging.WARNING
    root.addHandler(handler)
    hook, threading.excepthook = threading.excepthook, log_thread_error
    log.setLevel(logging.INFO)
    logging.captureWarnings(True)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)  # between libraries
            warnings.simplefilter("ignore", FutureWarning)
            warnings.filterwarnings("ignore", ".*dataloader is not resumable")  # the Checkpoints callback resumes it
            warnings.filterwarnings("ignore", ".*`srun` command is available")  # the fork server starts the ranks
            yield
    finally:
        logging.captureWarnings(False)
        threading.excepthook = hook
        log.setLevel(level)
        root.removeHandler(handler)
        handler.close()
        for logger, state in zip(lightning, before, strict=True):
            logger.handlers, logger.propagate, logger.level = state
