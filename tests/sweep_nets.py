"""Nets for jobs of a sweep, each with a fate of its own; on the command line model._target_=sweep_nets.X +model.fate=..."""

import ctypes
import hashlib
import json
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import psutil
import torch
from torch import nn

FATES = (
    "fine", "well", "raises", "diverges", "segfaults", "exits", "hangs", "deaf", "stuck", "gated", "patient", "raises_on_rank1",
)  # fmt: skip
AT = 3  # the training step at which a fate comes about
LEFT: list = []  # what a job leaves lying about


class Fated(nn.Module):
    """A small net with dropout, if asked for, to which something happens at its third training step, unless $NETS_HEALED.

    In training it notes when it took each step in the file $NETS_NOTES, if that is set.
    """

    def __init__(self, num_classes, in_channels, fate="fine", dropout=0.0, hidden=8):
        super().__init__()
        if fate not in FATES:
            raise ValueError(f"no fate is called {fate}")
        self.conv = nn.Conv2d(in_channels, hidden, 3, stride=2)
        self.linear = nn.Linear(hidden, num_classes)
        self.fate, self.dropout, self.steps = fate, dropout, 0

    def forward(self, x):
        if self.training and not x.is_meta:
            note(self.fate)
            self.steps += 1
            time.sleep(float(os.environ.get("NETS_WAIT", 0)))
            if self.steps == AT and not os.environ.get("NETS_HEALED"):
                x = x * befall(self.fate)
        x = torch.relu(self.conv(x)).mean((2, 3))
        return self.linear(nn.functional.dropout(x, self.dropout, self.training))


def befall(fate):
    """Lets it happen; gives what the images are multiplied by."""
    if fate == "raises" or (fate == "raises_on_rank1" and os.environ.get("RANK") == "1"):
        raise RuntimeError("out of luck")
    if fate == "segfaults":
        ctypes.string_at(0)
    if fate == "exits":
        os._exit(7)
    if fate == "hangs":
        time.sleep(1000)
    if fate in ("deaf", "stuck"):
        subprocess.Popen(["sleep", "1000"])
        signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals())
        libc = ctypes.CDLL(None) if fate == "deaf" else ctypes.PyDLL(None)  # which keeps the interpreter's lock, too
        libc.sleep(1000)
    if fate == "gated":
        wait(lambda: Path(os.environ["NETS_GATE"]).exists())
    if fate == "patient":  # until three others have ended
        runs = Path(os.environ["NETS_RUNS"])
        wait(lambda: len(list(runs.glob("*/*/result.json"))) >= 3)
    return float("nan") if fate == "diverges" else 1.0


def wait(for_what, seconds=60):
    deadline = time.monotonic() + seconds
    while not for_what():
        if time.monotonic() > deadline:
            raise RuntimeError("waited in vain")
        time.sleep(0.02)


def note(what):
    if "NETS_NOTES" in os.environ:
        with open(os.environ["NETS_NOTES"], "a") as file:
            said = {"pid": os.getpid(), "at": time.time(), "what": what, "threads": torch.get_num_threads()}
            file.write(json.dumps(said) + "\n")


class Littering(Fated):
    """Notes what it finds at its first training step, in $NETS_NOTES; then spoils whatever a process can spoil."""

    def __init__(self, num_classes, in_channels, image_size, mark=0):
        super().__init__(num_classes, in_channels)
        self.mark = mark

    def forward(self, x):
        if self.training and not x.is_meta and not LEFT:
            with open(os.environ["NETS_NOTES"], "a") as file:
                file.write(json.dumps({"mark": self.mark, **surroundings()}) + "\n")
            spoil(self.mark)
        x = torch.relu(self.conv(x)).mean((2, 3))
        return self.linear(x)


def surroundings():
    """What one job could have left to the next."""
    drawn = [random.random(), float(np.random.rand()), float(torch.rand(1))]
    return {
        "dtype": str(torch.get_default_dtype()),
        "environment": hashlib.sha256(json.dumps(sorted(os.environ.items())).encode()).hexdigest(),
        "path": list(sys.path),
        "folder": os.getcwd(),
        "module": "wave" in sys.modules,
        "drawn": drawn,
        "files": len(os.listdir("/proc/self/fd")),
        "memory": psutil.Process().memory_info().rss,
        "recursion": sys.getrecursionlimit(),
    }


def spoil(mark):
    import wave

    os.environ["NETS_LEFT"] = f"by {mark}"
    sys.path.insert(0, f"/nowhere/{mark}")
    sys.setrecursionlimit(5000 + mark)
    random.seed(mark)
    np.random.seed(mark)
    LEFT.extend([wave, *(os.open(os.devnull, os.O_RDONLY) for _ in range(40)), bytearray(os.urandom(2**20) * 100)])
    torch.set_default_dtype(torch.float64)
