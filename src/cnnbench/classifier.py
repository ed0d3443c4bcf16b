"""The LightningModule around any net: one training step, one loss, the same metrics for all."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from pytorch_lightning import LightningModule
from torch import Tensor, nn
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler
from torchmetrics import MeanMetric, MetricCollection
from torchmetrics.classification import MulticlassAccuracy, MulticlassCalibrationError, MulticlassConfusionMatrix

from cnnbench.data.store import Batch, Loader

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
        num_classes: how many classes the metrics count.
        optimizer: parameters -> optimizer; needed for fitting only.
        scheduler: (optimizer, total steps) -> learning rate schedule, stepped per batch; needed for fitting only.

    Attributes:
        train_sums: (2,) since the epoch's begin: loss × images, correct answers.
        train_images: since then.
        scores: the last validation's or test's `n loss acc per_class confusion ece`, over all ranks, as plain numbers and lists.
        outputs: the last test's (logits, labels), of all ranks in the stored order, on the CPU.
    """

    train_sums: Tensor

    def __init__(
        self,
        net: nn.Module,
        num_classes: int,
        optimizer: Callable[..., Optimizer] | None = None,
        scheduler: Callable[[Optimizer, int], LRScheduler] | None = None,
    ) -> None:
        super().__init__()
        self.net = net
        self.aux_weight = float(getattr(net, "aux_weight", AUX_WEIGHT))
        self.make_optimizer, self.make_scheduler = optimizer, scheduler
        self.register_buffer("train_sums", torch.zeros(2), persistent=False)
        self.val_loss, self.val_metrics = MeanMetric(), metrics(num_classes)
        self.test_loss, self.test_metrics = MeanMetric(), metrics(num_classes)
        self.train_images = 0
        self.scores: dict[str, Any] = {}
        self.outputs: tuple[Tensor, Tensor] | None = None
        self._collected: list[tuple[Tensor, Tensor]] = []

    def forward(self, x: Tensor) -> Tensor:
        """Logits of a batch of normalised images."""
        return self.net(x)

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:
        """The batch's mean loss, with those of auxiliary heads."""
        x, y = batch
        logits, auxiliary = with_auxiliary(self.net(x))
        loss = F.cross_entropy(logits, y)
        with torch.no_grad():
            correct = (logits.argmax(1) == y).sum()
            self.train_sums += torch.stack([loss.detach() * len(y), correct])
        self.train_images += len(y)
        for output in auxiliary:
            loss = loss + self.aux_weight * F.cross_entropy(output, y)
        return loss

    def on_train_epoch_start(self) -> None:
        """Begins the sums."""
        self.train_sums.zero_()
        self.train_images = 0

    def validation_step(self, batch: Batch, batch_idx: int) -> None:
        """Scores a batch."""
        x, y = batch
        if len(y):  # a rank may have no image
            self._score(self.net(x), y, self.val_loss, self.val_metrics)

    def on_validation_epoch_end(self) -> None:
        """Makes `scores`."""
        self._conclude("validation", self.trainer.val_dataloaders, self.val_loss, self.val_metrics)

    def test_step(self, batch: Batch, batch_idx: int) -> None:
        """Scores a batch and keeps its logits."""
        x, y = batch
        if not len(y):
            return
        logits = self.net(x)
        self._score(logits, y, self.test_loss, self.test_metrics)
        self._collected.append((logits.float().cpu(), y.cpu()))

    def on_test_epoch_end(self) -> None:
        """Makes `scores` and `outputs`."""
        self._conclude("test", self.trainer.test_dataloaders, self.test_loss, self.test_metrics)
        logits, labels = zip(*of_all_ranks(self._collected), strict=True)
        self.outputs = torch.cat(logits), torch.cat(labels)
        self._collected.clear()

    def configure_optimizers(self):  # type: ignore[no-untyped-def]
        """The optimizer over the net's parameters, its schedule stepped per batch."""
        if self.make_optimizer is None or self.make_scheduler is None:
            raise RuntimeError("this Classifier was made for evaluation: it has no optimizer and scheduler")
        optimizer = self.make_optimizer(self.net.parameters())
        scheduler = self.make_scheduler(optimizer, int(self.trainer.estimated_stepping_batches))
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": scheduler, "interval": "step"}}

    def _score(self, logits: Tensor, y: Tensor, loss: MeanMetric, collection: MetricCollection) -> None:
        loss.update(F.cross_entropy(logits.float(), y, reduction="none"))
        for name, metric in collection.items():
            metric.update(logits.float().softmax(1) if name == "ece" else logits.float(), y)

    def _conclude(self, what: str, loader: Any, loss: MeanMetric, collection: MetricCollection) -> None:
        said = bool(self.scores)
        self.scores = {name: value.tolist() for name, value in collection.compute().items()}
        self.scores["n"] = images = sum(map(sum, self.scores["confusion"]))
        expected = len(loader.images) if isinstance(loader, Loader) else images
        if images != expected:
            raise RuntimeError(f"{what}: {images:,} images were scored, there are {expected:,}")
        if what == "test" or not said:
            log.info("%s on %d images", what, images)
        self.scores["acc"] = round(self.scores["acc"] * images) / images  # k / n exactly
        self.scores["loss"] = loss.compute().item()
        loss.reset()
        collection.reset()


def of_all_ranks(collected: list[Any]) -> list[Any]:
    """What every rank has collected, the first rank's first; on one process what it has."""
    if not torch.distributed.is_available() or not torch.distributed.is_initialized():
        return collected
    gathered: list[Any] = [None] * torch.distributed.get_world_size()
    torch.distributed.all_gather_object(gathered, collected)
    return [item for items in gathered for item in items]


def with_auxiliary(output: Tensor | tuple[Tensor | None, ...]) -> tuple[Tensor, list[Tensor]]:
    """A net's output in training as its logits and those of its auxiliary heads, if it has any."""
    if isinstance(output, Tensor):
        return output, []
    logits, *auxiliary = output
    return logits, [head for head in auxiliary if head is not None]  # type: ignore[return-value]


def metrics(num_classes: int) -> MetricCollection:
    """Accuracy over all images, accuracy of each class, confusion matrix (rows: truth), calibration error (15 bins, L1).

    The last one takes probabilities: of logits it would guess, batch by batch, from whether all lie between 0 and 1.
    """
    return MetricCollection(
        {
            "acc": MulticlassAccuracy(num_classes, average="micro"),
            "per_class": MulticlassAccuracy(num_classes, average="none"),
            "confusion": MulticlassConfusionMatrix(num_classes),
            "ece": MulticlassCalibrationError(num_classes, n_bins=15, norm="l1"),
        },
        compute_groups=False,
    )
