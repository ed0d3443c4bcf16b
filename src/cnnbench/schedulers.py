"""The learning rate over a run: factors on `optimizer.lr`, stepped once per batch."""

from __future__ import annotations

import math

from torch.optim import Optimizer
from torch.optim.lr_scheduler import LambdaLR


def constant(optimizer: Optimizer) -> LambdaLR:
    """The same learning rate throughout."""
    return LambdaLR(optimizer, lambda step: 1.0)


def cosine(optimizer: Optimizer, total_steps: int, final_lr: float = 0.0) -> LambdaLR:
    """From the optimizer's rate at step 0 along half a cosine to `final_lr` at `total_steps`."""
    lr = optimizer.param_groups[0]["lr"]
    if not 0 <= final_lr <= lr:
        raise ValueError(f"final_lr must lie between 0 and the optimizer's lr, {lr}; got {final_lr}")
    floor = final_lr / lr
    return LambdaLR(optimizer, lambda step: floor + (1 - floor) * (1 + math.cos(math.pi * step / total_steps)) / 2)
