"""Records what a fit measures: one record an epoch, one a validation, and which validation was the best."""

from __future__ import annotations

import math
import time
from operator import attrgetter
from typing import Any

from pytorch_lightning import Callback, Trainer

from cnnbench.distributed.ranks import all_gather
from cnnbench.errors import Diverged
from cnnbench.text import Values
from cnnbench.training.classifier import Classifier
from cnnbench.training.epoch_records import EpochRecord, ValidationRecord, write_metrics_csv
from cnnbench.training.run_context import RunContext

SCORES = ("val_loss", "val_acc", "val_ema_loss", "val_ema_acc")  # an epoch's row has those of its last validation


class History(Callback):
    """Keeps the records and writes metrics.csv after each epoch; its state is part of last.ckpt.

    Attributes:
        epochs: a record of each epoch.
        validations: a record of each validation.
        fit_s: seconds of the fit, summed over interruptions.
        train_s: seconds of `fit_s` spent in training steps.
        waited_s: seconds of `train_s` spent in preparing batches.
        images: images trained on, repetitions counted.
    """

    def __init__(self, context: RunContext) -> None:
        self.context = context
        self.epochs: list[EpochRecord] = []
        self.validations: list[ValidationRecord] = []
        self.fit_s = self.train_s = self.waited_s = 0.0
        self.images = 0
        self._lr = math.nan  # of the last step
        self._epoch_clock, self._train_clock = Stopwatch(), Stopwatch()  # of this epoch

    @property
    def best(self) -> ValidationRecord | None:
        """The validation with the highest accuracy, the first among equals; None before the first validation."""
        return max(self.validations, key=attrgetter("val_acc"), default=None)

    @property
    def best_ema(self) -> ValidationRecord | None:
        """The validation with the highest accuracy of the averaged weights, the first among equals; None without `ema`."""
        averaged = [record for record in self.validations if record.val_ema_acc is not None]
        return max(averaged, key=attrgetter("val_ema_acc"), default=None)

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
        require_finite_scores("validation", pl_module, f" after step {trainer.global_step}, lr {self._lr:g}")
        scores, ema_scores = pl_module.scores, pl_module.ema_scores
        self.validations.append(
            ValidationRecord(
                epoch=round(trainer.global_step * self.context.config.accumulate / trainer.num_training_batches, 6),
                step=trainer.global_step,
                val_loss=scores["loss"],
                val_acc=scores["acc"],
                val_ema_loss=ema_scores.get("loss"),
                val_ema_acc=ema_scores.get("acc"),
            )
        )

    def on_train_epoch_end(self, trainer: Trainer, pl_module: Classifier) -> None:
        """Adds an epoch and writes metrics.csv."""
        sums = all_gather((*pl_module.train_sums.tolist(), pl_module.train_images))
        loss, correct, images = map(sum, zip(*sums, strict=True))
        epoch_s, train_s = self._epoch_clock.seconds, self._train_clock.seconds
        self._epoch_clock, self._train_clock = Stopwatch(), Stopwatch()
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

    def state_dict(self) -> Values:
        """Returns all records and sums in plain types, the seconds of the epoch in progress, and the numbers of the best validations."""
        return {
            "epochs": [epoch.as_row() for epoch in self.epochs],
            "validations": [validation.as_row() for validation in self.validations],
            "best": [self.validations.index(best) if best else None for best in (self.best, self.best_ema)],
            "times": [self.fit_s, self.train_s, self.waited_s],
            "images": self.images,
            "in_epoch": [self._epoch_clock.seconds, self._train_clock.seconds],
        }

    def load_state_dict(self, state_dict: Values) -> None:
        """Restores what `state_dict` returned, here or in an earlier version."""
        self.epochs = [EpochRecord.from_row(row) for row in state_dict["epochs"]]
        self.validations = [ValidationRecord.from_row(row) for row in state_dict["validations"]]
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


def require_finite_scores(stage: str, classifier: Classifier, when: str = "") -> None:
    """Raises `Diverged` if a loss of the last validation or test is not a finite number.

    Args:
        stage: validation or test, for the message.
        classifier: holds the scores of the net, and those of the averaged weights.
        when: text that ends the message.
    """
    for scores, whose in ((classifier.scores, ""), (classifier.ema_scores, " of the averaged weights")):
        if scores and not math.isfinite(scores["loss"]):
            raise Diverged(f"the {stage} loss{whose} is {scores['loss']}{when}")
