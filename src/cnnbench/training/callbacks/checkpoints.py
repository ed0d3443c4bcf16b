"""Saves the best weights, and all that a run needs to go on; resumes from it."""

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

from cnnbench.distributed.ranks import Ranks, every_rank
from cnnbench.runs.environment import decides_last_bits
from cnnbench.runs.run_dir import RunDir
from cnnbench.training.callbacks.divergence import Divergence
from cnnbench.training.callbacks.history import History
from cnnbench.training.classifier import Classifier


class Checkpoints(Callback):
    """`best.ckpt` after each validation that is the best so far; `last.ckpt` after each epoch and every so many seconds.

    Both hold tensors and plain types alone (they load with `weights_only=True`), and are renamed into place once they
    are whole on disk. `best.ckpt` is `{schema, state_dict of the net, epoch, step, val/acc, val/loss, config, data}`.

    Args:
        directory: where they go.
        history: says when a validation is the best.
        divergence: says whether there is anything worth saving.
        every_s: at least so often, in seconds, `last.ckpt` is saved in the midst of an epoch.
        origin: the `config` and `data` that `best.ckpt` shall hold, so that the net can be rebuilt from it.
        identity: of the run, in `last.ckpt`.
    """

    def __init__(
        self,
        directory: RunDir,
        history: History,
        divergence: Divergence,
        ranks: Ranks,
        every_s: float,
        origin: dict[str, Any],
        identity: str,
    ) -> None:
        self.directory, self.history, self.divergence, self.ranks = directory, history, divergence, ranks
        self.every_s, self.origin, self.identity = every_s, origin, identity
        self.position = {"epoch": 0, "batch": 0}  # where training goes on: the next part of a batch
        self._saved_at = time.monotonic()
        self._resumed: dict[str, Any] | None = None

    @property
    def due(self) -> bool:
        """It is time to save."""
        return time.monotonic() - self._saved_at > self.every_s

    def on_train_start(self, trainer: Trainer, pl_module: Classifier) -> None:
        """Takes up the state of a resumed run: the order of its images, its random numbers, its sums."""
        self._saved_at = time.monotonic()
        if self._resumed is not None:
            loader: Any = trainer.train_dataloader
            loader.seek(**self._resumed["position"])
            for optimizer in trainer.optimizers:
                arrange_state(optimizer)
            own = self._own(self._resumed["ranks"])
            pl_module.train_sums = torch.tensor(own["train_sums"], device=pl_module.device)
            pl_module.train_images = own["train_images"]
            set_random_state(own["random"])

    def on_validation_end(self, trainer: Trainer, pl_module: Classifier) -> None:
        """Saves the best weights."""
        if self.history.improved:
            self._save_net(self.directory.best, pl_module.net, self.history.best)
        if pl_module.averaged is not None and self.history.improved_ema:
            self._save_net(self.directory.best_ema, pl_module.averaged.module, self.history.best_ema)

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: Classifier, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Notes where training stands."""
        self.position = {"epoch": trainer.current_epoch, "batch": batch_idx + 1}

    def on_train_epoch_end(self, trainer: Trainer, pl_module: Classifier) -> None:
        """Saves."""
        self.position = {"epoch": trainer.current_epoch + 1, "batch": 0}
        self.save(trainer, pl_module)

    def save(self, trainer: Trainer, pl_module: Classifier) -> None:
        """Writes `last.ckpt`; all ranks must call it at the same step."""
        self.divergence.check()
        own = {
            "train_sums": pl_module.train_sums.tolist(),
            "train_images": pl_module.train_images,
            "random": random_state(),
        }
        self._state = {
            "identity": self.identity,
            "environment": decides_last_bits(),
            "position": self.position,
            "ranks": every_rank(own),
        }
        # Lightning's count for loggers: a resume may count a step twice
        trainer.fit_loop.epoch_loop._batches_that_stepped = trainer.global_step
        content = trainer._checkpoint_connector.dump_checkpoint(weights_only=False)  # all ranks have a part in it
        if self.ranks.first:
            save_atomic(self.directory.last, content, keep=self.directory.previous)
        trainer.strategy.barrier("last.ckpt")
        self._saved_at = time.monotonic()

    def state_dict(self) -> dict[str, Any]:
        """Whose it is; position, sums and random states of the last `save`."""
        return self._state

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Kept until training starts."""
        self._resumed = state_dict
        self.position = state_dict["position"]

    def _own(self, states: list[dict[str, Any]]) -> dict[str, Any]:
        """This rank's state; where a run goes on with another number of ranks, the first has all sums."""
        if len(states) == self.ranks.size:
            return states[self.ranks.rank]
        sums = [sum(values) for values in zip(*(state["train_sums"] for state in states), strict=True)]
        images = sum(state["train_images"] for state in states)
        kept = (
            {"train_sums": sums, "train_images": images}
            if self.ranks.first
            else {"train_sums": [0.0, 0.0], "train_images": 0}
        )
        return {**kept, "random": states[self.ranks.rank % len(states)]["random"]}

    def _save_net(self, path: Path, net: nn.Module, record: dict[str, Any]) -> None:
        content = {"schema": 1, "state_dict": net.state_dict(), **record, **self.origin}
        if self.ranks.first:
            save_atomic(path, content)


