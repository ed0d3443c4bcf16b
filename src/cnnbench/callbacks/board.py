"""TensorBoard: one event file a run, a point an epoch, the final numbers beside the hyperparameters."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

from pytorch_lightning import Callback, Trainer
from torch.utils.tensorboard import SummaryWriter
from torch.utils.tensorboard.summary import hparams

from cnnbench.callbacks.history import History
from cnnbench.classifier import Classifier
from cnnbench.config import Config
from cnnbench.rundir import RunDir

FINAL = ("best/val/acc", "best/val/loss", "last/val/acc", "test/acc", "test/loss")
LAYOUT = {
    "train over validation": {
        "loss": ["Multiline", ["train/loss", "val/loss"]],
        "accuracy": ["Multiline", ["train/acc", "val/acc"]],
    }
}


class Board(Callback):
    """`train/ val/ lr samples_per_s` with the epoch as step; `best/ last/ test/` once, after the last; hyperparameters.

    The hyperparameters have the same keys and types in every run, so that TensorBoard's table has numeric columns.
    """

    def __init__(self, directory: RunDir, history: History, config: Config) -> None:
        self.directory, self.history, self.config = directory, history, config
        self._writer: SummaryWriter | None = None

    def on_fit_start(self, trainer: Trainer, pl_module: Classifier) -> None:
        """Opens the event file; a resumed run's points from here on are purged, and written again."""
        earlier = list(self.directory.path.glob("events.out.tfevents.*"))
        done = len(self.history.epochs)
        if not done:  # nothing in an earlier file counts
            for path in earlier:
                path.unlink()
        else:
            _outlast(earlier)
        self._writer = SummaryWriter(str(self.directory.path), purge_step=done + 1 if done else None)
        if not done:
            experiment, start, _ = self._hyperparameters()
            for summary in (experiment, start):
                self._writer._get_file_writer().add_summary(summary)
            self._writer.add_custom_scalars(LAYOUT)

    def on_train_epoch_end(self, trainer: Trainer, pl_module: Classifier) -> None:
        """Adds the epoch's point."""
        assert self._writer is not None
        record = self.history.epochs[-1]
        for name in (
            "train/loss",
            "train/acc",
            "val/loss",
            "val/acc",
            "val/ema_loss",
            "val/ema_acc",
            "lr",
            "samples_per_s",
        ):
            if record[name] is not None:
                self._writer.add_scalar(name, record[name], record["epoch"])
        if self.config.log == "full":
            for name, parameter in pl_module.net.named_parameters():
                self._writer.add_histogram(f"weights/{name}", parameter, record["epoch"])
        self._writer.flush()

    def finish(self, metrics: dict[str, float]) -> None:
        """Adds the final numbers and closes the file. They stand past the last epoch: a run killed now, and resumed, purges them."""
        assert self._writer is not None
        for name in metrics:
            self._writer.add_scalar(name, metrics[name], len(self.history.epochs) + 1)
        self._writer._get_file_writer().add_summary(self._hyperparameters()[2])
        self._writer.close()

    def _hyperparameters(self) -> tuple[Any, Any, Any]:
        return hparams(hyperparameters(self.config), dict.fromkeys(FINAL, 0.0))


def _outlast(files: list[Path]) -> None:
    """Waits until a new event file will sort after `files`: TensorBoard reads them by name, and they are named by the second."""
    seconds = [int(path.name.split(".")[3]) for path in files]
    deadline = time.monotonic() + 2  # a clock that was turned back is not waited for
    while int(time.time()) <= max(seconds, default=0) and time.monotonic() < deadline:
        time.sleep(0.02)


def hyperparameters(config: Config) -> dict[str, str | float]:
    """The flat keys of TensorBoard's table: choices and init as strings, the others as floats, whatever the run."""
    groups = ("model", "data", "augment", "optimizer", "scheduler", "recipe", "trainer", "experiment")
    return {
        **{group: config.choices.get(group, "none") for group in groups},
        "init": config.init,
        "lr": config.optimizer.lr,
        "weight_decay": config.optimizer.weight_decay,
        "label_smoothing": config.label_smoothing,
        "mixup": config.mixup,
        "cutmix": config.cutmix,
        "ema": config.ema,
        "batch_size": float(config.batch_size),
        "epochs": float(config.epochs),
        "image_size": float(config.data.image_size),
        "seed": float(config.seed),
    }
