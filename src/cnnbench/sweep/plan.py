"""What a sweep has to do: every job frozen, found on disk or new, and whether it is due. Nothing is written."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from cnnbench.config.compose import groups
from cnnbench.config.schema import Config
from cnnbench.errors import ConfigError
from cnnbench.runs.run_dir import RunDir
from cnnbench.runs.sweep_dir import Job, SweepDir
from cnnbench.sweep.check_claims import unspoken
from cnnbench.sweep.expand import Asked, ask, label
from cnnbench.sweep.extend import another, require_same, together
from cnnbench.sweep.freeze import Frozen, freeze
from cnnbench.sweep.schema import SweepKeys
from cnnbench.sweep.slots import Slots
from cnnbench.text import canonical, legal, some

MOST = 68  # letters of a directory's name before its hash
Progress = Callable[[str, int, int], None]


@dataclass(frozen=True)
class Planned:
    """A job, and what is to become of it.

    Attributes:
        job: where it lies.
        config: frozen, to run in that directory.
        status: how it stands.
        due: it is to be run now.
        stale: the code version that its result was made by, where it is another than now.
    """

    job: Job
    config: Config
    status: dict[str, Any]
    due: bool
    stale: str | None = None


@dataclass(frozen=True)
class Plan:
    """A sweep before it starts.

    Attributes:
        asked: what for.
        sweep: its directory.
        jobs: those that were asked for, in their order.
        others: jobs of earlier launches that were not asked for now.
        record: what sweep.json is to say.
        slots: for how many jobs at a time.
        notes: what one should know.
        job_of: the job of each setting that was asked for; several may come to the same one.
    """

    asked: Asked
    sweep: SweepDir
    jobs: list[Planned]
    others: list[Job]
    record: dict[str, Any]
    slots: Slots
    notes: tuple[str, ...]
    job_of: dict[str, Job]

    @property
    def policy(self) -> SweepKeys:
        """`sweep.*`."""
        return self.asked.policy

    @property
    def due(self) -> list[Planned]:
        """The jobs that are to be run now."""
        return [planned for planned in self.jobs if planned.due]


def make_plan(
    overrides: Iterable[str],
    config_dir: Path | None = None,
    progress: Progress = lambda what, done, of: None,
) -> Plan:
    """Composes, checks and freezes every job, and finds what there is of it.

    Raises:
        ConfigError: a job cannot run, or the directory holds another sweep.
    """
    asked = ask(overrides, config_dir, lambda done, of: progress("composing", done, of))
    total = len(asked.configs)
    frozen, slots = freeze(asked, lambda done: progress("checking", done, total))
    sweep = SweepDir(asked.runs_dir / asked.name)
    notes = list(asked.notes)
    asked = replace(asked, settings=[{key.lstrip("+"): setting[key] for key in setting} for setting in asked.settings])
    typed = asked.settings
    record, earlier = sweep.read(), sweep.jobs()
    if record and not asked.policy.extend:
        require_same(sweep, record, asked, earlier)
    if record:
        asked, earlier = together(asked, record, earlier)
    found_earlier = {job.identity: at for at, job in enumerate(earlier)}
    runs, known = sweep.runs(), groups(config_dir)
    jobs: dict[str, Planned] = {}
    identity_of: dict[str, str] = {}
    for was_typed, setting, made in zip(typed, asked.settings, frozen, strict=True):
        identities = made.config.identities()
        identity = identities[0]
        if identity not in jobs:
            at = next((found_earlier[each] for each in identities if each in found_earlier), None)
            if at is not None:  # perhaps listed by the hash that an earlier version gave it
                earlier[at] = replace(earlier[at], identity=identity)
            directory = earlier[at].directory if at is not None else found(runs, identities)
            directory = directory or unused(sweep, label(setting, known), identity, runs)
            job = Job(directory, identity, setting, facts_of(made))
            jobs[identity] = planned(job, made, asked.policy)
        identity_of[canonical(was_typed)] = identity
    if len(jobs) < total:
        notes.append(f"{total - len(jobs)} of {total} jobs come to the same as another, and are run once")
    settings = {canonical(each.job.setting): each for each in jobs.values()}
    changed = [job for job in earlier if job.identity not in jobs and canonical(job.setting) in settings]
    if changed and not asked.policy.extend:
        raise another(sweep, changed[0], settings[canonical(changed[0].setting)].config)
    if changed:
        notes.append(
            f"{len(changed)} jobs of before have come to another config, and are in no table now: "
            f"{some([job.name for job in changed])}"
        )
    others = [job for job in earlier if job.identity not in jobs and job not in changed]
    notes += _told(list(jobs.values()), others, asked.policy)
    if not others:  # else what is meant may be among them
        notes += unspoken(asked.policy, [(each.job.setting, each.config) for each in jobs.values()])
    jobs = {identity: anew(each, sweep, runs) if each.due and each.stale else each for identity, each in jobs.items()}
    job_of = {setting: jobs[identity].job for setting, identity in identity_of.items()}
    return Plan(asked, sweep, list(jobs.values()), others, _record(record, asked), slots, tuple(notes), job_of)


def planned(job: Job, made: Frozen, policy: SweepKeys) -> Planned:
    """Whether a job is due: what is done is not, what failed only when that is asked."""
    config, status, stale = made.config, job.status(), None
    state = status["state"]
    due = state in ("pending", "interrupted", "running")
    if state in ("failed", "diverged"):
        due = policy.retry in (state, "all")
    if state == "done":
        result = job.result()
        if result is None:
            status, due = {**status, "state": "interrupted", "reason": "its result.json cannot be read"}, True
        else:
            stale = None if result.get("code") == made.code else result.get("code") or "unknown"
            due = stale is not None and policy.stale == "rerun"
    elif job.directory.config.is_file():  # what decides the last bits stays as it was
        with suppress(ConfigError):  # else it is written anew
            config = config.model_copy(update={"threads": Config.load(job.directory.config).threads})
    return Planned(job, config, status, due, stale)


def facts_of(frozen: Frozen) -> dict[str, Any]:
    """What a job's table and its arms' comparison need, in plain types."""
    config = frozen.config
    return {
        "params": frozen.params,
        "macs": frozen.macs,
        "image": list(frozen.image),
        "n": frozen.n,
        "steps": frozen.steps,
        "epochs": config.epochs,
        "lr": config.optimizer.lr,
        "batch_size": config.batch_size,
        "devices": config.trainer.devices,
        "threads": config.threads,
    }


def found(runs: dict[str, list[RunDir]], identities: Sequence[str]) -> RunDir | None:
    """A run of these identities that no sweep.json tells of, as a single run's: one that is done, else the newest."""
    same = []
    for directory in (run for identity in identities for run in runs.get(identity[:8], [])):
        try:
            if Config.load(directory.config).identity() in identities:
                same.append(directory)
        except ConfigError:
            continue
    done = [directory for directory in same if directory.result.is_file()]
    return next(reversed(done or same), None)


