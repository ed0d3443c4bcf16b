"""Traces PyTorch's operations while a net runs: multiply-accumulates, and the receptive field of each map.

Because it traces operations and not layers, it handles functional calls and branches, on any device including meta.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import flop_registry
from torch.utils.weak import WeakIdKeyDictionary

from cnnbench.complexity.receptive_field import (
    MIXING,
    RULES,
    AxesOf,
    Axis,
    convolution,
    pointwise,
    tensors_in,
    whole_input,
)


class OpTracer(TorchDispatchMode):
    """Context manager that records the axes of all tensors that depend on `image` (N, C, H, W), and multiply-accumulates.

    Attributes:
        axes: tensor -> its `Axis` along rows and along columns.
        macs: multiply-accumulates of convolutions and matrix products so far.
        used: ids of the parameters that an operation has read.
        unknown: operations without a rule; their outputs count as depending on the whole input.
    """

    def __init__(self, image: Tensor) -> None:
        super().__init__()
        self.axes: AxesOf = WeakIdKeyDictionary()
        self.axes[image] = (Axis(), Axis())
        self.macs = 0
        self.used: set[int] = set()
        self.unknown: set[str] = set()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Runs an operation, counts its multiply-accumulates and records its axes."""
        kwargs = kwargs or {}
        packet = func._overloadpacket
        if packet not in flop_registry and func is not torch.ops.prim.device.default:
            with self:  # a composite operation: trace its parts
                result = func.decompose(*args, **kwargs)
            if result is not NotImplemented:
                return result
        result = func(*args, **kwargs)
        if packet in flop_registry:
            self.macs += flop_registry[packet](*args, **kwargs, out_val=result) // 2
        self._record_axes(func, args, kwargs, result)
        return result

    def _record_axes(self, func: Any, args: Any, kwargs: Any, result: Any) -> None:
        tensors, outputs = tensors_in((args, kwargs)), tensors_in(result)
        self.used.update(id(tensor) for tensor in tensors if isinstance(tensor, nn.Parameter))
        inputs = [tensor for tensor in tensors if tensor in self.axes]
        if not inputs or not outputs:
            return
        packet, defaults = func._overloadpacket, {a.name: a.default_value for a in func._schema.arguments}
        arguments = defaults | dict(zip(defaults, args, strict=False)) | kwargs
        rule = RULES.get(packet, pointwise if torch.Tag.pointwise in func.tags else None)
        axes = rule(self.axes, outputs[0], args[0], **arguments) if rule else None
        if axes is None and packet not in MIXING and rule in (None, convolution):
            self.unknown.add(packet.__name__)
        axes = axes or whole_input(self.axes, inputs)
        for output in outputs:
            self.axes[output] = axes
        base = args[0]._base if func._schema.is_mutable and isinstance(args[0], Tensor) else None
        if base is not None:  # the output is written into a part of a larger tensor
            self.axes[base] = whole_input(self.axes, [tensor for tensor in (base, *inputs) if tensor in self.axes])
