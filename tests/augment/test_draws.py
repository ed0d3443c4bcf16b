"""The distributions of the steps' parameters, their independence between images, and their effect on pixels."""

from __future__ import annotations

import itertools
from functools import cache

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats
from torchvision import transforms
from torchvision.transforms import InterpolationMode
from torchvision.transforms import functional as tv

from augmenting import (
    BILINEAR,
    GREY,
    IMPOSSIBLE,
    STEPS,
    addresses,
    are_independent,
    changed,
    drawn,
    every_random_step,
    every_step,
    have_one_distribution,
    is_uniform_between,
    is_uniform_over,
    pictures,
    spread,
)
from cnnbench.augment.crops import CenterCrop, Pad, RandomBoxes, RandomCrop, RandomResizedCrop, ScaleJitter
from cnnbench.augment.step import Augment, Step
from cnnbench.augment.transforms import (
    RandomBrightness,
    RandomContrast,
    RandomErasing,
    RandomHorizontalFlip,
    RandomRotation,
    RandomVerticalFlip,
)
from cnnbench.data.loader import BatchPlan, Images, Loader, Normalization


@pytest.mark.parametrize(
    ("padding", "side", "image_size"), [(4, 32, 32), (1, 16, 16), (0, 24, 16), (3, 20, 22), (2, 9, 9)]
)
def test_crop_positions_are_uniform(padding, side, image_size):
    places = side + 2 * padding - image_size + 1
    n = 100 * places**2
    cut = changed({"crop": RandomCrop(padding, image_size=image_size)}, addresses(n, side, side))
    assert cut.shape == (n, 2, image_size, image_size)
    middle = image_size // 2
    top, left = (cut[:, axis, middle, middle].numpy().astype(int) - 1 - middle + padding for axis in (0, 1))
    assert is_uniform_over(top * places + left, places**2)


def test_crop_positions_of_an_oblong_image_are_uniform():
    top, left = drawn(RandomCrop(1, image_size=6), 20_000, 8, 5)
    assert is_uniform_over(top, 5)
    assert is_uniform_over(left, 2)
    assert are_independent(top, left)


@pytest.mark.parametrize(
    ("step", "axis", "p"),
    [
        (RandomHorizontalFlip, 1, 0),
        (RandomHorizontalFlip, 1, 0.1),
        (RandomHorizontalFlip, 1, 1),
        (RandomVerticalFlip, 0, 0.5),
        (RandomVerticalFlip, 0, 0.9),
    ],
)
def test_an_image_is_flipped_with_probability_p(step, axis, p):
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
def test_the_angles_of_a_list_are_equally_likely(angles):
    (degrees,) = drawn(RandomRotation(None, angles), 20_000)
    assert set(degrees) == set(angles)
    assert is_uniform_over(np.searchsorted(sorted(angles), degrees), len(angles))


def test_an_image_is_rotated_by_an_angle_of_the_list():
    images = pictures(60)
    turned = changed("rotate_list", images)
    candidates = torch.stack([tv.rotate(images.float(), angle, InterpolationMode.BILINEAR) for angle in (30, 90, 180)])
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
def test_resized_crops_have_torchvisions_distributions_of_area_shape_and_position(height, width, scale, ratio):
    top, left, h, w = drawn(RandomResizedCrop(scale, ratio, image_size=32), 6000, height, width)
    torch.manual_seed(0)
    image = torch.empty(3, height, width)
    theirs = np.array([transforms.RandomResizedCrop.get_params(image, list(scale), list(ratio)) for _ in range(3000)]).T
    assert have_one_distribution(h * w, theirs[2] * theirs[3])
    assert have_one_distribution(w / h, theirs[3] / theirs[2])
    assert have_one_distribution(top, theirs[0])
    assert have_one_distribution(left, theirs[1])


