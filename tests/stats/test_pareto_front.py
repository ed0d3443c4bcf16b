"""The Pareto front of accuracy against cost; edge cases."""

from __future__ import annotations

from math import inf, nan

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cnnbench.stats import (
    pareto,
)


@given(st.lists(st.tuples(st.integers(0, 5), st.integers(0, 5)), max_size=12))
def test_the_front_is_the_best_value_of_each_cost_if_it_beats_all_lower_costs(points):
    front = [
        best == max(value for cost, value in points if cost == price)
        and all(value < best for cost, value in points if cost < price)
        for price, best in points
    ]
    assert pareto([cost for cost, _ in points], [value for _, value in points]) == front


def test_equal_points_are_all_on_the_pareto_front():
    assert pareto([1, 1, 2, 2], [0.9, 0.9, 0.8, 0.95]) == [True, True, False, True]


@pytest.mark.parametrize(("costs", "values"), [([1, 2], [1]), ([nan], [1]), ([1], [inf])])
def test_points_that_are_not_finite_pairs_are_refused(costs, values):
    with pytest.raises(ValueError, match=r"finite|shorter"):
        pareto(costs, values)