def shortened(label: str) -> str:
    """A label of at most 68 letters; what is cut is in its middle, for its seed is at its end."""
    head, line, tail = label.rpartition("_")
    return label if len(label) <= MOST else f"{head[: max(0, MOST - 2 - len(tail))]}-{line}{tail}"[-MOST:]


def unused(sweep: SweepDir, label: str, identity: str, runs: dict[str, list[RunDir]]) -> RunDir:
    """A directory's name that no run has yet."""
    name = f"{shortened(legal(label))}_{identity[:8]}"
    taken = {directory.path.name for directory in runs.get(identity[:8], [])}
    names = [name, *(f"{name}-{number}" for number in range(2, len(taken) + 2))]
    return RunDir(sweep.path / next(name for name in names if name not in taken))


def anew(planned: Planned, sweep: SweepDir, runs: dict[str, list[RunDir]]) -> Planned:
    """The same job in a directory of its own, where its first has a result that is to be kept."""
    directory = unused(sweep, planned.job.label, planned.job.identity, runs)
    return replace(planned, job=replace(planned.job, directory=directory), status={"state": "pending"})


def _told(jobs: list[Planned], others: list[Job], policy: SweepKeys) -> list[str]:
    """What there is already that one should know of."""
    notes = []
    stale = [planned for planned in jobs if planned.stale]
    if stale:
        names = some([planned.job.name for planned in stale])
        if policy.stale == "refuse":
            raise ConfigError(
                f"{len(stale)} finished runs are of another version of the code ({names}); type sweep.stale=rerun, or keep"
            )
        kept = "are run again" if policy.stale == "rerun" else "are kept; sweep.stale=rerun runs them again"
        notes.append(f"{len(stale)} finished runs are of another version of the code, and {kept}: {names}")
    for state in ("failed", "diverged"):
        left = [planned.job.name for planned in jobs if planned.status["state"] == state and not planned.due]
        if left:
            notes.append(f"{len(left)} have {state} before; sweep.retry={state} runs them again: {some(left)}")
    if others:
        notes.append(f"{len(others)} other jobs of this sweep were not asked for now")
    return notes


def _record(before: dict[str, Any], asked: Asked) -> dict[str, Any]:
    """sweep.json, but for the jobs."""
    keys = [key for key in before.get("keys", []) if key not in asked.keys and key != "seed"] + list(asked.keys)
    fixed = {key: value for key, value in asked.fixed.items() if not before or before["fixed"].get(key) == value}
    policy = asked.policy
    return {
        "name": asked.name,
        "question": policy.question or before.get("question"),
        "cost": policy.cost or before.get("cost"),
        "baseline": policy.baseline or before.get("baseline", {}),
        "claims": [claim.model_dump(exclude_none=True) for claim in policy.claims] or before.get("claims", []),
        "keys": keys,
        "fixed": fixed,
    }
