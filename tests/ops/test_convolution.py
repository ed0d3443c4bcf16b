"""Convolution by hand against PyTorch's and SciPy's: outputs, gradients, sizes, initial weights, the book's examples."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.signal import convolve2d, correlate2d
from torch import nn

from agreement import assert_agree, uniform
from cnnbench.ops.convolution import (
    PADDINGS,
    Conv2d,
    SingleChannelConv2d,
    convolve,
    convolve_channels,
    output_size,
    padding_size,
    window_entry,
    zero_pad,
)

TOLERANCE = {torch.float32: 1e-5, torch.float64: 1e-12}
DTYPES = st.sampled_from(list(TOLERANCE))
SEEDS = st.integers(0, 10_000)
BOOK = torch.arange(1.0, 10.0).view(1, 3, 3), torch.arange(4.0).view(2, 2)  # section 5.1.2


@st.composite
def geometries(draw, square: bool = False) -> dict:
    """Sides of a map, a window that fits it, a stride and a padding."""
    height, width = draw(st.integers(1, 12)), draw(st.integers(1, 12))
    padding = draw(st.integers(0, 3))
    rows = draw(st.integers(1, min(5, height + 2 * padding, width + 2 * padding if square else 99)))
    columns = rows if square else draw(st.integers(1, min(5, width + 2 * padding)))
    return {
        "map": (height, width),
        "window": (rows, columns),
        "stride": draw(st.integers(1, 4)),
        "padding": padding,
    }


# ---- equal to PyTorch's -------------------------------------------------------------------------------------------


@settings(deadline=None, max_examples=60)
@given(geometries(square=True), st.integers(1, 3), st.integers(1, 4), st.integers(1, 4), DTYPES, SEEDS)
def test_the_layer_and_its_gradients_equal_pytorchs(case, images, channels, kernels, dtype, seed):
    knobs = channels, kernels, case["window"][0], case["stride"], case["padding"]
    torch.manual_seed(seed)
    ours, theirs = Conv2d(*knobs).to(dtype), nn.Conv2d(*knobs).to(dtype)
    theirs.load_state_dict(ours.state_dict())
    x = uniform(images, channels, *case["map"], seed=seed, dtype=dtype)
    assert_agree(ours, theirs, x, (ours.parameters(), theirs.parameters()), TOLERANCE[dtype])


@settings(deadline=None, max_examples=60)
@given(geometries(), st.integers(1, 3), st.integers(1, 3), st.integers(1, 3), DTYPES, SEEDS)
def test_kernels_that_are_not_square_convolve_like_pytorchs(case, images, channels, kernels, dtype, seed):
    weight = uniform(kernels, channels, *case["window"], seed=seed + 1, dtype=dtype).requires_grad_()
    steps = case["stride"], case["padding"]
    assert_agree(
        lambda x: convolve_channels(x, weight, *steps),
        lambda x: F.conv2d(x, weight, None, *steps),
        uniform(images, channels, *case["map"], seed=seed, dtype=dtype),
        ([weight], [weight]),
        TOLERANCE[dtype],
    )


@settings(deadline=None, max_examples=60)
@given(geometries(), st.integers(1, 3), DTYPES, SEEDS)
def test_one_channel_and_its_gradients_equal_pytorchs(case, images, dtype, seed):
    weight = uniform(*case["window"], seed=seed + 1, dtype=dtype).requires_grad_()
    steps = case["stride"], case["padding"]
    assert_agree(
        lambda x: convolve(x, weight, *steps),
        lambda x: F.conv2d(x[:, None], weight[None, None], None, *steps)[:, 0],
        uniform(images, *case["map"], seed=seed, dtype=dtype),
        ([weight], [weight]),
        TOLERANCE[dtype],
    )


@pytest.mark.slow
def test_gradients_of_the_layer_equal_finite_differences():
    torch.manual_seed(0)
    layer = Conv2d(2, 3, 3, stride=2, padding=1).double()
    x = uniform(2, 2, 5, 6, dtype=torch.float64).requires_grad_()
    assert torch.autograd.gradcheck(lambda x, *_: layer(x), (x, *layer.parameters()))


def test_gradients_of_one_channel_equal_finite_differences():
    x, kernel = (uniform(*shape, dtype=torch.float64).requires_grad_() for shape in ((2, 5, 4), (3, 2)))
    assert torch.autograd.gradcheck(lambda x, kernel: convolve(x, kernel, 2, 1), (x, kernel))


def test_a_batch_of_no_images_gives_no_maps():
    assert Conv2d(3, 4, 3)(torch.zeros(0, 3, 8, 6)).shape == (0, 4, 6, 4)


def test_a_map_that_is_not_contiguous_is_convolved():
    torch.manual_seed(0)
    layer, x = Conv2d(3, 2, 3), uniform(2, 7, 6, 3).permute(0, 3, 1, 2)
    torch.testing.assert_close(layer(x), layer(x.contiguous()), rtol=0, atol=0)


# ---- equal to SciPy's, and to the book's loops --------------------------------------------------------------------


@settings(deadline=None, max_examples=60)
@given(geometries(), SEEDS)
def test_one_channel_is_scipys_correlation_of_the_padded_map(case, seed):
    x, kernel = (uniform(*case[key], seed=seed + n, dtype=torch.float64) for n, key in enumerate(("map", "window")))
    expected = correlate2d(np.pad(x.numpy(), case["padding"]), kernel.numpy(), mode="valid")
    stride = case["stride"]
    found = convolve(x[None], kernel, stride, case["padding"])[0]
    np.testing.assert_allclose(found.numpy(), expected[::stride, ::stride], rtol=0, atol=1e-12)


@settings(deadline=None, max_examples=40)
@given(st.sampled_from([1, 3, 5]), st.integers(5, 12), st.integers(5, 12), SEEDS)
def test_narrow_equal_and_wide_are_scipys_valid_same_and_full(window, height, width, seed):
    x = uniform(1, height, width, seed=seed, dtype=torch.float64)
    torch.manual_seed(seed)
    for kind, mode in zip(PADDINGS, ("valid", "same", "full"), strict=True):
        layer = SingleChannelConv2d(window, padding=kind).double()
        expected = correlate2d(x[0].numpy(), layer.weight.detach().numpy(), mode)
        np.testing.assert_allclose(layer(x)[0].detach().numpy(), expected, rtol=0, atol=1e-12)


def test_the_kernel_is_not_flipped():
    x, kernel = BOOK
    found = convolve(x, kernel)[0].numpy()
    assert np.array_equal(found, correlate2d(x[0], kernel, "valid"))
    assert not np.array_equal(found, convolve2d(x[0], kernel, "valid"))


@settings(deadline=None, max_examples=30)
@given(geometries(), st.integers(1, 2), st.integers(1, 3), st.integers(1, 3), SEEDS)
def test_the_result_equals_the_books_loop_over_positions(case, images, channels, kernels, seed):
    x = uniform(images, channels, *case["map"], seed=seed, dtype=torch.float64)
    weight = uniform(kernels, channels, *case["window"], seed=seed + 1, dtype=torch.float64)
    (rows, columns), stride, padding = case["window"], case["stride"], case["padding"]
    padded = np.pad(x.numpy(), ((0, 0), (0, 0), (padding, padding), (padding, padding)))
    tops = range(0, padded.shape[2] - rows + 1, stride)
    lefts = range(0, padded.shape[3] - columns + 1, stride)
    expected = np.zeros((images, kernels, len(tops), len(lefts)))
    for i, top in enumerate(tops):
        for j, left in enumerate(lefts):
            window = padded[:, None, :, top : top + rows, left : left + columns]
            expected[:, :, i, j] = (window * weight.numpy()).sum(axis=(2, 3, 4))
    found = convolve_channels(x, weight, stride, padding)
    np.testing.assert_allclose(found.numpy(), expected, rtol=0, atol=1e-12)


@settings(deadline=None)
@given(st.integers(0, 4), st.integers(1, 6), st.integers(1, 6))
def test_padding_equals_numpys(padding, height, width):
    x = uniform(2, height, width)
    expected = np.pad(x.numpy(), ((0, 0), (padding, padding), (padding, padding)))
    assert np.array_equal(zero_pad(x, padding).numpy(), expected)


def test_padding_keeps_the_dtype():
    assert zero_pad(torch.ones(1, 2, 2, dtype=torch.float64), 1).dtype == torch.float64


def test_an_entry_of_a_window_at_all_positions_is_a_map():
    x = torch.arange(20).view(4, 5)
    assert window_entry(x, 1, 0, height=2, width=3, stride=2).tolist() == [[5, 7, 9], [15, 17, 19]]


# ---- sizes and refusals -------------------------------------------------------------------------------------------


@settings(deadline=None)
@given(st.integers(1, 60), st.integers(1, 12), st.integers(1, 9), st.integers(0, 6))
def test_the_output_size_is_the_number_of_positions_where_the_window_fits(size, window, stride, padding):
    places = len(range(0, size + 2 * padding - window + 1, stride))
    if places:
        assert output_size(size, window, stride, padding) == places
    else:
        with pytest.raises(ValueError, match=f"a window of {window} does not fit a map of {size} with a padding of"):
            output_size(size, window, stride, padding)


@pytest.mark.parametrize(("numbers", "size"), [((7, 3, 1, 0), 5), ((7, 3, 2, 0), 3), ((5, 3, 2, 1), 3)])
def test_output_sizes_equal_the_courses(numbers, size):
    assert output_size(*numbers) == size


def test_a_window_that_does_not_fit_evenly_omits_the_rest():
    assert output_size(10, 3, stride=2) == 4  # (10 - 3) / 2 + 1 is 4.5


@settings(deadline=None)
@given(st.integers(1, 9), st.integers(9, 40))
def test_narrow_shrinks_equal_keeps_and_wide_grows(window, size):
    assert output_size(size, window, padding=padding_size("narrow", window)) == size - window + 1
    assert output_size(size, window, padding=padding_size("wide", window)) == size + window - 1
    if window % 2:
        assert output_size(size, window, padding=padding_size("equal", window)) == size


@pytest.mark.parametrize("window", [2, 4, 6])
def test_equal_refuses_an_even_kernel(window):
    with pytest.raises(ValueError, match=f"needs an odd kernel size, got {window}"):
        Conv2d(1, 1, window, padding="equal")


@pytest.mark.parametrize("window", [1, 2, 3, 4])
def test_narrow_and_wide_accept_any_kernel(window):
    assert [padding_size(kind, window) for kind in ("narrow", "wide")] == [0, window - 1]


@pytest.mark.parametrize("make", [lambda p: Conv2d(1, 1, 3, padding=p), lambda p: SingleChannelConv2d(3, padding=p)])
@pytest.mark.parametrize(
    ("padding", "reason"),
    [
        (-1, "padding must be at least 0, got -1"),
        ("same", "padding must be a number or one of narrow, equal, wide, got same"),
        ("", "padding must be a number or one of narrow, equal, wide, got "),
    ],
)
def test_an_invalid_padding_is_refused(make, padding, reason):
    with pytest.raises(ValueError, match=reason):
        make(padding)


@pytest.mark.parametrize("shape", [(1, 2, 4, 8), (1, 2, 8, 4)])
def test_a_window_larger_than_the_map_is_refused(shape):
    with pytest.raises(ValueError, match="a window of 7 does not fit a map of 4 with a padding of 1"):
        Conv2d(2, 1, 7, padding=1)(torch.zeros(shape))


def test_a_window_as_large_as_the_map_gives_one_number():
    assert Conv2d(2, 5, 4)(torch.zeros(3, 2, 4, 4)).shape == (3, 5, 1, 1)


# ---- the book's examples ------------------------------------------------------------------------------------------


def test_the_books_first_convolution():
    assert convolve(*BOOK).tolist() == [[[25, 31], [43, 49]]]


@pytest.mark.parametrize(("stride", "shape"), [(1, (2, 8, 8)), (2, (2, 4, 4))])
def test_the_books_shapes_with_stride_and_padding(stride, shape):
    assert SingleChannelConv2d(3, stride, padding=1)(torch.randn(2, 8, 8)).shape == shape


def test_the_books_convolution_of_two_channels_by_three_kernels():
    layer = Conv2d(2, 3, 2)
    layer.load_state_dict({"weight": torch.ones(3, 2, 2, 2), "bias": torch.zeros(3)})
    x = torch.stack([torch.arange(9.0).view(3, 3), torch.arange(1.0, 10.0).view(3, 3)])[None]
    assert layer(x).tolist() == [3 * [[[20, 28], [44, 52]]]]


def test_a_bias_is_added_at_every_position_of_its_map():
    layer = Conv2d(2, 3, 2)
    layer.load_state_dict({"weight": torch.zeros(3, 2, 2, 2), "bias": torch.tensor([1.0, 2.0, 3.0])})
    assert layer(torch.randn(1, 2, 3, 2)).flatten(2).tolist() == [[[1, 1], [2, 2], [3, 3]]]


def test_three_to_six_channels_have_168_parameters():
    assert sum(p.numel() for p in Conv2d(3, 6, 3).parameters()) == 168


# ---- as a layer ---------------------------------------------------------------------------------------------------


@pytest.mark.slow
@settings(deadline=None)
@given(st.integers(1, 40), st.integers(1, 20), st.integers(1, 7), SEEDS)
def test_the_same_seed_draws_the_weights_of_pytorchs_layer(channels, kernels, window, seed):
    states = []
    for layer in (Conv2d, nn.Conv2d):
        torch.manual_seed(seed)
        states.append(layer(channels, kernels, window).state_dict())
    ours, theirs = states
    assert list(ours) == list(theirs) == ["weight", "bias"]
    assert all(ours[key].equal(theirs[key]) for key in ours)


@settings(deadline=None)
@given(st.integers(1, 7), SEEDS)
def test_the_single_kernel_is_drawn_within_one_over_its_side(window, seed):
    torch.manual_seed(seed)
    weight = SingleChannelConv2d(window).weight
    assert weight.shape == (window, window)
    assert weight.abs().max() <= 1 / window


def test_the_state_dict_fits_pytorchs_layer_in_both_directions():
    ours, theirs, back = Conv2d(2, 3, 3), nn.Conv2d(2, 3, 3), Conv2d(2, 3, 3)
    theirs.load_state_dict(ours.state_dict())
    back.load_state_dict(theirs.state_dict())
    assert back.weight.equal(ours.weight)
    assert back.bias.equal(ours.bias)


def test_gradient_descent_recovers_the_kernel_of_the_targets():
    torch.manual_seed(0)
    laplacian = torch.tensor([[-1.0, -1.0, -1.0], [-1.0, 8.0, -1.0], [-1.0, -1.0, -1.0]])
    images = uniform(8, 12, 12)
    targets = F.conv2d(images[:, None], laplacian[None, None])[:, 0]
    layer = SingleChannelConv2d(3)
    optimizer = torch.optim.SGD(layer.parameters(), lr=0.5)
    for _ in range(100):
        optimizer.zero_grad()
        F.mse_loss(layer(images), targets).backward()
        optimizer.step()
    torch.testing.assert_close(layer.weight.detach(), laplacian, rtol=0, atol=1e-3)


def test_a_step_down_the_gradient_lowers_the_loss():
    torch.manual_seed(0)
    layer, images = Conv2d(2, 3, 3, padding="equal"), uniform(4, 2, 6, 6)
    before = layer(images).square().mean()
    before.backward()
    torch.optim.SGD(layer.parameters(), lr=0.1).step()
    assert layer(images).square().mean() < before


def test_a_printed_layer_shows_its_sizes():
    assert repr(Conv2d(3, 6, 5, 2, "wide")) == "Conv2d(3, 6, kernel_size=5, stride=2, padding=4)"
