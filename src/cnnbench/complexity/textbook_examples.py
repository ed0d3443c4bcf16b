"""The worked examples of the textbooks, computed: what the book prints beside what the operators here give."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from cnnbench.complexity.layers import account, parameters
from cnnbench.models.lenet5 import LeNet5
from cnnbench.models.resnet import ResNet
from cnnbench.ops.convolution import Conv2d, SingleChannelConv2d, convolve, convolve_channels, output_size
from cnnbench.ops.normalization import channel_statistics
from cnnbench.ops.pooling import MaxPool2d, MeanPool2d
from cnnbench.ops.reshaping import Flatten, NearestUpsample


@dataclass(frozen=True)
class Example:
    """A question, what the book says, and how it is computed here."""

    topic: str
    question: str
    book: Any
    compute: Callable[[], Any]


def numbers(first: int, last: int, *shape: int) -> Tensor:
    """The floats `first` to `last` in that shape."""
    return torch.arange(first, last + 1, dtype=torch.float32).view(shape)


def shape_of(layer: nn.Module, *shape: int) -> list[int]:
    """What `layer` makes of a tensor of that shape."""
    return list(layer(torch.zeros(shape)).shape)


def two_channels() -> list[list[float]]:
    """0..8 and 1..9, three outputs, all kernels 2×2 of ones; one output, as all are equal."""
    x = torch.stack([numbers(0, 8, 3, 3), numbers(1, 9, 3, 3)])[None]
    first, second, third = convolve_channels(x, torch.ones(3, 2, 2, 2))[0]
    assert first.equal(second)
    assert second.equal(third)
    return first.tolist()


def lenet5_layers(key: str) -> list[int]:
    """Of LeNet-5's layers that have any, on 1×32×32."""
    layers = account(LeNet5(in_channels=1, num_classes=10), (1, 32, 32)).layers
    return [getattr(layer, key) for layer in layers if getattr(layer, key)]


def resnet18() -> ResNet:
    """The book's, whose stem has a bias, without memory."""
    with torch.device("meta"):
        return ResNet(18, stem="imagenet", stem_bias=True, in_channels=1, num_classes=10)


def seen_by(count: int, window: int) -> int | None:
    """Pixels a side that a position of `count` convolutions, one after the other, sees."""
    return account(nn.Sequential(*(Conv2d(1, 1, window) for _ in range(count))), (1, 16, 16)).layers[-1].receptive_field


def fits(size: int, window: int, stride: int, padding: int = 0) -> float:
    """(W - F + 2P) / S + 1; not a whole number where the window does not fit evenly."""
    return (size - window + 2 * padding) / stride + 1


