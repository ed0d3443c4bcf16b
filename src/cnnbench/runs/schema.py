"""The JSON files of run and sweep directories, as typed records: their writers and readers share these classes.

    status.json    Status        state of a run, its owner, its progress
    result.json    Result        metrics and environment of a finished run
    sweep.json     SweepRecord   settings of a sweep, with a JobRecord for each job and a ClaimRecord for each claim
    launcher.json  ProcessRecord the process that starts the jobs of a sweep

Unknown fields are ignored, so files of other versions load. Loads no torch.
"""

from __future__ import annotations

import json
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, ValidationError
from pydantic_core import from_json

from cnnbench.config.identity import add_earlier_values
from cnnbench.config.shipped_parts import with_current_paths
from cnnbench.runs.part import Part
from cnnbench.text import Values, finite_number, flatten, shown_line, unflatten

State = Literal["pending", "running", "done", "failed", "diverged", "interrupted"]


def with_current_keys(fixed: Values) -> Values:
    """Dotted keys and values that an earlier version wrote, as this version writes them."""
    return flatten(add_earlier_values(with_current_paths(unflatten(fixed))))


def _plain_name(name: str) -> str:
    """Checks that a text names a run directory in a folder, and none elsewhere.

    Raises:
        ValueError: it does not.
    """
    if not name.isprintable() or name.startswith(".") or not 0 < len(name) < 256 or "/" in name or "\\" in name:
        raise ValueError("expected the name of a directory")
    return name


def _different(jobs: list[JobRecord]) -> list[JobRecord]:
    """Checks that no two jobs write to one directory.

    Raises:
        ValueError: two do.
    """
    if len({job.directory for job in jobs}) < len(jobs):
        raise ValueError("expected another directory for each job")
    return jobs


def _none_to_empty(value: Any) -> Any:
    return {} if value is None else value


# true and false are no numbers here, nor are texts of digits
Count = Annotated[int, Field(strict=True, ge=0, le=2**53)]
Integer = Annotated[int, Field(strict=True)]
Number = Annotated[float, Field(strict=True)]
Seconds = Annotated[float, Field(strict=True, ge=-1e12, le=1e12)]  # neither infinite nor NaN
Shown = Annotated[str, AfterValidator(shown_line)]  # a text that decides nothing
ValuesOrNull = Annotated[Values, BeforeValidator(_none_to_empty)]
Setting = Annotated[Values, AfterValidator(with_current_paths)]  # dotted key -> value


class Record(BaseModel):
    """The content of a JSON file, or a part of it."""

    model_config = ConfigDict(frozen=True, extra="ignore", populate_by_name=True, defer_build=True)

    def to_json(self, indent: int | None = 2, allow_nan: bool = True) -> str:
        """The file's text: the fields that were set.

        Raises:
            ValueError: a number is not finite, and `allow_nan` is false.
        """
        values = self.model_dump(by_alias=True, exclude_unset=True)
        return json.dumps(values, indent=indent, allow_nan=allow_nan) + "\n"


def wrong_field(error: ValidationError) -> str:
    """The first absent or wrong field, as `keys` or `jobs (directory)`; empty where the file holds no JSON object."""
    path = [part for part in error.errors(include_url=False)[0]["loc"] if isinstance(part, str)]
    return f"{path[0]} ({path[1]})" if len(path) > 1 else "".join(path)


def problem_of(error: OSError | ValidationError) -> str:
    """What is wrong with a file that was not read: `its keys cannot be understood`, `cannot be read (...)`."""
    if isinstance(error, OSError):
        return f"cannot be read ({error.strerror or error})"
    if field := wrong_field(error):
        return f"its {field} cannot be understood"
    return f"cannot be read ({error.errors(include_url=False)[0]['msg']})"


class ProcessRecord(Record):
    """A process, and when it last wrote a heartbeat. Another process of the same id differs in one of the other fields.

    Attributes:
        host: name of its machine.
        pid: its process id there.
        pid_started: when it started, in seconds since the epoch; a corrected clock changes it.
        heartbeat: when it last wrote this record, in seconds since the epoch of its clock.
        boot_id: drawn by its kernel when that booted; None where there is no /proc.
        pid_namespace: the number of its PID namespace, as that of a container; None where there is no /proc.
        start_ticks: when it started, in clock ticks since the boot; None where there is no /proc.
    """

    host: str | None = None
    pid: Integer | None = None
    pid_started: Number | None = None
    heartbeat: Number | None = None
    boot_id: str | None = None
    pid_namespace: Integer | None = None
    start_ticks: Integer | None = None


class Status(Record):
    """status.json: the state of a run, the process that owns it, and its progress.

    Attributes:
        state: pending, running, done, failed, diverged or interrupted.
        reason: why it failed or was interrupted.
        host, pid, pid_started, heartbeat, boot_id, pid_namespace, start_ticks: the owner, as in `ProcessRecord`.
        epoch, epochs: the current epoch, from 1, and the number of epochs.
        step, steps: optimizer steps done and in all.
        loss: mean training loss of the current epoch until now.
        val_acc: accuracy of the last validation, between 0 and 1.
        left_s: estimated seconds until the end.
        peak_mb: largest memory use by device, in MB; only when done.
    """

    state: State
    reason: Shown | None = None
    host: str | None = None
    pid: Integer | None = None
    pid_started: Number | None = None
    heartbeat: Number | None = None
    boot_id: str | None = None
    pid_namespace: Integer | None = None
    start_ticks: Integer | None = None
    epoch: Count | None = None
    epochs: Count | None = None
    step: Count | None = None
    steps: Count | None = None
    loss: Number | None = None
    val_acc: Number | None = None
    left_s: Seconds | None = None
    peak_mb: dict[str, Number] | None = None


