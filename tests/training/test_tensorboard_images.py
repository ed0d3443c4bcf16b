"""Images of a tested net, compared pixel by pixel."""

import numpy as np
import pytest
import torch
from torch import nn

from cnnbench.training.tensorboard_images import (
    confusion_matrix_image,
    filter_grid,
    first_layer_kernels,
    misclassified_grid,
)
from nets import Linear

ODD = ["<script>alert(1)</script>", 'say "cheese"', "naïve 中文", "$x^2$", "two\nlines", "b\udc80d", ""]


def dark(image) -> np.ndarray:
    """Returns the darkness of each pixel, from 0 to 1."""
    return 1 - np.asarray(image.convert("L")) / 255


def blocks(image, wanted: int) -> list[tuple[int, ...]]:
    """Returns the most frequent colours, the white background first."""
    colours, counts = np.unique(np.asarray(image).reshape(-1, 3), axis=0, return_counts=True)
    return [tuple(colours[at].tolist()) for at in counts.argsort()[::-1][:wanted]]


@pytest.mark.parametrize("classes", [2, 7, 20, 21, 100, 1000])
def test_a_confusion_matrix_fits_a_screen(classes):
    image = confusion_matrix_image(
        np.eye(classes, dtype=int).tolist(), [f"class {number}" for number in range(classes)]
    )
    assert max(image.size) <= 1200


def test_a_cell_is_the_darker_the_larger_its_share_of_its_row():
    counts = np.eye(30, dtype=int) * 9
    counts[3] = counts[3, ::-1]
    counts[0, 7] = 3
    shades = dark(confusion_matrix_image(counts.tolist(), [""] * 30))[24:]  # below the title
    rows, columns = np.nonzero(shades > 0.6)
    body = shades[rows.min() : rows.max() + 1, columns.min() : columns.max() + 1]
    side = len(body) // 30
    cells = body.reshape(30, side, 30, side).mean((1, 3))
    assert 0 < cells[0, 7] < cells[0, 0] < cells[1, 1]
    assert cells[counts == 0].max() == 0


def test_counts_are_drawn_for_up_to_20_classes():
    few, many = (
        [confusion_matrix_image((np.eye(n, dtype=int) * k).tolist(), [""] * n) for k in (7, 8)] for n in (20, 21)
    )
    assert few[0].tobytes() != few[1].tobytes()
    assert many[0].tobytes() == many[1].tobytes()


@pytest.mark.parametrize("name", ODD)
def test_a_class_of_any_name_is_drawn(name):
    named = confusion_matrix_image([[1, 0], [0, 1]], [name, "plain"])
    other = confusion_matrix_image([[1, 0], [0, 1]], ["", "plain"])
    assert (named.tobytes() == other.tobytes()) == (name == "")
    assert misclassified_grid(np.zeros((1, 8, 8, 1), np.uint8), [name], [name], [0.5]).size


@pytest.mark.parametrize("channels", [1, 3])
def test_misclassified_images_are_scaled_without_smoothing(channels):
    pixels = np.random.default_rng(0).integers(0, 256, (1, 32, 32, channels), dtype=np.uint8)
    image = np.asarray(misclassified_grid(pixels, ["cat"], ["dog"], [0.9]))
    found = [
        (row, column)
        for row in range(20)
        for column in range(80)
        if (image[row : row + 64 : 2, column : column + 64 : 2] == pixels[0]).all()
    ]
    assert found


def test_misclassified_images_are_in_rows_of_four():
    one, four, five = (
        misclassified_grid(np.zeros((n, 28, 28, 1), np.uint8), ["a"] * n, ["b"] * n, [1.0] * n) for n in (1, 4, 5)
    )
    assert one.size == four.size == (five.width, five.height // 2)


def test_filters_of_one_channel_are_grey_and_0_is_mid_grey():
    kernel = torch.tensor([[-2.0, 0.0], [1.0, 2.0]])[None, None]
    shades = {red for red, *_ in blocks(filter_grid(kernel), 9)}
    assert shades == {0, 128, 191, 255}


def test_filters_of_three_channels_are_coloured():
    kernel = torch.tensor([1.0, -1.0, -1.0]).view(1, 3, 1, 1).expand(1, 3, 3, 3)
    assert (255, 0, 0) in blocks(filter_grid(kernel), 2)


def test_filters_of_other_numbers_of_channels_are_a_row_each():
    two, four = filter_grid(torch.ones(5, 2, 3, 3)), filter_grid(torch.ones(5, 4, 3, 3))
    assert two.height == four.height > 2 * two.width
    assert two.width < four.width


def test_a_net_that_starts_with_a_linear_layer_has_no_filters():
    assert first_layer_kernels(Linear(10, 1, 28)) is None
    assert (
        first_layer_kernels(
            nn.Sequential(nn.Flatten(0), nn.Linear(9, 4), nn.Unflatten(0, (1, 2, 2)), nn.Conv2d(1, 1, 2))
        )
        is None
    )


def test_the_first_convolution_is_found_after_batch_norm():
    found = first_layer_kernels(nn.Sequential(nn.BatchNorm2d(3), nn.Conv2d(3, 8, 5)))
    assert found is not None
    assert (found[0], tuple(found[1].shape)) == ("1.weight", (8, 3, 5, 5))
