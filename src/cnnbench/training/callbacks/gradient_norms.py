"""How large gradients and activations are, layer by layer, epoch by epoch: what tells a plain deep net from a residual one."""

from __future__ import annotations

from functools import partial
from typing import Any

import torch
from pytorch_lightning import Callback, Trainer
from torch import Tensor, nn
from torch.optim import Optimizer
from torch.utils.hooks import RemovableHandle

from cnnbench.training.classifier import Classifier


class Norms(Callback):
    """Makes `gradient_norm/<parameter>` and `activation_rms/<module>` at the end of each epoch; no number of the training changes.

    A gradient's norm is the L2 norm of what a parameter gets for a whole batch, of all ranks, before it is clipped and without
    half precision's scale; of it the mean over the epoch's steps, those left out that overflowed. An activation's is the root
    mean square of what a module without children gives in the epoch's first batch; where several ranks or parts share it,
    in the first one's share. An epoch that is resumed in its midst tells of the rest of it.

    Sums stay on the device until the epoch ends: a step does not wait for it.

    Args:
        activations: without them where the net is compiled, which then has no modules to look at.

    Attributes:
        values: of the last epoch, by their tags.
    """

    def __init__(self, activations: bool = True) -> None:
        self.activations = activations
        self.values: dict[str, float] = {}
        self._gradients: Tensor | None = None  # (2, parameters): sums of norms, and of how many steps
        self._squares: dict[str, list[Tensor]] = {}  # of each module, the mean square of each of its calls
        self._hooks: list[RemovableHandle] = []
        self._seen = False  # the epoch's first batch

    def on_train_batch_start(self, trainer: Trainer, pl_module: Classifier, batch: Any, batch_idx: int) -> None:
        """Looks at the activations of the first batch."""
        if self.activations and not self._seen:
            leaves = {name: module for name, module in pl_module.net.named_modules() if not [*module.children()]}
            self._hooks = [
                leaf.register_forward_hook(partial(self._look, name or "net")) for name, leaf in leaves.items()
            ]
        self._seen = True

    def on_train_batch_end(self, trainer: Trainer, pl_module: Classifier, *_: Any) -> None:
        """No longer."""
        while self._hooks:
            self._hooks.pop().remove()

    def on_before_optimizer_step(self, trainer: Trainer, pl_module: Classifier, optimizer: Optimizer) -> None:
        """Adds the gradients' norms; a parameter without a gradient has 0."""
        parameters = pl_module.net.parameters()
        norms = torch.stack(torch._foreach_norm([p.new_zeros(1) if p.grad is None else p.grad for p in parameters]))
        finite = norms.isfinite()
        now = torch.stack([norms.where(finite, 0), finite.to(norms.dtype)])
        self._gradients = now if self._gradients is None else self._gradients + now

    def on_train_epoch_end(self, trainer: Trainer, pl_module: Classifier) -> None:
        """Reads the sums, and begins anew."""
        self.values = {}
        if self._gradients is not None:
            sums, steps = self._gradients.tolist()
            names = [name for name, _ in pl_module.net.named_parameters()]
            self.values |= {f"gradient_norm/{name}": s / n for name, s, n in zip(names, sums, steps, strict=True) if n}
        if self._squares:
            rms = torch.stack([torch.stack(calls).mean().sqrt() for calls in self._squares.values()]).tolist()
            self.values |= {f"activation_rms/{name}": value for name, value in zip(self._squares, rms, strict=True)}
        self._gradients, self._squares, self._seen = None, {}, False

    def _look(self, name: str, module: nn.Module, given: Any, output: Any) -> None:
        if isinstance(output, Tensor) and output.numel():
            self._squares.setdefault(name, []).append(output.detach().float().square().mean())
