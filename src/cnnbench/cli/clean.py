"""`cnnbench clean DIR`: shows what takes room on the disk, and deletes what finished runs no longer need."""

from __future__ import annotations

import shlex
from collections import Counter
from pathlib import Path

from cnnbench.cli.parser import Parser
from cnnbench.console import Console, make_console, plain_table, plain_text, print_plain
from cnnbench.errors import PROGRAM, CnnbenchError, ConfigError
from cnnbench.report.number_format import plural
from cnnbench.runs.disk_use import (
    LAST,
    NEEDED,
    TEMPORARY,
    DiskUse,
    delete_unused,
    disk_use,
    find_runs,
    freed_size,
    total_size,
)
from cnnbench.text import file_size, first_few

RULE = """\
Shows what takes room on the disk. With --yes deletes last.ckpt and previous.ckpt of finished runs, from which nothing resumes any more,
and temporary files that a kill left. Results, logs, metrics, predictions, TensorBoard events and the best weights stay: report, compare,
evaluate, predict and reproduce work as before. Of a run that is not finished, nothing is deleted.
"""


def main(arguments: list[str]) -> None:
    """Prints the sizes by kind; with `--yes` deletes what is not needed.

    Raises:
        ConfigError: the folder holds no runs.
        CnnbenchError: a file could not be deleted.
    """
    parser = Parser("clean", RULE)
    parser.add_path("directory", "DIR", "a sweep (runs/NAME), a run, or the folder runs")
    parser.add_switch("--yes", "delete; without it nothing is deleted")
    options = parser.parse_args(arguments)
    path: Path = options.directory
    runs = find_runs(path)
    if not runs:
        there = "holds no runs" if path.is_dir() else "there is no such folder"
        raise ConfigError(f"{path}: {there}; type a run, a sweep (runs/NAME) or the folder runs")
    use, console = disk_use(path, runs), make_console()
    print_use(path, use, console)
    if not use.unused:
        print_plain(console, "nothing to delete")
        return
    if not options.yes:
        freed = file_size(freed_size(use.unused))
        print_plain(console, f"nothing was deleted. To free {freed}: {PROGRAM} clean {shlex.quote(str(path))} --yes")
        return
    deleted, problems = delete_unused(use)
    print_plain(console, f"deleted {plural(len(deleted), 'file')}, {file_size(freed_size(deleted))} freed", "bold")
    if problems:
        raise CnnbenchError(first_few(problems, 1, "; "))


def print_use(path: Path, use: DiskUse, console: Console) -> None:
    """Prints how many runs are finished, and a table with a row per kind of files."""
    kept = [f"{count} {reason}" for reason, count in Counter(use.kept.values()).items()]
    size, finished = file_size(total_size(use.files)), plural(use.finished, "finished run")
    kept_text = f"; not touched: {', '.join(kept)}" if kept else ""
    print_plain(console, f"{path}: {size}, {finished}{kept_text}", "bold")
    table = plain_table("", "files", "size", "")
    for column in table.columns[1:3]:
        column.justify, column.no_wrap = "right", True
    for kind in (LAST, TEMPORARY, *NEEDED):
        if files := [file for file in use.files if file.kind == kind]:
            needed = kind in NEEDED
            note = "stays" if needed else "not needed any more"
            table.add_row(
                kind, f"{len(files):,}", file_size(total_size(files)), plain_text(note, "dim" if needed else "yellow")
            )
    console.print(table)
