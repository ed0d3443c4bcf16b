"""Saves the best weights and everything that a resumed run needs, and restores it."""

from __future__ import annotations

import os
import random
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
from pytorch_lightning import Callback, Trainer
from torch import nn
from torch.optim import Optimizer

from cnnbench.distributed.ranks import all_gather
from cnnbench.runs.environment import bit_determining_environment
from cnnbench.training.callbacks.divergence import Divergence
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
        history: knows when a validation is the best.
        divergence: refuses to save weights or losses that are not finite.
        rebuild_facts: `config` and `data` for best.ckpt, from which the net can be rebuilt.

    Attributes:
        position: where training continues: epoch, and the number of the next batch part in it.
    """

    def __init__(
        self, context: RunContext, history: History, divergence: Divergence, rebuild_facts: dict[str, Any]
    ) -> None:
        self.context, self.history, self.divergence, self.rebuild_facts = context, history, divergence, rebuild_facts
        self.position = {"epoch": 0, "batch": 0}
        self._every_s, self._identity = context.config.trainer.checkpoint_every_s, context.config.identity()
        self._saved_at = time.monotonic()
        self._resumed: dict[str, Any] | None = None

    @property
    def due(self) -> bool:
        """Whether the interval since the last save is over."""
        return time.monotonic() - self._saved_at > self._every_s

    def on_train_start(self, trainer: Trainer, pl_module: Classifier) -> None:
        """Restores a resumed run's image order, random states and sums."""
        self._saved_at = time.monotonic()
        if self._resumed is not None:
            loader: Any = trainer.train_dataloader
            loader.seek(**self._resumed["position"])
            for optimizer in trainer.optimizers:
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

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: Classifier, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Updates the position."""
        self.position = {"epoch": trainer.current_epoch, "batch": batch_idx + 1}

    def on_train_epoch_end(self, trainer: Trainer, pl_module: Classifier) -> None:
        """Saves last.ckpt."""
        self.position = {"epoch": trainer.current_epoch + 1, "batch": 0}
        self.save(trainer, pl_module)

    def save(self, trainer: Trainer, pl_module: Classifier) -> None:
        """Writes last.ckpt and keeps the file before it; all ranks must call this after the same step.

        Raises:
            Diverged: a loss, a gradient or a weight is not a finite number.
        """
        self.divergence.check()
        state_of_this_rank = {
            "train_sums": pl_module.train_sums.tolist(),
            "train_images": pl_module.train_images,
            "random": random_state(),
        }
        self._state = {
            "identity": self._identity,
            "environment": bit_determining_environment(),
            "position": self.position,
            "ranks": all_gather(state_of_this_rank),
        }
        content, directory = dump_checkpoint(trainer), self.context.directory
        if self.context.ranks.first:
            save_atomic(directory.last, content, keep=directory.previous)
        trainer.strategy.barrier("last.ckpt")
        self._saved_at = time.monotonic()

    def state_dict(self) -> dict[str, Any]:
        """Returns the identity, position, sums and random states of the last `save`."""
        return self._state

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Keeps the state until training starts."""
        self._resumed = state_dict
        self.position = state_dict["position"]

    def _state_of_this_rank(self, states: list[dict[str, Any]]) -> dict[str, Any]:
        """Returns one of the saved states; with another number of ranks than before, the first rank gets all sums."""
        ranks = self.context.ranks
        if len(states) == ranks.size:
            return states[ranks.rank]
        sums, images = [0.0, 0.0], 0
        if ranks.first:
            sums = [sum(values) for values in zip(*(state["train_sums"] for state in states), strict=True)]
            images = sum(state["train_images"] for state in states)
        return {"train_sums": sums, "train_images": images, "random": states[ranks.rank % len(states)]["random"]}

    def _save_net(self, path: Path, net: nn.Module, record: ValidationRecord) -> None:
        if self.context.ranks.first:
            content = {"schema": 1, "state_dict": net.state_dict(), **record.as_row(), **self.rebuild_facts}
            save_atomic(path, content)


def save_atomic(path: Path, content: dict[str, Any], keep: Path | None = None) -> None:
    """Writes a checkpoint aside, flushes it to disk and renames it to `path`; an earlier file is renamed to `keep`."""
    temporary = path.with_name(f".{path.name}.tmp")
    try:
        with temporary.open("wb") as file:
            torch.save(content, file)
            file.flush()
            os.fsync(file.fileno())
        if keep is not None and path.is_file():
            path.replace(keep)  # after a crash between the two renames, `keep` is resumed from
        temporary.replace(path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise


def optimizer_state_to_memory_format(optimizer: Optimizer) -> None:
    """Copies an optimizer's state into the memory format of its weights, which fused steps need; it may have been saved in another."""
    for parameter, state in optimizer.state.items():
        for name, value in state.items():
            if isinstance(value, torch.Tensor) and value.shape == parameter.shape:
                state[name] = torch.empty_like(parameter, dtype=value.dtype).copy_(value)


def random_state() -> dict[str, Any]:
    """Returns the states of the global generators of Python, NumPy and PyTorch, as plain types and tensors."""
    version, internal, gauss = random.getstate()
    name, keys, position, has_gauss, cached = np.random.get_state()
    numbers = torch.from_numpy(np.asarray(keys).astype(np.int64))
    return {
        "python": [version, list(internal), gauss],
        "numpy": [name, numbers, int(position), int(has_gauss), float(cached)],
        "torch": torch.get_rng_state(),
        "cuda": torch.cuda.get_rng_state_all() if torch.cuda.is_available() else [],
    }


def set_random_state(state: dict[str, Any]) -> None:
    """Restores what `random_state` returned."""
    version, internal, gauss = state["python"]
    random.setstate((version, tuple(internal), gauss))
    name, keys, position, has_gauss, cached = state["numpy"]
    np.random.set_state((name, keys.numpy().astype(np.uint32), position, has_gauss, cached))
    torch.set_rng_state(state["torch"])
    if state["cuda"] and torch.cuda.is_available():
        torch.cuda.set_rng_state_all(state["cuda"])
