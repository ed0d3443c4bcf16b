"""What a net is scored by: the same measures for every net, set and stage, over all images and all ranks."""

from __future__ import annotations

from typing import Any

import torch.nn.functional as F
from torch import Tensor, nn
from torchmetrics import MeanMetric, MetricCollection
from torchmetrics.classification import MulticlassAccuracy, MulticlassCalibrationError, MulticlassConfusionMatrix


class Score(nn.Module):
    """Collects logits and labels; then `n loss acc per_class confusion ece`, as plain numbers and lists."""

    def __init__(self, num_classes: int) -> None:
        super().__init__()
        self.loss, self.metrics = MeanMetric(), metrics(num_classes)

    def update(self, logits: Tensor, y: Tensor) -> None:
        """Takes in a batch: logits (n, K), labels (n,)."""
        logits = logits.float()
        self.loss.update(F.cross_entropy(logits, y, reduction="none"))
        for name, metric in self.metrics.items():
            metric.update(logits.softmax(1) if name == "ece" else logits, y)

    def take(self) -> dict[str, Any]:
        """The scores of all ranks' images since the last time."""
        scores: dict[str, Any] = {name: value.tolist() for name, value in self.metrics.compute().items()}
        scores["n"] = n = sum(map(sum, scores["confusion"]))
        scores["acc"] = round(scores["acc"] * n) / n  # k / n exactly
        scores["loss"] = self.loss.compute().item()
        self.loss.reset()
        self.metrics.reset()
        return scores


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