@pytest.mark.parametrize(("height", "width", "scale", "ratio"), BOXES[:2])
def test_positions_of_resized_crops_are_uniform(height, width, scale, ratio):
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
def test_if_no_box_fits_the_crop_is_torchvisions_crop_of_the_middle(height, width, scale, ratio):
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
def test_every_box_is_inside_the_image(height, width, scale, ratio):
    top, left, h, w = drawn(RandomResizedCrop(scale, ratio, image_size=8), 20, height, width)
    assert min(top.min(), left.min()) >= 0
    assert (top + h).max() <= height
    assert (left + w).max() <= width
    top, left, h, w = drawn(RandomErasing(1, scale, ratio, mean=[0]), 20, height, width)
    assert min(top.min(), left.min(), h.min(), w.min()) >= 0
    assert (top + h).max() <= height
    assert (left + w).max() <= width


@pytest.mark.parametrize("ratio", [(60, 100), (1e-3, 1e-2)])
def test_an_aspect_ratio_of_which_no_box_fits_still_gives_pixels(ratio):
    cropped = changed({"crop": RandomResizedCrop(ratio=ratio, image_size=32)}, pictures(8, 1, 28))
    assert cropped.isfinite().all()


@pytest.mark.parametrize(("low", "high", "side"), [(40, 60, 32), (37, 73, 32), (32, 32, 32), (5, 6, 5)])
def test_all_scales_of_scale_jitter_are_equally_likely(low, high, side):
    scaled, _, _ = drawn(ScaleJitter((low, high), None, image_size=side), 30_000)
    assert is_uniform_over(scaled - low, high - low + 1)
    assert (scaled.min(), scaled.max()) == (low, high)


@pytest.mark.parametrize(("low", "high"), [(32, 48), (40, 44)])
def test_window_positions_in_a_scaled_image_are_uniform(low, high):
    scaled, top, left = drawn(ScaleJitter((low, high), None, image_size=32), 60_000)
    for size in (low, low + 1, high):
        of_this_size = scaled == size
        places = size - 32 + 1
        assert is_uniform_over((top * places + left)[of_this_size], places**2)


def test_erased_boxes_have_torchvisions_distributions_of_area_and_shape():
    scale, ratio = (0.02, 0.33), (0.3, 1 / 0.3)
    _, _, h, w = drawn(RandomErasing(1, scale, ratio, mean=[0]), 6000, 100)
    torch.manual_seed(0)
    image = torch.empty(1, 100, 100)
    theirs = [transforms.RandomErasing.get_params(image, scale, ratio, [0.0])[2:4] for _ in range(3000)]
    theirs = np.array(theirs).T
    assert have_one_distribution(h * w, theirs[0] * theirs[1])
    assert have_one_distribution(w / h, theirs[1] / theirs[0])


def test_positions_of_erased_boxes_are_uniform():
    top, left, h, w = drawn(RandomErasing(1, mean=[0]), 20_000, 100, 80)
    assert is_uniform_between(spread(top, 100 - h), 0, 1)
    assert is_uniform_between(spread(left, 80 - w), 0, 1)


def test_the_ratio_of_erased_boxes_is_width_over_height():
    _, _, h, w = drawn(RandomErasing(1, (0.02, 0.1), (2, 3), mean=[0]), 2000, 224)
    assert 1.9 < (w / h).min() < 2.1
    assert 2.9 < (w / h).max() < 3.1


@pytest.mark.parametrize("p", [0, 0.25, 0.5, 1])
def test_an_image_is_erased_in_part_with_probability_p(p):
    n = 4000
    images = torch.zeros(n, 3, 16, 16, dtype=torch.uint8)
    erased = changed({"erase": RandomErasing(p, mean=GREY)}, images).flatten(1).any(dim=1)
    assert stats.binomtest(int(erased.sum()), n, p).pvalue > IMPOSSIBLE


def test_as_many_boxes_fit_as_of_torchvisions():
    scale, ratio = (0.9, 1.0), (0.5, 2.0)
    _, _, fits = RandomBoxes(scale, ratio).draw(np.random.default_rng(0), 4000, 30, 30, smaller=True)
    torch.manual_seed(0)
    image = torch.empty(1, 30, 30)
    theirs = [
        transforms.RandomErasing.get_params(image, scale, ratio, [0.0])[2:4] != (30, 30)  # the whole image: none
        for _ in range(1500)
    ]
    table = [[fits.sum(), (~fits).sum()], [sum(theirs), 1500 - sum(theirs)]]
    assert 0.05 < fits.mean() < 0.95
    assert stats.chi2_contingency(table).pvalue > IMPOSSIBLE


