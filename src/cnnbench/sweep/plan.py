"""Plans a sweep: freezes every job, finds its run on disk, and decides whether it runs now."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from cnnbench.config.schema import Config
from cnnbench.distributed.fork_server import HAS_FORK_SERVER, run_in_subprocess
from cnnbench.errors import ConfigError
from cnnbench.runs.part import in_part
from cnnbench.runs.run_dir import RunDir, hashed_runs, numbered_paths, runs_of_identity
from cnnbench.runs.schema import Status, SweepRecord
from cnnbench.runs.sweep_dir import Job, SweepDir
from cnnbench.sweep.check_claims import unmatched_claims
from cnnbench.sweep.expand import Progress, SweepRequest, expand_sweep, setting_label
from cnnbench.sweep.extend import changed_job_error, check_same_sweep, merge_settings
from cnnbench.sweep.freeze import FrozenJob, freeze
from cnnbench.sweep.schema import SweepKeys
from cnnbench.sweep.slots import Slots
from cnnbench.text import canonical_json, first_few, safe_filename

MAX_LABEL = 68  # characters of a directory's name before its hash


@dataclass(frozen=True)
class PlannedJob:
    """A job of a plan.

    Attributes:
        job: its run directory, identity, setting and facts.
        config: frozen, to run in that directory.
        status: its present status.
        due: it runs now.
        stale: the code version that made its result, if another one is installed now.
        elsewhere: it is in another part of the sweep, which another machine runs.
    """

    job: Job
    config: Config
    status: Status
    due: bool
    stale: str | None = None
    elsewhere: bool = False


@dataclass(frozen=True)
class Plan:
    """A sweep before it starts.

    Attributes:
        request: the sweep that the user asks for.
        sweep: its directory.
        jobs: the requested jobs, in their order.
        others: jobs of earlier launches that are not requested now.
        record: the content of sweep.json, without its jobs.
        slots: places for jobs on this machine.
        notes: warnings for the user.
    """

    request: SweepRequest
    sweep: SweepDir
    jobs: list[PlannedJob]
    others: list[Job]
    record: SweepRecord
    slots: Slots
    notes: tuple[str, ...]

    @property
    def policy(self) -> SweepKeys:
        """The `sweep.*` keys."""
        return self.request.policy

    @property
    def own(self) -> list[PlannedJob]:
        """The requested jobs without those of the other parts."""
        return [planned for planned in self.jobs if not planned.elsewhere]

    @property
    def due(self) -> list[PlannedJob]:
        """The jobs that run now."""
        return [planned for planned in self.jobs if planned.due]


def make_plan(
    overrides: Iterable[str],
    config_dir: Path | None = None,
    progress: Progress = lambda text: None,
    writes: bool = True,
) -> Plan:
    """Composes, checks and freezes every job, and finds its run on disk.

    Args:
        overrides: as typed after `-m`.
        config_dir: a conf folder of the user.
        progress: called with a text for the user, as `composing 3 of 12 jobs`.
        writes: download and decode data as the runs do; else write nothing.

    Raises:
        ConfigError: a job cannot run, or the directory holds another sweep.
    """
    request = expand_sweep(overrides, config_dir, progress)
    frozen, slots = run_in_subprocess(freeze, request, writes, progress=progress)
    settings = [{key.lstrip("+"): value for key, value in setting.items()} for setting in request.settings]
    request, sweep = replace(request, settings=settings), SweepDir(request.runs_dir / request.name)
    downloads = dict.fromkeys(made.download_note for made in frozen if made.download_note)
    policy, notes = request.policy, [*request.notes, *downloads]
    record = sweep.read()
    earlier = sweep.jobs(record)
    if record:
        if not policy.extend:
            check_same_sweep(sweep, record, request, earlier)
        request, earlier = merge_settings(request, record, earlier)

    listed = {job.identity: job for job in earlier}
    if not HAS_FORK_SERVER:
        notes.append("this system cannot start several jobs from one process: they run one at a time")
    runs = hashed_runs(sweep.path)
    frozen = with_known_fingerprints(frozen, runs)
    planned: dict[str, PlannedJob] = {}  # by identity
    for setting, made in zip(request.settings, frozen, strict=True):
        identities = made.config.identities()  # today's, and those that earlier versions gave it
        identity = identities[0]
        if identity not in planned:
            before = next((listed.pop(each) for each in identities if each in listed), None)
            # a run that no sweep.json lists, as a single run: a finished one, else the newest
            found = [before.directory] if before else runs_of_identity(runs, identities)
            finished = [run for run in found if run.result.is_file()]
            directory = next(iter(finished or found), None)
            label = setting_label(setting, request.groups)
            directory = directory or unused_directory(sweep.path, label, identity)
            planned[identity] = plan_job(Job(directory, identity, setting, made.facts), made, policy)
    own = {each.job.identity for each in in_part(list(planned.values()), policy.part)}
    jobs = [each if each.job.identity in own else replace(each, due=False, elsewhere=True) for each in planned.values()]
    if len(jobs) < len(frozen):
        repeated = f"{len(frozen) - len(jobs)} of {len(frozen)} jobs"
        notes.append(f"{repeated} have the same config as another one, and are run once")

    config_of = {canonical_json(each.job.setting): each.config for each in jobs}
    changed = [job for job in listed.values() if canonical_json(job.setting) in config_of]
    others = [job for job in listed.values() if canonical_json(job.setting) not in config_of]
    if changed and not policy.extend:
        raise changed_job_error(sweep, changed[0], config_of[canonical_json(changed[0].setting)])
    if changed:
        notes.append(
            f"{len(changed)} earlier jobs have another config now, and are left out of the tables: "
            f"{first_few([job.name for job in changed])}"
        )
    notes += _notes([each for each in jobs if not each.elsewhere], others, policy)
    if not others:  # with other jobs, the baseline or a claim may refer to one of those
        notes += unmatched_claims(policy, [(each.job.setting, each.config) for each in jobs])
    jobs = [_in_new_directory(each) if each.due and each.stale else each for each in jobs]
    return Plan(request, sweep, jobs, others, _record(record, request), slots, tuple(notes))


def with_known_fingerprints(frozen: list[FrozenJob], runs: Mapping[str, list[RunDir]]) -> list[FrozenJob]:
    """Gives jobs whose data are absent the fingerprint that a run of the sweep has recorded for the same data set.

    So the plan finds the runs that were made before the data were removed.
    """
    if all(made.config.data.fingerprint for made in frozen):
        return frozen
    configs = [run.readable_config() for named in runs.values() for run in named]
    known = {config.data.target: config.data.fingerprint for config in configs if config}

    def completed(made: FrozenJob) -> FrozenJob:
        data = made.config.data
        fingerprint = data.fingerprint or known.get(data.target)
        data = data.model_copy(update={"fingerprint": fingerprint})
        return replace(made, config=made.config.model_copy(update={"data": data}))

    return [completed(made) for made in frozen]


def plan_job(job: Job, frozen: FrozenJob, policy: SweepKeys) -> PlannedJob:
    """Decides whether a job runs now.

    Unfinished jobs do, failed and diverged ones with `sweep.retry`, finished ones of another code version with `sweep.stale=rerun`.
    """
    config, status = frozen.config, job.status()
    result = job.result() if status.state == "done" else None
    if result:
        stale = None if result.code == frozen.code else result.code or "unknown"
        return PlannedJob(job, config, status, due=stale is not None and policy.stale == "rerun", stale=stale)
    if status.state == "done":
        status = status.model_copy(update={"state": "interrupted", "reason": "its result.json cannot be read"})
    if earlier := job.directory.readable_config():  # the number of threads decides the last bits: the run keeps its own
        config = config.model_copy(update={"threads": earlier.threads})
    due = status.state not in ("failed", "diverged") or policy.retry in (status.state, "all")
    return PlannedJob(job, config, status, due)


def unused_directory(folder: Path, label: str, identity: str) -> RunDir:
    """A directory in the folder of a sweep that holds no run yet: `<label>_<hash8>`, or `<label>_<hash8>-2`, `-3`, ..."""
    name = f"{shorten_label(safe_filename(label))}_{identity[:8]}"
    return next(run for run in map(RunDir, numbered_paths(folder, name)) if not run.config.is_file())


def shorten_label(label: str) -> str:
    """Cuts a label to MAX_LABEL characters, in its middle: its end holds the seed."""
    head, line, tail = label.rpartition("_")
    if len(label) <= MAX_LABEL:
        return label
    return f"{head[: max(0, MAX_LABEL - 2 - len(tail))]}-{line}{tail}"[-MAX_LABEL:]


def _in_new_directory(planned: PlannedJob) -> PlannedJob:
    """The job in a new directory: its first directory keeps its result."""
    job = planned.job
    directory = unused_directory(job.directory.path.parent, job.label, job.identity)
    return replace(planned, job=replace(job, directory=directory), status=Status(state="pending"))


def _notes(jobs: list[PlannedJob], others: list[Job], policy: SweepKeys) -> list[str]:
    """Warnings about results of other code, failed jobs and jobs that are not requested.

    Raises:
        ConfigError: there are results of other code, and `sweep.stale=refuse`.
    """
    notes = []
    if stale := [planned.job.name for planned in jobs if planned.stale]:
        text = f"{len(stale)} finished runs were made by another version of the code"
        if policy.stale == "refuse":
            raise ConfigError(f"{text} ({first_few(stale)}); type sweep.stale=rerun or sweep.stale=keep")
        kept = "are run again" if policy.stale == "rerun" else "are kept; sweep.stale=rerun runs them again"
        notes.append(f"{text}, and {kept}: {first_few(stale)}")
    for state in ("failed", "diverged"):
        if left := [planned.job.name for planned in jobs if planned.status.state == state and not planned.due]:
            notes.append(f"{len(left)} {state} before; sweep.retry={state} runs them again: {first_few(left)}")
    if others:
        notes.append(f"{len(others)} other jobs of this sweep are not requested now")
    return notes


def _record(before: SweepRecord | None, request: SweepRequest) -> SweepRecord:
    """The content of sweep.json, without its jobs: the request, merged with what was there before."""
    policy, keys, fixed = request.policy, list(request.keys), request.fixed
    stated = policy.model_dump(include={"question", "cost", "baseline"})
    stated["claims"] = [claim.model_dump(exclude_none=True) for claim in policy.claims]
    if before:
        stated = {name: value or getattr(before, name) for name, value in stated.items()}
        keys = [key for key in before.keys if key not in keys and key != "seed"] + keys
        fixed = {key: value for key, value in fixed.items() if before.fixed.get(key) == value}
    return SweepRecord(schema=1, name=request.name, keys=keys, fixed=fixed, part=policy.part, jobs=[], **stated)
