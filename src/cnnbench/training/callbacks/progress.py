"""Shows a run's training: a progress bar on a terminal, else one line an epoch; log.txt gets the lines in both cases.

The heartbeat writes the same progress into status.json.
"""

from __future__ import annotations

import logging
import time
from typing import Any

from pytorch_lightning import Callback, Trainer
from rich.progress import BarColumn, Progress, TimeElapsedColumn, TimeRemainingColumn

from cnnbench.console import print_plain
from cnnbench.runs.liveness import HEARTBEAT_S
from cnnbench.training.callbacks.early_stopping import EarlyStopping
from cnnbench.training.callbacks.history import History
from cnnbench.training.classifier import Classifier
from cnnbench.training.epoch_records import EpochRecord
from cnnbench.training.run_context import RunContext

log = logging.getLogger("cnnbench.run")
REFRESH_S = 0.5  # a step of LeNet-5 takes a few milliseconds: its loss is read and shown no more often than this


class RunProgress(Callback):
    """A bar with epoch, loss, accuracy and remaining time, or a line an epoch.

    Args:
        context: of the run.
        history: the records to show.
        early_stopping: whether and why the fit ends early.
    """

    def __init__(self, context: RunContext, history: History, early_stopping: EarlyStopping) -> None:
        self.console, self.heartbeat = context.console, context.heartbeat
        self.history, self.early_stopping = history, early_stopping
        self._bar = Progress(
            "epoch {task.fields[epoch]}",
            BarColumn(bar_width=None),
            "{task.fields[shown]}",
            TimeElapsedColumn(),
            "left",
            TimeRemainingColumn(elapsed_when_finished=False),
            console=self.console,
            auto_refresh=False,
            transient=True,
            disable=not self.console.is_terminal,
        )
        self._updated_at = 0.0

    def on_train_start(self, trainer: Trainer, pl_module: Classifier) -> None:
        """Shows the bar."""
        self._first_step, self._started_at = trainer.global_step, time.monotonic()  # of this process
        self._steps = int(trainer.estimated_stepping_batches)
        self._task = self._bar.add_task("", total=self._steps, epoch="", shown="")
        self._bar.start()
        self._update(trainer, pl_module)

    def on_train_batch_end(self, trainer: Trainer, pl_module: Classifier, *_: Any) -> None:
        """Moves the bar twice a second; without a bar updates the heartbeat's progress before each heartbeat."""
        now = time.monotonic()
        if now - self._updated_at > (HEARTBEAT_S if self._bar.disable else REFRESH_S):
            self._updated_at = now
            self._update(trainer, pl_module)

    def on_train_epoch_end(self, trainer: Trainer, pl_module: Classifier) -> None:
        """Logs the epoch's line; without a bar also prints it."""
        line = epoch_line(self.history.epochs[-1], trainer.max_epochs)
        log.info(line)
        if self._bar.disable:
            print_plain(self.console, line)
        self._update(trainer, pl_module)

    def on_train_end(self, trainer: Trainer, pl_module: Classifier) -> None:
        """Removes the bar; prints and logs that the fit was stopped early."""
        self._bar.stop()
        best, stopping = self.history.best, self.early_stopping
        if best is not None and stopping.exhausted:
            line = f"early_stopping={stopping.patience}: no better validation accuracy since epoch {best.epoch:g}"
            log.info(line)
            print_plain(self.console, line)

    def on_exception(self, trainer: Trainer, pl_module: Classifier, exception: BaseException) -> None:
        """Removes the bar before the error is printed; Lightning calls no `on_train_end` then."""
        self._bar.stop()

    def _update(self, trainer: Trainer, pl_module: Classifier) -> None:
        """Sets the progress to the step that has ended; loss and accuracy are means over the epoch until now."""
        (loss, correct), images = pl_module.train_sums.tolist(), pl_module.train_images
        val_acc = self.history.validations[-1].val_acc if self.history.validations else None
        epoch, step = trainer.current_epoch + 1, trainer.global_step
        done = step - self._first_step
        self.heartbeat.progress = {
            "epoch": epoch,
            "epochs": trainer.max_epochs,
            "step": step,
            "steps": self._steps,
            "loss": loss / images if images else None,
            "val_acc": val_acc,
            "left_s": (time.monotonic() - self._started_at) / done * (self._steps - step) if done else None,
        }
        shown = f"loss {loss / images:.4f}  acc {correct / images:.4f}" if images else ""
        if val_acc is not None:
            shown += f"  val acc {val_acc:.4f}"
        self._bar.update(self._task, completed=step, epoch=f"{epoch}/{trainer.max_epochs}", shown=shown, refresh=True)


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
