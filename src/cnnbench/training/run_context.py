"""The objects that the callbacks of one run share: its config, its directory, its processes."""

from __future__ import annotations

from dataclasses import dataclass

from cnnbench.config.schema import Config
from cnnbench.console import Console
from cnnbench.distributed.ranks import Ranks
from cnnbench.distributed.signals import SignalHandler
from cnnbench.runs.run_dir import RunDir
from cnnbench.runs.status_and_log import Heartbeat


@dataclass(frozen=True)
class RunContext:
    """The arguments of a run that every part of its training may need.

    Attributes:
        config: the frozen config, every `auto` resolved.
        directory: the run directory, where all files of the run go.
        console: where progress is shown; a quiet one shows nothing.
        ranks: the processes of the run; only the first rank writes files and shows progress.
        signals: the signals that this process receives.
        heartbeat: writes the progress into status.json.
    """

    config: Config
    directory: RunDir
    console: Console
    ranks: Ranks
    signals: SignalHandler
    heartbeat: Heartbeat
