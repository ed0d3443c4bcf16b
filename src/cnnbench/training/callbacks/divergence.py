"""Ends a run whose loss or gradient is not a finite number, before the step that would spoil the weights."""

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
        self._skipped: torch.Tensor | None = None  # steps in a row
        self._lr = math.nan  # of the last step
        self._losses: torch.Tensor | None = None  # on a GPU, since the last read
        self._steps: list[tuple[int, float]] = []  # step and learning rate of each of these losses

    def on_before_optimizer_step(self, trainer: Trainer, pl_module: Classifier, optimizer: Optimizer) -> None:
        """Checks the epoch's loss sum and the gradient on a CPU; on a GPU stores the sum for a later check."""
        loss, step = pl_module.train_sums[0], trainer.global_step + 1
        self._lr = float(optimizer.param_groups[0]["lr"])
        half = trainer.precision == "16-mixed"
        if half:
            self._count_skipped(loss_scale(trainer))
        if loss.device.type == "cpu":  # Python's floats are several times as fast
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
        """Checks before a validation."""
        self.check()

    def on_save_checkpoint(self, trainer: Trainer, pl_module: Classifier, checkpoint: dict[str, Any]) -> None:
        """Checks the weights before they are saved: a finite gradient makes a bad step if the rate is huge or Adam divides by 0."""
        finite = torch.stack([parameter.isfinite().all() for parameter in pl_module.net.parameters()]).all()
        if not finite:
            raise Diverged(f"a weight is not a finite number after step {trainer.global_step}, lr {self._lr:g}")

    def _count_skipped(self, scale: torch.Tensor) -> None:
        """Counts steps in a row after which the loss scale fell, which means that they were skipped."""
        if self._scale is None or self._skipped is None:
            self._skipped = torch.zeros_like(scale)
        else:
            self._skipped = torch.where(scale < self._scale, self._skipped + 1, 0 * self._skipped)
        self._scale = scale.clone()

    def check(self) -> None:
        """Raises `Diverged` if a stored loss is not finite, or too many steps in a row were skipped."""
        if self._skipped is not None and self._skipped >= PATIENCE:
            raise Diverged(
                f"the gradient of half precision overflows, {int(self._skipped)} steps in a row, lr {self._lr:g}"
            )
        if self._losses is not None:
            steps, self._steps = self._steps, []
            for (step, lr), loss in zip(steps, self._losses.tolist(), strict=False):
                require_finite(step, lr, loss)


def require_finite(step: int, lr: float, loss: float, norm: float = 0.0) -> None:
    """Raises `Diverged` if a loss or a gradient's norm is not a finite number."""
    if not math.isfinite(loss):
        raise Diverged(f"the training loss is {loss} in step {step}, lr {lr:g}")
    if not math.isfinite(norm):
        raise Diverged(f"the gradient's norm is {norm} in step {step}, lr {lr:g}")
