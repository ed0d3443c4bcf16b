"""Resolves the keys that depend on the machine: accelerator, precision, determinism, threads, and where images are kept."""

from __future__ import annotations

from typing import Any, Literal

import psutil
import torch

from cnnbench.config.schema import Config
from cnnbench.data.datamodule import ImageData
from cnnbench.training.checks import check_hardware, check_pipeline


def resolve_hardware(config: Config) -> dict[str, Any]:
    """Returns accelerator, precision, deterministic and threads with every `auto` resolved.

    Raises:
        ConfigError: this machine lacks what the config asks for.
    """
    accelerator: str = config.trainer.accelerator
    if accelerator == "auto":
        accelerator = "gpu" if torch.cuda.is_available() else "cpu"
    check_hardware(config, accelerator)
    precision: str = config.precision
    if precision == "auto":
        precision = "32" if accelerator == "cpu" else _half_precision()
    threads = config.threads
    if threads == "auto":
        threads = max(1, torch.get_num_threads() // config.trainer.devices)
    return {
        "accelerator": accelerator,
        "precision": precision,
        "deterministic": accelerator == "cpu" if config.deterministic == "auto" else config.deterministic,
        "threads": threads,
    }


def _half_precision() -> str:
    """Returns the 16-bit format that this GPU computes in."""
    return "bf16" if torch.cuda.is_bf16_supported(including_emulation=False) else "16"


def resolve_pipeline(config: Config, data: ImageData, accelerator: str) -> tuple[Literal["device", "memory"], str]:
    """Returns where the images are kept, and why; `auto`: on the GPU if they take less than half of its memory.

    Raises:
        ConfigError: `data.pipeline=device` without a GPU.
    """
    check_pipeline(config, accelerator)
    pipeline = config.data.pipeline
    size = sum(images.nbytes for images in data.images.values())
    if accelerator == "cpu":
        return "memory", f"there is no GPU; {_memory_needed(size)}"
    half = torch.cuda.get_device_properties(0).total_memory / 2
    if pipeline == "device" or (pipeline == "auto" and size < half):
        return "device", f"{size / 1e6:,.0f} MB of images, half of the GPU's memory is {half / 1e6:,.0f} MB"
    reason = "set by the user" if pipeline == "memory" else "more than half of the GPU's memory"
    return "memory", f"{reason}; {_memory_needed(size)}"


def _memory_needed(size: int) -> str:
    """Compares the bytes of the images with the free memory."""
    free = psutil.virtual_memory().available
    fits = "fit in" if size < free else "do not fit in, and are read from the disk when they are needed:"
    return f"{size / 1e6:,.0f} MB of images {fits} {free / 1e6:,.0f} MB of free memory"
