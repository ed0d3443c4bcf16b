"""Nets of users, correct and faulty ones, for model._target_=nets.X."""

import os
import signal
import sys
import time

import torch
from torch import nn

from cnnbench.models.lenet5 import LeNet5


class Linear(nn.Module):
    """The smallest net: one linear layer, or two with `hidden` units between them."""

    def __init__(self, num_classes, in_channels, image_size, hidden=0):
        super().__init__()
        pixels = in_channels * image_size**2
        self.net = (
            nn.Sequential(nn.Linear(pixels, hidden), nn.ReLU(), nn.Linear(hidden, num_classes)) if hidden else None
        )
        self.net = self.net or nn.Linear(pixels, num_classes)

    def forward(self, x):
        return self.net(x.flatten(1))


class NoMeta(Linear):
    """Reads a value in its forward, which the meta device cannot give."""

    def forward(self, x):
        return super().forward(x) * (2.0 if x.sum().item() > 1e9 else 1.0)


class WrongOutput(nn.Module):
    """Seven logits for any number of classes."""

    def __init__(self):
        super().__init__()
        self.linear = nn.Linear(784, 7)

    def forward(self, x):
        return self.linear(x.flatten(1))


class WrongInput(WrongOutput):
    """Accepts 10×10 images only."""

    def __init__(self):
        super().__init__()
        self.linear = nn.Linear(100, 10)


class Raising(Linear):
    """Raises an error at the third training step."""

    steps = 0

    def forward(self, x):
        if self.training:
            self.steps += 1
            if self.steps == 3:
                raise RuntimeError("out of luck")
        return super().forward(x)


class Impatient(Linear):
    """Raises KeyboardInterrupt in training, like Ctrl-C."""

    def forward(self, x):
        if self.training:
            raise KeyboardInterrupt
        return super().forward(x)


class Diverging(Linear):
    """Returns NaN in training."""

    def forward(self, x):
        return super().forward(x) * (float("nan") if self.training else 1.0)


class Signalled(LeNet5):
    """LeNet-5 with dropout that sends the signal $NETS_SIGNAL to its process at training step $NETS_STEP."""

    steps = 0

    def forward(self, x):
        if self.training and not x.is_meta:
            type(self).steps += 1
            if type(self).steps == int(os.environ.get("NETS_STEP", 0)):
                os.kill(os.getpid(), getattr(signal, os.environ["NETS_SIGNAL"]))
        return nn.functional.dropout(super().forward(x), 0.1, self.training)


class Peaking(Linear):
    """Returns zeros in evaluation except after the second epoch, which therefore is the best."""

    def __init__(self, num_classes, in_channels, image_size):
        super().__init__(num_classes, in_channels, image_size)
        self.register_buffer("epoch", torch.zeros(()))
        self.was_training = False

    def forward(self, x):
        if self.training and not self.was_training:
            self.epoch += 1
        self.was_training = self.training
        logits = super().forward(x)
        return logits if self.training or self.epoch == 2 else logits * 0


class Shrinking(nn.Module):
    """Shrinks 28×28 images to 2×2, which its last window does not fit."""

    def __init__(self, num_classes, in_channels, window=3, pool=False):
        super().__init__()
        self.features = nn.Sequential(
            nn.Conv2d(in_channels, 4, 5), nn.MaxPool2d(4), nn.Conv2d(4, 4, 3), nn.MaxPool2d(2)
        )
        self.last = nn.MaxPool2d(window) if pool else nn.Conv2d(4, 4, window)
        self.linear = nn.Linear(4, num_classes)

    def forward(self, x):
        return self.linear(self.last(self.features(x)).flatten(1))


class Ragged(nn.Module):
    """Has a convolution whose windows do not fit evenly and miss the last row and column of the image."""

    def __init__(self, num_classes, in_channels):
        super().__init__()
        self.conv = nn.Conv2d(in_channels, 4, 3, stride=2)
        self.pool, self.linear = nn.AdaptiveAvgPool2d(1), nn.Linear(4, num_classes)

    def forward(self, x):
        return self.linear(self.pool(self.conv(x)).flatten(1))


class Slow(Signalled):
    """LeNet-5 with dropout that waits $NETS_WAIT seconds in each training step."""

    def forward(self, x):
        if self.training and not x.is_meta:
            time.sleep(float(os.environ.get("NETS_WAIT", 0)))
        return super().forward(x)


class Normed(nn.Module):
    """Has dropout and batch norm, whose random numbers and running statistics a resumed run must restore."""

    def __init__(self, num_classes, in_channels):
        super().__init__()
        self.conv, self.norm = nn.Conv2d(in_channels, 8, 5, stride=2), nn.BatchNorm2d(8)
        self.pool, self.linear = nn.AdaptiveAvgPool2d(2), nn.Linear(32, num_classes)

    def forward(self, x):
        x = self.pool(self.norm(self.conv(x)).relu()).flatten(1)
        return self.linear(nn.functional.dropout(x, 0.2, self.training))


class Quitting(Linear):
    """Exits the process with code 7 in training."""

    def forward(self, x):
        if self.training and not x.is_meta:
            sys.exit(7)
        return super().forward(x)


class RaisingOnRank1(Raising):
    """Raises an error at the third training step, on rank 1 only."""

    def forward(self, x):
        return super().forward(x) if os.environ.get("RANK") == "1" else Linear.forward(self, x)


class Greedy(Linear):
    """Raises an out-of-memory error at the third training step: the GPU's (`kind` cuda) or the machine's (host)."""

    steps = 0

    def __init__(self, num_classes, in_channels, image_size, kind="cuda"):
        super().__init__(num_classes, in_channels, image_size)
        self.kind = kind

    def forward(self, x):
        if self.training:
            self.steps += 1
            if self.steps == 3:
                raise {
                    "cuda": torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB. GPU 0 has a total"),
                    "host": MemoryError(),
                }[self.kind]
        return super().forward(x)
