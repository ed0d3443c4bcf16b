"""PyTorch's switches between repeatable bits and speed, in one place: `deterministic`, and what follows from the device."""

from __future__ import annotations

import ctypes
import os
import sys
from collections.abc import Callable
from contextlib import suppress
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

if TYPE_CHECKING:
    from cnnbench.config.schema import Config

M_TRIM_THRESHOLD, M_MMAP_THRESHOLD = -1, -3  # of malloc.h


def numerics(config: Config) -> dict[str, Any]:
    """What a frozen config means for the bits of its numbers; it goes into the result.

    `deterministic=true` asks for the same bits each time: no TF32, no search for the fastest kernel, an error where there is
    only a kernel that adds in any order (`warn`: a warning). `false` is for speed.
    """
    on_gpu = config.trainer.accelerator == "gpu"
    return {
        "deterministic": config.deterministic,
        "tf32": on_gpu and not config.deterministic,
        "cudnn_benchmark": on_gpu and not config.deterministic,
        "channels_last": config.channels_last,
    }


def apply_numerics(config: Config) -> None:
    """Sets PyTorch's switches, for the whole process."""
    wanted = numerics(config)
    if wanted["deterministic"]:
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    torch.use_deterministic_algorithms(bool(wanted["deterministic"]), warn_only=wanted["deterministic"] == "warn")
    torch.backends.cudnn.deterministic = bool(wanted["deterministic"])
    torch.backends.cudnn.benchmark = wanted["cudnn_benchmark"]
    torch.backends.cudnn.allow_tf32 = torch.backends.cuda.matmul.allow_tf32 = wanted["tf32"]


def keep_memory() -> None:
    """What is freed stays with this process; else glibc gives every batch's maps back, and the system clears them for the next."""
    if sys.platform == "linux":
        with suppress(OSError, AttributeError):  # another C library has no such switch
            libc = ctypes.CDLL(None)
            libc.mallopt(M_MMAP_THRESHOLD, 1 << 30)
            libc.mallopt(M_TRIM_THRESHOLD, (1 << 31) - 1)


def compiled(net: nn.Module, device: str, warn: Callable[[str], None]) -> bool:
    """Has the net compiled when it is first called, in place: its weights keep their names; whether it will be.

    Where nothing can be compiled, as without a C++ compiler, `warn` is told, and the net stays as it is.
    """
    try:
        torch.compile(torch.neg)(torch.zeros(2, device=device))
    except Exception as error:  # whatever the compilers raise
        reason = " ".join(str(error).split()).partition(" Set TORCHDYNAMO")[0]
        warn(f"compile=true: goes on without, PyTorch cannot compile here ({reason[:200]})")
        return False
    net.compile()
    return True


def suits_channels_last(config: Config) -> bool:
    """Convolutions are faster with the channels last here: a CPU's, and those of half precision, by a GPU's tensor cores."""
    return config.trainer.accelerator == "cpu" or config.precision in ("bf16", "16")
