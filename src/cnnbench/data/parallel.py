"""Work over many files or rows: on all cores, and with a bar where it takes longer than a moment."""

from __future__ import annotations

import os
import time
import warnings
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np

CHUNK = 512  # files or rows between two looks at the bar


def in_parallel(function: Callable[[Path], Any], paths: list[Path]) -> list[Any]:
    """What the function gives for each file, in their order: decoders and hashes release the interpreter."""
    with warnings.catch_warnings(), ThreadPoolExecutor(max_workers=os.cpu_count()) as pool:
        warnings.simplefilter("ignore")  # what a decoder stumbles on and gets over; filters are not a thread's own
        return list(pool.map(function, paths))


def chunks(rows: np.ndarray, title: str) -> Iterator[np.ndarray]:
    """`rows` a chunk at a time; a bar on a terminal, once it takes longer than a moment."""
    from rich.console import Console
    from rich.progress import Progress

    console, begun = Console(stderr=True), time.monotonic()
    with Progress(console=console, transient=True, disable=not console.is_terminal) as bar:
        task = bar.add_task(title, total=len(rows), visible=False)
        for start in range(0, len(rows), CHUNK):
            yield rows[start : start + CHUNK]
            bar.update(task, completed=min(start + CHUNK, len(rows)), visible=time.monotonic() - begun > 1)
