"""Memory that training a net takes, measured with autograd and the optimizer. On the meta device no memory is used."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from cnnbench.complexity.layers import ImageShape, device_of


class Memory(NamedTuple):
    """Bytes that a training step holds. A lower bound: temporary buffers come on top."""

    weights: int
    gradients: int
    optimizer: int
    activations: int

    @property
    def total(self) -> int:
        """The sum of the four."""
        return sum(self)


def training_memory(net: nn.Module, shape: ImageShape, batch_size: int, make_optimizer: Callable[[Any], Any]) -> Memory:
    """Measures the memory of a training step on a batch of images (C, H, W).

    Activations are the tensors that autograd saves for the backward pass. It runs a step with the net, which should be on the
    meta device.

    Args:
        net: the net; its weights are changed.
        shape: (C, H, W) of an image.
        batch_size: images in a step.
        make_optimizer: builds an optimizer from the net's parameters.
    """
    stored = [*net.parameters(), *net.buffers()]
    weights = {value.untyped_storage()._cdata for value in stored}
    saved: dict[int, torch.UntypedStorage] = {}

    def save(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        if storage._cdata not in weights:
            saved[storage._cdata] = storage
        return tensor

    with device_of(net):
        images, labels = torch.empty(batch_size, *shape), torch.zeros(batch_size, dtype=torch.long)
    net.train()
    with torch.enable_grad(), torch.autograd.graph.saved_tensors_hooks(save, lambda tensor: tensor):
        output = net(images)
        outputs = output if isinstance(output, tuple) else (output,)
        losses = [F.cross_entropy(part, labels) for part in outputs if isinstance(part, Tensor)]
        torch.stack(losses).sum()
    for parameter in net.parameters():
        parameter.grad = torch.empty_like(parameter) if parameter.requires_grad else None
    optimizer = make_optimizer(net.parameters())
    optimizer.step()
    state = [value for values in optimizer.state.values() for value in values.values() if isinstance(value, Tensor)]
    return Memory(
        weights=sum(value.nbytes for value in stored),
        gradients=sum(value.nbytes for value in net.parameters() if value.requires_grad),
        optimizer=sum(value.nbytes for value in state),
        activations=sum(storage.nbytes() for storage in saved.values()),
    )