@pytest.mark.parametrize(
    ("step", "amount", "low", "high"),
    [
        (RandomBrightness, 0.2, 0.8, 1.2),
        (RandomBrightness, 3, 0, 4),
        (RandomContrast, 0.01, 0.99, 1.01),
        (RandomContrast, 1, 0, 2),
    ],
)
def test_factors_are_uniform_around_one_and_never_negative(step, amount, low, high):
    (factors,) = drawn(step(amount), 20_000)
    assert low <= factors.min() <= factors.max() <= high
    assert is_uniform_between(factors, low, high)


@pytest.mark.parametrize("step", [RandomBrightness, RandomContrast])
def test_an_amount_of_zero_changes_nothing(step):
    images = pictures(20)
    assert torch.equal(changed({"light": step(0)}, images), images.float())


def test_each_image_has_one_brightness_factor_for_all_its_pixels():
    changed_images = changed("brightness", torch.full((5000, 1, 2, 2), 100, dtype=torch.uint8))
    factors = changed_images / 100
    assert (factors.amax(dim=(1, 2, 3)) == factors.amin(dim=(1, 2, 3))).all()
    assert is_uniform_between(factors[:, 0, 0, 0].double().numpy(), 0.6, 1.4)


TORCHVISION = {
    "crop": lambda x, top, left: tv.crop(tv.pad(x, [4]), top, left, 32, 32),
    "scale_jitter": lambda x, s, y, x0: tv.crop(tv.resize(x, [s, s], BILINEAR, antialias=True), y, x0, 32, 32),
    "resized_crop": lambda x, *box: tv.resized_crop(x, *box, [32, 32], BILINEAR, antialias=True),
    "flip": lambda x, which: tv.hflip(x) if which else x,
    "flip_vertical": lambda x, which: tv.vflip(x) if which else x,
    "rotate": lambda x, angle: tv.rotate(x, angle, BILINEAR),
    "rotate_list": lambda x, angle: tv.rotate(x, angle, BILINEAR),
    "rotate_nearest": lambda x, angle: tv.rotate(x, angle, InterpolationMode.NEAREST),
    "erase": lambda x, *box: tv.erase(x, *box, torch.tensor([128.0, 64.0, 191.0]).view(3, 1, 1)),
    "brightness": lambda x, factor: 255 * tv.adjust_brightness(x / 255, factor),
    "contrast": lambda x, factor: 255 * tv.adjust_contrast(x / 255, factor),
    "centre": lambda x: tv.center_crop(x, [28, 28]),
    "pad": lambda x: tv.pad(x, [4]),
    "scale": lambda x: tv.resize(x, [40, 40], BILINEAR, antialias=True),
}


@every_step
def test_a_step_equals_torchvisions_operator_with_the_same_parameters(name):
    images, draws = pictures(20), drawn(STEPS[name], 20)
    expected = [
        TORCHVISION[name](image, *(values[number].item() for values in draws))
        for number, image in enumerate(images.float())
    ]
    ours = STEPS[name].apply(images, tuple(map(torch.from_numpy, draws)))
    assert (ours - torch.stack(expected)).abs().max() < 0.01


@every_step
def test_a_step_does_not_modify_its_input(name):
    images = pictures(12)
    before = images.clone()
    changed(name, images)
    assert torch.equal(images, before)


def test_the_colour_of_an_erased_box_is_the_mean_of_the_data():
    erased = changed({"erase": RandomErasing(1, mean=GREY)}, torch.full((50, 3, 16, 16), 255, dtype=torch.uint8))
    colours = erased.permute(0, 2, 3, 1).flatten(0, 2).unique(dim=0)
    assert colours.tolist() == [[128, 64, 191], [255, 255, 255]]


