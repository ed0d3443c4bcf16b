"""Colours, dashes and symbols of settings, on the page and in figures. The colours suit colour-blind readers (Okabe and Ito 2008)."""

from __future__ import annotations

from dataclasses import dataclass

COLORS = ("#0072B2", "#E69F00", "#009E73", "#D55E00", "#CC79A7", "#56B4E9", "#7F7F7F")
DASHES = ("solid", "dash", "dot", "dashdot")
SYMBOLS = ("circle", "diamond", "square", "triangle-up")
MARKERS = {"circle": "o", "diamond": "D", "square": "s", "triangle-up": "^"}  # matplotlib's names of the symbols


@dataclass(frozen=True)
class Style:
    """A colour as `#rrggbb`, a dash and a symbol by Plotly's names."""

    color: str
    dash: str
    symbol: str


def style_of(number: int) -> Style:
    """The style of setting `number`: colours vary first, then dashes and symbols."""
    round_ = number // len(COLORS)
    return Style(COLORS[number % len(COLORS)], DASHES[round_ % len(DASHES)], SYMBOLS[round_ % len(SYMBOLS)])
