"""log.txt and status.json of a run: everything that is said while it is on, and how it ended."""

from __future__ import annotations

import errno
import logging
import signal
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from rich.console import Console

from cnnbench.errors import Diverged, Interrupted, RunFailed, SaidElsewhere
from cnnbench.ranks import Ranks
from cnnbench.rundir import RunDir, State

log = logging.getLogger("cnnbench.run")


@contextmanager
def recorded(directory: RunDir, ranks: Ranks) -> Iterator[None]:
    """Keeps log.txt and status.json while a run is on, and says in the status how it ended.

    Other ranks than the first keep a log of their own, and write the status only where they fail.

    Raises:
        Interrupted, Diverged, RunFailed: what happened inside, with the directory and what to type next.
    """
    name = directory.log if ranks.first else directory.log.with_name(f"log_rank{ranks.rank}.txt")

    def write(state: State, reason: str | None = None) -> None:
        if ranks.first or state == "failed":
            directory.write_status(state, reason)

    with logged(name):
        try:
            write("running")
            yield
        except Interrupted as error:
            write("interrupted", str(error))
            raise Interrupted(f"{error}; saved. To go on: {directory.resume_command()}", error.signum) from error
        except (KeyboardInterrupt, SystemExit) as error:  # Lightning turns the first into the second
            write("interrupted", "SIGINT")
            raise Interrupted(f"stopped by SIGINT. To go on: {directory.resume_command()}", signal.SIGINT) from error
        except Diverged as error:
            write("diverged", str(error))
            raise Diverged(
                f"{directory.path}: diverged, {error}; try a smaller learning rate: optimizer.lr=..."
            ) from error
        except Exception as error:
            log.exception("failed")
            reason, advice = explain(error)
            whose = "" if ranks.first else f"rank {ranks.rank}: "
            status = directory.status()
            if ranks.size > 1 and status["state"] in ("failed", "diverged"):  # another's end is what ended this one
                raise SaidElsewhere(RunFailed.exit_code) from error
            with suppress(OSError):  # the disk may be full
                write("failed", f"{whose}{reason}")
            raise RunFailed(
                f"{directory.path}: {whose}failed, {reason}; {advice or f'the traceback is in {name}'}"
            ) from error
        write("done")


def explain(error: Exception) -> tuple[str, str]:
    """What went wrong, in one line, and what to try; nothing, where one must read the traceback."""
    reason = f"{type(error).__name__}: {' '.join(str(error).split())}"
    said = reason.lower()
    if isinstance(error, MemoryError) or "out of memory" in said or "can't allocate memory" in said:
        return (
            f"out of memory ({reason[:200]})",
            "try accumulate=2, a smaller batch_size, data.pipeline=memory or precision=bf16",
        )
    full = isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
    if full or "no space left" in said or ("write" in said and "inline_container" in said):
        return f"no room on the disk ({reason[:200]})", "make room, and resume the run: what was saved before is good"
    if "connection closed by peer" in said or "connection reset by peer" in said:
        return "another process of the run has ended", "its own message, or its log beside this one's, says why"
    return reason, ""


def caution(console: Console, message: str) -> None:
    """A warning, in the log and on the screen."""
    log.warning(message)
    console.print(message, style="yellow", soft_wrap=True, highlight=False, markup=False)


@contextmanager
def logged(path: Path) -> Iterator[None]:
    """Appends log messages and warnings to a file; Lightning's go there instead of to the screen."""
    handler = logging.FileHandler(path, encoding="utf-8")
    handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(message)s"))
    root, level = logging.getLogger(), log.level
    lightning = [logging.getLogger(name) for name in ("pytorch_lightning", "lightning_fabric")]
    before = [(logger.handlers[:], logger.propagate, logger.level) for logger in lightning]
    for logger in lightning:
        logger.handlers, logger.propagate, logger.level = [], True, logging.WARNING
    root.addHandler(handler)
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
        log.setLevel(level)
        root.removeHandler(handler)
        handler.close()
        for logger, state in zip(lightning, before, strict=True):
            logger.handlers, logger.propagate, logger.level = state
