"""`python -m cnnbench report DIR`: says what a folder of runs shows; loads no torch."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import Any

from cnnbench.arguments import Parser
from cnnbench.errors import ConfigError
from cnnbench.rundir import write_atomic
from cnnbench.sweep.view import make_console, plain


def main(arguments: list[str]) -> None:
    """Writes report.html, report.md, summary.csv and figures/, and says the answer; with --text it writes nothing."""
    parser = Parser("report", "What the runs in a folder show, and how sure one may be.")
    parser.add_argument("directory", type=Path, metavar="DIR", help="a sweep's, runs/NAME; a run's; any folder of runs")
    parser.add_argument("--text", action="store_true", help="the answer and the table of cells, here; writes nothing")
    parser.add_argument("--out", type=Path, metavar="DIR", help="where to write; otherwise beside the runs")
    options = parser.parse_args(arguments)
    console = make_console()
    plain(console, f"{options.directory}" if options.text else f"{options.directory}: reading")
    from cnnbench.report.report import make_report

    if options.text:
        from cnnbench.report.text import show

        show(make_report(options.directory, images=False), console)
        return
    out = options.out or options.directory
    with console.status("reading") as status:
        report = make_report(options.directory, lambda what: status.update(what))
        status.update("drawing")
        files = write(report, out, shlex.join(["python", "-m", "cnnbench", "report", *arguments]))
    for sentence in report.answer:
        plain(console, sentence, "bold")
    for what, path in files.items():
        plain(console, f"{what:<12}{path}")


def write(report: Any, out: Path, command: str) -> dict[str, Path]:
    """All files of a report."""
    from cnnbench.report import markdown, page, plots

    try:
        (out / "figures").mkdir(parents=True, exist_ok=True)
        figures = plots.draw(report, out / "figures")
        files = {
            name: out / file
            for name, file in (("page", "report.html"), ("text", "report.md"), ("table", "summary.csv"))
        }
        write_atomic(files["page"], page.render(report, command))
        write_atomic(files["text"], markdown.render(report, figures, out, command))
        write_atomic(files["table"], summary(report))
    except OSError as error:
        raise ConfigError(
            f"{out}: cannot be written to ({error.strerror}); choose another folder with --out DIR"
        ) from error
    return {**files, "pictures": out / "figures"}


def summary(report: Any) -> str:
    """A row a run, as the sweep writes it, of what is there now."""
    from cnnbench.report.run import final
    from cnnbench.sweep.ledger import as_cell, as_csv

    runs = report.review.runs
    rows = [
        {
            "job": run.name,
            "state": run.state,
            **{key: as_cell(value) for key, value in run.setting.items()},
            **final(run),
            "reason": run.reason or "",
        }
        for run in runs.runs
    ]
    return as_csv(rows, [*runs.keys, "seed"])
