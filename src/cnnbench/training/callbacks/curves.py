"""curves.png: training and validation loss and accuracy over the epochs; the best validation is marked."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any

from pytorch_lightning import Callback, Trainer

from cnnbench.files import open_atomic
from cnnbench.text import printable
from cnnbench.training.callbacks.history import History
from cnnbench.training.classifier import Classifier
from cnnbench.training.epoch_records import EpochRecord, ValidationRecord
from cnnbench.training.run_context import RunContext

EVERY_S = 30.0
SHARE = 1 / 50  # of a run's time that drawing may take
TRAIN, VAL = "#0072B2", "#D55E00"  # blue and vermillion of Okabe and Ito: distinct for colour-blind readers


class Curves(Callback):
    """Draws curves.png at the end of an epoch, at most every 30 s, and whenever `draw` is called.

    Args:
        context: of the run.
        history: the records to draw; it must come earlier in the trainer's list of callbacks.
    """

    def __init__(self, context: RunContext, history: History) -> None:
        self.directory, self.history = context.directory, history
        self._drawn_at, self._cost_s = time.monotonic(), 0.0

    def on_train_epoch_end(self, trainer: Trainer, pl_module: Classifier) -> None:
        """Draws if the last drawing is long enough ago."""
        if time.monotonic() - self._drawn_at > max(EVERY_S, self._cost_s / SHARE):
            self.draw()

    def draw(self) -> None:
        """Writes curves.png."""
        start, history, path = time.monotonic(), self.history, self.directory.path
        title = f"{path.parent.name} · {path.name}"
        figure = plot_curves(history.epochs, history.validations, history.best, title)
        with open_atomic(self.directory.curves) as file:
            figure.savefig(file, format="png", dpi=120)
        self._drawn_at = time.monotonic()
        self._cost_s = self._drawn_at - start


def plot_curves(
    epochs: Sequence[EpochRecord], validations: Sequence[ValidationRecord], best: ValidationRecord | None, title: str
) -> Any:
    """Returns a matplotlib figure of two panels, loss and accuracy."""
    from matplotlib.figure import Figure
    from matplotlib.ticker import MaxNLocator

    figure = Figure(figsize=(9, 3.6))
    # a layout engine would take as long as all the rest
    figure.subplots_adjust(left=0.07, right=0.985, bottom=0.14, top=0.88, wspace=0.17)
    figure.suptitle(printable(title), fontsize=11, parse_math=False)
    line = {"markersize": 3.5, "linewidth": 1.6}
    star = {"color": VAL, "markeredgecolor": "black", "markersize": 13}
    for axes, name, ylabel in zip(figure.subplots(1, 2), ("loss", "acc"), ("loss", "accuracy"), strict=True):
        values = [getattr(epoch, f"train_{name}") for epoch in epochs]
        axes.plot([epoch.epoch for epoch in epochs], values, "o-", color=TRAIN, label="train", **line)
        values = [getattr(each, f"val_{name}") for each in validations]
        axes.plot([each.epoch for each in validations], values, "s-", color=VAL, label="validation", **line)
        if best is not None:
            value = getattr(best, f"val_{name}")
            axes.axvline(best.epoch, color="0.6", linewidth=0.8, linestyle=":")
            axes.plot([best.epoch], [value], "*", label=f"best, epoch {best.epoch:g}: {value:.4f}", **star)
        axes.set(xlabel="epoch", ylabel=ylabel)
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        axes.grid(alpha=0.25)
        axes.legend(fontsize=8, frameon=False)
    return figure
