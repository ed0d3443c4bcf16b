"""Saves the best weights and everything that a resumed run needs, and restores it."""

from __future__ import annotations

import random
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
from pytorch_lightning import Callback, Trainer
from torch import nn
from torch.optim import Optimizer

from cnnbench.data.datamodule import ImageData
from cnnbench.distributed.ranks import all_gather
from cnnbench.errors import RunFailed
from cnnbench.files import open_atomic
from cnnbench.runs.environment import bit_determining_environment
from cnnbench.text import Values
from cnnbench.training.callbacks.history import History
from cnnbench.training.classifier import Classifier
from cnnbench.training.epoch_records import ValidationRecord
from cnnbench.training.lightning_internals import dump_checkpoint
from cnnbench.training.run_context import RunContext


class Checkpoints(Callback):
    """Writes best.ckpt after each validation that is the best so far, last.ckpt after each epoch and at intervals.

    Both hold tensors and plain types only (they load with `weights_only=True`), and are renamed into place once they are
    complete on disk. best.ckpt is `{schema, state_dict of the net, epoch, step, val/acc, val/loss, config, data}`.

    Args:
        context: of the run; `trainer.checkpoint_every_s` is the interval in seconds.
        history: decides which validation is the best.
        data: its classes, channels, size, mean, deviation and `fit` go into best.ckpt, from which the net can be rebuilt.

    The state of this callback, a part of last.ckpt, holds the identity of the run, the environment in which it was saved, the
    position (epoch, and the number of the next batch part in it), and the sums and random states of all ranks.
    """

    def __init__(self, context: RunContext, history: History, data: ImageData) -> None:
        self.context, self.history, self.data = context, history, data
        self._resumed: Values | None = None

    @property
    def due(self) -> bool:
        """Whether the interval since the last save is over."""
        return time.monotonic() - self._saved_at > self.context.config.trainer.checkpoint_every_s

    def on_train_start(self, trainer: Trainer, pl_module: Classifier) -> None:
        """Restores a resumed run's image order, random states and sums."""
        self._saved_at = time.monotonic()
        if self._resumed is not None:
            loader: Any = trainer.train_dataloader
            loader.seek(**self._resumed["position"])
            for optimizer in trainer.optimizers:
                require_fitting_state(optimizer, self.context.directory.last)
                optimizer_state_to_memory_format(optimizer)
            state = self._state_of_this_rank(self._resumed["ranks"])
            pl_module.train_sums = torch.tensor(state["train_sums"], device=pl_module.device)
            pl_module.train_images = state["train_images"]
            set_random_state(state["random"])

    def on_validation_end(self, trainer: Trainer, pl_module: Classifier) -> None:
        """Saves the best weights."""
        history, directory, last = self.history, self.context.directory, self.history.validations[-1]
        if history.best is last:
            self._save_net(directory.best, pl_module.net, last)
        if pl_module.averaged is not None and history.best_ema is last:
            self._save_net(directory.best_ema, pl_module.averaged.module, last)

    def on_train_epoch_end(self, trainer: Trainer, pl_module: Classifier) -> None:
        """Saves last.ckpt."""
        self.save(trainer, pl_module, epoch=trainer.current_epoch + 1, batch=0)

    def save(self, trainer: Trainer, pl_module: Classifier, epoch: int, batch: int) -> None:
        """Writes last.ckpt and keeps the file before it; all ranks must call this after the same step.

        Args:
            trainer: of the fit.
            pl_module: the trained net, with the sums of its epoch.
            epoch: in which a resumed run continues.
            batch: the number of the batch part in that epoch with which it continues.

        Raises:
            Diverged: a loss, a gradient or a weight is not a finite number, as `Divergence.on_save_checkpoint` finds.
        """
        sums, images = pl_module.train_sums.tolist(), pl_module.train_images
        self._state = {
            "identity": self.context.config.identity(),
            "environment": bit_determining_environment(),
            "position": {"epoch": epoch, "batch": batch},
            "ranks": all_gather({"train_sums": sums, "train_images": images, "random": random_state()}),
        }
        content, directory = dump_checkpoint(trainer), self.context.directory
        if self.context.ranks.first:
            with open_atomic(directory.last, keep=directory.previous) as file:
                torch.save(content, file)
        trainer.strategy.barrier("last.ckpt")
        self._saved_at = time.monotonic()

    def state_dict(self) -> Values:
        """Returns the identity, position, sums and random states of the last `save`."""
        return self._state

    def load_state_dict(self, state_dict: Values) -> None:
        """Keeps the state until training starts."""
        self._resumed = state_dict

    def _state_of_this_rank(self, states: list[Values]) -> Values:
        """Returns one of the saved states; with another number of ranks than before, the first rank gets all sums."""
        ranks = self.context.ranks
        state = states[ranks.rank % len(states)]
        if len(states) == ranks.size:
            return state
        added = states if ranks.first else []
        sums = zip((0.0, 0.0), *(each["train_sums"] for each in added), strict=True)
        images = sum(each["train_images"] for each in added)
        return {**state, "train_sums": [sum(values) for values in sums], "train_images": images}

    def _save_net(self, path: Path, net: nn.Module, record: ValidationRecord) -> None:
        if self.context.ranks.first:
            facts = {name: getattr(self.data, name) for name in ("channels", "image_size", "mean", "std", "fit")}
            content = {
                "schema": 1,
                "state_dict": net.state_dict(),
                **record.as_row(),
                "config": self.context.config.as_dict(),
                "data": {"classes": list(self.data.classes), **facts},
            }
            with open_atomic(path) as file:
                torch.save(content, file)


