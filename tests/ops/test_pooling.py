"""Max and mean pooling by hand against PyTorch's: outputs, gradients, equal values, and the book's examples."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from agreement import assert_agree, uniform
from cnnbench.ops.pooling import MaxPool2d, MeanPool2d, window_entries

PAIRS = pytest.mark.parametrize(("ours", "theirs"), [(MaxPool2d, nn.MaxPool2d), (MeanPool2d, nn.AvgPool2d)])
TOLERANCE = {torch.float32: 1e-5, torch.float64: 1e-12}
SEEDS = st.integers(0, 10_000)
BOOK = torch.arange(1.0, 17.0).view(1, 1, 4, 4)  # section 5.2.2


@st.composite
def cases(draw) -> tuple[tuple[int, ...], int, int | None]:
    """A shape, a window that fits it, and a stride: equal to the window, smaller or larger."""
    shape = draw(st.tuples(st.integers(1, 3), st.integers(1, 4), st.integers(1, 12), st.integers(1, 12)))
    window = draw(st.integers(1, min(4, *shape[2:])))
    return shape, window, draw(st.none() | st.integers(1, 5))


@PAIRS
@settings(deadline=None, max_examples=80)
@given(cases(), st.sampled_from(list(TOLERANCE)), SEEDS)
def test_a_pooling_and_its_gradient_equal_pytorchs(ours, theirs, case, dtype, seed):
    shape, *knobs = case
    x = uniform(*shape, seed=seed, dtype=dtype)
    assert_agree(ours(*knobs), theirs(*knobs), x, tolerance=TOLERANCE[dtype])


@settings(deadline=None, max_examples=80)
@given(cases(), SEEDS, st.sampled_from([1, 2, 3]))
def test_of_equal_values_the_gradient_goes_to_the_same_as_pytorchs(case, seed, values):
    shape, *knobs = case
    x = torch.randint(values, shape, generator=torch.Generator().manual_seed(seed)).float()
    assert_agree(MaxPool2d(*knobs), nn.MaxPool2d(*knobs), x, tolerance=1e-6)


def test_of_equal_values_the_first_gets_the_gradient():
    x = torch.ones(1, 1, 2, 4, requires_grad=True)
    MaxPool2d(2)(x).sum().backward()
    assert x.grad.tolist() == [[[[1, 0, 1, 0], [0, 0, 0, 0]]]]


@pytest.mark.parametrize(
    ("layer", "reduce"), [(MaxPool2d, np.max), (MeanPool2d, np.mean)], ids=["MaxPool2d", "MeanPool2d"]
)
@settings(deadline=None, max_examples=40)
@given(cases(), SEEDS)
def test_a_pooling_equals_numpys_over_every_window(layer, reduce, case, seed):
    shape, size, stride = case
    x = uniform(*shape, seed=seed, dtype=torch.float64)
    steps = stride or size
    views = np.lib.stride_tricks.sliding_window_view(x.numpy(), (size, size), axis=(2, 3))[:, :, ::steps, ::steps]
    np.testing.assert_allclose(layer(size, stride)(x).numpy(), reduce(views, axis=(4, 5)), rtol=0, atol=1e-14)


@pytest.mark.parametrize("layer", [MaxPool2d, MeanPool2d])
def test_gradients_equal_finite_differences(layer):
    x = torch.randperm(60, generator=torch.Generator().manual_seed(0)).double().view(1, 2, 5, 6).requires_grad_()
    assert torch.autograd.gradcheck(layer(3, 2), (x,))


def test_the_books_maxima():
    assert MaxPool2d(2)(BOOK).tolist() == [[[[6, 8], [14, 16]]]]


def test_the_books_means():
    assert MeanPool2d(2)(BOOK).tolist() == [[[[3.5, 5.5], [11.5, 13.5]]]]


def test_windows_overlap_if_the_stride_is_smaller():
    assert MaxPool2d(2, stride=1)(BOOK).tolist() == [[[[6, 7, 8], [10, 11, 12], [14, 15, 16]]]]


def test_the_default_windows_have_two_pixels_and_do_not_overlap():
    assert MaxPool2d()(BOOK).equal(MaxPool2d(2, 2)(BOOK))


@pytest.mark.parametrize("layer", [MaxPool2d, MeanPool2d])
def test_a_last_row_and_column_that_fit_no_window_have_no_gradient(layer):
    x = uniform(1, 1, 5, 5).requires_grad_()
    output = layer(2)(x)
    output.sum().backward()
    assert output.shape == (1, 1, 2, 2)
    assert x.grad[..., 4, :].abs().sum() == x.grad[..., 4].abs().sum() == 0
    assert x.grad.sum() == 4


def test_windows_are_listed_row_by_row():
    entries = window_entries(BOOK, size=2, stride=2)
    assert entries.shape == (4, 1, 1, 2, 2)
    assert entries[:, 0, 0, 0, 1].tolist() == [3, 4, 7, 8]


@pytest.mark.parametrize("layer", [MaxPool2d, MeanPool2d])
def test_a_window_larger_than_the_map_is_refused(layer):
    with pytest.raises(ValueError, match="a window of 3 does not fit a map of 2"):
        layer(3)(torch.zeros(1, 1, 4, 2))


@pytest.mark.parametrize("layer", [MaxPool2d, MeanPool2d])
def test_a_pooling_has_no_parameters(layer):
    assert layer(2).state_dict() == {}


@PAIRS
def test_a_batch_of_no_images_gives_no_maps(ours, theirs):
    empty = torch.zeros(0, 3, 6, 4)
    assert ours(2)(empty).shape == theirs(2)(empty).shape == (0, 3, 3, 2)


def test_the_maximum_of_a_window_with_nan_is_nan():
    x = BOOK.clone()
    x[..., 0, 0] = float("nan")
    torch.testing.assert_close(MaxPool2d(2)(x), nn.MaxPool2d(2)(x), equal_nan=True)


@pytest.mark.parametrize("layer", [MaxPool2d, MeanPool2d])
def test_a_printed_layer_shows_window_and_stride(layer):
    assert repr(layer(3, 2)) == f"{layer.__name__}(kernel_size=3, stride=2)"
