"""The learning rate at every step, against the published formula and torch's schedule."""

from __future__ import annotations

import csv
import math
import warnings
from itertools import pairwise

import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from torch.optim import lr_scheduler as torchs

from cnnbench.config.instantiate import construct
from cnnbench.config.schema import Node
from cnnbench.errors import ConfigError
from cnnbench.training.schedulers import Plateau, constant, cosine, multistep, onecycle, step
from schedules import rates_of, sgd

RATES = st.floats(1e-6, 10)
STEPS = st.integers(1, 60)
GAMMAS = st.floats(0.05, 1.5)


@settings(deadline=None)
@given(RATES, STEPS)
def test_constant_keeps_the_learning_rate(rate, steps):
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
def test_cosine_equals_torchs_cosine_annealing(rate, share, steps):
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


def test_cosine_goes_from_the_optimizers_rate_to_0_by_default():
    optimizer = sgd(0.3)
    found = rates_of(optimizer, cosine(optimizer, 7), 7)
    assert found[0] == 0.3
    assert found[-1] == pytest.approx(0, abs=1e-15)


def test_cosine_to_the_optimizers_rate_is_constant():
    optimizer = sgd(0.3)
    assert rates_of(optimizer, cosine(optimizer, 5, 0.3), 5) == pytest.approx([0.3] * 6)


def test_cosine_scales_every_group_of_parameters_by_the_same_factor():
    optimizer = sgd(0.4, 0.04)
    rates_of(optimizer, cosine(optimizer, 10), 4)
    first, second = (group["lr"] for group in optimizer.param_groups)
    assert first == pytest.approx(10 * second)
    assert first < 0.4


@pytest.mark.parametrize("final", [-0.001, 0.11, math.inf, math.nan])
def test_a_final_rate_out_of_bounds_is_refused(final):
    with pytest.raises(ValueError, match=r"final_lr=.*: expected a number from 0 to the optimizer's lr, 0\.1"):
        cosine(sgd(0.1), 10, final)


def test_a_refused_final_rate_is_a_config_error_that_names_the_value():
    node = Node(_target_="cnnbench.training.schedulers.cosine", final_lr=5)
    with pytest.raises(
        ConfigError, match=r"scheduler: cosine\(final_lr=5\) is refused: final_lr=5: expected a number from 0 to"
    ):
        construct(node, "scheduler", sgd(0.1), total_steps=10)


def test_a_schedule_continues_from_its_saved_state():
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


# ---- steps -----------------------------------------------------------------------------------------------------------


@settings(max_examples=30, deadline=None)
@given(RATES, GAMMAS, st.integers(1, 5), st.integers(1, 7), STEPS)
def test_step_equals_torchs_step_schedule(rate, gamma, epochs, per_epoch, steps):
    ours, theirs = sgd(rate), sgd(rate)
    expected = rates_of(theirs, torchs.StepLR(theirs, epochs * per_epoch, gamma), steps)
    found = rates_of(ours, step(ours, epochs, gamma, steps_per_epoch=per_epoch), steps)
    assert found == pytest.approx(expected, rel=1e-9)


def test_step_takes_a_fraction_of_an_epoch():
    optimizer = sgd(1.0)
    found = rates_of(optimizer, step(optimizer, 0.5, 0.1, steps_per_epoch=6), 7)
    assert found == pytest.approx([1, 1, 1, 0.1, 0.1, 0.1, 0.01, 0.01])


def test_step_rounds_a_fraction_of_an_epoch_to_whole_steps():
    optimizer = sgd(1.0)
    found = rates_of(optimizer, step(optimizer, 0.5, 0.1, steps_per_epoch=5), 5)  # 2.5 steps, rounded to 2
    assert found == pytest.approx([1, 1, 0.1, 0.1, 0.01, 0.01])


def test_step_of_less_than_a_batch_drops_after_every_batch():
    optimizer = sgd(1.0)
    assert rates_of(optimizer, step(optimizer, 0.01, 0.5, steps_per_epoch=6), 3) == [1, 0.5, 0.25, 0.125]


