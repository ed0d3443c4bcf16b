"""The examples in the docstrings give the results that they state."""

from __future__ import annotations

import doctest
import importlib

import pytest

MODULES = [
    "cnnbench.augment.functional",
    "cnnbench.models.feature_extraction",
    "cnnbench.training.metrics",
    "cnnbench.stats.calibration_error",
    "cnnbench.stats.means",
    "cnnbench.stats.multiple_comparisons",
    "cnnbench.stats.pareto_front",
    "cnnbench.stats.proportions",
    "cnnbench.stats.same_images",
    "cnnbench.stats.sample_size",
]


@pytest.mark.parametrize("name", MODULES)
def test_the_examples_of_a_module_give_the_stated_results(name):
    result = doctest.testmod(importlib.import_module(name), optionflags=doctest.NORMALIZE_WHITESPACE)
    assert result.attempted > 0
    assert result.failed == 0
