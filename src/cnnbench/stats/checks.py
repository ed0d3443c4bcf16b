"""Checks of arguments that several statistics share. Each raises a ValueError that states what was expected and what came."""

from __future__ import annotations

from collections.abc import Iterable, Sized
from math import isfinite
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import ArrayLike, NDArray


def finite_numbers(values: Iterable[float]) -> list[float]:
    """Converts values to floats; requires at least one, and only finite ones."""
    numbers = [float(value) for value in values]
    if not numbers or not all(map(isfinite, numbers)):
        raise ValueError(f"expected at least one number, and finite ones, got {numbers}")
    return numbers


def require_fraction(what: str, value: float) -> None:
    """Requires a number between 0 and 1, both excluded."""
    if not 0 < value < 1:
        raise ValueError(f"expected {what} between 0 and 1, got {value}")


def require_pairs(ours: Sized, theirs: Sized) -> None:
    """Requires two sequences of the same length."""
    if len(ours) != len(theirs):
        raise ValueError(f"expected pairs, got {len(ours)} and {len(theirs)} values")


def finite_array(values: ArrayLike) -> NDArray[np.float64]:
    """Converts values to an array (images,); requires at least one image, and only finite numbers."""
    import numpy as np

    array = np.asarray(values, dtype=float)
    if array.ndim != 1 or not array.size or not np.isfinite(array).all():
        raise ValueError(f"expected finite numbers of at least one image, got shape {array.shape}")
    return array


def correct_array(values: ArrayLike) -> NDArray[np.bool_]:
    """Converts values to booleans (images,): whether the net is correct on each image; requires booleans, or 0 and 1."""
    array = finite_array(values)
    if not ((array == 0) | (array == 1)).all():
        raise ValueError("expected correct or wrong for each image, as booleans or as 0 and 1")
    return array == 1
