"""What an arm looks like, on the page and in files: told apart also by who does not see all colours (Okabe and Ito 2008)."""

from __future__ import annotations

from dataclasses import dataclass

COLORS = ("#0072B2", "#E69F00", "#009E73", "#D55E00", "#CC79A7", "#56B4E9", "#7F7F7F")
DASHES = ("solid", "dash", "dot", "dashdot")
SYMBOLS = ("circle", "diamond", "square", "triangle-up")
MARKERS = {"circle": "o", "diamond": "D", "square": "s", "triangle-up": "^"}  # as matplotlib calls them


@dataclass(frozen=True)
class Look:
    """A colour as `#rrggbb`, a dash and a symbol as Plotly and matplotlib's linestyles call them."""

    color: str
    dash: str
    symbol: str


def look(number: int) -> Look:
    """Of the n-th arm: colours first, then dashes and symbols."""
    round_ = number // len(COLORS)
    return Look(COLORS[number % len(COLORS)], DASHES[round_ % len(DASHES)], SYMBOLS[round_ % len(SYMBOLS)])
