"""`cnnbench merge A B ...`: adds the runs of other copies of a sweep to A. Loads no torch."""

from __future__ import annotations

import shlex
from collections import Counter
from pathlib import Path

from cnnbench.cli.parser import Parser
from cnnbench.console import make_console, print_plain
from cnnbench.errors import PROGRAM, ConfigError
from cnnbench.report.number_format import plural
from cnnbench.runs.commands import sweep_command
from cnnbench.runs.sweep_dir import SweepDir
from cnnbench.sweep.merge import apply_merge, plan_merge
from cnnbench.sweep.status_table import retry_command

RULE = """\
Adds the runs of B to the sweep A: of two folders that two machines have made with sweep.part=1/2 and sweep.part=2/2, or of any copies
of one sweep. Of each job the finished run is taken, else the one that got furthest. A finished run of A is never replaced, and B is never
changed. What is finished in both must have equal results, to the last bit; else nothing is copied, and the exit code is 1. For a
new folder, copy A first.
"""


def main(arguments: list[str]) -> None:
    """Merges sweeps and prints what was copied.

    Raises:
        ConfigError: a sweep is live, half copied, or named twice.
        CnnbenchError: they are different sweeps, have different results, or a file cannot be written.
    """
    parser = Parser("merge", RULE)
    parser.add_path("into", "A", "the sweep that gets the runs (runs/NAME)")
    parser.add_path("sources", "B", "the other folders of this sweep", nargs="+")
    options = parser.parse_args(arguments)
    into, *sources = (SweepDir.open(path) for path in (options.into, *options.sources))
    seen: dict[Path, Path] = {}
    for sweep in (into, *sources):
        if earlier := seen.get(sweep.path.resolve()):
            raise ConfigError(f"{sweep.path}: is the same folder as {earlier}; name each folder once")
        seen[sweep.path.resolve()] = sweep.path
    console = make_console()
    with console.status("comparing") as status:
        plan = plan_merge(into, sources)
        apply_merge(plan, status.update)
    states = [job.status().state for job in plan.jobs]
    equal = f", {plan.repeated} finished in several folders, with equal results" * bool(plan.repeated)
    counts = f"{plural(len(plan.copies), 'run')} copied{equal}; {states.count('done')} of {len(states)} jobs are done"
    print_plain(console, f"{into.path}: {counts}", "bold")
    for note in plan.notes:
        print_plain(console, note, "yellow")
    if states.count("done") < len(states):
        command = sweep_command(plan.record.command, plan.record.name)
        print_plain(console, f"to continue: {retry_command(command, Counter(states))}")
    print_plain(console, f"report       {PROGRAM} report {shlex.quote(str(into.path))}")
