"""Where a run's arithmetic happens, and where its images are kept."""

from __future__ import annotations

from typing import Any, Literal

import psutil
import torch

from cnnbench.config.schema import Config
from cnnbench.data.datamodule import ImageData
from cnnbench.errors import ConfigError


def resolve_hardware(config: Config) -> dict[str, Any]:
    """Accelerator, precision, determinism and threads as they will be."""
    cuda = torch.cuda.is_available()
    accelerator = config.trainer.accelerator
    if accelerator == "gpu" and not cuda:
        raise ConfigError(f"trainer.accelerator=gpu: PyTorch {torch.__version__} sees no GPU; type trainer=cpu")
    if accelerator == "auto":
        accelerator = "gpu" if cuda else "cpu"
    devices = config.trainer.devices
    if accelerator == "gpu" and devices > (seen := torch.cuda.device_count()):
        raise ConfigError(
            f"trainer.devices={devices}: PyTorch sees {seen} GPU{'s' * (seen > 1)} here; type trainer.devices={seen}, or trainer=cpu"
        )
    if accelerator == "cpu" and config.trainer.sync_batchnorm:
        raise ConfigError(
            "trainer.sync_batchnorm=true: PyTorch has it for GPUs only, and this run has none; type false"
        )
    precision: str = config.precision
    if precision == "auto":
        precision = "32" if accelerator == "cpu" else _half_precision()
    if precision == "16" and accelerator == "cpu":
        raise ConfigError("precision=16: half precision needs a GPU; on a CPU type precision=bf16 or precision=32")
    return {
        "accelerator": accelerator,
        "precision": precision,
        "deterministic": accelerator == "cpu" if config.deterministic == "auto" else config.deterministic,
        "threads": max(1, torch.get_num_threads() // devices) if config.threads == "auto" else config.threads,
    }


def _half_precision() -> str:
    return "bf16" if torch.cuda.is_bf16_supported(including_emulation=False) else "16"


def resolve_pipeline(config: Config, data: ImageData, accelerator: str) -> tuple[Literal["device", "memory"], str]:
    """Where the images are kept, and why; `auto`: on the GPU where they take less than half of its memory."""
    asked = config.data.pipeline
    held = sum(images.nbytes for images in data.images.values())
    if accelerator == "cpu":
        if asked == "device":
            raise ConfigError(
                "data.pipeline=device: keeps the images on a GPU, and this run has none; type data.pipeline=memory"
            )
        return "memory", f"there is no GPU; {_in_memory(held)}"
    room = torch.cuda.get_device_properties(0).total_memory / 2
    if asked == "device" or (asked == "auto" and held < room):
        return "device", f"{held / 1e6:,.0f} MB of images, half of the GPU's memory is {room / 1e6:,.0f} MB"
    return "memory", f"{'asked for' if asked == 'memory' else 'more than half of the GPU memory'}; {_in_memory(held)}"


def _in_memory(held: int) -> str:
    """How images of so many bytes are read."""
    free = psutil.virtual_memory().available
    fits = "fit in" if held < free else "do not fit in, and are read from the disk as they are needed:"
    return f"{held / 1e6:,.0f} MB of images {fits} {free / 1e6:,.0f} MB of free memory"
