"""Images and their loader, against NumPy, PIL and counts by hand."""

from __future__ import annotations

import time

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from cnnbench.augment.functional import resize
from cnnbench.data.loader import BatchPlan, Images, Loader, Normalization

LENGTHS = [(1, 1), (1, 4), (5, 4), (9, 2), (33, 8), (17, 50)]  # images, batch size


def numbered(n: int, channels: int = 1, side: int = 2) -> Images:
    """Images with the labels 0, 1, 2, ... and random pixels."""
    pixels = np.random.default_rng(n).integers(0, 256, (n, channels, side, side), dtype=np.uint8)
    return Images(torch.from_numpy(pixels), torch.arange(n))


def shuffled(n: int, batch_size: int, seed: int = 0, **shape: int) -> Loader:
    images = numbered(n, **shape)
    channels = images.pixels.shape[1]
    return Loader(images, BatchPlan(batch_size, seed=seed), Normalization([0.5] * channels, [0.25] * channels))


def in_order(n: int, batch_size: int) -> Loader:
    return Loader(numbered(n), BatchPlan(batch_size), Normalization([0.5], [0.25]))


def labels_of(batches) -> list[int]:
    return [int(label) for _, labels in batches for label in labels]


def same(one, other) -> bool:
    """Whether two lists of batches are equal bit for bit."""
    return len(one) == len(other) and all(
        torch.equal(x, u) and torch.equal(y, v) for (x, y), (u, v) in zip(one, other, strict=True)
    )


# ---- images ----------------------------------------------------------------------------------------------------------


def test_select_returns_images_in_the_given_order():
    images = numbered(10)
    chosen = images.select(np.array([7, 0, 3]))
    assert chosen.labels.tolist() == [7, 0, 3]
    assert torch.equal(chosen.pixels, torch.stack([images.pixels[7], images.pixels[0], images.pixels[3]]))


def test_select_copies():
    images = numbered(4)
    before = images.pixels.clone()
    images.select(np.arange(4)).pixels.zero_()
    assert torch.equal(images.pixels, before)


def test_there_are_as_many_images_as_labels():
    assert len(numbered(7)) == 7


def pil_resized(pixels: torch.Tensor, side: int) -> np.ndarray:
    """(N, C, H, W) -> (N, C, side, side), each image by PIL."""
    resized = []
    for image in pixels.numpy():
        picture = Image.fromarray(image[0] if len(image) == 1 else image.transpose(1, 2, 0))
        array = np.asarray(picture.resize((side, side), Image.Resampling.BILINEAR))
        resized.append(array[None] if array.ndim == 2 else array.transpose(2, 0, 1))
    return np.stack(resized)


@pytest.mark.parametrize(
    ("side", "wanted", "channels"), [(28, 32, 1), (28, 14, 3), (32, 96, 3), (32, 7, 1), (28, 224, 3), (5, 2, 1)]
)
def test_a_resized_image_is_that_of_pil_to_within_one_grey_level(side, wanted, channels):
    pixels = numbered(5, channels, side).pixels
    ours = resize(pixels, wanted).numpy().astype(int)
    assert np.abs(ours - pil_resized(pixels, wanted)).max() <= 1


def test_resizing_differs_from_pil_in_few_pixels():
    pixels = numbered(20, 3, 28).pixels
    assert (resize(pixels, 32).numpy() == pil_resized(pixels, 32)).mean() > 0.99


def test_a_resized_image_of_one_grey_stays_that_grey():
    for grey in (0, 1, 127, 254, 255):
        assert (resize(torch.full((1, 1, 28, 28), grey, dtype=torch.uint8), 45) == grey).all()


def test_an_image_is_resized_equally_alone_and_among_thousands():
    pixels = numbered(1100, 1, 6).pixels
    together = resize(pixels, 9)
    assert together.shape == (1100, 1, 9, 9)
    assert together.dtype == torch.uint8
    for number in (0, 1023, 1024, 1099):
        assert torch.equal(together[number], resize(pixels[number : number + 1], 9)[0])


def test_images_of_the_wanted_size_are_not_changed():
    images = numbered(3, 1, 28)
    assert torch.equal(resize(images.pixels, 28), images.pixels)


