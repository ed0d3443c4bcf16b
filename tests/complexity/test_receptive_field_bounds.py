"""Operations without an exact rule: the stated receptive field may be too large, never too small."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from cnnbench.complexity.op_tracer import OpTracer
from cnnbench.complexity.receptive_field import Axes
from receptive_fields import Call, predicted, reached

# ---- other operations: the receptive field may be too large, never too small ---------------------------------------------


def written_into_zeros(x: Tensor) -> Tensor:
    """Zero padding as a beginner writes it."""
    padded = torch.zeros(1, 2, 10, 10, dtype=x.dtype)
    padded[:, :, 1:-1, 1:-1] = x
    return padded


def written_into_part(x: Tensor) -> Tensor:
    """Every second row is replaced by what sees more."""
    y = x.clone()
    y[:, :, ::2] = F.avg_pool2d(x, 3, 1, 1)[:, :, ::2]
    return y


def attention(x: Tensor) -> Tensor:
    """Each position attends to all others."""
    tokens = x.flatten(2).transpose(1, 2)
    return (tokens @ tokens.transpose(1, 2)).softmax(-1).matmul(tokens).transpose(1, 2).unflatten(2, (8, 8))


def by_pixels_kernel(x: Tensor) -> Tensor:
    """A convolution whose weights the image decides."""
    return F.conv2d(x, x.mean((0, 2, 3))[:, None, None, None].expand(2, 2, 3, 3), padding=1)


ODD = {
    "einsum": lambda x: torch.einsum("nchw,ncvw->nchv", x, x),
    "matrix product of rows and columns": lambda x: x @ x,
    "transposed convolution": nn.ConvTranspose2d(2, 3, 3, stride=2).double(),
    "pixel shuffle": lambda x: F.pixel_shuffle(torch.cat([x, x], 1), 2),
    "pixel unshuffle": lambda x: F.pixel_unshuffle(x, 2),
    "channel shuffle": lambda x: x.view(1, 2, 1, 8, 8).transpose(1, 2).reshape(1, 2, 8, 8),
    "rows and columns changed over": lambda x: x.transpose(-1, -2) + x,
    "rotation by 90 degrees": lambda x: torch.rot90(x, 1, (2, 3)),
    "roll": lambda x: x.roll(3, -1),
    "flip": lambda x: x.flip(-2) * x,
    "group norm": nn.GroupNorm(1, 2).double(),
    "layer norm": nn.LayerNorm([2, 8, 8]).double(),
    "instance norm": nn.InstanceNorm2d(2).double().eval(),
    "batch norm without running statistics": nn.BatchNorm2d(2, track_running_stats=False).double().eval(),
    "softmax over space": lambda x: x.flatten(2).softmax(-1).unflatten(2, (8, 8)),
    "softmax over columns": lambda x: x.softmax(-1),
    "attention": attention,
    "nearest up-sampling": lambda x: F.interpolate(x, scale_factor=2),
    "bilinear up-sampling": lambda x: F.interpolate(x, scale_factor=2, mode="bilinear"),
    "bilinear down-sampling": lambda x: F.interpolate(x, size=(5, 3), mode="bilinear", antialias=True),
    "unfold": lambda x: F.unfold(x, 3),
    "unfold and fold": lambda x: F.fold(F.unfold(x, 3, padding=1), (8, 8), 3, padding=1),
    "windows by unfold": lambda x: x.unfold(2, 3, 1).amax(-1),
    "cumulative sum": lambda x: x.cumsum(-1),
    "sorting": lambda x: x.sort(-1).values,
    "chosen rows": lambda x: x[:, :, [3, 2, 1]],
    "one channel": lambda x: x[:, 0],
    "reflected border": lambda x: F.pad(x, (1, 2, 3, 1), mode="reflect"),
    "circular border": nn.Conv2d(2, 2, 3, padding=1, padding_mode="circular").double(),
    "rows side by side": lambda x: torch.cat([x, x.flip(2)], 2),
    "a tensor reshaped across rows": lambda x: x.reshape(1, 2, 16, 4),
    "channels last": lambda x: F.linear(x.permute(0, 2, 3, 1), torch.ones(3, 2, dtype=x.dtype)).permute(0, 3, 1, 2),
    "a row for all rows": lambda x: x + x[:, :, :1],
    "a pixel for all pixels": lambda x: x * x[:, :, 2:3, 5:6],
    "maps of two resolutions": lambda x: x[:, :, :4, :4] + F.avg_pool2d(x, 2),
    "minus the mean": lambda x: x - x.mean((2, 3), keepdim=True),
    "divided by the sum of everything": lambda x: x / x.sum(),
    "a sum over no dimensions, which is over all": lambda x: x * x.sum(dim=[]),
    "the mean of images and channels": lambda x: x.mean((0, 1)) @ x.mean((0, 1)),
    "the mean of channels, flattened": lambda x: x.squeeze(0).mean(0).flatten()[None],
    "the mean of images and channels, turned over": lambda x: x.mean((0, 1)).t()[None, None],
    "Fourier transform": lambda x: torch.fft.rfft2(x).abs(),
    "convolution in three dimensions": lambda x: F.conv3d(x[:, None], torch.ones(1, 1, 2, 3, 3, dtype=x.dtype)),
    "convolution of one dimension over rows": lambda x: F.conv1d(x.flatten(0, 1), torch.ones(3, 8, 3, dtype=x.dtype)),
    "a convolution whose weights the image decides": by_pixels_kernel,
    "written into zeros": written_into_zeros,
    "written into a part of itself": written_into_part,
    "a sum with what was written into zeros": lambda x: x + F.avg_pool2d(written_into_zeros(x), 3, 1),
}


@pytest.mark.parametrize("what", ODD)
def test_an_operation_depends_on_no_more_than_its_receptive_field(what):
    torch.manual_seed(0)
    for first in (nn.Identity(), nn.Conv2d(2, 2, 3, padding=1).double()):
        assert_depends_on_no_more(what, first)


def assert_depends_on_no_more(what: str, first: nn.Module) -> None:
    """Checks each position of the output of `first` and then the operation."""
    net = Call(lambda x: ODD[what](first(x)))
    axes = seen_by_double(net)
    if axes is None:  # unknown
        return
    image = torch.rand(1, 2, 8, 8, dtype=torch.double).add_(0.5).requires_grad_()
    output = net(image)
    maps = output if output.ndim > 2 else output.reshape(1, 1, -1, 1)
    positions = [(row, column) for row in range(maps.shape[-2]) for column in range(maps.shape[-1])]
    found = {position: reached(image, maps, *position) for position in positions}
    assert any(found.values())
    for position, pixels in found.items():
        index = position if output.ndim > 2 else (0, 0)
        for axis, place, (first_pixel, last_pixel) in zip(axes, index, pixels or (), strict=pixels is not None):
            bounds = predicted(axis, place)
            assert bounds[0] <= first_pixel, position
            assert last_pixel <= bounds[1], position


def seen_by_double(net: nn.Module) -> Axes | None:
    """As `seen_by`, of an image of 2 × 8 × 8 in double precision."""
    image = torch.rand(1, 2, 8, 8, dtype=torch.double) + 0.5
    with torch.no_grad(), OpTracer(image) as tracer:
        return tracer.axes.get(net(image))
