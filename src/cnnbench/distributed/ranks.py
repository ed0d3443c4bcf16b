"""The ranks of a run: rank and world size of this process, and collective operations between ranks.

On one machine `fork_server` starts the ranks; on several, torchrun or Slurm's srun, whose environment variables are used.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import TYPE_CHECKING, Any, TypeVar

from cnnbench.distributed.signals import killed_by
from cnnbench.errors import ConfigError, ReportedByOtherRank, RunFailed

if TYPE_CHECKING:
    from cnnbench.config.schema import Config

T = TypeVar("T")
TIMEOUT = timedelta(days=1)  # rank zero may do long work alone, such as a download; a dead rank is noticed at once


_killed: Sequence[int] = [0, 0]  # the rank that was killed first, and the signal; 0: none


@dataclass(frozen=True)
class Ranks:
    """This process among those that train one net together, each on its part of every batch.

    Attributes:
        rank: number of this process, from 0.
        size: number of processes.
    """

    rank: int = 0
    size: int = 1

    @property
    def first(self) -> bool:
        """Whether this is rank zero, which writes the run's files and shows its progress."""
        return self.rank == 0

    def all_reduce_max(self, *values: float) -> list[int]:
        """The maximum of each value over all ranks, as integers; every rank must call it."""
        numbers = list(map(int, values))
        if self.size == 1:
            return numbers
        import torch

        agreed = torch.tensor(numbers)
        torch.distributed.all_reduce(agreed, torch.distributed.ReduceOp.MAX)
        return agreed.tolist()

    def run_on_rank_zero(self, work: Callable[[], T]) -> T:
        """Calls `work` on rank zero, and returns its result on all ranks; every rank must call this.

        Raises:
            ReportedByOtherRank: on the other ranks, if `work` raised an error on rank zero.
        """
        if self.size == 1:
            return work()
        import torch

        result_and_code: list[Any] = [None, None]
        try:
            if self.first:
                result_and_code[0] = work()
        except BaseException as error:
            result_and_code[1] = getattr(error, "exit_code", 1)
            raise
        finally:
            torch.distributed.broadcast_object_list(result_and_code, 0)
        result, exit_code = result_and_code
        if exit_code is not None:
            raise ReportedByOtherRank(exit_code)
        return result

    def run_on_rank_zero_first(self, work: Callable[[], T]) -> T:
        """Calls `work` on rank zero, then on the others, which find what rank zero has downloaded or decoded."""
        made: list[T] = []
        self.run_on_rank_zero(lambda: made.append(work()))
        return made[0] if made else work()


def all_gather(value: T) -> list[T]:
    """The value of each rank, in the order of ranks; can be pickled."""
    import torch

    if not torch.distributed.is_available() or not torch.distributed.is_initialized():
        return [value]
    values: list[Any] = [None] * torch.distributed.get_world_size()
    torch.distributed.all_gather_object(values, value)
    return values


def rank_and_world_size() -> tuple[int, int]:
    """(rank, world size) of this process, from the environment variables of torchrun or srun; (0, 1) without them."""
    environment = os.environ
    if {"RANK", "LOCAL_RANK", "WORLD_SIZE"} <= environment.keys():
        return int(environment["RANK"]), int(environment["WORLD_SIZE"])
    if "SLURM_STEP_ID" in environment:  # set by srun; sbatch and salloc alone start one process
        return int(environment["SLURM_PROCID"]), int(environment["SLURM_NTASKS"])
    return 0, 1


def set_torchrun_variables() -> None:
    """Sets torchrun's environment variables from those of srun."""
    from pytorch_lightning.plugins.environments import SLURMEnvironment

    environment = os.environ
    nodes = environment.get("SLURM_STEP_NODELIST", environment["SLURM_NODELIST"])
    step = int(environment["SLURM_JOB_ID"]) * 16 + int(environment["SLURM_STEP_ID"])  # a number of this step alone
    environment |= {
        "RANK": environment["SLURM_PROCID"],
        "LOCAL_RANK": environment["SLURM_LOCALID"],
        "WORLD_SIZE": environment["SLURM_NTASKS"],
        "GROUP_RANK": environment["SLURM_NODEID"],
        "MASTER_ADDR": environment.get("MASTER_ADDR") or SLURMEnvironment.resolve_root_node_address(nodes),
        "MASTER_PORT": environment.get("MASTER_PORT") or str(20000 + step % 10000),  # the same on all ranks
    }


@contextmanager
def process_group(config: Config) -> Iterator[Ranks]:
    """Initialises torch's process group for the ranks of a run, and destroys it at the end of the context.

    Raises:
        ConfigError: the world size is not `trainer.devices` × `trainer.num_nodes`.
        ReportedByOtherRank: the connection to another rank was lost.
    """
    rank, size = rank_and_world_size()
    require_world_size(config, size)
    if size == 1:
        yield Ranks()
        return
    import torch

    if "RANK" not in os.environ:
        set_torchrun_variables()
    has_gpu = config.trainer.accelerator != "cpu" and torch.cuda.is_available()
    torch.distributed.init_process_group(
        "cpu:gloo,cuda:nccl" if has_gpu else "gloo", rank=rank, world_size=size, timeout=TIMEOUT
    )
    try:
        yield Ranks(rank, size)
    except RuntimeError as error:
        if is_lost_connection(error):
            raise ReportedByOtherRank(RunFailed.exit_code) from error
        raise
    finally:
        torch.distributed.destroy_process_group()


def is_lost_connection(error: Exception) -> bool:
    """Whether an error means that another rank has ended, perhaps by a kill."""
    message = str(error).lower()
    return "connection closed by peer" in message or "connection reset by peer" in message


def why_connection_was_lost() -> str:
    """Returns why another rank ended: `'rank 1 was killed by SIGKILL; was there enough memory?'`.

    Waits up to a second for the launcher on this machine to notice it; ranks that torchrun or srun started do not learn more.
    """
    deadline = time.monotonic() + 1
    while not _killed[1] and time.monotonic() < deadline:
        time.sleep(0.02)
    return f"rank {_killed[0]} was {killed_by(_killed[1])}" if _killed[1] else "another process of the run has ended"


def share_killed_rank(shared: Sequence[int]) -> None:
    """Sets the shared memory in which the launcher writes which rank was killed first, and by which signal."""
    global _killed
    _killed = shared


def require_world_size(config: Config, size: int) -> None:
    """Checks that as many processes were started as the config has devices.

    Raises:
        ConfigError: another number was started.
    """
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