def test_an_erased_box_is_zero_in_the_nets_input():
    images = Images(torch.full((64, 3, 32, 32), 255, dtype=torch.uint8), torch.arange(64))
    augment = Augment({"erase": RandomErasing(1, mean=GREY)})
    batch, _ = next(iter(Loader(images, BatchPlan(64, seed=0), Normalization(GREY, [0.25] * 3), augment=augment)))
    white = (1 - torch.tensor(GREY).view(3, 1, 1)) / 0.25
    box = (batch - white).abs().amax(dim=1) > 1e-4
    assert box.flatten(1).any(dim=1).all()
    assert batch.movedim(1, -1)[box].abs().max() <= 0.5 / 255 / 0.25 + 1e-5


def test_an_augmentation_runs_its_steps_in_order():
    images = torch.full((4, 1, 4, 4), 100, dtype=torch.uint8)
    assert changed({"pad": Pad(2), "middle": CenterCrop(image_size=4)}, images).shape[-1] == 4
    assert changed({"middle": CenterCrop(image_size=4), "pad": Pad(2)}, images).shape[-1] == 8


def test_an_augmentation_without_steps_changes_nothing():
    images = pictures(4)
    assert torch.equal(changed({}, images), images)


@cache
def flips(batches: int = 3000) -> np.ndarray:
    """(batches, 4) 0 or 1: which images of each batch a flip mirrored."""
    images = addresses(4, 1, 2)
    augment = Augment({"flip": RandomHorizontalFlip()})
    mirrored = [augment(images, 7, 0, batch, slice(0, 4), 4)[:, 1, 0, 0] == 2 for batch in range(batches)]
    return torch.stack(mirrored).numpy().astype(int)


@pytest.mark.parametrize("image", range(4))
def test_an_image_at_any_position_in_a_batch_is_flipped_half_of_the_time(image):
    assert stats.binomtest(int(flips()[:, image].sum()), len(flips())).pvalue > IMPOSSIBLE


@pytest.mark.parametrize(("one_image", "other"), itertools.combinations(range(4), 2))
def test_two_images_of_a_batch_are_flipped_alike_half_of_the_time(one_image, other):
    equal_flips = int((flips()[:, one_image] == flips()[:, other]).sum())
    assert stats.binomtest(equal_flips, len(flips())).pvalue > IMPOSSIBLE


@pytest.mark.parametrize("image", range(4))
def test_the_flips_of_successive_batches_are_independent(image):
    assert are_independent(flips()[:-1, image], flips()[1:, image])


@pytest.mark.parametrize("what", ["seed", "epoch"])
def test_the_flips_of_successive_seeds_and_epochs_are_independent(what):
    flipped = [
        (changed("flip", addresses(16, 1, 2), **{what: number})[:, 1, 0, 0] == 2).numpy() for number in range(400)
    ]
    assert are_independent(np.array(flipped)[:-1].ravel(), np.array(flipped)[1:].ravel())


def test_two_images_of_a_batch_have_independent_crop_positions():
    images = addresses(2, 4, 4)
    augment = Augment({"crop": RandomCrop(1, image_size=4)})
    cut = torch.stack([augment(images, 3, 0, batch, slice(0, 2), 2)[:, :, 1, 1] for batch in range(3000)]).numpy()
    place = cut[..., 0].astype(int) * 3 + cut[..., 1]
    assert len(set(place[:, 0])) == 9
    assert are_independent(place[:, 0], place[:, 1])


@every_random_step
def test_the_images_of_a_batch_have_different_parameters(name):
    for n, batches in ((2, 12), (16, 1)):
        same = pictures(1).expand(n, -1, -1, -1)
        assert max(len(changed(name, same, batch=batch).unique(dim=0)) for batch in range(batches)) > 1


@pytest.mark.parametrize(
    ("one_name", "other"), [("flip", "flip_vertical"), ("brightness", "contrast"), ("rotate", "rotate_nearest")]
)
def test_two_steps_draw_independent_parameters(one_name, other):
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
