"""Receptive fields: which pixels of the image each position of a feature map depends on, by a rule for each PyTorch operation.

An operation without a rule, or one that mixes positions in a way its rule does not cover, counts as depending on all positions.
"""

from __future__ import annotations

from collections.abc import Callable, MutableMapping, Sequence
from dataclasses import dataclass
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
        """The axis after a convolution or pooling."""
        reach = dilation * (size - 1) * self.jump
        return Axis(self.start - padding * self.jump, self.jump * stride, self.size + reach)

    def every_nth(self, first: int, step: int) -> Axis:
        """The axis of every `step`-th position from `first` on; a negative `first` is padding."""
        return Axis(self.start + first * self.jump, self.jump * step, self.size)

    def over_all(self, positions: int) -> Axis:
        """The axis of a value that depends on all `positions`."""
        return Axis(self.start, 0, self.size + (positions - 1) * self.jump)

    def union(self, other: Axis) -> Axis:
        """The axis of a sum or concatenation: it depends on the pixels of both."""
        start, end = min(self.start, other.start), max(self.start + self.size, other.start + other.size)
        return Axis(start, self.jump, end - start)


Axes = tuple[Axis, Axis]  # along rows and columns: the last two dimensions of a map
AxesOf = MutableMapping[Tensor, Axes]  # by identity


def is_map(tensor: Tensor) -> bool:
    """Whether the last two dimensions of a tensor are rows and columns."""
    return tensor.ndim >= 3


def sides(tensor: Tensor) -> tuple[int, ...]:
    """(rows, columns) of a map; (1, 1) for other tensors."""
    return tuple(tensor.shape[-2:]) if is_map(tensor) else (1, 1)


def whole_input(inputs: Sequence[tuple[Axes, Tensor]]) -> Axes:
    """The axes of an output that may depend on every position of every input."""
    return union_of_axes(
        [[axis.over_all(side) for axis, side in zip(axes, sides(x), strict=True)] for axes, x in inputs]
    )


def union_of_axes(axes: Sequence[Sequence[Axis]]) -> Axes:
    """The axes of an output that depends on several maps of the same image; the jumps are those of the first."""
    rows, columns = axes[0]
    for other_rows, other_columns in axes[1:]:
        rows, columns = rows.union(other_rows), columns.union(other_columns)
    return rows, columns


MIXING = {  # operations whose outputs do depend on all positions
    *(aten.mm, aten.addmm, aten.bmm, aten.baddbmm, aten._softmax, aten._log_softmax),
    *(aten.native_layer_norm, aten.native_group_norm, aten.native_batch_norm, aten._native_batch_norm_legit),
    *(aten._adaptive_avg_pool2d, aten.adaptive_max_pool2d),
}


# ---- rules: (known axes, output, the operation's arguments) -> axes; None if the output may depend on all positions ----

Rule = Callable[..., Axes | None]


def pointwise(known: AxesOf, output: Tensor, *args: Any, **kwargs: Any) -> Axes | None:
    """Each output depends on the inputs at its position; a broadcast input reaches all positions."""
    inputs = [leaf for leaf in tree_leaves((args, kwargs)) if isinstance(leaf, Tensor) and leaf in known]
    pairs = [
        [
            axis if axis.jump and side == output_side else axis.over_all(side)
            for axis, side, output_side in zip(known[x], sides(x), sides(output), strict=True)
        ]
        for x in inputs
    ]
    if any(len({pair[side].jump for pair in pairs}) > 1 for side in (0, 1)):
        return whole_input([(known[x], x) for x in inputs])
    return union_of_axes(pairs)


def convolution(known: AxesOf, output: Tensor, x: Tensor, *args: Any, **kwargs: Any) -> Axes | None:
    """aten.convolution(input, weight, bias, stride, padding, dilation, transposed, ...)."""
    weight, bias, stride, padding, dilation, transposed = args[:6]
    depend_on_image = any(isinstance(tensor, Tensor) and tensor in known for tensor in (weight, bias))
    if transposed or depend_on_image or x.ndim != 4:
        return None
    return window_axes(known[x], weight.shape[-2:], stride, padding, dilation)


def max_pool(
    known: AxesOf,
    output: Tensor,
    x: Tensor,
    kernel: Any,
    stride: Any = (),
    padding: Any = 0,
    dilation: Any = 1,
    ceil_mode: bool = False,
) -> Axes | None:
    """aten.max_pool2d_with_indices."""
    return window_axes(known[x], kernel, stride or kernel, padding, dilation)


def mean_pool(
    known: AxesOf, output: Tensor, x: Tensor, kernel: Any, stride: Any = (), padding: Any = 0, *args: Any, **kwargs: Any
) -> Axes | None:
    """aten.avg_pool2d, and avg_pool3d over channels (local response normalization)."""
    return window_axes(known[x], kernel, stride or kernel, padding)


