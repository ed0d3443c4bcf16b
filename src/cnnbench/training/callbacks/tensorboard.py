"""TensorBoard: one event file a run, a point an epoch, the final numbers beside the hyperparameters."""

from __future__ import annotations

import copy
import io
import logging
import time
import warnings
from contextlib import redirect_stdout
from pathlib import Path

import torch
from PIL import Image
from pytorch_lightning import Callback, Trainer
from tensorboard.compat.proto.summary_pb2 import Summary
from torch import nn
from torch.utils.tensorboard import SummaryWriter

from cnnbench.config.schema import Config
from cnnbench.runs.run_dir import RunDir
from cnnbench.training.callbacks.checkpoints import random_state, set_random_state
from cnnbench.training.callbacks.gradient_norms import Norms
from cnnbench.training.callbacks.history import History
from cnnbench.training.callbacks.hparams import summaries
from cnnbench.training.classifier import Classifier

log = logging.getLogger("cnnbench.run")
LAYOUT = {
    "train over validation": {
        "loss": ["Multiline", ["train/loss", "val/loss"]],
        "accuracy": ["Multiline", ["train/acc", "val/acc"]],
    }
}


class Board(Callback):
    """`train/ val/ lr samples_per_s` with the epoch as step; `best/ last/ test/` and pictures once, after the last; hyperparameters.

    With `norms`, as `log=full` has them, also the graph, and for each epoch these norms and histograms of the weights.
    """

    def __init__(self, directory: RunDir, history: History, config: Config, norms: Norms | None = None) -> None:
        self.directory, self.history, self.config, self.norms = directory, history, config, norms
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
            for summary in summaries(self.config, self.directory.path)[:2]:
                self._writer._get_file_writer().add_summary(summary)
            self._writer.add_custom_scalars(LAYOUT)
            if self.norms is not None and not self.config.compile:
                add_graph(self._writer, pl_module.net, trainer.datamodule.shape)  # type: ignore[attr-defined]

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
        if self.norms is not None:
            for name, value in self.norms.values.items():
                self._writer.add_scalar(name, value, record["epoch"])
            for name, parameter in pl_module.net.named_parameters():
                self._writer.add_histogram(f"weights/{name}", parameter, record["epoch"])
        self._writer.flush()

    def finish(self, metrics: dict[str, float], figures: dict[str, Image.Image]) -> None:
        """Adds the final numbers and pictures, and closes the file.

        They stand past the last epoch: a run killed now, and resumed, purges them.
        """
        assert self._writer is not None
        step = len(self.history.epochs) + 1
        for name in metrics:
            self._writer.add_scalar(name, metrics[name], step)
        for name in figures:
            self._writer._get_file_writer().add_summary(picture(name, figures[name]), step)
        self._writer._get_file_writer().add_summary(summaries(self.config, self.directory.path)[2])
        self._writer.close()


def picture(tag: str, image: Image.Image) -> Summary:
    """An image as TensorBoard keeps it."""
    content = io.BytesIO()
    image.save(content, "png", compress_level=1)  # a third of the time for a quarter more bytes
    held = Summary.Image(height=image.height, width=image.width, colorspace=3, encoded_image_string=content.getvalue())
    return Summary(value=[Summary.Value(tag=tag, image=held)])


def add_graph(writer: SummaryWriter, net: nn.Module, shape: tuple[int, int, int]) -> None:
    """Adds the graph of a copy of the net: the net itself, and all random numbers, stay as they are."""
    before = random_state()
    try:
        with warnings.catch_warnings(), redirect_stdout(io.StringIO()):
            warnings.simplefilter("ignore")  # what a trace cannot follow is drawn as it went
            writer.add_graph(copy.deepcopy(net).cpu(), torch.zeros(1, *shape))
    except Exception as error:  # whatever a net raises that cannot be copied or traced
        log.info("no graph in TensorBoard, this net cannot be traced: %s", " ".join(str(error).split())[:200])
    finally:
        set_random_state(before)


def _outlast(files: list[Path]) -> None:
    """Waits until a new event file will sort after `files`: TensorBoard reads them by name, and they are named by the second."""
    seconds = [int(path.name.split(".")[3]) for path in files]
    deadline = time.monotonic() + 2  # a clock that was turned back is not waited for
    while int(time.time()) <= max(seconds, default=0) and time.monotonic() < deadline:
        time.sleep(0.02)
