"""What a result depends on besides its config: versions, commit, machine."""

from __future__ import annotations

import hashlib
import os
import platform
import subprocess
import sys
from collections.abc import Iterable
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
    """Of Python, ours, and of the packages that decide numbers."""
    found: dict[str, str | None] = {"python": platform.python_version(), "cnnbench": cnnbench.__version__}
    for package in PACKAGES:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            found[package] = None
    return found


@cache
def decides_last_bits() -> dict[str, Any]:
    """Versions, processor and GPU: the same config gives the same numbers to the bit where these are the same."""
    import torch

    gpu = torch.cuda.get_device_name() if torch.cuda.is_available() else None
    return {**versions(), "processor": _cpu_name(), "GPU": gpu}


def code_version(modules: Iterable[str] = ()) -> str:
    """Stands for cnnbench's sources, and for those of other modules that are imported already."""
    files = sorted(Path(cnnbench.__file__).parent.rglob("*.py"))
    others = [getattr(sys.modules.get(module), "__file__", None) for module in sorted(modules)]
    files += [Path(other) for other in others if other]
    content = hashlib.sha256()
    for file in files:
        content.update(file.read_bytes())
    return content.hexdigest()[:12]


def peak_mb() -> dict[str, float]:
    """The most memory that this process has had until now, and that it has had on its GPU, in MB."""
    import torch

    held = {"cpu": psutil.Process().memory_info().rss}
    if resource is not None:
        held["cpu"] = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)
    if torch.cuda.is_available() and torch.cuda.is_initialized():
        held["gpu"] = torch.cuda.max_memory_allocated()
    return {where: round(size / 1e6, 1) for where, size in held.items()}


def git_state() -> dict[str, Any] | None:
    """Commit of cnnbench's own checkout, and whether its files differ from it; None for an installed wheel."""
    checkout = Path(cnnbench.__file__).resolve().parents[2]
    if not (checkout / ".git").exists():
        return None
    try:
        commit = _git(checkout, "rev-parse", "HEAD")
        return {"commit": commit, "dirty": bool(_git(checkout, "status", "--porcelain", "--untracked-files=no"))}
    except (OSError, subprocess.SubprocessError):
        return None


def hardware() -> dict[str, Any]:
    """Processor, cores that may be used, memory, GPUs."""
    import torch

    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    gpus = (
        [torch.cuda.get_device_name(index) for index in range(torch.cuda.device_count())]
        if torch.cuda.is_available()
        else []
    )
    return {
        "cpu": _cpu_name(),
        "cores": cores,
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
