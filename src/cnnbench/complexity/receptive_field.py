"""What each position of a feature map can see of the image: the rules by which PyTorch's operations change it.

An operation that has no rule here, or mixes positions in a way that its rule does not know, sees everything.
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
    """Along one side of the image, position p of a map sees the `size` pixels from `start + p * jump` on.

    Pixels outside of the image count: they are what padding stands for. Where `jump` is 0 all positions see the same.
    """

    start: int = 0
    jump: int = 1
    size: int = 1

    def window(self, size: int, stride: int = 1, padding: int = 0, dilation: int = 1) -> Axis:
        """After a convolution or pooling."""
        reach = dilation * (size - 1) * self.jump
        return Axis(self.start - padding * self.jump, self.jump * stride, self.size + reach)

    def part(self, first: int, step: int) -> Axis:
        """Of every `step`-th position, from `first` on, which may be negative: padding."""
        return Axis(self.start + first * self.jump, self.jump * step, self.size)

    def all(self, positions: int) -> Axis:
        """Of something that depends on all positions."""
        return Axis(self.start, 0, self.size + (positions - 1) * self.jump)

    def join(self, other: Axis) -> Axis:
        """Of a sum, or of one beside the other; both see what either sees."""
        start, end = min(self.start, other.start), max(self.start + self.size, other.start + other.size)
        return Axis(start, self.jump, end - start)


Axes = tuple[Axis, Axis]  # rows, columns: of a tensor's last two dimensions, where it is a map
Seen = MutableMapping[Tensor, Axes]  # by identity


def everything(inputs: Sequence[tuple[Axes, Tensor]]) -> Axes:
    """What an output sees that may depend on any position of any input."""
    joined = [
        [axis.all(side) for axis, side in zip(axes, tensor.shape[-2:] if is_map(tensor) else (1, 1), strict=True)]
        for axes, tensor in inputs
    ]
    return joined_axes(joined)


def joined_axes(axes: Sequence[Sequence[Axis]]) -> Axes:
    """Of several that see the same image; a position is lost where they do not move alike."""
    rows, columns = axes[0]
    for other_rows, other_columns in axes[1:]:
        rows, columns = rows.join(other_rows), columns.join(other_columns)
    return rows, columns


def is_map(tensor: Tensor) -> bool:
    """Whether its last two dimensions are rows and columns."""
    return tensor.ndim >= 3


MIXING = {  # operations that do see everything
    *(aten.mm, aten.addmm, aten.bmm, aten.baddbmm, aten._softmax, aten._log_softmax),
    *(aten.native_layer_norm, aten.native_group_norm, aten.native_batch_norm, aten._native_batch_norm_legit),
    *(aten._adaptive_avg_pool2d, aten.adaptive_max_pool2d),
}


# ---- rules: (what is known, output, the operation's arguments) -> axes, or None where it may see everything ---------------------

Rule = Callable[..., Axes | None]


def pointwise(seen: Seen, output: Tensor, *args: Any, **kwargs: Any) -> Axes | None:
    """Each output from the inputs at its position; what is spread over positions is seen by all of them."""
    inputs = [leaf for leaf in tree_leaves((args, kwargs)) if isinstance(leaf, Tensor) and leaf in seen]
    found = []
    for tensor in inputs:
        sides = tensor.shape[-2:] if is_map(tensor) else (1, 1)
        found.append(
            [
                axis if axis.jump and side == wide else axis.all(side)
                for axis, side, wide in zip(
                    seen[tensor], sides, output.shape[-2:] if is_map(output) else (1, 1), strict=True
                )
            ]
        )
    if any(len({pair[side].jump for pair in found}) > 1 for side in (0, 1)):
        return everything([(seen[tensor], tensor) for tensor in inputs])
    return joined_axes(found)


def convolution(seen: Seen, output: Tensor, x: Tensor, *args: Any, **kwargs: Any) -> Axes | None:
    """aten.convolution(input, weight, bias, stride, padding, dilation, transposed, ...)."""
    weight, bias, stride, padding, dilation, transposed = args[:6]
    decided = any(isinstance(tensor, Tensor) and tensor in seen for tensor in (weight, bias))  # by the image
    if transposed or decided or x.ndim != 4:
        return None
    return windows(seen[x], weight.shape[-2:], stride, padding, dilation)


def max_pool(
    seen: Seen,
    output: Tensor,
    x: Tensor,
    kernel: Any,
    stride: Any = (),
    padding: Any = 0,
    dilation: Any = 1,
    ceil_mode: bool = False,
) -> Axes | None:
    """aten.max_pool2d_with_indices."""
    return windows(seen[x], kernel, stride or kernel, padding, dilation)


def mean_pool(
    seen: Seen, output: Tensor, x: Tensor, kernel: Any, stride: Any = (), padding: Any = 0, *args: Any, **kwargs: Any
) -> Axes | None:
    """aten.avg_pool2d, and avg_pool3d over channels (local response normalisation)."""
    return windows(seen[x], kernel, stride or kernel, padding)


def adaptive_pool(seen: Seen, output: Tensor, x: Tensor, *args: Any) -> Axes | None:
    """aten._adaptive_avg_pool2d, adaptive_max_pool2d: windows where the sizes divide each other."""
    sizes = list(zip(x.shape[-2:], output.shape[-2:], strict=True))
    if any(before % after for before, after in sizes):
        return None
    steps = [before // after for before, after in sizes]
    return windows(seen[x], steps, steps)


def windows(axes: Axes, size: Any, stride: Any, padding: Any = 0, dilation: Any = 1) -> Axes:
    """Of a window along both sides; a single number stands for both."""
    pairs = (last_two(value) for value in (size, stride, padding, dilation))
    rows, columns = (axis.window(*numbers) for axis, numbers in zip(axes, zip(*pairs, strict=True), strict=True))
    return rows, columns


def last_two(value: Any) -> tuple[int, int]:
    """(rows, columns) of a number or of a list of one to three."""
    values = list(value) if isinstance(value, list | tuple) else [value]
    values = values * 2 if len(values) == 1 else values
    return values[-2], values[-1]


def pad(seen: Seen, output: Tensor, x: Tensor, amounts: Sequence[int], *args: Any) -> Axes | None:
    """aten.constant_pad_nd: left, right, top, bottom, ..."""
    rows, columns = seen[x]
    left, top = amounts[0], amounts[2] if len(amounts) > 2 else 0
    return (rows.part(-top, 1), columns.part(-left, 1)) if is_map(x) else None


def part(
    seen: Seen, output: Tensor, x: Tensor, dim: int = 0, start: int | None = None, end: Any = None, step: int = 1
) -> Axes | None:
    """aten.slice."""
    if not is_map(x):
        return None
    axes, side = list(seen[x]), dim % x.ndim - x.ndim  # -2 rows, -1 columns
    if side >= -2:
        first = start or 0
        axes[side] = axes[side].part(first if first >= 0 else first + x.shape[side], step)
    return axes[0], axes[1]


def reduction(seen: Seen, output: Tensor, x: Tensor, dims: Any = None, *args: Any, **kwargs: Any) -> Axes | None:
    """aten.mean, sum, max, ...: over channels or images positions stay."""
    if (not dims and dims != 0) or not is_map(output):
        return None
    reduced = [dim % x.ndim - x.ndim for dim in (dims if isinstance(dims, list | tuple) else [dims])]
    return seen[x] if max(reduced) < -2 else None


def reshaping(seen: Seen, output: Tensor, x: Tensor, *args: Any, **kwargs: Any) -> Axes | None:
    """aten.view, permute, ...: positions stay where rows and columns do."""
    kept = (
        is_map(x) and is_map(output) and x.shape[-2:] == output.shape[-2:] and x.stride()[-2:] == output.stride()[-2:]
    )
    return seen[x] if kept else None


def batch_norm(seen: Seen, output: Tensor, x: Tensor, *args: Any, **kwargs: Any) -> Axes | None:
    """aten.native_batch_norm: pointwise, unless it is the batch's own statistics that it takes."""
    by_batch = next((value for value in args if isinstance(value, bool)), False)
    return None if by_batch else seen[x]


