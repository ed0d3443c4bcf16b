"""Runs a sweep: makes its plan, freezes and runs the jobs, shows their progress, and prints the results."""

from __future__ import annotations

import shlex
from collections.abc import Mapping
from pathlib import Path

from cnnbench.console import Console, print_plain
from cnnbench.errors import PROGRAM
from cnnbench.output import note_lost_output_in
from cnnbench.sweep.launcher import Launcher, freeze_to_disk
from cnnbench.sweep.plan import Plan, make_plan
from cnnbench.sweep.schema import SweepKeys
from cnnbench.sweep.status_table import SweepDisplay, cell_table, other_parts_line, retry_command


def run_sweep(plan: Plan, command: str, console: Console) -> int:
    """Runs the due jobs of a plan; returns the exit code.

    Args:
        plan: the sweep.
        command: what the user typed; the same command again runs the jobs that are left.
        console: shows the progress and the results.

    Raises:
        Interrupted: a signal came.
    """
    part = plan.policy.part
    advice = f"; type another runs_dir=... for sweep.part={part}, and join both folders with merge" if part else ""
    with plan.sweep.lock(advice):
        freeze_to_disk(plan, command)
        note_lost_output_in(plan.sweep.log)
        print_plain(console, f"{plan.sweep.path}: {plan_summary(plan)}", "bold")
        for note in plan.notes:
            print_plain(console, note, "yellow")
        launcher = Launcher(plan, command, SweepDisplay(plan, console))
        code = launcher.run()
    print_results(plan, console)
    print_unfinished(launcher.display.tracker.counts, plan.policy, command, console)
    if launcher.summary.trouble:
        print_plain(console, launcher.summary.trouble, "yellow")
    return code


def plan_with_progress(overrides: list[str], config_dir: Path | None, console: Console, writes: bool = True) -> Plan:
    """Makes the plan, and shows on a terminal how many jobs are composed and checked; `writes` as for `make_plan`."""
    with console.status("importing torch and Lightning") as status:  # shows nothing in a file or a pipe
        return make_plan(overrides, config_dir, status.update, writes)


def plan_summary(plan: Plan) -> str:
    """One line: how many jobs there are, are done, will run and will resume, and how many run at a time."""
    done = sum(planned.status.state == "done" and not planned.due for planned in plan.own)
    resumed = sum(planned.status.state in ("interrupted", "running") for planned in plan.due)
    slots, threads = plan.slots, sorted({int(planned.config.threads) for planned in plan.due})
    where = f"{' or '.join(map(str, threads))} thread{'s' * (threads != [1])} each"
    if gpus := list(dict.fromkeys(slots.gpus)):
        where = f"on GPU{'s' * (len(gpus) > 1)} {', '.join(gpus)}"
    parts = [
        f"{len(plan.jobs)} job{'s' * (len(plan.jobs) > 1)}",
        f"{len(plan.own)} of them in part {plan.policy.part}" * bool(plan.policy.part),
        f"{done} done already" * bool(done),
        f"{len(plan.due)} to run" if plan.due else "nothing to run",
        f"{resumed} of them resumed" * bool(resumed),
        f"{slots.count} at a time, {where}" * bool(plan.due),
    ]
    return ", ".join(filter(None, parts))


def print_results(plan: Plan, console: Console) -> None:
    """Prints the table of cells, and the commands that show more."""
    table = cell_table([planned.job for planned in plan.jobs], plan.record.keys)
    if table:
        console.print()
        console.print(table)
        console.print()
    path = shlex.quote(str(plan.sweep.path))
    for name, text in {
        "report": f"{PROGRAM} report {path}",
        "status": f"{PROGRAM} status {path}",
        "summary": f"{path}/summary.csv",
        "tensorboard": f"tensorboard --logdir {path}",
    }.items():
        print_plain(console, f"{name:<13}{text}")
    others = (planned.job.status().state for planned in plan.jobs if planned.elsewhere)
    if line := other_parts_line(plan.sweep.path, others):
        print_plain(console, line)


def print_unfinished(counts: Mapping[str, int], policy: SweepKeys, command: str, console: Console) -> None:
    """Prints how many jobs are not done, why, and the command that runs them.

    Args:
        counts: jobs by state.
        policy: the `sweep.*` keys.
        command: what the user typed.
        console: to print to.
    """
    unfinished = [
        f"{counts[state]} {'not started' if state == 'pending' else state}"
        for state in ("failed", "diverged", "interrupted", "pending")
        if counts.get(state)
    ]
    if not unfinished:
        return
    limit = "on_failure=stop" if policy.on_failure == "stop" else f"max_failures={policy.max_failures}"
    why = f" (stopped by sweep.{limit})" if counts.get("pending") else ""
    print_plain(console, f"{', '.join(unfinished)}{why}. To resume: {retry_command(command, counts)}", "yellow")
