"""The measures of a net: the same for every net, data set and stage, over all images and all ranks."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn
from torchmetrics import MeanMetric, MetricCollection
from torchmetrics.classification import MulticlassAccuracy, MulticlassCalibrationError, MulticlassConfusionMatrix

from cnnbench.text import Values


class Score(nn.Module):
    """Collects logits and labels, and computes `n loss acc per_class confusion ece` as plain numbers and lists.

    Args:
        num_classes: K.

    Example:
        >>> import torch
        >>> score = Score(num_classes=3)
        >>> score.update(torch.tensor([[4.0, 1.0, 0.0], [3.0, 2.0, 0.0]]), torch.tensor([0, 1]))
        >>> score.update(torch.tensor([[0.0, 0.0, 5.0]]), torch.tensor([2]))
        >>> scores = score.compute_and_reset()
        >>> scores["n"], round(scores["acc"], 3), round(scores["loss"], 3)
        (3, 0.667, 0.476)
        >>> scores["confusion"]
        [[1, 0, 0], [1, 0, 0], [0, 0, 1]]
    """

    def __init__(self, num_classes: int) -> None:
        super().__init__()
        self.loss, self.metrics = MeanMetric(), classification_metrics(num_classes)

    def update(self, logits: Tensor, y: Tensor) -> None:
        """Adds a batch: logits (N, K), labels (N,)."""
        logits = logits.float()
        self.loss.update(F.cross_entropy(logits, y, reduction="none"))
        for name, metric in self.metrics.items():
            metric.update(logits.softmax(1) if name == "ece" else logits, y)

    def compute_and_reset(self) -> Values:
        """Returns the scores of all ranks' images since the last call, and resets them."""
        scores: Values = {name: value.tolist() for name, value in self.metrics.compute().items()}
        scores["n"] = n = sum(map(sum, scores["confusion"]))
        scores["acc"] = round(scores["acc"] * n) / n  # exactly k / n
        scores["loss"] = self.loss.compute().item()
        self.loss.reset()
        self.metrics.reset()
        return scores


def classification_metrics(num_classes: int) -> MetricCollection:
    """Returns accuracy over all images, accuracy of each class, confusion matrix (rows: true classes), calibration error.

    The calibration error (`ece`, 15 bins, L1) takes probabilities: given logits, torchmetrics would decide batch by batch,
    by whether all values are between 0 and 1, if they are probabilities.

    Example:
        >>> import torch
        >>> probabilities, labels = torch.tensor([[0.8, 0.2], [0.6, 0.4]]), torch.tensor([0, 1])
        >>> values = classification_metrics(num_classes=2)(probabilities, labels)
        >>> values["acc"], values["per_class"]
        (tensor(0.5000), tensor([1., 0.]))
        >>> values["ece"]  # (|1 - 0.8| + |0 - 0.6|) / 2
        tensor(0.4000)
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
