"""Accuracies and levels for property tests of the statistics."""

from __future__ import annotations

import numpy as np
from hypothesis import strategies as st

ACCURACIES = st.integers(0, 10_000).map(lambda correct: correct / 10_000)
SOME = st.lists(ACCURACIES, min_size=2, max_size=12)
PAIRS = st.lists(st.tuples(ACCURACIES, ACCURACIES), min_size=2, max_size=12)
SENSIBLE = st.floats(0.5, 0.999)


def varied(values):
    return np.std(values) > 1e-6
