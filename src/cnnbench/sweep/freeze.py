"""Freezes the jobs of a sweep: prepares each as its run will, without training or writing a run.

Call it in a process of the fork server that later starts the jobs: so the launcher imports no torch and initializes no GPU.
"""

from __future__ import annotations

from contextlib import nullcontext
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from cnnbench.config.schema import OUTSIDE_IDENTITY, Config
from cnnbench.config.trusted_names import foreign_modules
from cnnbench.runs.environment import code_version
from cnnbench.runs.part import in_part
from cnnbench.sweep.expand import Progress, SweepRequest, job_in_errors, setting_label
from cnnbench.sweep.slots import Slots, slots_on_this_machine
from cnnbench.text import canonical_json

if TYPE_CHECKING:
    from cnnbench.training.validate import Prepared

# Jobs that differ in these keys alone are prepared once: a run's validity does not depend on them.
INDEPENDENT = ("seed", "name", "runs_dir", "resume", "choices", "swept")


@dataclass(frozen=True)
class FrozenJob:
    """A job whose net and data have been built once, without an error.

    Attributes:
        config: with every `auto` resolved.
        facts: sizes of its net, data and training in plain types, for tables and for the comparison of variants: `params` and
            `macs` of its net, `image` its input [C, H, W], `n` images of each split, `steps` of the optimizer in all, and a
            few keys of the config.
        code: version of cnnbench's sources, and of other modules that the config names.
        download_note: what the run will download, as a sentence; None: nothing.
    """

    config: Config
    facts: dict[str, Any]
    code: str
    download_note: str | None = None


def freeze(request: SweepRequest, writes: bool, progress: Progress) -> tuple[list[FrozenJob], Slots]:
    """Freezes every job, in their order, and finds the slots that they will run in. Imports torch, and initializes a GPU.

    Args:
        request: the jobs, composed.
        writes: download and decode data as a run does; else write nothing, and use the published facts of absent data, whose
            fingerprint is unknown.
        progress: called with a text after each job.

    Raises:
        ConfigError: a job cannot run.
    """
    from cnnbench.data.read_only import read_only
    from cnnbench.training.validate import DataAndModelCache, prepare

    configs, cache = request.configs, DataAndModelCache()
    slots = slots_on_this_machine(request.policy.slots, in_part(configs, request.policy.part))
    swept = [key for key in request.keys if key in OUTSIDE_IDENTITY]
    decisive = [name for name in Config.model_fields if name not in INDEPENDENT]
    by_key: dict[str, FrozenJob] = {}
    frozen: dict[int, FrozenJob] = {}
    # jobs with the same images follow each other, so that these are read once
    order = sorted(range(len(configs)), key=lambda at: _key(configs[at], ["data", "augment"]))
    for done, at in enumerate(order, 1):
        config = configs[at]
        key = _key(config, decisive)
        if key not in by_key:
            threads = slots.threads if config.threads == "auto" else config.threads
            label = setting_label(request.settings[at], request.groups)
            with job_in_errors(label, len(configs)), nullcontext() if writes else read_only():
                by_key[key] = _frozen(prepare(config.model_copy(update={"threads": threads}), cache))
        own = {**{name: getattr(config, name) for name in INDEPENDENT}, "swept": swept}
        frozen[at] = replace(by_key[key], config=by_key[key].config.model_copy(update=own))
        progress(f"checking {done} of {len(configs)} jobs")
    return [frozen[at] for at in range(len(configs))], slots


def _frozen(prepared: Prepared) -> FrozenJob:
    from cnnbench.training.factories import step_counts

    config, data = prepared.config, prepared.data
    facts = {
        "params": prepared.params,
        "macs": prepared.macs,
        "image": list(data.shape),
        "n": {split: len(data.indices[split]) for split in ("train", "val", "test")},
        "steps": step_counts(config, data)[1],
        "epochs": config.epochs,
        "lr": config.optimizer.lr,
        "batch_size": config.batch_size,
        "devices": config.trainer.devices,
        "threads": config.threads,
    }
    return FrozenJob(config, facts, code_version(foreign_modules(config)), data.download_note)


def _key(config: Config, names: list[str]) -> str:
    values = config.as_dict()
    return canonical_json([values.get(name) for name in names])
