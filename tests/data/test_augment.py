"""Random changes of training images: their distributions, their streams, and how `conf/augment` chooses them."""

from __future__ import annotations

import inspect
import itertools
import random
import re
from functools import cache

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats
from torch import Tensor
from torchvision import transforms
from torchvision.transforms import InterpolationMode
from torchvision.transforms import functional as one

from cnnbench.build import locate
from cnnbench.compose import compose, groups
from cnnbench.config import Config
from cnnbench.data.augment import Augment, Step
from cnnbench.data.base import ImageData
from cnnbench.data.changes import (
    RandomBrightness,
    RandomContrast,
    RandomErasing,
    RandomHorizontalFlip,
    RandomRotation,
    RandomVerticalFlip,
)
from cnnbench.data.crops import CenterCrop, Pad, RandomCrop, RandomResizedCrop, Resize, ScaleJitter, random_boxes
from cnnbench.data.store import Images, Loader
from cnnbench.errors import ConfigError
from cnnbench.prepare import build_augment, build_data, check_augment, prepare

IMPOSSIBLE = 1e-6  # a smaller p-value is no accident; the seeds are fixed
GREY = [0.5, 0.25, 0.75]

# steps that take 3 × 32 × 32
RANDOM = {
    "crop": RandomCrop(4, image_size=32),
    "scale_jitter": ScaleJitter((40, 60), None, image_size=32),
    "resized_crop": RandomResizedCrop(image_size=32),
    "flip": RandomHorizontalFlip(),
    "flip_vertical": RandomVerticalFlip(),
    "rotate": RandomRotation(30),
    "rotate_list": RandomRotation(None, [30, 90, 180]),
    "rotate_nearest": RandomRotation([-180, 180], interpolation="nearest"),
    "erase": RandomErasing(mean=GREY),
    "brightness": RandomBrightness(0.4),
    "contrast": RandomContrast(0.4),
}
STEPS = RANDOM | {"centre": CenterCrop(image_size=28), "pad": Pad(), "scale": Resize(40, image_size=32)}
CHOICES = sorted(groups()["augment"])

every_step = pytest.mark.parametrize("name", STEPS)
every_random_step = pytest.mark.parametrize("name", RANDOM)
every_choice = pytest.mark.parametrize("choice", CHOICES)


def pictures(n: int, channels: int = 3, side: int = 32, seed: int = 0) -> Tensor:
    pixels = np.random.default_rng([seed, n]).integers(0, 256, (n, channels, side, side), dtype=np.uint8)
    return torch.from_numpy(pixels)


def addresses(n: int, height: int, width: int) -> Tensor:
    """(n, 2, height, width) uint8: the row and the column of each pixel, counted from one."""
    y, x = torch.meshgrid(torch.arange(1, height + 1), torch.arange(1, width + 1), indexing="ij")
    return torch.stack([y, x]).to(torch.uint8).expand(n, -1, -1, -1)


def changed(steps, images: Tensor, seed: int = 0, epoch: int = 0, batch: int = 0) -> Tensor:
    """A whole batch, changed by steps by name, or by one of `STEPS`."""
    steps = {steps: STEPS[steps]} if isinstance(steps, str) else steps
    return Augment(steps)(images, seed, epoch, batch, slice(0, len(images)), len(images))


def drawn(step: Step, n: int, height: int = 32, width: int | None = None, seed: int = 0) -> tuple[np.ndarray, ...]:
    return step.draw(np.random.default_rng(seed), n, height, width or height)


def is_uniform_over(values: np.ndarray, cells: int) -> bool:
    """Whether integers are as often each of 0 to cells - 1."""
    counts = np.bincount(values, minlength=cells)
    return len(counts) == cells and (cells == 1 or stats.chisquare(counts).pvalue > IMPOSSIBLE)


def is_uniform_between(values: np.ndarray, low: float, high: float) -> bool:
    return stats.kstest(values, stats.uniform(low, high - low).cdf).pvalue > IMPOSSIBLE


def are_alike(ours, theirs) -> bool:
    return stats.ks_2samp(ours, theirs).pvalue > IMPOSSIBLE


def are_independent(one_way: np.ndarray, other: np.ndarray) -> bool:
    """Whether two sequences of small integers know nothing of each other."""
    table = stats.contingency.crosstab(one_way, other).count
    return min(table.shape) > 1 and stats.chi2_contingency(table, correction=False).pvalue > IMPOSSIBLE


def spread(corner: np.ndarray, room: np.ndarray, seed: int = 1) -> np.ndarray:
    """Integers of 0 to room as numbers of 0 to 1, which are uniform where the integers are, whatever their rooms."""
    return (corner + np.random.default_rng(seed).random(len(corner))) / (room + 1)


# ---- how often -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("padding", "side", "image_size"), [(4, 32, 32), (1, 16, 16), (0, 24, 16), (3, 20, 22), (2, 9, 9)]
)
def test_a_crop_lies_at_every_place_alike(padding, side, image_size):
    places = side + 2 * padding - image_size + 1
    n = 100 * places**2
    cut = changed({"crop": RandomCrop(padding, image_size=image_size)}, addresses(n, side, side))
    assert cut.shape == (n, 2, image_size, image_size)
    middle = image_size // 2
    top, left = (cut[:, axis, middle, middle].numpy().astype(int) - 1 - middle + padding for axis in (0, 1))
    assert is_uniform_over(top * places + left, places**2)


def test_a_crop_of_an_oblong_image_lies_at_every_place_alike():
    top, left = drawn(RandomCrop(1, image_size=6), 20_000, 8, 5)
    assert is_uniform_over(top, 5)
    assert is_uniform_over(left, 2)
    assert are_independent(top, left)


@pytest.mark.parametrize(("step", "axis"), [(RandomHorizontalFlip, 1), (RandomVerticalFlip, 0)])
@pytest.mark.parametrize("p", [0, 0.1, 0.5, 0.9, 1])
def test_the_share_p_of_images_is_flipped(step, axis, p):
    n = 20_000
    images = addresses(n, 2, 2)
    flipped = changed({"flip": step(p)}, images)
    mirrored = (flipped == images.flip(2 + axis)).flatten(1).all(dim=1)
    kept = (flipped == images).flatten(1).all(dim=1)
    assert (mirrored ^ kept).all()
    assert stats.binomtest(int(mirrored.sum()), n, p).pvalue > IMPOSSIBLE


