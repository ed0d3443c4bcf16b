"""Calibration bins, the expected calibration error and its interval against scikit-learn, torchmetrics and scipy."""

from __future__ import annotations

from math import nan

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats
from sklearn.calibration import calibration_curve
from torchmetrics.functional.classification import binary_calibration_error

from cnnbench.stats import (
    bootstrap_counts,
    calibration,
    ece_interval,
)


@st.composite
def scored(draw):
    predictions = draw(st.lists(st.tuples(st.floats(0, 1), st.booleans()), min_size=1, max_size=60))
    return tuple(np.array(side) for side in zip(*predictions, strict=True))


@settings(deadline=None)
@given(scored(), st.integers(1, 20))
def test_the_bins_are_those_of_scikit_learn(predictions, bins):
    confidence, correct = predictions
    found = calibration(confidence, correct, bins)
    accuracy, mean = calibration_curve(correct, confidence, n_bins=bins, strategy="uniform")
    assert [share for share in found.accuracy if share is not None] == pytest.approx(accuracy)
    assert [share for share in found.confidence if share is not None] == pytest.approx(mean)


@settings(deadline=None)
@given(scored(), st.integers(1, 20))
def test_each_image_is_in_one_bin_and_above_its_lower_edge(predictions, bins):
    confidence, correct = predictions
    found = calibration(confidence, correct, bins)
    lower, upper = np.array(found.edges[:-1]), np.array(found.edges[1:])
    inside = (lower < confidence[:, None]) & (confidence[:, None] <= upper)
    inside[confidence == 0, 0] = True
    assert found.count == inside.sum(0).tolist()
    assert [count == 0 for count in found.count] == [mean is None for mean in found.confidence]


@pytest.mark.parametrize("bins", [1, 10, 15])
def test_the_calibration_error_is_that_of_torchmetrics(bins):
    rng = np.random.default_rng(0)
    confidence = rng.uniform(size=500)
    correct = rng.uniform(size=500) < confidence**2
    theirs = binary_calibration_error(torch.tensor(confidence), torch.tensor(correct).int(), n_bins=bins)
    assert calibration(confidence, correct, bins).ece == pytest.approx(float(theirs), abs=1e-6)


def test_the_calibration_error_of_four_images_is_that_computed_by_hand():
    found = calibration([0.6, 0.7, 0.9, 1.0], [1, 0, 1, 1], bins=4)
    assert found.edges == [0, 0.25, 0.5, 0.75, 1]
    assert found.count == [0, 0, 2, 2]
    assert found.confidence == [None, None, pytest.approx(0.65), pytest.approx(0.95)]
    assert found.accuracy == [None, None, 0.5, 1]
    assert found.ece == pytest.approx((2 * 0.15 + 2 * 0.05) / 4)


@pytest.mark.parametrize(
    ("confidence", "correct", "bins"),
    [
        ([1.1], [1], 15),
        ([-0.1], [1], 15),
        ([-0.1, 0.5], [1, 0], 15),
        ([nan], [1], 15),
        ([0.5], [2], 15),
        ([], [], 15),
        ([0.5], [1], 0),
        ([0.5], [1, 0], 15),
    ],
)
def test_values_that_are_not_confidences_are_refused(confidence, correct, bins):
    with pytest.raises(ValueError, match="expected"):
        calibration(confidence, correct, bins)


def overconfident(images, seed=0):
    """Confidence and correctness of a net whose accuracy is 0.2 below its confidence."""
    rng = np.random.default_rng(seed)
    confidence = rng.uniform(0.5, 1, images)
    return confidence, rng.uniform(size=images) < confidence - 0.2


def test_the_interval_of_the_calibration_error_is_the_bootstrap_of_scipy():
    confidence, correct = overconfident(300)
    theirs = stats.bootstrap(
        (confidence, correct), lambda *sample: calibration(*sample).ece, paired=True, vectorized=False,
        method="percentile", n_resamples=3000, random_state=np.random.default_rng(1),
    ).confidence_interval  # fmt: skip
    point, interval = ece_interval(confidence, correct, bootstrap_counts(300, np.random.default_rng(2), 3000))
    assert point == calibration(confidence, correct).ece
    assert interval == pytest.approx(tuple(theirs), abs=0.005)


def test_the_same_generator_gives_the_same_interval():
    first, again, other = (
        ece_interval(*overconfident(100), bootstrap_counts(100, np.random.default_rng(seed))) for seed in (0, 0, 1)
    )
    assert first == again != other


def test_equal_runs_do_not_narrow_the_interval_of_the_calibration_error():
    confidence, correct = overconfident(100)
    drawn = bootstrap_counts(100, np.random.default_rng(0))
    thrice = ece_interval(np.stack([confidence] * 3), np.stack([correct] * 3), drawn)
    assert thrice[1] == pytest.approx(ece_interval(confidence, correct, drawn)[1], rel=1e-4)


def test_a_bootstrap_sample_has_as_many_images_as_the_test_split():
    assert set(bootstrap_counts(50, np.random.default_rng(0), 20).sum(1)) == {50}


@pytest.mark.parametrize(("images", "draws"), [(0, 1), (1, 0)])
def test_an_empty_bootstrap_is_refused(images, draws):
    with pytest.raises(ValueError, match="at least 1 draw"):
        bootstrap_counts(images, np.random.default_rng(0), draws)
