"""Processes many files or rows: on all cores, with a progress bar if it takes longer than a second."""

from __future__ import annotations

import os
import time
import warnings
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np

CHUNK = 512  # files or rows between two updates of the bar


def in_parallel(function: Callable[[Path], Any], paths: list[Path]) -> list[Any]:
    """The function's result for each file, in order, computed in threads: decoding and hashing release the interpreter lock."""
    with warnings.catch_warnings(), ThreadPoolExecutor(max_workers=os.cpu_count()) as pool:
        warnings.simplefilter(
            "ignore"
        )  # set here, since threads share the filters: decoders warn about what they repair
        return list(pool.map(function, paths))


def chunks(rows: np.ndarray, title: str) -> Iterator[np.ndarray]:
    """Yields `rows` (n,) in chunks; shows a bar on a terminal once that takes longer than a second."""
    from rich.console import Console
    from rich.progress import Progress

    console, begun = Console(stderr=True), time.monotonic()
    with Progress(console=console, transient=True, disable=not console.is_terminal) as bar:
        task = bar.add_task(title, total=len(rows), visible=False)
        for start in range(0, len(rows), CHUNK):
            yield rows[start : start + CHUNK]
            bar.update(task, completed=min(start + CHUNK, len(rows)), visible=time.monotonic() - begun > 1)
