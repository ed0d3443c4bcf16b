"""Warnings about windows that do not fit, receptive fields and unused parameters."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from cnnbench.complexity.layers import summarize
from cnnbench.complexity.warnings import model_warnings
from cnnbench.models.googlenet import GoogLeNet

# ---- warnings -----------------------------------------------------------------------------------------------------------


def warnings_of(net: nn.Module, *shape: int) -> list[str]:
    summary = summarize(net.to("meta"), shape)
    assert summary.failure is None
    return list(model_warnings(summary))


def test_w_10_f_3_s_2_p_0_does_not_fit():
    (line,) = warnings_of(nn.Conv2d(1, 1, 3, stride=2), 1, 10, 10)
    assert "(10 - 3 + 2·0) / 2 + 1 = 4.5" in line
    assert line.startswith("Conv2d: a window does not fit its input evenly")
    assert line.endswith("the last row and column are never seen")


@pytest.mark.parametrize(("kernel", "stride", "padding"), [(3, 1, 0), (3, 2, 0), (3, 2, 1), (1, 3, 0), (7, 1, 0)])
def test_windows_that_fit_seven_pixels_give_no_warning(kernel, stride, padding):
    assert warnings_of(nn.Conv2d(1, 1, kernel, stride, padding), 1, 7, 7) == []


def test_more_than_one_row_that_is_not_seen_is_counted():
    (line,) = warnings_of(nn.MaxPool2d(4), 1, 11, 11)
    assert line.endswith("the last 3 rows and columns are never seen")


def test_rows_in_the_padding_do_not_count_as_not_seen():
    (line,) = warnings_of(nn.Conv2d(1, 1, 4, stride=4, padding=1), 1, 13, 13)
    assert "(13 - 4 + 2·1) / 4 + 1 = 3.75" in line
    assert line.endswith("the last 2 rows and columns are never seen")


def test_a_window_that_does_not_fit_and_moves_by_more_than_its_size_skips_pixels():
    (line,) = warnings_of(nn.Conv2d(1, 1, 1, stride=2), 1, 8, 8)
    assert "(8 - 1 + 2·0) / 2 + 1 = 4.5" in line
    assert line.endswith("with stride 2 it sees 1 of 4 pixels")


def test_operations_without_a_rule_make_receptive_fields_upper_bounds():
    (line,) = warnings_of(nn.Sequential(nn.Conv2d(1, 1, 3), nn.ConvTranspose2d(1, 1, 2, 2)), 1, 8, 8)
    assert line.startswith("convolution: no rule, so it counts as seeing the whole image")


def test_the_warning_says_if_only_zeros_of_the_padding_are_left_out():
    (line,) = warnings_of(nn.Conv2d(1, 1, 7, stride=2, padding=3), 1, 32, 32)
    assert "(32 - 7 + 2·3) / 2 + 1 = 16.5" in line
    assert line.endswith("only zeros of the padding are left out")


def test_a_dilated_window_is_as_wide_as_it_reaches():
    (line,) = warnings_of(nn.Conv2d(1, 1, 3, stride=2, dilation=2), 1, 10, 10)
    assert "(10 - 5 + 2·0) / 2 + 1 = 3.5" in line


def test_poolings_that_round_up_see_every_row():
    assert warnings_of(nn.MaxPool2d(3, 2, ceil_mode=True), 1, 10, 10) == []


def test_layers_that_miss_the_same_pixels_share_one_warning():
    lines = warnings_of(nn.Sequential(nn.MaxPool2d(2), nn.Conv2d(1, 1, 1), nn.MaxPool2d(2)), 1, 7, 7)
    assert [line.partition(":")[0] for line in lines] == ["0 and 1 more"]


def test_the_warning_names_the_first_layer_whose_receptive_field_exceeds_the_image():
    convolutions = (nn.Conv2d(1, 1, 3, padding=1) for _ in range(5))
    (line,) = warnings_of(nn.Sequential(*convolutions), 1, 7, 7)
    assert line.startswith("from 3 on, 2 of 5 convolutions and poolings have a receptive field (9 pixels and more)")
    assert "7×7 image" in line


def test_a_receptive_field_as_large_as_the_image_gives_no_warning():
    assert warnings_of(nn.Sequential(nn.Conv2d(1, 1, 5), nn.Conv2d(1, 1, 3)), 1, 7, 7) == []


def test_a_convolution_on_a_map_of_one_pixel_gives_a_warning():
    lines = warnings_of(nn.Sequential(nn.Conv2d(1, 1, 8), nn.Conv2d(1, 1, 3, padding=1)), 1, 8, 8)
    assert any(line.startswith("1: its input is 1×1, so only the centre") for line in lines)


def test_a_1x1_convolution_on_one_pixel_gives_no_warning():
    assert warnings_of(nn.Sequential(nn.Conv2d(1, 1, 8), nn.Conv2d(1, 1, 1)), 1, 8, 8) == []


def test_unused_parameters_give_a_warning_with_their_count():
    with torch.device("meta"):
        net = GoogLeNet(aux_heads=True, in_channels=3, num_classes=10)
    lines = [line for line in warnings_of(net, 3, 64, 64) if "not used" in line]
    assert lines == ["aux1, aux2: 4,350,484 parameters are not used in evaluation"]
