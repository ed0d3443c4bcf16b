"""Writes a run's TensorBoard event file: one point an epoch, then the final metrics and the hyperparameters."""

from __future__ import annotations

import copy
import io
import logging
import re
import time
import warnings
from contextlib import redirect_stdout
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from pytorch_lightning import Callback, Trainer
from torch import nn
from torch.utils.tensorboard import SummaryWriter

from cnnbench.text import one_line
from cnnbench.training.callbacks.checkpoints import random_state, set_random_state
from cnnbench.training.callbacks.gradient_norms import NormRecorder
from cnnbench.training.callbacks.history import History
from cnnbench.training.callbacks.hparams import hparams_summaries
from cnnbench.training.classifier import Classifier
from cnnbench.training.run_context import RunContext

log = logging.getLogger("cnnbench.run")
LAYOUT = {
    "train over validation": {
        "loss": ["Multiline", ["train/loss", "val/loss"]],
        "accuracy": ["Multiline", ["train/acc", "val/acc"]],
    }
}
NOT_PLOTTED = ("epoch", "step", "epoch_s")


class TensorBoardWriter(Callback):
    """Writes `train/ val/ lr samples_per_s` at each epoch, `best/ last/ test/` and images once after it, and hyperparameters.

    Args:
        context: of the run.
        history: the records to write; it must come earlier in the trainer's list of callbacks.
        norms: with `log=full`: its values are written too, with the graph and histograms of the weights.
    """

    def __init__(self, context: RunContext, history: History, norms: NormRecorder | None = None) -> None:
        self.config, self.directory, self.history, self.norms = context.config, context.directory.path, history, norms

    def on_fit_start(self, trainer: Trainer, pl_module: Classifier) -> None:
        """Opens the event file; a resumed run's points from the current epoch on are purged and written again."""
        earlier = list(self.directory.glob("events.out.tfevents.*"))
        done = len(self.history.epochs)
        if done:
            _wait_until_sorted_last(earlier)
        else:
            for path in earlier:
                path.unlink()
        self._writer = SummaryWriter(str(self.directory), purge_step=done + 1 if done else None)
        if not done:
            for summary in hparams_summaries(self.config, self.directory)[:2]:
                self._writer._get_file_writer().add_summary(summary)
            self._writer.add_custom_scalars(LAYOUT)
            if self.norms is not None and not self.config.compile:
                add_graph(self._writer, pl_module.net, trainer.datamodule.shape)  # type: ignore[attr-defined]

    def on_train_epoch_end(self, trainer: Trainer, pl_module: Classifier) -> None:
        """Adds the epoch's points."""
        record = self.history.epochs[-1]
        points = record.as_row()
        if self.norms is not None:
            points |= self.norms.values
            for name, parameter in pl_module.net.named_parameters():
                self._writer.add_histogram(f"weights/{name}", parameter, record.epoch)
        for tag, value in points.items():
            if value is not None and tag not in NOT_PLOTTED:
                self._writer.add_scalar(tag, value, record.epoch)
        self._writer.flush()

    def finish(self, metrics: dict[str, float], images: dict[str, Image.Image]) -> None:
        """Adds the final metrics and images (RGB), by tag, and closes the file.

        Their step is one past the last epoch: if the run is killed now and resumed, they are purged.
        """
        step = len(self.history.epochs) + 1
        for tag, value in metrics.items():
            self._writer.add_scalar(tag, value, step)
        for tag, image in images.items():
            self._writer.add_image(tag, np.asarray(image), step, dataformats="HWC")
        self._writer._get_file_writer().add_summary(hparams_summaries(self.config, self.directory)[2])
        self._writer.close()


def add_graph(writer: SummaryWriter, net: nn.Module, shape: tuple[int, int, int]) -> None:
    """Adds the graph of a copy of the net, for an image of shape (C, H, W); neither the net nor any random state changes."""
    before = random_state()
    try:
        with warnings.catch_warnings(), redirect_stdout(io.StringIO()):
            warnings.simplefilter("ignore")  # a trace fixes the branches that it takes, which is what is drawn
            writer.add_graph(copy.deepcopy(net).cpu(), torch.zeros(1, *shape))
    except Exception as error:  # a net may raise anything when it is copied or traced
        log.info("no graph in TensorBoard, this net cannot be traced: %s", one_line(error)[:200])
    finally:
        set_random_state(before)


def _wait_until_sorted_last(files: list[Path]) -> None:
    """Waits until a new event file will sort after `files`: TensorBoard reads them by name, which contains the second."""
    seconds = (re.match(r"events\.out\.tfevents\.(\d{1,12})\.", path.name) for path in files)
    last = max((int(found[1]) for found in seconds if found), default=0)
    deadline = time.monotonic() + 2  # if the clock was turned back, waiting would not help
    while int(time.time()) <= last and time.monotonic() < deadline:
        time.sleep(0.02)
