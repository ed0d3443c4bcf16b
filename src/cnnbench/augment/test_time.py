"""Test-time augmentation: averages a net's predictions over several scales of an image and their mirror images.

Simonyan, Zisserman 2015, sections 3.2 and 4.2: images are scaled to several sizes, softmax outputs of all views are averaged.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from cnnbench.augment.functional import center_crop, resize
from cnnbench.errors import ConfigError

LARGEST = 4096  # pixels a side
SYNTAX = "--tta takes scales=S,S,... (pixels a side) and flips, as in --tta scales=256,384,512,flips"


@dataclass(frozen=True)
class TestTimeViews:
    """The views of an image: `scales` in pixels a side, none for the image itself; each also mirrored if `flips`."""

    scales: tuple[int, ...] = ()
    flips: bool = False

    @classmethod
    def parse(cls, text: str) -> TestTimeViews:
        """Parses `scales=28,32,36,flips`, or one of its two parts.

        Raises:
            ConfigError: the text has another form, or a scale above 4096 pixels.
        """
        words = [word.strip() for word in text.split(",")]
        numbers = [word for word in words if word != "flips"]
        if numbers and not re.fullmatch("scales=0*[1-9][0-9]*(,0*[1-9][0-9]*)*", ",".join(numbers)):
            raise ConfigError(f"--tta {text}: {SYNTAX}")
        scales = dict.fromkeys(int(number.removeprefix("scales=")) for number in numbers)
        if max(scales, default=0) > LARGEST:
            raise ConfigError(f"--tta {text}: scales are pixels a side, at most {LARGEST}")
        return cls(tuple(scales), "flips" in words)

    def source_side(self, native: int, image_size: int) -> int:
        """Pixels a side of the images from which the views are made.

        The net's image size if that is the only scale. Else the data set's size, so that no view depends on the other
        views, but at most twice the net's image size or the largest scale.
        """
        if set(self.scales) <= {image_size}:
            return image_size
        return min(native, max(2 * image_size, *self.scales))

    def of(self, images: Tensor, image_size: int) -> list[Tensor]:
        """Makes the views of normalized images (N, C, S, S): one (N, C, image_size, image_size) for each scale and flip.

        A scale above `image_size` is cropped to its middle; a smaller one is padded with the data's mean colour.
        """
        views = [center_crop(resize(images, scale), image_size) for scale in self.scales or (image_size,)]
        return views + [view.flip(-1) for view in views] * self.flips


class TestTimeEnsemble(nn.Module):
    """Normalized images (N, C, S, S) -> log of the mean of `net`'s probabilities over the views: (N, num_classes), float32."""

    def __init__(self, net: nn.Module, views: TestTimeViews, image_size: int) -> None:
        super().__init__()
        self.net, self.views, self.image_size = net, views, image_size

    def forward(self, images: Tensor) -> Tensor:
        """Runs the net on one view after the other and averages."""
        log_probabilities = [self.net(view).float().log_softmax(1) for view in self.views.of(images, self.image_size)]
        return torch.stack(log_probabilities).logsumexp(0) - torch.tensor(float(len(log_probabilities))).log()
