"""A net layer by layer: parameters, multiply-accumulates, activations, receptive fields.

They are counted while the net runs once, on the meta device or another one. No formulas repeat what the layers do.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel

from cnnbench.complexity.op_tracer import OpTracer
from cnnbench.complexity.receptive_field import rows_and_columns, window_axes
from cnnbench.models.initialization import CONVOLUTIONS
from cnnbench.ops import convolution, normalization, pooling

ImageShape = tuple[int, int, int]  # (C, H, W)

OUTSIDE_LAYERS = "(outside layers)"  # operations and parameters that belong to no layer
NOT_RUN = "(not run)"  # parameters that no operation reads
NORMS = (nn.modules.batchnorm._BatchNorm, normalization.BatchNorm2d)
GLOBAL_MEAN = nn.modules.pooling._AdaptiveAvgPoolNd
MEANS = (nn.modules.pooling._AvgPoolNd, pooling.MeanPool2d, GLOBAL_MEAN)
BY_HAND = (convolution.SingleChannelConv2d, convolution.Conv2d, pooling.Pool2d)
WINDOWS = (nn.Conv2d, nn.MaxPool2d, nn.AvgPool2d, *BY_HAND)


class Window(NamedTuple):
    """The window of a convolution or pooling with equal values along both sides, in pixels."""

    size: int
    stride: int
    padding: int
    dilation: int

    @property
    def reach(self) -> int:
        """Pixels from its first to its last entry, dilation included."""
        return self.dilation * (self.size - 1) + 1

    def positions(self, side: int) -> float:
        """(W - F + 2P) / S + 1, not rounded: a fraction if the window does not fit evenly into a side of `side` pixels."""
        return (side - self.reach + 2 * self.padding) / self.stride + 1


@dataclass(frozen=True)
class Layer:
    """One run of a layer on one image.

    Attributes:
        name: as in `named_modules()`; `OUTSIDE_LAYERS` for operations in no layer, `NOT_RUN` for unused parameters.
        type: name of its class.
        input, output: shapes without the batch dimension.
        params: trainable parameters; 0 if the layer has run before.
        macs: multiply-accumulates.
        book_flops: "FLOPs" as nndl-practice counts them, see `book_flops_of`.
        activations: elements of the output.
        receptive_field: pixels a side of the image, padding included, on which one output element depends; None: unknown.
        stride: pixels between the receptive fields of neighbours; None if all have the same receptive field.
        window: of a convolution or pooling, else None.
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
    """The layer that raised an error (None if no layer was running), its input's shape, and the error."""

    name: str
    layer: nn.Module | None
    input: tuple[int, ...]
    error: Exception


@dataclass
class ModelSummary:
    """A net on images of one shape (C, H, W).

    Attributes:
        image: (C, H, W).
        layers: in the order in which they run.
        idle: parameters that no operation reads: name -> number of elements.
        output: shape of the net's output without the batch dimension; None if it is no tensor.
        unknown: operations without a rule for their receptive field.
        failure: the error that stopped the net; None if it ran to its end.
    """

    image: ImageShape
    layers: list[Layer] = field(default_factory=list)
    idle: dict[str, int] = field(default_factory=dict)
    output: tuple[int, ...] | None = None
    unknown: set[str] = field(default_factory=set)
    failure: Failure | None = None

    def total(self, key: str) -> int:
        """The sum of `params`, `macs`, `book_flops` or `activations` over the layers."""
        return sum(getattr(layer, key) for layer in self.layers)


def count_parameters(net: nn.Module) -> int:
    """Number of trainable parameters of the net."""
    return sum(p.numel() for p in net.parameters() if p.requires_grad)


def count_macs(net: nn.Module, shape: ImageShape) -> int:
    """Multiply-accumulates of convolutions and matrix products for one image (C, H, W), in evaluation, on the net's device."""
    with traced_evaluation(net, shape) as (image, tracer):
        net(image)
    return tracer.macs


def summarize(net: nn.Module, shape: ImageShape) -> ModelSummary:
    """Runs the net once, in evaluation, on an image (C, H, W). If the net raises, the summary ends there, with the failure."""
    summary = ModelSummary(shape)
    with traced_evaluation(net, shape) as (image, tracer), ExitStack() as hooks:
        recorder = LayerRecorder(net, tracer, summary)
        for layer in recorder.names:
            hooks.enter_context(layer.register_forward_pre_hook(recorder.before))
            hooks.enter_context(layer.register_forward_hook(recorder.after))
        try:
            output = net(image)
        except Exception as error:
            summary.failure = Failure(*recorder.running, error=error)
            return summary
    summary.output = tuple(output.shape[1:]) if isinstance(output, Tensor) else None
    summary.unknown = tracer.unknown
    recorder.finish(net)
    return summary


