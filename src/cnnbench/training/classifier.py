"""The LightningModule around any net: one training step, one loss, the same scores for all."""

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

from cnnbench.data.loader import Batch, Loader
from cnnbench.distributed.ranks import every_rank
from cnnbench.training.cuda_graph import Replay
from cnnbench.training.metrics import Score

log = logging.getLogger("cnnbench.run")
AUX_WEIGHT = 0.3  # of an auxiliary head's loss: Szegedy et al. 2015, section 5


class Classifier(LightningModule):
    """Trains `net`, (N, C, H, W) -> logits (N, num_classes), with cross-entropy.

    In training a net may give a tuple: its logits, then those of auxiliary heads. Their losses are added, each times the net's
    `aux_weight` (0.3 where it states none, as in GoogLeNet's paper); what is reported is the loss of the logits alone.

    Every architecture is wrapped by this one class, so that no training step differs between two arms of a comparison.
    Training keeps two sums on the device, and logs nothing in a step: a logged metric would take a third of one.

    Args:
        net: the network.
        num_classes: how many classes are scored.
        optimizer: net -> optimizer; needed for fitting only.
        scheduler: optimizer -> learning rate schedule, stepped per batch; needed for fitting only.
        label_smoothing: share of the target that is spread over all classes, in training.
        ema: decay of an average of the weights (and of batch norm's statistics), scored beside them; 0: none.
        replays: steps may be recorded as a CUDA graph.

    Attributes:
        replay: what does so, once training has begun; None without.
        train_sums: (2,) since the epoch's begin: loss × images, correct answers. Of a mixed image the class with the larger
            share is the right one.
        train_images: since then.
        averaged: the net with averaged weights, or None.
        scores: the last validation's or test's `n loss acc per_class confusion ece`, over all ranks, as plain numbers and lists.
        ema_scores: the same of `averaged`; empty without.
        outputs: the last test's (logits, labels), of all ranks in the stored order, on the CPU.
    """

    def __init__(
        self,
        net: nn.Module,
        num_classes: int,
        optimizer: Callable[[nn.Module], Optimizer] | None = None,
        scheduler: Callable[[Optimizer], LRScheduler] | None = None,
        label_smoothing: float = 0.0,
        ema: float = 0.0,
        replays: bool = False,
    ) -> None:
        super().__init__()
        self.net = net
        self.aux_weight = float(getattr(net, "aux_weight", AUX_WEIGHT))
        self.make_optimizer, self.make_scheduler = optimizer, scheduler
        self.label_smoothing = label_smoothing
        self.averaged: AveragedModel | None = None
        if ema:
            self.averaged = AveragedModel(net, multi_avg_fn=get_ema_multi_avg_fn(ema), use_buffers=True)
            self.averaged.requires_grad_(False)
        self.score, self.ema_score = Score(num_classes), Score(num_classes)
        self.train_sums, self.train_images = torch.zeros(2), 0
        self.scores: dict[str, Any] = {}
        self.ema_scores: dict[str, Any] = {}
        self.outputs: tuple[Tensor, Tensor] | None = None
        self._collected: list[tuple[Tensor, Tensor]] = []
        self._weight: Callable[[int], float] = lambda number: 1.0
        self.replays = replays
        self.replay: Replay | None = None
        self._has_gradients = False  # of this step, before its backward pass

    def forward(self, x: Tensor) -> Tensor:
        """Logits of a batch of normalised images."""
        return self.net(x)

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:
        """The mean loss of a part of a batch, with those of auxiliary heads, times its share of the batch."""
        x, y = batch
        self.train_images += len(y)
        replayed = self.replay(x, y) if self.replay else None
        self._has_gradients = replayed is not None
        if replayed is not None:
            return replayed
        loss, weight = self._loss(x, y), self._weight(batch_idx)
        return loss if weight == 1 else loss * weight

    def _loss(self, x: Tensor, y: Tensor) -> Tensor:
        """The mean loss of images, which are added to the sums."""
        logits, auxiliary = with_auxiliary(self.net(x))
        loss = F.cross_entropy(logits, y, label_smoothing=self.label_smoothing)
        with torch.no_grad():
            correct = (logits.argmax(1) == (y if y.ndim == 1 else y.argmax(1))).sum()
            self.train_sums += torch.stack([loss.detach() * len(y), correct])
        for output in auxiliary:
            loss = loss + self.aux_weight * F.cross_entropy(output, y, label_smoothing=self.label_smoothing)
        return loss

    def backward(self, loss: Tensor, *args: Any, **kwargs: Any) -> None:
        """Makes the gradients, unless a replayed step has."""
        if not self._has_gradients:
            super().backward(loss, *args, **kwargs)

    def optimizer_zero_grad(self, *args: Any) -> None:
        """Forgets the gradients before, unless a replayed step has."""
        if not self._has_gradients:
            super().optimizer_zero_grad(*args)

    def on_train_start(self) -> None:
        """Asks the loader how much of a batch its parts are, and how large a batch is."""
        loader = self.trainer.train_dataloader
        if isinstance(loader, Loader):
            self._weight = loader.weight
            if self.replays:
                self.replay = Replay(self._loss, self.net, loader.batch_size)

    def on_train_epoch_start(self) -> None:
        """Begins the sums, where they lie: a replayed step adds to them there."""
        self.train_sums, self.train_images = self.train_sums.to(self.device).zero_(), 0

    def optimizer_step(self, *args: Any, **kwargs: Any) -> None:
        """Takes the step, and it into the average."""
        super().optimizer_step(*args, **kwargs)
        if self.averaged is not None:
            self.averaged.update_parameters(self.net)

    def on_validation_start(self) -> None:
        """Gives all ranks the batch norms' statistics of the first."""
        if torch.distributed.is_available() and torch.distributed.is_initialized():
            for buffer in self.net.buffers():
                torch.distributed.broadcast(buffer, 0)

    def validation_step(self, batch: Batch, batch_idx: int) -> None:
        """Scores a batch."""
        self._score(*batch)

    def on_validation_epoch_end(self) -> None:
        """Makes `scores`, and tells a schedule that waits for them."""
        self._conclude("validation", self.trainer.val_dataloaders)
        validated = getattr(self.lr_schedulers(), "validated", None)
        if validated is not None:
            validated(self.scores["loss"])

    def test_step(self, batch: Batch, batch_idx: int) -> None:
        """Scores a batch and keeps its logits."""
        logits = self._score(*batch)
        if logits is not None:
            self._collected.append((logits.float().cpu(), batch[1].cpu()))

    def on_test_epoch_end(self) -> None:
        """Makes `scores` and `outputs`."""
        self._conclude("test", self.trainer.test_dataloaders)
        logits, labels = zip(*chain.from_iterable(every_rank(self._collected)), strict=True)
        self.outputs = torch.cat(logits), torch.cat(labels)
        self._collected.clear()

    def configure_optimizers(self):  # type: ignore[no-untyped-def]
        """The optimizer of the net, its schedule stepped per batch."""
        if self.make_optimizer is None or self.make_scheduler is None:
            raise RuntimeError("this Classifier was made for evaluation: it has no optimizer and scheduler")
        optimizer = self.make_optimizer(self.net)
        return {
            "optimizer": optimizer,
            "lr_scheduler": {"scheduler": self.make_scheduler(optimizer), "interval": "step"},
        }

    def _score(self, x: Tensor, y: Tensor) -> Tensor | None:
        """Logits of a batch; None where a rank has no image."""
        if not len(y):
            return None
        logits = self.net(x)
        self.score.update(logits, y)
        if self.averaged is not None:
            self.ema_score.update(self.averaged(x), y)
        return logits

    def _conclude(self, what: str, loader: Any) -> None:
        said = bool(self.scores)
        self.scores = self.score.take()
        self.ema_scores = {} if self.averaged is None else self.ema_score.take()
        images = self.scores["n"]
        expected = len(loader.images) if isinstance(loader, Loader) else images
        if images != expected:
            raise RuntimeError(f"{what}: {images:,} images were scored, there are {expected:,}")
        if what == "test" or not said:
            log.info("%s on %d images", what, images)


def with_auxiliary(output: Tensor | tuple[Tensor | None, ...]) -> tuple[Tensor, list[Tensor]]:
    """A net's output in training as its logits and those of its auxiliary heads, if it has any."""
    if isinstance(output, Tensor):
        return output, []
    logits, *auxiliary = output
    return logits, [head for head in auxiliary if head is not None]  # type: ignore[return-value]
