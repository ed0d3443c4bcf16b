"""Allocates slots: how many jobs run at a time, and which GPU or how many CPU threads each of them takes."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import psutil

from cnnbench.distributed.fork_server import HAS_FORK_SERVER
from cnnbench.runs.environment import usable_cores

if TYPE_CHECKING:
    from cnnbench.config.schema import Config

JOB_MEMORY = 1.5 * 2**30  # bytes that must be free for each job with sweep.slots=auto


@dataclass(frozen=True)
class Slots:
    """Places for jobs on this machine; a job takes one slot per device.

    Attributes:
        count: number of slots.
        threads: CPU threads per slot.
        gpus: the GPU of each slot, named as in CUDA_VISIBLE_DEVICES; empty on a CPU.
        spare_gpus: GPUs without a slot, for a job with more devices than there are slots.
    """

    count: int
    threads: int
    gpus: tuple[str, ...] = ()
    spare_gpus: tuple[str, ...] = ()

    def environment(self, slots: Sequence[int], devices: int = 1) -> dict[str, str]:
        """Environment variables of a job in these `slots`: their GPUs first, then others until it has `devices`."""
        if not self.gpus:
            return {}
        names = dict.fromkeys([*(self.gpus[slot] for slot in slots), *self.gpus, *self.spare_gpus])
        return {"CUDA_VISIBLE_DEVICES": ",".join([*names][:devices])}


def slots_on_this_machine(requested: int | Literal["auto"], configs: Sequence[Config]) -> Slots:
    """The slots of this machine for the jobs of `configs`; one on a system without a fork server.

    Initializes CUDA: call it in a subprocess, not in the launcher.
    """
    import torch

    on_gpu = torch.cuda.is_available() and any(config.trainer.accelerator != "cpu" for config in configs)
    gpus = visible_gpus(torch.cuda.device_count()) if on_gpu else ()
    devices = sum(config.trainer.devices for config in configs)
    if not HAS_FORK_SERVER:
        requested = 1
    return allocate_slots(requested, usable_cores(), psutil.virtual_memory().available, gpus, devices)


def allocate_slots(
    requested: int | Literal["auto"], cores: int, memory: int, gpus: Sequence[str], devices: int
) -> Slots:
    """The requested slots; `auto`: one per GPU, else one per core as far as the memory allows, at most one per device.

    Args:
        requested: `sweep.slots`.
        cores: usable CPU cores.
        memory: free bytes.
        gpus: names of the GPUs.
        devices: devices of all jobs together.
    """
    possible = len(gpus) or min(cores, int(memory // JOB_MEMORY))
    count = max(1, min(possible, devices)) if requested == "auto" else requested
    gpu_of_slot = tuple(gpus[slot % len(gpus)] for slot in range(count)) if gpus else ()
    return Slots(count, max(1, cores // count), gpu_of_slot, tuple(gpus[count:]))


def visible_gpus(count: int) -> tuple[str, ...]:
    """Names of the `count` GPUs that this process may use, as in CUDA_VISIBLE_DEVICES."""
    named = os.environ.get("CUDA_VISIBLE_DEVICES", "")
    return tuple(named.split(",")[:count]) if named else tuple(map(str, range(count)))
