"""Norms of gradients and activations by layer and epoch: they show how a plain deep net differs from a residual one."""

from __future__ import annotations

from functools import partial
from typing import Any

import torch
from pytorch_lightning import Callback, Trainer
from torch import Tensor, nn
from torch.optim import Optimizer
from torch.utils.hooks import RemovableHandle

from cnnbench.training.classifier import Classifier


class NormRecorder(Callback):
    """Computes `gradient_norm/<parameter>` and `activation_rms/<module>` for each epoch; it changes no number of the training.

    A gradient's norm is the L2 norm of a parameter's gradient for a whole batch, over all ranks, before clipping and without
    half precision's loss scale, averaged over the epoch's steps; steps whose gradient overflowed are excluded. An
    activation's is the root mean square of the output of a module without children in the epoch's first batch; if several
    ranks or parts share the batch, in the first one's share. An epoch that was resumed in the middle covers its remaining steps.

    Sums stay on the device until the epoch ends, so that no step waits for it.

    Args:
        activations: False where the net is compiled: its modules' hooks do not run.

    Attributes:
        values: of the last epoch, by tag.
    """

    def __init__(self, activations: bool = True) -> None:
        self.activations = activations
        self.values: dict[str, float] = {}
        self._gradients: Tensor | None = None  # (2, parameters): sums of norms, and numbers of steps
        self._squares: dict[str, list[Tensor]] = {}  # by module: the mean square of each of its calls
        self._hooks: list[RemovableHandle] = []

    def on_train_batch_start(self, trainer: Trainer, pl_module: Classifier, batch: Any, batch_idx: int) -> None:
        """Adds activation hooks for the epoch's first batch."""
        if self.activations and not self._squares:
            self._hooks = [
                module.register_forward_hook(partial(self._add_square, name or "net"))
                for name, module in pl_module.net.named_modules()
                if not [*module.children()]
            ]

    def on_train_batch_end(self, trainer: Trainer, pl_module: Classifier, *_: Any) -> None:
        """Removes the activation hooks."""
        while self._hooks:
            self._hooks.pop().remove()

    def on_before_optimizer_step(self, trainer: Trainer, pl_module: Classifier, optimizer: Optimizer) -> None:
        """Adds the gradients' norms; a parameter without a gradient has norm 0."""
        parameters = pl_module.net.parameters()
        norms = torch.stack(torch._foreach_norm([p.new_zeros(1) if p.grad is None else p.grad for p in parameters]))
        finite = norms.isfinite()
        now = torch.stack([norms.where(finite, 0), finite.to(norms.dtype)])
        self._gradients = now if self._gradients is None else self._gradients + now

    def on_train_epoch_end(self, trainer: Trainer, pl_module: Classifier) -> None:
        """Computes `values` from the sums, and resets these."""
        self.values = {}
        if self._gradients is not None:
            sums, steps = self._gradients.tolist()
            norms = zip(dict(pl_module.net.named_parameters()), sums, steps, strict=True)
            self.values |= {f"gradient_norm/{name}": total / count for name, total, count in norms if count}
        for name, squares in self._squares.items():
            self.values[f"activation_rms/{name}"] = torch.stack(squares).mean().sqrt().item()
        self._gradients, self._squares = None, {}

    def _add_square(self, name: str, module: nn.Module, args: Any, output: Any) -> None:
        if isinstance(output, Tensor) and output.numel():
            self._squares.setdefault(name, []).append(output.detach().float().square().mean())
