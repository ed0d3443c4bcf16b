"""Expands what the user typed and an experiment's YAML into the jobs of a sweep, with the seeds innermost."""

from __future__ import annotations

import hashlib
import itertools
import json
import math
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cnnbench.config.compose import GLOBAL_GROUPS, UNCHOSEN, Composition, check_choices, compose_values, groups
from cnnbench.config.hydra_errors import refuse_hydra_key
from cnnbench.config.identity import drop_earlier_values, former_path
from cnnbench.config.overrides import MAX_JOBS, hydra_override, override_value, read_overrides
from cnnbench.config.schema import OUTSIDE_IDENTITY, Config
from cnnbench.config.shipped_parts import part_name
from cnnbench.errors import ConfigError
from cnnbench.sweep.composer import Composer
from cnnbench.sweep.schema import Setting, SweepKeys
from cnnbench.text import Values, canonical_json, flatten, safe_filename, to_override, unflatten

Progress = Callable[[str], None]  # is called with a text for the user
NOT_SWEPT = ("name", "runs_dir", "resume", "experiment")  # keys that have one value in a sweep


@dataclass(frozen=True)
class SweepRequest:
    """A sweep as the user asks for it.

    Attributes:
        keys: the keys that vary, group keys (`model`) among them; `seed` is last.
        settings: the values of these keys for each job, in the order in which the jobs run; some keys may be absent in lists of cells.
        configs: of the jobs, composed and checked one by one, not frozen.
        fixed: dotted keys and values that all jobs share, for the comparison of two sweeps of the same name.
        typed: the typed keys with one value, and this value as it was typed.
        policy: the `sweep.*` keys.
        name: of the sweep's folder.
        runs_dir: the folder that holds the sweep's folder.
        notes: warnings, as of jobs that were requested twice.
        groups: the names of the config groups.
    """

    keys: tuple[str, ...]
    settings: list[Setting]
    configs: list[Config]
    fixed: Values
    typed: dict[str, str]
    policy: SweepKeys
    name: str
    runs_dir: Path
    notes: tuple[str, ...]
    groups: tuple[str, ...]


def expand_sweep(
    overrides: Iterable[str],
    config_dir: Path | None = None,
    progress: Progress = lambda text: None,
) -> SweepRequest:
    """Expands overrides into settings, and composes and checks the config of every job.

    Args:
        overrides: `key=value`, `key=a,b,c`, `key=range(5)`, as typed after `-m`.
        config_dir: a conf folder of the user.
        progress: called with a text after each job.

    Raises:
        ConfigError: a job is wrong, even if it is the last one; the message is one line.
    """
    known = groups(config_dir)
    typed = read_overrides(overrides, known)
    for key, values in typed.swept.items():
        if key.lstrip("+") in NOT_SWEPT or key.startswith("sweep."):
            raise ConfigError(f"{key}={','.join(map(to_override, values))}: a sweep has one {key}; type one value")
    if typed.fixed.get("resume", "resume=auto") != "resume=auto":
        raise ConfigError(f"{typed.fixed['resume']}: a sweep finds its runs itself; type it without")
    check_choices(typed.fixed.values(), known)
    texts = [(key.lstrip("+"), text) for key, text in typed.fixed.items()]
    of_experiment = [text for key, text in texts if key == "experiment" or key.startswith("sweep.")]
    policy = SweepKeys.from_values(compose_values(of_experiment, config_dir, missing=True).values["sweep"])
    single = {key: override_value(text) for key, text in texts}
    settings, keys, notes = expand_grid(policy, typed.swept, single)
    for key in keys:
        refuse_hydra_key(key, key)

    shared = [(key, text) for key, text in texts if key not in keys]
    below_groups = tuple(f"{key}." for key in keys if key in known)
    base = compose_values([text for key, text in shared if not key.startswith(below_groups)], config_dir, missing=True)
    check_group_choices(settings, known)
    composer = Composer([text for _, text in shared], config_dir, known)
    configs = []
    for number, setting in enumerate(settings, 1):
        with job_in_errors(setting_label(setting, known), len(settings)):
            configs.append(composer(setting))
        progress(f"composing {number} of {len(settings)} jobs")

    typed_values = {key: text.partition("=")[2] for key, text in texts}
    fixed = fixed_values(base, keys) | {key: text for key, text in typed_values.items() if key.startswith(below_groups)}
    fixed = json.loads(json.dumps(fixed))  # as sweep.json will hold them
    name, runs_dir = base.values["name"], Path(base.values["runs_dir"])
    if name == "auto":
        name = default_name(keys, fixed, runs_dir)
    return SweepRequest(
        keys, settings, configs, fixed, typed_values, policy, name, runs_dir, tuple(notes), tuple(known)
    )


