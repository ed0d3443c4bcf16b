"""Ends a run whose loss or gradient is not a finite number, before the step that would make its weights not finite."""

from __future__ import annotations

import math
from typing import Any

import torch
from pytorch_lightning import Callback, Trainer
from torch.nn.utils import get_total_norm
from torch.optim import Optimizer

from cnnbench.errors import Diverged
from cnnbench.training.classifier import Classifier
from cnnbench.training.lightning_internals import loss_scale

EVERY = 20  # steps between two reads of a GPU's losses: each read waits for the GPU
PATIENCE = 20  # steps in a row that half precision may skip; each skip halves the loss scale, at first 65,536


class Divergence(Callback):
    """Raises `Diverged` with the step and its learning rate.

    On a CPU it raises before the step is taken. On a GPU it reads several losses at once, some steps later, and no gradients:
    a gradient that is not finite makes the next loss not finite. Half precision scales its loss until gradients overflow, and
    skips such steps: there it checks the losses, and that fewer than `PATIENCE` steps in a row are skipped.
    """

    def __init__(self) -> None:
        self._scale: torch.Tensor | None = None  # half precision's loss scale at the step before
        self._skipped: torch.Tensor | int = 0  # steps in a row
        self._lr = math.nan  # of the last step
        self._unread: list[tuple[int, float, torch.Tensor]] = []  # on a GPU: step, its learning rate, the loss sum

    def on_before_optimizer_step(self, trainer: Trainer, pl_module: Classifier, optimizer: Optimizer) -> None:
        """Checks the epoch's loss sum and the gradient on a CPU; on a GPU stores the sum for a later check."""
        loss, step = pl_module.train_sums[0], trainer.global_step + 1
        self._lr = float(optimizer.param_groups[0]["lr"])
        half = trainer.precision == "16-mixed"
        if half:  # a loss scale that fell means that the step before was skipped
            scale = loss_scale(trainer)
            before = scale if self._scale is None else self._scale
            self._skipped = torch.where(scale < before, self._skipped + 1, 0)
            self._scale = scale.clone()
        if loss.device.type == "cpu":  # Python's floats are several times as fast
            gradients = [p.grad for group in optimizer.param_groups for p in group["params"] if p.grad is not None]
            require_finite(step, self._lr, float(loss), 0.0 if half else float(get_total_norm(gradients)))
            self.check()
            return
        self._unread.append((step, self._lr, loss.clone()))
        if len(self._unread) == EVERY:
            self.check()

    def on_validation_start(self, trainer: Trainer, pl_module: Classifier) -> None:
        """Checks before a validation."""
        self.check()

    def on_save_checkpoint(self, trainer: Trainer, pl_module: Classifier, checkpoint: dict[str, Any]) -> None:
        """Checks the stored losses and the weights before a checkpoint is saved.

        A finite gradient makes a bad step if the learning rate is huge or Adam divides by 0.
        """
        self.check()
        if not torch.stack([parameter.isfinite().all() for parameter in pl_module.net.parameters()]).all():
            raise Diverged(f"a weight is not a finite number after step {trainer.global_step}, lr {self._lr:g}")

    def check(self) -> None:
        """Raises `Diverged` if a stored loss is not finite, or too many steps in a row were skipped."""
        if self._skipped >= PATIENCE:
            raise Diverged(
                f"the gradient of half precision overflows, {int(self._skipped)} steps in a row, lr {self._lr:g}"
            )
        if self._unread:
            steps, rates, sums = zip(*self._unread, strict=True)
            self._unread.clear()
            for step, lr, loss in zip(steps, rates, torch.stack(sums).tolist(), strict=True):
                require_finite(step, lr, loss)


def require_finite(step: int, lr: float, loss: float, norm: float = 0.0) -> None:
    """Raises `Diverged` if a loss or a gradient's norm is not a finite number."""
    for what, value in (("training loss", loss), ("gradient's norm", norm)):
        if not math.isfinite(value):
            raise Diverged(f"the {what} is {value} in step {step}, lr {lr:g}")
