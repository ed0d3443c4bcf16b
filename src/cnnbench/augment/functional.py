"""What is done to a batch of images, each with parameters of its own: pure functions, (N, C, H, W) in, (N, C, H', W') out.

Pixels are uint8, or float32 on the same scale 0..255. What only moves pixels keeps the type; what mixes them gives float32.
Each is what torchvision's operator of the same name does to one image.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor


def crop(images: Tensor, top: Tensor, left: Tensor, height: int, width: int) -> Tensor:
    """Windows of `height` × `width` whose upper left corners are (top, left), each (N,) int64."""
    n, channels, rows, columns = images.shape
    planes = torch.arange(n * channels, device=images.device).view(n, channels, 1) * (rows * columns)
    lines = (top.view(n, 1, 1) + torch.arange(height, device=images.device)) * columns + left.view(n, 1, 1)
    # A window's line is `width` neighbours in memory: five times as fast as to gather pixels.
    return (
        images.reshape(-1)
        .unfold(0, width, 1)
        .index_select(0, (planes + lines).view(-1))
        .view(n, channels, height, width)
    )


def pad(images: Tensor, pixels: int) -> Tensor:
    """Black around each image: `pixels` more on every side."""
    return F.pad(images, (pixels,) * 4)


def center_crop(images: Tensor, side: int) -> Tensor:
    """The middle `side` × `side` pixels; a smaller image is set on black."""
    height, width = images.shape[-2:]
    top, left = _middle(height, side), _middle(width, side)
    images = F.pad(images, (max(-left, 0), max(side - width + left, 0), max(-top, 0), max(side - height + top, 0)))
    return images[..., max(top, 0) :, max(left, 0) :][..., :side, :side]


def _middle(have: int, wanted: int) -> int:
    """Where the middle begins: half a pixel is rounded to even where it is cut off, and down where it is added."""
    return round((have - wanted) / 2.0) if have >= wanted else -((wanted - have) // 2)


def flip(images: Tensor, which: Tensor, dimension: int) -> Tensor:
    """Mirrors the images of which `which`, (N,) bool, says so: left to right (dimension -1), upside down (-2)."""
    both = torch.cat([images, images.flip(dimension)])
    return both.index_select(0, torch.arange(len(images), device=images.device) + len(images) * which)


def rotate(images: Tensor, degrees: Tensor, interpolation: str = "bilinear") -> Tensor:
    """Turns each about its middle, counter-clockwise, by `degrees`, (N,) float; what comes in from outside is black.

    Args:
        images: uint8 or float32.
        degrees: of each.
        interpolation: `bilinear` gives float32, `nearest` keeps the type.
    """
    height, width = images.shape[-2:]
    angle = torch.deg2rad(degrees.to(torch.float32))
    cos, sin, zero = torch.cos(angle), torch.sin(angle), torch.zeros_like(angle)
    # A pixel of the result comes from where the opposite turn takes it; grid_sample counts in half widths and half heights.
    turn = torch.stack([cos, -sin * height / width, zero, sin * width / height, cos, zero], dim=1).view(-1, 2, 3)
    grid = F.affine_grid(turn, list(images.shape), align_corners=False)
    turned = F.grid_sample(images.float(), grid, interpolation, "zeros", align_corners=False)
    return turned.round().to(images.dtype) if interpolation == "nearest" and images.dtype == torch.uint8 else turned


def resized_crop(
    images: Tensor, top: Tensor, left: Tensor, height: Tensor, width: Tensor, side: int | tuple[int, int]
) -> Tensor:
    """Boxes of each image, (N,) int64 each, scaled to `side`: bilinear, antialiased where they shrink; float32."""
    rows, columns = (side, side) if isinstance(side, int) else side
    one = torch.ones_like(top, dtype=torch.float32)
    vertical = _weights(images.shape[-2], top, height, rows, 0 * one, height / rows)
    horizontal = _weights(images.shape[-1], left, width, columns, 0 * one, width / columns)
    return _apply(images, vertical, horizontal)


def scaled_crop(images: Tensor, scaled: Tensor, top: Tensor, left: Tensor, side: int) -> Tensor:
    """Square images scaled to `scaled`, (N,) int64, pixels a side, then their windows of `side` × `side` at (top, left); float32."""
    extent = images.shape[-1]
    zero, whole = torch.zeros_like(top), torch.full_like(top, extent)
    vertical = _weights(extent, zero, whole, side, top.float(), extent / scaled)
    horizontal = _weights(extent, zero, whole, side, left.float(), extent / scaled)
    return _apply(images, vertical, horizontal)


def erase(images: Tensor, top: Tensor, left: Tensor, height: Tensor, width: Tensor, value: Tensor) -> Tensor:
    """Boxes of each image, (N,) int64 each, filled with `value`, (C,) on the scale of the pixels; a box may be empty."""
    y = torch.arange(images.shape[-2], device=images.device)
    x = torch.arange(images.shape[-1], device=images.device)
    rows = (y >= top.view(-1, 1)) & (y < (top + height).view(-1, 1))
    columns = (x >= left.view(-1, 1)) & (x < (left + width).view(-1, 1))
    inside = rows[:, None, :, None] & columns[:, None, None, :]
    return torch.where(inside, value.to(images.dtype).view(1, -1, 1, 1), images)


def adjust_brightness(images: Tensor, factor: Tensor) -> Tensor:
    """Pixels times `factor`, (N,) float, clipped to 0..255; float32."""
    return (images * factor.to(torch.float32).view(-1, 1, 1, 1)).clamp_(0, 255)


def adjust_contrast(images: Tensor, factor: Tensor) -> Tensor:
    """Each image's distance from the mean of its grey values, times `factor`, (N,) float, clipped to 0..255; float32."""
    images = images.float()
    middle = grey(images).mean(dim=(1, 2, 3), keepdim=True)
    return torch.lerp(middle, images, factor.to(torch.float32).view(-1, 1, 1, 1)).clamp_(0, 255)


