"""What a net is made of, layer by layer: parameters, multiply-accumulates, activations, receptive fields.

Counted by running it once, on the meta device or any other: no twin of the net that counts by formulas.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel

from cnnbench.complexity.op_tracer import Watch
from cnnbench.complexity.receptive_field import windows
from cnnbench.ops import convolution, normalization, pooling

ELSEWHERE = "(elsewhere)"  # what was done outside of layers
IDLE = "(not run)"  # parameters that took no part
CONVOLUTIONS = (nn.modules.conv._ConvNd, convolution.Conv2d)
NORMS = (nn.modules.batchnorm._BatchNorm, normalization.BatchNorm2d)
GLOBAL_MEANS = (nn.AdaptiveAvgPool1d, nn.AdaptiveAvgPool2d, nn.AdaptiveAvgPool3d)
MEANS = (nn.AvgPool1d, nn.AvgPool2d, nn.AvgPool3d, pooling.MeanPool2d, *GLOBAL_MEANS)
BY_HAND = (convolution.SingleChannelConv2d, convolution.Conv2d, pooling.Pool2d)
WINDOWS = (nn.Conv2d, nn.MaxPool2d, nn.AvgPool2d, *BY_HAND)


class Window(NamedTuple):
    """Of a square convolution or pooling, the same along both sides."""

    size: int
    stride: int
    padding: int
    dilation: int

    @property
    def reach(self) -> int:
        """Pixels from its first to its last, dilation included."""
        return self.dilation * (self.size - 1) + 1

    def positions(self, side: int) -> float:
        """(W - F + 2P) / S + 1: how often it fits along a side; not a whole number where it does not fit evenly."""
        return (side - self.reach + 2 * self.padding) / self.stride + 1


@dataclass(frozen=True)
class Layer:
    """One run of a layer on one image.

    Attributes:
        name: as in the code; `ELSEWHERE` for what no layer did, `IDLE` for parameters that took no part.
        type: its class.
        input, output: shapes, without the images' dimension.
        params: trainable numbers; 0 where the layer was run before.
        macs: multiply-accumulates.
        book_flops: "FLOPs" as nndl-practice counts them: a multiply-add as one, and what `book_flops_of` says.
        activations: numbers that it gives.
        receptive_field: pixels a side of what one number sees of the image, and of the zeros around it; None where unknown.
        stride: pixels between what neighbours see; None where all see the same.
        window: of a convolution or pooling.
    """

    name: str
    type: str
    input: tuple[int, ...]
    output: tuple[int, ...]
    params: int
    macs: int
    book_flops: int
    activations: int
    receptive_field: int | None
    stride: int | None
    window: Window | None = None


@dataclass(frozen=True)
class Failure:
    """Where a net broke off: the layer that raised, what it was given, and why."""

    name: str
    layer: nn.Module | None
    input: tuple[int, ...]
    error: Exception


@dataclass
class Account:
    """A net on images of one shape (C, H, W): its layers in the order of execution, and what took no part."""

    image: tuple[int, int, int]
    layers: list[Layer] = field(default_factory=list)
    idle: dict[str, int] = field(default_factory=dict)  # parameters that took no part: name -> numbers
    output: tuple[int, ...] | None = None  # of the net, where it gives a tensor
    unknown: set[str] = field(default_factory=set)  # operations that count as seeing everything for want of a rule
    failure: Failure | None = None

    def total(self, key: str) -> int:
        """The sum of `params`, `macs`, `book_flops` or `activations` over the layers."""
        return sum(getattr(layer, key) for layer in self.layers)


def parameters(net: nn.Module) -> int:
    """Trainable numbers in the net."""
    return sum(p.numel() for p in net.parameters() if p.requires_grad)


def macs(net: nn.Module, shape: tuple[int, int, int]) -> int:
    """Multiply-accumulates of convolutions and linear layers for one image (C, H, W), in evaluation; on the net's own device."""
    image = torch.empty(1, *shape, device=device_of(net))
    with evaluation(net), Watch(image) as watch:
        net(image)
    return watch.macs


def account(net: nn.Module, shape: tuple[int, int, int]) -> Account:
    """Runs the net once, in evaluation, on an image (C, H, W); a net that raises is told as far as it came."""
    image = torch.empty(1, *shape, device=device_of(net))
    book = Account(shape)
    with evaluation(net), Watch(image) as watch:
        clerk = Clerk(watch, book)
        hooks = [
            hook
            for name, module in net.named_modules()
            if not any(module.children()) and not isinstance(module, nn.Identity)
            for hook in clerk.observe(name or type(net).__name__, module)
        ]
        try:
            output = net(image)
        except Exception as error:
            book.failure = Failure(*clerk.at_work, error=error)
        finally:
            for hook in hooks:
                hook.remove()
    if book.failure is None:
        book.output = tuple(output.shape[1:]) if isinstance(output, Tensor) else None
        book.unknown = watch.unknown
        clerk.close(net)
    return book


