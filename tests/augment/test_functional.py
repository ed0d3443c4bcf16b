"""The augmentation functions on batches against torchvision's operators on one image at a time, and against PIL."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, ImageEnhance
from torch import Tensor
from torchvision.transforms import InterpolationMode
from torchvision.transforms import functional as tv

from cnnbench.augment import functional

N = 12
IMAGES = [  # channels, dtype, height, width
    (1, "uint8", 8, 8),
    (3, "float32", 9, 9),
    (3, "uint8", 7, 12),
    (1, "float32", 12, 7),
    (3, "uint8", 1, 1),
    (1, "float32", 1, 6),
]
KINDS = [(1, "uint8"), (3, "uint8"), (1, "float32"), (3, "float32")]
CLOSE = 0.01  # on the scale 0..255
ANGLES = [0, 90, 180, 270, 360, -90, 45, -45, 13.7, -0.5, 359.5, 1000.25]
FACTORS = [0, 0.01, 0.5, 0.8, 0.999, 1, 1.001, 1.2, 1.5, 2, 3.7, 50]

every_kind = pytest.mark.parametrize(("channels", "dtype"), KINDS)
every_image = pytest.mark.parametrize(("channels", "dtype", "height", "width"), IMAGES)


def pictures(n: int, channels: int, height: int, width: int, dtype: str = "uint8", seed: int = 0) -> Tensor:
    """Random pixels; floats are fractions of grey levels, and reach both ends."""
    random = np.random.default_rng([seed, n, channels, height, width])
    if dtype == "uint8":
        return torch.from_numpy(random.integers(0, 256, (n, channels, height, width), dtype=np.uint8))
    pixels = random.uniform(-10, 265, (n, channels, height, width)).clip(0, 255)
    return torch.from_numpy(pixels.astype(np.float32))


def whole(*values) -> Tensor:
    return torch.tensor(values, dtype=torch.int64)


def each(images: Tensor, change, *parameters) -> Tensor:
    """`change` on one image at a time, with its own parameters as plain numbers."""
    changed = [change(image, *(value[number].item() for value in parameters)) for number, image in enumerate(images)]
    return torch.stack(changed)


def random_boxes(n: int, height: int, width: int, seed: int = 0) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Tops, lefts, heights, widths: the whole image, its four corner pixels, then anything."""
    random = np.random.default_rng([seed, height, width])
    h, w = random.integers(1, height + 1, n), random.integers(1, width + 1, n)
    h[0], w[0], h[1:5], w[1:5] = height, width, 1, 1
    top, left = random.integers(0, height - h + 1), random.integers(0, width - w + 1)
    top[1:5], left[1:5] = [0, 0, height - 1, height - 1], [0, width - 1, 0, width - 1]
    return tuple(torch.from_numpy(values) for values in (top, left, h, w))


def pil(image: Tensor) -> Image.Image:
    array = image.numpy()
    return Image.fromarray(array[0] if len(array) == 1 else array.transpose(1, 2, 0))


def from_pil(image: Image.Image) -> Tensor:
    array = np.array(image)
    return torch.from_numpy(array[None] if array.ndim == 2 else array.transpose(2, 0, 1))


def furthest(one_way: Tensor, other: Tensor) -> float:
    assert one_way.shape == other.shape
    return (one_way.double() - other.double()).abs().max().item()


@st.composite
def images_with_boxes(draw):
    """A batch of one to four images, and a box in each."""
    height, width, n = draw(st.integers(1, 20)), draw(st.integers(1, 20)), draw(st.integers(1, 4))
    boxes = []
    for _ in range(n):
        h, w = draw(st.integers(1, height)), draw(st.integers(1, width))
        boxes.append((draw(st.integers(0, height - h)), draw(st.integers(0, width - w)), h, w))
    images = pictures(n, draw(st.sampled_from([1, 2, 3])), height, width, draw(st.sampled_from(["uint8", "float32"])))
    return images, tuple(whole(*column) for column in zip(*boxes, strict=True))


