"""Records what a fit measures: one record an epoch, one a validation, and which validation was the best."""

from __future__ import annotations

import math
import time
from typing import Any

from pytorch_lightning import Callback, Trainer

from cnnbench.distributed.ranks import all_gather
from cnnbench.errors import Diverged
from cnnbench.training.classifier import Classifier
from cnnbench.training.epoch_records import EpochRecord, ValidationRecord, write_metrics_csv
from cnnbench.training.run_context import RunContext

SCORES = ("val_loss", "val_acc", "val_ema_loss", "val_ema_acc")  # that an epoch takes from its last validation


class History(Callback):
    """Keeps the records and writes metrics.csv after each epoch; its state is part of last.ckpt.

    Attributes:
        epochs: a record of each epoch.
        validations: a record of each validation.
        best: the validation with the highest accuracy, the first among equals; None before the first validation.
        best_ema: the same by the accuracy of the averaged weights; None without `ema`.
        fit_s: seconds of the fit, summed over interruptions.
        train_s: seconds of `fit_s` spent in training steps.
        waited_s: seconds of `train_s` spent in preparing batches.
        images: images trained on, repetitions counted.
    """

    def __init__(self, context: RunContext) -> None:
        self.context = context
        self.epochs: list[EpochRecord] = []
        self.validations: list[ValidationRecord] = []
        self.best: ValidationRecord | None = None
        self.best_ema: ValidationRecord | None = None
        self.fit_s = self.train_s = self.waited_s = 0.0
        self.images = 0
        self._lr = math.nan  # of the last step
        self._epoch_clock, self._train_clock = Stopwatch(), Stopwatch()  # of this epoch

    def on_train_start(self, trainer: Trainer, pl_module: Classifier) -> None:
        """Starts the clock of the epoch, which a resumed run may enter in the middle."""
        self._epoch_clock.start()

    def on_train_batch_start(self, trainer: Trainer, pl_module: Classifier, batch: Any, batch_idx: int) -> None:
        """Reads the learning rate that the step uses."""
        self._lr = trainer.optimizers[0].param_groups[0]["lr"]
        self._train_clock.start()

    def on_validation_start(self, trainer: Trainer, pl_module: Classifier) -> None:
        """Pauses the clock of the training steps."""
        self._train_clock.stop()

    def on_validation_end(self, trainer: Trainer, pl_module: Classifier) -> None:
        """Adds a validation.

        Raises:
            Diverged: its loss is not a finite number.
        """
        scores, ema_scores = pl_module.scores, pl_module.ema_scores
        record = ValidationRecord(
            epoch=round(trainer.global_step * self.context.config.accumulate / trainer.num_training_batches, 6),
            step=trainer.global_step,
            val_loss=scores["loss"],
            val_acc=scores["acc"],
            val_ema_loss=ema_scores.get("loss"),
            val_ema_acc=ema_scores.get("acc"),
        )
        for loss, whose in ((record.val_loss, ""), (record.val_ema_loss, " of the averaged weights")):
            if loss is not None and not math.isfinite(loss):
                raise Diverged(f"the validation loss{whose} is {loss} after step {record.step}, lr {self._lr:g}")
        self.validations.append(record)
        if self.best is None or record.val_acc > self.best.val_acc:
            self.best = record
        if ema_scores and (self.best_ema is None or ema_scores["acc"] > self.best_ema.val_ema_acc):
            self.best_ema = record

    def on_train_epoch_end(self, trainer: Trainer, pl_module: Classifier) -> None:
        """Adds an epoch and writes metrics.csv."""
        sums = all_gather((*pl_module.train_sums.tolist(), pl_module.train_images))
        loss, correct, images = map(sum, zip(*sums, strict=True))
        epoch_s, train_s = self._epoch_clock.read_and_reset(), self._train_clock.read_and_reset()
        self._epoch_clock.start()
        validated = self.validations and self.validations[-1].epoch > trainer.current_epoch
        scores = {name: getattr(self.validations[-1], name) if validated else None for name in SCORES}
        self.epochs.append(
            EpochRecord(
                epoch=trainer.current_epoch + 1,
                step=trainer.global_step,
                train_loss=loss / images,
                train_acc=correct / images,
                **scores,
                lr=self._lr,
                epoch_s=epoch_s,
                samples_per_s=images / train_s,
            )
        )
        self.fit_s += epoch_s
        self.train_s += train_s
        self.images += images
        loader: Any = trainer.train_dataloader
        self.waited_s, loader.waited_s = self.waited_s + loader.waited_s, 0.0
        if self.context.ranks.first:
            write_metrics_csv(self.context.directory.metrics, self.epochs)

    def state_dict(self) -> dict[str, Any]:
        """Returns all records and sums in plain types, and the seconds of the epoch in progress."""
        return {
            "epochs": [epoch.as_row() for epoch in self.epochs],
            "validations": [validation.as_row() for validation in self.validations],
            "best": [self.validations.index(best) if best else None for best in (self.best, self.best_ema)],
            "times": [self.fit_s, self.train_s, self.waited_s],
            "images": self.images,
            "in_epoch": [self._epoch_clock.seconds, self._train_clock.seconds],
        }

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Restores what `state_dict` returned, here or in an earlier version."""
        self.epochs = [EpochRecord.from_row(row) for row in state_dict["epochs"]]
        self.validations = [ValidationRecord.from_row(row) for row in state_dict["validations"]]
        self.best, self.best_ema = (None if at is None else self.validations[at] for at in state_dict["best"])
        self.fit_s, self.train_s, self.waited_s = state_dict["times"]
        self.images = state_dict["images"]
        self._epoch_clock, self._train_clock = map(Stopwatch, state_dict["in_epoch"])


class Stopwatch:
    """Measures seconds while it runs.

    Args:
        seconds: shown at first.
    """

    def __init__(self, seconds: float = 0.0) -> None:
        self._stopped_at = seconds
        self._started_at: float | None = None

    @property
    def seconds(self) -> float:
        """Seconds measured so far."""
        running = 0.0 if self._started_at is None else time.perf_counter() - self._started_at
        return self._stopped_at + running

    def start(self) -> None:
        """Starts or continues; a running stopwatch is left as it is."""
        if self._started_at is None:
            self._started_at = time.perf_counter()

    def stop(self) -> None:
        """Pauses; a stopped stopwatch is left as it is."""
        self._stopped_at, self._started_at = self.seconds, None

    def read_and_reset(self) -> float:
        """Returns the seconds, stops, and sets them to zero."""
        seconds = self.seconds
        self._stopped_at, self._started_at = 0.0, None
        return seconds