class Clerk:
    """Writes a line for each layer that runs."""

    def __init__(self, watch: Watch, book: Account) -> None:
        self.watch, self.book = watch, book
        self.counted: set[int] = set()  # the ids of parameters
        self.macs_before = 0
        self.at_work: tuple[str, nn.Module | None, tuple[int, ...]] = ("", None, ())

    def observe(self, name: str, module: nn.Module) -> Iterator[Any]:
        """The two hooks of a layer."""

        def begin(module: nn.Module, inputs: tuple[Any, ...]) -> None:
            given = next((tuple(value.shape[1:]) for value in inputs if isinstance(value, Tensor)), ())
            self.at_work, self.macs_before = (name, module, given), self.watch.macs

        def end(module: nn.Module, inputs: tuple[Any, ...], output: Any) -> None:
            first = output[0] if isinstance(output, tuple | list) else output
            if isinstance(first, Tensor) and inputs and isinstance(inputs[0], Tensor):
                self.write(name, module, inputs[0], first)
            self.at_work = ("", None, ())

        yield module.register_forward_pre_hook(begin)
        yield module.register_forward_hook(end)

    def write(self, name: str, module: nn.Module, given: Tensor, made: Tensor) -> None:
        """One line."""
        window = window_of(module)
        if isinstance(module, BY_HAND) and given in self.watch.axes and window:
            self.watch.axes[made] = windows(self.watch.axes[given], *window)
        own = [p for p in module.parameters(recurse=False) if p.requires_grad and id(p) not in self.counted]
        self.counted.update(map(id, own))
        macs = self.watch.macs - self.macs_before
        rows, columns = self.watch.axes.get(made) or (None, None)
        self.book.layers.append(
            Layer(
                name=name,
                type=type(module).__name__,
                input=tuple(given.shape[1:]),
                output=tuple(made.shape[1:]),
                params=sum(p.numel() for p in own),
                macs=macs,
                book_flops=book_flops_of(module, macs, given, made),
                activations=made[0].numel(),
                receptive_field=max(rows.size, columns.size) if rows and columns else None,
                stride=(max(rows.jump, columns.jump) or None) if rows and columns else None,
                window=window,
            )
        )

    def close(self, net: nn.Module) -> None:
        """Notes what was done outside of layers, and what took no part, in last lines."""
        self.book.idle = {
            name: parameter.numel()
            for name, parameter in net.named_parameters()
            if parameter.requires_grad and id(parameter) not in self.watch.used
        }
        idle = sum(self.book.idle.values())
        params = parameters(net) - self.book.total("params") - idle
        macs = self.watch.macs - self.book.total("macs")
        for name, numbers, operations in ((ELSEWHERE, params, macs), (IDLE, idle, 0)):
            if numbers or operations:
                self.book.layers.append(Layer(name, "", (), (), numbers, operations, operations, 0, None, None))


def book_flops_of(module: nn.Module, macs: int, given: Tensor, made: Tensor) -> int:
    """nndl-practice's "FLOPs" of a layer (section 5.3, `paddle.flops`).

    A multiply-add counts one; a convolution adds one an output for its bias, batch norm takes two an element, average pooling one
    an output (global: two); max pooling, activations and flattening take none; a linear layer's bias is not counted.
    """
    outputs = made[0].numel()
    if isinstance(module, CONVOLUTIONS):
        return macs + (outputs if module.bias is not None else 0)
    if isinstance(module, NORMS):
        return 2 * outputs
    if isinstance(module, MEANS) and made is not given:
        is_global = isinstance(module, GLOBAL_MEANS) and made.shape[2:].numel() == 1
        return outputs * (2 if is_global else 1)
    return macs


def window_of(module: nn.Module) -> Window | None:
    """The window of a square convolution or pooling of maps; None for others, and for padding="same"."""
    if not isinstance(module, WINDOWS):
        return None
    values = []
    for key in Window._fields:
        value = getattr(module, "kernel_size" if key == "size" else key, 1)
        value = tuple(value) if isinstance(value, tuple | list) else (value, value)
        if len(set(value)) > 1 or not isinstance(value[0], int):
            return None
        values.append(value[0])
    return Window(*values)


# ---- running a net -------------------------------------------------------------------------------------------------------


def device_of(net: nn.Module) -> torch.device:
    """Where its first parameter is."""
    return next(net.parameters(), torch.empty(0)).device


@contextmanager
def evaluation(net: nn.Module) -> Iterator[None]:
    """The net in evaluation, without gradients, attention by plain matrix products; afterwards all is as it was."""
    modes = [(module, module.training) for module in net.modules()]
    fused = torch.backends.mha.get_fastpath_enabled()
    torch.backends.mha.set_fastpath_enabled(False)
    net.eval()
    try:
        with torch.no_grad(), sdpa_kernel(SDPBackend.MATH):
            yield
    finally:
        torch.backends.mha.set_fastpath_enabled(fused)
        for module, training in modes:
            module.training = training
