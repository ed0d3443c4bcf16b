"""The LightningModule around any net: one training step, one loss and one set of measures for all of them."""

from __future__ import annotations

import logging
from collections.abc import Callable
from itertools import chain
from typing import Any

import torch
import torch.nn.functional as F
from pytorch_lightning import LightningModule
from torch import Tensor, nn
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from cnnbench.data.loader import Batch
from cnnbench.distributed.ranks import all_gather
from cnnbench.text import Values
from cnnbench.training.cuda_graph import GraphedStep
from cnnbench.training.metrics import Score

log = logging.getLogger("cnnbench.run")
AUX_WEIGHT = 0.3  # of an auxiliary head's loss: Szegedy et al. 2015, section 5


class Classifier(LightningModule):
    """Trains `net`, (N, C, H, W) -> logits (N, num_classes), with cross-entropy.

    In training mode a net may return a tuple: its logits, then those of auxiliary heads. The losses of the heads are added,
    each times the net's `aux_weight` (default 0.3, as in GoogLeNet's paper); the reported loss is that of the logits alone.

    Every architecture uses this one class, so that the training step cannot differ between two settings of a comparison.
    Training adds to two sums on the device and logs nothing in a step: a logged metric would take a third of its time.

    One training step on one batch, in the order in which Lightning runs it; a batch in `accumulate` parts repeats 1 to 3 for
    each part, and runs 4 to 6 after the last one:

        1. callbacks' on_train_batch_start    the learning rate is noted, deferred checkpoints are saved
        2. training_step                      the loss; with a CUDA graph also the gradients
        3. optimizer_zero_grad (before the batch's first part), backward
        4. callbacks' on_before_optimizer_step  the loss and the gradient must be finite; gradients are clipped after it
        5. optimizer_step                     the weights, then their average
        6. the learning-rate schedule         then callbacks' on_train_batch_end: progress, checkpoint or stop

    Args:
        net: the network.
        num_classes: number of classes.
        optimizer: net -> optimizer; only fitting needs it.
        scheduler: optimizer -> learning-rate schedule, stepped after each batch; only fitting needs it.
        label_smoothing: share of the target that is spread over all classes in training.
        ema: decay of an average of the weights and of batch norm's statistics, which is evaluated too; 0: no average.
        cuda_graph: whether steps may be recorded as a CUDA graph.

    Attributes:
        graphed_step: the CUDA graph, once training has started; None without.
        train_sums: (2,), since the epoch's start: loss × images, and correct predictions. A mixed image's true class is the
            one with the larger share.
        train_images: images since the epoch's start.
        averaged: the net with averaged weights, or None.
        scores: the last validation's or test's `n loss acc per_class confusion ece` over all ranks, as plain numbers and lists.
        ema_scores: the same for `averaged`; empty without.
        outputs: once tested: the last test's logits (N, num_classes) and labels (N,), from all ranks, in the stored order, on the CPU.
    """

    def __init__(
        self,
        net: nn.Module,
        num_classes: int,
        optimizer: Callable[[nn.Module], Optimizer] | None = None,
        scheduler: Callable[[Optimizer], LRScheduler] | None = None,
        label_smoothing: float = 0.0,
        ema: float = 0.0,
        cuda_graph: bool = False,
    ) -> None:
        super().__init__()
        self.net = net
        self.aux_weight = float(getattr(net, "aux_weight", AUX_WEIGHT))
        self.make_optimizer, self.make_scheduler = optimizer, scheduler
        self.label_smoothing, self.cuda_graph = label_smoothing, cuda_graph
        self.averaged: AveragedModel | None = None
        if ema:
            self.averaged = AveragedModel(net, multi_avg_fn=get_ema_multi_avg_fn(ema), use_buffers=True)
            self.averaged.requires_grad_(False)
        self.score, self.ema_score = Score(num_classes), Score(num_classes)
        self.train_sums, self.train_images = torch.zeros(2), 0
        self.scores: Values = {}
        self.outputs: tuple[Tensor, Tensor]
        self.graphed_step: GraphedStep | None = None
        self._test_outputs: list[tuple[Tensor, Tensor]] = []
        self._part_weight: Callable[[int], float] = lambda number: 1.0

    def forward(self, x: Tensor) -> Tensor:
        """Returns the logits (N, num_classes) of normalized images (N, C, H, W)."""
        return self.net(x)

    # ---- training, in the order of the calls -------------------------------------------------------------------------

    def configure_optimizers(self):  # type: ignore[no-untyped-def]
        """Returns the net's optimizer and its learning-rate schedule, stepped after each batch."""
        assert self.make_optimizer is not None
        assert self.make_scheduler is not None
        optimizer = self.make_optimizer(self.net)
        scheduler = self.make_scheduler(optimizer)
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": scheduler, "interval": "step"}}

    def on_train_start(self) -> None:
        """Gets the weights of a batch's parts from the loader, and its batch size for the CUDA graph."""
        loader: Any = self.trainer.train_dataloader
        self._part_weight = loader.weight
        if self.cuda_graph:
            self.graphed_step = GraphedStep(self._loss, self.net, loader.plan.size)

    def on_train_epoch_start(self) -> None:
        """Sets the sums to zero in place: a CUDA graph adds to them at their address."""
        self.train_sums, self.train_images = self.train_sums.to(self.device).zero_(), 0

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:
        """Returns the mean loss of one part of a batch, times the part's share of the batch."""
        x, y = batch
        self.train_images += len(y)
        loss = self.graphed_step(x, y) if self.graphed_step else None
        self._has_gradients = loss is not None  # of this step, from the CUDA graph
        if loss is not None:
            return loss
        loss, weight = self._loss(x, y), self._part_weight(batch_idx)
        return loss if weight == 1 else loss * weight

    def _loss(self, x: Tensor, y: Tensor) -> Tensor:
        """Returns the mean loss of images with labels (N,) or class shares (N, num_classes), and adds to the sums."""
        logits, auxiliary = logits_and_auxiliary(self.net(x))
        loss = F.cross_entropy(logits, y, label_smoothing=self.label_smoothing)
        with torch.no_grad():
            correct = (logits.argmax(1) == (y if y.ndim == 1 else y.argmax(1))).sum()
            self.train_sums += torch.stack([loss.detach() * len(y), correct])
        for output in auxiliary:
            loss = loss + self.aux_weight * F.cross_entropy(output, y, label_smoothing=self.label_smoothing)
        return loss

    def optimizer_zero_grad(self, *args: Any) -> None:
        """Clears the gradients of the step before, unless the CUDA graph has replaced them."""
        if not self._has_gradients:
            super().optimizer_zero_grad(*args)

    def backward(self, loss: Tensor, *args: Any, **kwargs: Any) -> None:
        """Computes the gradients, unless the CUDA graph has."""
        if not self._has_gradients:
            super().backward(loss, *args, **kwargs)

    def optimizer_step(self, *args: Any, **kwargs: Any) -> None:
        """Updates the weights, then their average."""
        super().optimizer_step(*args, **kwargs)
        if self.averaged is not None:
            self.averaged.update_parameters(self.net)

    # ---- validation and test -----------------------------------------------------------------------------------------

    def on_validation_start(self) -> None:
        """Copies batch norm's statistics from the first rank to all."""
        if self.trainer.world_size > 1:
            for buffer in self.net.buffers():
                torch.distributed.broadcast(buffer, 0)

    def validation_step(self, batch: Batch, batch_idx: int) -> None:
        """Scores a batch."""
        self._score(*batch)

    def on_validation_epoch_end(self) -> None:
        """Computes `scores`, and passes the loss to a schedule that waits for it."""
        self._compute_scores("validation", self.trainer.val_dataloaders)
        validated = getattr(self.lr_schedulers(), "validated", None)
        if validated is not None:
            validated(self.scores["loss"])

    def test_step(self, batch: Batch, batch_idx: int) -> None:
        """Scores a batch and keeps its logits."""
        logits = self._score(*batch)
        if logits is not None:
            self._test_outputs.append((logits.float().cpu(), batch[1].cpu()))

    def on_test_epoch_end(self) -> None:
        """Computes `scores` and `outputs`."""
        self._compute_scores("test", self.trainer.test_dataloaders)
        logits, labels = zip(*chain.from_iterable(all_gather(self._test_outputs)), strict=True)
        self.outputs = torch.cat(logits), torch.cat(labels)
        self._test_outputs.clear()

    def _score(self, x: Tensor, y: Tensor) -> Tensor | None:
        """Adds a batch to the scores; returns its logits, or None where this rank has no image."""
        if not len(y):
            return None
        logits = self.net(x)
        self.score.update(logits, y)
        if self.averaged is not None:
            self.ema_score.update(self.averaged(x), y)
        return logits

    def _compute_scores(self, stage: str, loader: Any) -> None:
        is_first = not self.scores
        self.scores = self.score.compute_and_reset()
        self.ema_scores = {} if self.averaged is None else self.ema_score.compute_and_reset()
        images, expected = self.scores["n"], len(loader.images)
        if images != expected:
            raise RuntimeError(f"{stage}: {images:,} images were scored, expected {expected:,}")
        if stage == "test" or is_first:
            log.info("%s on %d images", stage, images)


def logits_and_auxiliary(output: Tensor | tuple[Tensor | None, ...]) -> tuple[Tensor, list[Tensor]]:
    """Splits a net's output in training mode into its logits and those of its auxiliary heads."""
    if isinstance(output, Tensor):
        return output, []
    logits, *auxiliary = output
    return logits, [head for head in auxiliary if head is not None]  # type: ignore[return-value]
