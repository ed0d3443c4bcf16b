"""How much memory training a net takes, by asking autograd and the optimizer; on the meta device none of it is used."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from cnnbench.complexity.layers import device_of


@dataclass(frozen=True)
class Memory:
    """Bytes that a training step holds, at least: what it computes with for a moment comes on top."""

    weights: int
    gradients: int
    optimizer: int
    activations: int

    @property
    def total(self) -> int:
        """All of it."""
        return self.weights + self.gradients + self.optimizer + self.activations


def training_memory(
    net: nn.Module, shape: tuple[int, int, int], batch_size: int, make_optimizer: Callable[[Any], Any]
) -> Memory:
    """For a batch of images (C, H, W): what autograd keeps for the backward pass, by asking it; the optimizer's state likewise.

    Takes steps with the net, which should be on the meta device.
    """
    held = {id(value.untyped_storage()): value for value in (*net.parameters(), *net.buffers())}
    fixed = {value.untyped_storage()._cdata for value in held.values()}
    kept: dict[int, torch.UntypedStorage] = {}

    def keep(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        if storage._cdata not in fixed:
            kept[storage._cdata] = storage
        return tensor

    device = device_of(net)
    images, labels = (
        torch.empty(batch_size, *shape, device=device),
        torch.zeros(batch_size, dtype=torch.long, device=device),
    )
    net.train()
    with torch.enable_grad(), torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        output = net(images)
        outputs = [part for part in (output if isinstance(output, tuple) else (output,)) if isinstance(part, Tensor)]
        torch.stack([F.cross_entropy(part, labels) for part in outputs]).sum()
    for parameter in net.parameters():
        parameter.grad = torch.empty_like(parameter) if parameter.requires_grad else None
    optimizer = make_optimizer(net.parameters())
    optimizer.step()
    state = [value for values in optimizer.state.values() for value in values.values() if isinstance(value, Tensor)]
    return Memory(
        weights=sum(value.nbytes for value in (*net.parameters(), *net.buffers())),
        gradients=sum(value.nbytes for value in net.parameters() if value.requires_grad),
        optimizer=sum(value.nbytes for value in state),
        activations=sum(storage.nbytes() for storage in kept.values()),
    )
