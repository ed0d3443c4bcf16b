"""Learning-rate schedules: a factor on `optimizer.lr` for every step of a run.

A warm-up of W steps multiplies the schedule's own factor of step t by (t + 1) / (W + 1), and by 1 from step W on.

All schedules take `warmup_epochs` (a fraction is allowed). Those with the parameters `steps_per_epoch` and `total_steps` get those
of the run. They raise ValueError for a value out of bounds.

To add one: a public function here, from an optimizer to torch's LRScheduler, and `conf/scheduler/<name>.yaml` with the function as
`_target_`. If the schedule lowers the rate at a given step, add it to `FIRST_DROP` in training/validate. A schedule that reacts to
validations has a method `validated(loss)`, as `Plateau`.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

from torch.optim import Optimizer
from torch.optim.lr_scheduler import LambdaLR, OneCycleLR

from cnnbench.checks import require_number


def constant(
    optimizer: Optimizer, warmup_epochs: float = 0, steps_per_epoch: int = 1, total_steps: float = math.inf
) -> LambdaLR:
    """Keeps the learning rate constant after the warm-up."""
    return _scaled(optimizer, lambda step: 1.0, _warmup(warmup_epochs, steps_per_epoch, total_steps))


def step(
    optimizer: Optimizer,
    every_epochs: float = 30,
    gamma: float = 0.1,
    warmup_epochs: float = 0,
    steps_per_epoch: int = 1,
    total_steps: float = math.inf,
) -> LambdaLR:
    """Multiplies the learning rate by `gamma` every `every_epochs` epochs, as torch's StepLR; the interval is at least one step."""
    require_number("every_epochs", every_epochs, above=0)
    require_number("gamma", gamma, above=0)
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
    """Multiplies the learning rate by `gamma` at each of `milestones`, in epochs and in any order, as torch's MultiStepLR."""
    if not isinstance(milestones, Sequence) or isinstance(milestones, str):
        raise ValueError(f"milestones={milestones}: expected a list of numbers; for instance [30,60]")
    for milestone in milestones:
        require_number("milestones", milestone, above=0)
    require_number("gamma", gamma, above=0)
    at = [round(milestone * steps_per_epoch) for milestone in milestones]
    warm = _warmup(warmup_epochs, steps_per_epoch, total_steps)
    return _scaled(optimizer, lambda step: gamma ** sum(step >= m for m in at), warm)


def cosine(
    optimizer: Optimizer, total_steps: int, final_lr: float = 0.0, warmup_epochs: float = 0, steps_per_epoch: int = 1
) -> LambdaLR:
    """Lowers the learning rate from the optimizer's along half a cosine to `final_lr` at `total_steps`.

    Without restarts: Loshchilov and Hutter 2017 (arXiv:1608.03983), equation 5. It starts after the warm-up.
    """
    lr = optimizer.param_groups[0]["lr"]
    if not 0 <= final_lr <= lr:
        raise ValueError(f"final_lr={final_lr}: expected a number from 0 to the optimizer's lr, {lr}")
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
    """Raises the learning rate to the optimizer's for `warmup_epochs` (None: 30 % of the run), then lowers it: torch's OneCycleLR.

    With `cycle_momentum` the momentum, or Adam's first beta, falls and rises in the opposite direction.
    """
    require_number("div_factor", div_factor, above=0)
    require_number("final_div_factor", final_div_factor, above=0)
    share = 0.3
    if warmup_epochs is not None:
        share = _warmup(warmup_epochs, steps_per_epoch, total_steps) / total_steps
    if total_steps == 1:  # a single step has the highest rate
        share, total_steps = 0.5, 2
    if share * total_steps == 1:  # PyTorch would divide by the 0 steps before a rise of one step
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
    """Multiplies the learning rate by `factor` when more than `patience` validations in a row have not lowered the loss.

    A loss counts as lower if it fell by a share of more than `threshold`. The rate never falls below `min_lr`. The rule is that
    of torch's ReduceLROnPlateau with its default modes, here together with a warm-up.
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
        require_number("factor", factor, above=0, below=1)
        require_number("patience", patience, at_least=0)
        require_number("threshold", threshold, at_least=0)
        require_number("min_lr", min_lr, at_least=0)
        warm = _warmup(warmup_epochs, steps_per_epoch, total_steps)
        self.factor, self.patience, self.threshold = factor, patience, threshold
        self.least = min_lr / optimizer.param_groups[0]["lr"]
        self.scale, self.lowest, self.waited = 1.0, math.inf, 0
        super().__init__(optimizer, lambda step: self.scale * _ramp(step, warm))

    def validated(self, loss: float) -> None:
        """Updates the rate of the next step after a validation.

        Args:
            loss: the mean validation loss.
        """
        self.waited = 0 if loss < self.lowest * (1 - self.threshold) else self.waited + 1
        if not self.waited:
            self.lowest = loss
        if self.waited > self.patience:
            self.waited, before = 0, self.scale
            self.scale = max(self.scale * self.factor, min(self.least, self.scale))
            for group in self.optimizer.param_groups:
                group["lr"] *= self.scale / before


def _scaled(optimizer: Optimizer, factor: Callable[[int], float], warm: int) -> LambdaLR:
    """Returns a schedule of `factor(step)` times the warm-up's factor."""
    return LambdaLR(optimizer, lambda step: factor(step) * _ramp(step, warm))


def _ramp(step: int, warm: int) -> float:
    """Returns the warm-up's factor."""
    return min(1.0, (step + 1) / (warm + 1))


def _warmup(epochs: Any, steps_per_epoch: int, total_steps: float = math.inf) -> int:
    """Returns the steps of a warm-up; it must be shorter than the run."""
    require_number("warmup_epochs", epochs, at_least=0)
    warm = round(epochs * steps_per_epoch)
    if warm >= total_steps:
        raise ValueError(
            f"warmup_epochs={epochs}: {warm} steps, and the run has {total_steps}; expected less; type a smaller warmup_epochs"
        )
    return warm
