"""Holm's correction against statsmodels; edge cases."""

from __future__ import annotations

from math import nan
from unittest.mock import patch

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from statsmodels.stats.multitest import multipletests

from cnnbench.stats import (
    holm,
)


@settings(deadline=None)
@given(st.lists(st.floats(0, 1), min_size=1, max_size=20))
def test_holm_is_that_of_statsmodels(p_values):
    with patch("gc.collect"):  # statsmodels calls it each time
        theirs = multipletests(p_values, method="holm")[1]
    assert holm(p_values) == pytest.approx(theirs)


@settings(deadline=None)
@given(st.lists(st.none() | st.floats(0, 1), max_size=20))
def test_holm_keeps_none_and_does_not_count_it(p_values):
    adjusted = holm(p_values)
    assert [p is None for p in adjusted] == [p is None for p in p_values]
    assert [p for p in adjusted if p is not None] == holm([p for p in p_values if p is not None])


@given(st.lists(st.floats(0, 1), min_size=1, max_size=20))
def test_holm_keeps_the_order_of_p_values_and_their_upper_bound_1(p_values):
    in_order = [p for _, p in sorted(zip(p_values, holm(p_values), strict=True))]
    assert in_order == sorted(in_order)
    assert all(p <= adjusted <= 1 for p, adjusted in zip(sorted(p_values), in_order, strict=True))


@pytest.mark.parametrize("p", [-0.1, 1.1, nan])
def test_holm_refuses_numbers_that_are_not_p_values(p):
    with pytest.raises(ValueError, match="expected p values within 0 and 1"):
        holm([0.5, p])
