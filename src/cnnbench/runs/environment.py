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
from cnnbench.errors import ConfigError

try:
    import resource
except ImportError:  # Windows
    resource = None  # type: ignore[assignment]

PACKAGES = ("torch", "torchvision", "pytorch-lightning", "torchmetrics", "hydra-core", "numpy")
PROCESSES_PER_CORE = 8
GIT_TIMEOUT_S = 10.0


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

    cnnbench's files are read at the first call of a process: a run calls it at its start, since they may change while it runs.

    Args:
        modules: names of the further modules; those that are not imported are skipped.
    """
    others = [getattr(sys.modules.get(module), "__file__", None) for module in sorted(modules)]
    digest = _hash_of_sources().copy()
    digest.update(b"".join(Path(other).read_bytes() for other in others if other))
    return digest.hexdigest()[:12]


@cache
def _hash_of_sources() -> hashlib._Hash:
    """The SHA-256 of the source files of cnnbench."""
    files = sorted(Path(cnnbench.__file__).parent.rglob("*.py"))
    return hashlib.sha256(b"".join(file.read_bytes() for file in files))


def peak_memory_mb() -> dict[str, float]:
    """Peak memory of this process until now, by device, in MB: `cpu`, and `gpu` where it uses one."""
    import torch

    peak = {"cpu": psutil.Process().memory_info().rss}
    if resource is not None:
        peak["cpu"] = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)
    if torch.cuda.is_available() and torch.cuda.is_initialized():
        peak["gpu"] = torch.cuda.max_memory_allocated()
    return {device: round(size / 1e6, 1) for device, size in peak.items()}


@cache
def git_state() -> dict[str, Any] | None:
    """`commit` of cnnbench's git checkout, and `dirty`, whether tracked files differ from it, both at the first call of a process.

    None for an installed wheel, and where git is absent, does not answer, or refuses the checkout as another user's.
    """
    source = Path(cnnbench.__file__).resolve()
    checkout = source.parents[2]
    if not (checkout / ".git").exists():
        return None
    try:
        # the path up to the top folder is empty in the top folder itself; the last argument fails unless the commit has the file
        tracked = f"HEAD:{source.relative_to(checkout).as_posix()}"
        to_top, commit, _ = _git(checkout, "rev-parse", "--show-cdup", "HEAD", tracked).splitlines()
        changes = _git(checkout, "status", "--porcelain", "--untracked-files=no")
        return None if to_top else {"commit": commit, "dirty": bool(changes)}
    except (OSError, ValueError, subprocess.SubprocessError):
        return None


def usable_cores() -> int:
    """Number of CPU cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def require_cores(devices: int) -> None:
    """Checks that this machine can run a process for each device: at most `PROCESSES_PER_CORE` a core.

    Raises:
        ConfigError: there are too many devices.
    """
    cores = usable_cores()
    if devices > (most := PROCESSES_PER_CORE * cores):
        raise ConfigError(
            f"trainer.devices={devices}: each is a process, and this machine has {cores} cores; type at most trainer.devices={most}"
        )


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
    """What git prints about a checkout, which no variable redirects to another one; takes none of the repository's locks."""
    environment = {name: value for name, value in os.environ.items() if not name.upper().startswith("GIT_")}
    command = ["git", "--no-optional-locks", "-C", str(checkout), *arguments]
    output = subprocess.run(command, capture_output=True, check=True, timeout=GIT_TIMEOUT_S, env=environment).stdout
    return output.decode("utf-8", "replace").removesuffix("\n")
