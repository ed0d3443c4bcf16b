"""Nets that train in milliseconds, for tests of the options of training; on the command line model._target_=small_nets.X."""

import os
import signal

import torch
from torch import nn

from nets import Linear, Signalled

TINY = ["threads=1", "epochs=1", "data=synthetic", "data.train_size=128", "data.val_size=32", "data.test_size=32"]


def send_signal():
    """Sends this process the signal NETS_SIGNAL at training step NETS_STEP, as `nets.Signalled` does."""
    Signalled.steps += 1
    if Signalled.steps == int(os.environ.get("NETS_STEP", 0)):
        os.kill(os.getpid(), getattr(signal, os.environ["NETS_SIGNAL"]))


class Small(nn.Module):
    """A convolution with batch norm and dropout, optionally two auxiliary heads, for images of any size; calls `send_signal`."""

    def __init__(self, num_classes, in_channels, heads=False, dropout=0.1):
        super().__init__()
        self.conv, self.norm = nn.Conv2d(in_channels, 8, 3, stride=2), nn.BatchNorm2d(8)
        self.linear = nn.Linear(8, num_classes)
        self.heads = nn.ModuleList([nn.Linear(8, num_classes), nn.Linear(8, num_classes)]) if heads else None
        self.dropout = dropout

    def forward(self, x):
        if self.training and not x.is_meta:
            send_signal()
        x = torch.relu(self.norm(self.conv(x))).mean((2, 3))
        logits = self.linear(nn.functional.dropout(x, self.dropout, self.training))
        return (logits, *(head(x) for head in self.heads)) if self.training and self.heads else logits


class HeavyHeads(Small):
    """Sets the weight of its auxiliary heads' losses."""

    aux_weight = 2.0


class Spoiled(Linear):
    """Makes a number of training step `at`, or of the validation after it, not finite; `what` chooses which."""

    def __init__(self, num_classes, in_channels, image_size, what="loss", at=5):
        super().__init__(num_classes, in_channels, image_size)
        self.root = nn.Parameter(torch.zeros(1))
        self.what, self.at, self.steps = what, at, 0

    def forward(self, x):
        logits = super().forward(x)
        self.steps += self.training
        if self.what == "weights":  # its gradient is exactly 0
            return logits + 0 * self.root
        if (self.what == "validation") == self.training or self.steps != self.at:
            return logits
        if self.what == "gradient":  # of sqrt at 0, times 0: nan
            return logits + 0 * self.root.sqrt()
        if self.what == "infinite":  # the true class has probability 0
            return torch.cat([logits[:, :1], torch.full_like(logits[:, 1:], -float("inf"))], 1)
        return logits * float("nan")
