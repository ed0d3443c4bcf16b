"""Up-sampling and flattening by hand against PyTorch's."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from agreement import assert_agree, uniform
from cnnbench.ops.reshaping import Flatten, NearestUpsample

SHAPES = st.tuples(*[st.integers(1, 5)] * 4)


@settings(deadline=None, max_examples=60)
@given(SHAPES, st.integers(1, 5), st.integers(0, 99))
def test_upsampling_and_its_gradient_equal_pytorchs(shape, factor, seed):
    theirs = nn.Upsample(scale_factor=factor, mode="nearest")
    assert_agree(NearestUpsample(factor), theirs, uniform(*shape, seed=seed))


@settings(deadline=None)
@given(SHAPES, st.integers(1, 4))
def test_every_pixel_becomes_a_square_of_its_value(shape, factor):
    x = uniform(*shape)
    assert np.array_equal(NearestUpsample(factor)(x), x.numpy().repeat(factor, 2).repeat(factor, 3))


def test_upsampling_doubles_by_default():
    x = torch.tensor([[[[1.0, 2.0], [3.0, 4.0]]]])
    assert NearestUpsample()(x).tolist() == [[[[1, 1, 2, 2], [1, 1, 2, 2], [3, 3, 4, 4], [3, 3, 4, 4]]]]


def test_upsampling_sums_the_gradient_of_each_square():
    x = torch.zeros(1, 1, 2, 3, requires_grad=True)
    NearestUpsample(4)(x).sum().backward()
    assert x.grad.unique().tolist() == [16]


@settings(deadline=None, max_examples=60)
@given(st.lists(st.integers(1, 4), min_size=2, max_size=5), st.integers(0, 99))
def test_flattening_and_its_gradient_equal_pytorchs(shape, seed):
    assert_agree(Flatten(), nn.Flatten(), uniform(*shape, seed=seed), tolerance=0)


def test_flattening_keeps_the_order_of_numbers():
    assert Flatten()(torch.arange(8).view(2, 2, 2)).tolist() == [[0, 1, 2, 3], [4, 5, 6, 7]]


def test_a_map_that_is_not_contiguous_is_flattened():
    x = uniform(2, 5, 4, 3).permute(0, 3, 1, 2)
    assert Flatten()(x).equal(nn.Flatten()(x))


@pytest.mark.parametrize(
    ("ours", "theirs"), [(NearestUpsample(), nn.Upsample(scale_factor=2)), (Flatten(), nn.Flatten())]
)
def test_a_batch_of_no_images_keeps_its_shape(ours, theirs):
    empty = torch.zeros(0, 3, 2, 2)
    assert ours(empty).shape == theirs(empty).shape


@pytest.mark.parametrize("layer", [NearestUpsample(), Flatten()])
def test_the_layers_have_no_parameters(layer):
    assert layer.state_dict() == {}