# ---- normalisation ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("mean", "std"), [([0.1307], [0.3081]), ([0.5], [0.5]), ([0.0], [1.0]), ([0.49, 0.48, 0.45], [0.25, 0.2, 0.02])]
)
def test_a_pixel_is_normalised_by_255_mean_and_deviation(mean, std):
    images = numbered(9, len(mean), 6)
    batch, _ = next(iter(Loader(images, BatchPlan(9), Normalization(mean, std))))
    column = (1, -1, 1, 1)
    expected = (images.pixels.numpy() / 255 - np.reshape(mean, column)) / np.reshape(std, column)
    np.testing.assert_allclose(batch.numpy(), expected, rtol=0, atol=1e-6 / min(std))


def test_mean_and_deviation_of_a_half_map_pixels_to_minus_one_and_one():
    images = Images(torch.tensor([0, 255], dtype=torch.uint8).view(2, 1, 1, 1), torch.arange(2))
    batch, _ = next(iter(Loader(images, BatchPlan(2), Normalization([0.5], [0.5]))))
    np.testing.assert_allclose(batch.flatten().numpy(), [-1, 1], rtol=0, atol=1e-6)


def test_images_are_float32_and_labels_int64():
    for loader in (shuffled(5, 2), in_order(5, 2)):
        for images, labels in loader:
            assert (images.dtype, labels.dtype) == (torch.float32, torch.int64)


def test_a_batch_has_the_shape_of_its_images():
    images, labels = next(iter(shuffled(10, 4, channels=3, side=5)))
    assert (tuple(images.shape), tuple(labels.shape)) == ((4, 3, 5, 5), (4,))


def test_an_image_stays_with_its_label():
    loader = shuffled(40, 7, channels=2, side=3)
    for images, labels in loader:
        expected = (loader.images.pixels[labels].numpy() / 255 - 0.5) / 0.25
        np.testing.assert_allclose(images.numpy(), expected, rtol=0, atol=1e-5)


def test_a_pass_does_not_change_the_stored_images():
    for loader in (shuffled(10, 4), in_order(10, 4)):
        before = loader.images.pixels.clone()
        for images, _ in loader:
            images.zero_()
        assert torch.equal(loader.images.pixels, before)
        assert loader.images.pixels.dtype == torch.uint8


# ---- number of batches -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("make", [shuffled, in_order])
@pytest.mark.parametrize(("n", "batch_size"), LENGTHS)
def test_the_length_is_the_number_of_batches_of_a_pass(n, batch_size, make):
    loader = make(n, batch_size)
    assert len(loader) == len(list(loader))


@pytest.mark.parametrize(
    ("n", "batch_size", "sizes"),
    [
        (12, 4, [4, 4, 4]),
        (14, 4, [4, 4, 4, 2]),
        (13, 4, [4, 4, 5]),
        (5, 4, [5]),
        (3, 4, [3]),
        (1, 4, [1]),
        (3, 2, [3]),
        (3, 1, [1, 1, 1]),
    ],
)
def test_a_shuffled_last_batch_of_one_image_joins_the_one_before_it(n, batch_size, sizes):
    assert [len(labels) for _, labels in shuffled(n, batch_size)] == sizes


@pytest.mark.parametrize(("n", "batch_size", "sizes"), [(12, 4, [4, 4, 4]), (13, 4, [4, 4, 4, 1]), (1, 4, [1])])
def test_batches_for_scoring_are_never_joined(n, batch_size, sizes):
    assert [len(labels) for _, labels in in_order(n, batch_size)] == sizes


@pytest.mark.parametrize("make", [shuffled, in_order])
@given(n=st.integers(1, 70), batch_size=st.integers(1, 40))
@settings(max_examples=60, deadline=None)
def test_every_image_occurs_exactly_once_in_a_pass(make, n, batch_size):
    assert sorted(labels_of(make(n, batch_size))) == list(range(n))


@given(n=st.integers(2, 70), batch_size=st.integers(2, 40))
@settings(max_examples=60, deadline=None)
def test_no_shuffled_batch_has_a_single_image(n, batch_size):
    assert min(len(labels) for _, labels in shuffled(n, batch_size)) > 1


# ---- the order of images ---------------------------------------------------------------------------------------------


def test_without_a_seed_images_come_in_the_stored_order_each_time():
    loader = in_order(11, 4)
    assert labels_of(loader) == list(range(11))
    assert labels_of(loader) == list(range(11))


def test_without_a_seed_there_is_no_order():
    assert in_order(11, 4).order(0) is None


@given(n=st.integers(1, 200), seed=st.integers(0, 2**32 - 1), epoch=st.integers(0, 10**6))
@settings(max_examples=60, deadline=None)
def test_an_order_is_a_permutation(n, seed, epoch):
    assert sorted(shuffled(n, 4, seed).order(epoch)) == list(range(n))


