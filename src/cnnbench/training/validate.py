"""Turns a config into a frozen run, and finds everything that would stop it before anything is written."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from cnnbench.complexity.channels_last import takes_channels_last
from cnnbench.complexity.layers import count_macs, count_parameters
from cnnbench.config.schema import Config, require_utf8
from cnnbench.config.shipped_parts import part_name
from cnnbench.data.datamodule import ImageData
from cnnbench.data.sets.imagefolder import TEST_SHARE
from cnnbench.errors import ConfigError
from cnnbench.models.build_limit import build_limit
from cnnbench.text import canonical_json, one_line, safe_filename, to_override
from cnnbench.training.checks import check_augment, check_batch_parts, check_net, check_weights_fit, recipe_hint
from cnnbench.training.factories import (
    build_net,
    build_optimizer,
    build_scheduler,
    configure_batches,
    data_for_net,
    step_counts,
)
from cnnbench.training.hardware import resolve_hardware, resolve_pipeline

FIRST_DROP = {"step": "every_epochs", "multistep": "milestones"}  # schedule -> the key of its first drop, in epochs


@dataclass(frozen=True)
class Prepared:
    """A run that has passed every check.

    Attributes:
        config: with every `auto` resolved.
        data: with its train images in memory.
        params, macs: parameters of the net, and multiply-accumulates for one image.
        pipeline_reason: why the images are kept where they are.
        warnings: what the run does that the user may not have meant.
    """

    config: Config
    data: ImageData
    params: int
    macs: int
    pipeline_reason: str
    warnings: tuple[str, ...] = ()


@dataclass(frozen=True)
class NetFacts:
    """Facts from running a net once: parameters, multiply-accumulates, and whether it takes its channels last in memory."""

    params: int
    macs: int
    channels_last: bool


class DataAndModelCache:
    """Keeps the data and the net's facts of one config for others: many jobs of a sweep share them.

    Args:
        download: whether absent files of a data set are downloaded; False: they are an error.
    """

    def __init__(self, download: bool = True) -> None:
        self.download = download
        self._data: dict[str, ImageData] = {}
        self._nets: dict[str, NetFacts] = {}

    def data(self, config: Config) -> ImageData:
        """Returns the data of a config with its train images read; keeps the last data only."""
        data = data_for_net(config)
        steps = [step.as_dict() for step in config.augment.values()]
        key = canonical_json([config.data.as_dict(), data.image_size, steps])
        if key not in self._data:
            self._data.clear()
            if not self.download:
                data.require_files()
            data.prepare_data()
            data.setup("fit")
            self._data[key] = data
        return configure_batches(self._data[key], config)

    def net(self, config: Config, data: ImageData) -> NetFacts:
        """Returns the facts of a config's net, which is built, run and checked the first time."""
        key = canonical_json([config.model.as_dict(), config.init, config.init_std, data.shape, data.num_classes])
        if key not in self._nets:
            self._nets[key] = measure_net(config, data)
        return self._nets[key]


def prepare(config: Config, cache: DataAndModelCache | None = None) -> Prepared:
    """Resolves every `auto`, reads the train images, builds and runs the net once on the meta device.

    The name `auto` becomes `<model>_<data>`, in characters that a folder's name may have, at most 80.

    Args:
        config: composed.
        cache: shared with other configs.

    Raises:
        ConfigError: anything that would stop the run.
    """
    cache = cache or DataAndModelCache()
    hardware = resolve_hardware(config)
    accelerator = hardware.pop("accelerator")
    data = cache.data(config)
    check_augment(data)
    data.pipeline, pipeline_reason = resolve_pipeline(config, data, accelerator)
    labels = [config.choices.get(group, group) for group in ("model", "data")]
    name = safe_filename("_".join(labels))[:80] if config.name == "auto" else config.name
    resolved = ("image_size", "mean", "std", "pipeline")
    root = str(data.root.resolve())
    require_utf8("data.root", root)
    typed_root = None if config.data.root == "auto" else config.data.root
    if config.data.fingerprint:  # a frozen config, whose root is resolved already
        typed_root = config.data.typed_root
    data_keys: dict[str, Any] = {"root": root, "typed_root": typed_root}
    data_keys |= {key: getattr(data, key) for key in resolved}
    data_keys["fingerprint"] = None if data.missing else data.fingerprint
    frozen = config.model_copy(
        update={
            **hardware,
            "data": config.data.model_copy(update=data_keys),
            "trainer": config.trainer.model_copy(update={"accelerator": accelerator}),
            "name": name,
        }
    )
    check_batch_parts(frozen, data)
    net = cache.net(frozen, data)
    check_weights_fit(net.params, config.model.target)
    # convolutions are faster with channels last on a CPU, and on a GPU's tensor cores in half precision
    faster = accelerator == "cpu" or frozen.precision in ("bf16", "16")
    frozen = frozen.model_copy(update={"channels_last": net.channels_last and faster})
    with recipe_hint(frozen, "optimizer"):
        optimizer = build_optimizer(frozen, nn.Linear(1, 1))
    with recipe_hint(frozen, "scheduler"):
        build_scheduler(frozen, data, optimizer)
    return Prepared(frozen, data, net.params, net.macs, pipeline_reason, config_warnings(frozen, data))


