"""A training step recorded once as a CUDA graph and replayed: with small images a GPU waits for its launches, not for arithmetic."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

if TYPE_CHECKING:
    from cnnbench.config.schema import Config

log = logging.getLogger("cnnbench.run")
WARM = 3  # steps that run as they are, before: libraries choose their kernels and take their workspaces in them


def suits_cuda_graph(config: Config) -> bool:
    """Whether the steps of a frozen config are all alike: the same kernels at the same places, whatever the images.

    A net of the user's own may decide in Python what it computes; parts of a batch add up their gradients, several GPUs share
    them, and half precision has a scale that changes: those run as they are, as does what `log=full` looks into.
    """
    trainer = config.trainer
    alone = trainer.accelerator == "gpu" and trainer.devices * trainer.num_nodes * config.accumulate == 1
    plain = config.precision != "16" and not config.compile and config.log != "full"
    return trainer.cuda_graph and alone and plain and config.model.target.startswith("cnnbench.")


class Replay:
    """Makes the gradients of a batch by replaying the kernels of an earlier one; the bits are those of the step itself.

    Args:
        step: (images, labels) -> loss, with its sums; what it adds to must lie where it lay.
        net: whose gradients it makes.
        size: images of a batch; one of another size is left to the step itself.

    Attributes:
        recorded: there is a graph.
    """

    def __init__(self, step: Callable[[Tensor, Tensor], Tensor], net: nn.Module, size: int) -> None:
        self.step, self.net, self.size = step, net, size
        self.recorded = False
        self._seen = 0

    def __call__(self, images: Tensor, labels: Tensor) -> Tensor | None:
        """The loss of a batch whose gradients are now there; None where the step is to be run as it is."""
        if len(images) != self.size:
            return None
        if not self.recorded:
            self._seen += 1
            if self._seen <= WARM or not self._record(images, labels):
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
        self.net.zero_grad()  # so that gradients are made in the graph's memory, and not added to others
        try:
            with torch.cuda.graph(self._graph, capture_error_mode="thread_local"):
                loss = self.step(self._images, self._labels)
                with torch.autocast("cuda", enabled=False):
                    loss.backward()
        except RuntimeError as error:
            log.info("trainer.cuda_graph: goes on without, %s", " ".join(str(error).split()))
            self.size = 0
            return False
        self._loss = loss.detach()
        self._gradients = [(parameter, parameter.grad) for parameter in self.net.parameters()]
        self.recorded = True
        return True
