"""`cnnbench -m key=a,b ...`: runs a sweep."""

from __future__ import annotations

import signal
from pathlib import Path

from cnnbench.console import make_console
from cnnbench.distributed import signals
from cnnbench.distributed.fork_server import dismiss
from cnnbench.distributed.ranks import placed
from cnnbench.errors import ConfigError, Interrupted, SaidElsewhere
from cnnbench.sweep.run import planned, run


def main(overrides: list[str], config_dir: Path | None, command: str) -> int:
    """Runs what is left of a sweep; the exit code."""
    rank, size = placed()
    if size > 1:
        if rank:
            raise SaidElsewhere(ConfigError.exit_code)
        raise ConfigError(
            "-m: a sweep is started once, and starts its jobs' processes itself; type it without torchrun or srun -n"
        )
    console = make_console()

    def stopped(number: int) -> Interrupted:
        name = signal.Signals(number).name
        return Interrupted(f"stopped by {name} while no job ran. To go on, type the same again: {command}", number)

    with signals.raising(stopped):
        try:
            return run(planned(overrides, config_dir, console), command, console)
        finally:
            dismiss()
