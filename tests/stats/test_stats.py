"""Coverage of intervals, errors of tests and power in simulated sweeps; what the package imports."""

from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest

from cnnbench.stats import (
    holm,
    more_pairs,
    paired,
    power,
)


def loaded(code):
    """The scientific packages that code imports."""
    check = f"{code}; import sys; print(*sorted({{'numpy', 'scipy.special', 'scipy.stats'}} & sys.modules.keys()))"
    return subprocess.run([sys.executable, "-c", check], capture_output=True, text=True, check=True).stdout.split()


def test_wilson_loads_neither_numpy_nor_scipy():
    assert loaded("from cnnbench.stats import wilson; wilson(3, 10)") == []


def test_a_t_test_does_not_load_scipy_stats():
    code = "from cnnbench import stats; stats.paired([1, 2], [2, 4]); stats.more_pairs([1, 2], 1)"
    assert loaded(code) == ["numpy", "scipy.special"]


SWEEPS = 2000


@pytest.mark.slow
@pytest.mark.parametrize("n", [3, 5, 10])
def test_paired_intervals_contain_the_true_difference_in_95_percent_of_sweeps(n):
    rng, true = np.random.default_rng(n), 0.01
    seeds = rng.normal(0.9, 0.02, (SWEEPS, n))
    ours, theirs = (seeds + shift + rng.normal(0, 0.01, (SWEEPS, n)) for shift in (true, 0))
    intervals = (paired(*groups).interval for groups in zip(ours, theirs, strict=True))
    held = sum(low <= true <= high for low, high in intervals)
    assert held / SWEEPS == pytest.approx(0.95, abs=0.015)


@pytest.mark.slow
def test_a_false_claim_about_ten_equal_groups_is_made_in_at_most_5_percent_of_sweeps():
    rng = np.random.default_rng(0)
    accuracies = rng.normal(0.9, 0.02, (SWEEPS, 1, 5)) + rng.normal(0, 0.01, (SWEEPS, 10, 5))
    claims = 0
    for baseline, *others in accuracies:
        claims += min(holm([paired(other, baseline).p for other in others])) < 0.05
    assert claims / SWEEPS <= 0.065


@pytest.mark.slow
@pytest.mark.parametrize("n", [3, 5, 10])
def test_the_upper_bound_of_more_pairs_has_the_power_in_80_percent_of_pilot_studies(n):
    deviation, settle = 0.01, 0.005
    pilots = np.random.default_rng(n).normal(0.002, deviation, (SWEEPS, n))
    enough = sum(power(n + more_pairs(pilot, settle)[1], settle, deviation) >= 0.8 for pilot in pilots)
    assert enough / SWEEPS >= 0.8
