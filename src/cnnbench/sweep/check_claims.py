"""Warns when the baseline or a claim matches no job: the user reads it before anything runs."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from cnnbench.config.schema import Config
from cnnbench.errors import did_you_mean
from cnnbench.sweep.schema import Setting, SweepKeys
from cnnbench.text import canonical_json, first_few, flatten, to_override


def unmatched_claims(policy: SweepKeys, jobs: Sequence[tuple[Setting, Config]]) -> Iterator[str]:
    """Yields a note for the baseline, and for each setting of a claim, that matches no job.

    Args:
        policy: the `sweep.*` keys, with the baseline and the claims.
        jobs: setting and config of each job.
    """
    named = [
        ("the baseline", policy.baseline),
        *((f"the claim that {each.says}", setting) for each in policy.claims for setting in (each.of, each.over or {})),
    ]
    if not any(setting for _, setting in named):
        return
    known = [{**flatten(config.as_dict()), **config.choices, **setting} for setting, config in jobs]
    for name, setting in named:
        if reason := why_unmatched(setting, known):
            yield f"no job matches {name}: {reason}"


def why_unmatched(setting: Mapping[str, Any], known: Sequence[Mapping[str, Any]]) -> str:
    """Names what of a setting no job has; empty if a job matches it.

    Args:
        setting: values by key.
        known: all keys of each job, with their values.
    """
    for key, value in setting.items():
        values = {canonical_json(job[key]): to_override(job[key]) for job in known if key in job}
        if not values:
            return f"no such key {key}{did_you_mean(key, known[0] if known else [])}"
        if canonical_json(value) not in values:
            return f"{key}={to_override(value)}; the jobs have {first_few(list(values.values()))}"
    matched = any(
        all(key in job and canonical_json(job[key]) == canonical_json(value) for key, value in setting.items())
        for job in known
    )
    return "" if matched else "each of its values occurs, but no job has all of them"
