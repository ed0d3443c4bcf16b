"""Compares a sweep of twelve LeNet-5 jobs in two slots with a plain loop and with Hydra's basic launcher.

    python benchmarks/sweep.py [rounds] [epochs]

The three take turns, each in a separate process, imports included: our sweep; a plain PyTorch loop that trains, validates and tests the
same twelve nets one after another with two threads; Hydra's basic launcher, which calls our single run twelve times in one process.
Prints medians in seconds, and the medians of the ratios with their ranges.
"""

from __future__ import annotations

import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

JOBS = 12
OURS = [sys.executable, "-m", "cnnbench", "-m", f"seed=range({JOBS})", "sweep.slots=2"]
PLAIN = """
import copy, sys, torch, torch.nn.functional as F
from cnnbench.config.compose import compose
from cnnbench.data.loader import BatchPlan
from cnnbench.training.factories import build_net
from cnnbench.training.validate import prepare
from cnnbench.training.run import seed_everything

prepared = prepare(compose([f"epochs={sys.argv[1]}", "threads=2"]))
config, data = prepared.config, prepared.data
data.setup("test")
torch.set_num_threads(2)

@torch.no_grad()
def accuracy(net, loader):
    net.eval()
    correct = sum((net(x).argmax(1) == y).sum().item() for x, y in loader)
    net.train()
    return correct / len(loader.images)

for seed in range(int(sys.argv[2])):
    seed_everything(seed)
    net = build_net(config, data)
    optimizer = torch.optim.Adam(net.parameters(), lr=config.optimizer.lr)
    loader = data.loader("train", BatchPlan(config.batch_size, seed=seed))
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, config.epochs * len(loader))
    best, weights = -1.0, None
    for _ in range(config.epochs):
        for x, y in loader:
            optimizer.zero_grad()
            F.cross_entropy(net(x), y).backward()
            optimizer.step()
            schedule.step()
        if (reached := accuracy(net, data.val_dataloader())) > best:
            best, weights = reached, copy.deepcopy(net.state_dict())
    net.load_state_dict(weights)
    print(seed, accuracy(net, data.test_dataloader()))
"""
BASIC = """
import hydra
from cnnbench.config.compose import conf_dir
from omegaconf import OmegaConf

@hydra.main(config_path=str(conf_dir()), config_name="config", version_base="1.3")
def main(cfg):
    from cnnbench.config.schema import Config
    from cnnbench.training.run import run
    values = OmegaConf.to_container(cfg, resolve=True)
    values.pop("sweep")
    run(Config.from_values({**values, "threads": 2, "choices": {"model": "lenet5", "data": "mnist5k"}}))

main()
"""


def seconds(command: list[str]) -> float:
    """Returns the wall time of a command that runs in a temporary folder."""
    with tempfile.TemporaryDirectory() as folder:
        begun = time.perf_counter()
        done = subprocess.run(command, cwd=folder, capture_output=True, text=True)
        if done.returncode:
            sys.exit(f"{' '.join(command[:4])} ... ended with {done.returncode}\n{done.stdout}\n{done.stderr}")
        return time.perf_counter() - begun


def main(rounds: int, epochs: int) -> None:
    with tempfile.TemporaryDirectory() as folder:
        plain, basic = Path(folder, "plain.py"), Path(folder, "basic.py")
        plain.write_text(PLAIN)
        basic.write_text(BASIC)
        commands = {
            "our sweep": [*OURS, f"epochs={epochs}"],
            "a plain loop": [sys.executable, str(plain), str(epochs), str(JOBS)],
            "Hydra's basic launcher": [sys.executable, str(basic), "-m", f"seed=range({JOBS})", f"epochs={epochs}"],
        }
        took: dict[str, list[float]] = {name: [] for name in commands}
        for number in range(rounds):
            for name, command in commands.items():
                took[name].append(seconds(command))
                print(f"round {number + 1}: {name} {took[name][-1]:.1f} s", flush=True)
    ours, *others = took
    for name in others:
        ratios = [a / b for a, b in zip(took[ours], took[name], strict=True)]
        print(
            f"{ours} {statistics.median(took[ours]):.0f} s, {name} {statistics.median(took[name]):.0f} s (medians of {rounds}): "
            f"ratio {statistics.median(ratios):.2f} ({min(ratios):.2f} to {max(ratios):.2f})"
        )


if __name__ == "__main__":
    given = [int(argument) for argument in sys.argv[1:]]
    main(*(given + [3, 40][len(given) :]))
