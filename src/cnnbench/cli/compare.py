"""`python -m cnnbench compare A B`: what became better or worse between two folders of runs, and what else differs; loads no torch."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

from rich.console import Console
from rich.table import Table as RichTable
from rich.text import Text

from cnnbench.cli.parser import Parser
from cnnbench.console import make_console, plain
from cnnbench.errors import CnnbenchError
from cnnbench.report.analysis.cell import METRIC, Cell
from cnnbench.report.analysis.compare_sweeps import Matched, Pair, configured, listed, match, summary
from cnnbench.report.analysis.config_diff import differing
from cnnbench.report.load.sweep import read
from cnnbench.report.number_format import p_value, percent, plural
from cnnbench.report.render.tables import Row, Table, signed
from cnnbench.report.render.terminal import of_table

STYLES: dict[str, str | None] = {
    "worse": "red",
    "better": "green",
    "no result": "red",
    "equal": "dim",
    "not decided": None,
}
SHOWN = 8  # differences of a kind
RULE = """\
Cells are matched by what varies in both, else by config; seeds are paired. A cell is better or worse where p < 0.05 after Holm's
correction over all cells. --fail-if-worse X exits 1 where the mean test accuracy of a cell fell by more than X and either that
is significant or each seed by itself fell by more than X (one seed: by its point alone); where that of all cells together did, and
is significant; and where a run that B was asked for has no result while A has. Cells that B was not asked for fail nothing.
"""


def main(arguments: list[str]) -> None:
    """Prints it.

    Raises:
        CnnbenchError: B is worse than `--fail-if-worse` allows.
    """
    parser = Parser("compare", RULE)
    parser.add_argument("before", type=Path, metavar="A", help="what B is compared with: runs/NAME, or a run")
    parser.add_argument("after", type=Path, metavar="B", help="the later one")
    parser.add_argument(
        "--fail-if-worse", type=float, metavar="X", help="exit 1 if a cell is; 0.01 is one point of accuracy"
    )
    options = parser.parse_args(arguments)
    limit = options.fail_if_worse
    if limit is not None and not 0 <= limit < 1:
        parser.error(f"--fail-if-worse {limit:g}: expected a number from 0, below 1; 0.01 is one point of accuracy")
    found = match(read(options.before), read(options.after))
    show(found, make_console())
    worse = found.worse_by(limit) if limit is not None else []
    if worse:
        raise CnnbenchError(f"{options.after}: worse by more than {limit:g}: {'; '.join(worse)}")


def show(found: Matched, console: Console) -> None:
    """The answer, a row a cell, what differs."""
    plain(console, f"A  {found.before.path}\nB  {found.after.path}\n")
    plain(console, summary(found), "bold")
    counts: Counter[str] = Counter(pair.verdict for pair in found.pairs)
    told = ", ".join(f"{counts[verdict]} {verdict}" for verdict in STYLES if counts[verdict])
    plain(console, f"{plural(len(found.pairs), 'matched cell')}: {told}\n")
    console.print(table(found.pairs))
    console.print()
    for name, cells in {"A": found.only_before, "B": found.only_after}.items():
        if cells:
            plain(console, f"only in {name}: {listed([cell.label for cell in cells])}", "yellow")
    for name, side in {"A": "before", "B": "after"}.items():
        cells = [getattr(pair, side) for pair in found.pairs]
        undone = [f"{cell.label} {states_of(cell)}" for cell in cells if cell.n < len(cell.runs)]
        if undone:
            plain(console, f"without a result in {name}: {listed(undone)}", "yellow")
    for problem in (*found.before.problems, *found.after.problems):
        plain(console, problem, "yellow")
    show_differences(found, console)


def table(pairs: list[Pair]) -> RichTable:
    """A row a cell."""
    columns = ["cell", "n", "A", "B", "points", "95 % interval", "p", "B is"]
    rows = [Row(_texts(pair)) for pair in pairs]
    made = of_table(Table(columns, frozenset(range(1, 7)), rows))
    for column in made.columns[1:]:
        column.no_wrap = True
    for row, pair in zip(made.rows, pairs, strict=True):
        row.style = STYLES[pair.verdict]
    return made


def _texts(pair: Pair) -> list[str]:
    difference = pair.difference
    interval = " to ".join(map(signed, difference.interval)) if difference and difference.interval else ""
    n = f"{difference.n}{'' if pair.paired else ' unpaired'}" if difference else "0"
    point = signed(difference.point) if difference else ""
    return [
        pair.label, n, *map(percent, pair.means), point, interval, p_value(pair.p), pair.verdict,
    ]  # fmt: skip


def states_of(cell: Cell) -> str:
    """How those of a cell's runs stand that count for nothing."""
    return ", ".join(f"seed {run.seed} {run.state}" for run in cell.runs if run.metric(METRIC) is None)


def show_differences(found: Matched, console: Console) -> None:
    """What else differs, by kind."""
    pairs = [(pair.label, configured(pair.before.runs), configured(pair.after.runs)) for pair in found.pairs]
    runs = [[run for pair in found.pairs for run in getattr(pair, side).runs] for side in ("before", "after")]
    for kind, texts in differing([each for each in pairs if each[1].config and each[2].config], *runs).items():
        more = [f"and {len(texts) - SHOWN} more"] if len(texts) > SHOWN else []
        for place, text in enumerate([*texts[:SHOWN], *more] or ["the same"]):
            console.print(Text(f"{kind if not place else '':<10}{text}", "yellow" if texts else "dim"), soft_wrap=True)