@settings(max_examples=30, deadline=None)
@given(RATES, GAMMAS, st.lists(st.integers(1, 6), max_size=5), st.integers(1, 7), STEPS)
def test_multistep_equals_torchs_for_milestones_in_any_order(rate, gamma, milestones, per_epoch, steps):
    ours, theirs = sgd(rate), sgd(rate)
    expected = rates_of(theirs, torchs.MultiStepLR(theirs, [m * per_epoch for m in milestones], gamma), steps)
    found = rates_of(ours, multistep(ours, milestones, gamma, steps_per_epoch=per_epoch), steps)
    assert found == pytest.approx(expected, rel=1e-9)


def test_multistep_takes_fractions_of_epochs():
    optimizer = sgd(1.0)
    found = rates_of(optimizer, multistep(optimizer, [0.5, 1.25], 0.1, steps_per_epoch=4), 6)
    assert found == pytest.approx([1, 1, 0.1, 0.1, 0.1, 0.01, 0.01])


def test_multistep_drops_after_30_and_60_epochs_by_default():
    optimizer = sgd(1.0)
    found = rates_of(optimizer, multistep(optimizer), 61)
    assert [found[epoch] for epoch in (29, 30, 59, 60)] == pytest.approx([1, 0.1, 0.1, 0.01])


# ---- one cycle -------------------------------------------------------------------------------------------------------


def half_cosine(begin: float, end: float, share: float) -> float:
    return end + (begin - end) * (1 + math.cos(math.pi * share)) / 2


def one_cycle(low: float, high: float, last: float, rising: float, steps: int) -> list[float]:
    """Returns rates from `low` to `high` at step `rising`, then to `last` at the last step, each along half a cosine."""
    up = [half_cosine(low, high, t / rising) for t in range(steps) if t <= rising]
    return up + [half_cosine(high, last, (t - rising) / (steps - 1 - rising)) for t in range(len(up), steps)]


@settings(max_examples=30, deadline=None)
@given(RATES, st.integers(8, 60), st.floats(2, 100), st.floats(2, 1e4))
def test_onecycle_rises_for_30_percent_of_a_run_and_falls_for_the_rest(rate, steps, div, final_div):
    optimizer = sgd(rate)
    found = rates_of(optimizer, onecycle(optimizer, steps, div_factor=div, final_div_factor=final_div), steps - 1)
    expected = one_cycle(rate / div, rate, rate / div / final_div, 0.3 * steps - 1, steps)
    assert found == pytest.approx(expected, rel=1e-6, abs=1e-12)


@settings(max_examples=30, deadline=None)
@given(RATES, st.integers(2, 10), st.integers(1, 5), st.booleans())
def test_onecycle_equals_torchs_one_cycle(rate, per_epoch, warmup, adam):
    steps = (warmup + 2) * per_epoch
    found = []
    for ours in (True, False):
        parameter = torch.nn.Parameter(torch.zeros(1))
        optimizer = torch.optim.Adam([parameter], rate) if adam else torch.optim.SGD([parameter], rate, momentum=0.9)
        if ours:
            scheduler = onecycle(optimizer, steps, warmup_epochs=warmup, steps_per_epoch=per_epoch)
        else:
            scheduler = torchs.OneCycleLR(optimizer, rate, steps, pct_start=warmup / (warmup + 2))
        found.append([])
        for _ in range(steps):
            group = optimizer.param_groups[0]
            found[-1].append((group["lr"], group["betas"][0] if adam else group["momentum"]))
            optimizer.step()
            scheduler.step()
    for one, other in zip(*found, strict=True):
        assert one == pytest.approx(other, rel=1e-6)


@pytest.mark.parametrize("kind", ["momentum", "betas"])
def test_onecycle_lowers_the_momentum_while_the_rate_rises(kind):
    parameter = torch.nn.Parameter(torch.zeros(1))
    optimizer = torch.optim.Adam([parameter], 0.1) if kind == "betas" else sgd(0.1, momentum=0.9)
    scheduler = onecycle(optimizer, 21, warmup_epochs=11, steps_per_epoch=1)
    found = []
    for _ in range(21):
        value = optimizer.param_groups[0][kind]
        found.append(value[0] if kind == "betas" else value)
        optimizer.step()
        scheduler.step()
    assert found == pytest.approx(one_cycle(0.95, 0.85, 0.95, 10, 21))


