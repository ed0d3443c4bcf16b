"""`cnnbench -m key=a,b ...`: runs a sweep."""

from __future__ import annotations

import signal
from pathlib import Path
from types import FrameType
from typing import NoReturn

from cnnbench.console import make_console
from cnnbench.distributed import signals
from cnnbench.distributed.fork_server import stop_fork_server
from cnnbench.distributed.ranks import rank_and_world_size
from cnnbench.errors import ConfigError, Interrupted, ReportedByOtherRank
from cnnbench.sweep.run import plan_with_progress, run_sweep


def main(overrides: list[str], config_dir: Path | None, command: str) -> int:
    """Runs the unfinished jobs of a sweep; returns the exit code.

    Raises:
        ConfigError: the sweep is wrong, or was started as several ranks.
        Interrupted: a signal stopped it.
    """
    rank, size = rank_and_world_size()
    if size > 1:
        if rank:
            raise ReportedByOtherRank(ConfigError.exit_code)
        raise ConfigError(
            "-m: a sweep is started once, and starts its jobs' processes itself; type it without torchrun or srun -n"
        )
    console = make_console()

    def interrupt(number: int, frame: FrameType | None) -> NoReturn:
        how = f"stopped by {signal.Signals(number).name} while no job ran"
        raised.append(Interrupted(f"{how}. To resume, type the same command again: {command}", number))
        raise raised[-1]

    raised: list[Interrupted] = []
    with signals.handled_by(interrupt):
        try:
            return run_sweep(plan_with_progress(overrides, config_dir, console), command, console)
        except Exception as error:
            if raised and error is not raised[-1]:  # a library, as OmegaConf, has turned it into another exception
                raise raised[-1] from error
            raise
        finally:
            stop_fork_server()
