"""Saves a run at intervals while it trains, and stops it with a saved state after a stop signal."""

from __future__ import annotations

import signal
from typing import Any

from pytorch_lightning import Callback, Trainer

from cnnbench.errors import Interrupted
from cnnbench.training.callbacks.checkpoints import Checkpoints
from cnnbench.training.classifier import Classifier
from cnnbench.training.lightning_internals import batch_not_counted, optimizer_stepped, validation_follows
from cnnbench.training.run_context import RunContext


class GracefulStop(Callback):
    """Finishes the step on all ranks at the first signal, saves, and raises `Interrupted`.

    A save or stop between a step and the validation that follows it is deferred: a resumed run would skip that validation.

    Args:
        context: of the run.
        checkpoints: saves the run, also without a signal whenever its interval is over.
    """

    def __init__(self, context: RunContext, checkpoints: Checkpoints) -> None:
        self.ranks, self.signals, self.checkpoints = context.ranks, context.signals, checkpoints
        self._deferred = False

    def on_train_start(self, trainer: Trainer, pl_module: Classifier) -> None:
        """Makes signals wait for the end of a step from now on."""
        self.signals.hold()

    def on_test_start(self, trainer: Trainer, pl_module: Classifier) -> None:
        """Makes signals wait for the end of a batch from now on."""
        self.signals.hold()

    def on_train_batch_end(self, trainer: Trainer, pl_module: Classifier, *_: Any) -> None:
        """Saves or stops after an optimizer step, or defers that."""
        if optimizer_stepped(trainer):
            self._deferred = validation_follows(trainer)
            if not self._deferred:
                self._save_or_stop(trainer, pl_module)

    def on_train_batch_start(self, trainer: Trainer, pl_module: Classifier, batch: Any, batch_idx: int) -> None:
        """Runs the deferred save or stop, except on an epoch's first batch: `on_train_epoch_end` has done it."""
        if self._deferred and batch_idx:
            with batch_not_counted(trainer):
                self._save_or_stop(trainer, pl_module)
        self._deferred = False

    def on_train_epoch_end(self, trainer: Trainer, pl_module: Classifier) -> None:
        """Stops for a signal of the epoch's last step or validation; `Checkpoints` has just saved."""
        self._stop_if(*self.ranks.all_reduce_max(self.signals.received))

    def on_test_batch_end(self, trainer: Trainer, pl_module: Classifier, *_: Any) -> None:
        """Stops a test on one rank, which a resumed run repeats; several ranks may have unequal numbers of batches."""
        if self.ranks.size == 1:
            self._stop_if(self.signals.received)

    def on_test_epoch_end(self, trainer: Trainer, pl_module: Classifier) -> None:
        """Stops a test on several ranks."""
        self._stop_if(*self.ranks.all_reduce_max(self.signals.received))

    def teardown(self, trainer: Trainer, pl_module: Classifier, stage: str) -> None:
        """Lets signals end the process at once again; nothing unsaved would be lost."""
        self.signals.release()

    def _save_or_stop(self, trainer: Trainer, pl_module: Classifier) -> None:
        """Saves if any rank has received a signal or its interval is over; stops if any has received a signal."""
        received, due = self.ranks.all_reduce_max(self.signals.received, self.checkpoints.due)
        if received or due:
            self.checkpoints.save(trainer, pl_module, trainer.current_epoch, trainer.fit_loop.batch_idx + 1)
        self._stop_if(received)

    def _stop_if(self, received: int) -> None:
        if received:
            raise Interrupted(f"stopped by {signal.Signals(received).name}", received)
