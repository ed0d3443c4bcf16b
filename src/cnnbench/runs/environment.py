"""The environment of a run: package versions, source code, git commit, hardware, memory use."""

from __future__ import annotations

import hashlib
import os
import platform
import subprocess
import sys
from collections.abc import Iterable
from contextlib import suppress
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import psutil

import cnnbench

try:
    import resource
except ImportError:  # Windows
    resource = None  # type: ignore[assignment]

PACKAGES = ("torch", "torchvision", "pytorch-lightning", "torchmetrics", "hydra-core", "numpy")


def versions() -> dict[str, str | None]:
    """Versions of Python, of cnnbench and of the packages that influence results; None for a package that is absent."""
    found = {"python": platform.python_version(), "cnnbench": cnnbench.__version__, **dict.fromkeys(PACKAGES)}
    for package in PACKAGES:
        with suppress(PackageNotFoundError):
            found[package] = version(package)
    return found


@cache
def bit_determining_environment() -> dict[str, Any]:
    """Versions, processor and GPU: where these are equal, the same config gives bit-equal results."""
    import torch

    gpu = torch.cuda.get_device_name() if torch.cuda.is_available() else None
    return {**versions(), "processor": _cpu_name(), "GPU": gpu}


def code_version(modules: Iterable[str] = ()) -> str:
    """A hash, 12 hex digits, of the source files of cnnbench and of further modules.

    Args:
        modules: names of the further modules; those that are not imported are skipped.
    """
    files = sorted(Path(cnnbench.__file__).parent.rglob("*.py"))
    others = [getattr(sys.modules.get(module), "__file__", None) for module in sorted(modules)]
    files += [Path(other) for other in others if other]
    return hashlib.sha256(b"".join(file.read_bytes() for file in files)).hexdigest()[:12]


def peak_memory_mb() -> dict[str, float]:
    """Peak memory of this process until now, by device, in MB: `cpu`, and `gpu` where it uses one."""
    import torch

    peak = {"cpu": psutil.Process().memory_info().rss}
    if resource is not None:
        peak["cpu"] = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)
    if torch.cuda.is_available() and torch.cuda.is_initialized():
        peak["gpu"] = torch.cuda.max_memory_allocated()
    return {device: round(size / 1e6, 1) for device, size in peak.items()}


def git_state() -> dict[str, Any] | None:
    """`commit` of cnnbench's git checkout, and `dirty`, whether tracked files differ from it; None for an installed wheel."""
    checkout = Path(cnnbench.__file__).resolve().parents[2]
    if not (checkout / ".git").exists():
        return None
    try:
        commit = _git(checkout, "rev-parse", "HEAD")
        return {"commit": commit, "dirty": bool(_git(checkout, "status", "--porcelain", "--untracked-files=no"))}
    except (OSError, subprocess.SubprocessError):
        return None


def usable_cores() -> int:
    """Number of CPU cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def hardware() -> dict[str, Any]:
    """`cpu`, `cores` that this process may use, `memory_gib`, `gpus` and operating `system`."""
    import torch

    gpus = (
        [torch.cuda.get_device_name(index) for index in range(torch.cuda.device_count())]
        if torch.cuda.is_available()
        else []
    )
    return {
        "cpu": _cpu_name(),
        "cores": usable_cores(),
        "memory_gib": round(psutil.virtual_memory().total / 2**30, 1),
        "gpus": gpus,
        "system": f"{platform.system()} {platform.machine()}",
    }


def _cpu_name() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
        return next(line.split(":", 1)[1].strip() for line in lines if line.startswith("model name"))
    except (OSError, StopIteration):
        return platform.processor() or "unknown"


def _git(checkout: Path, *arguments: str) -> str:
    command = ["git", "-C", str(checkout), *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=True, timeout=10).stdout.strip()
