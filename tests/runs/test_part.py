"""Which jobs of a sweep belong to a part."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cnnbench.runs.part import in_part


@given(st.integers(0, 60), st.integers(1, 9))
def test_every_job_is_in_one_part_and_the_parts_differ_by_at_most_one_job(jobs, count):
    parts = [in_part(range(jobs), f"{number}/{count}") for number in range(1, count + 1)]
    assert sorted(job for part in parts for job in part) == list(range(jobs))
    assert max(map(len, parts)) - min(map(len, parts)) <= 1
    assert all(part == sorted(part) for part in parts)


def test_without_a_part_all_jobs_are_run():
    assert in_part("abc", None) == in_part("abc", "1/1") == ["a", "b", "c"]


@pytest.mark.parametrize("count", [2, 3, 4])
def test_the_seeds_of_a_setting_are_spread_over_the_parts(count):
    jobs = [(setting, seed) for setting in range(6) for seed in range(count)]
    for number in range(1, count + 1):
        assert [setting for setting, _ in in_part(jobs, f"{number}/{count}")] == list(range(6))


@pytest.mark.parametrize("count", [2, 3, 4])
def test_a_factor_with_as_many_values_as_parts_is_not_divided_by_its_values(count):
    jobs = [(rate, model) for rate in range(count) for model in range(count)]  # one seed; a model may take all the time
    for number in range(1, count + 1):
        part = in_part(jobs, f"{number}/{count}")
        assert sorted(model for _, model in part) == sorted(rate for rate, _ in part) == list(range(count))


def test_a_part_of_fewer_jobs_than_parts_may_be_empty():
    assert in_part("ab", "3/5") == []
