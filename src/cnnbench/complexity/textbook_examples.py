"""Worked examples of the textbooks: the value that the book prints, and its computation with the operators of `ops/`."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from cnnbench.complexity.layers import Window, count_parameters, summarize
from cnnbench.models.lenet5 import LeNet5
from cnnbench.models.resnet import ResNet
from cnnbench.ops.convolution import Conv2d, SingleChannelConv2d, convolve, convolve_channels, output_size
from cnnbench.ops.normalization import channel_statistics
from cnnbench.ops.pooling import MaxPool2d, MeanPool2d
from cnnbench.ops.reshaping import Flatten, NearestUpsample


def integer_range(first: int, last: int, *shape: int) -> Tensor:
    """The integers from `first` to `last` as float32, in this shape."""
    return torch.arange(first, last + 1, dtype=torch.float32).view(shape)


def output_shape(layer: nn.Module, *shape: int) -> list[int]:
    """The shape of the layer's output for an input of this shape."""
    return list(layer(torch.zeros(shape)).shape)


def two_channels() -> list[list[float]]:
    """One of the three equal output maps of channels 0..8 and 1..9 (3×3 each), with 2×2 kernels of ones."""
    x = torch.stack([integer_range(0, 8, 3, 3), integer_range(1, 9, 3, 3)])[None]
    maps = convolve_channels(x, torch.ones(3, 2, 2, 2))[0]
    assert maps.eq(maps[0]).all()
    return maps[0].tolist()


def lenet5_layers(key: str) -> list[int]:
    """`params` or `book_flops` of the layers of LeNet-5 on 1×32×32, without zeros."""
    layers = summarize(LeNet5(in_channels=1, num_classes=10), (1, 32, 32)).layers
    return [getattr(layer, key) for layer in layers if getattr(layer, key)]


def stacked_receptive_field(count: int) -> int | None:
    """Receptive field, in pixels a side, of `count` 3×3 convolutions in sequence."""
    net = nn.Sequential(*(Conv2d(1, 1, 3) for _ in range(count)))
    return summarize(net, (1, 16, 16)).layers[-1].receptive_field


def worked_examples() -> dict[str, list[tuple[str, Any, Any]]]:
    """Computes the examples: topic -> (question, the book's answer, the value computed here) of each.

    Maps are lists of rows; a shape is a list of sizes.
    """
    map16 = integer_range(1, 16, 1, 1, 4, 4)
    params, book_flops = lenet5_layers("params"), lenet5_layers("book_flops")
    with torch.device("meta"):
        resnet = ResNet(18, stem="imagenet", stem_bias=True, in_channels=1, num_classes=10)
    return {
        "convolution": [
            (
                "1..9 (3×3) with [[0,1],[2,3]]",
                [[25, 31], [43, 49]],
                convolve(integer_range(1, 9, 1, 3, 3), integer_range(0, 3, 2, 2))[0].tolist(),
            ),
            ("8×8, 3×3, padding 1", [2, 8, 8], output_shape(SingleChannelConv2d(3, 1, 1), 2, 8, 8)),
            ("8×8, 3×3, padding 1, stride 2", [2, 4, 4], output_shape(SingleChannelConv2d(3, 2, 1), 2, 8, 8)),
            *(
                (f"{kind}, 3×3 on 32×32", [1, side, side], output_shape(SingleChannelConv2d(3, 1, kind), 1, 32, 32))
                for kind, side in {"narrow": 30, "equal": 32, "wide": 34}.items()
            ),
            ("2 channels 0..8, 1..9; 2×2 of ones", [[20, 28], [44, 52]], two_channels()),
        ],
        "pooling": [
            (
                "1..16 (4×4), max 2×2",
                [[6, 8], [14, 16]],
                MaxPool2d(2)(map16)[0, 0].tolist(),
            ),
            (
                "1..16 (4×4), mean 2×2",
                [[3.5, 5.5], [11.5, 13.5]],
                MeanPool2d(2)(map16)[0, 0].tolist(),
            ),
        ],
        "other": [
            (
                "batch norm of 6×3×28×28: means",
                [3],
                list(channel_statistics(torch.zeros(6, 3, 28, 28))[0].shape),
            ),
            ("nearest up-sampling ×2 of 1×1×2×2", [1, 1, 4, 4], output_shape(NearestUpsample(), 1, 1, 2, 2)),
            ("flatten 2×2×2", [2, 4], output_shape(Flatten(), 2, 2, 2)),
        ],
        "sizes": [
            ("W 7, F 3, S 1, P 0", 5, output_size(7, 3)),
            ("W 7, F 3, S 2, P 0", 3, output_size(7, 3, stride=2)),
            ("W 10, F 3, S 2, P 0: does not fit", 4.5, Window(3, 2, 0, 1).positions(10)),
            ("receptive field of two 3×3 convolutions", 5, stacked_receptive_field(2)),
            ("receptive field of three 3×3 convolutions", 7, stacked_receptive_field(3)),
        ],
        "weights": [
            ("a neuron that sees 5×5×3", 75, Conv2d(3, 1, 5).weight.numel()),
            ("a neuron that sees 3×3×20", 180, Conv2d(20, 1, 3).weight.numel()),
            ("20×20×32 neurons of 900 weights each", 11_520_000, 20 * 20 * 32 * 900),
            ("these, shared: 32 kernels of 900", 28_800, Conv2d(100, 32, 3).weight.numel()),
            ("a dense neuron on 32×32", 1_025, count_parameters(nn.Linear(32 * 32, 1))),
            ("a 3×3 kernel", 9, count_parameters(SingleChannelConv2d(3))),
            ("three 3×3 of C to C channels, in C²", 27, 3 * Conv2d(1, 1, 3).weight.numel()),
            ("one 7×7 of C to C channels, in C²", 49, Conv2d(1, 1, 7).weight.numel()),
            ("3 to 6 channels, 3×3: parameters", 168, count_parameters(Conv2d(3, 6, 3))),
            (
                "3 to 6 channels, 3×3, on 32×32: the book's FLOPs",
                151_200,
                summarize(Conv2d(3, 6, 3), (3, 32, 32)).total("book_flops"),
            ),
        ],
        "LeNet-5": [
            ("parameters by layer", [156, 2416, 48120, 10164, 850], params),
            ("parameters", 61_706, sum(params)),
            (
                "the book's FLOPs by layer",
                [122304, 241600, 400, 48120, 10080, 840],
                book_flops,
            ),
            ("the book's FLOPs", 423_344, sum(book_flops)),
        ],
        "ResNet18 with 7×7 stem, 1×32×32": [
            (
                "parameters and running statistics",
                11_185_034,
                count_parameters(resnet) + sum(value.numel() for value in resnet.buffers() if value.ndim),
            ),
            ("the book's FLOPs", 35_529_728, summarize(resnet, (1, 32, 32)).total("book_flops")),
        ],
    }
