"""Whether a baseline and claims speak of jobs that there are; where not, one reads it before anything has run."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from cnnbench.config.schema import Config
from cnnbench.errors import did_you_mean
from cnnbench.sweep.schema import Setting, SweepKeys
from cnnbench.text import as_typed, canonical, flat, some

Job = tuple[Setting, Config]


def unspoken(policy: SweepKeys, jobs: Sequence[Job]) -> Iterator[str]:
    """A note for each setting that no job has.

    Args:
        policy: what is asked.
        jobs: the setting and the config of each.
    """
    known = [{**flat(config.as_dict()), **config.choices, **setting} for setting, config in jobs]
    settings = [("the baseline", policy.baseline)]
    for claim in policy.claims:
        settings += [(f"the claim that {claim.says}", setting) for setting in (claim.of, claim.over) if setting]
    for whose, setting in settings:
        missing = absent(setting, known)
        if missing:
            yield f"no job has what {whose} is about: {missing}"


def absent(setting: Mapping[str, Any], known: Sequence[Mapping[str, Any]]) -> str:
    """What of a setting no job has; nothing, where one has all of it."""
    for key, value in setting.items():
        values = {canonical(job[key]): as_typed(job[key]) for job in known if key in job}
        if not values:
            return f"there is no key {key}{did_you_mean(key, list(known[0]) if known else []) or ''}"
        if canonical(value) not in values:
            return f"{key}={as_typed(value)}; there is {some(list(values.values()))}"
    together = any(all(canonical(job[key]) == canonical(value) for key, value in setting.items()) for job in known)
    return "" if together else "each value, but not together"