def fixed_values(base: Composition, keys: tuple[str, ...]) -> Values:
    """The dotted keys that no job varies and that belong to a run's identity, with their values, and the choices of global groups.

    Args:
        base: the composition of what all jobs share.
        keys: the keys that vary.
    """
    chosen = {group: base.choices[group] for group in GLOBAL_GROUPS if base.choices.get(group, UNCHOSEN) != UNCHOSEN}
    excluded, below = {*keys, *OUTSIDE_IDENTITY}, tuple(f"{key}." for key in keys)
    values = flatten(base.run_values).items()
    return chosen | {key: value for key, value in values if key not in excluded and not key.startswith(below)}


def expand_grid(
    policy: SweepKeys, swept: dict[str, list[Any]], fixed: Setting
) -> tuple[list[Setting], tuple[str, ...], list[str]]:
    """Expands the factors, zipped lists and cells of an experiment, and the typed values, which replace those of the same key.

    Args:
        policy: the `sweep.*` keys.
        swept: typed values by key.
        fixed: typed keys with one value.

    Returns:
        the settings, each once; their keys, `seed` last; notes on excluded and repeated jobs.

    Raises:
        ConfigError: a key has no value, seeds are typed in two ways, or `sweep.exclude` fits nothing or everything.
    """
    typed_keys = {key.lstrip("+") for key in (*swept, *fixed)}
    if "seed" in typed_keys and "sweep.seeds" in fixed:
        raise ConfigError("sweep.seeds: seed is typed, too; type one of them")

    def untyped(setting: Setting) -> Setting:
        return {key: value for key, value in setting.items() if key.lstrip("+") not in typed_keys}

    factors = untyped(policy.factors)
    for key, values in {**factors, **swept}.items():
        if not values:
            raise ConfigError(f"{key}: no value to sweep over")
    seeds: Sequence[int] | None = range(policy.seeds) if isinstance(policy.seeds, int) else policy.seeds
    seeds = swept.get("seed", None if "seed" in typed_keys else seeds)

    factor_axes = [[{key: value} for value in values] for key, values in factors.items()]
    typed_axes = [[{key: value} for value in values] for key, values in swept.items() if key != "seed"]
    zip_axes = [
        [dict(zip(block, row, strict=True)) for row in zip(*block.values(), strict=True)]
        for block in map(untyped, policy.zip)
        if block
    ]
    _require_listable([*factor_axes, *typed_axes, *zip_axes], seeds, len(policy.cells))
    cells = _product([list(map(untyped, policy.cells)), *typed_axes])
    # typed values multiply the cells; they make a grid only together with factors, or where there are no cells
    has_grid = factor_axes or zip_axes or (typed_axes and not cells)
    settings = (_product([*factor_axes, *typed_axes, *zip_axes]) if has_grid else []) + cells or [{}]
    if seeds is not None:
        settings = _product([settings, [{"seed": seed} for seed in seeds]])
    jobs, notes = _exclude(settings, policy.exclude, fixed)
    distinct = list({canonical_json(job): job for job in jobs}.values())
    if len(distinct) < len(jobs):
        notes.append(f"{len(jobs) - len(distinct)} of {len(jobs)} jobs were requested twice, and are run once")
    keys = dict.fromkeys(key.lstrip("+") for job in distinct for key in job)
    return distinct, tuple(sorted(keys, key=lambda key: key == "seed")), notes


def _require_listable(axes: list[list[Setting]], seeds: Collection[int] | None, cells: int) -> None:
    """Checks, before they are made, that there are at most `MAX_JOBS` combinations."""
    jobs = (math.prod(map(len, axes)) + cells) * (1 if seeds is None else len(seeds))
    if jobs > MAX_JOBS:
        raise ConfigError(f"{jobs:,} combinations: a sweep has at most {MAX_JOBS:,} jobs; type fewer values or seeds")


