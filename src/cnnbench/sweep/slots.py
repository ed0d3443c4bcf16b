"""How many jobs run at a time, and what each of them gets: a GPU, or a share of the processor."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import psutil

if TYPE_CHECKING:
    from cnnbench.config.schema import Config

MEMORY_OF_A_JOB = 1.5 * 2**30  # bytes that must be free for each, where their number is ours to choose


@dataclass(frozen=True)
class Slots:
    """Places for jobs; a job takes one for each of its devices.

    Attributes:
        count: how many there are.
        threads: of the processor, for each.
        gpus: the one of each slot, as CUDA_VISIBLE_DEVICES names it; none on a CPU.
        others: further GPUs, for a job of more devices than there are slots.
    """

    count: int
    threads: int
    gpus: tuple[str, ...] = ()
    others: tuple[str, ...] = ()

    def environment(self, taken: Sequence[int], devices: int = 1) -> dict[str, str]:
        """What a job in these slots is to see: their GPUs, and others where it needs more."""
        if not self.gpus:
            return {}
        first = dict.fromkeys(self.gpus[slot] for slot in taken)
        named = [*first, *(gpu for gpu in dict.fromkeys(self.gpus + self.others) if gpu not in first)]
        return {"CUDA_VISIBLE_DEVICES": ",".join(named[:devices])}


def slots_here(asked: int | Literal["auto"], configs: Sequence[Config]) -> Slots:
    """The slots of this machine for some jobs; asks CUDA, so not for the launcher's own process."""
    import torch

    on_gpu = torch.cuda.is_available() and any(config.trainer.accelerator != "cpu" for config in configs)
    gpus = visible(torch.cuda.device_count()) if on_gpu else ()
    wanted = sum(config.trainer.devices for config in configs)
    return slots_of(asked, cores(), psutil.virtual_memory().available, gpus, wanted)


def slots_of(asked: int | Literal["auto"], cores: int, memory: int, gpus: Sequence[str], wanted: int) -> Slots:
    """So many as are asked for; `auto`: one for each GPU, or for each core, as far as the memory goes, and no more than wanted.

    Args:
        asked: `sweep.slots`.
        cores: that may be used.
        memory: bytes that are free.
        gpus: their names.
        wanted: devices of all jobs.
    """
    if asked == "auto":
        fits = len(gpus) or min(cores, int(memory // MEMORY_OF_A_JOB))
        count = max(1, min(fits, wanted))
    else:
        count = asked
    of_slots = tuple(gpus[slot % len(gpus)] for slot in range(count)) if gpus else ()
    return Slots(count, max(1, cores // count), of_slots, tuple(gpus[count:]))


def visible(count: int) -> tuple[str, ...]:
    """The names of the GPUs that this process may use."""
    named = os.environ.get("CUDA_VISIBLE_DEVICES", "")
    return tuple(named.split(",")[:count]) if named else tuple(map(str, range(count)))


def cores() -> int:
    """How many this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