class GitRecord(Record):
    """The commit of a checkout, and whether its files differed from it."""

    commit: str | None = None
    dirty: bool | None = None


class Result(Record):
    """result.json: metrics and environment of a finished run.

    Attributes:
        choices: chosen option by config group.
        classes: class names in the order of the logits.
        metrics: value by name, as `test/acc`; see `cnnbench.metric_names`.
        best_epoch: the epoch of the tested weights, from 1.
        n: number of images by split.
        split_hash, label_hash: stand for the indices of the splits and for the training labels, with their noise.
        params, macs: of the net.
        time: `fit_s`, seconds of training and validation; `data_wait_share`, the fraction of it spent waiting for data.
        samples_per_s: training images a second.
        numerics: settings that decide the last bits.
        code: hash of the source code.
        git: commit of the checkout, None for an installed wheel.
        config_hash: the run's identity.
        command: what the user typed.
    """

    schema_version: int = Field(default=1, alias="schema")
    status: str = "done"
    seed: Count | None = None
    choices: ValuesOrNull = {}
    classes: list[str] | None = None
    metrics: Values
    best_epoch: Count | None = None
    n: Annotated[dict[str, Count], BeforeValidator(_none_to_empty)] = {}
    split_hash: str | None = None
    label_hash: str | None = None
    params: Count | None = None
    macs: Count | None = None
    time: Annotated[dict[str, Seconds], BeforeValidator(_none_to_empty)] = {}
    samples_per_s: Number | None = None
    precision: str | None = None
    devices: Count | None = None
    threads: Count | None = None
    numerics: ValuesOrNull = {}
    versions: ValuesOrNull = {}
    code: str | None = None
    git: GitRecord | None = None
    hardware: ValuesOrNull = {}
    config_hash: str | None = None
    command: str | None = None

    @property
    def fit_s(self) -> float | None:
        """Seconds of training and validation."""
        return self.number("time", "fit_s")

    def metric(self, name: str) -> float | None:
        """A metric, as `test/acc`; None where it is absent or not a finite number."""
        return self.number("metrics", name)

    def number(self, field: str, *path: str) -> float | None:
        """The number in a field, at a path of nested keys; None where it is absent or not a finite number."""
        return finite_number(getattr(self, field), *path)

    def impossible_metrics(self) -> dict[str, str]:
        """The metrics that are no finite numbers, and the accuracies that are not between 0 and 1, each with what is wrong."""
        values = {name: self.metric(name) for name in self.metrics}
        wrong = {name: "is no finite number" for name, value in values.items() if value is None}
        return wrong | {
            name: f"{value:g} is not an accuracy, expected 0 to 1"
            for name, value in values.items()
            if value is not None and name.endswith("acc") and not 0 <= value <= 1
        }

    @classmethod
    def parse(cls, text: bytes) -> tuple[Result, list[str]]:
        """A result without its wrong fields, and their names.

        Raises:
            ValidationError: the text is no JSON object, or it has no metrics.
        """
        try:
            return cls.model_validate_json(text), []
        except ValidationError as error:
            wrong = list(
                dict.fromkeys(str(part) for each in error.errors(include_url=False) for part in each["loc"][:1])
            )
            if not wrong or "metrics" in wrong:
                raise
            return cls.model_validate({key: value for key, value in from_json(text).items() if key not in wrong}), wrong


class ClaimRecord(Record):
    """A claim of a paper: a bound on the mean of a metric in a setting, or on its difference from the mean in another setting.

    Attributes:
        says: the claim in words.
        of: a setting.
        over: the setting whose mean is subtracted; None: nothing is subtracted.
        metric: name of a metric.
        above, below: bounds, at least one of them.
    """

    says: Shown
    of: Setting
    over: Setting | None = None
    metric: str | None = None
    above: float | None = None
    below: float | None = None


class JobRecord(Record):
    """A job of a sweep.

    Attributes:
        directory: the name of its run directory.
        identity: of its frozen config.
        setting: the swept keys and their values.
        facts: `params macs image n steps epochs lr batch_size devices threads`.
    """

    directory: Annotated[str, AfterValidator(_plain_name)]
    identity: str
    setting: Setting
    facts: Values


class SweepRecord(Record):
    """sweep.json: the settings of a sweep, and its jobs.

    Attributes:
        name: of the sweep.
        question: that it answers.
        cost: what it costs to run, in words.
        baseline: the setting that others are compared with.
        keys: the keys that vary, `seed` among them.
        fixed: dotted keys that are the same in all jobs, with their values.
        command: what the user typed.
        slots: the number of jobs that run at a time.
        part: the part of the jobs that the last launch ran, as `1/2`; None: all.
        jobs: in their order.
    """

    schema_version: Literal[1] = Field(alias="schema")
    name: str
    question: Shown | None = None
    cost: Any = None
    baseline: Annotated[Setting, BeforeValidator(_none_to_empty)] = {}
    claims: Annotated[list[ClaimRecord], BeforeValidator(lambda value: [] if value is None else value)] = []
    keys: list[str]
    fixed: Values
    command: str | None = None
    slots: Count | None = None
    part: Part | None = None
    jobs: Annotated[list[JobRecord], AfterValidator(_different)]
