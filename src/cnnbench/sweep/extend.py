"""A sweep that there is already, and what is asked of it now: the same, more of it, or another."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any

from cnnbench.config.schema import Config
from cnnbench.errors import ConfigError
from cnnbench.runs.sweep_dir import Job, SweepDir
from cnnbench.sweep.expand import Asked
from cnnbench.sweep.schema import Setting
from cnnbench.text import as_typed, flat, some

ADD = "sweep.extend=true to add to this"


def require_same(sweep: SweepDir, record: dict[str, Any], asked: Asked, earlier: Sequence[Job]) -> None:
    """What is fixed in a sweep of this name has not changed; what varies in it may be typed in part, one value included."""
    before, now = record["fixed"], fixed_beside(asked, record["keys"])
    chosen = _choices_of(earlier[0]) if earlier else {}
    told: dict[str, str] = {}
    for key in unlike(before, now):
        group = key.partition(".")[0]
        was, is_now = chosen.get(group), asked.configs[0].choices.get(group)
        if group in chosen and group not in record["keys"] and (group in asked.keys or was != is_now):
            told[group] = f"{group}: {was}, now {'varied' if group in asked.keys else is_now}"
        else:
            old = as_typed(before[key]) if key in before else "not set"
            told[key] = f"{key}: {old}, now {as_typed(now[key]) if key in now else 'varied'}"
    new = [key for key in asked.keys if key not in record["keys"] and key not in before and key not in told]
    if told or new:
        what = some(list(told.values())) or f"{new[0]} did not vary"
        raise ConfigError(f"{sweep.path}: holds another sweep ({what}); type name=... for a new one, or {ADD}")


def fixed_beside(asked: Asked, keys: Iterable[str]) -> dict[str, Any]:
    """What is asked to be the same in all jobs of a sweep in which these keys vary: of what is in a group's file, what was typed."""
    below = tuple(f"{key}." for key in keys)
    fixed = {key: value for key, value in plain(asked.fixed).items() if key not in keys and not key.startswith(below)}
    return {**fixed, **{key: text for key, text in asked.typed.items() if key.startswith(below) and key not in keys}}


def another(sweep: SweepDir, before: Job, now: Config) -> ConfigError:
    """The same setting of the same sweep has come to another config."""
    try:
        old = flat(Config.load(before.directory.config).deciding())
    except ConfigError:
        old = {}
    new = flat(now.deciding())
    told = [f"{key}: {as_typed(old.get(key))}, now {as_typed(new.get(key))}" for key in unlike(old, new)]
    return ConfigError(
        f"{sweep.path}: {before.name} would be another run now ({some(told)}); type name=... for a new sweep, or {ADD}"
    )


def together(asked: Asked, record: dict[str, Any], earlier: Iterable[Job]) -> tuple[Asked, list[Job]]:
    """The settings of what is asked and of what there is, by the keys that vary in either.

    What is typed with one value, and varies in the sweep, joins the settings that are asked for; what was fixed and is otherwise
    now, where a sweep is extended, joins those of all jobs, earlier ones included.
    """
    before, now = record["fixed"], plain(asked.fixed)
    swept = dict.fromkeys((*record["keys"], *asked.keys))
    below = tuple(f"{key}." for key in swept)
    others = [key for key in unlike(before, now) if key in asked.typed or not key.startswith(below)]
    keys = dict.fromkeys((*swept, *others))

    def complete(setting: Setting, own: Iterable[str], fixed: dict[str, Any], choices: Mapping[str, Any]) -> Setting:
        known = {**choices, **fixed}
        whole = {**{key: known[key] for key in keys if key not in own and key in known}, **setting}
        return {key: whole[key] for key in _seed_last(keys) if key in whole}

    settings = [
        complete(setting, asked.keys, now, config.choices)
        for setting, config in zip(asked.settings, asked.configs, strict=True)
    ]
    jobs = [replace(job, setting=complete(job.setting, record["keys"], before, _choices_of(job))) for job in earlier]
    return replace(asked, keys=tuple(_seed_last(keys)), settings=settings), jobs


def _seed_last(keys: Iterable[str]) -> list[str]:
    return sorted(keys, key=lambda key: key == "seed")


def _choices_of(job: Job) -> dict[str, Any]:
    try:
        return Config.load(job.directory.config).choices
    except ConfigError:
        return {}


def unlike(before: Mapping[str, Any], now: Mapping[str, Any]) -> list[str]:
    """Keys that only one has, or with another value."""
    return [key for key in {**before, **now} if (key in before, before.get(key)) != (key in now, now.get(key))]


def plain(values: Mapping[str, Any]) -> dict[str, Any]:
    """As JSON gives them back."""
    return json.loads(json.dumps(values))
