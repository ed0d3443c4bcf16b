"""Compares two layers: their outputs, and the gradients with respect to the input and to every parameter."""

from __future__ import annotations

from collections.abc import Callable, Iterable

import torch
from torch import Tensor


def uniform(*shape: int, seed: int = 0, dtype: torch.dtype = torch.float32) -> Tensor:
    """Returns random numbers from -1 to 1, a range in which absolute differences are meaningful."""
    return torch.rand(shape, generator=torch.Generator().manual_seed(seed), dtype=dtype) * 2 - 1


def assert_agree(
    ours: Callable[[Tensor], Tensor],
    theirs: Callable[[Tensor], Tensor],
    x: Tensor,
    parameters: tuple[Iterable[Tensor], Iterable[Tensor]] = ((), ()),
    tolerance: float = 1e-5,
) -> None:
    """Asserts that outputs, and gradients of a weighted sum of them, have equal shapes and types, and values within `tolerance`.

    The tolerance is absolute for numbers below 1, relative for larger ones, which are sums of many.
    """
    results = []
    for layer, its in zip((ours, theirs), parameters, strict=True):
        given = x.detach().clone().requires_grad_()
        output = layer(given)
        weighted = output * uniform(*output.shape, seed=99, dtype=output.dtype)
        results.append([output.detach(), *torch.autograd.grad(weighted.sum(), [given, *its])])
    for one, other in zip(*results, strict=True):
        torch.testing.assert_close(one, other, rtol=tolerance, atol=tolerance)
