"""log.txt and status.json of a run: everything that is said while it is on, and how it ended."""

from __future__ import annotations

import logging
import signal
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from cnnbench.errors import Diverged, Interrupted, RunFailed
from cnnbench.rundir import RunDir

log = logging.getLogger("cnnbench.run")


@contextmanager
def recorded(directory: RunDir) -> Iterator[None]:
    """Keeps log.txt and status.json while a run is on, and says in the status how it ended.

    Raises:
        Interrupted, Diverged, RunFailed: what happened inside, with the directory and what to type next.
    """
    with logged(directory.log):
        directory.write_status("running")
        try:
            yield
        except Interrupted as error:
            directory.write_status("interrupted", str(error))
            raise Interrupted(f"{error}; saved. To go on: {directory.resume_command()}", error.signum) from error
        except (KeyboardInterrupt, SystemExit) as error:  # Lightning turns the first into the second
            directory.write_status("interrupted", "SIGINT")
            raise Interrupted(f"stopped by SIGINT. To go on: {directory.resume_command()}", signal.SIGINT) from error
        except Diverged as error:
            directory.write_status("diverged", str(error))
            raise Diverged(
                f"{directory.path}: diverged, {error}; try a smaller learning rate: optimizer.lr=..."
            ) from error
        except Exception as error:
            log.exception("failed")
            reason = f"{type(error).__name__}: {' '.join(str(error).split())}"
            directory.write_status("failed", reason)
            raise RunFailed(f"{directory.path}: failed, {reason}; the traceback is in {directory.log}") from error
        directory.write_status("done")


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
            yield
    finally:
        logging.captureWarnings(False)
        log.setLevel(level)
        root.removeHandler(handler)
        handler.close()
        for logger, state in zip(lightning, before, strict=True):
            logger.handlers, logger.propagate, logger.level = state