@pytest.mark.parametrize(
    ("degrees", "low", "high"),
    [(15, -15, 15), (-15, -15, 15), (0.5, -0.5, 0.5), ([10, 20], 10, 20), ((-90, 0), -90, 0)],
)
def test_angles_are_uniform_over_their_range(degrees, low, high):
    (angles,) = drawn(RandomRotation(degrees), 20_000)
    assert low <= angles.min() <= angles.max() <= high
    assert is_uniform_between(angles, low, high)


@pytest.mark.parametrize("angles", [[30, 90, 180], [0.5], [-45, 45], list(range(0, 360, 30))])
def test_each_angle_of_a_list_is_as_likely(angles):
    (degrees,) = drawn(RandomRotation(None, angles), 20_000)
    assert set(degrees) == set(angles)
    assert is_uniform_over(np.searchsorted(sorted(angles), degrees), len(angles))


def test_an_image_is_turned_by_the_angles_of_the_list_and_no_others():
    images = pictures(60)
    turned = changed("rotate_list", images)
    candidates = torch.stack([one.rotate(images.float(), angle, InterpolationMode.BILINEAR) for angle in (30, 90, 180)])
    distances = (candidates - turned).abs().amax(dim=(2, 3, 4))
    assert distances.amin(dim=0).max() < 0.01
    assert set(distances.argmin(dim=0).tolist()) == {0, 1, 2}


BOXES = [
    (32, 32, (0.08, 1.0), (3 / 4, 4 / 3)),
    (224, 224, (0.08, 1.0), (3 / 4, 4 / 3)),
    (64, 200, (0.3, 1.0), (3 / 4, 4 / 3)),
    (120, 90, (0.5, 0.5), (0.2, 5.0)),
    (100, 100, (0.1, 0.4), (2.0, 3.0)),
]


@pytest.mark.parametrize(("height", "width", "scale", "ratio"), BOXES)
def test_resized_crops_have_the_areas_shapes_and_places_of_torchvisions(height, width, scale, ratio):
    top, left, h, w = drawn(RandomResizedCrop(scale, ratio, image_size=32), 6000, height, width)
    torch.manual_seed(0)
    image = torch.empty(3, height, width)
    theirs = np.array([transforms.RandomResizedCrop.get_params(image, list(scale), list(ratio)) for _ in range(3000)]).T
    assert are_alike(h * w, theirs[2] * theirs[3])
    assert are_alike(w / h, theirs[3] / theirs[2])
    assert are_alike(top, theirs[0])
    assert are_alike(left, theirs[1])


@pytest.mark.parametrize(("height", "width", "scale", "ratio"), BOXES[:2])
def test_a_resized_crop_lies_anywhere_in_its_room(height, width, scale, ratio):
    top, left, h, w = drawn(RandomResizedCrop(scale, ratio, image_size=32), 20_000, height, width)
    assert is_uniform_between(spread(top, height - h), 0, 1)
    assert is_uniform_between(spread(left, width - w), 0, 1)


@pytest.mark.parametrize(
    ("height", "width", "scale", "ratio"),
    [
        (10, 100, (1, 1), (0.75, 4 / 3)),
        (100, 10, (1, 1), (0.75, 4 / 3)),
        (37, 90, (1, 1), (0.5, 2.0)),
        (91, 37, (0.99, 1), (0.5, 1.1)),
        (32, 32, (0.9, 1), (2, 3)),
        (33, 33, (0.9, 1), (0.3, 0.4)),
    ],
)
def test_where_no_box_fits_the_crop_is_the_middle_one_of_torchvision(height, width, scale, ratio):
    boxes = drawn(RandomResizedCrop(scale, ratio, image_size=8), 50, height, width)
    image = torch.empty(1, height, width)
    expected = transforms.RandomResizedCrop.get_params(image, list(scale), list(ratio))
    for values, value in zip(boxes, expected, strict=True):
        assert set(values.tolist()) == {value}


@given(
    height=st.integers(1, 60),
    width=st.integers(1, 60),
    scale=st.tuples(st.floats(0.01, 1), st.floats(0.01, 1)).map(sorted),
    ratio=st.tuples(st.floats(0.2, 5), st.floats(0.2, 5)).map(sorted),
)
@settings(max_examples=60, deadline=None)
def test_every_box_lies_in_the_image(height, width, scale, ratio):
    top, left, h, w = drawn(RandomResizedCrop(scale, ratio, image_size=8), 20, height, width)
    assert min(top.min(), left.min()) >= 0
    assert (top + h).max() <= height
    assert (left + w).max() <= width
    top, left, h, w = drawn(RandomErasing(1, scale, ratio, mean=[0]), 20, height, width)
    assert min(top.min(), left.min(), h.min(), w.min()) >= 0
    assert (top + h).max() <= height
    assert (left + w).max() <= width


@pytest.mark.parametrize("ratio", [(60, 100), (1e-3, 1e-2)])
def test_a_shape_of_which_no_box_fits_still_gives_pixels(ratio):
    cropped = changed({"crop": RandomResizedCrop(ratio=ratio, image_size=32)}, pictures(8, 1, 28))
    assert cropped.isfinite().all()


@pytest.mark.parametrize(("low", "high", "side"), [(40, 60, 32), (37, 73, 32), (32, 32, 32), (5, 6, 5)])
def test_every_scale_from_the_first_to_the_last_is_as_likely(low, high, side):
    scaled, _, _ = drawn(ScaleJitter((low, high), None, image_size=side), 30_000)
    assert is_uniform_over(scaled - low, high - low + 1)
    assert (scaled.min(), scaled.max()) == (low, high)


@pytest.mark.parametrize(("low", "high"), [(32, 48), (40, 44)])
def test_a_window_lies_anywhere_in_its_scaled_image(low, high):
    scaled, top, left = drawn(ScaleJitter((low, high), None, image_size=32), 60_000)
    for size in (low, low + 1, high):
        of_this_size = scaled == size
        places = size - 32 + 1
        assert is_uniform_over((top * places + left)[of_this_size], places**2)


