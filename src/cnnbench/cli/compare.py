"""`cnnbench compare A B`: which settings of B are better or worse than those of A, and what else differs. Loads no torch."""

from __future__ import annotations

from rich.table import Table as RichTable

from cnnbench.cli.parser import Parser
from cnnbench.console import Console, make_console, print_plain
from cnnbench.errors import CnnbenchError
from cnnbench.report.analysis.cell import Cell
from cnnbench.report.analysis.compare_sweeps import (
    CellPair,
    SweepComparison,
    compare_sweeps,
    join_labels,
    summary_sentence,
)
from cnnbench.report.analysis.config_diff import run_differences
from cnnbench.report.load.sweep import read_runs
from cnnbench.report.number_format import accuracy_text, p_value, plural, signed_points
from cnnbench.report.render.tables import Row, Table
from cnnbench.report.render.terminal import rich_table

STYLES: dict[str, str | None] = {
    "worse": "red",
    "better": "green",
    "no result": "red",
    "equal": "dim",
    "undecided": None,
}
MAX_DIFFERENCES = 8  # printed differences of a kind
RULE = """\
Settings of A and B are the same where they agree in every key that varies in A or in B; seeds are paired. A setting is better or
worse where p < 0.05 after Holm's correction over all settings. --fail-if-worse X exits 1 where the mean test accuracy of a setting
fell by more than X and either that is significant or each seed alone fell by more than X (one seed: by its point alone); where the
mean over all settings fell by more than X, and that is significant; and where a run of B has no result while that of A has. Settings
that are not in B fail nothing.
"""


def main(arguments: list[str]) -> None:
    """Compares two folders of runs and prints the comparison.

    Raises:
        CnnbenchError: B is worse than `--fail-if-worse` allows.
    """
    parser = Parser("compare", RULE)
    parser.add_path("before", "A", "the earlier folder: runs/NAME, or a run directory")
    parser.add_path("after", "B", "the later folder, which is compared with A")
    parser.add_argument(
        "--fail-if-worse", type=float, metavar="X", help="exit 1 if a setting is worse; 0.01 is one point of accuracy"
    )
    options = parser.parse_args(arguments)
    limit = options.fail_if_worse
    if limit is not None and not 0 <= limit < 1:
        parser.error(f"--fail-if-worse {limit:g}: expected a number from 0, below 1; 0.01 is one point of accuracy")
    comparison = compare_sweeps(read_runs(options.before), read_runs(options.after))
    print_comparison(comparison, make_console())
    failures = comparison.failures(limit) if limit is not None else []
    if failures:
        raise CnnbenchError(f"{options.after}: worse by more than {limit:g}: {'; '.join(failures)}")


def print_comparison(comparison: SweepComparison, console: Console) -> None:
    """Prints the summary, a table with one row per setting, and what else differs."""
    before, after, pairs = comparison.before, comparison.after, comparison.pairs
    print_plain(console, f"A  {before.path}")
    print_plain(console, f"B  {after.path}")
    console.print()
    print_plain(console, summary_sentence(comparison), "bold")
    verdicts = [pair.verdict for pair in pairs]
    counts = ", ".join(f"{verdicts.count(verdict)} {verdict}" for verdict in STYLES if verdict in verdicts)
    print_plain(console, f"{plural(len(pairs), 'matched setting')}: {counts}")
    console.print()
    console.print(comparison_table(pairs))
    console.print()
    for name, cells in {"A": comparison.only_before, "B": comparison.only_after}.items():
        if cells:
            print_plain(console, f"only in {name}: {join_labels([cell.label for cell in cells])}", "yellow")
    for name, cells in {"A": [pair.before for pair in pairs], "B": [pair.after for pair in pairs]}.items():
        unfinished = [f"{cell.label} {unfinished_states(cell)}" for cell in cells if cell.n < len(cell.runs)]
        if unfinished:
            print_plain(console, f"without a result in {name}: {join_labels(unfinished)}", "yellow")
    for problem in (*before.problems, *after.problems):
        print_plain(console, problem, "yellow")
    print_differences(pairs, console)


def comparison_table(pairs: list[CellPair]) -> RichTable:
    """The table with one row per setting."""
    columns = ["setting", "n", "A", "B", "points", "95 % interval", "p", "B is"]
    table = rich_table(Table(columns, range(1, 7), [Row(_texts(pair)) for pair in pairs]))
    for column in table.columns[1:]:
        column.no_wrap = True
    for row, pair in zip(table.rows, pairs, strict=True):
        row.style = STYLES[pair.verdict]
    return table


def _texts(pair: CellPair) -> list[str]:
    """The texts of a setting's row."""
    difference = pair.difference
    n, point, interval = "0", "", ""
    if difference:
        n, point = f"{difference.n}{'' if difference.paired else ' unpaired'}", signed_points(difference.point)
        interval = " to ".join(map(signed_points, difference.interval or ()))
    return [pair.label, n, *map(accuracy_text, pair.means), point, interval, p_value(pair.p), pair.verdict]


def unfinished_states(cell: Cell) -> str:
    """The seeds of a setting that have no result, with their states."""
    return ", ".join(f"seed {run.seed} {run.state}" for run in cell.runs if run.accuracy is None)


def print_differences(pairs: list[CellPair], console: Console) -> None:
    """Prints what else differs between the matched settings, by kind."""
    runs = [(pair.label, pair.before.example, pair.after.example) for pair in pairs]
    found = run_differences(
        [each for each in runs if each[1].config and each[2].config],
        [run for pair in pairs for run in pair.before.runs],
        [run for pair in pairs for run in pair.after.runs],
    )
    for kind, texts in found.items():
        more = [f"and {len(texts) - MAX_DIFFERENCES} more"] * (len(texts) > MAX_DIFFERENCES)
        for line, text in enumerate(texts[:MAX_DIFFERENCES] + more or ["the same"]):
            print_plain(console, f"{kind if not line else '':<10}{text}", "yellow" if texts else "dim")
