"""Following what a net computes, operation by operation: multiply-accumulates, and what each map sees of the image.

Works on any device, the meta device included, and for functional calls and branches as well as for layers: it is PyTorch's own
operations that are watched.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.flop_counter import flop_registry
from torch.utils.weak import WeakIdKeyDictionary

from cnnbench.complexity.receptive_field import MIXING, RULES, Axis, Seen, convolution, everything, pointwise


class Watch(TorchDispatchMode):
    """While it is entered: the axes of every tensor that depends on `image` (N, C, H, W), and multiply-accumulates.

    Attributes:
        axes: tensor -> rows' and columns' `Axis`.
        macs: multiply-accumulates of convolutions and matrix products until now.
        used: the ids of the parameters that took part.
        unknown: operations that count as seeing everything because no rule says what they see.
    """

    def __init__(self, image: Tensor) -> None:
        super().__init__()
        self.axes: Seen = WeakIdKeyDictionary()
        self.axes[image] = (Axis(), Axis())
        self.macs = 0
        self.used: set[int] = set()
        self.unknown: set[str] = set()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Runs an operation, counts it and follows it."""
        kwargs = kwargs or {}
        packet = func._overloadpacket
        if packet not in flop_registry and func is not torch.ops.prim.device.default:
            with self:  # a composite operation: watch what it is made of
                result = func.decompose(*args, **kwargs)
            if result is not NotImplemented:
                return result
        result = func(*args, **kwargs)
        if packet in flop_registry:
            self.macs += flop_registry[packet](*args, **kwargs, out_val=result) // 2
        self._follow(func, packet, args, kwargs, result)
        return result

    def _follow(self, func: Any, packet: Any, args: Any, kwargs: Any, result: Any) -> None:
        tensors = [leaf for leaf in tree_leaves((args, kwargs)) if isinstance(leaf, Tensor)]
        self.used.update(id(tensor) for tensor in tensors if isinstance(tensor, nn.Parameter))
        seen = [tensor for tensor in tensors if tensor in self.axes]
        outputs = [leaf for leaf in tree_leaves(result) if isinstance(leaf, Tensor)]
        if not seen or not outputs:
            return
        rule = RULES.get(packet, pointwise if torch.Tag.pointwise in func.tags else None)
        axes = rule(self.axes, outputs[0], *args, **kwargs) if rule else None
        if axes is None and packet not in MIXING and rule in (None, convolution):
            self.unknown.add(packet.__name__)
        if axes is None:
            axes = everything([(self.axes[tensor], tensor) for tensor in seen])
        for output in outputs:
            self.axes[output] = axes
        base = args[0]._base if func._schema.is_mutable and isinstance(args[0], Tensor) else None
        if base is not None:  # written into a part of a larger tensor
            known = [tensor for tensor in (base, *seen) if tensor in self.axes]
            self.axes[base] = everything([(self.axes[tensor], tensor) for tensor in known])