def chosen(seen: Seen, output: Tensor, x: Tensor, dim: int, index: int) -> Axes | None:
    """aten.select, of a channel or image."""
    return seen[x] if is_map(output) and dim % x.ndim - x.ndim < -2 else None


def pieces(seen: Seen, output: Tensor, x: Tensor, size: Any, dim: int = 0) -> Axes | None:
    """aten.split, along channels or images."""
    return seen[x] if is_map(x) and dim % x.ndim - x.ndim < -2 else None


def side_by_side(seen: Seen, output: Tensor, tensors: Sequence[Tensor], dim: int = 0) -> Axes | None:
    """aten.cat, stack, along channels or images."""
    if not is_map(output) or dim % output.ndim - output.ndim >= -2:
        return None
    return pointwise(seen, output, tensors)


ACTIVATIONS = (  # which older versions do not say are pointwise
    aten.leaky_relu, aten.hardswish, aten.prelu, aten._prelu_kernel, aten.log_sigmoid_forward, aten.rrelu_with_noise,
)  # fmt: skip
RULES: dict[Any, Rule] = {
    aten.convolution: convolution,
    aten.max_pool2d_with_indices: max_pool,
    **dict.fromkeys((aten.avg_pool2d, aten.avg_pool3d), mean_pool),
    **dict.fromkeys((aten._adaptive_avg_pool2d, aten.adaptive_max_pool2d), adaptive_pool),
    aten.constant_pad_nd: pad,
    aten.slice: part,
    **dict.fromkeys((aten.mean, aten.sum, aten.amax, aten.max, aten.min), reduction),
    **dict.fromkeys(
        (aten.view, aten._unsafe_view, aten.reshape, aten.permute, aten.transpose, aten.unsqueeze, aten.squeeze),
        reshaping,
    ),
    **dict.fromkeys((aten.native_batch_norm, aten._native_batch_norm_legit), batch_norm),
    aten.select: chosen,
    **dict.fromkeys((aten.split, aten.split_with_sizes), pieces),
    **dict.fromkeys((aten.cat, aten.stack), side_by_side),
    **dict.fromkeys(
        (
            aten._native_batch_norm_legit_no_training,
            aten.native_dropout,
            aten.clone,
            aten.detach,
            aten.alias,
            aten._to_copy,
            aten.expand,
        ),
        pointwise,
    ),
    **dict.fromkeys(ACTIVATIONS, pointwise),
}
