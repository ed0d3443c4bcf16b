"""The processes of one run: which of them this is, and what they must agree on.

Who starts them: our executor on one machine; torchrun or Slurm's srun on several, whose environment is used as it is.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import TYPE_CHECKING, Any, TypeVar

from cnnbench.errors import ConfigError, RunFailed, SaidElsewhere

if TYPE_CHECKING:
    from pytorch_lightning.plugins.environments import ClusterEnvironment

    from cnnbench.config.schema import Config

T = TypeVar("T")
PATIENCE = timedelta(days=1)  # for what the first rank does alone, as a download; a rank that dies is noticed at once


@dataclass(frozen=True)
class Ranks:
    """Processes that train one net together, each with its part of every batch."""

    rank: int = 0
    size: int = 1

    @property
    def first(self) -> bool:
        """This process writes the run's files and shows its progress."""
        return self.rank == 0

    def largest(self, *values: float) -> list[int]:
        """Of each value the largest that any rank has."""
        if self.size == 1:
            return [int(value) for value in values]
        import torch

        agreed = torch.tensor([int(value) for value in values])
        torch.distributed.all_reduce(agreed, torch.distributed.ReduceOp.MAX)
        return agreed.tolist()

    def by_first(self, work: Callable[[], T]) -> T:
        """What the first rank makes; an error of its own is raised there, and elsewhere `SaidElsewhere`."""
        if self.size == 1:
            return work()
        import torch

        said: list[Any] = [None, None]
        try:
            if self.first:
                said[0] = work()
        except BaseException as error:
            said[1] = getattr(error, "exit_code", 1)
            raise
        finally:
            torch.distributed.broadcast_object_list(said, 0)
        if said[1] is not None:
            raise SaidElsewhere(said[1])
        return said[0]

    def first_then_others(self, work: Callable[[], T]) -> T:
        """What each rank makes for itself, after the first has made it: what that one downloads or decodes is there for all."""
        made: list[T] = []
        self.by_first(lambda: made.append(work()))
        return made[0] if made else work()


def every_rank(value: T) -> list[T]:
    """What each rank has, the first rank's first."""
    import torch

    if not torch.distributed.is_available() or not torch.distributed.is_initialized():
        return [value]
    values: list[Any] = [None] * torch.distributed.get_world_size()
    torch.distributed.all_gather_object(values, value)
    return values


def placed() -> tuple[int, int]:
    """This process's rank, and how many there are, as the environment has them."""
    environment = os.environ
    if {"RANK", "LOCAL_RANK", "WORLD_SIZE"} <= environment.keys():
        return int(environment["RANK"]), int(environment["WORLD_SIZE"])
    if "SLURM_STEP_ID" in environment:  # started by srun; within sbatch or salloc alone there is one process
        return int(environment["SLURM_PROCID"]), int(environment["SLURM_NTASKS"])
    return 0, 1


def cluster() -> ClusterEnvironment:
    """The same for Lightning, which otherwise takes any allocation of Slurm's for a run of many processes."""
    from pytorch_lightning.plugins.environments import LightningEnvironment, TorchElasticEnvironment

    return TorchElasticEnvironment() if placed()[1] > 1 else LightningEnvironment()


def as_torchrun() -> None:
    """Puts what srun says about this process into the variables that torchrun sets."""
    from pytorch_lightning.plugins.environments import SLURMEnvironment

    environment = os.environ
    nodes = environment.get("SLURM_STEP_NODELIST", environment["SLURM_NODELIST"])
    job, step = int(environment["SLURM_JOB_ID"]), int(environment["SLURM_STEP_ID"])
    environment |= {
        "RANK": environment["SLURM_PROCID"],
        "LOCAL_RANK": environment["SLURM_LOCALID"],
        "WORLD_SIZE": environment["SLURM_NTASKS"],
        "GROUP_RANK": environment["SLURM_NODEID"],
        "MASTER_ADDR": environment.get("MASTER_ADDR") or SLURMEnvironment.resolve_root_node_address(nodes),
        "MASTER_PORT": environment.get("MASTER_PORT") or str(20000 + (job * 16 + step) % 10000),  # the same in all
    }


@contextmanager
def joined(config: Config) -> Iterator[Ranks]:
    """This process among those of a run, which can talk to each other while the context lasts.

    Raises:
        ConfigError: there are not as many as `trainer.devices` × `trainer.num_nodes`.
    """
    rank, size = placed()
    require_size(config, size)
    if size == 1:
        yield Ranks()
        return
    import torch

    if "RANK" not in os.environ:
        as_torchrun()
    on_gpu = config.trainer.accelerator != "cpu" and torch.cuda.is_available()
    backend = "cpu:gloo,cuda:nccl" if on_gpu else "gloo"
    torch.distributed.init_process_group(backend, rank=rank, world_size=size, timeout=PATIENCE)
    try:
        yield Ranks(rank, size)
    except RuntimeError as error:
        if by_anothers_end(error):
            raise SaidElsewhere(RunFailed.exit_code) from error
        raise
    finally:
        torch.distributed.destroy_process_group()


def by_anothers_end(error: Exception) -> bool:
    """It was raised because another process of the run is gone, killed perhaps."""
    said = str(error).lower()
    return "connection closed by peer" in said or "connection reset by peer" in said


def require_size(config: Config, size: int) -> None:
    """As many processes were started as the config has devices."""
    devices, nodes = config.trainer.devices, config.trainer.num_nodes
    if devices * nodes == size:
        return
    if size > 1:
        typed = (
            f"trainer.devices={size // nodes}" if size % nodes == 0 else f"trainer.num_nodes=1 trainer.devices={size}"
        )
        raise ConfigError(
            f"{size} processes were started, trainer.devices × trainer.num_nodes is {devices * nodes}; type {typed}"
        )
    raise ConfigError(
        f"trainer.num_nodes={nodes}: start a process for each device of each machine, with srun or as in "
        f"torchrun --nnodes {nodes} --nproc-per-node {devices} --rdzv-backend c10d --rdzv-endpoint HOST:29500 -m cnnbench ..."
    )
