"""Everything that cnnbench uses of Lightning beyond its public interface, and why.

A new minor version of Lightning may change any of this: pyproject.toml bounds the version, tests/training/test_resume.py fails.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from pytorch_lightning import Trainer
from torch import Tensor

from cnnbench.text import Values


def dump_checkpoint(trainer: Trainer) -> Values:
    """Returns the content of a full checkpoint; every rank must call this, each contributes its part.

    Lightning's public `save_checkpoint` also writes the file, which we write aside and rename.
    """
    # Lightning's step count for loggers: a resume may count a step twice
    trainer.fit_loop.epoch_loop._batches_that_stepped = trainer.global_step
    return trainer._checkpoint_connector.dump_checkpoint(weights_only=False)


def disable_signal_handlers(trainer: Trainer) -> None:
    """Keeps Lightning from handling SIGTERM: its handler calls collectives at any moment, and deadlocks the ranks."""
    trainer._signal_connector.register_signal_handlers = lambda: None  # type: ignore[method-assign]


def optimizer_stepped(trainer: Trainer) -> bool:
    """Returns whether the batch that ends completes its accumulated parts, so that the optimizer has stepped."""
    return (trainer.fit_loop.batch_idx + 1) % trainer.accumulate_grad_batches == 0


def validation_follows(trainer: Trainer) -> bool:
    """Returns whether a validation or the epoch's end comes before the next step.

    A run resumed from a checkpoint that was saved between the two would skip that validation.
    """
    every = trainer.val_check_batch if trainer.check_val_every_n_epoch is None else None
    validates = every is not None and (trainer.fit_loop.total_batch_idx + 1) % every == 0
    return trainer.is_last_batch or trainer.should_stop or validates


@contextmanager
def batch_not_counted(trainer: Trainer) -> Iterator[None]:
    """Inside the context, takes back that Lightning has counted the batch already: a run resumed from here repeats the batch."""
    progress = trainer.fit_loop.epoch_loop.batch_progress
    counted = progress.state_dict()
    progress.is_last_batch = False
    progress.total.ready -= 1
    progress.current.ready -= 1
    try:
        yield
    finally:
        progress.load_state_dict(counted)


def loss_scale(trainer: Trainer) -> Tensor:
    """Returns the loss scale of half precision, on its device; torch's public `get_scale` would wait for the GPU."""
    return trainer.precision_plugin.scaler._scale  # type: ignore[attr-defined]
