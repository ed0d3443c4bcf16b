"""Helpers of the tests of learning-rate schedules."""

from __future__ import annotations

from types import SimpleNamespace

import torch

from cnnbench.data.loader import BatchPlan

SIX_STEPS = SimpleNamespace(train_plan=BatchPlan(size=2), images={"train": range(12)})  # data with six steps an epoch


def sgd(*rates: float, **keys: float) -> torch.optim.SGD:
    return torch.optim.SGD([{"params": [torch.nn.Parameter(torch.zeros(1))], "lr": rate} for rate in rates], **keys)


def rates_of(optimizer, scheduler, steps: int) -> list[float]:
    """Returns the learning rate of each step, and the one after the last step."""
    found = [optimizer.param_groups[0]["lr"]]
    for _ in range(steps):
        optimizer.step()
        scheduler.step()
        found.append(optimizer.param_groups[0]["lr"])
    return found