def test_onecycle_keeps_the_momentum_without_cycle_momentum():
    for optimizer, cycle in ((sgd(0.1), True), (sgd(0.1, momentum=0.7), False)):
        before = optimizer.param_groups[0]["momentum"]
        rates_of(optimizer, onecycle(optimizer, 10, cycle_momentum=cycle), 5)
        assert optimizer.param_groups[0]["momentum"] == before


def test_onecycle_without_a_warmup_only_falls():
    optimizer = sgd(1.0)
    found = rates_of(optimizer, onecycle(optimizer, 20, warmup_epochs=0), 19)
    assert 0.99 < found[0] <= 1
    assert all(after < before for before, after in pairwise(found))


def test_onecycle_with_a_warmup_of_one_step_begins_at_the_highest_rate():
    for steps in (2, 3, 10, 49):
        optimizer = sgd(1.0)
        found = rates_of(optimizer, onecycle(optimizer, steps, warmup_epochs=1), steps - 1)
        assert found == pytest.approx([half_cosine(1, 1 / 25e4, t / (steps - 1)) for t in range(steps)], abs=1e-6)


@pytest.mark.parametrize("warmup", [None, 0])
def test_a_onecycle_of_one_step_has_the_highest_rate(warmup):
    optimizer = sgd(1.0)
    assert rates_of(optimizer, onecycle(optimizer, 1, warmup_epochs=warmup), 1)[0] == pytest.approx(1.0)


@pytest.mark.parametrize("steps", [1, 2, 3, 4])
def test_onecycle_takes_runs_of_few_steps(steps):
    optimizer = sgd(1.0)
    assert all(0 < rate <= 1 for rate in rates_of(optimizer, onecycle(optimizer, steps), steps - 1))


# ---- plateau ---------------------------------------------------------------------------------------------------------

LOSSES = st.lists(st.one_of(st.floats(0, 3), st.floats(0.7, 1)), min_size=1, max_size=40)


@settings(max_examples=30, deadline=None)
@given(LOSSES, st.floats(0.1, 0.9), st.integers(0, 4), st.floats(0, 0.3), st.floats(0, 2))
def test_plateau_equals_torchs_for_the_same_losses(losses, factor, patience, threshold, least):
    ours, theirs = sgd(1.0), sgd(1.0)
    plateau = Plateau(ours, factor, patience, threshold, least)
    torch_plateau = torchs.ReduceLROnPlateau(
        theirs, factor=factor, patience=patience, threshold=threshold, min_lr=least, eps=0
    )
    for loss in losses:
        plateau.validated(loss)
        torch_plateau.step(loss)
        assert ours.param_groups[0]["lr"] == pytest.approx(theirs.param_groups[0]["lr"], rel=1e-9)
        rates_of(ours, plateau, 2)  # steps change nothing
        assert ours.param_groups[0]["lr"] == pytest.approx(theirs.param_groups[0]["lr"], rel=1e-9)


def test_plateau_waits_for_more_validations_than_its_patience():
    optimizer = sgd(1.0)
    plateau, found = Plateau(optimizer, factor=0.5, patience=2), []
    for loss in (3.0, 2.0, 2.0, 2.0, 2.0, 2.0, 2.0, 2.0, 1.0):
        plateau.validated(loss)
        found.append(optimizer.param_groups[0]["lr"])
    assert found == [1, 1, 1, 1, 0.5, 0.5, 0.5, 0.25, 0.25]


def test_plateau_ignores_a_fall_below_its_threshold():
    optimizer = sgd(1.0)
    plateau, found = Plateau(optimizer, factor=0.5, patience=1, threshold=0.1), []
    for loss in (2.0, 1.9, 1.81, 1.79, 1.75):
        plateau.validated(loss)
        found.append(optimizer.param_groups[0]["lr"])
    assert found == [1, 1, 0.5, 0.5, 0.5]


def test_plateau_never_falls_below_min_lr():
    optimizer = sgd(0.1)
    plateau = Plateau(optimizer, factor=0.1, patience=0, min_lr=0.02)
    for _ in range(5):
        plateau.validated(1.0)
    assert optimizer.param_groups[0]["lr"] == pytest.approx(0.02)


