"""curves.png: loss and accuracy over epochs, train and validation, the best epoch marked."""

from __future__ import annotations

import io
import time
from typing import Any

from pytorch_lightning import Callback, Trainer

from cnnbench.files import write_atomic
from cnnbench.runs.run_dir import RunDir
from cnnbench.training.callbacks.history import History
from cnnbench.training.classifier import Classifier

EVERY_S = 30.0
TRAIN, VAL = "#0072B2", "#D55E00"  # Okabe and Ito's blue and vermillion, told apart by colour-blind eyes


class Curves(Callback):
    """Draws at an epoch's end, at most every thirty seconds, and at most a fiftieth of the time; `draw` when all is done."""

    def __init__(self, directory: RunDir, history: History, title: str) -> None:
        self.directory, self.history, self.title = directory, history, title
        self._drawn_at, self._cost_s = time.monotonic(), 0.0

    def on_train_epoch_end(self, trainer: Trainer, pl_module: Classifier) -> None:
        """Draws when it is time."""
        if time.monotonic() - self._drawn_at > max(EVERY_S, 50 * self._cost_s):
            self.draw()

    def draw(self) -> None:
        """Writes curves.png."""
        begun = time.monotonic()
        figure = plot(self.history.epochs, self.history.validations, self.history.best, self.title)
        content = io.BytesIO()
        figure.savefig(content, format="png", dpi=120)
        write_atomic(self.directory.curves, content.getvalue())
        self._drawn_at = time.monotonic()
        self._cost_s = self._drawn_at - begun


def plot(epochs: list[dict[str, Any]], validations: list[dict[str, Any]], best: dict[str, Any], title: str):  # type: ignore[no-untyped-def]
    """A matplotlib figure of two panels, from `History`'s records."""
    from matplotlib.figure import Figure
    from matplotlib.ticker import MaxNLocator

    figure = Figure(figsize=(9, 3.6))
    # a layout engine would take as long as all the rest
    figure.subplots_adjust(left=0.07, right=0.985, bottom=0.14, top=0.88, wspace=0.17)
    figure.suptitle(title, fontsize=11)
    style = {"markersize": 3.5, "linewidth": 1.6}
    for axes, name, label in zip(figure.subplots(1, 2), ("loss", "acc"), ("loss", "accuracy"), strict=True):
        axes.plot(
            [e["epoch"] for e in epochs],
            [e[f"train/{name}"] for e in epochs],
            "o-",
            color=TRAIN,
            label="train",
            **style,
        )
        axes.plot(
            [v["epoch"] for v in validations],
            [v[f"val/{name}"] for v in validations],
            "s-",
            color=VAL,
            label="validation",
            **style,
        )
        if best:
            at, value = best["epoch"], best[f"val/{name}"]
            axes.axvline(at, color="0.6", linewidth=0.8, linestyle=":")
            axes.plot(
                [at],
                [value],
                "*",
                color=VAL,
                markeredgecolor="black",
                markersize=13,
                label=f"best, epoch {at:g}: {value:.4f}",
            )
        axes.set(xlabel="epoch", ylabel=label)
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        axes.grid(alpha=0.25)
        axes.legend(fontsize=8, frameon=False)
    return figure