def test_orders_differ_by_epoch_and_by_seed():
    orders = {tuple(shuffled(50, 4, seed).order(epoch)) for seed in range(6) for epoch in range(6)}
    assert len(orders) == 36


def test_an_order_depends_on_seed_and_epoch_only():
    used = shuffled(50, 4, seed=3)
    for _ in range(2):
        list(used)
    torch.manual_seed(1)
    np.random.seed(1)
    assert used.order(7).tolist() == shuffled(50, 9, seed=3, channels=3, side=4).order(7).tolist()


def test_the_batches_of_an_epoch_follow_its_order():
    loader = shuffled(50, 8, seed=3)
    assert [labels_of(loader) for _ in range(3)] == [loader.order(epoch).tolist() for epoch in range(3)]


def test_another_batch_size_takes_the_images_in_the_same_order():
    assert labels_of(shuffled(50, 4)) == labels_of(shuffled(50, 9))


def test_two_loaders_of_one_seed_give_the_same_batches():
    one, other = shuffled(30, 7), shuffled(30, 7)
    for _ in range(3):
        assert same(list(one), list(other))


def test_a_pass_does_not_use_global_generators():
    torch.manual_seed(5)
    np.random.seed(5)
    expected = torch.rand(1).item(), np.random.random()
    torch.manual_seed(5)
    np.random.seed(5)
    list(shuffled(30, 7))
    assert (torch.rand(1).item(), np.random.random()) == expected


def test_every_image_is_equally_likely_to_be_first():
    firsts = np.bincount([shuffled(10, 4, seed).order(epoch)[0] for seed in range(40) for epoch in range(50)])
    # binomial(2000, 1/10): mean 200, deviation 13.4; five deviations
    assert firsts.min() > 133
    assert firsts.max() < 267


# ---- seeking ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("n", "batch", "epoch"), [(24, 0, 0), (24, 3, 2), (24, 6, 0), (25, 5, 2), (27, 6, 2), (27, 1, 0)]
)
def test_seek_continues_with_the_next_batch(n, batch, epoch):
    whole = shuffled(n, 4, seed=9, channels=3)
    passes = [list(whole) for _ in range(epoch + 2)]
    resumed = shuffled(n, 4, seed=9, channels=3)
    resumed.seek(epoch, batch)
    assert same(list(resumed), passes[epoch][batch:])


@pytest.mark.parametrize("batch", [0, 2, 6])
def test_after_seek_the_following_pass_is_the_whole_next_epoch(batch):
    whole = shuffled(24, 4)
    passes = [list(whole) for _ in range(4)]
    resumed = shuffled(24, 4)
    resumed.seek(2, batch)
    list(resumed)
    assert same(list(resumed), passes[3])


def test_seek_also_works_in_the_stored_order():
    loader = in_order(10, 4)
    loader.seek(0, 1)
    assert labels_of(loader) == list(range(4, 10))


def test_seek_back_repeats_an_epoch():
    loader = shuffled(24, 4)
    first = list(loader)
    list(loader)
    loader.seek(0)
    assert same(list(loader), first)


@pytest.mark.parametrize("taken", [1, 3, 5])
def test_after_an_abandoned_pass_the_next_epoch_follows(taken):
    loader = shuffled(24, 4)
    abandoned = iter(loader)
    for _ in range(taken):
        next(abandoned)
    assert labels_of(loader) == loader.order(1).tolist()


def test_after_a_pass_that_is_not_exhausted_the_next_epoch_follows():
    loader = shuffled(24, 4)
    batches = iter(loader)
    for _ in range(len(loader)):
        next(batches)
    assert labels_of(loader) == loader.order(1).tolist()


def test_a_pass_keeps_its_order_while_another_one_runs():
    loader = shuffled(24, 4)
    slow = iter(loader)
    begun = [next(slow)]
    list(loader)
    assert labels_of([*begun, *slow]) == loader.order(0).tolist()


def test_the_length_is_that_of_a_whole_pass_after_seek():
    loader = shuffled(24, 4)
    loader.seek(3, 5)
    assert len(loader) == 6


def test_waited_s_grows_with_each_pass_and_is_less_than_its_duration():
    loader = shuffled(200, 4, side=28)
    begun = time.perf_counter()
    list(loader)
    first = loader.waited_s
    list(loader)
    assert 0 < first < loader.waited_s < time.perf_counter() - begun


def test_waited_s_excludes_the_time_between_batches():
    loader = shuffled(4, 2)
    for _ in loader:
        time.sleep(0.05)
    assert loader.waited_s < 0.05
