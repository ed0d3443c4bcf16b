"""Tells how far a run is while it trains, and ends it in good order when a signal asks for that."""

from __future__ import annotations

import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from pytorch_lightning import Callback, Trainer

from cnnbench.distributed.ranks import Ranks
from cnnbench.distributed.signals import Signals
from cnnbench.errors import Interrupted
from cnnbench.runs.liveness import HEARTBEAT_S
from cnnbench.runs.status_and_log import Pulse
from cnnbench.training.callbacks.checkpoints import Checkpoints, stepped, validation_follows
from cnnbench.training.classifier import Classifier


class Lifecycle(Callback):
    """While it trains or tests, the first signal finishes the step on all ranks, saves and raises `Interrupted`."""

    def __init__(self, checkpoints: Checkpoints, ranks: Ranks, signals: Signals, pulse: Pulse) -> None:
        self.checkpoints, self.ranks, self.signals, self.pulse = checkpoints, ranks, signals, pulse
        self._told_at = 0.0
        self._began = (0, 0.0)  # this sitting: its first step, and when
        self._put_off = False

    def setup(self, trainer: Trainer, pl_module: Classifier, stage: str) -> None:
        """Keeps Lightning's hands off SIGTERM: its handler talks to the other ranks whatever they are at."""
        trainer._signal_connector.register_signal_handlers = lambda: None  # type: ignore[method-assign]

    def on_train_start(self, trainer: Trainer, pl_module: Classifier) -> None:
        """From here on a signal waits for the end of a step."""
        self.signals.hold()
        self._began = (trainer.global_step, time.monotonic())

    def on_test_start(self, trainer: Trainer, pl_module: Classifier) -> None:
        """The same."""
        self.signals.hold()

    def on_train_batch_end(self, trainer: Trainer, pl_module: Classifier, *_: Any) -> None:
        """Between two steps: tells how far it is; saves when it is time, and stops if that was asked for.

        Both are put off until a validation is over.
        """
        self._tell(trainer, pl_module)
        if stepped(trainer):
            self._put_off = validation_follows(trainer)
            if not self._put_off:
                self._save_or_stop(trainer, pl_module)

    def on_train_batch_start(self, trainer: Trainer, pl_module: Classifier, batch: Any, batch_idx: int) -> None:
        """What was put off; the end of an epoch is another matter."""
        if self._put_off and batch_idx:
            with not_begun(trainer):
                self._save_or_stop(trainer, pl_module)
        self._put_off = False

    def on_train_epoch_end(self, trainer: Trainer, pl_module: Classifier) -> None:
        """A signal in the epoch's last step or in its validation has waited for this; the epoch was saved just now."""
        self._stop_if(*self.ranks.largest(self.signals.received))

    def on_test_batch_end(self, trainer: Trainer, pl_module: Classifier, *_: Any) -> None:
        """The fit is saved; the test begins anew when the run is resumed. Several ranks have not as many batches: they go on."""
        if self.ranks.size == 1:
            self._stop_if(self.signals.received)

    def on_test_epoch_end(self, trainer: Trainer, pl_module: Classifier) -> None:
        """They stop here."""
        self._stop_if(*self.ranks.largest(self.signals.received))

    def teardown(self, trainer: Trainer, pl_module: Classifier, stage: str) -> None:
        """Nothing is under way that would be lost."""
        self.signals.release()

    def _save_or_stop(self, trainer: Trainer, pl_module: Classifier) -> None:
        """On all ranks after the same step."""
        received, due = self.ranks.largest(self.signals.received, self.checkpoints.due)
        if received or due:
            self.checkpoints.save(trainer, pl_module)
        self._stop_if(received)

    def _tell(self, trainer: Trainer, pl_module: Classifier) -> None:
        now = time.monotonic()
        if not self.ranks.first or now - self._told_at < HEARTBEAT_S:
            return
        self._told_at = now
        step, steps = trainer.global_step, int(trainer.estimated_stepping_batches)
        (loss, _), images = pl_module.train_sums.tolist(), pl_module.train_images
        validations, (first, began) = self.checkpoints.history.validations, self._began
        self.pulse.progress = {
            "epoch": trainer.current_epoch + 1,
            "epochs": trainer.max_epochs,
            "step": step,
            "steps": steps,
            "loss": loss / images if images else None,
            "val_acc": validations[-1]["val/acc"] if validations else None,
            "left_s": (now - began) / (step - first) * (steps - step) if step > first else None,
        }

    def _stop_if(self, received: int) -> None:
        if received:
            raise Interrupted(f"stopped by {signal.Signals(received).name}", received)


@contextmanager
def not_begun(trainer: Trainer) -> Iterator[None]:
    """Lightning counts a batch as begun before its first hook; what is saved here shall take it again."""
    counts = trainer.fit_loop.epoch_loop.batch_progress
    last, counts.is_last_batch = counts.is_last_batch, False
    counts.total.ready -= 1
    counts.current.ready -= 1
    try:
        yield
    finally:
        counts.total.ready += 1
        counts.current.ready += 1
        counts.is_last_batch = last
