"""Compares a run's training speed with a plain PyTorch loop over the same batches: the cost of the framework.

    python benchmarks/fit.py [rounds] [key=value ...]

Both train the default net on the embedded digits for two epochs, in turn, in one process. Validation is not timed.
Prints images/s (medians), and the median of the ratios with its range.
"""

from __future__ import annotations

import statistics
import sys
import tempfile
import time

import torch
import torch.nn.functional as F

from cnnbench.complexity.channels_last import to_memory_format
from cnnbench.config.compose import compose
from cnnbench.config.schema import Config
from cnnbench.data.loader import Loader
from cnnbench.training.factories import build_net, build_optimizer
from cnnbench.training.run import run, seed_everything
from cnnbench.training.validate import Prepared, prepare


def plain_loop(prepared: Prepared) -> float:
    """Images per second of the shortest equivalent loop, in 32 bits or bf16."""
    config, data = prepared.config, prepared.data
    device = torch.device("cuda" if config.trainer.accelerator == "gpu" else "cpu")
    seed_everything(config.seed)
    net = to_memory_format(build_net(config, data), config).to(device)
    optimizer = build_optimizer(config, net)
    batches = on_device(data.train_dataloader(), device)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, config.epochs * len(batches))
    begun, images = time.perf_counter(), 0
    for _ in range(config.epochs):
        for x, y in batches:
            optimizer.zero_grad()
            with torch.autocast(device.type, dtype=torch.bfloat16, enabled=config.precision == "bf16"):
                loss = F.cross_entropy(net(x), y)
            loss.backward()
            optimizer.step()
            schedule.step()
            images += len(y)
    if device.type == "cuda":
        torch.cuda.synchronize()
    return images / (time.perf_counter() - begun)


def on_device(loader: Loader, device: torch.device) -> Loader:
    """Moves a loader's images and batches to the device of the net."""
    loader.images, loader.device = loader.images.to(device), device
    loader.scale, loader.shift = loader.scale.to(device), loader.shift.to(device)
    return loader


def ours(config: Config) -> float:
    with tempfile.TemporaryDirectory() as folder:
        return run(config.model_copy(update={"runs_dir": folder})).result.samples_per_s


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
