"""Makes our sweeper and launcher Hydra's, so that they can be combined with another's: one decides which jobs there are, one runs them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from hydra.core.config_store import ConfigStore
from hydra.core.utils import JobReturn, JobStatus
from hydra.errors import HydraException
from hydra.plugins.launcher import Launcher
from hydra.plugins.sweeper import Sweeper
from hydra.types import HydraContext, TaskFunction
from omegaconf import DictConfig, OmegaConf


class CnnbenchLauncher(Launcher):
    """`hydra/launcher=cnnbench`: a process for each job, in slots; what is done is not done again."""

    def setup(self, *, hydra_context: HydraContext, task_function: TaskFunction, config: DictConfig) -> None:
        """The task function is `cnnbench.sweep.driven.Batches`."""
        self.batches: Any = task_function

    def launch(self, job_overrides: Sequence[Sequence[str]], initial_job_idx: int) -> Sequence[JobReturn]:
        """Runs a batch; a job's value is its best validation accuracy."""
        if not hasattr(self.batches, "run"):
            raise HydraException("hydra/launcher=cnnbench runs cnnbench's own jobs: python -m cnnbench -m ...")
        returns = []
        for overrides, outcome in zip(job_overrides, self.batches.run(job_overrides), strict=True):
            done = JobReturn(overrides=overrides, cfg=OmegaConf.create(), task_name="cnnbench")
            done.status = JobStatus.FAILED if isinstance(outcome, Exception) else JobStatus.COMPLETED
            done.return_value = outcome
            returns.append(done)
        return returns


class CnnbenchSweeper(Sweeper):
    """`hydra/sweeper=cnnbench`: grids, and what an experiment's `sweep:` asks for; seeds innermost."""

    def setup(self, *, hydra_context: HydraContext, task_function: TaskFunction, config: DictConfig) -> None:
        """The task function is `cnnbench.sweep.driven.Batches`."""
        self.batches: Any = task_function

    def sweep(self, arguments: list[str]) -> Any:
        """Runs all of it; the exit code."""
        return self.batches.run_all(arguments)


for group, plugin in {"hydra/launcher": CnnbenchLauncher, "hydra/sweeper": CnnbenchSweeper}.items():
    node = {"_target_": f"{plugin.__module__}.{plugin.__qualname__}"}
    ConfigStore.instance().store(group=group, name="cnnbench", node=node, provider="cnnbench")
