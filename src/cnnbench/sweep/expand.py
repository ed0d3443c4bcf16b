"""Which jobs a sweep has: what was typed and what an experiment's YAML says, multiplied out, seeds innermost."""

from __future__ import annotations

import hashlib
import itertools
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cnnbench.config.compose import GLOBAL, UNCHOSEN, Composed, check_choices, compose_values, groups
from cnnbench.config.identity import drop_earlier, path_then
from cnnbench.config.overrides import as_override, read_overrides, value_of
from cnnbench.config.schema import OUTSIDE_IDENTITY, Config
from cnnbench.config.shipped_parts import part_name
from cnnbench.errors import ConfigError
from cnnbench.sweep.composer import Composer
from cnnbench.sweep.schema import Setting, SweepKeys
from cnnbench.text import as_typed, canonical, flat, legal, nested

NOT_SWEPT = ("name", "runs_dir", "resume", "experiment")  # of which a sweep has one


@dataclass(frozen=True)
class Asked:
    """What a sweep is to do.

    Attributes:
        keys: the keys that vary, `seed` last; group keys (`model`) among them.
        settings: a value for each of them, per job, in the order in which the jobs are to run; with lists of cells, some may be
            absent.
        configs: of the jobs, composed and checked one by one, not frozen.
        fixed: what is the same in all: dotted keys and values, for one to compare two sweeps of a name.
        typed: what was typed with one value, as it was.
        policy: the sweep's own keys.
        name: of the sweep's folder, in `runs_dir`.
        notes: what one should know, such as jobs that were asked for twice.
    """

    keys: tuple[str, ...]
    settings: list[Setting]
    configs: list[Config]
    fixed: dict[str, Any]
    typed: dict[str, str]
    policy: SweepKeys
    name: str
    runs_dir: Path
    notes: tuple[str, ...]


