"""Checks a new launch against an existing sweep, and extends it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any

from cnnbench.config.schema import Config
from cnnbench.errors import ConfigError
from cnnbench.runs.schema import SweepRecord
from cnnbench.runs.sweep_dir import Job, SweepDir
from cnnbench.sweep.expand import SweepRequest
from cnnbench.sweep.schema import Setting
from cnnbench.text import first_few, flatten, to_override

EXTEND_HINT = "sweep.extend=true to add to this"


def check_same_sweep(sweep: SweepDir, record: SweepRecord, request: SweepRequest, earlier: Sequence[Job]) -> None:
    """Checks that a request has the fixed keys of the sweep in its directory; of the swept keys it may have a part.

    A key is fixed if neither the request nor the sweep varies it. Of the keys below a swept group, only typed ones count.

    Raises:
        ConfigError: the directory holds another sweep; names the differences.
    """
    before, swept = record.fixed, record.keys
    below = tuple(f"{key}." for key in swept)
    now = {key: value for key, value in request.fixed.items() if key not in swept and not key.startswith(below)}
    now |= {key: text for key, text in request.typed.items() if key.startswith(below) and key not in swept}
    choices = _choices(earlier[0]) if earlier else {}
    differences: dict[str, str] = {}
    for key in differing_keys(before, now):
        group = key.partition(".")[0]
        old, new = choices.get(group), request.configs[0].choices.get(group)
        if group in choices and group not in swept and (group in request.keys or old != new):
            differences[group] = f"{group}: {old}, now {'varied' if group in request.keys else new}"
        else:
            old = to_override(before[key]) if key in before else "not set"
            differences[key] = f"{key}: {old}, now {to_override(now[key]) if key in now else 'varied'}"
    added = [key for key in request.keys if key not in (*swept, *before, *differences)]
    if differences or added:
        what = first_few(list(differences.values())) or f"{added[0]} did not vary"
        raise ConfigError(f"{sweep.path}: holds another sweep ({what}); type name=... for a new one, or {EXTEND_HINT}")


def changed_job_error(sweep: SweepDir, before: Job, now: Config) -> ConfigError:
    """The error for a setting of the sweep that now has another config than its run on disk."""
    earlier = before.directory.readable_config()
    old, new = flatten(earlier.identity_values()) if earlier else {}, flatten(now.identity_values())
    changes = [
        f"{key}: {to_override(old.get(key))}, now {to_override(new.get(key))}" for key in differing_keys(old, new)
    ]
    return ConfigError(
        f"{sweep.path}: {before.name} would be another run now ({first_few(changes)}); "
        f"type name=... for a new sweep, or {EXTEND_HINT}"
    )


def merge_settings(
    request: SweepRequest, record: SweepRecord, earlier: Iterable[Job]
) -> tuple[SweepRequest, list[Job]]:
    """Merges requested and existing settings over the union of their swept keys.

    A key with one value in the request that the sweep varies joins the requested settings. A fixed key of the sweep that has another
    value in the request, as when the sweep is extended, joins the settings of all jobs.

    Returns:
        the request and the earlier jobs, with complete settings.
    """
    before, now = record.fixed, request.fixed
    keys = dict.fromkeys((*record.keys, *request.keys))
    below = tuple(f"{key}." for key in keys)
    keys |= dict.fromkeys(
        key for key in differing_keys(before, now) if key in request.typed or not key.startswith(below)
    )
    ordered = sorted(keys, key=lambda key: key == "seed")  # the seed is last

    def complete(setting: Setting, swept: Iterable[str], known: Mapping[str, Any]) -> Setting:
        whole = {**{key: known[key] for key in keys if key not in swept and key in known}, **setting}
        return {key: whole[key] for key in ordered if key in whole}

    settings = [
        complete(setting, request.keys, {**config.choices, **now})
        for setting, config in zip(request.settings, request.configs, strict=True)
    ]
    added = keys.keys() - record.keys
    jobs = [
        replace(job, setting=complete(job.setting, record.keys, {**(_choices(job) if added else {}), **before}))
        for job in earlier
    ]
    return replace(request, keys=tuple(ordered), settings=settings), jobs


def _choices(job: Job) -> Mapping[str, str]:
    config = job.directory.readable_config()
    return config.choices if config else {}


def differing_keys(before: Mapping[str, Any], now: Mapping[str, Any]) -> list[str]:
    """The keys that only one of both has, or that have another value in the other."""
    return [key for key in {**before, **now} if (key in before, before.get(key)) != (key in now, now.get(key))]
