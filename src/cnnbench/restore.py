"""A run directory back to a net, without data set, Lightning or Hydra."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import nn

from cnnbench.build import construct
from cnnbench.config import Config
from cnnbench.errors import ConfigError
from cnnbench.rundir import RunDir


def load_net(directory: Path | str) -> tuple[nn.Module, dict[str, Any]]:
    """The net of a run with the weights that were best on validation, in evaluation mode on the CPU, and its data's facts.

    The facts are `channels`, `classes`, `image_size` (pixels a side), `mean` and `std` (per channel, of pixels in 0..1).

    Raises:
        ConfigError: the folder holds no run, or one that has not validated yet.
    """
    checkpoint = load_checkpoint(RunDir.open(Path(directory)).best)
    try:
        config, facts, weights = Config.check(checkpoint["config"]), checkpoint["data"], checkpoint["state_dict"]
    except KeyError as error:
        raise ConfigError(f"{directory}: its best.ckpt was not written by cnnbench, it has no {error}") from error
    net = construct(
        config.model,
        "model",
        in_channels=facts["channels"],
        num_classes=len(facts["classes"]),
        image_size=facts["image_size"],
    )
    net.load_state_dict(weights)
    return net.eval(), facts


def load_checkpoint(path: Path) -> dict[str, Any]:
    """A checkpoint's tensors and plain values, on the CPU; nothing in it is executed."""
    try:
        return torch.load(path, map_location="cpu", weights_only=True)
    except FileNotFoundError:
        raise ConfigError(f"{path}: absent; the run has not validated yet") from None
    except Exception as error:
        raise ConfigError(f"{path}: not a checkpoint of cnnbench, or damaged ({type(error).__name__})") from error