def test_erased_boxes_have_the_areas_and_shapes_of_torchvisions():
    scale, ratio = (0.02, 0.33), (0.3, 1 / 0.3)
    _, _, h, w = drawn(RandomErasing(1, scale, ratio, mean=[0]), 6000, 100)
    torch.manual_seed(0)
    image = torch.empty(1, 100, 100)
    theirs = [transforms.RandomErasing.get_params(image, scale, ratio, [0.0])[2:4] for _ in range(3000)]
    theirs = np.array(theirs).T
    assert are_alike(h * w, theirs[0] * theirs[1])
    assert are_alike(w / h, theirs[1] / theirs[0])


def test_an_erased_box_lies_anywhere_in_its_room():
    top, left, h, w = drawn(RandomErasing(1, mean=[0]), 20_000, 100, 80)
    assert is_uniform_between(spread(top, 100 - h), 0, 1)
    assert is_uniform_between(spread(left, 80 - w), 0, 1)


def test_the_ratio_of_erased_boxes_is_width_over_height():
    _, _, h, w = drawn(RandomErasing(1, (0.02, 0.1), (2, 3), mean=[0]), 2000, 224)
    assert 1.9 < (w / h).min() < 2.1
    assert 2.9 < (w / h).max() < 3.1


@pytest.mark.parametrize("p", [0, 0.25, 0.5, 1])
def test_the_share_p_of_images_is_erased_in_part(p):
    n = 4000
    images = torch.zeros(n, 3, 16, 16, dtype=torch.uint8)
    erased = changed({"erase": RandomErasing(p, mean=GREY)}, images).flatten(1).any(dim=1)
    assert stats.binomtest(int(erased.sum()), n, p).pvalue > IMPOSSIBLE


def test_as_few_boxes_fit_as_torchvisions_do():
    scale, ratio = (0.9, 1.0), (0.5, 2.0)
    _, _, fits = random_boxes(np.random.default_rng(0), 4000, 30, 30, scale, ratio, smaller=True)
    torch.manual_seed(0)
    image = torch.empty(1, 30, 30)
    theirs = [
        transforms.RandomErasing.get_params(image, scale, ratio, [0.0])[2:4] != (30, 30)  # the whole image: none
        for _ in range(1500)
    ]
    table = [[fits.sum(), (~fits).sum()], [sum(theirs), 1500 - sum(theirs)]]
    assert 0.05 < fits.mean() < 0.95
    assert stats.chi2_contingency(table).pvalue > IMPOSSIBLE


@pytest.mark.parametrize("step", [RandomBrightness, RandomContrast])
@pytest.mark.parametrize(("amount", "low", "high"), [(0.2, 0.8, 1.2), (1, 0, 2), (0.01, 0.99, 1.01), (3, 0, 4)])
def test_factors_are_uniform_around_one_and_never_negative(step, amount, low, high):
    (factors,) = drawn(step(amount), 20_000)
    assert low <= factors.min() <= factors.max() <= high
    assert is_uniform_between(factors, low, high)


@pytest.mark.parametrize("step", [RandomBrightness, RandomContrast])
def test_an_amount_of_zero_changes_no_light(step):
    images = pictures(20)
    assert torch.equal(changed({"light": step(0)}, images), images.float())


def test_brightness_reaches_the_pixels_of_each_image_on_its_own():
    changed_images = changed("brightness", torch.full((5000, 1, 2, 2), 100, dtype=torch.uint8))
    factors = changed_images / 100
    assert (factors.amax(dim=(1, 2, 3)) == factors.amin(dim=(1, 2, 3))).all()
    assert is_uniform_between(factors[:, 0, 0, 0].double().numpy(), 0.6, 1.4)


# ---- parameters to pixels --------------------------------------------------------------------------------------------

BILINEAR = InterpolationMode.BILINEAR
TORCHVISION = {
    "crop": lambda x, top, left: one.crop(one.pad(x, [4]), top, left, 32, 32),
    "scale_jitter": lambda x, s, y, x0: one.crop(one.resize(x, [s, s], BILINEAR, antialias=True), y, x0, 32, 32),
    "resized_crop": lambda x, *box: one.resized_crop(x, *box, [32, 32], BILINEAR, antialias=True),
    "flip": lambda x, which: one.hflip(x) if which else x,
    "flip_vertical": lambda x, which: one.vflip(x) if which else x,
    "rotate": lambda x, angle: one.rotate(x, angle, BILINEAR),
    "rotate_list": lambda x, angle: one.rotate(x, angle, BILINEAR),
    "rotate_nearest": lambda x, angle: one.rotate(x, angle, InterpolationMode.NEAREST),
    "erase": lambda x, *box: one.erase(x, *box, torch.tensor([128.0, 64.0, 191.0]).view(3, 1, 1)),
    "brightness": lambda x, factor: 255 * one.adjust_brightness(x / 255, factor),
    "contrast": lambda x, factor: 255 * one.adjust_contrast(x / 255, factor),
    "centre": lambda x: one.center_crop(x, [28, 28]),
    "pad": lambda x: one.pad(x, [4]),
    "scale": lambda x, side: one.resize(x, [side, side], BILINEAR, antialias=True),
}


@every_step
def test_a_step_does_to_each_image_what_torchvision_does_with_its_parameters(name):
    images, draws = pictures(20), drawn(STEPS[name], 20)
    expected = [
        TORCHVISION[name](image, *(values[number].item() for values in draws))
        for number, image in enumerate(images.float())
    ]
    ours = STEPS[name].apply(images, tuple(map(torch.from_numpy, draws)))
    assert (ours - torch.stack(expected)).abs().max() < 0.01


@every_step
def test_a_step_leaves_the_images_that_it_is_given_alone(name):
    images = pictures(12)
    before = images.clone()
    changed(name, images)
    assert torch.equal(images, before)


def test_the_colour_of_an_erased_box_is_the_mean_of_the_data():
    erased = changed({"erase": RandomErasing(1, mean=GREY)}, torch.full((50, 3, 16, 16), 255, dtype=torch.uint8))
    colours = erased.permute(0, 2, 3, 1).flatten(0, 2).unique(dim=0)
    assert colours.tolist() == [[128, 64, 191], [255, 255, 255]]