def require_fitting_state(optimizer: Optimizer, path: Path) -> None:
    """Checks the state that a fused optimizer has from a checkpoint: its kernels check no shape, and would use other memory.

    Args:
        optimizer: with the state, which may be from somebody else.
        path: of the checkpoint, for the message.

    Raises:
        RunFailed: a part of the state has another shape than its weight.
    """
    if not any(group.get("fused") for group in optimizer.param_groups):
        return
    for parameter, state in optimizer.state.items():
        for name, value in state.items():
            expected = torch.Size([]) if name == "step" else parameter.shape
            if isinstance(value, torch.Tensor) and (value.shape, value.layout) != (expected, parameter.layout):
                raise RunFailed(
                    f"{path}: the optimizer's {name} has shape {list(value.shape)}, expected {list(expected)}; remove the file, "
                    "and the run starts from the beginning"
                )


def optimizer_state_to_memory_format(optimizer: Optimizer) -> None:
    """Copies an optimizer's state into the memory format of its weights, which fused steps need; it may have been saved in another."""
    for parameter, state in optimizer.state.items():
        for name, value in state.items():
            if isinstance(value, torch.Tensor) and value.shape == parameter.shape:
                state[name] = torch.empty_like(parameter, dtype=value.dtype).copy_(value)


def random_state() -> Values:
    """Returns the states of the global generators of Python, NumPy and PyTorch, as plain types and tensors."""
    version, internal, gauss = random.getstate()
    name, keys, *rest = np.random.get_state()
    return {
        "python": [version, list(internal), gauss],
        "numpy": [name, torch.from_numpy(np.asarray(keys, np.int64)), *rest],
        "torch": torch.get_rng_state(),
        "cuda": torch.cuda.get_rng_state_all() if torch.cuda.is_available() else [],
    }


def set_random_state(state: Values) -> None:
    """Restores what `random_state` returned."""
    version, internal, gauss = state["python"]
    random.setstate((version, tuple(internal), gauss))
    name, keys, *rest = state["numpy"]
    np.random.set_state((name, keys.numpy(), *rest))
    torch.set_rng_state(state["torch"])
    if torch.cuda.is_available():
        torch.cuda.set_rng_state_all(state["cuda"])
