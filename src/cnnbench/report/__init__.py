"""What runs show, and how sure one may be. Reads run directories only; loads no torch."""

from __future__ import annotations

from typing import Any

__all__ = ["load"]


def __getattr__(name: str) -> Any:  # `load` brings numpy and pandas along only where it is used
    if name == "load":
        from cnnbench.report.frame import load

        return load
    raise AttributeError(name)
