"""Colours, dashes and symbols of settings, on the page and in figures. The colours suit colour-blind readers (Okabe and Ito 2008)."""

from __future__ import annotations

from dataclasses import dataclass

COLORS = ("#0072B2", "#E69F00", "#009E73", "#D55E00", "#CC79A7", "#56B4E9", "#7F7F7F")
DASHES = (("solid", "-"), ("dash", "--"), ("dot", ":"), ("dashdot", "-."))  # Plotly's name, matplotlib's
SYMBOLS = (("circle", "o"), ("diamond", "D"), ("square", "s"), ("triangle-up", "^"))  # likewise


@dataclass(frozen=True)
class Style:
    """How a setting looks.

    Attributes:
        color: as `#rrggbb`.
        dash, symbol: Plotly's names of the line and of the points.
        line, marker: matplotlib's names of the same.
    """

    color: str
    dash: str
    line: str
    symbol: str
    marker: str


def style_of(number: int) -> Style:
    """The style of setting `number`: colours vary first, then dashes and symbols."""
    turn, color = divmod(number, len(COLORS))
    return Style(COLORS[color], *DASHES[turn % len(DASHES)], *SYMBOLS[turn % len(SYMBOLS)])
