"""Freezes the jobs of a sweep: each is prepared as its own run will be, and nothing is trained or written.

Runs in a process of its own, from the fork server that starts the jobs later: the launcher needs no torch, and never meets a GPU.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Literal

from cnnbench.config.compose import groups
from cnnbench.config.schema import OUTSIDE_IDENTITY, Config
from cnnbench.config.trusted_names import foreign_modules
from cnnbench.distributed.fork_server import elsewhere
from cnnbench.runs.environment import code_version
from cnnbench.sweep.expand import Asked, label, of_job
from cnnbench.sweep.slots import Slots, slots_here
from cnnbench.text import canonical

if TYPE_CHECKING:
    from cnnbench.training.validate import Prepared

# what can be wrong with a run does not depend on these
APART = ("seed", "name", "runs_dir", "resume", "choices", "swept")


@dataclass(frozen=True)
class Frozen:
    """A job that is known to work.

    Attributes:
        config: with every `auto` resolved.
        params, macs: of its net.
        image: the net's input (C, H, W).
        n: images of each split.
        steps: of the optimizer, in all.
        code: stands for cnnbench's sources, and for those of what the config names besides.
    """

    config: Config
    params: int
    macs: int
    image: tuple[int, int, int]
    n: dict[str, int]
    steps: int
    code: str


def freeze(asked: Asked, progress: Callable[[int], None] | None = None) -> tuple[list[Frozen], Slots]:
    """The frozen form of every job, in their order, and the slots that they will run in.

    Args:
        asked: the jobs, composed.
        progress: is told how many are done.

    Raises:
        ConfigError: a job that cannot run.
    """
    undecisive = [key for key in asked.keys if key in OUTSIDE_IDENTITY]
    known = groups()
    labels = [label(setting, known) for setting in asked.settings]
    return elsewhere(_freeze, asked.configs, labels, undecisive, asked.policy.slots, progress=progress)


def _freeze(
    configs: list[Config],
    labels: list[str],
    undecisive: list[str],
    asked: int | Literal["auto"],
    progress: Callable[[int], None],
) -> tuple[list[Frozen], Slots]:
    from cnnbench.training.validate import Known, prepare

    slots = slots_here(asked, configs)
    known, alike, frozen = Known(), {}, {}
    # those that share their images come together: they are read once
    order = sorted(range(len(configs)), key=lambda at: _of(configs[at], "data", "augment"))
    for done, at in enumerate(order):
        config = configs[at]
        key = _of(config, *(name for name in Config.model_fields if name not in APART))
        if key not in alike:
            threads = slots.threads if config.threads == "auto" else config.threads
            with of_job(labels[at], len(configs)):
                alike[key] = _frozen(prepare(config.model_copy(update={"threads": threads}), known))
        first = alike[key]
        own = {name: getattr(config, name) for name in APART}
        frozen[at] = replace(first, config=first.config.model_copy(update={**own, "swept": undecisive}))
        progress(done + 1)
    return [frozen[at] for at in range(len(configs))], slots


def _frozen(prepared: Prepared) -> Frozen:
    from cnnbench.training.factories import steps

    config, data = prepared.config, prepared.data
    return Frozen(
        config,
        prepared.params,
        prepared.macs,
        data.shape,
        {split: len(data.indices[split]) for split in ("train", "val", "test")},
        steps(config, data)[1],
        code_version(foreign_modules(config)),
    )


def _of(config: Config, *names: str) -> str:
    values = config.as_dict()
    return canonical([values.get(name) for name in names])
