"""Receptive fields: which pixels of the image each position of a feature map depends on, by a rule for each PyTorch operation.

An operation without a rule, or one that mixes positions in a way its rule does not cover, counts as depending on all positions.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, MutableMapping, Sequence
from dataclasses import dataclass
from functools import reduce
from typing import Any

import torch
from torch import Tensor
from torch.utils._pytree import tree_leaves

aten = torch.ops.aten


@dataclass(frozen=True)
class Axis:
    """Along one side of the image, position p of a map depends on the `size` pixels from `start + p * jump` on.

    Pixels outside of the image count too: they are padding. If `jump` is 0, all positions depend on the same pixels.
    """

    start: int = 0
    jump: int = 1
    size: int = 1

    def window(self, size: int, stride: int = 1, padding: int = 0, dilation: int = 1) -> Axis:
        """The axis after a convolution or pooling; a window of one pixel with a negative padding leaves out the first positions."""
        reach = dilation * (size - 1) * self.jump
        return Axis(self.start - padding * self.jump, self.jump * stride, self.size + reach)

    def over_all(self, positions: int) -> Axis:
        """The axis of a value that depends on all `positions`."""
        return Axis(self.start, 0, self.size + (positions - 1) * self.jump)

    def union(self, other: Axis) -> Axis:
        """The axis of a sum or concatenation: it depends on the pixels of both."""
        start, end = min(self.start, other.start), max(self.start + self.size, other.start + other.size)
        return Axis(start, self.jump, end - start)


Axes = tuple[Axis, ...]  # along rows and along columns: the last two dimensions of a map
AxesOf = MutableMapping[Tensor, Axes]  # by identity


def is_map(tensor: Tensor) -> bool:
    """Whether the last two dimensions of a tensor are rows and columns."""
    return tensor.ndim >= 3


def sides(tensor: Tensor) -> tuple[int, ...]:
    """(rows, columns) of a map; (1, 1) for other tensors."""
    return tuple(tensor.shape[-2:]) if is_map(tensor) else (1, 1)


def tensors_in(tree: Any) -> list[Tensor]:
    """The tensors in an operation's arguments or result, lists and dicts of them included, in order."""
    return [leaf for leaf in tree_leaves(tree) if isinstance(leaf, Tensor)]


def whole_input(known: AxesOf, inputs: Iterable[Tensor]) -> Axes:
    """The axes of an output that may depend on every position of every input; `known` holds the axes of the inputs."""
    return union_of_axes([[axis.over_all(side) for axis, side in zip(known[x], sides(x), strict=True)] for x in inputs])


def union_of_axes(axes: Iterable[Iterable[Axis]]) -> Axes:
    """The axes of an output that depends on several maps of the same image; the jumps are those of the first."""
    return tuple(reduce(Axis.union, along_side) for along_side in zip(*axes, strict=True))


MIXING = {  # operations that need no rule: their outputs do depend on all positions
    aten.mm, aten.addmm, aten.bmm, aten.baddbmm, aten._softmax, aten._log_softmax, aten.native_layer_norm,
    aten.native_group_norm,
}  # fmt: skip


# ---- rules: (known axes, output, the operation's first argument, its arguments by their names in PyTorch) -> axes,
# ---- None if the output may depend on all positions ----------------------------------------------------------------------

Rule = Callable[..., Axes | None]


def pointwise(known: AxesOf, output: Tensor, x: Any, /, **arguments: Any) -> Axes | None:
    """Each output depends on the inputs at its position; a broadcast input reaches all positions."""
    inputs = [tensor for tensor in tensors_in((x, arguments)) if tensor in known]
    pairs = [
        [
            axis if axis.jump and side == output_side else axis.over_all(side)
            for axis, side, output_side in zip(known[x], sides(x), sides(output), strict=True)
        ]
        for x in inputs
    ]
    if any(len({axis.jump for axis in along_side}) > 1 for along_side in zip(*pairs, strict=True)):
        return whole_input(known, inputs)
    return union_of_axes(pairs)


def convolution(
    known: AxesOf,
    output: Tensor,
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    stride: Any,
    padding: Any,
    dilation: Any,
    transposed: bool,
    **others: Any,
) -> Axes | None:
    """aten.convolution of a batch (N, C, H, W), with weights that do not depend on the image."""
    if transposed or weight in known or bias in known or x.ndim != 4:
        return None
    return window_axes(known[x], weight.shape[-2:], stride, padding, dilation)


def pool(
    known: AxesOf,
    output: Tensor,
    x: Tensor,
    kernel_size: Any,
    stride: Any,
    padding: Any,
    dilation: Any = 1,
    **others: Any,
) -> Axes | None:
    """aten.max_pool2d_with_indices, avg_pool2d, and avg_pool3d over channels (local response normalization)."""
    return window_axes(known[x], kernel_size, stride or kernel_size, padding, dilation)


