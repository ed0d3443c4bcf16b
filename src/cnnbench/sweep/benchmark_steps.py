"""Times a few real training steps and validation batches of a job, on random images; nothing is downloaded or written."""

from __future__ import annotations

import itertools
import statistics
import time
from collections.abc import Callable, Iterable

import torch
from torch.nn import functional as F

from cnnbench.complexity.channels_last import to_memory_format
from cnnbench.config.schema import Config
from cnnbench.data.loader import BatchPlan, Images
from cnnbench.data.read_only import read_only
from cnnbench.runs.environment import peak_memory_mb
from cnnbench.training.classifier import logits_and_auxiliary
from cnnbench.training.cuda_graph import GraphedStep, can_use_cuda_graph
from cnnbench.training.determinism import apply_numeric_settings
from cnnbench.training.factories import build_net, build_optimizer, step_counts
from cnnbench.training.validate import prepare

WARM_UP = 3  # batches at the start that are not counted
# more than one pass of a small split, whose last batch has another size: a GPU is slow on a new size
VALIDATION_BATCHES = 8
IMAGES_IN_BATCHES = 8  # images of each split, in batches; fewer where the split has fewer
MAX_SECONDS = 60.0  # for the training steps of a config, and for its validation batches


def measure_job(config: Config, step_count: int) -> tuple[float, float]:
    """Measures a job on this machine: `step_count` optimizer steps of its net on images of its size, and a few validation batches.

    Returns:
        seconds of the whole job, without its start; peak memory of this process in MB.
    """
    with read_only():
        prepared = prepare(config)
    config, data = prepared.config, prepared.data
    steps_per_epoch, steps = step_counts(config, data)
    validations = steps / (config.trainer.val_every_steps or steps_per_epoch)
    tested = validations * len(data.indices["val"]) + len(data.indices["test"])  # images
    gpu_images = sum(images.nbytes for images in data.images.values()) if data.pipeline == "device" else 0  # bytes
    for split, images in data.images.items():
        data.images[split] = random_images(images, IMAGES_IN_BATCHES * config.batch_size)
    torch.set_num_threads(int(config.threads))
    apply_numeric_settings(config)
    device = torch.device("cuda" if config.trainer.accelerator == "gpu" else "cpu")
    half = {"bf16": torch.bfloat16, "16": torch.float16}.get(config.precision)
    net = to_memory_format(build_net(config, data), config).to(device)
    optimizer = build_optimizer(config, net)
    scaler = torch.amp.GradScaler(device.type, enabled=config.precision == "16")

    def forward(images: torch.Tensor) -> list[torch.Tensor]:
        with torch.autocast(device.type, dtype=half, enabled=half is not None, cache_enabled=False):
            logits, auxiliary = logits_and_auxiliary(net(images))
        return [logits, *auxiliary]

    def loss_of(images: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        return torch.stack([F.cross_entropy(logits.float(), labels) for logits in forward(images)]).sum()

    replay = GraphedStep(loss_of, net, config.batch_size) if can_use_cuda_graph(config) else None

    def train_on(images: torch.Tensor, labels: torch.Tensor) -> None:
        if replay is None or replay(images, labels) is None:
            optimizer.zero_grad()
            scaler.scale(loss_of(images, labels)).backward()
        scaler.step(optimizer)
        scaler.update()

    plan = BatchPlan(config.batch_size // config.world_size, config.accumulate, seed=config.seed)  # of one process
    net.train()
    train_s = median_batch_seconds(data.loader("train", plan), train_on, step_count * config.accumulate, device)
    net.eval()
    with torch.no_grad():
        batches = data.loader("val", plan.for_scoring())
        test_s = median_batch_seconds(batches, lambda images, _: forward(images), VALIDATION_BATCHES, device)
    seconds = steps * config.accumulate * train_s + tested / config.batch_size * test_s
    return seconds, max(peak_memory_mb().values()) + gpu_images / 1e6


def random_images(images: Images, most: int) -> Images:
    """Images of the same size and with the same labels as the first `most` of `images`, with random pixels."""
    labels = images.labels[:most]
    return Images(torch.randint(256, (len(labels), *images.source.shape[1:]), dtype=torch.uint8), labels)


def median_batch_seconds(
    batches: Iterable[tuple[torch.Tensor, torch.Tensor]], work: Callable[..., object], count: int, device: torch.device
) -> float:
    """Median seconds per batch over `count` batches or MAX_SECONDS: loading it, moving it to the device, and `work` on it."""
    times = [time.perf_counter()]
    for images, labels in itertools.chain.from_iterable(itertools.repeat(batches)):  # as many epochs as are needed
        work(images.to(device), labels.to(device))
        if device.type == "cuda":
            torch.cuda.synchronize()
        times.append(time.perf_counter())
        if len(times) > count or times[-1] > times[0] + MAX_SECONDS:
            break
    seconds = [after - before for before, after in itertools.pairwise(times)]
    return statistics.median(seconds[WARM_UP:] or seconds)