def _product(axes: list[list[Setting]]) -> list[Setting]:
    """Every combination of one setting from each axis, merged; the last axis varies fastest."""
    return [{key: value for part in parts for key, value in part.items()} for parts in itertools.product(*axes)]


def _exclude(settings: list[Setting], exclusions: list[Setting], fixed: Setting) -> tuple[list[Setting], list[str]]:
    """Removes the settings that have all values of an exclusion.

    A list in an exclusion is one value if a setting has this list as its value, else it stands for any of its items.
    """
    known = {*fixed, *(key for setting in settings for key in setting)}
    choices: list[dict[str, list[Any]]] = []  # of each exclusion: the excluded values by key
    for exclusion in exclusions:
        unknown = [key for key in exclusion if key not in known]
        if not exclusion or unknown:
            raise ConfigError(f"sweep.exclude: {unknown[0] if unknown else 'an empty setting'} is no key that varies")
        whole = {key for key, value in exclusion.items() if any(setting.get(key) == value for setting in settings)}
        choices.append(
            {
                key: value if isinstance(value, list) and key not in whole else [value]
                for key, value in exclusion.items()
            }
        )

    def is_excluded(setting: Setting) -> bool:
        own = {**fixed, **setting}
        return any(all(key in own and own[key] in values for key, values in choice.items()) for choice in choices)

    kept = [setting for setting in settings if not is_excluded(setting)]
    if not kept:
        raise ConfigError("sweep.exclude: leaves no job")
    notes = [f"{len(settings) - len(kept)} of {len(settings)} jobs are excluded"]
    return kept, notes if len(kept) < len(settings) else []


def check_group_choices(settings: list[Setting], known: dict[str, dict[str, Path]]) -> None:
    """Checks that every choice of a group exists, before anything is composed.

    Args:
        settings: of the jobs.
        known: files by group and choice.

    Raises:
        ConfigError: a choice does not exist, or is not the name of a file.
    """
    chosen = [(group, value) for setting in settings for group, value in setting.items() if group in known]
    for group, value in {canonical_json(choice): choice for choice in chosen}.values():
        if isinstance(value, str) and value.startswith("["):
            raise ConfigError(f"{group}: {value!r} is a text; in YAML a list has no quotes: [{value}]")
        if not all(isinstance(name, str) for name in (value if isinstance(value, list) else [value])):
            raise ConfigError(
                f"{group}={to_override(value)}: expected the name of a file of conf/{group}/, one of "
                f"{', '.join(known[group])}; a key in it is swept as {group}.KEY"
            )
        check_choices([hydra_override(group, value)], known)


@contextmanager
def job_in_errors(label: str, jobs: int) -> Iterator[None]:
    """Adds the label of a job to the message of a ConfigError, if there are several jobs."""
    try:
        yield
    except ConfigError as error:
        if jobs == 1:
            raise
        raise ConfigError(f"{error} (job {label})") from error


def default_name(keys: tuple[str, ...], fixed: Values, runs_dir: Path) -> str:
    """`<swept keys>_<hash8>`: the hash covers the fixed part and the names of the swept keys, not their values or the seeds.

    A sweep in `runs_dir` that an earlier version of cnnbench named keeps its name.
    """
    label = safe_filename("_".join(key.rpartition(".")[2] for key in keys) or "sweep")[:60]
    entered = flatten(drop_earlier_values(unflatten(fixed)))
    names = []
    for name_of in (part_name, former_path):
        named = {key: name_of(str(value)) if key.endswith("_target_") else value for key, value in entered.items()}
        text = canonical_json([sorted(named.items()), sorted(keys)])
        names.append(f"{label}_{hashlib.sha256(text.encode()).hexdigest()[:8]}")
    return next((name for name in names if (runs_dir / name / "sweep.json").is_file()), names[0])


def setting_label(setting: Setting, known: Iterable[str]) -> str:
    """A setting as one word: `plain18_lr0.01_seed0`; the key of a group (`known`) is left out."""
    parts = []
    for key, value in setting.items():
        name = "" if key in known else key.rpartition(".")[2] + "-" * (type(value) not in (int, float))
        parts.append(name + to_override(value))
    return "_".join(parts) or "job"