# ---- crop and pad ----------------------------------------------------------------------------------------------------


@every_image
def test_crop_equals_torchvisions_crop(height, width, channels, dtype):
    images = pictures(N, channels, height, width, dtype)
    for h, w in {(1, 1), (height, width), (1, width), (height, 1), (max(1, height // 2), max(1, width - 2))}:
        random = np.random.default_rng([h, w])
        top, left = (torch.from_numpy(random.integers(0, room + 1, N)) for room in (height - h, width - w))
        top[:2], left[:2] = whole(0, height - h), whole(width - w, 0)
        expected = each(images, lambda image, y, x, h=h, w=w: tv.crop(image, y, x, h, w), top, left)
        cut = functional.crop(images, top, left, h, w)
        assert cut.dtype == images.dtype
        assert torch.equal(cut, expected)


def test_windows_of_one_pixel_are_the_pixels():
    image = pictures(1, 2, 5, 4)
    y, x = (index.flatten() for index in torch.meshgrid(torch.arange(5), torch.arange(4), indexing="ij"))
    pixels = functional.crop(image.expand(20, -1, -1, -1), y, x, 1, 1)
    assert torch.equal(pixels.view(5, 4, 2).permute(2, 0, 1), image[0])


@given(chosen=images_with_boxes(), data=st.data())
@settings(max_examples=40, deadline=None)
def test_any_window_in_the_image_is_cut(chosen, data):
    images, (top, left, heights, widths) = chosen
    height = data.draw(st.integers(1, int(heights.min())))
    width = data.draw(st.integers(1, int(widths.min())))
    cut = functional.crop(images, top, left, height, width)
    for number, image in enumerate(images):
        y, x = int(top[number]), int(left[number])
        assert torch.equal(cut[number], image[:, y : y + height, x : x + width])


@every_image
def test_pad_adds_black_pixels_on_every_side(height, width, channels, dtype):
    images = pictures(3, channels, height, width, dtype)
    for pixels in (0, 1, 4, 20):
        padded = functional.pad(images, pixels)
        assert padded.dtype == images.dtype
        assert torch.equal(padded, tv.pad(images, [pixels]))


def middle_of(line: np.ndarray, wanted: int) -> np.ndarray:
    """The middle of a list of numbers, or the list with zeros on both sides."""
    missing = max(0, wanted - len(line))
    line = np.concatenate([np.zeros(missing // 2), line, np.zeros(missing - missing // 2)])
    first = round((len(line) - wanted) / 2)
    return line[first : first + wanted]


@pytest.mark.parametrize("side", [1, 2, 5, 8, 9])
def test_center_crop_takes_the_middle_along_both_sides_for_all_small_sizes(side):
    for height in range(1, 11):
        for width in range(1, 11):
            images = pictures(2, 1, height, width)
            expected = np.apply_along_axis(middle_of, 2, images.numpy(), side)
            expected = np.apply_along_axis(middle_of, 3, expected, side)
            assert np.array_equal(functional.center_crop(images, side).numpy(), expected), (height, width)


@every_kind
def test_center_crop_keeps_the_dtype(channels, dtype):
    images = pictures(2, channels, 9, 8, dtype)
    for side in (5, 8, 9, 12):
        assert functional.center_crop(images, side).dtype == images.dtype


# ---- flip ------------------------------------------------------------------------------------------------------------


@every_image
@pytest.mark.parametrize(("dimension", "mirror"), [(-1, tv.hflip), (-2, tv.vflip)])
def test_flip_mirrors_the_chosen_images_and_keeps_the_others(height, width, channels, dtype, dimension, mirror):
    images = pictures(N, channels, height, width, dtype)
    for which in (torch.arange(N) % 3 == 0, torch.zeros(N, dtype=torch.bool), torch.ones(N, dtype=torch.bool)):
        expected = each(images, lambda image, mirrored: mirror(image) if mirrored else image, which)
        flipped = functional.flip(images, which, dimension)
        assert flipped.dtype == images.dtype
        assert torch.equal(flipped, expected)


@pytest.mark.parametrize("dimension", [-1, -2])
def test_two_flips_give_the_original_images(dimension):
    images, which = pictures(N, 3, 6, 7), torch.arange(N) % 2 == 0
    assert torch.equal(functional.flip(functional.flip(images, which, dimension), which, dimension), images)


# ---- rotation --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("channels", "dtype", "height", "width"), [*IMAGES, (3, "uint8", 28, 28), (1, "float32", 33, 33)]
)
def test_rotate_equals_torchvisions_rotate(height, width, channels, dtype):
    images = pictures(N, channels, height, width, dtype)
    degrees = torch.tensor(ANGLES, dtype=torch.float64)
    turned = functional.rotate(images, degrees)
    expected = each(images.float(), lambda image, angle: tv.rotate(image, angle, InterpolationMode.BILINEAR), degrees)
    assert turned.dtype == torch.float32
    assert furthest(turned, expected) < CLOSE


@pytest.mark.parametrize(("channels", "height", "width"), [(1, 8, 8), (3, 9, 9), (3, 28, 28), (1, 6, 10), (3, 9, 5)])
def test_rotate_takes_the_nearest_pixels_that_torchvision_takes(height, width, channels):
    images = pictures(N, channels, height, width)
    degrees = torch.tensor(ANGLES, dtype=torch.float64)
    turned = functional.rotate(images, degrees, "nearest")
    expected = each(images, lambda image, angle: tv.rotate(image, angle, InterpolationMode.NEAREST), degrees)
    assert turned.dtype == torch.uint8
    assert torch.equal(turned, expected)


@pytest.mark.parametrize("degrees", [0, 90, -45, 30])
def test_nearest_rotation_does_not_round_floats(degrees):
    images = pictures(3, 3, 9, 9, "float32")
    turned = functional.rotate(images, torch.full((3,), float(degrees)), "nearest")
    assert turned.dtype == torch.float32
    assert torch.equal(turned, tv.rotate(images, degrees, InterpolationMode.NEAREST))


@pytest.mark.parametrize("interpolation", ["bilinear", "nearest"])
@pytest.mark.parametrize("side", [1, 2, 7, 32])
def test_quarter_turns_only_move_pixels_counter_clockwise(side, interpolation):
    images = pictures(3, 3, side, side)
    for quarters in (-4, -1, 0, 1, 2, 3):
        turned = functional.rotate(images, torch.full((3,), 90.0 * quarters), interpolation)
        assert torch.equal(turned.round().to(torch.uint8), images.rot90(quarters, (2, 3)))


@pytest.mark.parametrize("angle", [15, -15, 30, 45, 100])
def test_inside_the_image_rotate_equals_pils_to_within_one_grey_level(angle):
    images = pictures(3, 3, 24, 24)
    turned = functional.rotate(images, torch.full((3,), float(angle)))
    expected = torch.stack([from_pil(pil(image).rotate(angle, Image.Resampling.BILINEAR)) for image in images])
    inside = functional.rotate(torch.full((3, 3, 24, 24), 255.0), torch.full((3,), float(angle))) > 254.9
    assert inside.float().mean() > 0.7
    assert (turned - expected)[inside].abs().max() <= 1


@pytest.mark.parametrize("interpolation", ["bilinear", "nearest"])
def test_rotated_corners_are_black(interpolation):
    turned = functional.rotate(torch.full((1, 3, 20, 20), 255, dtype=torch.uint8), torch.tensor([45.0]), interpolation)
    for y in (0, -1):
        for x in (0, -1):
            assert (turned[..., y, x] == 0).all()
    assert (turned[..., 8:12, 8:12] > 254).all()


@given(angle=st.floats(-720, 720, allow_subnormal=False))
@settings(max_examples=30, deadline=None)
def test_rotation_by_any_angle_keeps_pixels_in_their_range(angle):
    images = pictures(1, 1, 9, 9)
    turned = functional.rotate(images, torch.tensor([angle], dtype=torch.float64))
    assert turned.min() >= 0
    assert turned.max() <= images.max() + CLOSE
    assert furthest(turned, tv.rotate(images.float(), angle, InterpolationMode.BILINEAR)) < CLOSE


# ---- scaling ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("channels", "dtype", "height", "width"), [*IMAGES, (3, "uint8", 33, 20)])
def test_resized_crop_equals_torchvisions(height, width, channels, dtype):
    images = pictures(N, channels, height, width, dtype)
    boxes = random_boxes(N, height, width)
    for side in (1, 5, 8, 33, (4, 9)):
        size = [side, side] if isinstance(side, int) else list(side)

        def crop_and_scale(image: Tensor, *box: int, size: list[int] = size) -> Tensor:
            return tv.resized_crop(image, *box, size, InterpolationMode.BILINEAR, antialias=True)

        scaled = functional.resized_crop(images, *boxes, side)
        assert scaled.dtype == torch.float32
        assert furthest(scaled, each(images.float(), crop_and_scale, *boxes)) < CLOSE


@pytest.mark.parametrize(
    ("height", "width", "side", "channels"),
    [(32, 32, 28, 3), (28, 28, 32, 1), (40, 40, 7, 3), (9, 16, 20, 1), (64, 64, 3, 3)],
)
def test_resized_crop_equals_pils_to_within_one_grey_level(height, width, side, channels):
    images = pictures(N, channels, height, width)
    top, left, h, w = random_boxes(N, height, width)
    expected = []
    for image, y, x, rows, columns in zip(images, top.tolist(), left.tolist(), h.tolist(), w.tolist(), strict=True):
        part = pil(image).crop((x, y, x + columns, y + rows))
        expected.append(from_pil(part.resize((side, side), Image.Resampling.BILINEAR)))
    scaled = functional.resized_crop(images, top, left, h, w, side)
    assert furthest(scaled.round(), torch.stack(expected)) <= 1


@given(chosen=images_with_boxes(), rows=st.integers(1, 40), columns=st.integers(1, 40))
@settings(max_examples=40, deadline=None)
def test_resized_crop_of_floats_equals_pils_for_any_box_and_size(chosen, rows, columns):
    images, boxes = chosen
    scaled = functional.resized_crop(images, *boxes, (rows, columns))
    for image, ours, (y, x, h, w) in zip(images.float(), scaled, torch.stack(boxes, dim=1).tolist(), strict=True):
        for channel, result in zip(image, ours, strict=True):
            part = Image.fromarray(channel[y : y + h, x : x + w].numpy())
            expected = np.array(part.resize((columns, rows), Image.Resampling.BILINEAR))
            assert furthest(result, torch.from_numpy(expected)) < CLOSE


@every_image
def test_resized_crop_of_the_whole_image_to_the_same_size_is_the_image(height, width, channels, dtype):
    images = pictures(3, channels, height, width, dtype)
    boxes = (torch.zeros(3, dtype=torch.int64),) * 2 + (torch.full((3,), height), torch.full((3,), width))
    assert furthest(functional.resized_crop(images, *boxes, (height, width)), images) < 1e-4


def test_resized_crop_of_one_pixel_repeats_the_pixel():
    images = pictures(4, 3, 6, 5)
    top, left = whole(0, 5, 3, 0), whole(0, 4, 2, 4)
    scaled = functional.resized_crop(images, top, left, whole(1, 1, 1, 1), whole(1, 1, 1, 1), 17)
    for number in range(4):
        pixel = images[number, :, top[number], left[number]].float()
        assert furthest(scaled[number], pixel.view(3, 1, 1).expand(3, 17, 17)) < 1e-4


def test_resized_crop_does_not_read_pixels_outside_its_box():
    images = torch.zeros(2, 1, 20, 20)
    images[:, :, 4:9, 3:10] = 100.0
    box = whole(4, 4), whole(3, 3), whole(5, 5), whole(7, 7)
    for side in (2, 5, 31):
        assert furthest(functional.resized_crop(images, *box, side), torch.full((2, 1, side, side), 100.0)) < 1e-3


@pytest.mark.parametrize(
    ("extent", "side", "channels", "dtype"),
    [
        (1, 1, 1, "uint8"),
        (8, 28, 3, "float32"),
        (28, 32, 1, "uint8"),
        (32, 28, 3, "uint8"),
        (57, 8, 1, "float32"),
        (57, 32, 3, "float32"),
    ],
)
def test_scaled_crop_equals_torchvisions_resize_and_crop(extent, side, channels, dtype):
    random = np.random.default_rng([extent, side])
    scaled = random.integers(side, 3 * side + 30, N)
    scaled[:2] = side, max(side, extent)
    top, left = (random.integers(0, scaled - side + 1) for _ in range(2))
    top[2:4], left[2:4] = (0, scaled[3] - side), (scaled[2] - side, 0)
    parameters = [torch.from_numpy(values) for values in (scaled, top, left)]
    images = pictures(N, channels, extent, extent, dtype)

    def scale_and_cut(image: Tensor, size: int, y: int, x: int) -> Tensor:
        large = tv.resize(image, [size, size], InterpolationMode.BILINEAR, antialias=True)
        return tv.crop(large, y, x, side, side)

    windows = functional.scaled_crop(images, *parameters, side)
    assert windows.dtype == torch.float32
    assert furthest(windows, each(images.float(), scale_and_cut, *parameters)) < CLOSE


def test_scaled_crop_at_the_images_size_is_a_crop():
    images, top, left = pictures(N, 3, 16, 16), torch.arange(N) % 9, torch.arange(N) % 7
    windows = functional.scaled_crop(images, torch.full((N,), 16), top, left, 8)
    assert furthest(windows, functional.crop(images, top, left, 8, 8)) < 1e-4


@pytest.mark.parametrize(("extent", "scaled"), [(28, 40), (64, 40), (224, 224), (256, 480)])
def test_scaled_crop_of_the_whole_image_equals_pils_resize_to_within_one_grey_level(extent, scaled):
    images, zero = pictures(2, 3, extent, extent), whole(0, 0)
    ours = functional.scaled_crop(images, torch.full((2,), scaled), zero, zero, scaled)
    expected = [from_pil(pil(image).resize((scaled, scaled), Image.Resampling.BILINEAR)) for image in images]
    assert furthest(ours.round(), torch.stack(expected)) <= 1


# ---- erasing ---------------------------------------------------------------------------------------------------------


@every_image
def test_erase_equals_torchvisions_erase(height, width, channels, dtype):
    images, boxes = pictures(N, channels, height, width, dtype), random_boxes(N, height, width)
    value = torch.tensor([7.0, 130.0, 255.0][:channels])
    erased = functional.erase(images, *boxes, value)
    filling = value.to(images.dtype).view(-1, 1, 1)
    expected = each(images, lambda image, *box: tv.erase(image, *box, filling), *boxes)
    assert erased.dtype == images.dtype
    assert torch.equal(erased, expected)


@pytest.mark.parametrize(("h", "w"), [(0, 0), (0, 5), (5, 0)])
def test_erasing_an_empty_box_changes_nothing(h, w):
    images, n = pictures(3, 3, 8, 8), torch.ones(3, dtype=torch.int64)
    assert torch.equal(functional.erase(images, 2 * n, 3 * n, h * n, w * n, torch.full((3,), 9.0)), images)


@given(chosen=images_with_boxes())
@settings(max_examples=30, deadline=None)
def test_erase_changes_only_the_box(chosen):
    images, (top, left, h, w) = chosen
    erased = functional.erase(images, top, left, h, w, torch.full((images.shape[1],), 40.0))
    for number in range(len(images)):
        expected = images[number].clone()
        expected[:, top[number] : top[number] + h[number], left[number] : left[number] + w[number]] = 40
        assert torch.equal(erased[number], expected)


# ---- light -----------------------------------------------------------------------------------------------------------


@every_kind
@pytest.mark.parametrize("change", ["adjust_brightness", "adjust_contrast"])
def test_brightness_and_contrast_equal_torchvisions(change, channels, dtype):
    images = pictures(N, channels, 9, 7, dtype)
    factors = torch.tensor(FACTORS, dtype=torch.float64)
    changed = getattr(functional, change)(images, factors)
    expected = 255 * each(images.float() / 255, getattr(tv, change), factors)
    assert changed.dtype == torch.float32
    assert furthest(changed, expected) < CLOSE


@pytest.mark.parametrize("factor", [0.0, 0.5, 1.0, 1.7])
def test_brightness_equals_pils_to_within_one_grey_level(factor):
    images = pictures(4, 3, 9, 7)
    expected = torch.stack([from_pil(ImageEnhance.Brightness(pil(image)).enhance(factor)) for image in images])
    assert furthest(functional.adjust_brightness(images, torch.full((4,), factor)), expected) <= 1


@pytest.mark.parametrize("change", ["adjust_brightness", "adjust_contrast"])
def test_a_factor_of_one_changes_nothing(change):
    for channels, dtype in KINDS:
        images = pictures(5, channels, 6, 6, dtype)
        assert torch.equal(getattr(functional, change)(images, torch.ones(5)), images.float())


def test_brightness_zero_gives_a_black_image():
    assert (functional.adjust_brightness(pictures(2, 3, 5, 5), torch.zeros(2)) == 0).all()


def test_contrast_zero_gives_the_mean_grey_in_every_channel():
    images = pictures(4, 3, 7, 7)
    flat = functional.adjust_contrast(images, torch.zeros(4))
    luma = np.einsum("nchw,c->n", images.numpy().astype(float), [0.2989, 0.587, 0.114]) / 49
    np.testing.assert_allclose(flat.numpy(), np.broadcast_to(luma[:, None, None, None], flat.shape), atol=CLOSE)


@given(factor=st.floats(0, 1000), kind=st.sampled_from(["uint8", "float32"]))
@settings(max_examples=30, deadline=None)
def test_brightness_and_contrast_stay_between_0_and_255(factor, kind):
    for change in (functional.adjust_brightness, functional.adjust_contrast):
        changed = change(pictures(2, 3, 4, 4, kind), torch.tensor([factor, 1.0]))
        assert 0 <= changed.min() <= changed.max() <= 255


def test_grey_equals_torchvisions_rgb_to_grayscale():
    images = pictures(4, 3, 6, 5, "float32")
    grey = functional.grey(images)
    assert grey.shape == (4, 1, 6, 5)
    assert furthest(grey, tv.rgb_to_grayscale(images)) < 1e-3


def test_grey_of_bytes_equals_pils_to_within_one_grey_level():
    images = pictures(4, 3, 6, 5)
    expected = torch.stack([from_pil(pil(image).convert("L")) for image in images])
    assert furthest(functional.grey(images), expected) <= 1


@pytest.mark.parametrize("dtype", ["uint8", "float32"])
@pytest.mark.parametrize("channels", [1, 2, 4])
def test_grey_of_other_than_three_channels_is_their_mean(channels, dtype):
    images = pictures(3, channels, 6, 5, dtype)
    assert furthest(functional.grey(images), images.float().mean(dim=1, keepdim=True)) < 1e-3


# ---- all of them -----------------------------------------------------------------------------------------------------

BOXES = whole(0, 1, 2, 6), whole(3, 0, 2, 5), whole(8, 4, 1, 2), whole(2, 8, 1, 3)
DEGREES, CHOSEN = torch.tensor([0.0, 90.0, -33.0, 12.5]), torch.tensor([True, False, True, False])

# each takes four images of 8 × 8 and, in `at`, which of the four parameters are theirs
CHANGES = {
    "crop": lambda x, at: functional.crop(x, whole(0, 3, 2, 1)[at], whole(3, 0, 1, 2)[at], 5, 4),
    "pad": lambda x, at: functional.pad(x, 3),
    "pad by none": lambda x, at: functional.pad(x, 0),
    "center_crop": lambda x, at: functional.center_crop(x, 5),
    "center_crop to more": lambda x, at: functional.center_crop(x, 11),
    "flip left to right": lambda x, at: functional.flip(x, CHOSEN[at], -1),
    "flip upside down": lambda x, at: functional.flip(x, CHOSEN[at], -2),
    "rotate": lambda x, at: functional.rotate(x, DEGREES[at]),
    "rotate nearest": lambda x, at: functional.rotate(x, DEGREES[at], "nearest"),
    "resized_crop": lambda x, at: functional.resized_crop(x, *(value[at] for value in BOXES), 6),
    "scaled_crop": lambda x, at: functional.scaled_crop(
        x, whole(6, 9, 8, 20)[at], whole(0, 3, 1, 14)[at], whole(0, 0, 2, 14)[at], 6
    ),
    "erase": lambda x, at: functional.erase(x, *(value[at] for value in BOXES), torch.full((x.shape[1],), 9.0)),
    "adjust_brightness": lambda x, at: functional.adjust_brightness(x, torch.tensor([0.0, 0.5, 1.0, 2.0])[at]),
    "adjust_contrast": lambda x, at: functional.adjust_contrast(x, torch.tensor([0.0, 0.5, 1.0, 2.0])[at]),
}
MIXING = {"rotate", "resized_crop", "scaled_crop", "adjust_brightness", "adjust_contrast"}
ALL = slice(None)

every_change = pytest.mark.parametrize("change", CHANGES)


@every_change
def test_a_change_does_not_modify_its_input(change):
    for channels, dtype in KINDS:
        images = pictures(4, channels, 8, 8, dtype)
        before = images.clone()
        CHANGES[change](images, ALL)
        assert torch.equal(images, before)


@every_change
def test_moving_pixels_keeps_the_dtype_and_mixing_them_gives_floats(change):
    for channels, dtype in KINDS:
        images = pictures(4, channels, 8, 8, dtype)
        changed = CHANGES[change](images, ALL)
        assert changed.dtype == (torch.float32 if change in MIXING else images.dtype)
        assert changed.shape[:2] == images.shape[:2]


@every_change
def test_bytes_and_the_same_numbers_as_floats_are_changed_alike(change):
    images = pictures(4, 3, 8, 8)
    assert furthest(CHANGES[change](images, ALL), CHANGES[change](images.float(), ALL)) < 1e-3


@every_change
def test_an_image_is_changed_alike_alone_and_in_its_batch(change):
    images = pictures(4, 3, 8, 8, "float32")
    together = CHANGES[change](images, ALL)
    for number in range(4):
        at = slice(number, number + 1)
        assert furthest(CHANGES[change](images[at], at), together[at]) < 1e-3


@every_change
def test_the_memory_format_of_the_images_does_not_matter(change):
    for channels, dtype in KINDS:
        images = pictures(4, channels, 8, 8, dtype)
        other = images.permute(3, 2, 0, 1).contiguous().permute(2, 3, 1, 0)
        assert torch.equal(other, images)
        assert furthest(CHANGES[change](other, ALL), CHANGES[change](images, ALL)) < 1e-3