def ask(
    overrides: Iterable[str],
    config_dir: Path | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> Asked:
    """Multiplies out, composes and checks every job.

    Args:
        overrides: `key=value`, `key=a,b,c`, `key=range(5)`, as typed after `-m`.
        config_dir: a conf folder of the user's own.
        progress: is told how many jobs are composed, and of how many.

    Raises:
        ConfigError: in one line, what is wrong, be it in the last job.
    """
    known = groups(config_dir)
    typed = read_overrides(overrides, known)
    for key in typed.swept:
        if key.lstrip("+") in NOT_SWEPT or key.startswith("sweep."):
            raise ConfigError(
                f"{key}={','.join(map(as_typed, typed.swept[key]))}: a sweep has one {key}; type one value"
            )
    if typed.fixed.get("resume", "resume=auto") != "resume=auto":
        raise ConfigError(f"{typed.fixed['resume']}: a sweep finds its runs by itself; type it without")
    check_choices(typed.fixed.values(), known)
    policy = SweepKeys.check(_of_experiment(typed.fixed, config_dir).values["sweep"])
    mine = {key.lstrip("+"): value_of(text) for key, text in typed.fixed.items() if not key.startswith("~")}
    settings, keys, notes = multiplied(policy, typed.swept, mine)
    base = _base(typed.fixed, keys, known, config_dir)
    check_settings(settings, known)
    composer = Composer([text for key, text in typed.fixed.items() if key.lstrip("+~") not in keys], config_dir, known)
    configs = []
    for number, setting in enumerate(settings):
        with of_job(label(setting, known), len(settings)):
            configs.append(composer(setting))
        if progress:
            progress(number + 1, len(settings))
    fixed = _fixed_part(base, typed.fixed, keys, known)
    name = (
        base.values["name"]
        if base.values["name"] != "auto"
        else _default_name(keys, fixed, Path(base.values["runs_dir"]))
    )
    as_it_was = {key.lstrip("+~"): text.partition("=")[2] for key, text in typed.fixed.items()}
    return Asked(keys, settings, configs, fixed, as_it_was, policy, name, Path(base.values["runs_dir"]), tuple(notes))


def multiplied(
    policy: SweepKeys, swept: dict[str, list[Any]], fixed: Setting
) -> tuple[list[Setting], tuple[str, ...], list[str]]:
    """The settings of an experiment and of what was typed, which wins; their keys; and notes.

    Args:
        policy: of the experiment, or an empty one.
        swept: typed values by key.
        fixed: what was typed with one value.
    """
    mine = {key.lstrip("+") for key in (*swept, *fixed)}
    if "seed" in mine and "sweep.seeds" in fixed:
        raise ConfigError("sweep.seeds: seed is typed, too; type one of them")

    def left(setting: dict[str, Any]) -> dict[str, Any]:
        return {key: value for key, value in setting.items() if key.lstrip("+") not in mine}

    factors = {**left(policy.factors), **{key: values for key, values in swept.items() if key != "seed"}}
    empty = [key for key, values in {**factors, **swept}.items() if not values]
    if empty:
        raise ConfigError(f"{empty[0]}: no value to sweep over")
    seeds = swept.get("seed", _seeds(policy) if "seed" not in mine else None)
    blocks = [left(block) for block in policy.zip]
    axes = [[{key: value} for value in values] for key, values in factors.items()]
    axes += [
        [dict(zip(block, row, strict=True)) for row in zip(*block.values(), strict=True)] for block in blocks if block
    ]
    grid = [_joined(parts) for parts in itertools.product(*axes)] if axes else []
    typed = [[{key: value} for value in values] for key, values in swept.items() if key != "seed"]
    cells = [_joined((left(cell), *parts)) for cell in policy.cells for parts in itertools.product(*typed)]
    if cells and not left(policy.factors) and not any(blocks):
        grid = []  # what was typed multiplies the cells; there is no grid beside them
    every = grid + cells or [{}]
    every = [{**cell, "seed": seed} for cell in every for seed in seeds] if seeds is not None else every
    jobs, notes = _without(every, policy.exclude, fixed)
    distinct = list({canonical(job): job for job in jobs}.values())
    if len(distinct) < len(jobs):
        notes.append(f"{len(jobs) - len(distinct)} of {len(jobs)} jobs were asked for twice, and are run once")
    keys = dict.fromkeys(key.lstrip("+") for job in distinct for key in job if key != "seed")
    return distinct, (*keys, *(["seed"] if any("seed" in job for job in distinct) else [])), notes


def _seeds(policy: SweepKeys) -> list[int] | None:
    return list(range(policy.seeds)) if isinstance(policy.seeds, int) else policy.seeds


def _joined(parts: Iterable[Setting]) -> Setting:
    return {key: value for part in parts for key, value in part.items()}


def _without(settings: list[Setting], excluded: list[Setting], fixed: Setting) -> tuple[list[Setting], list[str]]:
    """The settings that no exclusion covers; a list in an exclusion is one of the key's values, else several of them."""
    lists = {
        canonical([key, value]) for setting in settings for key, value in setting.items() if isinstance(value, list)
    }

    def meant(key: str, value: Any) -> list[Any]:
        return value if isinstance(value, list) and canonical([key, value]) not in lists else [value]

    def covered(setting: Setting, exclusion: Setting) -> bool:
        whole = {**fixed, **setting}
        return all(key in whole and whole[key] in meant(key, value) for key, value in exclusion.items())

    for exclusion in excluded:
        unknown = [key for key in exclusion if key not in fixed and not any(key in setting for setting in settings)]
        if not exclusion or unknown:
            raise ConfigError(f"sweep.exclude: {unknown[0] if unknown else 'an empty setting'} is none of what varies")
    kept = [setting for setting in settings if not any(covered(setting, exclusion) for exclusion in excluded)]
    if not kept:
        raise ConfigError("sweep.exclude: leaves no job")
    left_out = len(settings) - len(kept)
    return kept, [f"{left_out} of {len(settings)} jobs are excluded"] if left_out else []


def check_settings(settings: list[Setting], known: dict[str, dict[str, Path]]) -> None:
    """Every value that is a group's choice exists; told before anything is composed."""
    for key in dict.fromkeys(key for setting in settings for key in setting):
        if key in known:
            values = {canonical(setting[key]): setting[key] for setting in settings if key in setting}
            quoted = [value for value in values.values() if isinstance(value, str) and value.startswith("[")]
            if quoted:
                raise ConfigError(f"{key}: {quoted[0]!r} is a text; in YAML a list has no quotes: [{quoted[0]}]")
            unnamed = [value for value in values.values() if not all(isinstance(name, str) for name in _listed(value))]
            if unnamed:
                raise ConfigError(
                    f"{key}={as_typed(unnamed[0])}: expected the name of a file of conf/{key}/, one of {', '.join(known[key])}; "
                    f"what is in it is swept as {key}.KEY"
                )
            check_choices((as_override(key, value) for value in values.values()), known)


def _listed(value: Any) -> list[Any]:
    return value if isinstance(value, list) else [value]


@contextmanager
def of_job(name: str, of: int) -> Iterator[None]:
    """An error within is that of one job of several."""
    try:
        yield
    except ConfigError as error:
        if of == 1:
            raise
        raise ConfigError(f"{error} (job {name})") from error


def _of_experiment(fixed: dict[str, str], config_dir: Path | None) -> Composed:
    """What the experiment's file alone composes to."""
    kept = [text for key, text in fixed.items() if key == "experiment" or key.lstrip("+").startswith("sweep.")]
    return compose_values(kept, config_dir, missing=True)


def _base(
    fixed: dict[str, str], keys: tuple[str, ...], known: dict[str, dict[str, Path]], config_dir: Path | None
) -> Composed:
    """What is fixed, composed; swept keys, and what is typed below swept groups, at their defaults."""
    below = tuple(f"{key}." for key in keys if key in known)
    kept = [
        text for key, text in fixed.items() if key.lstrip("+~") not in keys and not key.lstrip("+~").startswith(below)
    ]
    return compose_values(kept, config_dir, missing=True)


def _fixed_part(
    base: Composed, fixed: dict[str, str], keys: tuple[str, ...], known: dict[str, dict[str, Path]]
) -> dict[str, Any]:
    """Dotted keys that no job varies, with their values."""
    below = tuple(f"{key}." for key in keys)
    values = {
        key: value
        for key, value in flat(base.of_a_run).items()
        if key not in (*keys, *OUTSIDE_IDENTITY) and not key.startswith(below)
    }
    typed = {
        key.lstrip("+~"): text.partition("=")[2]
        for key, text in fixed.items()
        if any(key.lstrip("+~").startswith(f"{group}.") for group in keys if group in known)
    }
    chosen = {group: base.choices[group] for group in GLOBAL if base.choices.get(group, UNCHOSEN) != UNCHOSEN}
    return {**chosen, **values, **typed}


def _default_name(keys: tuple[str, ...], fixed: dict[str, Any], runs_dir: Path) -> str:
    """`<swept keys>_<hash8 of the fixed part and of the keys' names>`: more values or seeds leave it as it is.

    A sweep in `runs_dir` that an earlier version of cnnbench named keeps its name.
    """
    label = legal("_".join(key.rpartition(".")[2] for key in keys) or "sweep")[:60]
    entered = flat(drop_earlier(nested(fixed)))
    names = []
    for name_of in (part_name, path_then):
        named = {key: name_of(str(value)) if key.endswith("_target_") else value for key, value in entered.items()}
        text = canonical([sorted(named.items()), sorted(keys)])
        names.append(f"{label}_{hashlib.sha256(text.encode()).hexdigest()[:8]}")
    return next((name for name in names if (runs_dir / name / "sweep.json").is_file()), names[0])


def label(setting: Setting, known: Iterable[str]) -> str:
    """A setting in a word: `plain18_lr0.01_seed0`."""
    parts = []
    for key, value in setting.items():
        last = key.rpartition(".")[2]
        text = as_typed(value)
        if key in known:
            parts.append(text)
        elif isinstance(value, int | float) and not isinstance(value, bool):
            parts.append(f"{last}{text}")
        else:
            parts.append(f"{last}-{text}")
    return "_".join(parts) or "job"
