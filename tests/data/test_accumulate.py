"""Gradient accumulation: the parts of a batch contain each image once, and their weighted mean is the batch's."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from cnnbench.augment.step import Augment
from cnnbench.augment.transforms import RandomErasing, RandomHorizontalFlip
from cnnbench.config.compose import compose
from cnnbench.data.loader import BatchPlan, Images, Loader, Normalization
from cnnbench.errors import ConfigError
from cnnbench.training.factories import build_data
from cnnbench.training.validate import prepare

PARTS = {"ranks": st.integers(1, 4), "accumulate": st.integers(1, 5), "of_a_part": st.integers(1, 6)}


def loader(n: int, batch_size: int, accumulate: int = 1, augment: Augment | None = None, **ranks: int) -> Loader:
    """A loader of n images; image k has the label k."""
    pixels = np.random.default_rng(n).integers(0, 256, (n, 1, 4, 4), dtype=np.uint8)
    images = Images(torch.from_numpy(pixels), torch.arange(n))
    return Loader(
        images, BatchPlan(batch_size, accumulate, seed=3, **ranks), Normalization([0.5], [0.25]), augment=augment
    )


def batches(n: int, ranks: int, accumulate: int, of_a_part: int) -> list[list[tuple[list[int], float]]]:
    """The batches of a pass; each is a list of parts in order, (labels, weight)."""
    of_ranks = []
    for rank in range(ranks):
        own = loader(n, ranks * accumulate * of_a_part, accumulate, rank=rank, world_size=ranks)
        of_ranks.append([(labels.tolist(), own.weight(number)) for number, (_, labels) in enumerate(own)])
    parts = [part for same in zip(*of_ranks, strict=True) for part in same]
    return [parts[at : at + ranks * accumulate] for at in range(0, len(parts), ranks * accumulate)]


# ---- images ----------------------------------------------------------------------------------------------------------


@settings(max_examples=40, deadline=None)
@given(n=st.integers(1, 90), **PARTS)
def test_the_parts_of_a_pass_have_every_image_once_in_the_order_of_the_epoch(n, ranks, accumulate, of_a_part):
    labels = [label for batch in batches(n, ranks, accumulate, of_a_part) for part, _ in batch for label in part]
    assert labels == loader(n, 4).order(0).tolist()


@settings(max_examples=40, deadline=None)
@given(n=st.integers(1, 90), **PARTS)
def test_the_parts_of_a_batch_differ_by_one_image_at_most(n, ranks, accumulate, of_a_part):
    for batch in batches(n, ranks, accumulate, of_a_part):
        sizes = [len(part) for part, _ in batch]
        assert max(sizes) - min(sizes) <= 1


@settings(max_examples=40, deadline=None)
@given(n=st.integers(1, 90), **PARTS)
def test_all_batches_but_the_last_have_the_batch_size(n, ranks, accumulate, of_a_part):
    sizes = [sum(len(part) for part, _ in batch) for batch in batches(n, ranks, accumulate, of_a_part)]
    assert set(sizes[:-1]) <= {ranks * accumulate * of_a_part}


@settings(max_examples=40, deadline=None)
@given(n=st.integers(1, 90), **PARTS)
def test_no_part_has_less_than_two_images_where_there_are_enough(n, ranks, accumulate, of_a_part):
    assume(of_a_part > 1)
    assume(n >= 2 * ranks * accumulate)
    assert all(len(part) >= 2 for batch in batches(n, ranks, accumulate, of_a_part) for part, _ in batch)


@pytest.mark.parametrize(
    ("n", "batch_size", "accumulate", "sizes"),
    [
        (24, 8, 2, [4, 4, 4, 4, 4, 4]),
        (28, 8, 2, [4, 4, 4, 4, 4, 4, 2, 2]),  # the last four images are two for each part, and a batch
        (27, 8, 2, [4, 4, 4, 4, 5, 6]),  # three are too few
        (27, 8, 4, [2, 2, 2, 2, 2, 2, 2, 2, 2, 3, 3, 3]),
        (30, 8, 4, [2, 2, 2, 2, 2, 2, 2, 2, 3, 4, 3, 4]),
        (5, 8, 4, [1, 1, 1, 2]),
        (9, 4, 4, [1, 1, 1, 1, 1, 1, 1, 2]),
    ],
)
def test_a_last_batch_of_less_than_two_images_a_part_joins_the_one_before_it(n, batch_size, accumulate, sizes):
    assert [len(labels) for _, labels in loader(n, batch_size, accumulate)] == sizes


def test_an_image_is_augmented_equally_in_a_whole_batch_and_in_parts():
    steps = Augment({"flip": RandomHorizontalFlip(), "erase": RandomErasing(mean=[0.5])})
    parts = list(loader(48, 12, 4, augment=steps))
    for number, (x, y) in enumerate(loader(48, 12, augment=steps)):
        together = [torch.cat(some) for some in zip(*parts[4 * number : 4 * number + 4], strict=True)]
        assert torch.equal(together[0], x)
        assert torch.equal(together[1], y)


# ---- numbers ---------------------------------------------------------------------------------------------------------


@settings(max_examples=40, deadline=None)
@given(n=st.integers(1, 90), **PARTS)
def test_a_pass_has_accumulate_parts_for_each_step(n, ranks, accumulate, of_a_part):
    own = loader(n, ranks * accumulate * of_a_part, accumulate, world_size=ranks)
    assert len(own) == len(list(own)) == own.plan.steps(n) * accumulate


@pytest.mark.parametrize("accumulate", [1, 2, 4, 8])
def test_the_number_of_steps_does_not_depend_on_the_parts_where_no_batch_joins(accumulate):
    assert [loader(n, 16, accumulate).plan.steps(n) for n in (16, 32, 48, 160)] == [1, 2, 3, 10]


# ---- weights ---------------------------------------------------------------------------------------------------------


@settings(max_examples=40, deadline=None)
@given(n=st.integers(1, 90), **PARTS)
def test_the_weights_of_a_batch_are_one_on_average(n, ranks, accumulate, of_a_part):
    assume(n >= ranks * accumulate)
    for batch in batches(n, ranks, accumulate, of_a_part):
        assert np.mean([weight for _, weight in batch]) == pytest.approx(1, rel=1e-12)


@settings(max_examples=40, deadline=None)
@given(n=st.integers(1, 90), **PARTS)
def test_the_weighted_means_of_parts_have_the_mean_of_the_batch(n, ranks, accumulate, of_a_part):
    assume(n >= ranks * accumulate)
    for batch in batches(n, ranks, accumulate, of_a_part):
        expected = np.mean([label for part, _ in batch for label in part])
        assert np.mean([np.mean(part) * weight for part, weight in batch]) == pytest.approx(expected)


def test_a_part_has_the_weight_of_its_images():
    assert [loader(31, 12, 3).weight(number) for number in range(9)] == [1] * 6 + [6 / 7, 6 / 7, 9 / 7]


def test_equal_parts_have_the_weight_one_exactly():
    own = loader(60, 12, 3)
    assert {own.weight(number) for number in range(len(own))} == {1.0}


# ---- seeking ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("n", "part"), [(24, 0), (24, 5), (27, 1), (27, 6), (31, 2), (31, 6)])
def test_seek_continues_with_the_next_part(n, part):
    whole = loader(n, 8, 2)
    passes = [list(whole) for _ in range(3)]
    resumed = loader(n, 8, 2)
    resumed.seek(1, part)
    for found, expected in ((list(resumed), passes[1][part:]), (list(resumed), passes[2])):
        assert len(found) == len(expected)
        for one, other in zip(found, expected, strict=True):
            assert torch.equal(one[0], other[0])
            assert torch.equal(one[1], other[1])


# ---- from a config ---------------------------------------------------------------------------------------------------

SET = ["data=synthetic", "data.image_size=8", "data.val_size=20", "data.test_size=20", "model=simplecnn"]


def test_training_batches_are_cut_into_parts_and_scoring_batches_are_smaller():
    data = build_data(compose([*SET, "data.train_size=40", "batch_size=20", "accumulate=4"]))
    data.setup("fit")
    assert [len(labels) for _, labels in data.train_dataloader()] == [5] * 8
    assert [len(labels) for _, labels in data.val_dataloader()] == [10, 10]


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        ("accumulate=0", "accumulate=0: expected an integer above 0; for instance accumulate=2"),
        ("accumulate=1.5", "accumulate=1.5: expected an integer above 0"),
        ("batch_size=10 accumulate=4", "cannot be shared evenly by accumulate=4; type batch_size=8 or batch_size=12"),
        ("batch_size=8 accumulate=16", "cannot be shared evenly by accumulate=16; type batch_size=16"),
        ("data.train_size=7 batch_size=16 accumulate=8", "accumulate=8: 7 train images cannot be cut into 8 parts"),
    ],
)
def test_an_impossible_number_of_parts_is_one_clear_line(keys, message):
    with pytest.raises(ConfigError) as raised:
        prepare(compose([*SET, "data.train_size=40", *keys.split()]))
    assert message in str(raised.value)
    assert "\n" not in str(raised.value)


def test_as_many_parts_as_images_are_allowed():
    assert prepare(compose([*SET, "data.train_size=8", "batch_size=8", "accumulate=8"])).config.accumulate == 8
