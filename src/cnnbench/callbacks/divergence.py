"""Ends a run whose loss or gradient is no longer a finite number, before the step that would spoil the weights."""

from __future__ import annotations

import math
from typing import Any

import torch
from pytorch_lightning import Callback, Trainer
from torch.nn.utils import get_total_norm
from torch.optim import Optimizer

from cnnbench.classifier import Classifier
from cnnbench.errors import Diverged

EVERY = 20  # steps between two looks at a GPU's numbers: each look waits for the GPU
PATIENCE = 20  # steps in a row that half precision may leave out; each halves its scale of the loss, at first 65,536


class Divergence(Callback):
    """Raises `Diverged` with the step and its learning rate.

    On a CPU it does so before the step is taken; on a GPU, which is not waited for in every step, some steps later. Half
    precision scales its loss until gradients overflow, and leaves such steps out: there the loss counts, and that not too
    many steps in a row are left out.
    """

    def __init__(self) -> None:
        self._scale: torch.Tensor | None = None  # of half precision's loss, at the step before
        self._left_out: torch.Tensor | None = None  # steps in a row
        self._lr = math.nan  # of the last step
        self._bad: torch.Tensor | None = None  # [step, learning rate, loss, norm of the gradient] of the first bad one

    def on_before_optimizer_step(self, trainer: Trainer, pl_module: Classifier, optimizer: Optimizer) -> None:
        """Looks at the loss so far and at the gradient."""
        loss = pl_module.train_sums[0]
        norm = torch.zeros_like(loss)
        if trainer.precision == "16-mixed":
            self._count(trainer.precision_plugin.scaler._scale)  # type: ignore[attr-defined]
        else:
            norm = get_total_norm(
                [p.grad for group in optimizer.param_groups for p in group["params"] if p.grad is not None]
            )
        self._lr = float(optimizer.param_groups[0]["lr"])
        step = trainer.global_step + 1
        if loss.device.type == "cpu":  # plain numbers are at hand, and several times as quick
            require_finite(step, self._lr, float(loss), float(norm))
            self.check()
            return
        now = torch.stack([torch.full_like(loss, step), torch.full_like(loss, self._lr), loss, norm])
        if self._bad is None:
            self._bad = torch.zeros_like(now)
        first = (self._bad[0] == 0) & ~torch.isfinite(now).all()
        self._bad = torch.where(first, now, self._bad)
        if trainer.global_step % EVERY == 0:
            self.check()

    def on_validation_start(self, trainer: Trainer, pl_module: Classifier) -> None:
        """Nothing bad is validated."""
        self.check()

    def on_save_checkpoint(self, trainer: Trainer, pl_module: Classifier, checkpoint: dict[str, Any]) -> None:
        """Nothing bad is saved: a good gradient may have made a bad step, of a rate beyond all bounds or a division by 0."""
        finite = torch.stack([parameter.isfinite().all() for parameter in pl_module.net.parameters()]).all()
        if not finite:
            raise Diverged(f"a weight is not a finite number after step {trainer.global_step}, lr {self._lr:g}")

    def _count(self, scale: torch.Tensor) -> None:
        """A scale that is smaller than at the step before: that was left out."""
        if self._scale is None or self._left_out is None:
            self._left_out = torch.zeros_like(scale)
        else:
            self._left_out = torch.where(scale < self._scale, self._left_out + 1, 0 * self._left_out)
        self._scale = scale.clone()

    def check(self) -> None:
        """Raises where a step was bad, or too many were left out."""
        if self._left_out is not None and self._left_out >= PATIENCE:
            raise Diverged(
                f"the gradient of half precision overflows, {int(self._left_out)} steps in a row, lr {self._lr:g}"
            )
        if self._bad is not None and self._bad[0]:
            require_finite(*self._bad.tolist())


def require_finite(step: float, lr: float, loss: float, norm: float) -> None:
    """Raises `Diverged` where a loss or a gradient's norm is no finite number."""
    if not math.isfinite(loss):
        raise Diverged(f"the training loss is {loss} in step {step:.0f}, lr {lr:g}")
    if not math.isfinite(norm):
        raise Diverged(f"the gradient's norm is {norm} in step {step:.0f}, lr {lr:g}")
