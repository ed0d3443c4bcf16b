"""`cnnbench report DIR`: reports on a folder of runs; loads no torch."""

from __future__ import annotations

import shlex

from cnnbench.cli.parser import Parser
from cnnbench.console import make_console, print_plain
from cnnbench.errors import PROGRAM
from cnnbench.report.render.write import write


def main(arguments: list[str]) -> None:
    """Writes report.html, report.md, summary.csv and figures/, and prints the answer; with --text it writes nothing."""
    parser = Parser(
        "report", "Reports on the runs in a folder: the answer with intervals, tables, figures, limitations."
    )
    parser.add_path("directory", "DIR", "a sweep (runs/NAME), a run, or any folder of runs")
    parser.add_switch("--text", "print the answer and the tables, write nothing")
    parser.add_path("--out", "DIR", "where to write; default: DIR")
    options = parser.parse_args(arguments)
    console = make_console()
    print_plain(console, f"{options.directory}" if options.text else f"{options.directory}: reading")
    from cnnbench.report.analysis.report_data import make_report

    if options.text:
        from cnnbench.report.render.terminal import print_report

        print_report(make_report(options.directory, images=False), console)
        return
    out = options.out or options.directory
    with console.status("reading") as status:
        report = make_report(options.directory, status.update)
        status.update("drawing")
        files = write(report, out, shlex.join([PROGRAM, "report", *arguments]))
    for sentence in report.answer:
        print_plain(console, sentence, "bold")
    for what, path in files.items():
        print_plain(console, f"{what:<12}{path}")
