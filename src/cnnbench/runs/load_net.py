"""Loads the trained net of a run directory, without its data set, Lightning or Hydra."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import nn

from cnnbench.complexity.channels_last import to_memory_format
from cnnbench.config.instantiate import construct
from cnnbench.config.schema import Config
from cnnbench.errors import ConfigError
from cnnbench.runs.run_dir import RunDir
from cnnbench.runs.trust import require_trusted_parts


def load_net(directory: Path | str, trust: bool = False, ema: bool = False) -> tuple[nn.Module, dict[str, Any]]:
    """Loads the net with the weights that were best on validation, in evaluation mode on the CPU, and the facts of its data.

    Args:
        directory: of the run.
        trust: import and run code from outside cnnbench, torch and torchvision, if the run's config names it.
        ema: load the averaged weights, of the epoch in which they were best on validation.

    Returns:
        The net, and a dict with `channels`, `classes`, `image_size` (pixels per side), `mean` and `std` (per channel, of pixels
        between 0 and 1), and `fit` (how an image that is not square is made square).

    Raises:
        Untrusted: the config names such code, and `trust` is false.
        ConfigError: the directory holds no run, no validated weights, or no averaged ones.
    """
    run = RunDir.open(Path(directory))
    path = run.best_ema if ema else run.best
    if ema and run.best.is_file() and not path.is_file():
        raise ConfigError(f"{run.path}: has no averaged weights; train with ema=0.99, or leave --ema out")
    checkpoint = load_checkpoint(path)
    try:
        config, data = Config.from_saved(checkpoint["config"]), {"fit": "pad", **checkpoint["data"]}
        facts = {key: data[key] for key in ("channels", "classes", "image_size", "mean", "std", "fit")}
        if not trust:
            require_trusted_parts(run.path, config, built=["model"])
        net = construct(
            config.model,
            "model",
            in_channels=facts["channels"],
            num_classes=len(facts["classes"]),
            image_size=facts["image_size"],
        )
        net = to_memory_format(net, config)
        net.load_state_dict(checkpoint["state_dict"])
    except (AttributeError, KeyError, IndexError, TypeError, RuntimeError) as error:
        reason = f"{type(error).__name__}: {' '.join(str(error).split())[:200]}"
        raise ConfigError(f"{path}: not a checkpoint that cnnbench wrote ({reason})") from error
    return net.eval(), facts


def load_checkpoint(path: Path) -> dict[str, Any]:
    """Loads the tensors and plain values of a checkpoint to the CPU; executes no code of it.

    Raises:
        ConfigError: the file is absent, damaged or not a checkpoint.
    """
    try:
        return torch.load(path, map_location="cpu", weights_only=True)
    except FileNotFoundError:
        raise ConfigError(f"{path}: absent; the run has not validated yet") from None
    except MemoryError:
        raise
    except Exception as error:
        raise ConfigError(f"{path}: not a checkpoint of cnnbench, or damaged ({type(error).__name__})") from error
