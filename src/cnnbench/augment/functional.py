"""Pure functions that change a batch of images, each image with its own parameters: (N, C, H, W) -> (N, C, H', W').

Pixels are uint8, or float32 on the same scale 0..255. Functions that only move pixels keep the dtype; functions that mix
pixels give float32. Each does to one image what torchvision's operator of the same name does.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor
from torchvision.transforms.v2 import functional as torchvision_functional


def crop(images: Tensor, top: Tensor, left: Tensor, height: int, width: int) -> Tensor:
    """Cuts out windows of `height` × `width` with upper left corners (top, left), each (N,) int64; keeps the dtype.

    >>> images = torch.arange(32).view(2, 1, 4, 4)
    >>> crop(images, torch.tensor([0, 2]), torch.tensor([1, 0]), 1, 2).tolist()
    [[[[1, 2]]], [[[24, 25]]]]
    """
    n, channels, rows, columns = images.shape
    planes = torch.arange(n * channels, device=images.device).view(n, channels, 1) * (rows * columns)
    lines = (top.view(n, 1, 1) + torch.arange(height, device=images.device)) * columns + left.view(n, 1, 1)
    # A row of a window is `width` neighbours in memory; to copy rows is five times as fast as to gather pixels.
    return (
        images.reshape(-1)
        .unfold(0, width, 1)
        .index_select(0, (planes + lines).view(-1))
        .view(n, channels, height, width)
    )


def pad(images: Tensor, pixels: int) -> Tensor:
    """Adds `pixels` black pixels on every side of each image; keeps the dtype.

    >>> pad(torch.ones(1, 1, 1, 1), 1)[0, 0].tolist()
    [[0.0, 0.0, 0.0], [0.0, 1.0, 0.0], [0.0, 0.0, 0.0]]
    """
    return F.pad(images, (pixels,) * 4)


def center_crop(images: Tensor, side: int) -> Tensor:
    """Cuts out the middle `side` × `side` pixels; pads a smaller image with black; keeps the dtype.

    Half a pixel is rounded to even if pixels are cut off, down if pixels are added.

    >>> center_crop(torch.arange(16).view(1, 1, 4, 4), 2)[0, 0].tolist()
    [[5, 6], [9, 10]]
    """
    return torchvision_functional.center_crop(images, [side, side])


def resize(images: Tensor, side: int) -> Tensor:
    """Scales images (N, C, H, W), uint8 or float, to `side` × `side`: bilinear, antialiased, as in PIL; keeps the dtype.

    >>> resize(torch.tensor([[[[0.0, 4.0], [8.0, 12.0]]]]), 1).tolist()
    [[[[6.0]]]]
    """
    if images.shape[-2:] == (side, side):
        return images
    return F.interpolate(images, (side, side), mode="bilinear", antialias=True)


def flip(images: Tensor, which: Tensor, dimension: int) -> Tensor:
    """Mirrors the images for which `which`, (N,) bool, is true: left to right (dimension -1) or upside down (-2).

    >>> flip(torch.tensor([[[[1, 2]]], [[[3, 4]]]]), torch.tensor([True, False]), -1).tolist()
    [[[[2, 1]]], [[[3, 4]]]]
    """
    both = torch.cat([images, images.flip(dimension)])
    return both.index_select(0, torch.arange(len(images), device=images.device) + len(images) * which)


def rotate(images: Tensor, degrees: Tensor, interpolation: str = "bilinear") -> Tensor:
    """Rotates each image about its middle, counter-clockwise; pixels from outside the image are black.

    Args:
        images: (N, C, H, W), uint8 or float32.
        degrees: the angle of each image, (N,) float.
        interpolation: `bilinear` gives float32, `nearest` keeps the dtype.

    >>> rotate(torch.tensor([[[[1, 2], [3, 4]]]]), torch.tensor([90.0]), "nearest")[0, 0].tolist()
    [[2.0, 4.0], [1.0, 3.0]]
    """
    height, width = images.shape[-2:]
    angle = torch.deg2rad(degrees.to(torch.float32))
    cos, sin, zero = torch.cos(angle), torch.sin(angle), torch.zeros_like(angle)
    # An output pixel comes from the position to which the opposite rotation moves it; grid_sample counts in half widths, half heights.
    turn = torch.stack([cos, -sin * height / width, zero, sin * width / height, cos, zero], dim=1).view(-1, 2, 3)
    grid = F.affine_grid(turn, list(images.shape), align_corners=False)
    turned = F.grid_sample(images.float(), grid, interpolation, "zeros", align_corners=False)
    return turned.round().to(images.dtype) if interpolation == "nearest" and images.dtype == torch.uint8 else turned


def resized_crop(
    images: Tensor, top: Tensor, left: Tensor, height: Tensor, width: Tensor, side: int | tuple[int, int]
) -> Tensor:
    """Scales a box of each image, (N,) int64 each, to `side`: bilinear, antialiased if it shrinks; gives float32.

    >>> images, zero, two = torch.tensor([[[[0, 4], [8, 12]]]]), torch.tensor([0]), torch.tensor([2])
    >>> resized_crop(images, zero, zero, two, two, 1).tolist()
    [[[[6.0]]]]
    """
    rows, columns = (side, side) if isinstance(side, int) else side
    zero = torch.zeros_like(top)
    vertical = _weights(images.shape[-2], top, height, rows, zero, height / rows)
    horizontal = _weights(images.shape[-1], left, width, columns, zero, width / columns)
    return _apply(images, vertical, horizontal)


def scaled_crop(images: Tensor, scaled: Tensor, top: Tensor, left: Tensor, side: int) -> Tensor:
    """Scales square images to `scaled` pixels a side, (N,) int64, then cuts out `side` × `side` at (top, left); gives float32.

    >>> images, zero = torch.tensor([[[[0, 4], [8, 12]]]]), torch.tensor([0])
    >>> scaled_crop(images, torch.tensor([4]), zero, zero, 1).tolist()
    [[[[0.0]]]]
    """
    extent = images.shape[-1]
    zero, whole = torch.zeros_like(top), torch.full_like(top, extent)
    vertical = _weights(extent, zero, whole, side, top, extent / scaled)
    horizontal = _weights(extent, zero, whole, side, left, extent / scaled)
    return _apply(images, vertical, horizontal)


def erase(images: Tensor, top: Tensor, left: Tensor, height: Tensor, width: Tensor, value: Tensor) -> Tensor:
    """Fills a box of each image, (N,) int64 each, with `value`, (C,), on the pixels' scale; a box may be empty.

    >>> zero, one = torch.tensor([0]), torch.tensor([1])
    >>> erase(torch.tensor([[[[1, 2]]]]), zero, one, one, one, torch.tensor([9])).tolist()
    [[[[1, 9]]]]
    """
    y = torch.arange(images.shape[-2], device=images.device)
    x = torch.arange(images.shape[-1], device=images.device)
    rows = (y >= top.view(-1, 1)) & (y < (top + height).view(-1, 1))
    columns = (x >= left.view(-1, 1)) & (x < (left + width).view(-1, 1))
    inside = rows[:, None, :, None] & columns[:, None, None, :]
    return torch.where(inside, value.to(images).view(1, -1, 1, 1), images)


def adjust_brightness(images: Tensor, factor: Tensor) -> Tensor:
    """Multiplies the pixels by `factor`, (N,) float, and clips them to 0..255; gives float32.

    >>> adjust_brightness(torch.tensor([[[[100, 200]]]]), torch.tensor([1.5])).tolist()
    [[[[150.0, 255.0]]]]
    """
    return (images * factor.to(torch.float32).view(-1, 1, 1, 1)).clamp_(0, 255)


def adjust_contrast(images: Tensor, factor: Tensor) -> Tensor:
    """Multiplies each pixel's distance from the image's mean grey by `factor`, (N,) float; clips to 0..255; gives float32.

    >>> adjust_contrast(torch.tensor([[[[100.0, 200.0]]]]), torch.tensor([0.5])).tolist()
    [[[[125.0, 175.0]]]]
    """
    images = images.float()
    middle = grey(images).mean(dim=(1, 2, 3), keepdim=True)
    return torch.lerp(middle, images, factor.to(torch.float32).view(-1, 1, 1, 1)).clamp_(0, 255)


def grey(images: Tensor) -> Tensor:
    """Grey values (N, 1, H, W), float32: luma of ITU-R 601 for three channels, else the mean over the channels.

    >>> grey(torch.tensor([[[[10000]], [[0]], [[0]]]])).tolist()
    [[[[2989.0]]]]
    """
    if images.shape[1] != 3:
        return images.mean(dim=1, keepdim=True, dtype=torch.float32)
    red, green, blue = images.unbind(dim=1)
    return (0.2989 * red + 0.587 * green + 0.114 * blue).unsqueeze(1)


def _weights(extent: int, low: Tensor, length: Tensor, out: int, shift: Tensor, scale: Tensor) -> Tensor:
    """Weights (N, out, extent) of each of `extent` input pixels in each of `out` output pixels, along one axis.

    The centre of output pixel i is at `low + (i + shift + 0.5) * scale` in the input. Weights fall off linearly over one input
    pixel, or over `scale` pixels if that is more (antialiasing). Pixels outside [low, low + length) have no weight.
    """
    device = low.device
    low, length, shift, scale = (value.to(torch.float32).view(-1, 1, 1) for value in (low, length, shift, scale))
    centre = low + (torch.arange(out, device=device).view(1, -1, 1) + shift + 0.5) * scale  # (N, out, 1)
    pixel = torch.arange(extent, device=device).view(1, 1, -1) + 0.5  # (1, 1, extent)
    weight = (1 - (pixel - centre).abs() / scale.clamp(min=1)).clamp_(min=0)
    weight *= (pixel > low) & (pixel < low + length)
    return weight / weight.sum(dim=2, keepdim=True)


def _apply(images: Tensor, vertical: Tensor, horizontal: Tensor) -> Tensor:
    """Resamples rows and columns by their weights: (N, C, H, W), (N, H', H), (N, W', W) -> (N, C, H', W'), float32."""
    return vertical.unsqueeze(1) @ (images.float() @ horizontal.transpose(1, 2).unsqueeze(1))
