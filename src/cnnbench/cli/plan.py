"""`python -m cnnbench plan -m key=a,b ...`: a sweep's jobs, what is done of them, what they take; nothing is trained or written."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

from cnnbench.cli.parser import Parser
from cnnbench.console import make_console, plain
from cnnbench.distributed.fork_server import dismiss
from cnnbench.report.analysis.confounds import FACTS, Arms, confounds, folded, several
from cnnbench.runs.sweep_dir import by_cell
from cnnbench.sweep.estimate import Estimate
from cnnbench.sweep.plan import Plan, Planned
from cnnbench.sweep.run import counted, planned
from cnnbench.sweep.status_table import STATES
from cnnbench.sweep.time_estimates import from_finished, measured, seen_in, together
from cnnbench.text import as_typed, duration, flat

MOST_JOBS = 40  # more are shown as cells


def main(arguments: list[str]) -> None:
    """Shows the plan."""
    parser = Parser(
        "plan", "What a sweep would do: its jobs, what is done already, time and memory. Nothing is trained or written."
    )
    parser.add_argument("overrides", nargs="*", metavar="key=value", help="as after python -m cnnbench -m")
    parser.add_argument("-m", "--multirun", action="store_true", help="may be left out")
    parser.add_argument("--measure", action="store_true", help="time a few real steps of each distinct cell")
    parser.add_argument("--jobs", action="store_true", help=f"a row a job also where there are more than {MOST_JOBS}")
    parser.add_argument("--config-dir", type=Path, metavar="DIR", help="a conf folder of yours besides")
    options = parser.parse_args(arguments)
    console = make_console()
    try:
        plan = planned(options.overrides, options.config_dir, console)
        estimates = estimated(plan, options.measure, console)
    finally:
        dismiss()
    show(plan, estimates, options.jobs, console)


def estimated(plan: Plan, measure: bool, console: Console) -> dict[str, Estimate]:
    """An estimate for each job that has one, by the job's name."""
    if not measure:
        seen = seen_in(plan.asked.runs_dir)
        found = {each.job.name: from_finished(each, seen) for each in plan.jobs}
        return {name: estimate for name, estimate in found.items() if estimate}
    cells = by_cell(plan.jobs, lambda each: each.job)
    configs = [members[0].config for members in cells]
    if console.is_terminal:
        with console.status("measuring") as status:
            made = measured(configs, lambda what, done, of: status.update(f"{what} cell {done} of {of}"))
    else:
        made = measured(configs)
    return {each.job.name: estimate for members, estimate in zip(cells, made, strict=True) for each in members}


def show(plan: Plan, estimates: dict[str, Estimate], every_job: bool, console: Console) -> None:
    """All of it."""
    record, policy = plan.record, plan.policy
    plain(console, f"{plan.sweep.path}: {counted(plan)}", "bold")
    if record["question"]:
        plain(console, record["question"], "italic")
    if policy.cost:
        plain(console, f"its file says: {policy.cost}")
    for note in plan.notes:
        plain(console, note, "yellow")
    console.print()
    console.print(of_jobs(plan, estimates) if every_job or len(plan.jobs) <= MOST_JOBS else of_cells(plan, estimates))
    console.print()
    for arms in factors(plan):
        tell(arms, record["baseline"], console)
    total(plan, estimates, console)


def of_jobs(plan: Plan, estimates: dict[str, Estimate]) -> Table:
    """A row a job."""
    table = make_table("job", "state", "parameters", "steps", "time", "memory")
    for each in plan.jobs:
        state = each.status["state"] + ("" if each.due or each.status["state"] == "done" else ", stays")
        state += ", again" * bool(each.due and each.stale)
        estimate = estimates.get(each.job.name)
        table.add_row(Text(each.job.label), Text(state, STATES[each.status["state"]]), *numbers(each, estimate))
    return table


def of_cells(plan: Plan, estimates: dict[str, Estimate]) -> Table:
    """A row a cell."""
    keys = [key for key in plan.asked.keys if key != "seed"]
    table = make_table(
        *(key.rpartition(".")[2] for key in keys), "jobs", "done", "parameters", "steps", "time of one", "memory"
    )
    for members in by_cell(plan.jobs, lambda each: each.job):
        first = members[0]
        values = [Text(as_typed(first.job.setting[key])) if key in first.job.setting else "" for key in keys]
        done = sum(each.status["state"] == "done" for each in members)
        table.add_row(*values, str(len(members)), str(done), *numbers(first, estimates.get(first.job.name)))
    return table


def make_table(*columns: str) -> Table:
    """Words to the left, numbers to the right."""
    table = Table(box=None, padding=(0, 2, 0, 0), header_style="bold")
    for column in columns:
        right = column in ("parameters", "steps", "time", "time of one", "memory", "jobs", "done")
        table.add_column(column, justify="right" if right else "left", no_wrap=right, overflow="fold")
    return table


def numbers(planned: Planned, estimate: Estimate | None) -> tuple[str, str, str, str]:
    """Parameters, steps, time and memory of a job."""
    facts = planned.job.facts
    seconds = duration(estimate.seconds) if estimate else "?"
    memory = f"{estimate.peak_mb:,.0f} MB" if estimate and estimate.peak_mb else "?"
    return f"{facts['params']:,}", f"{facts['steps']:,}", seconds, memory


def factors(plan: Plan) -> list[Arms]:
    """The factors, with what else differs between their arms."""
    settings = [each.job.setting for each in plan.jobs]
    facts = []
    for each in plan.jobs:
        own = each.job.facts
        known = {name: own[name] for name in FACTS if name in own} | {"train": own["n"]["train"]}
        facts.append({**flat(each.config.deciding()), **known})
    choices = [each.config.choices for each in plan.jobs]
    return confounds(settings, folded(facts, choices, plan.asked.keys), plan.asked.keys)


def tell(arms: Arms, baseline: dict[str, Any], console: Console) -> None:
    """A factor, and beneath it what else differs."""
    base = baseline.get(arms.key)
    levels = ", ".join(
        as_typed(level) + " (baseline)" * (arms.key in baseline and level == base) for level in arms.levels
    )
    console.print(Text.assemble((arms.key, "bold"), f": {levels}"), soft_wrap=True, highlight=False)
    for name, values in arms.differing.items():
        shown = " / ".join(several(listed) for listed in values)
        plain(console, f"  besides, {FACTS.get(name, name)}: {shown}", "yellow")


def total(plan: Plan, estimates: dict[str, Estimate], console: Console) -> None:
    """What all of it will take."""
    due = [(each, estimates.get(each.job.name)) for each in plan.due]
    if not due:
        return
    seconds, unknown = together(due, plan.slots.count)
    console.print()
    known = [estimate for _, estimate in due if estimate]
    if not known:
        plain(
            console,
            "time: unknown, as no run of these nets on these data has finished here; --measure times a few steps of each",
        )
        return
    sources = ", ".join(dict.fromkeys(estimate.how for estimate in known))
    least = "at least " if unknown else ""
    plain(console, f"time: {least}{duration(seconds)} for {len(due)} jobs, {plan.slots.count} at a time ({sources})")
    if unknown:
        plain(
            console,
            f"  {unknown} of them are not counted, as none of their kind has finished here; --measure times a few steps of each",
        )
    peaks = [estimate.peak_mb for estimate in known if estimate.peak_mb]
    if peaks:
        most = sum(sorted(peaks)[-plan.slots.count :])
        plain(console, f"memory: up to {most:,.0f} MB for {plan.slots.count} at a time")