def adaptive_pool(known: AxesOf, output: Tensor, x: Tensor, **others: Any) -> Axes | None:
    """aten._adaptive_avg_pool2d, adaptive_max_pool2d: windows if the output sizes divide the input sizes."""
    steps, rests = zip(*map(divmod, x.shape[-2:], output.shape[-2:]), strict=True)
    return None if any(rests) else window_axes(known[x], steps, steps)


def window_axes(axes: Axes, size: Any, stride: Any, padding: Any = 0, dilation: Any = 1) -> Axes:
    """The axes after a window along both sides; a single number holds for both."""
    pairs = (rows_and_columns(value) for value in (size, stride, padding, dilation))
    return tuple(axis.window(*numbers) for axis, numbers in zip(axes, zip(*pairs, strict=True), strict=True))


def rows_and_columns(value: Any) -> list[int]:
    """[rows, columns] of a number or of a list of one to three numbers."""
    return (2 * list(value) if isinstance(value, list | tuple) else [value, value])[-2:]


def pad(known: AxesOf, output: Tensor, x: Tensor, pad: Sequence[int], **others: Any) -> Axes | None:
    """aten.constant_pad_nd; `pad` is the numbers of left, right, top, bottom, ... pixels."""
    left, top = pad[0], pad[2] if len(pad) > 2 else 0
    return window_axes(known[x], 1, 1, [top, left]) if is_map(x) else None


def slicing(
    known: AxesOf, output: Tensor, x: Tensor, dim: int, start: int | None, step: int, **others: Any
) -> Axes | None:
    """aten.slice: every `step`-th position from `start` on."""
    if not is_map(x):
        return None
    axes, side = list(known[x]), from_end(x, dim)
    if side >= -2:
        first = start or 0
        axes[side] = axes[side].window(1, step, -first if first >= 0 else -first - x.shape[side])
    return tuple(axes)


def from_end(x: Tensor, dim: int) -> int:
    """A dimension counted from the end: -1 columns, -2 rows, -3 channels, -4 images."""
    return dim % x.ndim - x.ndim


def along_channels(known: AxesOf, output: Tensor, x: Tensor, dim: Any = None, **others: Any) -> Axes | None:
    """aten.select, split, mean, sum, max, ...: the positions stay if `dim`, a number or a list, is of channels or images."""
    dims = dim if isinstance(dim, list | tuple) else [dim]
    keeps = dim not in (None, []) and is_map(output) and all(from_end(x, number) < -2 for number in dims)
    return known[x] if keeps else None


def reshaping(known: AxesOf, output: Tensor, x: Tensor, **others: Any) -> Axes | None:
    """aten.view, permute, ...: the positions stay if rows and columns do."""
    same_sides = x.shape[-2:] == output.shape[-2:] and x.stride()[-2:] == output.stride()[-2:]
    return known[x] if is_map(x) and is_map(output) and same_sides else None


def batch_norm(known: AxesOf, output: Tensor, x: Tensor, training: bool, **others: Any) -> Axes | None:
    """aten.native_batch_norm: pointwise, unless it uses the batch's statistics, as in `training`."""
    return None if training else known[x]


def concatenation(known: AxesOf, output: Tensor, tensors: Sequence[Tensor], /, dim: int, **others: Any) -> Axes | None:
    """aten.cat, stack along channels or images."""
    return pointwise(known, output, tensors) if is_map(output) and from_end(output, dim) < -2 else None


OPERATIONS: dict[Rule, list[Any]] = {
    convolution: [aten.convolution],
    pool: [aten.max_pool2d_with_indices, aten.avg_pool2d, aten.avg_pool3d],
    adaptive_pool: [aten._adaptive_avg_pool2d, aten.adaptive_max_pool2d],
    pad: [aten.constant_pad_nd],
    slicing: [aten.slice],
    along_channels: [
        aten.select, aten.split, aten.split_with_sizes, aten.mean, aten.sum, aten.amax, aten.max, aten.min,
    ],
    reshaping: [
        aten.view, aten._unsafe_view, aten.reshape, aten.permute, aten.transpose, aten.unsqueeze, aten.squeeze,
    ],
    batch_norm: [aten.native_batch_norm, aten._native_batch_norm_legit],
    concatenation: [aten.cat, aten.stack],
    pointwise: [
        aten._native_batch_norm_legit_no_training, aten.native_dropout, aten.clone, aten.detach, aten.alias,
        aten._to_copy, aten.expand,
        # older torch versions do not tag these as pointwise
        aten.leaky_relu, aten.hardswish, aten.prelu, aten._prelu_kernel, aten.log_sigmoid_forward,
        aten.rrelu_with_noise,
    ],
}  # fmt: skip
RULES = {operation: rule for rule, operations in OPERATIONS.items() for operation in operations}
