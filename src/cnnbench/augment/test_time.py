"""Tests at several scales and mirrored: a net whose answer is the mean of its answers to several views of an image.

Simonyan, Zisserman 2015, sections 3.2 and 4.2: images are scaled to several sizes, softmax outputs of all views are averaged.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from cnnbench.augment.functional import center_crop
from cnnbench.errors import ConfigError

LARGEST = 4096  # pixels a side
SYNTAX = "--tta takes scales=S,S,... (pixels a side) and flips, as in --tta scales=256,384,512,flips"


@dataclass(frozen=True)
class Views:
    """Which views of an image there are: `scales`, pixels a side, none for the image as it is; each also mirrored if `flips`."""

    scales: tuple[int, ...] = ()
    flips: bool = False

    @classmethod
    def parse(cls, text: str) -> Views:
        """`scales=28,32,36,flips`, or either of the two.

        Raises:
            ConfigError: it says something else.
        """
        words = [word.strip() for word in text.split(",")]
        flips = "flips" in words
        numbers = [word for word in words if word != "flips"]
        if numbers and not numbers[0].startswith("scales="):
            raise ConfigError(f"--tta {text}: {SYNTAX}")
        numbers[:1] = [number.removeprefix("scales=") for number in numbers[:1]]
        if not all(number.isascii() and number.isdigit() and int(number) for number in numbers) or not (
            flips or numbers
        ):
            raise ConfigError(f"--tta {text}: {SYNTAX}")
        if any(int(number) > LARGEST for number in numbers):
            raise ConfigError(f"--tta {text}: scales are pixels a side, at most {LARGEST}")
        return cls(tuple(dict.fromkeys(map(int, numbers))), flips)

    def source_side(self, native: int, image_size: int) -> int:
        """Pixels a side of the images that the views are made from.

        The set's own size, so that no view depends on which others there are, unless that is needlessly large; images as
        the net takes them, where these are all the views.
        """
        if set(self.scales) <= {image_size}:
            return image_size
        return min(native, max(2 * image_size, *self.scales))

    def of(self, images: Tensor, image_size: int) -> list[Tensor]:
        """Normalised images (N, C, S, S) -> views (N, C, image_size, image_size).

        An image scaled to more than `image_size` is cut to its middle, one scaled to less is set on the data's mean colour.
        """
        views = [center_crop(scaled(images, scale), image_size) for scale in self.scales or (image_size,)]
        return views + [view.flip(-1) for view in views] * self.flips


def scaled(images: Tensor, side: int) -> Tensor:
    """(N, C, S, S) float -> (N, C, side, side), bilinear, antialiased."""
    if images.shape[-1] == side:
        return images
    return F.interpolate(images, (side, side), mode="bilinear", antialias=True)


class Averaged(nn.Module):
    """Normalised images (N, C, S, S) -> the logarithm of the mean of `net`'s probabilities over the views: (N, num_classes)."""

    def __init__(self, net: nn.Module, views: Views, image_size: int) -> None:
        super().__init__()
        self.net, self.views, self.image_size = net, views, image_size

    def forward(self, images: Tensor) -> Tensor:
        """One view after the other."""
        answers = [self.net(view).float().log_softmax(1) for view in self.views.of(images, self.image_size)]
        return torch.stack(answers).logsumexp(0) - torch.tensor(float(len(answers))).log()
