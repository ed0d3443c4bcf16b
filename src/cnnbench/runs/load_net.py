"""Loads the trained net of a run directory, without its data set, Lightning or Hydra."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

import psutil
import torch
from pydantic import FiniteFloat
from torch import Tensor, nn

from cnnbench.complexity.channels_last import to_memory_format
from cnnbench.config.instantiate import construct
from cnnbench.config.schema import MAX_SIDE, Config, Count, Keys, Positive, key
from cnnbench.config.yaml_file import require_few_values
from cnnbench.errors import ConfigError, Untrusted
from cnnbench.models.build_limit import OutputLimit, build_limit
from cnnbench.models.weights import nonfinite_weight, weights_misfit
from cnnbench.runs.checkpoint import load_checkpoint
from cnnbench.runs.run_dir import RunDir
from cnnbench.runs.trust import require_trusted_parts, without_weights
from cnnbench.text import Values, one_line, to_override

MAX_CHANNELS = 65_536  # of an image
MOST_VALUES = 1_000_000  # of the data's facts, as the names of the classes
SPARE_BYTES = 64 << 20  # of layers that a net makes and removes, as auxiliary heads


class DataFacts(Keys):
    """What a checkpoint says of the images that its net takes."""

    channels: Count = key(f"an integer from 1 to {MAX_CHANNELS}", 3, le=MAX_CHANNELS)
    classes: list[str] = key("the names of the classes", "[cat,dog]", min_length=1)
    image_size: Count = key(f"pixels a side, an integer from 1 to {MAX_SIDE}", 32, le=MAX_SIDE)
    mean: list[FiniteFloat] = key("a number for each channel", "[0.5]")
    std: list[Positive] = key("a number above 0 for each channel", "[0.5]")
    fit: Literal["pad", "crop", "stretch"] = key("pad, crop or stretch", "pad", default="pad")


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
        ConfigError: the directory holds no run, no validated weights, or no averaged ones; or a checkpoint that cnnbench did not write.
    """
    net, facts, _ = load_net_and_config(RunDir.open(Path(directory)), trust, ema)
    return net, facts


def load_net_and_config(run: RunDir, trust: bool, ema: bool) -> tuple[nn.Module, dict[str, Any], Config]:
    """Loads what `load_net` returns, and the config in the checkpoint, which has been checked."""
    path = run.best_ema if ema else run.best
    if ema and run.best.is_file() and not path.is_file():
        raise ConfigError(f"{run.path}: has no averaged weights; train with ema=0.99, or leave --ema out")
    checkpoint = load_checkpoint(path)
    try:
        config, facts = _config_and_facts(checkpoint)
        if not trust:
            require_trusted_parts(run.path, config, built=["model"])
        given = {"in_channels": facts["channels"], "num_classes": len(facts["classes"])}
        given["image_size"] = facts["image_size"]
        node, weights = without_weights(config.model), checkpoint["state_dict"]
        if not trust:
            _try_on_meta_device(config, given, weights)
        net = to_memory_format(construct(node, "model", **given), config)
        if reason := weights_misfit(net, weights):
            raise ConfigError(f"{type(net).__name__} does not fit its weights: {reason}")
        net.load_state_dict(weights)
        if name := nonfinite_weight(net):
            raise ConfigError(f"{name} has numbers that are infinite or NaN")
    except (Untrusted, MemoryError):
        raise
    except ConfigError as error:
        raise ConfigError(f"{path}: not a checkpoint that cnnbench wrote ({error})") from error
    except Exception as error:  # a net of somebody else may raise anything
        raise ConfigError(
            f"{path}: not a checkpoint that cnnbench wrote ({type(error).__name__}: {one_line(error)[:200]})"
        ) from error
    return net.eval(), facts, config


def _config_and_facts(checkpoint: Values) -> tuple[Config, Values]:
    """Checks the config in a checkpoint and the facts of its data, and that they agree.

    Raises:
        ConfigError: a value is wrong, or both state a fact differently.
        KeyError, TypeError, ValueError: one is absent, no dict, or nested too deeply.
    """
    values, data = checkpoint["config"], checkpoint["data"]
    require_few_values(data, MOST_VALUES)
    config = Config.from_saved(values)
    facts = DataFacts.from_values({name: data[name] for name in DataFacts.model_fields if name in data}).as_dict()
    for name in ("mean", "std"):
        if len(facts[name]) != facts["channels"]:
            raise ConfigError(
                f"{name}={to_override(facts[name])}: expected a number for each of {facts['channels']} channels"
            )
    stated = config.data.as_dict()
    for name, fact in facts.items():
        if name != "classes" and stated.get(name, fact) not in ("auto", fact):
            raise ConfigError(f"{name}={to_override(fact)}, but its config has data.{name}={to_override(stated[name])}")
    return config, facts


def _try_on_meta_device(config: Config, given: Values, weights: Any) -> None:
    """Builds the net of somebody else and runs it where both take no memory, and compares it with its weights and classes.

    A net that cannot be built there, as torchvision's RegNet, is built on the CPU, and run on the meta device.

    Args:
        config: of the checkpoint.
        given: the arguments that no config may set.
        weights: of the checkpoint.

    Raises:
        ConfigError: it has more layers or numbers than its weights can have, other weights, or wrong or too large outputs.
    """
    if not isinstance(weights, dict):
        raise ConfigError(f"its weights are a {type(weights).__name__}, expected tensors by name")
    size = sum(value.numel() * value.element_size() for value in weights.values() if isinstance(value, Tensor))
    node = without_weights(config.model)
    with build_limit(1000 + 10 * len(weights), 2 * size + SPARE_BYTES):
        try:
            with torch.device("meta"):
                net = construct(node, "model", **given)
        except ConfigError:
            raise
        except Exception:
            net = construct(node, "model", **given)
    if reason := weights_misfit(net, weights):
        raise ConfigError(f"{type(net).__name__} does not fit its weights: {reason}")
    channels, classes, side = given["in_channels"], given["num_classes"], given["image_size"]
    try:
        with OutputLimit(psutil.virtual_memory().total), torch.no_grad():
            output = net.to("meta").eval()(torch.zeros(1, channels, side, side, device="meta"))
    except RuntimeError as error:
        raise ConfigError(
            f"{type(net).__name__} does not take images of {channels}×{side}×{side} ({one_line(error)[:200]})"
        ) from error
    if not isinstance(output, Tensor) or output.shape != (1, classes):
        found = list(output.shape) if isinstance(output, Tensor) else f"a {type(output).__name__}"
        raise ConfigError(f"{type(net).__name__} gives {found} for an image, expected [1, {classes}]")
