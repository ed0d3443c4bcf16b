"""Where data sets are kept, and how an absent one comes there: one process downloads, the others wait."""

from __future__ import annotations

import contextlib
import io
import os
import socket
from collections.abc import Callable
from http.client import HTTPException
from pathlib import Path

from cnnbench.errors import DataError

TIMEOUT_S = 20.0  # without a byte from a server


def default_root() -> Path:
    """`$CNNBENCH_DATA`, or a per-user cache folder."""
    import platformdirs

    return Path(os.environ.get("CNNBENCH_DATA") or platformdirs.user_cache_dir("cnnbench")).expanduser()


def fetch(name: str, files: list[Path], root: Path, download: Callable[[], object]) -> None:
    """Calls `download` under a file lock, unless another process has brought the files meanwhile.

    Raises:
        DataError: it did not work; names the files, the folder, and what to type instead.
    """
    from filelock import FileLock

    try:
        root.mkdir(parents=True, exist_ok=True)
        with FileLock(root / f".{name}.lock"), _timeout(TIMEOUT_S):
            if not all(path.is_file() for path in files):
                print(f"data={name}: downloading to {root}", flush=True)
                with contextlib.redirect_stdout(io.StringIO()):
                    download()
    except (OSError, RuntimeError, EOFError, HTTPException) as error:
        absent = [path.name for path in files if not path.is_file()]
        reason = " ".join(str(error).split()) or type(error).__name__
        raise DataError(
            f"data={name}: {', '.join(absent or [path.name for path in files])} not in {files[0].parent}, and the download failed "
            f"({reason}); put the files there, name their folder with data.root=..., or type data=mnist5k, which needs none"
        ) from error


@contextlib.contextmanager
def _timeout(seconds: float):  # type: ignore[no-untyped-def]
    before = socket.getdefaulttimeout()
    socket.setdefaulttimeout(seconds)
    try:
        yield
    finally:
        socket.setdefaulttimeout(before)