class LayerRecorder:
    """Adds a `Layer` to a summary for each layer that runs.

    Attributes:
        names: the layers of the net, which are its modules without children, and their names.
        running: name, module and input shape of the layer that runs now; empty between layers.
    """

    def __init__(self, net: nn.Module, tracer: OpTracer, summary: ModelSummary) -> None:
        self.tracer, self.summary = tracer, summary
        self.names = {
            module: name or type(net).__name__
            for name, module in net.named_modules()
            if not any(module.children()) and not isinstance(module, nn.Identity)
        }
        self.counted: set[int] = set()  # ids of parameters
        self.macs_before = 0
        self.running: tuple[str, nn.Module | None, tuple[int, ...]] = ("", None, ())

    def before(self, module: nn.Module, inputs: tuple[Any, ...]) -> None:
        """Notes which layer begins to run."""
        shape = next((tuple(value.shape[1:]) for value in inputs if isinstance(value, Tensor)), ())
        self.running, self.macs_before = (self.names[module], module, shape), self.tracer.macs

    def after(self, module: nn.Module, inputs: tuple[Any, ...], output: Any) -> None:
        """Adds the layer that has run to the summary, unless its input or output is no tensor."""
        first = output[0] if isinstance(output, tuple | list) else output
        if isinstance(first, Tensor) and inputs and isinstance(inputs[0], Tensor):
            self.summary.layers.append(self.layer(module, inputs[0], first))
        self.running = ("", None, ())

    def layer(self, module: nn.Module, x: Tensor, output: Tensor) -> Layer:
        """The facts of a run of `module` with input `x`; a layer by hand gets the axes of a window."""
        window = window_of(module)
        if isinstance(module, BY_HAND) and x in self.tracer.axes and window:
            self.tracer.axes[output] = window_axes(self.tracer.axes[x], *window)
        new = [p for p in module.parameters(recurse=False) if p.requires_grad and id(p) not in self.counted]
        self.counted.update(map(id, new))
        macs = self.tracer.macs - self.macs_before
        axes = self.tracer.axes.get(output, ())
        return Layer(
            name=self.names[module],
            type=type(module).__name__,
            input=tuple(x.shape[1:]),
            output=tuple(output.shape[1:]),
            params=sum(p.numel() for p in new),
            macs=macs,
            book_flops=book_flops_of(module, macs, x, output),
            activations=output[0].numel(),
            receptive_field=max((axis.size for axis in axes), default=None),
            stride=max((axis.jump for axis in axes), default=0) or None,
            window=window,
        )

    def finish(self, net: nn.Module) -> None:
        """Adds rows for operations and parameters outside of layers, and for parameters that were not used."""
        self.summary.idle = {
            name: parameter.numel()
            for name, parameter in net.named_parameters()
            if parameter.requires_grad and id(parameter) not in self.tracer.used
        }
        idle = sum(self.summary.idle.values())
        params = count_parameters(net) - self.summary.total("params") - idle
        macs = self.tracer.macs - self.summary.total("macs")
        for name, row_params, row_macs in ((OUTSIDE_LAYERS, params, macs), (NOT_RUN, idle, 0)):
            if row_params or row_macs:
                self.summary.layers.append(Layer(name, "", (), (), row_params, row_macs, row_macs, 0, None, None))


def book_flops_of(module: nn.Module, macs: int, x: Tensor, output: Tensor) -> int:
    """nndl-practice's "FLOPs" of a layer (section 5.3, `paddle.flops`).

    A multiply-add counts as one. A convolution's bias adds one per output, batch norm takes two per element, average pooling
    one per output (global: two). Max pooling, activations and flattening take none; a linear layer's bias is not counted.
    """
    outputs = output[0].numel()
    if isinstance(module, CONVOLUTIONS):
        return macs + (outputs if module.bias is not None else 0)
    if isinstance(module, NORMS):
        return 2 * outputs
    if isinstance(module, MEANS) and output is not x:
        is_global = isinstance(module, GLOBAL_MEAN) and output.shape[2:].numel() == 1
        return outputs * (2 if is_global else 1)
    return macs


def window_of(module: nn.Module) -> Window | None:
    """The window of a square convolution or pooling of maps; None for other modules, and for padding="same"."""
    if not isinstance(module, WINDOWS):
        return None
    sides = [rows_and_columns(getattr(module, key, 1)) for key in ("kernel_size", "stride", "padding", "dilation")]
    if any(rows != columns or not isinstance(rows, int) for rows, columns in sides):
        return None
    return Window(*(rows for rows, _ in sides))


# ---- running a net -------------------------------------------------------------------------------------------------------


def device_of(net: nn.Module) -> torch.device:
    """The device of the net's first parameter; the default device if it has none."""
    return next(net.parameters(), torch.empty(0)).device


@contextmanager
def traced_evaluation(net: nn.Module, shape: ImageShape) -> Iterator[tuple[Tensor, OpTracer]]:
    """Yields an image (1, C, H, W) and the tracer of what depends on it.

    In the block the net is in evaluation, without gradients, and attention is plain matrix products; then all is restored.
    """
    image = torch.empty(1, *shape, device=device_of(net))
    modes = [(module, module.training) for module in net.modules()]
    fused = torch.backends.mha.get_fastpath_enabled()
    torch.backends.mha.set_fastpath_enabled(False)
    net.eval()
    try:
        with torch.no_grad(), sdpa_kernel(SDPBackend.MATH), OpTracer(image) as tracer:
            yield image, tracer
    finally:
        torch.backends.mha.set_fastpath_enabled(fused)
        for module, training in modes:
            module.training = training