def stepped(trainer: Trainer) -> bool:
    """All parts of a batch are through, and the optimizer has taken its step."""
    return (trainer.fit_loop.batch_idx + 1) % trainer.accumulate_grad_batches == 0


def validation_follows(trainer: Trainer) -> bool:
    """Between this step and the next there is a validation; a run resumed from here would leave it out."""
    every = trainer.val_check_batch if trainer.check_val_every_n_epoch is None else None
    validated = every is not None and (trainer.fit_loop.total_batch_idx + 1) % every == 0
    return trainer.is_last_batch or trainer.should_stop or validated


def save_atomic(path: Path, content: dict[str, Any], keep: Path | None = None) -> None:
    """Writes a file beside `path`, puts it on disk, renames it to `path`; what was there is renamed to `keep`."""
    temporary = path.with_name(f".{path.name}.tmp")
    try:
        with temporary.open("wb") as file:
            torch.save(content, file)
            file.flush()
            os.fsync(file.fileno())
        if keep is not None and path.is_file():
            path.replace(keep)  # a crash between the two leaves this one
        temporary.replace(path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise


def arrange_state(optimizer: Optimizer) -> None:
    """Puts what an optimizer keeps of its weights into their order of memory, for a fused step: it may have been saved in another."""
    for parameter, state in optimizer.state.items():
        for name, value in state.items():
            if isinstance(value, torch.Tensor) and value.shape == parameter.shape:
                state[name] = torch.empty_like(parameter, dtype=value.dtype).copy_(value)


def random_state() -> dict[str, Any]:
    """The states of Python's, NumPy's and PyTorch's global generators, as plain types and tensors."""
    version, internal, gauss = random.getstate()
    name, keys, position, has_gauss, cached = np.random.get_state()
    return {
        "python": [version, list(internal), gauss],
        "numpy": [
            name,
            torch.from_numpy(np.asarray(keys).astype(np.int64)),
            int(position),
            int(has_gauss),
            float(cached),
        ],
        "torch": torch.get_rng_state(),
        "cuda": torch.cuda.get_rng_state_all() if torch.cuda.is_available() else [],
    }


def set_random_state(state: dict[str, Any]) -> None:
    """Puts `random_state` back."""
    version, internal, gauss = state["python"]
    random.setstate((version, tuple(internal), gauss))
    name, keys, position, has_gauss, cached = state["numpy"]
    np.random.set_state((name, keys.numpy().astype(np.uint32), position, has_gauss, cached))
    torch.set_rng_state(state["torch"])
    if state["cuda"] and torch.cuda.is_available():
        torch.cuda.set_rng_state_all(state["cuda"])
