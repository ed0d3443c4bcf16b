"""Measures the cost of images: speed against torchvision's transforms, memory against the images' bytes, time spent waiting.

    python benchmarks/data.py [rounds] [key=value ...]

Prints the medians of the rounds and their ranges:
    images/s of crop, flip and normalise on 3×32×32 images, ours and torchvision's on PIL images, one thread each, in turn;
    memory of a process that passed through all splits of a data set, minus its imports, over the bytes of the images, for one process
    and for four at once (shared pages counted once);
    the share of its training time for which `model=lenet5` waits for data.
key=value chooses the data set of the last two, for example data=mnist.
"""

from __future__ import annotations

import gc
import multiprocessing
import statistics
import sys
import tempfile
import time
from multiprocessing import Queue
from multiprocessing.synchronize import Barrier

import numpy as np
import psutil
import torch
from PIL import Image
from torchvision import transforms

from cnnbench.config.compose import compose
from cnnbench.config.schema import Config
from cnnbench.data.datamodule import ImageData
from cnnbench.data.loader import BatchPlan, Images, Loader, Normalization
from cnnbench.training.factories import build_augment
from cnnbench.training.run import run
from cnnbench.training.validate import prepare

N, BATCH = 5_000, 128
MEAN, STD = [0.4914, 0.4822, 0.4465], [0.2470, 0.2435, 0.2616]


def speed(rounds: int) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (N, 3, 32, 32), dtype=np.uint8)
    augment = build_augment(compose(["augment=basic"]), 32, MEAN)
    images = Images(torch.from_numpy(pixels), torch.zeros(N, dtype=torch.int64))
    loader = Loader(images, BatchPlan(BATCH, seed=0), Normalization(MEAN, STD), augment=augment)
    pictures = [Image.fromarray(picture) for picture in pixels.transpose(0, 2, 3, 1)]
    one_by_one = transforms.Compose(
        [
            transforms.RandomCrop(32, padding=4),
            transforms.RandomHorizontalFlip(),
            transforms.ToTensor(),
            transforms.Normalize(MEAN, STD),
        ]
    )

    def ours() -> None:
        for _ in loader:
            pass

    def theirs() -> None:
        for at in np.array_split(np.random.default_rng(0).permutation(N), N // BATCH):
            torch.stack([one_by_one(pictures[index]) for index in at])

    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    pairs = [(N / seconds(ours), N / seconds(theirs)) for _ in range(rounds + 1)][1:]
    torch.set_num_threads(threads)
    mine, baseline = (statistics.median(column) for column in zip(*pairs, strict=True))
    print(f"crop, flip, normalise: {mine:,.0f} images/s, torchvision {baseline:,.0f} images/s")
    print(f"    ratio {spread([a / b for a, b in pairs])}")


def memory(overrides: list[str]) -> None:
    config = compose(overrides)
    hold(config)  # decodes the images first: a later job is measured
    context = multiprocessing.get_context("spawn")
    for jobs, counted in ((1, "rss"), (4, "pss")):
        barrier, queue = context.Barrier(jobs), context.Queue()
        processes = [context.Process(target=measured, args=(config, counted, barrier, queue)) for _ in range(jobs)]
        for process in processes:
            process.start()
        held, extra = zip(*(queue.get() for _ in processes), strict=True)
        for process in processes:
            process.join()
        print(
            f"memory of {jobs} at once, above imports: {sum(extra) / 1e6:,.1f} MB for {held[0] / 1e6:,.1f} MB of images, "
            f"{sum(extra) / held[0]:.2f}×"
        )


def measured(config: Config, counted: str, barrier: Barrier, queue: Queue) -> None:
    """Runs in a separate process: sends the images' bytes and the growth of its memory, while all processes hold the images."""
    prepare(compose(["data=synthetic"]))  # triggers the lazy imports
    barrier.wait()
    before = getattr(psutil.Process().memory_full_info(), counted)
    barrier.wait()
    data = hold(config)
    gc.collect()
    barrier.wait()
    queue.put(
        (
            sum(images.nbytes for images in data.images.values()),
            getattr(psutil.Process().memory_full_info(), counted) - before,
        )
    )
    barrier.wait()


def hold(config: Config) -> ImageData:
    """Loads the data set and passes through each split."""
    data = prepare(config).data
    data.setup("test")
    for loader in (data.train_dataloader(), data.val_dataloader(), data.test_dataloader()):
        for _ in loader:
            pass
    return data


def waiting(overrides: list[str], rounds: int) -> None:
    config = compose(["epochs=1", *overrides])
    shares = []
    for _ in range(rounds):
        with tempfile.TemporaryDirectory() as folder:
            result = run(config.model_copy(update={"runs_dir": folder})).result
        shares.append(result.time["data_wait_share"])
    print(
        f"{config.choices['model']} on {config.choices['data']} waits for data {spread([100 * s for s in shares])} % of its training time"
    )


def seconds(function) -> float:
    begun = time.perf_counter()
    function()
    return time.perf_counter() - begun


def spread(values: list[float]) -> str:
    return f"{statistics.median(values):.2f} ({min(values):.2f} to {max(values):.2f})"


if __name__ == "__main__":
    given = sys.argv[1:]
    rounds = int(given.pop(0)) if given and given[0].isdigit() else 5
    speed(rounds)
    memory(given)
    waiting(given, min(rounds, 3))
