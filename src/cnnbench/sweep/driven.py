"""Sweeps whose jobs another of Hydra's sweepers chooses (`hydra/sweeper=NAME`), a batch at a time; our launcher runs them."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from rich.console import Console

from cnnbench.compose import compose_values, conf_dir, groups
from cnnbench.errors import CnnbenchError, ConfigError, RunFailed
from cnnbench.notation import canonical
from cnnbench.overrides import read_overrides, value_of
from cnnbench.sweep.command import planned, run


def main(overrides: list[str], config_dir: Path | None, command: str, console: Console) -> int:
    """Has Hydra's sweeper of that name sweep; the exit code."""
    from hydra import compose, initialize_config_dir
    from hydra._internal.callbacks import Callbacks
    from hydra.core.global_hydra import GlobalHydra
    from hydra.core.plugins import Plugins
    from hydra.errors import HydraException
    from hydra.types import HydraContext

    own = [text for text in overrides if text.startswith(("hydra/", "hydra."))]
    rest = [text for text in overrides if text not in own]
    fixed = list(read_overrides(rest, groups(config_dir)).fixed.values())
    values = compose_values(fixed, config_dir, missing=True).values
    name = values["name"] if values["name"] != "auto" else None
    if name is None:
        raise ConfigError(
            f"{own[0]}: the jobs of such a sweep are not known beforehand, so it needs a name; type name=..."
        )
    batches = Batches(fixed, config_dir, command, console)
    folder = Path(values["runs_dir"]) / name
    settings = ["hydra/launcher=cnnbench", f"hydra.sweep.dir={folder}"]
    if config_dir is not None:
        settings.append(f"hydra.searchpath=[file://{config_dir.resolve()}]")
    try:
        with initialize_config_dir(str(conf_dir()), version_base="1.3"):
            composed = compose("config", overrides=[*settings, *own, *fixed], return_hydra_config=True)
            context = HydraContext(config_loader=GlobalHydra.instance().config_loader(), callbacks=Callbacks())
        sweeper = Plugins.instance().instantiate_sweeper(hydra_context=context, task_function=batches, config=composed)
        sweeper.sweep(rest)
    except HydraException as error:
        raise ConfigError(" ".join(str(error).split())) from error
    return batches.code


class Batches:
    """Runs what a sweeper chooses.

    Args:
        fixed: overrides that all jobs have.
        config_dir: a conf folder of the user's own.
        command: what was typed.
        console: where it is shown.

    Attributes:
        code: the exit code of all batches until now.
    """

    def __init__(self, fixed: list[str], config_dir: Path | None, command: str, console: Console) -> None:
        self.fixed, self.config_dir, self.command, self.console = fixed, config_dir, command, console
        self.code = 0

    def __call__(self, config: Any) -> Any:
        """Hydra wants a function of a config; jobs are run by our launcher alone."""
        raise CnnbenchError("jobs of cnnbench are run by hydra/launcher=cnnbench")

    def run(self, jobs: Sequence[Sequence[str]]) -> list[float | Exception]:
        """The best validation accuracy of each job, or why there is none."""
        known = groups(self.config_dir)
        cells = []
        for overrides in jobs:
            typed = read_overrides([text for text in overrides if text not in self.fixed], known)
            cells.append({key: value_of(text) for key, text in typed.fixed.items()})
        plan = planned(self.fixed, self.config_dir, self.console, cells)
        self.code = max(self.code, run(plan, self.command, self.console))
        outcomes: list[float | Exception] = []
        for cell in cells:
            job = plan.job_of[canonical({key.lstrip("+"): value for key, value in cell.items()})]
            result = job.result()
            missing = RunFailed(f"{job.directory.path}: {job.status().get('reason') or 'has no result'}")
            outcomes.append(result["metrics"]["best/val/acc"] if result else missing)
        return outcomes

    def run_all(self, arguments: list[str]) -> int:
        """All jobs of a grid, chosen by our own sweeper."""
        self.code = run(planned(arguments, self.config_dir, self.console), self.command, self.console)
        return self.code
