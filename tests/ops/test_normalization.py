"""Batch normalization by hand against PyTorch's: training, evaluation, and running statistics."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from agreement import assert_agree, uniform
from cnnbench.ops.normalization import BatchNorm2d, channel_statistics

SEEDS = st.integers(0, 10_000)
STATISTICS = ("running_mean", "running_var", "num_batches_tracked")
SHAPES = st.tuples(st.integers(1, 4), st.integers(1, 4), st.integers(1, 6), st.integers(1, 6)).filter(
    lambda shape: shape[0] * shape[2] * shape[3] > 1
)


def twins(channels: int, seed: int, dtype: torch.dtype = torch.float64, **knobs) -> tuple[BatchNorm2d, nn.BatchNorm2d]:
    """Ours and PyTorch's, with the same random weights, biases and running statistics."""
    theirs = nn.BatchNorm2d(channels, **knobs)
    torch.manual_seed(seed)
    for value in (theirs.weight, theirs.bias, theirs.running_mean):
        nn.init.uniform_(value, -1, 1)
    nn.init.uniform_(theirs.running_var, 0.5, 2)
    ours = BatchNorm2d(channels, **knobs)
    ours.load_state_dict(theirs.state_dict())
    return ours.to(dtype), theirs.to(dtype)


def assert_same_memory(ours: nn.Module, theirs: nn.Module, tolerance: float) -> None:
    for name in STATISTICS:
        torch.testing.assert_close(getattr(ours, name), getattr(theirs, name), rtol=0, atol=tolerance)


@settings(deadline=None, max_examples=60)
@given(SHAPES, SEEDS, st.sampled_from([1e-5, 1e-3, 0.1]), st.booleans())
def test_outputs_and_gradients_equal_pytorchs(shape, seed, eps, training):
    ours, theirs = twins(shape[1], seed, eps=eps)
    for layer in (ours, theirs):
        layer.train(training)
    x = 3 * uniform(*shape, seed=seed, dtype=torch.float64) + 1
    assert_agree(ours, theirs, x, (ours.parameters(), theirs.parameters()), tolerance=1e-9)


@settings(deadline=None, max_examples=60)
@given(st.integers(2, 4), st.integers(1, 4), st.integers(3, 7), st.integers(3, 7), SEEDS, st.booleans())
def test_in_single_precision_they_differ_by_less_than_1e_5(images, channels, height, width, seed, training):
    ours, theirs = twins(channels, seed, torch.float32)
    for layer in (ours, theirs):
        layer.train(training)
    x = uniform(images, channels, height, width, seed=seed)
    assert_agree(ours, theirs, x, (ours.parameters(), theirs.parameters()), tolerance=1e-5)


@settings(deadline=None, max_examples=40)
@given(st.lists(SHAPES, min_size=1, max_size=5), SEEDS, st.sampled_from([0.1, 0.5, 0.01, 0.0, 1.0]))
def test_after_several_batches_running_statistics_equal_pytorchs(shapes, seed, momentum):
    channels = shapes[0][1]
    ours, theirs = twins(channels, seed, momentum=momentum)
    for number, (images, _, height, width) in enumerate(shapes):
        x = 2 * uniform(images, channels, height, width, seed=seed + number, dtype=torch.float64) - number
        for layer in (ours, theirs):
            layer(x)
    assert_same_memory(ours, theirs, 1e-12)
    assert ours.num_batches_tracked.item() == len(shapes)
    x = uniform(2, channels, 3, 4, dtype=torch.float64)
    assert_agree(ours.eval(), theirs.eval(), x, (ours.parameters(), theirs.parameters()), tolerance=1e-10)


def test_evaluation_changes_nothing():
    ours, _ = twins(3, seed=0)
    before = {name: value.clone() for name, value in ours.state_dict().items()}
    ours.eval()(uniform(4, 3, 5, 5, dtype=torch.float64))
    assert all(value.equal(before[name]) for name, value in ours.state_dict().items())


def test_gradients_in_training_equal_finite_differences():
    ours, _ = twins(2, seed=0)
    x = uniform(3, 2, 2, 3, dtype=torch.float64).requires_grad_()
    assert torch.autograd.gradcheck(lambda x, *_: ours(x), (x, *ours.parameters()))