EXAMPLES = [
    Example(
        "convolution",
        "1..9 (3×3) with [[0,1],[2,3]]",
        [[25, 31], [43, 49]],
        lambda: convolve(numbers(1, 9, 1, 3, 3), numbers(0, 3, 2, 2))[0].tolist(),
    ),
    Example("convolution", "8×8, 3×3, padding 1", [2, 8, 8], lambda: shape_of(SingleChannelConv2d(3, 1, 1), 2, 8, 8)),
    Example("convolution", "the same, stride 2", [2, 4, 4], lambda: shape_of(SingleChannelConv2d(3, 2, 1), 2, 8, 8)),
    *(
        Example(
            "convolution",
            f"{kind}, 3×3 on 32×32",
            [1, side, side],
            lambda kind=kind: shape_of(SingleChannelConv2d(3, padding=kind), 1, 32, 32),  # type: ignore[misc]
        )
        for kind, side in (("narrow", 30), ("equal", 32), ("wide", 34))
    ),
    Example("convolution", "2 channels 0..8, 1..9; 2×2 of ones", [[20, 28], [44, 52]], two_channels),
    Example(
        "pooling",
        "1..16 (4×4), max 2×2",
        [[6, 8], [14, 16]],
        lambda: MaxPool2d(2)(numbers(1, 16, 1, 1, 4, 4))[0, 0].tolist(),
    ),
    Example(
        "pooling",
        "1..16 (4×4), mean 2×2",
        [[3.5, 5.5], [11.5, 13.5]],
        lambda: MeanPool2d(2)(numbers(1, 16, 1, 1, 4, 4))[0, 0].tolist(),
    ),
    Example(
        "other",
        "batch norm of 6×3×28×28: means",
        [3],
        lambda: list(channel_statistics(torch.zeros(6, 3, 28, 28))[0].shape),
    ),
    Example(
        "other", "nearest up-sampling ×2 of 1×1×2×2", [1, 1, 4, 4], lambda: shape_of(NearestUpsample(), 1, 1, 2, 2)
    ),
    Example("other", "flatten 2×2×2", [2, 4], lambda: shape_of(Flatten(), 2, 2, 2)),
    Example("sizes", "W 7, F 3, S 1, P 0", 5, lambda: output_size(7, 3)),
    Example("sizes", "W 7, F 3, S 2, P 0", 3, lambda: output_size(7, 3, stride=2)),
    Example("sizes", "W 10, F 3, S 2, P 0: does not fit", 4.5, lambda: fits(10, 3, 2)),
    Example("sizes", "receptive field of two 3×3 convolutions", 5, lambda: seen_by(2, 3)),
    Example("sizes", "receptive field of three 3×3 convolutions", 7, lambda: seen_by(3, 3)),
    Example("weights", "a neuron that sees 5×5×3", 75, lambda: Conv2d(3, 1, 5).weight.numel()),
    Example("weights", "a neuron that sees 3×3×20", 180, lambda: Conv2d(20, 1, 3).weight.numel()),
    Example("weights", "20×20×32 neurons of 900 weights each", 11_520_000, lambda: 20 * 20 * 32 * 900),
    Example("weights", "the same, shared: 32 kernels of 900", 28_800, lambda: Conv2d(100, 32, 3).weight.numel()),
    Example("weights", "a dense neuron on 32×32", 1_025, lambda: parameters(nn.Linear(32 * 32, 1))),
    Example("weights", "a 3×3 kernel", 9, lambda: parameters(SingleChannelConv2d(3))),
    Example("weights", "three 3×3 of C to C channels, in C²", 27, lambda: 3 * Conv2d(1, 1, 3).weight.numel()),
    Example("weights", "one 7×7 of C to C channels, in C²", 49, lambda: Conv2d(1, 1, 7).weight.numel()),
    Example("weights", "3 to 6 channels, 3×3: parameters", 168, lambda: parameters(Conv2d(3, 6, 3))),
    Example(
        "weights",
        "the same on 32×32: the book's FLOPs",
        151_200,
        lambda: account(Conv2d(3, 6, 3), (3, 32, 32)).total("book_flops"),
    ),
    Example("LeNet-5", "parameters by layer", [156, 2416, 48120, 10164, 850], lambda: lenet5_layers("params")),
    Example("LeNet-5", "parameters", 61_706, lambda: sum(lenet5_layers("params"))),
    Example(
        "LeNet-5",
        "the book's FLOPs by layer",
        [122304, 241600, 400, 48120, 10080, 840],
        lambda: lenet5_layers("book_flops"),
    ),
    Example("LeNet-5", "the book's FLOPs", 423_344, lambda: sum(lenet5_layers("book_flops"))),
    Example(
        "ResNet18 with 7×7 stem, 1×32×32",
        "parameters and running statistics",
        11_185_034,
        lambda: parameters(resnet18()) + sum(value.numel() for value in resnet18().buffers() if value.ndim),
    ),
    Example(
        "ResNet18 with 7×7 stem, 1×32×32",
        "the book's FLOPs",
        35_529_728,
        lambda: account(resnet18(), (1, 32, 32)).total("book_flops"),
    ),
]
