"""The learning rate at every step, against the published formula and torch's own schedule."""

from __future__ import annotations

import csv
import math
import warnings
from itertools import pairwise

import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from cnnbench.build import construct
from cnnbench.config import Node
from cnnbench.errors import ConfigError
from cnnbench.schedulers import constant, cosine

RATES = st.floats(1e-6, 10)
STEPS = st.integers(1, 60)


def sgd(*rates: float) -> torch.optim.SGD:
    return torch.optim.SGD([{"params": [torch.nn.Parameter(torch.zeros(1))], "lr": rate} for rate in rates])


def rates_of(optimizer, scheduler, steps: int) -> list[float]:
    """The rate that each step is taken with, and the one after the last."""
    found = [optimizer.param_groups[0]["lr"]]
    for _ in range(steps):
        optimizer.step()
        scheduler.step()
        found.append(optimizer.param_groups[0]["lr"])
    return found


@settings(deadline=None)
@given(RATES, STEPS)
def test_constant_never_changes_the_rate(rate, steps):
    optimizer = sgd(rate)
    assert rates_of(optimizer, constant(optimizer), steps) == [rate] * (steps + 1)


@settings(deadline=None)
@given(RATES, st.floats(0, 1), STEPS)
def test_cosine_is_the_formula_of_loshchilov_and_hutter(rate, share, steps):
    final, optimizer = rate * share, sgd(rate)
    assume(final <= rate)
    found = rates_of(optimizer, cosine(optimizer, steps, final), steps)
    expected = [final + 0.5 * (rate - final) * (1 + math.cos(math.pi * t / steps)) for t in range(steps + 1)]
    assert found == pytest.approx(expected, rel=1e-9, abs=1e-12)


@settings(deadline=None)
@given(RATES, st.floats(0, 0.99), STEPS)
def test_cosine_is_torchs_own_cosine_annealing(rate, share, steps):
    ours, theirs = sgd(rate), sgd(rate)
    final = rate * share
    annealing = torch.optim.lr_scheduler.CosineAnnealingLR(theirs, T_max=steps, eta_min=final)
    assert rates_of(ours, cosine(ours, steps, final), steps) == pytest.approx(
        rates_of(theirs, annealing, steps), rel=1e-6, abs=1e-9
    )


@settings(deadline=None)
@given(RATES, STEPS)
def test_cosine_falls_at_every_step(rate, steps):
    optimizer = sgd(rate)
    found = rates_of(optimizer, cosine(optimizer, steps), steps)
    assert all(after < before for before, after in pairwise(found))


def test_cosine_begins_at_the_optimizers_rate_and_ends_at_0_when_no_final_rate_is_named():
    optimizer = sgd(0.3)
    found = rates_of(optimizer, cosine(optimizer, 7), 7)
    assert found[0] == 0.3
    assert found[-1] == pytest.approx(0, abs=1e-15)


def test_cosine_to_the_optimizers_own_rate_is_constant():
    optimizer = sgd(0.3)
    assert rates_of(optimizer, cosine(optimizer, 5, 0.3), 5) == pytest.approx([0.3] * 6)


def test_cosine_scales_every_group_of_parameters_by_the_same_factor():
    optimizer = sgd(0.4, 0.04)
    rates_of(optimizer, cosine(optimizer, 10), 4)
    first, second = (group["lr"] for group in optimizer.param_groups)
    assert first == pytest.approx(10 * second)
    assert first < 0.4


@pytest.mark.parametrize("final", [-0.001, 0.11, math.inf, math.nan])
def test_a_final_rate_that_is_not_between_0_and_the_optimizers_is_refused(final):
    with pytest.raises(ValueError, match=r"final_lr must lie between 0 and the optimizer's lr, 0\.1"):
        cosine(sgd(0.1), 10, final)


def test_a_refused_final_rate_is_a_config_error_that_names_the_value():
    node = Node(_target_="cnnbench.schedulers.cosine", final_lr=5)
    with pytest.raises(ConfigError, match=r"scheduler: cosine\(final_lr=5\) is refused: final_lr must lie between"):
        construct(node, "scheduler", sgd(0.1), total_steps=10)


def test_a_schedule_goes_on_from_its_saved_state():
    whole, first, second = sgd(0.1), sgd(0.1), sgd(0.1)
    expected = rates_of(whole, cosine(whole, 10), 10)
    before = cosine(first, 10)
    rates_of(first, before, 4)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        after = cosine(second, 10)
        second.load_state_dict(first.state_dict())
        after.load_state_dict(before.state_dict())
    assert rates_of(second, after, 6) == pytest.approx(expected[4:])


def test_a_run_takes_its_last_step_one_step_before_the_final_rate(finished):
    with finished.metrics.open(newline="") as file:
        last = list(csv.DictReader(file))[-1]
    steps = int(last["step"])
    assert float(last["lr"]) == pytest.approx(0.003 * 0.5 * (1 + math.cos(math.pi * (steps - 1) / steps)), rel=1e-6)
