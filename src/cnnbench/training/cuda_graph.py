"""Records a training step as a CUDA graph and replays it: with small images a GPU waits for kernel launches, not for arithmetic."""

from __future__ import annotations

import logging
from collections.abc import Callable

import torch
from torch import Tensor, nn

from cnnbench.config.schema import Config
from cnnbench.text import one_line

log = logging.getLogger("cnnbench.run")
WARM_UP = 3  # steps before the recorded one: libraries choose their kernels and allocate their workspaces in them


def can_use_cuda_graph(config: Config) -> bool:
    """Returns whether all steps of a frozen config run the same kernels at the same addresses for any images.

    Excluded are a net from outside cnnbench, which may branch in Python; parts of a batch, which accumulate gradients;
    several GPUs, which share them; half precision, whose loss scale changes; `compile`; and `log=full`, which adds hooks.
    """
    one_gpu = config.trainer.accelerator == "gpu" and config.batch_parts == 1
    plain = config.precision != "16" and not config.compile and config.log != "full"
    return config.trainer.cuda_graph and one_gpu and plain and config.model.target.startswith("cnnbench.")


class GraphedStep:
    """Computes a batch's gradients by replaying the kernels of an earlier batch; the bits equal those of the step itself.

    Args:
        step: (images, labels) -> loss; tensors that it updates, as sums, must keep their addresses.
        net: the net whose gradients are computed.
        batch_size: images in a batch; a batch of another size is not replayed.

    Attributes:
        recorded: whether the graph exists.
    """

    def __init__(self, step: Callable[[Tensor, Tensor], Tensor], net: nn.Module, batch_size: int) -> None:
        self.step, self.net, self.batch_size = step, net, batch_size
        self.recorded = False
        self._seen = 0

    def __call__(self, images: Tensor, labels: Tensor) -> Tensor | None:
        """Returns the loss and sets the gradients; returns None where the caller must run the step itself."""
        if len(images) != self.batch_size:
            return None
        if not self.recorded:
            self._seen += 1
            if self._seen <= WARM_UP or not self._record(images, labels):
                return None
        self._images.copy_(images)
        self._labels.copy_(labels)
        self._graph.replay()
        for parameter, gradient in self._gradients:
            parameter.grad = gradient
        return self._loss

    def _record(self, images: Tensor, labels: Tensor) -> bool:
        self._images, self._labels = images.clone(), labels.clone()
        self._graph = torch.cuda.CUDAGraph()
        self.net.zero_grad()  # the graph must allocate the gradients in its memory, not add to existing ones
        try:
            with torch.cuda.graph(self._graph, capture_error_mode="thread_local"):
                loss = self.step(self._images, self._labels)
                with torch.autocast("cuda", enabled=False):
                    loss.backward()
        except RuntimeError as error:
            log.info("trainer.cuda_graph: continues without a graph, %s", one_line(error))
            self.batch_size = 0
            return False
        self._loss = loss.detach()
        self._gradients = [(parameter, parameter.grad) for parameter in self.net.parameters()]
        self.recorded = True
        return True