def adaptive_pool(known: AxesOf, output: Tensor, x: Tensor, *args: Any) -> Axes | None:
    """aten._adaptive_avg_pool2d, adaptive_max_pool2d: windows if the output sizes divide the input sizes."""
    sizes = list(zip(x.shape[-2:], output.shape[-2:], strict=True))
    if any(before % after for before, after in sizes):
        return None
    steps = [before // after for before, after in sizes]
    return window_axes(known[x], steps, steps)


def window_axes(axes: Axes, size: Any, stride: Any, padding: Any = 0, dilation: Any = 1) -> Axes:
    """The axes after a window along both sides; a single number holds for both."""
    pairs = (rows_and_columns(value) for value in (size, stride, padding, dilation))
    rows, columns = (axis.window(*numbers) for axis, numbers in zip(axes, zip(*pairs, strict=True), strict=True))
    return rows, columns


def rows_and_columns(value: Any) -> tuple[int, int]:
    """(rows, columns) of a number or of a list of one to three numbers."""
    values = list(value) if isinstance(value, list | tuple) else [value]
    values = values * 2 if len(values) == 1 else values
    return values[-2], values[-1]


def pad(known: AxesOf, output: Tensor, x: Tensor, amounts: Sequence[int], *args: Any) -> Axes | None:
    """aten.constant_pad_nd; `amounts` are left, right, top, bottom, ..."""
    rows, columns = known[x]
    left, top = amounts[0], amounts[2] if len(amounts) > 2 else 0
    return (rows.every_nth(-top, 1), columns.every_nth(-left, 1)) if is_map(x) else None


def slicing(
    known: AxesOf, output: Tensor, x: Tensor, dim: int = 0, start: int | None = None, end: Any = None, step: int = 1
) -> Axes | None:
    """aten.slice."""
    if not is_map(x):
        return None
    axes, side = list(known[x]), from_end(x, dim)
    if side >= -2:
        first = start or 0
        axes[side] = axes[side].every_nth(first if first >= 0 else first + x.shape[side], step)
    return axes[0], axes[1]


def from_end(x: Tensor, dim: int) -> int:
    """A dimension counted from the end: -1 columns, -2 rows, -3 channels, -4 images."""
    return dim % x.ndim - x.ndim


def reduction(known: AxesOf, output: Tensor, x: Tensor, dims: Any = None, *args: Any, **kwargs: Any) -> Axes | None:
    """aten.mean, sum, max, ...: a reduction over channels or images keeps the positions."""
    if (not dims and dims != 0) or not is_map(output):
        return None
    dims = dims if isinstance(dims, list | tuple) else [dims]
    return known[x] if max(from_end(x, dim) for dim in dims) < -2 else None


def reshaping(known: AxesOf, output: Tensor, x: Tensor, *args: Any, **kwargs: Any) -> Axes | None:
    """aten.view, permute, ...: the positions stay if rows and columns do."""
    same_sides = x.shape[-2:] == output.shape[-2:] and x.stride()[-2:] == output.stride()[-2:]
    return known[x] if is_map(x) and is_map(output) and same_sides else None


def batch_norm(known: AxesOf, output: Tensor, x: Tensor, *args: Any, **kwargs: Any) -> Axes | None:
    """aten.native_batch_norm: pointwise, unless it uses the batch's statistics."""
    uses_batch_statistics = next((value for value in args if isinstance(value, bool)), False)
    return None if uses_batch_statistics else known[x]


def selection(known: AxesOf, output: Tensor, x: Tensor, dim: int, index: int) -> Axes | None:
    """aten.select of a channel or image."""
    return known[x] if is_map(output) and from_end(x, dim) < -2 else None


def splitting(known: AxesOf, output: Tensor, x: Tensor, size: Any, dim: int = 0) -> Axes | None:
    """aten.split along channels or images."""
    return known[x] if is_map(x) and from_end(x, dim) < -2 else None


def concatenation(known: AxesOf, output: Tensor, tensors: Sequence[Tensor], dim: int = 0) -> Axes | None:
    """aten.cat, stack along channels or images."""
    if not is_map(output) or from_end(output, dim) >= -2:
        return None
    return pointwise(known, output, tensors)


POINTWISE = (
    aten._native_batch_norm_legit_no_training, aten.native_dropout, aten.clone, aten.detach, aten.alias, aten._to_copy,
    aten.expand,
    # older torch versions do not tag these as pointwise
    aten.leaky_relu, aten.hardswish, aten.prelu, aten._prelu_kernel, aten.log_sigmoid_forward, aten.rrelu_with_noise,
)  # fmt: skip
RESHAPING = (
    aten.view, aten._unsafe_view, aten.reshape, aten.permute, aten.transpose, aten.unsqueeze, aten.squeeze,
)  # fmt: skip
RULES: dict[Any, Rule] = {
    aten.convolution: convolution,
    aten.max_pool2d_with_indices: max_pool,
    **dict.fromkeys((aten.avg_pool2d, aten.avg_pool3d), mean_pool),
    **dict.fromkeys((aten._adaptive_avg_pool2d, aten.adaptive_max_pool2d), adaptive_pool),
    aten.constant_pad_nd: pad,
    aten.slice: slicing,
    **dict.fromkeys((aten.mean, aten.sum, aten.amax, aten.max, aten.min), reduction),
    **dict.fromkeys(RESHAPING, reshaping),
    **dict.fromkeys((aten.native_batch_norm, aten._native_batch_norm_legit), batch_norm),
    aten.select: selection,
    **dict.fromkeys((aten.split, aten.split_with_sizes), splitting),
    **dict.fromkeys((aten.cat, aten.stack), concatenation),
    **dict.fromkeys(POINTWISE, pointwise),
}
