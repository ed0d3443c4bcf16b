"""A few real steps of a job, timed; nothing is kept of them."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Iterable

import torch
from torch.nn import functional as F

from cnnbench.complexity.channels_last import arranged
from cnnbench.config.schema import Config
from cnnbench.runs.environment import peak_mb
from cnnbench.sweep.estimate import OVERHEAD_S, Estimate
from cnnbench.training.classifier import with_auxiliary
from cnnbench.training.cuda_graph import Replay, suits_cuda_graph
from cnnbench.training.determinism import apply_numerics
from cnnbench.training.factories import build_net, build_optimizer, steps
from cnnbench.training.validate import prepare

STEPS = 12  # of training
WARM = 3  # of them at the start, which do not count
BATCHES = 4  # of validation
LONGEST_S = 60.0  # for the steps of one config


def measure(config: Config) -> Estimate:
    """The time of a job, from some steps of its net on its data, on this machine."""
    prepared = prepare(config)
    config, data = prepared.config, prepared.data
    torch.set_num_threads(int(config.threads))
    apply_numerics(config)
    device = torch.device("cuda" if config.trainer.accelerator == "gpu" else "cpu")
    half = {"bf16": torch.bfloat16, "16": torch.float16}.get(config.precision)
    net = arranged(build_net(config, data), config).to(device)
    optimizer = build_optimizer(config, net)
    scaler = torch.amp.GradScaler(device.type, enabled=config.precision == "16")

    def forward(images: torch.Tensor) -> list[torch.Tensor]:
        with torch.autocast(device.type, dtype=half, enabled=half is not None, cache_enabled=False):
            logits, auxiliary = with_auxiliary(net(images))
        return [logits, *auxiliary]

    def loss_of(images: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        return torch.stack([F.cross_entropy(logits.float(), labels) for logits in forward(images)]).sum()

    replay = Replay(loss_of, net, config.batch_size) if suits_cuda_graph(config) else None

    def train_on(images: torch.Tensor, labels: torch.Tensor) -> None:
        if replay is None or replay(images, labels) is None:
            optimizer.zero_grad()
            scaler.scale(loss_of(images, labels)).backward()
        scaler.step(optimizer)
        scaler.update()

    per_epoch, whole = steps(config, data)
    share = config.trainer.devices * config.trainer.num_nodes
    data.batch_size = config.batch_size // share  # what one process sees of a batch
    loader = data.train_dataloader()
    net.train()
    of_training = timed(loader, train_on, STEPS * config.accumulate, device)
    net.eval()
    with torch.no_grad():
        of_scoring = timed(data.val_dataloader(), lambda images, labels: forward(images), BATCHES, device)
    validations = whole / (config.trainer.val_every_steps or per_epoch)
    scored = validations * len(data.indices["val"]) + len(data.indices["test"])
    seconds = whole * of_training * config.accumulate + scored / config.batch_size * of_scoring + OVERHEAD_S
    return Estimate(seconds, max(peak_mb().values()), f"{STEPS} steps measured")


def timed(
    batches: Iterable[tuple[torch.Tensor, torch.Tensor]], work: Callable[..., object], count: int, device: torch.device
) -> float:
    """The median of the seconds that a batch takes, its cutting included."""
    took: list[float] = []
    begun = time.perf_counter()
    while len(took) < count and time.perf_counter() - begun < LONGEST_S:
        at = time.perf_counter()
        for images, labels in batches:
            work(images.to(device), labels.to(device))
            if device.type == "cuda":
                torch.cuda.synchronize()
            now = time.perf_counter()
            took.append(now - at)
            at = now
            if len(took) >= count or now - begun > LONGEST_S:
                break
    return statistics.median(took[WARM:] or took)
