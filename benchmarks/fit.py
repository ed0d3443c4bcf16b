"""What does the framework cost? A run's training speed against a plain PyTorch loop over the same batches.

    python benchmarks/fit.py [rounds] [key=value ...]

Both train the default net on the embedded digits for two epochs, in turn, in one process; only training is timed, not
validation. Prints images/s (medians), and the median of the ratios with its range.
"""

from __future__ import annotations

import statistics
import sys
import tempfile
import time

import torch
import torch.nn.functional as F

from cnnbench.compose import compose
from cnnbench.config import Config
from cnnbench.numerics import arranged
from cnnbench.prepare import Prepared, build_net, build_optimizer, prepare
from cnnbench.train import run, seed_everything


def plain_loop(prepared: Prepared) -> float:
    """Images per second of the shortest loop that trains the same."""
    config, data = prepared.config, prepared.data
    seed_everything(config.seed)
    net = arranged(build_net(config, data), config)
    optimizer = build_optimizer(config, net)
    loader = data.train_dataloader()
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, config.epochs * len(loader))
    begun, images = time.perf_counter(), 0
    for _ in range(config.epochs):
        for x, y in loader:
            optimizer.zero_grad()
            F.cross_entropy(net(x), y).backward()
            optimizer.step()
            schedule.step()
            images += len(y)
    return images / (time.perf_counter() - begun)


def ours(config: Config) -> float:
    with tempfile.TemporaryDirectory() as folder:
        return run(config.model_copy(update={"runs_dir": folder})).result["samples_per_s"]


def main(rounds: int, overrides: list[str]) -> None:
    config = compose(["epochs=2", *overrides])
    prepared = prepare(config)
    torch.set_num_threads(int(prepared.config.threads))
    plain_loop(prepared), ours(config)  # warm up
    pairs = [(ours(config), plain_loop(prepared)) for _ in range(rounds)]
    ratios = [a / b for a, b in pairs]
    framework, loop = (statistics.median(column) for column in zip(*pairs, strict=True))
    print(f"cnnbench {framework:,.0f} images/s, plain loop {loop:,.0f} images/s (medians of {rounds})")
    print(f"ratio {statistics.median(ratios):.2f} ({min(ratios):.2f} to {max(ratios):.2f})")


if __name__ == "__main__":
    rounds, *overrides = [*sys.argv[1:], "5"] if len(sys.argv) == 1 else sys.argv[1:]
    main(int(rounds), overrides)
