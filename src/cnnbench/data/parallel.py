"""Processes many files or rows: on all cores, with a progress bar if it takes longer than a second."""

from __future__ import annotations

import os
import time
import warnings
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, TypeVar

import numpy as np

CHUNK = 512  # files or rows between two updates of the bar
Items = TypeVar("Items", list[Path], np.ndarray)


def in_parallel(function: Callable[[Path], Any], paths: list[Path], title: str = "") -> Iterator[Any]:
    """Yields the function's result for each file, in order; a `title` is that of a progress bar.

    It is computed in threads: decoding and hashing release the interpreter lock.
    """
    with warnings.catch_warnings(), ThreadPoolExecutor(max_workers=os.cpu_count()) as pool:
        warnings.simplefilter("ignore")  # decoders warn about repairs; set here, since threads share the filters
        for some in chunks(paths, title):
            yield from pool.map(function, some)


def chunks(items: Items, title: str) -> Iterator[Items]:
    """Yields a list of files or an array of rows in chunks.

    A terminal shows a bar with the `title`, if there is one, once that takes longer than a second.
    """
    from rich.progress import Progress

    from cnnbench.console import Console

    console, begun = Console(stderr=True), time.monotonic()
    with Progress(console=console, transient=True, disable=not (title and console.is_terminal)) as bar:
        task = bar.add_task(title, total=len(items), visible=False)
        for start in range(0, len(items), CHUNK):
            yield items[start : start + CHUNK]
            bar.update(task, completed=start + CHUNK, visible=time.monotonic() - begun > 1)