def measure_net(config: Config, data: ImageData) -> NetFacts:
    """Builds the net of a config on the meta device, which takes no memory, runs it on a batch of 2, and checks its output.

    A net that cannot be built or run there is run on the CPU.

    Raises:
        ConfigError: it cannot be built or run, or has another output than one logit a class.
    """
    for device in ("meta", "cpu"):
        try:
            with build_limit(), torch.device(device):
                net, images = build_net(config, data).eval(), torch.zeros(2, *data.shape)
                with torch.no_grad():
                    output = net(images)
            break
        except ConfigError:
            raise
        except Exception as error:  # a user's net may raise anything, on the meta device also where it works elsewhere
            if device == "cpu":
                raise ConfigError(
                    f"model: {config.model.target.rpartition('.')[2]} does not take images of {'×'.join(map(str, data.shape))} "
                    f"(C×H×W): {one_line(error)}; change the net or data.image_size"
                ) from error
    shape = tuple(output.shape) if isinstance(output, torch.Tensor) else (type(output).__name__,)
    check_net(net, shape, data)
    return NetFacts(count_parameters(net), count_macs(net, data.shape), takes_channels_last(net, images))


def config_warnings(config: Config, data: ImageData) -> tuple[str, ...]:
    """Returns warnings about a frozen config: keys without an effect, and a learning rate that never drops."""
    return (*unused_keys(config, data), *late_drop(config, data))


def unused_keys(config: Config, images: ImageData) -> Iterator[str]:
    """Yields a warning for each key that has another value than its default, and no effect with the others."""
    data = config.data
    draws_val = data.val_size is None and "val" not in images.given_splits
    draws_split = draws_val or data.fraction < 1 or data.label_noise
    for key, value, default, is_used, users in (
        ("init_std", config.init_std, 0.01, config.init == "normal", "init=normal"),
        ("data.split_seed", data.split_seed, 0, draws_split, "data.val_size=null, data.fraction and data.label_noise"),
        (
            "data.test_share",
            data.arguments.get("test_share", TEST_SHARE),
            TEST_SHARE,
            "test" not in images.given_splits,
            "a data.root without a folder test",
        ),
        (
            "optimizer.decay",
            config.optimizer.decay,
            "all",
            config.optimizer.weight_decay,
            "optimizer.weight_decay above 0",
        ),
    ):
        if value != default and not is_used:
            yield f"{key}={to_override(value)}: has no effect here; it is used with {users} only"


def late_drop(config: Config, data: ImageData) -> tuple[str, ...]:
    """Returns a warning if the learning rate never drops."""
    key = FIRST_DROP.get(part_name(config.scheduler.target), "")
    at: Any = config.scheduler.arguments.get(key)
    if at is None or at == []:
        return ()
    per_epoch, total = step_counts(config, data)
    if round((min(at) if isinstance(at, list) else at) * per_epoch) < total:
        return ()
    return (
        f"scheduler.{key}={to_override(at)}: the learning rate never drops, as the run has {total / per_epoch:g} epochs; "
        f"type a smaller scheduler.{key}, or scheduler=constant",
    )