def test_an_erased_box_is_zero_to_the_net():
    images = Images(torch.full((64, 3, 32, 32), 255, dtype=torch.uint8), torch.arange(64))
    augment = Augment({"erase": RandomErasing(1, mean=GREY)})
    batch, _ = next(iter(Loader(images, 64, GREY, [0.25] * 3, shuffle_seed=0, augment=augment)))
    white = (1 - torch.tensor(GREY).view(3, 1, 1)) / 0.25
    box = (batch - white).abs().amax(dim=1) > 1e-4
    assert box.flatten(1).any(dim=1).all()
    assert batch.movedim(1, -1)[box].abs().max() <= 0.5 / 255 / 0.25 + 1e-5


def test_an_augmentation_takes_its_steps_in_their_order():
    images = torch.full((4, 1, 4, 4), 100, dtype=torch.uint8)
    assert changed({"pad": Pad(2), "middle": CenterCrop(image_size=4)}, images).shape[-1] == 4
    assert changed({"middle": CenterCrop(image_size=4), "pad": Pad(2)}, images).shape[-1] == 8


def test_without_steps_images_are_as_they_were():
    images = pictures(4)
    assert torch.equal(changed({}, images), images)


# ---- each image on its own -------------------------------------------------------------------------------------------


@cache
def flips(batches: int = 3000) -> np.ndarray:
    """(batches, 4) 0 or 1: which images of each batch a flip mirrored."""
    images = addresses(4, 1, 2)
    augment = Augment({"flip": RandomHorizontalFlip()})
    mirrored = [augment(images, 7, 0, batch, slice(0, 4), 4)[:, 1, 0, 0] == 2 for batch in range(batches)]
    return torch.stack(mirrored).numpy().astype(int)


@pytest.mark.parametrize("image", range(4))
def test_an_image_in_any_place_of_a_batch_is_flipped_half_of_the_time(image):
    assert stats.binomtest(int(flips()[:, image].sum()), len(flips())).pvalue > IMPOSSIBLE


@pytest.mark.parametrize(("one_image", "other"), itertools.combinations(range(4), 2))
def test_two_images_of_a_batch_are_flipped_alike_half_of_the_time(one_image, other):
    alike = int((flips()[:, one_image] == flips()[:, other]).sum())
    assert stats.binomtest(alike, len(flips())).pvalue > IMPOSSIBLE


@pytest.mark.parametrize("image", range(4))
def test_a_batch_does_not_tell_the_flips_of_the_next(image):
    assert are_independent(flips()[:-1, image], flips()[1:, image])


@pytest.mark.parametrize("what", ["seed", "epoch"])
def test_a_seed_or_an_epoch_does_not_tell_the_flips_of_the_next(what):
    flipped = [
        (changed("flip", addresses(16, 1, 2), **{what: number})[:, 1, 0, 0] == 2).numpy() for number in range(400)
    ]
    assert are_independent(np.array(flipped)[:-1].ravel(), np.array(flipped)[1:].ravel())


def test_two_images_of_a_batch_are_cut_at_places_of_their_own():
    images = addresses(2, 4, 4)
    augment = Augment({"crop": RandomCrop(1, image_size=4)})
    cut = torch.stack([augment(images, 3, 0, batch, slice(0, 2), 2)[:, :, 1, 1] for batch in range(3000)]).numpy()
    place = cut[..., 0].astype(int) * 3 + cut[..., 1]
    assert len(set(place[:, 0])) == 9
    assert are_independent(place[:, 0], place[:, 1])


@pytest.mark.parametrize("n", [2, 16, 256])
@every_random_step
def test_the_parameters_of_a_batch_are_not_shared_by_its_images(name, n):
    same = pictures(1).expand(n, -1, -1, -1)
    distinct = [len(changed(name, same, batch=batch).unique(dim=0)) for batch in range(12 if n == 2 else 1)]
    assert max(distinct) > 1


@pytest.mark.parametrize(
    ("one_name", "other"), [("flip", "flip_vertical"), ("brightness", "contrast"), ("rotate", "rotate_nearest")]
)
def test_two_steps_draw_apart(one_name, other):
    seen = {}

    class Spy(Step):
        def __init__(self, name):
            self.name = name

        def draw(self, random, n, height, width):
            seen[self.name] = STEPS[self.name].draw(random, n, height, width)[0]
            return (seen[self.name],)

        def apply(self, images, draws):
            return images

    changed({name: Spy(name) for name in (one_name, other)}, torch.zeros(4000, 1, 1, 1))
    ranks = (stats.rankdata(seen[name], "average") for name in (one_name, other))
    assert stats.pearsonr(*ranks).pvalue > IMPOSSIBLE


# ---- streams ---------------------------------------------------------------------------------------------------------


@every_step
def test_a_batch_is_a_function_of_seed_epoch_and_number(name):
    images = pictures(16)
    first = changed(name, images, seed=5, epoch=3, batch=2)
    changed(name, images, seed=6)
    torch.manual_seed(1)
    np.random.seed(1)
    assert torch.equal(changed(name, images, seed=5, epoch=3, batch=2), first)


@pytest.mark.parametrize("other", [{"seed": 1}, {"epoch": 1}, {"batch": 1}, {"seed": 2**32 - 1}, {"epoch": 10**6}])
@every_random_step
def test_another_seed_epoch_or_batch_is_changed_otherwise(name, other):
    images = pictures(16)
    assert not torch.equal(changed(name, images, **other), changed(name, images))


@every_random_step
def test_seed_epoch_and_batch_do_not_stand_for_each_other(name):
    images = pictures(16)
    results = [changed(name, images, *numbers) for numbers in set(itertools.permutations([0, 0, 1]))]
    assert all(not torch.equal(a, b) for a, b in itertools.combinations(results, 2))


@every_step
def test_steps_draw_nothing_from_the_global_generators(name):
    def states():
        return torch.get_rng_state().tolist(), str(np.random.get_state()), random.getstate()

    before = states()
    changed(name, pictures(4))
    assert states() == before


@pytest.mark.parametrize(
    ("first", "second"), itertools.permutations(["crop", "flip", "rotate", "erase", "contrast"], 2)
)
def test_a_step_draws_the_same_whichever_steps_there_are_besides(first, second):
    images = pictures(10)
    both = changed({first: STEPS[first], second: STEPS[second]}, images, 4, 1, 9)
    assert torch.equal(both, changed(second, changed(first, images, 4, 1, 9), 4, 1, 9))