def test_plateau_scales_every_group_of_parameters_by_the_same_factor():
    optimizer = sgd(0.4, 0.04)
    plateau = Plateau(optimizer, factor=0.5, patience=0)
    for _ in range(2):
        plateau.validated(1.0)
    assert [group["lr"] for group in optimizer.param_groups] == pytest.approx([0.2, 0.02])


def test_plateau_lowers_the_rate_during_a_warmup_too():
    optimizer = sgd(1.0)
    plateau = Plateau(optimizer, factor=0.5, patience=0, warmup_epochs=3)
    found = rates_of(optimizer, plateau, 1)  # 1/4, 2/4
    for _ in range(2):
        plateau.validated(1.0)
    found += rates_of(optimizer, plateau, 3)  # half of 2/4, 3/4, 4/4, 4/4
    assert found == pytest.approx([1 / 4, 2 / 4, 1 / 4, 3 / 8, 1 / 2, 1 / 2])


# ---- warm-up ---------------------------------------------------------------------------------------------------------

MAKE = {
    "constant": lambda optimizer, **keys: constant(optimizer, **keys),
    "step": lambda optimizer, **keys: step(optimizer, 2, 0.5, **keys),
    "multistep": lambda optimizer, **keys: multistep(optimizer, [1, 3], 0.5, **keys),
    "plateau": lambda optimizer, **keys: Plateau(optimizer, **keys),
}


@settings(max_examples=30, deadline=None)
@given(RATES, st.integers(1, 30))
def test_a_warmup_equals_torchs_linear_schedule(rate, warm):
    ours, theirs = sgd(rate), sgd(rate)
    linear = torchs.LinearLR(theirs, start_factor=1 / (warm + 1), total_iters=warm)
    assert rates_of(ours, constant(ours, warm), warm + 5) == pytest.approx(rates_of(theirs, linear, warm + 5), rel=1e-6)


@pytest.mark.parametrize("name", MAKE)
def test_a_warmup_multiplies_the_rates_of_the_schedule(name):
    plain, warm = sgd(0.3), sgd(0.3)
    expected = rates_of(plain, MAKE[name](plain, steps_per_epoch=4), 20)
    found = rates_of(warm, MAKE[name](warm, steps_per_epoch=4, warmup_epochs=2.5), 20)  # ten steps
    assert found == pytest.approx([rate * min(1, (t + 1) / 11) for t, rate in enumerate(expected)])


@settings(max_examples=30, deadline=None)
@given(RATES, st.integers(0, 20), st.integers(1, 40), st.floats(0, 1))
def test_a_cosine_after_a_warmup_is_a_line_and_half_a_cosine(rate, warm, falling, share):
    final, optimizer = rate * share, sgd(rate)
    assume(final <= rate)
    found = rates_of(optimizer, cosine(optimizer, warm + falling, final, warm), warm + falling)
    line = [rate * (t + 1) / (warm + 1) for t in range(warm)]
    curve = [final + 0.5 * (rate - final) * (1 + math.cos(math.pi * t / falling)) for t in range(falling + 1)]
    assert found == pytest.approx(line + curve, rel=1e-9, abs=1e-12)


@pytest.mark.parametrize("warm", [1, 2, 7])
def test_a_cosine_after_a_warmup_equals_torchs_sequence(warm):
    ours, theirs = sgd(0.3), sgd(0.3)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        linear = torchs.LinearLR(theirs, start_factor=1 / (warm + 1), total_iters=warm)
        parts = [linear, torchs.CosineAnnealingLR(theirs, T_max=20 - warm, eta_min=0.01)]
        expected = rates_of(theirs, torchs.SequentialLR(theirs, parts, milestones=[warm]), 20)
    assert rates_of(ours, cosine(ours, 20, 0.01, warm), 20) == pytest.approx(expected, rel=1e-6)


def test_a_warmup_begins_above_zero_and_rises_at_every_step():
    optimizer = sgd(0.3)
    found = rates_of(optimizer, constant(optimizer, 0.5, steps_per_epoch=10), 5)
    assert found[0] > 0
    assert all(after > before for before, after in pairwise(found))
    assert found[5] == 0.3
