"""A run directory back to a net, without data set, Lightning or Hydra."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import nn

from cnnbench.complexity.channels_last import arranged
from cnnbench.config.instantiate import construct
from cnnbench.config.schema import Config
from cnnbench.errors import ConfigError
from cnnbench.runs.run_dir import RunDir
from cnnbench.runs.trust import require_known


def load_net(directory: Path | str, trust: bool = False, ema: bool = False) -> tuple[nn.Module, dict[str, Any]]:
    """The net of a run with the weights that were best on validation, in evaluation mode on the CPU, and its data's facts.

    The facts are `channels`, `classes`, `image_size` (pixels a side), `mean` and `std` (per channel, of pixels in 0..1), and
    `fit`, what becomes of a picture that is not square. With `trust` the net may be of code that is not of cnnbench, torch or
    torchvision: it is imported and run. With `ema` the weights are averages, of the epoch in which these were best.

    Raises:
        Untrusted: it is, and `trust` was not given.
        ConfigError: the folder holds no run, or one that has not validated yet, or has kept no average.
    """
    run = RunDir.open(Path(directory))
    path = run.best_ema if ema else run.best
    if ema and run.best.is_file() and not path.is_file():
        raise ConfigError(f"{run.path}: has kept no averaged weights; train with ema=0.99, or leave --ema out")
    checkpoint = load_checkpoint(path)
    try:
        config, weights = Config.restore(checkpoint["config"]), checkpoint["state_dict"]
        facts = {key: checkpoint["data"][key] for key in ("channels", "classes", "image_size", "mean", "std")}
        facts["fit"] = checkpoint["data"].get("fit", "pad")
        if not trust:
            require_known(run.path, config, built=["model"])
        shape = {
            "in_channels": facts["channels"],
            "num_classes": len(facts["classes"]),
            "image_size": facts["image_size"],
        }
        net = construct(config.model, "model", **shape)
        net = arranged(net, config)
        net.load_state_dict(weights)
    except (AttributeError, KeyError, IndexError, TypeError, RuntimeError) as error:
        reason = " ".join(str(error).split())[:200]
        raise ConfigError(f"{path}: does not hold what cnnbench writes ({type(error).__name__}: {reason})") from error
    return net.eval(), facts


def load_checkpoint(path: Path) -> dict[str, Any]:
    """A checkpoint's tensors and plain values, on the CPU; nothing in it is executed."""
    try:
        return torch.load(path, map_location="cpu", weights_only=True)
    except FileNotFoundError:
        raise ConfigError(f"{path}: absent; the run has not validated yet") from None
    except MemoryError:
        raise
    except Exception as error:
        raise ConfigError(f"{path}: not a checkpoint of cnnbench, or damaged ({type(error).__name__})") from error
