"""PyTorch's switches between repeatable bits and speed: the key `deterministic`, and what follows from the device."""

from __future__ import annotations

import ctypes
import os
from collections.abc import Callable
from contextlib import suppress

import torch
from torch import nn

from cnnbench.config.schema import Config
from cnnbench.text import Values, one_line

M_TRIM_THRESHOLD, M_MMAP_THRESHOLD = -1, -3  # of malloc.h


def numeric_settings(config: Config) -> Values:
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
    if config.deterministic:
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    torch.use_deterministic_algorithms(bool(config.deterministic), warn_only=config.deterministic == "warn")
    torch.backends.cudnn.deterministic = bool(config.deterministic)
    torch.backends.cudnn.benchmark = settings["cudnn_benchmark"]
    torch.backends.cudnn.allow_tf32 = torch.backends.cuda.matmul.allow_tf32 = settings["tf32"]


def tune_malloc() -> None:
    """Makes glibc keep freed memory; else it returns each batch's maps to the system, which clears them for the next batch."""
    with suppress(OSError, AttributeError, TypeError):  # another C library has no such switch
        libc = ctypes.CDLL(None)
        libc.mallopt(M_MMAP_THRESHOLD, 1 << 30)
        libc.mallopt(M_TRIM_THRESHOLD, (1 << 31) - 1)


def compile_net(net: nn.Module, config: Config, warn: Callable[[str], None]) -> bool:
    """Sets the net up to be compiled in place at its first call, with unchanged names of its weights; returns whether it can be.

    Without a working compiler it calls `warn` with a message, and leaves the net unchanged.
    """
    try:
        torch.compile(torch.neg)(torch.zeros(2, device="cuda" if config.trainer.accelerator == "gpu" else "cpu"))
    except Exception as error:  # the compilers may raise anything
        reason = one_line(error).partition(" Set TORCHDYNAMO")[0]
        warn(f"compile=true: PyTorch cannot compile here, the run continues uncompiled ({reason[:200]})")
        return False
    net.compile()
    return True
