"""Stops the building of a net with too many layers: a config may be from somebody else, or a number in it mistyped."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

from torch import Tensor
from torch.nn.modules.module import (
    register_module_buffer_registration_hook,
    register_module_module_registration_hook,
    register_module_parameter_registration_hook,
)
from torch.nn.parameter import is_lazy
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from cnnbench.errors import ConfigError

MOST_LAYERS = 100_000  # a ResNet of 2000 layers has 20,000 layers and weights; building so many takes some 10 s


@contextmanager
def build_limit(layers: int = MOST_LAYERS, size: float = float("inf")) -> Iterator[None]:
    """Raises ConfigError, in the context, once the nets that are built have more than so many layers or bytes.

    Args:
        layers: modules and their parameters and buffers, each counted in every module that contains it.
        size: bytes of the parameters and buffers.
    """
    count, total = 0, 0

    def add_one(module: Any, name: str, layer: Any) -> None:
        nonlocal count
        count += 1
        if count > layers:
            raise ConfigError(f"model: has more than {layers:,} layers and weights; type a smaller net")

    def add_numbers(module: Any, name: str, value: Tensor | None) -> None:
        nonlocal total
        add_one(module, name, value)
        if value is not None and not is_lazy(value):
            total += value.numel() * value.element_size()
        if total > size:
            raise ConfigError(f"model: its weights take more than {size / 1e6:,.0f} MB; type a smaller net")

    with ExitStack() as hooks:
        for register, hook in (
            (register_module_module_registration_hook, add_one),
            (register_module_parameter_registration_hook, add_numbers),
            (register_module_buffer_registration_hook, add_numbers),
        ):
            hooks.callback(register(hook).remove)
        yield


class OutputLimit(TorchDispatchMode):
    """Raises ConfigError, in the context, when an operation has a larger output; a net on the meta device takes no memory.

    Args:
        size: bytes.
    """

    def __init__(self, size: float) -> None:
        super().__init__()
        self.size = size

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Runs an operation and measures its results."""
        result = func(*args, **(kwargs or {}))
        for value in tree_leaves(result):
            if isinstance(value, Tensor) and (needed := value.numel() * value.element_size()) > self.size:
                raise ConfigError(
                    f"model: an output of {'×'.join(map(str, value.shape))} numbers takes {needed / 1e9:,.0f} GB, which this "
                    "machine does not have"
                )
        return result
