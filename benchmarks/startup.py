"""How long until the first training step of `python -m cnnbench`, against importing torch and Lightning alone?

    python benchmarks/startup.py [rounds]

Interleaved, each in a fresh process; prints the medians, and the median of the ratios with its range.
"""

from __future__ import annotations

import statistics
import subprocess
import sys
import tempfile
import time

IMPORTS = "import torch, pytorch_lightning"
FIRST_STEP = """
import os, sys
from pytorch_lightning import Callback
from cnnbench import train

class Stop(Callback):
    def on_train_batch_end(self, *_):
        os._exit(0)

make = train.make_trainer
train.make_trainer = lambda config, directory, callbacks: make(config, directory, [*callbacks, Stop()])
from cnnbench.__main__ import main
sys.exit(main([]))
"""


def seconds(code: str) -> float:
    with tempfile.TemporaryDirectory() as folder:
        begun = time.perf_counter()
        subprocess.run([sys.executable, "-c", code], cwd=folder, check=True, capture_output=True)
        return time.perf_counter() - begun


def main(rounds: int) -> None:
    seconds(IMPORTS), seconds(FIRST_STEP)  # fill the disk's cache
    pairs = [(seconds(FIRST_STEP), seconds(IMPORTS)) for _ in range(rounds)]
    ratios = [ours / imports for ours, imports in pairs]
    ours, imports = (statistics.median(column) for column in zip(*pairs, strict=True))
    print(f"to the first step {ours:.2f} s, imports alone {imports:.2f} s (medians of {rounds})")
    print(f"ratio {statistics.median(ratios):.2f} ({min(ratios):.2f} to {max(ratios):.2f})")


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 5)