def grey(images: Tensor) -> Tensor:
    """(N, 1, H, W): luma as ITU-R 601 weighs red, green and blue; other images' mean over channels."""
    if images.shape[1] != 3:
        return images.mean(dim=1, keepdim=True, dtype=torch.float32)
    red, green, blue = images.unbind(dim=1)
    return (0.2989 * red + 0.587 * green + 0.114 * blue).unsqueeze(1)


def _weights(extent: int, low: Tensor, length: Tensor, out: int, shift: Tensor, scale: Tensor) -> Tensor:
    """(N, out, extent): how much each of `extent` input pixels counts for each of `out` output pixels, along one axis.

    Output pixel i lies at `low + (i + shift + 0.5) * scale` in the input. Weights fall off linearly over one input pixel, or
    over `scale` of them where that is more (antialiasing); inputs outside [low, low + length) do not count.
    """
    device = low.device
    low, length, shift, scale = (value.to(torch.float32).view(-1, 1, 1) for value in (low, length, shift, scale))
    centre = low + (torch.arange(out, device=device).view(1, -1, 1) + shift + 0.5) * scale  # (N, out, 1)
    pixel = torch.arange(extent, device=device).view(1, 1, -1) + 0.5  # (1, 1, extent)
    weight = (1 - (pixel - centre).abs() / scale.clamp(min=1)).clamp_(min=0)
    weight *= (pixel > low) & (pixel < low + length)
    return weight / weight.sum(dim=2, keepdim=True)


def _apply(images: Tensor, vertical: Tensor, horizontal: Tensor) -> Tensor:
    """Resamples rows and columns: (N, C, H, W), (N, H', H), (N, W', W) -> (N, C, H', W') float32."""
    return vertical.unsqueeze(1) @ (images.float() @ horizontal.transpose(1, 2).unsqueeze(1))
