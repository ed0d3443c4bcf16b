"""PyTorch's switches between repeatable bits and speed: the key `deterministic`, and what follows from the device."""

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


def numeric_settings(config: Config) -> dict[str, Any]:
    """Returns the switches that a frozen config implies, for PyTorch and for result.json.

    `deterministic=true` gives the same bits each time: no TF32, no search for the fastest kernel, an error where PyTorch has
    only a kernel that adds in an arbitrary order (`warn`: a warning instead). `false` is for speed.
    """
    fast = config.trainer.accelerator == "gpu" and not config.deterministic
    return {
        "deterministic": config.deterministic,
        "tf32": fast,
        "cudnn_benchmark": fast,
        "channels_last": config.channels_last,
    }


def apply_numeric_settings(config: Config) -> None:
    """Sets PyTorch's switches for the whole process."""
    settings = numeric_settings(config)
    if settings["deterministic"]:
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    torch.use_deterministic_algorithms(bool(settings["deterministic"]), warn_only=settings["deterministic"] == "warn")
    torch.backends.cudnn.deterministic = bool(settings["deterministic"])
    torch.backends.cudnn.benchmark = settings["cudnn_benchmark"]
    torch.backends.cudnn.allow_tf32 = torch.backends.cuda.matmul.allow_tf32 = settings["tf32"]


def tune_malloc() -> None:
    """Makes glibc keep freed memory; else it returns each batch's maps to the system, which clears them for the next batch."""
    if sys.platform == "linux":
        with suppress(OSError, AttributeError):  # another C library has no such switch
            libc = ctypes.CDLL(None)
            libc.mallopt(M_MMAP_THRESHOLD, 1 << 30)
            libc.mallopt(M_TRIM_THRESHOLD, (1 << 31) - 1)


def compile_net(net: nn.Module, device: str, warn: Callable[[str], None]) -> bool:
    """Sets the net up to be compiled in place at its first call, with unchanged names of its weights; returns whether it can be.

    Without a working compiler it calls `warn` with a message, and leaves the net unchanged.
    """
    try:
        torch.compile(torch.neg)(torch.zeros(2, device=device))
    except Exception as error:  # the compilers may raise anything
        reason = " ".join(str(error).split()).partition(" Set TORCHDYNAMO")[0]
        warn(f"compile=true: continues without, PyTorch cannot compile here ({reason[:200]})")
        return False
    net.compile()
    return True


def suits_channels_last(config: Config) -> bool:
    """Returns whether convolutions are faster with channels last: on a CPU, and on a GPU's tensor cores in half precision."""
    return config.trainer.accelerator == "cpu" or config.precision in ("bf16", "16")
