"""Ends a run whose loss or gradient is no longer a finite number, before the step that would spoil the weights."""

from __future__ import annotations

import math
from typing import Any

import torch
from pytorch_lightning import Callback, Trainer
from torch.nn.utils import get_total_norm
from torch.optim import Optimizer

from cnnbench.errors import Diverged
from cnnbench.training.classifier import Classifier

EVERY = 20  # steps between two looks at a GPU's numbers: each look waits for the GPU
PATIENCE = 20  # steps in a row that half precision may leave out; each halves its scale of the loss, at first 65,536


class Divergence(Callback):
    """Raises `Diverged` with the step and its learning rate.

    On a CPU it does so before the step is taken. A GPU is not waited for in every step: it is looked at some steps later, and
    at the losses alone, since a gradient that is no number makes a loss that is none. Half precision scales its loss until
    gradients overflow, and leaves such steps out: there the loss counts, and that not too many steps in a row are left out.
    """

    def __init__(self) -> None:
        self._scale: torch.Tensor | None = None  # of half precision's loss, at the step before
        self._left_out: torch.Tensor | None = None  # steps in a row
        self._lr = math.nan  # of the last step
        self._losses: torch.Tensor | None = None  # on a GPU, since the last look
        self._steps: list[tuple[int, float]] = []  # theirs, with the learning rates

    def on_before_optimizer_step(self, trainer: Trainer, pl_module: Classifier, optimizer: Optimizer) -> None:
        """Looks at the loss so far and at the gradient."""
        loss, step = pl_module.train_sums[0], trainer.global_step + 1
        self._lr = float(optimizer.param_groups[0]["lr"])
        half = trainer.precision == "16-mixed"
        if half:
            self._count(trainer.precision_plugin.scaler._scale)  # type: ignore[attr-defined]
        if loss.device.type == "cpu":  # plain numbers are at hand, and several times as quick
            gradients = [p.grad for group in optimizer.param_groups for p in group["params"] if p.grad is not None]
            require_finite(step, self._lr, float(loss), 0.0 if half else float(get_total_norm(gradients)))
            self.check()
            return
        if self._losses is None:
            self._losses = torch.zeros(EVERY, device=loss.device)
        self._losses[len(self._steps)].copy_(loss)
        self._steps.append((step, self._lr))
        if len(self._steps) == EVERY:
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
        if self._losses is not None:
            steps, self._steps = self._steps, []
            for (step, lr), loss in zip(steps, self._losses.tolist(), strict=False):
                require_finite(step, lr, loss)


def require_finite(step: int, lr: float, loss: float, norm: float = 0.0) -> None:
    """Raises `Diverged` where a loss or a gradient's norm is no finite number."""
    if not math.isfinite(loss):
        raise Diverged(f"the training loss is {loss} in step {step}, lr {lr:g}")
    if not math.isfinite(norm):
        raise Diverged(f"the gradient's norm is {norm} in step {step}, lr {lr:g}")