def test_the_books_statistics_are_one_number_per_channel():
    mean, variance = channel_statistics(torch.randn(6, 3, 28, 28))
    assert mean.shape == variance.shape == (3,)


@settings(deadline=None, max_examples=40)
@given(SHAPES, SEEDS)
def test_statistics_equal_numpys_over_images_and_positions(shape, seed):
    x = uniform(*shape, seed=seed, dtype=torch.float64) + 5
    mean, variance = channel_statistics(x)
    np.testing.assert_allclose(mean, x.numpy().mean(axis=(0, 2, 3)), atol=1e-12)
    np.testing.assert_allclose(variance, x.numpy().var(axis=(0, 2, 3)), atol=1e-12)


def test_a_new_layer_gives_each_channel_mean_0_and_deviation_1():
    x = torch.randn(16, 3, 8, 8, generator=torch.Generator().manual_seed(0)) * 5 + 7
    output = BatchNorm2d(3)(x)
    torch.testing.assert_close(output.mean((0, 2, 3)), torch.zeros(3), rtol=0, atol=1e-5)
    torch.testing.assert_close(output.std((0, 2, 3), correction=0), torch.ones(3), rtol=0, atol=1e-4)


def test_the_running_variance_is_the_unbiased_one():
    layer = BatchNorm2d(1)
    layer(torch.tensor([0.0, 2.0]).view(2, 1, 1, 1))  # mean 1; variance 1, unbiased 2
    assert layer.running_mean.item() == pytest.approx(0.1 * 1)
    assert layer.running_var.item() == pytest.approx(0.9 * 1 + 0.1 * 2)


def test_training_on_one_value_per_channel_is_refused_and_changes_nothing():
    layer = BatchNorm2d(3)
    with pytest.raises(ValueError, match="needs more than one value per channel"):
        layer(torch.full((1, 3, 1, 1), 9.0))
    assert_same_memory(layer, nn.BatchNorm2d(3), 0)


def test_one_value_per_channel_can_be_evaluated():
    ours, theirs = twins(3, seed=0)
    x = uniform(1, 3, 1, 1, dtype=torch.float64)
    torch.testing.assert_close(ours.eval()(x), theirs.eval()(x))


def test_a_constant_channel_becomes_its_bias():
    layer = BatchNorm2d(1)
    nn.init.constant_(layer.bias, 0.5)
    assert layer(torch.full((2, 1, 3, 3), 4.0)).unique().tolist() == [0.5]


def test_a_new_layer_starts_like_pytorchs():
    ours, theirs = BatchNorm2d(4).state_dict(), nn.BatchNorm2d(4).state_dict()
    assert list(ours) == list(theirs)
    for name, value in ours.items():
        torch.testing.assert_close(value, theirs[name], rtol=0, atol=0)


def test_the_state_dict_fits_pytorchs_layer_in_both_directions():
    ours, theirs = twins(3, seed=1)
    ours(uniform(2, 3, 4, 4, dtype=torch.float64))
    theirs.load_state_dict(ours.state_dict())
    assert_same_memory(ours, theirs, 0)
    back = BatchNorm2d(3).double()
    back.load_state_dict(theirs.state_dict())
    assert all(value.equal(ours.state_dict()[name]) for name, value in back.state_dict().items())


def test_running_statistics_have_no_gradient():
    layer = BatchNorm2d(2)
    layer(uniform(2, 2, 3, 3).requires_grad_())
    assert not layer.running_mean.requires_grad
    assert not layer.running_var.requires_grad
    assert [name for name, _ in layer.named_parameters()] == ["weight", "bias"]


def test_gradient_descent_by_hand_and_by_pytorch_ends_at_the_same_weights():
    ours, theirs = twins(3, seed=2)
    x, targets = (uniform(4, 3, 5, 5, seed=seed, dtype=torch.float64) for seed in (1, 2))
    for layer in (ours, theirs):
        optimizer = torch.optim.SGD(layer.parameters(), lr=0.5)
        losses = []
        for _ in range(10):
            optimizer.zero_grad()
            loss = F.mse_loss(layer(x), targets)
            loss.backward()
            optimizer.step()
            losses.append(loss.item())
        assert losses[-1] < losses[0]
    for name, value in ours.state_dict().items():
        torch.testing.assert_close(value, theirs.state_dict()[name], rtol=0, atol=1e-10)
