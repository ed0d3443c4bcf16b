"""What one sees while a run trains: a bar on a terminal, else a line an epoch; both leave the lines in log.txt."""

from __future__ import annotations

import logging
import time
from typing import Any

from pytorch_lightning import Callback, Trainer
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from cnnbench.training.callbacks.history import History
from cnnbench.training.classifier import Classifier

log = logging.getLogger("cnnbench.run")
REFRESH_S = 0.5  # a step of LeNet-5 takes a few milliseconds: its loss is fetched and shown no more often than this


class RunProgress(Callback):
    """A bar with epoch, loss, accuracy and time left, or a line an epoch."""

    def __init__(self, console: Console, history: History) -> None:
        self.console, self.history = console, history
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
            self._show(trainer, pl_module)

    def on_train_batch_end(self, trainer: Trainer, pl_module: Classifier, *_: Any) -> None:
        """Twice a second, moves the bar."""
        if self._bar is not None and time.monotonic() - self._shown_at > REFRESH_S:
            self._show(trainer, pl_module)

    def on_train_epoch_end(self, trainer: Trainer, pl_module: Classifier) -> None:
        """The epoch's line."""
        line = epoch_line(self.history.epochs[-1], trainer.max_epochs)
        log.info(line)
        if self._bar is not None:
            self._show(trainer, pl_module)
        else:
            self.console.print(line, soft_wrap=True, highlight=False)

    def on_train_end(self, trainer: Trainer, pl_module: Classifier) -> None:
        """Why it ends before its time."""
        if self.history.exhausted:
            line = f"early_stopping={self.history.patience}: no better validation accuracy since epoch {self.history.best['epoch']:g}"
            log.info(line)
            self.console.print(line, soft_wrap=True, highlight=False)

    def teardown(self, trainer: Trainer, pl_module: Classifier, stage: str) -> None:
        """Takes the bar away."""
        self._end_bar()

    def on_exception(self, trainer: Trainer, pl_module: Classifier, exception: BaseException) -> None:
        """The same, before it is told what happened; Lightning tears nothing down then."""
        self._end_bar()

    def _end_bar(self) -> None:
        if self._bar is not None:
            self._bar.stop()
            self._bar = None

    def _show(self, trainer: Trainer, pl_module: Classifier) -> None:
        assert self._bar is not None
        (loss, correct), images = pl_module.train_sums.tolist(), pl_module.train_images
        shown = f"loss {loss / images:.4f}  acc {correct / images:.4f}" if images else ""
        if self.history.validations:
            shown += f"  val acc {self.history.validations[-1]['val/acc']:.4f}"
        epoch = min(trainer.current_epoch + 1, trainer.max_epochs or 0)
        self._bar.update(self._task, completed=trainer.global_step, epoch=f"{epoch}/{trainer.max_epochs}", shown=shown)
        self._bar.refresh()
        self._shown_at = time.monotonic()


def epoch_line(record: dict[str, Any], epochs: int | None) -> str:
    """One epoch's record as one line."""
    parts = [f"epoch {record['epoch']:>{len(str(epochs))}}/{epochs}"]
    names = {
        "train/loss": "loss",
        "train/acc": "acc",
        "val/loss": "val loss",
        "val/acc": "val acc",
        "val/ema_acc": "ema acc",
    }
    parts += [f"{label} {record[name]:.4f}" for name, label in names.items() if record[name] is not None]
    parts += [f"lr {record['lr']:.3g}", f"{record['epoch_s']:.1f} s", f"{record['samples_per_s']:,.0f} images/s"]
    return "  ".join(parts)
