"""Nets whose jobs fail in a chosen way; on the command line model._target_=sweep_nets.FaultyNet +model.fault=raises."""

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

FAULTS = (
    "fine", "well", "raises", "diverges", "segfaults", "exits", "hangs", "blocks_signals", "holds_gil", "waits_for_file",
    "waits_for_results", "raises_on_rank1",
)  # fmt: skip
AT = 3  # the training step at which a fault occurs
LEFT: list = []  # objects that a job does not free


class FaultyNet(nn.Module):
    """A small net with a fault at its third training step, unless $NETS_REPAIRED is set; optionally with dropout.

    Appends the time of each training step to the file $NETS_NOTES, if that is set.
    """

    def __init__(self, num_classes, in_channels, fault="fine", dropout=0.0, hidden=8):
        super().__init__()
        if fault not in FAULTS:
            raise ValueError(f"no fault is called {fault}")
        self.conv = nn.Conv2d(in_channels, hidden, 3, stride=2)
        self.linear = nn.Linear(hidden, num_classes)
        self.fault, self.dropout, self.steps = fault, dropout, 0

    def forward(self, x):
        if self.training and not x.is_meta:
            note(self.fault)
            self.steps += 1
            time.sleep(float(os.environ.get("NETS_WAIT", 0)))
            if self.steps == AT and not os.environ.get("NETS_REPAIRED"):
                x = x * cause(self.fault)
        x = torch.relu(self.conv(x)).mean((2, 3))
        return self.linear(nn.functional.dropout(x, self.dropout, self.training))


def cause(fault):
    """Causes the fault; returns the factor for the images."""
    if fault == "raises" or (fault == "raises_on_rank1" and os.environ.get("RANK") == "1"):
        raise RuntimeError("out of luck")
    if fault == "segfaults":
        ctypes.string_at(0)
    if fault == "exits":
        os._exit(7)
    if fault == "hangs":
        time.sleep(1000)
    if fault in ("blocks_signals", "holds_gil"):
        subprocess.Popen(["sleep", "1000"])
        signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals())
        libc = ctypes.CDLL(None) if fault == "blocks_signals" else ctypes.PyDLL(None)  # PyDLL holds the GIL, too
        libc.sleep(1000)
    if fault == "waits_for_file":
        wait(lambda: Path(os.environ["NETS_GATE"]).exists())
    if fault == "waits_for_results":  # of three other jobs
        runs = Path(os.environ["NETS_RUNS"])
        wait(lambda: len(list(runs.glob("*/*/result.json"))) >= 3)
    return float("nan") if fault == "diverges" else 1.0


def wait(for_what, seconds=60):
    deadline = time.monotonic() + seconds
    while not for_what():
        if time.monotonic() > deadline:
            raise RuntimeError("nothing happened")
        time.sleep(0.02)


def note(what):
    if "NETS_NOTES" in os.environ:
        with open(os.environ["NETS_NOTES"], "a") as file:
            entry = {"pid": os.getpid(), "at": time.time(), "what": what, "threads": torch.get_num_threads()}
            file.write(json.dumps(entry) + "\n")


class LitteringNet(FaultyNet):
    """At its first training step records the state of its process in $NETS_NOTES, and then changes it in many ways."""

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
    """The state of the process that an earlier job could have changed."""
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
