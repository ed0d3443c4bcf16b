"""MixUp and CutMix: each image of a batch is blended with the image before it, or gets a box of it. Labels are mixed in the same shares."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor
from torchvision.transforms import v2


class MixUpCutMix:
    """torchvision's MixUp (Zhang et al. 2018, arXiv:1710.09412) and CutMix (Yun et al. 2019, arXiv:1905.04899).

    The mixing of a batch is a function of (seed, epoch, batch).

    Args:
        mixup, cutmix: the a of Beta(a, a), from which the share of the image itself is drawn, once a batch; 0: off. If
            both are above 0, one of the two is drawn for each batch.
        num_classes: number of classes of the labels.
    """

    def __init__(self, mixup: float, cutmix: float, num_classes: int) -> None:
        kinds = ((v2.MixUp, mixup), (v2.CutMix, cutmix))
        self._mix = v2.RandomChoice([kind(alpha=alpha, num_classes=num_classes) for kind, alpha in kinds if alpha])

    def __call__(self, images: Tensor, labels: Tensor, seed: int, epoch: int, batch: int) -> tuple[Tensor, Tensor]:
        """Mixes images (n + 1, C, H, W) with labels (n + 1,): each except the first with the one before it.

        Returns:
            images (n, C, H, W), and the shares of the classes (n, num_classes).
        """
        (combined,) = np.random.SeedSequence((seed, epoch, batch)).generate_state(1, np.uint64)
        with torch.random.fork_rng(devices=[]):
            torch.default_generator.manual_seed(int(combined) >> 1)  # not the GPU's, which dropout needs
            images, shares = self._mix(images, labels)
        return images[1:], shares[1:]
