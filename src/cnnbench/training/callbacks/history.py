"""What a fit has shown so far: a record an epoch, a record a validation, and which validation was best."""

from __future__ import annotations

import csv
import io
import math
import time
from typing import Any

from pytorch_lightning import Callback, Trainer

from cnnbench.config.schema import Config
from cnnbench.distributed.ranks import Ranks, every_rank
from cnnbench.errors import Diverged
from cnnbench.files import write_atomic
from cnnbench.runs.run_dir import RunDir
from cnnbench.training.classifier import Classifier

COLUMNS = (
    "epoch", "step", "train/loss", "train/acc", "val/loss", "val/acc", "val/ema_loss", "val/ema_acc", "lr", "epoch_s",
    "samples_per_s",
)  # fmt: skip


class History(Callback):
    """Keeps the records, writes metrics.csv, ends a run that no longer improves.

    Attributes:
        epochs: a row of `COLUMNS` an epoch; its validation is the epoch's last, or None.
        validations: `epoch step val/loss val/acc val/ema_loss val/ema_acc`; the epoch may be a fraction, the last two None.
        best: the validation with the highest accuracy, the first of equals; best_ema: of the averaged weights.
        fit_s: seconds of the fit, over all sittings; train_s: the part of it in training steps; waited_s: the part of
            train_s that went into cutting batches.
        images: how many images were trained on, repeats counted.
    """

    def __init__(self, directory: RunDir, config: Config, ranks: Ranks) -> None:
        self.ranks = ranks
        self.directory, self.accumulate, self.patience = directory, config.accumulate, config.early_stopping
        self.epochs: list[dict[str, Any]] = []
        self.validations: list[dict[str, Any]] = []
        self.best: dict[str, Any] = {}
        self.best_ema: dict[str, Any] = {}
        self.fit_s = self.train_s = self.waited_s = 0.0
        self.images = 0
        self._steps = 0  # of the whole fit
        self._lr = math.nan  # of the last step
        self._epoch_clock, self._train_clock = Stopwatch(), Stopwatch()  # of this epoch

    @property
    def improved(self) -> bool:
        """The last validation is the best one."""
        return bool(self.validations) and self.best is self.validations[-1]

    @property
    def improved_ema(self) -> bool:
        """The same of the averaged weights."""
        return bool(self.validations) and self.best_ema is self.validations[-1]

    @property
    def exhausted(self) -> bool:
        """Since the best validation there have been as many as `early_stopping` allows."""
        return bool(self.best) and self.patience is not None and self._since_best >= self.patience

    @property
    def _since_best(self) -> int:
        return len(self.validations) - 1 - self.validations.index(self.best)

    def on_train_start(self, trainer: Trainer, pl_module: Classifier) -> None:
        """Starts the clock, also of an epoch that is resumed in its midst."""
        trainer.should_stop = trainer.should_stop or self.exhausted
        self._steps = int(trainer.estimated_stepping_batches)
        self._epoch_clock.start()

    def on_train_batch_start(self, trainer: Trainer, pl_module: Classifier, batch: Any, batch_idx: int) -> None:
        """Notes the learning rate that the step uses."""
        self._lr = trainer.optimizers[0].param_groups[0]["lr"]
        self._train_clock.start()

    def on_train_batch_end(self, trainer: Trainer, pl_module: Classifier, *_: Any) -> None:
        """Has Lightning validate after the last step, which `val_every_steps` may not hit."""
        if trainer.global_step == self._steps:
            trainer.should_stop = True

    def on_validation_start(self, trainer: Trainer, pl_module: Classifier) -> None:
        """Training pauses, until the next step."""
        self._train_clock.stop()

    def on_validation_end(self, trainer: Trainer, pl_module: Classifier) -> None:
        """Adds the validation."""
        record = {
            "epoch": round(trainer.global_step * self.accumulate / trainer.num_training_batches, 6),
            "step": trainer.global_step,
            "val/loss": pl_module.scores["loss"],
            "val/acc": pl_module.scores["acc"],
            "val/ema_loss": pl_module.ema_scores.get("loss"),
            "val/ema_acc": pl_module.ema_scores.get("acc"),
        }
        for name, whose in {"val/loss": "", "val/ema_loss": " of the averaged weights"}.items():
            if record[name] is not None and not math.isfinite(record[name]):
                what = f"the validation loss{whose} is {record[name]}"
                raise Diverged(f"{what} after step {record['step']}, lr {self._lr:g}")
        self.validations.append(record)
        if not self.best or record["val/acc"] > self.best["val/acc"]:
            self.best = record
        if pl_module.ema_scores and (not self.best_ema or record["val/ema_acc"] > self.best_ema["val/ema_acc"]):
            self.best_ema = record
        if self.exhausted:
            trainer.should_stop = True

    def on_train_epoch_end(self, trainer: Trainer, pl_module: Classifier) -> None:
        """Adds the epoch and writes metrics.csv."""
        sums = every_rank((*pl_module.train_sums.tolist(), pl_module.train_images))
        loss, correct, images = map(sum, zip(*sums, strict=True))
        epoch_s, train_s = self._epoch_clock.take(), self._train_clock.take()
        self._epoch_clock.start()
        of_epoch = [record for record in self.validations if record["epoch"] > trainer.current_epoch]
        validation = of_epoch[-1] if of_epoch else {}
        self.epochs.append(
            {
                "epoch": trainer.current_epoch + 1,
                "step": trainer.global_step,
                "train/loss": loss / images,
                "train/acc": correct / images,
                "val/loss": validation.get("val/loss"),
                "val/acc": validation.get("val/acc"),
                "val/ema_loss": validation.get("val/ema_loss"),
                "val/ema_acc": validation.get("val/ema_acc"),
                "lr": self._lr,
                "epoch_s": epoch_s,
                "samples_per_s": images / train_s,
            }
        )
        self.fit_s += epoch_s
        self.train_s += train_s
        self.images += images
        self._take_waited(trainer)
        self.write()

    def write(self) -> None:
        """Writes metrics.csv anew, from the records."""
        if not self.ranks.first:
            return
        text = io.StringIO()
        table = csv.DictWriter(text, COLUMNS, lineterminator="\n")
        table.writeheader()
        table.writerows(self.epochs)
        write_atomic(self.directory.metrics, text.getvalue())

    def state_dict(self) -> dict[str, Any]:
        """All of it, and how long the epoch in progress has taken."""
        return {
            "epochs": self.epochs,
            "validations": self.validations,
            "best": [self.validations.index(best) if best else None for best in (self.best, self.best_ema)],
            "times": [self.fit_s, self.train_s, self.waited_s],
            "images": self.images,
            "in_epoch": [self._epoch_clock.seconds, self._train_clock.seconds],
        }

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Goes on from `state_dict`."""
        self.epochs, self.validations = list(state_dict["epochs"]), list(state_dict["validations"])
        self.best, self.best_ema = ({} if at is None else self.validations[at] for at in state_dict["best"])
        self.fit_s, self.train_s, self.waited_s = state_dict["times"]
        self.images = state_dict["images"]
        self._epoch_clock, self._train_clock = map(Stopwatch, state_dict["in_epoch"])

    def _take_waited(self, trainer: Trainer) -> None:
        loader: Any = trainer.train_dataloader
        self.waited_s, loader.waited_s = self.waited_s + loader.waited_s, 0.0


class Stopwatch:
    """Seconds while it runs; `start` and `stop` do nothing where they change nothing."""

    def __init__(self, seconds: float = 0.0) -> None:
        self._stopped_at = seconds
        self._begun: float | None = None

    @property
    def seconds(self) -> float:
        """What it shows."""
        return self._stopped_at + (time.perf_counter() - self._begun if self._begun is not None else 0.0)

    def start(self) -> None:
        """Goes on."""
        if self._begun is None:
            self._begun = time.perf_counter()

    def stop(self) -> None:
        """Pauses."""
        self._stopped_at, self._begun = self.seconds, None

    def take(self) -> float:
        """What it shows; stops, and starts from zero the next time."""
        shown = self.seconds
        self._stopped_at, self._begun = 0.0, None
        return shown
