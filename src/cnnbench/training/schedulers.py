"""The learning rate over a run: factors on `optimizer.lr`, for every step of it.

A warm-up of W steps gives step t the factor (t + 1) / (W + 1): it begins above zero and meets what follows at step W.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

from torch.optim import Optimizer
from torch.optim.lr_scheduler import LambdaLR, OneCycleLR


def constant(
    optimizer: Optimizer, warmup_epochs: float = 0, steps_per_epoch: int = 1, total_steps: float = math.inf
) -> LambdaLR:
    """The same learning rate throughout."""
    return _scaled(optimizer, lambda step: 1.0, _warmup(warmup_epochs, steps_per_epoch, total_steps))


def step(
    optimizer: Optimizer,
    every_epochs: float = 30,
    gamma: float = 0.1,
    warmup_epochs: float = 0,
    steps_per_epoch: int = 1,
    total_steps: float = math.inf,
) -> LambdaLR:
    """× `gamma` after every `every_epochs`."""
    _require("every_epochs", every_epochs, above=0)
    _require("gamma", gamma, above=0)
    every = max(1, round(every_epochs * steps_per_epoch))
    warm = _warmup(warmup_epochs, steps_per_epoch, total_steps)
    return _scaled(optimizer, lambda step: gamma ** (step // every), warm)


def multistep(
    optimizer: Optimizer,
    milestones: Sequence[float] = (30, 60),
    gamma: float = 0.1,
    warmup_epochs: float = 0,
    steps_per_epoch: int = 1,
    total_steps: float = math.inf,
) -> LambdaLR:
    """× `gamma` at each of `milestones`, in epochs."""
    if not isinstance(milestones, Sequence) or isinstance(milestones, str):
        raise ValueError(f"milestones={milestones}: expected a list of numbers; for instance [30,60]")
    for milestone in milestones:
        _require("milestones", milestone, above=0)
    _require("gamma", gamma, above=0)
    at = [round(milestone * steps_per_epoch) for milestone in milestones]
    warm = _warmup(warmup_epochs, steps_per_epoch, total_steps)
    return _scaled(optimizer, lambda step: gamma ** sum(step >= m for m in at), warm)


def cosine(
    optimizer: Optimizer, total_steps: int, final_lr: float = 0.0, warmup_epochs: float = 0, steps_per_epoch: int = 1
) -> LambdaLR:
    """From the optimizer's rate, at step 0 or when it is warm, along half a cosine to `final_lr` at `total_steps`."""
    lr = optimizer.param_groups[0]["lr"]
    if not 0 <= final_lr <= lr:
        raise ValueError(f"final_lr must lie between 0 and the optimizer's lr, {lr}; got {final_lr}")
    floor, warm = final_lr / lr, _warmup(warmup_epochs, steps_per_epoch, total_steps)
    falling = total_steps - warm

    def factor(step: int) -> float:
        return floor + (1 - floor) * (1 + math.cos(math.pi * max(0, step - warm) / falling)) / 2

    return _scaled(optimizer, factor, warm)


def onecycle(
    optimizer: Optimizer,
    total_steps: int,
    warmup_epochs: float | None = None,
    div_factor: float = 25,
    final_div_factor: float = 1e4,
    cycle_momentum: bool = True,
    steps_per_epoch: int = 1,
) -> OneCycleLR:
    """PyTorch's: up to the optimizer's rate for `warmup_epochs` (None: 30 % of the run), and down.

    The momentum, where the optimizer has any, goes the other way.
    """
    _require("div_factor", div_factor, above=0)
    _require("final_div_factor", final_div_factor, above=0)
    share = 0.3
    if warmup_epochs is not None:
        share = _warmup(warmup_epochs, steps_per_epoch, total_steps) / total_steps
    if total_steps == 1:  # the one step is the peak
        share, total_steps = 0.5, 2
    if share * total_steps == 1:  # a rise of one step is its peak, and PyTorch would divide by the 0 steps before it
        share *= 1 - 1e-9
    group = optimizer.param_groups[0]
    return OneCycleLR(
        optimizer,
        max_lr=[group["lr"] for group in optimizer.param_groups],
        total_steps=total_steps,
        pct_start=share,
        div_factor=div_factor,
        final_div_factor=final_div_factor,
        cycle_momentum=cycle_momentum and bool(group.get("momentum") or group.get("betas")),
    )


class Plateau(LambdaLR):
    """× `factor` when the loss has not fallen by a share of `threshold` for more than `patience` validations; never below `min_lr`.

    What torch's ReduceLROnPlateau does with its default modes, on top of a warm-up.
    """

    def __init__(
        self,
        optimizer: Optimizer,
        factor: float = 0.1,
        patience: int = 5,
        threshold: float = 1e-4,
        min_lr: float = 0.0,
        warmup_epochs: float = 0,
        steps_per_epoch: int = 1,
        total_steps: float = math.inf,
    ) -> None:
        _require("factor", factor, above=0, below=1)
        _require("patience", patience, at_least=0)
        _require("threshold", threshold, at_least=0)
        _require("min_lr", min_lr, at_least=0)
        warm = _warmup(warmup_epochs, steps_per_epoch, total_steps)
        self.factor, self.patience, self.threshold = factor, patience, threshold
        self.least = min_lr / optimizer.param_groups[0]["lr"]
        self.scale, self.lowest, self.waited = 1.0, math.inf, 0
        super().__init__(optimizer, lambda step: self.scale * _ramp(step, warm))

    def validated(self, loss: float) -> None:
        """Takes notice of a validation; the next step has the new rate."""
        self.waited = 0 if loss < self.lowest * (1 - self.threshold) else self.waited + 1
        if not self.waited:
            self.lowest = loss
        if self.waited > self.patience:
            self.waited, before = 0, self.scale
            self.scale = max(self.scale * self.factor, min(self.least, self.scale))
            for group in self.optimizer.param_groups:
                group["lr"] *= self.scale / before


def _scaled(optimizer: Optimizer, factor: Callable[[int], float], warm: int) -> LambdaLR:
    return LambdaLR(optimizer, lambda step: factor(step) * _ramp(step, warm))


def _ramp(step: int, warm: int) -> float:
    return min(1.0, (step + 1) / (warm + 1))


def _warmup(epochs: Any, steps_per_epoch: int, total_steps: float = math.inf) -> int:
    """Steps of a warm-up."""
    _require("warmup_epochs", epochs, at_least=0)
    warm = round(epochs * steps_per_epoch)
    if warm >= total_steps:
        raise ValueError(
            f"warmup_epochs={epochs}: {warm} steps, and the run has {total_steps}; expected less than all of it"
        )
    return warm


def _require(
    key: str, value: Any, at_least: float = -math.inf, above: float = -math.inf, below: float = math.inf
) -> None:
    if not isinstance(value, int | float) or isinstance(value, bool) or not math.isfinite(value):
        raise ValueError(f"{key}={value}: expected a number")
    if not (value >= at_least and above < value < below):
        bounds = [f"at least {at_least:g}"] * (at_least > -math.inf) + [f"above {above:g}"] * (above > -math.inf)
        raise ValueError(
            f"{key}={value}: expected a number {', '.join(bounds + [f'below {below:g}'] * (below < math.inf))}"
        )
