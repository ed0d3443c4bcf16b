"""Nets as a user might bring them, good and bad; named on the command line as model._target_=nets.X."""

import os
import signal
import sys
import time

import torch
from torch import nn

from cnnbench.models.lenet5 import LeNet5


class Linear(nn.Module):
    """The smallest net that there is; takes the facts that it names, and a knob."""

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
    """Asks for a value, which the meta device does not have."""

    def forward(self, x):
        return super().forward(x) * (2.0 if x.sum().item() > 1e9 else 1.0)


class WrongOutput(nn.Module):
    """Seven logits, whatever is asked for."""

    def __init__(self):
        super().__init__()
        self.linear = nn.Linear(784, 7)

    def forward(self, x):
        return self.linear(x.flatten(1))


class WrongInput(WrongOutput):
    """Takes 10×10 images only."""

    def __init__(self):
        super().__init__()
        self.linear = nn.Linear(100, 10)


class Raising(Linear):
    """Fails in training, at the third step."""

    steps = 0

    def forward(self, x):
        if self.training:
            self.steps += 1
            if self.steps == 3:
                raise RuntimeError("out of luck")
        return super().forward(x)


class Impatient(Linear):
    """Presses Ctrl-C where nobody expects it."""

    def forward(self, x):
        if self.training:
            raise KeyboardInterrupt
        return super().forward(x)


class Diverging(Linear):
    """Gives NaN in training."""

    def forward(self, x):
        return super().forward(x) * (float("nan") if self.training else 1.0)


class Signalled(LeNet5):
    """LeNet-5 with dropout, which sends its process $NETS_SIGNAL at training step $NETS_STEP, as a person would."""

    steps = 0

    def forward(self, x):
        if self.training and not x.is_meta:
            type(self).steps += 1
            if type(self).steps == int(os.environ.get("NETS_STEP", 0)):
                os.kill(os.getpid(), getattr(signal, os.environ["NETS_SIGNAL"]))
        return nn.functional.dropout(super().forward(x), 0.1, self.training)


class Peaking(Linear):
    """Random answers, but for the second validation of each run: what is kept must be those weights."""

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
    """Of 28×28 its second pooling leaves 2×2, which its last window does not fit."""

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
    """Windows that do not fit a map evenly: the last row and column of the image are not seen by the first."""

    def __init__(self, num_classes, in_channels):
        super().__init__()
        self.conv = nn.Conv2d(in_channels, 4, 3, stride=2)
        self.pool, self.linear = nn.AdaptiveAvgPool2d(1), nn.Linear(4, num_classes)

    def forward(self, x):
        return self.linear(self.pool(self.conv(x)).flatten(1))


class Slow(Signalled):
    """LeNet-5 with dropout, which takes $NETS_WAIT seconds more for each training step."""

    def forward(self, x):
        if self.training and not x.is_meta:
            time.sleep(float(os.environ.get("NETS_WAIT", 0)))
        return super().forward(x)


class Normed(nn.Module):
    """Dropout and batch norm, whose running sums and random numbers a run must take up again."""

    def __init__(self, num_classes, in_channels):
        super().__init__()
        self.conv, self.norm = nn.Conv2d(in_channels, 8, 5, stride=2), nn.BatchNorm2d(8)
        self.pool, self.linear = nn.AdaptiveAvgPool2d(2), nn.Linear(32, num_classes)

    def forward(self, x):
        x = self.pool(self.norm(self.conv(x)).relu()).flatten(1)
        return self.linear(nn.functional.dropout(x, 0.2, self.training))


class Quitting(Linear):
    """Ends the process in training."""

    def forward(self, x):
        if self.training and not x.is_meta:
            sys.exit(7)
        return super().forward(x)


class RaisingOnRank1(Raising):
    """Fails in training, at the third step, on the second of several ranks alone."""

    def forward(self, x):
        return super().forward(x) if os.environ.get("RANK") == "1" else Linear.forward(self, x)


class Greedy(Linear):
    """Asks for more memory than there is, at the third training step: a GPU's, or the machine's."""

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