def test_a_step_of_another_name_draws_otherwise():
    images = pictures(32)
    flip = RandomHorizontalFlip()
    assert not torch.equal(changed({"flip": flip}, images), changed({"mirror": flip}, images))


def parts(n: int, ranks: int) -> list[slice]:
    return [slice(n * rank // ranks, n * (rank + 1) // ranks) for rank in range(ranks)]


@pytest.mark.parametrize("ranks", [2, 3, 16])
@every_step
def test_the_parts_of_a_batch_are_changed_as_the_whole_is(name, ranks):
    images, augment = pictures(17), Augment({name: STEPS[name]})
    shares = [augment(images[part], 1, 2, 3, part, 17) for part in parts(17, ranks)]
    torch.testing.assert_close(torch.cat(shares), augment(images, 1, 2, 3, slice(0, 17), 17), rtol=0, atol=1e-3)


# ---- loaders ---------------------------------------------------------------------------------------------------------

SEVERAL = {name: RANDOM[name] for name in ("crop", "flip", "rotate", "erase", "brightness")}


def loader(n: int = 50, batch_size: int = 8, augment: Augment | None = None, **keys) -> Loader:
    images = Images(pictures(n), torch.arange(n))
    keys = {"shuffle_seed": 3} | keys
    return Loader(images, batch_size, GREY, [0.25] * 3, augment=augment or Augment(SEVERAL), **keys)


def same(one_way, other, atol: float = 0) -> bool:
    return len(one_way) == len(other) and all(
        torch.allclose(x, u, rtol=0, atol=atol) and torch.equal(y, v)
        for (x, y), (u, v) in zip(one_way, other, strict=True)
    )


@pytest.mark.parametrize("ranks", [1, 2, 3])
@pytest.mark.parametrize("n", [48, 54])
def test_all_ranks_together_get_the_batches_of_one(n, ranks):
    whole, shares = loader(n), [loader(n, rank=rank, ranks=ranks) for rank in range(ranks)]
    for _ in range(2):
        of_each = zip(*(list(share) for share in shares), strict=True)
        together = [tuple(map(torch.cat, zip(*batch, strict=True))) for batch in of_each]
        assert same(together, list(whole), atol=1e-4)


@pytest.mark.parametrize("batch", [0, 1, 4, 6])
@pytest.mark.parametrize("epoch", [0, 2])
def test_an_augmented_pass_that_was_sought_goes_on_with_the_very_next_batch(epoch, batch):
    whole = loader()
    passes = [list(whole) for _ in range(epoch + 2)]
    resumed = loader()
    resumed.seek(epoch, batch)
    assert same(list(resumed), passes[epoch][batch:])
    assert same(list(resumed), passes[epoch + 1])


@pytest.mark.parametrize("ranks", [1, 2])
def test_every_batch_of_every_pass_has_numbers_of_its_own(ranks):
    asked = []

    class Spy(Augment):
        def __call__(self, images, seed, epoch, batch, share, n):
            asked.append((seed, epoch, batch, share.stop - share.start, n))
            return images

    watched = loader(20, 8, augment=Spy({}), shuffle_seed=11, ranks=ranks)
    list(watched), list(watched)
    sizes = [(0, 8), (1, 8), (2, 4)]
    assert asked == [(11, epoch, number, n // ranks, n) for epoch in (0, 1) for number, n in sizes]


def test_each_pass_changes_an_image_anew():
    augmented = loader(batch_size=50)
    (first, labels), (second, others) = next(iter(augmented)), next(iter(augmented))
    alike = (first[labels.argsort()] == second[others.argsort()]).flatten(1).all(dim=1)
    assert alike.sum() == 0


def test_the_augmentation_changes_neither_the_order_nor_the_labels():
    augmented, plain = loader(), loader(augment=Augment({}))
    for _ in range(2):
        for (_, labels), (_, expected) in zip(augmented, plain, strict=True):
            assert torch.equal(labels, expected)


def test_an_augmented_image_stays_with_its_label():
    images = Images(torch.arange(200, dtype=torch.uint8).view(-1, 1, 1, 1).expand(-1, 3, 40, 40), torch.arange(200))
    augment = Augment({"flip": RandomHorizontalFlip(), "crop": RandomCrop(image_size=32)})
    for batch, labels in Loader(images, 16, [0.0] * 3, [1.0] * 3, shuffle_seed=1, augment=augment):
        torch.testing.assert_close(batch[:, 0, 5, 5] * 255, labels.float())


def test_an_augmented_pass_leaves_the_stored_images_alone():
    augmented = loader()
    before = augmented.images.source.clone()
    list(augmented)
    assert torch.equal(augmented.images.source, before)


def test_images_that_are_not_shuffled_are_not_augmented():
    assert same(list(loader(shuffle_seed=None)), list(loader(shuffle_seed=None, augment=Augment({}))))


# ---- conf/augment ----------------------------------------------------------------------------------------------------

COLOUR = ("data=synthetic", "data.channels=3", "data.image_size=32", "data.train_size=96", "data.val_size=32")
DIGITS = ("data=mnist5k", "data.train_size=96", "data.val_size=[96,128]")
SETS = {
    "digits of 28": (*DIGITS, "data.image_size=28"),
    "digits of 32": (*DIGITS, "data.image_size=32"),
    "colour of 32": COLOUR,
}
DEVIATING = {  # knobs that a file sets to other values than the class's own
    "basic": {"crop.padding": 4},
    "crop": {"crop.padding": 4},
    "notes": {"scale.side": 40, "scale.of": 32},
    "rotate_list": {"rotate.degrees": None, "rotate.angles": [30, 90, 180]},
}


@cache
def composed(*overrides: str) -> Config:
    return compose([*overrides, "threads=1", "data.test_size=32"])


def ready(choice: str, keys: tuple[str, ...]) -> ImageData:
    """A data set with its train and validation images, for one choice of `conf/augment`."""
    config = composed(*keys)
    data = build_data(config.model_copy(update={"augment": composed(f"augment={choice}").augment}))
    data.prepare_data()
    data.setup("fit")
    return data


def pixels_of(batch: Tensor, data: ImageData) -> Tensor:
    """Normalised images on the scale 0..255."""
    mean, std = (torch.tensor(values, dtype=torch.float64).view(-1, 1, 1) for values in (data.mean, data.std))
    return (batch.double() * std + mean) * 255


@every_choice
@pytest.mark.parametrize("keys", SETS)
def test_every_choice_gives_images_that_the_net_takes(choice, keys):
    data = ready(choice, SETS[keys])
    check_augment(data)
    for batch, labels in data.train_dataloader():
        pixels = pixels_of(batch, data)
        assert batch.shape == (len(labels), *data.shape)
        assert batch.dtype == torch.float32
        assert pixels.isfinite().all()
        assert pixels.min() > -0.01
        assert pixels.max() < 255.01


@every_choice
@pytest.mark.parametrize("keys", SETS)
def test_every_choice_keeps_something_of_the_images(choice, keys):
    data = ready(choice, SETS[keys])
    pixels = torch.cat([pixels_of(batch, data) for batch, _ in data.train_dataloader()])
    assert (pixels.flatten(1).std(dim=1) > 1).double().mean() > 0.95


@every_choice
def test_every_choice_scores_validation_and_test_images_as_they_are(choice):
    augmented, plain = ready(choice, COLOUR), ready("none", COLOUR)
    for data in (augmented, plain):
        data.setup("test")
    for split in ("val_dataloader", "test_dataloader"):
        expected = list(getattr(plain, split)())
        assert same(list(getattr(augmented, split)()), expected)
        assert same(list(getattr(augmented, split)()), expected)


@pytest.mark.parametrize("keys", SETS)
@every_choice
def test_every_choice_scores_images_of_every_split_at_the_size_that_the_net_takes(choice, keys):
    data = ready(choice, SETS[keys])
    for split in ("train", "val"):
        batch, _ = next(iter(data.loader(split)))
        assert tuple(batch.shape[1:]) == data.shape


@every_choice
def test_every_choice_lists_every_knob_of_its_steps(choice):
    for name, node in composed(f"augment={choice}").augment.items():
        knobs = set(inspect.signature(locate(node, name)).parameters) - {"image_size", "mean"}
        assert set(node.arguments) == knobs


@every_choice
def test_every_choice_has_the_values_of_its_classes_but_where_it_is_said(choice):
    deviating = {}
    for name, node in composed(f"augment={choice}").augment.items():
        defaults = inspect.signature(locate(node, name)).parameters
        for knob, value in node.arguments.items():
            default = defaults[knob].default
            if value != (list(default) if isinstance(default, tuple) else default):
                deviating[f"{name}.{knob}"] = value
    assert deviating == DEVIATING.get(choice, {})


@every_choice
def test_every_choice_says_in_its_first_line_what_it_does(choice):
    first = groups()["augment"][choice].read_text(encoding="utf-8").splitlines()[0]
    assert re.match(r"# \S.{10,}", first)


@every_choice
def test_every_choice_survives_the_yaml_of_a_run(choice, tmp_path):
    config = composed(f"augment={choice}")
    (tmp_path / "config.yaml").write_text(config.dump())
    loaded = Config.load(tmp_path / "config.yaml").augment
    assert (loaded, list(loaded)) == (config.augment, list(config.augment))


def test_none_changes_nothing():
    for overrides in (("augment=none",), ("augment=[]",), ()):
        config = composed(*overrides)
        assert (config.augment, config.choices["augment"]) == ({}, "none")
    assert build_augment(composed("augment=none"), 32, [0.5]) is None


# ---- several choices -------------------------------------------------------------------------------------------------


CHOSEN = [("crop", "flip", "erase"), ("erase", "crop", "flip"), ("light", "basic"), ("rotate",)]


@pytest.mark.parametrize("chosen", CHOSEN)
def test_several_choices_are_steps_in_the_order_of_the_list(chosen):
    config = composed(f"augment=[{','.join(chosen)}]")
    assert list(config.augment) == [name for choice in chosen for name in composed(f"augment={choice}").augment]
    assert list(build_augment(config, 32, [0.5]).steps) == list(config.augment)
    assert config.choices["augment"] == "+".join(chosen)


def test_blanks_in_a_list_do_not_matter():
    assert composed("augment=[crop, flip]") == composed("augment=[crop,flip]")


def test_a_knob_of_a_chosen_step_can_be_set():
    config = composed("augment=[crop,flip]", "augment.crop.padding=2", "augment.flip.p=0.25")
    steps = build_augment(config, 32, [0.5]).steps
    assert (steps["crop"].padding, steps["flip"].p) == (2, 0.25)


def test_steps_in_another_order_are_another_run():
    one_way, other = composed("augment=[crop,erase]"), composed("augment=[erase,crop]")
    assert one_way.identity() != other.identity()


@pytest.mark.parametrize(
    ("overrides", "label"),
    [
        (("augment=flip", "augment=[crop,flip]"), "crop+flip"),
        (("augment=[crop,flip]", "augment=flip"), "flip"),
        (("augment=[crop,flip]", "augment=[erase,crop]"), "erase+crop"),
    ],
)
def test_of_two_choices_of_an_augmentation_the_last_counts_and_is_the_label(overrides, label):
    config = composed(*overrides)
    assert list(config.augment) == label.split("+")
    assert config.choices["augment"] == label


@pytest.mark.parametrize(("chosen", "label"), [("crop", "crop"), ("[crop, flip]", "crop+flip"), ("[erase]", "erase")])
def test_a_recipe_or_experiment_may_choose_the_augmentation(chosen, label, tmp_path):
    for group in ("recipe", "experiment"):
        (tmp_path / group).mkdir()
        text = f"# @package _global_\ndefaults:\n  - override /augment: {chosen}\n"
        (tmp_path / group / "mine.yaml").write_text(text)
        config = compose([f"{group}=mine"], config_dir=tmp_path)
        assert list(config.augment) == label.split("+")
        assert config.choices["augment"] == label


def test_a_choice_in_a_conf_folder_of_the_users_is_chosen_like_any_other(tmp_path):
    (tmp_path / "augment").mkdir()
    (tmp_path / "augment" / "mine.yaml").write_text(f"mine:\n  _target_: {__name__}.Darker\n  by: 2\n")
    config = compose(["augment=[flip,mine]", "augment.mine.by=4", *COLOUR, "threads=1"], config_dir=tmp_path)
    assert config.choices["augment"] == "flip+mine"
    augmented = prepare(config).data.augment([0.5] * 3)
    bright = torch.full((2, 3, 32, 32), 200, dtype=torch.uint8)
    assert (augmented(bright, 0, 0, 0, slice(0, 2), 2) == 50).all()


# ---- two choices in particular ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(("keys", "stored"), [("colour of 32", 40), ("digits of 32", 40), ("digits of 28", 35)])
def test_notes_stores_train_images_scaled_once_and_validation_images_as_the_net_takes_them(keys, stored):
    data = ready("notes", SETS[keys])
    assert data.images["train"].source.shape[-1] == stored
    assert data.images["val"].source.shape[-1] == data.image_size
    assert data.images["train"].source.dtype == torch.uint8


@pytest.mark.slow
def test_notes_scales_to_forty_flips_and_crops_as_torchvision_does():
    data, plain = ready("notes", COLOUR), ready("none", COLOUR)
    (batch, _), order = next(iter(data.train_dataloader())), data.train_dataloader().order(0)
    originals = plain.images["train"].pixels[torch.from_numpy(order[: len(batch)])]
    scaled = one.resize(originals, [40, 40], BILINEAR, antialias=True)
    found = []
    for image, ours in zip(scaled, pixels_of(batch, data), strict=True):
        windows = torch.stack(
            [
                one.crop(one.hflip(image) if mirrored else image, top, left, 32, 32)
                for mirrored in (False, True)
                for top in range(9)
                for left in range(9)
            ]
        )
        distances = (windows - ours).abs().amax(dim=(1, 2, 3))
        assert distances.min() < 1.01
        found.append(int(distances.argmin()))
    assert len({place % 81 for place in found}) > 25
    assert 10 < sum(place >= 81 for place in found) < len(found) - 10


@pytest.mark.parametrize(("image_size", "low", "high"), [(224, 256, 512), (32, 37, 73), (28, 32, 64), (448, 512, 1024)])
def test_vgg_multiscale_draws_its_scales_in_proportion_to_the_net(image_size, low, high):
    step = build_augment(composed("augment=vgg_multiscale"), image_size, [0.5]).steps["scale_jitter"]
    scaled, top, left = drawn(step, 30_000, image_size)
    assert (scaled.min(), scaled.max()) == (low, high)
    assert min(top.min(), left.min()) == 0
    assert np.maximum(top, left).max() > 0.9 * (high - image_size)
    assert (scaled - np.maximum(top, left)).min() >= image_size


def test_vgg_multiscale_keeps_train_images_as_large_as_they_are_published():
    data = ready("vgg_multiscale", SETS["digits of 32"])
    assert data.images["train"].source.shape[-1] == 28
    assert data.images["val"].source.shape[-1] == 32


@pytest.mark.parametrize(
    ("step", "native", "stored"),
    [
        (ScaleJitter(image_size=224), 500, 500),
        (ScaleJitter(image_size=224), 600, 512),
        (RandomResizedCrop(image_size=32), 500, 64),
        (RandomResizedCrop(image_size=32), 40, 40),
        (Resize(256, image_size=224), 500, 256),
        (RandomCrop(4, image_size=32), 500, None),
        (RandomHorizontalFlip(), 500, None),
    ],
)
def test_the_first_step_says_how_large_images_are_stored(step, native, stored):
    augment = Augment({"first": step, "flip": RandomHorizontalFlip()})
    assert augment.stored_side(native, step.side if hasattr(step, "side") else 32) == stored
    assert Augment({"flip": RandomHorizontalFlip(), "second": step}).stored_side(native, 32) is None


# ---- mistakes --------------------------------------------------------------------------------------------------------

NO_SHARE = [-0.1, 1.1, float("nan"), None, "half", True, [0.5]]
NO_RANGE = [
    None,
    0.5,
    "all",
    [0.5],
    [0.1, 0.2, 0.3],
    [0.9, 0.1],
    [0.1, "b"],
    [float("nan"), 1],
    [None, 1],
    [False, True],
]
NO_COUNT = [-1, 1.5, "two", None, True, [4]]
WRONG = [
    *[(RandomCrop, {"padding": value, "image_size": 32}, "padding") for value in NO_COUNT],
    *[(Pad, {"pixels": value}, "pixels") for value in NO_COUNT],
    *[(Resize, {"side": value, "image_size": 32}, "side") for value in [*NO_COUNT, 0]],
    *[(Resize, {"side": 40, "of": value, "image_size": 32}, "of") for value in [0, -3, 1.5, "x", True, [32]]],
    *[(ScaleJitter, {"of": value, "image_size": 32}, "of") for value in [0, -3, 1.5, "x", True, [32]]],
    *[(ScaleJitter, {"short_side": value, "image_size": 32}, "short_side") for value in [*NO_RANGE, [0, 512]]],
    *[
        (ScaleJitter, {"short_side": value, "of": None, "image_size": 32}, "short_side")
        for value in [[31, 40], [36.5, 40], [36, 40.5]]
    ],
    *[(RandomResizedCrop, {"scale": value, "image_size": 32}, "scale") for value in [*NO_RANGE, [0, 1], [0.5, 1.5]]],
    *[(RandomResizedCrop, {"ratio": value, "image_size": 32}, "ratio") for value in [*NO_RANGE, [0, 1], [-1, 1]]],
    *[(step, {"p": value}, "p") for step in (RandomHorizontalFlip, RandomVerticalFlip) for value in NO_SHARE],
    *[(RandomErasing, {"p": value, "mean": [0.5]}, "p") for value in NO_SHARE],
    *[(RandomErasing, {"scale": value, "mean": [0.5]}, "scale") for value in [*NO_RANGE, [0, 1], [0.5, 1.5]]],
    *[(RandomErasing, {"ratio": value, "mean": [0.5]}, "ratio") for value in [*NO_RANGE, [0, 1], [-1, 1]]],
    *[
        (RandomRotation, {"degrees": value}, "degrees")
        for value in ["15", [15], [20, 10], [1, 2, 3], [1, "b"], float("nan"), float("inf"), True, None, []]
    ],
    *[
        (RandomRotation, {"degrees": None, "angles": value}, "angles")
        for value in [[], 30, "30", ["a"], [30, None], [float("nan")], [float("inf"), 3], [True], [[30]], None]
    ],
    (RandomRotation, {"degrees": 15, "angles": [30]}, "angles"),
    *[(RandomRotation, {"interpolation": value}, "interpolation") for value in ["bicubic", None, 2, ["nearest"]]],
    *[
        (step, {"amount": value}, "amount")
        for step in (RandomBrightness, RandomContrast)
        for value in [-0.1, float("nan"), float("inf"), None, "much", True, [0.2]]
    ],
]


def called(value) -> str:
    return f"{value[0].__name__}-{'-'.join(f'{k}={v}' for k, v in value[1].items() if k not in ('image_size', 'mean'))}"


@pytest.mark.parametrize(("step", "keys", "knob"), WRONG, ids=map(called, WRONG))
def test_a_step_refuses_a_wrong_value_in_one_line_that_names_the_knob(step, keys, knob):
    with pytest.raises(ValueError, match=rf"\b{knob}[=:,]") as raised:
        step(**keys)
    assert "\n" not in str(raised.value)


def test_a_crop_of_an_image_that_is_too_small_says_what_to_do():
    with pytest.raises(ValueError, match=r"images of 20×20 have no window of 32×32; scale them up before"):
        changed({"crop": RandomCrop(4, image_size=32)}, pictures(2, side=20))


class Darker(Step):
    def __init__(self, by: int) -> None:
        self.by = by

    def apply(self, images, draws):
        return images // self.by


class Broken(Step):
    def __init__(self, how: str) -> None:
        self.how = how

    def apply(self, images, draws):
        raise {"index": IndexError, "type": TypeError}[self.how]("on\nits own")


class Doubling(Step):
    """Gives two images for one."""

    def apply(self, images, draws):
        return torch.cat([images, images])


class Growing(Step):
    def apply(self, images, draws):
        return torch.cat([images, images], dim=1)


MISTAKES = {
    ("augment=rotat",): r"augment=rotat: .*did you mean rotate\?",
    ("augment=[rotat]",): r"augment.*rotat.*did you mean rotate\?",
    ("augment=[crop,flop]",): r"augment.*flop.*did you mean flip\?",
    ("augment=[flop,crop]",): r"augment.*flop.*did you mean flip\?",
    ("augment=[crop,]",): r"augment",
    ("augment=crop,flip",): r"augment=\[crop,flip\]",
    ("augment=rotate", "augment.rotate.degres=3"): r"augment\.rotate\.degres: .*degrees",
    ("augment=crop", "augment.crops.padding=3"): r"augment\.crops\.padding: .*no step crops; did you mean crop\?",
    ("augment=flip", "augment.crop.padding=3"): r"augment\.crop",
    ("augment=crop", "augment.crop=3"): r"^augment\.crop=3: expected",
    ("+augment.mine.by=3",): r"^augment\.mine\._target_: a value is missing",
}


@pytest.mark.slow
@pytest.mark.parametrize("overrides", MISTAKES, ids=" ".join)
def test_a_choice_that_there_is_not_is_one_line_that_says_what_to_type(overrides):
    with pytest.raises(ConfigError, match=MISTAKES[overrides]) as raised:
        compose(overrides)
    assert "\n" not in str(raised.value)


REFUSED = {
    ("augment=notes", "~augment.crop"): r"^augment: its steps give images of 3×40×40 .*the net takes 3×32×32",
    ("augment=notes", "augment.scale.side=20"): r"^augment.crop: images of 20×20 have no window of 32×32",
    ("augment=notes", "augment.scale.of=0"): r"^augment\.scale\b.*\bof=0",
    ("augment=notes", "augment.scale.side=big"): r"^augment\.scale\b.*side=big",
    ("augment=crop", "augment.crop._target_=cnnbench.data.crops.Pad", "~augment.crop.padding"): r"3×40×40.*3×32×32",
    ("augment=vgg_multiscale", "augment.scale_jitter.short_side=[200,512]"): r"^augment\.scale_jitter\b.*short_side",
    ("augment=crop", "augment.crop.padding=-1"): r"^augment\.crop\b.*padding=-1",
    ("augment=crop", "+augment.crop.pading=1"): r"^augment\.crop\.pading: .*did you mean padding\?",
    ("augment=rotate", "augment.rotate.angles=[30]"): r"^augment\.rotate\b.*\bdegrees\b.*\bangles\b",
    (
        "+augment.mine._target_=torch.nn.Flatten",
    ): r"^augment\.mine\._target_=torch\.nn\.Flatten: expected a subclass of",
    ("+augment.mine._target_=torch.zeros_like",): r"^augment\.mine",
    ("+augment.mine._target_=cnnbench.data.crops.RandomCorp",): r"^augment\.mine\._target_=.*RandomCorp",
    ("+augment.mine._target_=math.pi",): r"^augment\.mine\._target_=math\.pi",
    ("+augment.mine._target_=cnnbench.data.augment.Step",): r"^augment\S*: .*\w",
    (f"+augment.mine._target_={__name__}.Doubling",): r"^augment: its steps make 4 images of two",
    (f"+augment.mine._target_={__name__}.Growing",): r"^augment: its steps give images of 6×32×32 .*takes 3×32×32",
    (f"+augment.mine._target_={__name__}.Darker",): r"^augment\.mine\.by: Darker needs it",
    **{
        (f"+augment.mine._target_={__name__}.Broken", f"+augment.mine.how={how}"): r"^augment\S*: .*on its own"
        for how in ("index", "type")
    },
}


@pytest.mark.parametrize("overrides", REFUSED, ids=" ".join)
def test_an_augmentation_that_would_stop_a_run_is_refused_before_it_begins(overrides):
    with pytest.raises(ConfigError, match=REFUSED[overrides]) as raised:
        prepare(compose([*COLOUR, "threads=1", *overrides]))
    assert "\n" not in str(raised.value)
    assert raised.value.exit_code == 2
