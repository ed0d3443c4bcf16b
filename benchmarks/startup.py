"""Times the first training step and `info` on VGG-19 at 224 × 224, relative to importing torch and Lightning alone.

    python benchmarks/startup.py [rounds]

The tasks take turns, each in a fresh process. Prints medians in seconds, and the median of the ratios with its range.
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
from cnnbench.training import run as train

class Stop(Callback):
    def on_train_batch_end(self, *_):
        os._exit(0)

make = train.make_trainer
train.make_trainer = lambda config, directory, callbacks: make(config, directory, [*callbacks, Stop()])
from cnnbench.__main__ import main
sys.exit(main([]))
"""

INFO = """
import sys
from cnnbench.__main__ import main
sys.exit(main(["info", "model=vgg19", "data=cifar10", "data.image_size=224"]))
"""
TASKS = {"to the first step": FIRST_STEP, "info on VGG-19": INFO}


def seconds(code: str) -> float:
    with tempfile.TemporaryDirectory() as folder:
        begun = time.perf_counter()
        subprocess.run([sys.executable, "-c", code], cwd=folder, check=True, capture_output=True)
        return time.perf_counter() - begun


def main(rounds: int) -> None:
    for code in (IMPORTS, *TASKS.values()):  # fills the disk cache
        seconds(code)
    times = [{name: seconds(code) for name, code in {"imports": IMPORTS, **TASKS}.items()} for _ in range(rounds)]
    print(f"medians of {rounds}; imports alone {statistics.median(row['imports'] for row in times):.2f} s")
    for name in TASKS:
        ratios = [row[name] / row["imports"] for row in times]
        print(
            f"{name}: {statistics.median(row[name] for row in times):.2f} s, "
            f"{statistics.median(ratios):.2f} ({min(ratios):.2f} to {max(ratios):.2f}) of the imports"
        )


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 5)
