"""Shows a run's training: a progress bar on a terminal, else one line an epoch; log.txt gets the lines in both cases."""

from __future__ import annotations

import logging
import time
from typing import Any

from pytorch_lightning import Callback, Trainer
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from cnnbench.console import print_plain
from cnnbench.training.callbacks.early_stopping import EarlyStopping
from cnnbench.training.callbacks.history import History
from cnnbench.training.classifier import Classifier
from cnnbench.training.epoch_records import EpochRecord

log = logging.getLogger("cnnbench.run")
REFRESH_S = 0.5  # a step of LeNet-5 takes a few milliseconds: its loss is read and shown no more often than this


class RunProgress(Callback):
    """A bar with epoch, loss, accuracy and remaining time, or a line an epoch.

    Args:
        console: where to print.
        history: the records to show.
        early_stopping: whether and why the fit ends early.
    """

    def __init__(self, console: Console, history: History, early_stopping: EarlyStopping) -> None:
        self.console, self.history, self.early_stopping = console, history, early_stopping
        self._bar: Progress | None = None
        self._shown_at = 0.0

    def on_train_start(self, trainer: Trainer, pl_module: Classifier) -> None:
        """Shows the bar."""
        if self.console.is_terminal:
            self._bar = Progress(
                TextColumn("epoch {task.fields[epoch]}"),
                BarColumn(bar_width=None),
                TextColumn("{task.fields[shown]}"),
                TimeElapsedColumn(),
                TextColumn("left"),
                TimeRemainingColumn(elapsed_when_finished=False),
                console=self.console,
                auto_refresh=False,
                transient=True,
            )
            self._task = self._bar.add_task("", total=int(trainer.estimated_stepping_batches), epoch="", shown="")
            self._bar.start()
            self._update(trainer, pl_module)

    def on_train_batch_end(self, trainer: Trainer, pl_module: Classifier, *_: Any) -> None:
        """Moves the bar, twice a second."""
        if self._bar is not None and time.monotonic() - self._shown_at > REFRESH_S:
            self._update(trainer, pl_module)

    def on_train_epoch_end(self, trainer: Trainer, pl_module: Classifier) -> None:
        """Logs the epoch's line; without a bar also prints it."""
        line = epoch_line(self.history.epochs[-1], trainer.max_epochs)
        if self._bar is not None:
            log.info(line)
            self._update(trainer, pl_module)
        else:
            self._print_and_log(line)

    def on_train_end(self, trainer: Trainer, pl_module: Classifier) -> None:
        """Prints that the fit was stopped early."""
        best, stopping = self.history.best, self.early_stopping
        if best is not None and stopping.exhausted:
            since = f"no better validation accuracy since epoch {best.epoch:g}"
            self._print_and_log(f"early_stopping={stopping.patience}: {since}")

    def teardown(self, trainer: Trainer, pl_module: Classifier, stage: str) -> None:
        """Removes the bar."""
        self._remove_bar()

    def on_exception(self, trainer: Trainer, pl_module: Classifier, exception: BaseException) -> None:
        """Removes the bar before the error is printed; Lightning calls no `teardown` then."""
        self._remove_bar()

    def _print_and_log(self, line: str) -> None:
        log.info(line)
        print_plain(self.console, line)

    def _remove_bar(self) -> None:
        if self._bar is not None:
            self._bar.stop()
            self._bar = None

    def _update(self, trainer: Trainer, pl_module: Classifier) -> None:
        assert self._bar is not None
        (loss, correct), images = pl_module.train_sums.tolist(), pl_module.train_images
        shown = f"loss {loss / images:.4f}  acc {correct / images:.4f}" if images else ""
        if self.history.validations:
            shown += f"  val acc {self.history.validations[-1].val_acc:.4f}"
        epoch = min(trainer.current_epoch + 1, trainer.max_epochs or 0)
        self._bar.update(self._task, completed=trainer.global_step, epoch=f"{epoch}/{trainer.max_epochs}", shown=shown)
        self._bar.refresh()
        self._shown_at = time.monotonic()


def epoch_line(record: EpochRecord, epochs: int | None) -> str:
    """Returns `epoch  2/10  loss 0.1234  acc ...`, one line for one epoch."""
    scores = {
        "loss": record.train_loss,
        "acc": record.train_acc,
        "val loss": record.val_loss,
        "val acc": record.val_acc,
        "ema acc": record.val_ema_acc,
    }
    parts = [f"epoch {record.epoch:>{len(str(epochs))}}/{epochs}"]
    parts += [f"{label} {value:.4f}" for label, value in scores.items() if value is not None]
    parts += [f"lr {record.lr:.3g}", f"{record.epoch_s:.1f} s", f"{record.samples_per_s:,.0f} images/s"]
    return "  ".join(parts)
