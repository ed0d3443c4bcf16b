"""Decides when a fit ends: after its last step, or when validation accuracy has stopped improving."""

from __future__ import annotations

from typing import Any

from pytorch_lightning import Callback, Trainer

from cnnbench.training.callbacks.history import History
from cnnbench.training.classifier import Classifier


class EarlyStopping(Callback):
    """Ends the fit once `patience` validations in a row were not better than the best one.

    Args:
        history: the validations; it must come earlier in the trainer's list of callbacks.
        patience: the key `early_stopping`; None trains to the end.
    """

    def __init__(self, history: History, patience: int | None) -> None:
        self.history, self.patience = history, patience

    @property
    def exhausted(self) -> bool:
        """Whether `patience` validations have followed the best one."""
        history = self.history
        if self.patience is None or history.best is None:
            return False
        return len(history.validations) - 1 - history.validations.index(history.best) >= self.patience

    def on_train_start(self, trainer: Trainer, pl_module: Classifier) -> None:
        """Ends a resumed run that had stopped early before."""
        trainer.should_stop |= self.exhausted
        self._steps = int(trainer.estimated_stepping_batches)  # of the whole fit

    def on_train_batch_end(self, trainer: Trainer, pl_module: Classifier, *_: Any) -> None:
        """Makes Lightning validate after the last step too, where `trainer.val_every_steps` would not."""
        trainer.should_stop |= trainer.global_step == self._steps

    def on_validation_end(self, trainer: Trainer, pl_module: Classifier) -> None:
        """Ends the fit after this validation if the patience is used up."""
        trainer.should_stop |= self.exhausted
