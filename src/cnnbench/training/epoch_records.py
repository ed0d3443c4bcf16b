"""The records of a fit, one an epoch and one a validation, and metrics.csv.

A field's column replaces the first underscore after `train` or `val` with a slash: `val_ema_acc` is the column `val/ema_acc`.
metrics.csv, last.ckpt, best.ckpt and TensorBoard use these column names.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, TypeVar

from cnnbench.files import write_atomic
from cnnbench.text import Values, csv_table

R = TypeVar("R", bound="Record")


class Record:
    """A dataclass that converts to a row of columns and back."""

    def as_row(self) -> Values:
        """Returns column -> value, in the order of the fields."""
        return {column: getattr(self, name) for name, column in columns(type(self)).items()}

    @classmethod
    def from_row(cls: type[R], row: Mapping[str, Any]) -> R:
        """Makes a record of column -> value; an absent column is None, as in rows that earlier versions saved."""
        return cls(**{name: row.get(column) for name, column in columns(cls).items()})


@dataclass(frozen=True)
class ValidationRecord(Record):
    """The scores of one validation.

    Attributes:
        epoch: epochs trained so far; a fraction in mid-epoch.
        step: optimizer steps taken so far.
        val_loss, val_acc: mean cross-entropy and accuracy (a fraction) of the net.
        val_ema_loss, val_ema_acc: the same of the averaged weights; None without `ema`.
    """

    epoch: float
    step: int
    val_loss: float
    val_acc: float
    val_ema_loss: float | None
    val_ema_acc: float | None


@dataclass(frozen=True)
class EpochRecord(Record):
    """One epoch: a row of metrics.csv.

    Attributes:
        epoch: its number, from 1.
        step: optimizer steps taken by its end.
        train_loss, train_acc: means over the epoch's images, each in the step that trained on it.
        val_loss, val_acc, val_ema_loss, val_ema_acc: of the epoch's last validation; None where it had none.
        lr: learning rate of its last step.
        epoch_s: its duration in seconds, validations included.
        samples_per_s: images trained on per second of training, validations excluded.
    """

    epoch: int
    step: int
    train_loss: float
    train_acc: float
    val_loss: float | None
    val_acc: float | None
    val_ema_loss: float | None
    val_ema_acc: float | None
    lr: float
    epoch_s: float
    samples_per_s: float


def columns(record: type[Record]) -> dict[str, str]:
    """Returns field -> column of a record class."""
    return {field.name: re.sub("^(train|val)_", r"\1/", field.name) for field in fields(record)}  # type: ignore[arg-type]


def write_metrics_csv(path: Path, epochs: Iterable[EpochRecord]) -> None:
    """Writes all epochs to `path`, replacing an earlier file in one rename."""
    write_atomic(path, csv_table(columns(EpochRecord).values(), (epoch.as_row() for epoch in epochs)))
