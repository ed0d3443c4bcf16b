"""Resolves the keys that depend on the machine: accelerator, precision, determinism, threads, and where images are kept."""

from __future__ import annotations

from typing import Any, Literal

import psutil
import torch

from cnnbench.config.schema import Config
from cnnbench.data.datamodule import ImageData
from cnnbench.errors import ConfigError
from cnnbench.runs.environment import require_cores


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
    if precision == "auto" and accelerator == "cpu":
        precision = "32"
    elif precision == "auto":  # the 16-bit format that this GPU computes in
        precision = "bf16" if torch.cuda.is_bf16_supported(including_emulation=False) else "16"
    threads = max(1, torch.get_num_threads() // config.trainer.devices)
    return {
        "accelerator": accelerator,
        "precision": precision,
        "deterministic": accelerator == "cpu" if config.deterministic == "auto" else config.deterministic,
        "threads": threads if config.threads == "auto" else config.threads,
    }


def check_hardware(config: Config, accelerator: str) -> None:
    """Checks that this machine has the devices of a config, and that its keys suit the resolved accelerator."""
    if accelerator == "gpu":
        seen, devices = torch.cuda.device_count(), config.trainer.devices
        if not torch.cuda.is_available():
            raise ConfigError(f"trainer.accelerator=gpu: PyTorch {torch.__version__} sees no GPU; type trainer=cpu")
        if devices > seen:
            gpus = "1 GPU" if seen == 1 else f"{seen} GPUs"
            raise ConfigError(
                f"trainer.devices={devices}: PyTorch sees {gpus} here; type trainer.devices={seen}, or trainer=cpu"
            )
        return
    require_cores(config.trainer.devices)
    if config.trainer.sync_batchnorm:
        raise ConfigError("trainer.sync_batchnorm=true: PyTorch has it for GPUs only, this run uses a CPU; type false")
    if config.precision == "16":
        raise ConfigError("precision=16: half precision needs a GPU; on a CPU type precision=bf16 or precision=32")


def resolve_pipeline(config: Config, data: ImageData, accelerator: str) -> tuple[Literal["device", "memory"], str]:
    """Returns where the images are kept, and why; `auto`: on the GPU if they take less than half of its memory.

    The reason compares the images with the free memory of the device, in MB.

    Raises:
        ConfigError: `data.pipeline=device` without a GPU.
    """
    pipeline, reason = config.data.pipeline, "there is no GPU"
    size = sum(images.nbytes for images in data.images.values())
    if accelerator == "gpu":
        half = torch.cuda.get_device_properties(0).total_memory / 2
        if pipeline == "device" or (pipeline == "auto" and size < half):
            return "device", f"{size / 1e6:,.0f} MB of images, half of the GPU's memory is {half / 1e6:,.0f} MB"
        reason = "set by the user" if pipeline == "memory" else "more than half of the GPU's memory"
    elif pipeline == "device":
        raise ConfigError(
            "data.pipeline=device: keeps the images on a GPU, this run uses a CPU; type data.pipeline=memory"
        )
    free = psutil.virtual_memory().available
    fits = "fit in" if size < free else "do not fit in, and are read from the disk when they are needed:"
    return "memory", f"{reason}; {size / 1e6:,.0f} MB of images {fits} {free / 1e6:,.0f} MB of free memory"
