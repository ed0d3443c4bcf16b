"""`cnnbench plan -m key=a,b ...`: the jobs of a sweep, which are done, and their expected cost; trains, downloads and writes nothing."""

from __future__ import annotations

from rich.table import Table
from rich.text import Text

from cnnbench.cli.parser import Parser
from cnnbench.console import Console, make_console, plain_text, print_plain
from cnnbench.distributed.fork_server import stop_fork_server
from cnnbench.errors import PROGRAM
from cnnbench.report.analysis.confounds import FACT_LABELS, Confounds, find_confounds, fold_group_choices, join_values
from cnnbench.runs.sweep_dir import group_by_cell
from cnnbench.sweep.plan import Plan, PlannedJob
from cnnbench.sweep.run import plan_summary, plan_with_progress
from cnnbench.sweep.status_table import STATE_COLORS, make_table
from cnnbench.sweep.time_estimates import Estimate, estimate_from_finished, finished_runs, makespan, measure_each
from cnnbench.text import Values, duration, flatten, to_override

Estimates = dict[str, Estimate]  # by the job's name
MAX_JOBS = 40  # a larger sweep is shown with a row per cell
MEASURE_HINT = "--measure times a few steps of each"


def main(arguments: list[str]) -> None:
    """Prints the plan of a sweep."""
    parser = Parser(
        "plan",
        "The plan of a sweep: its jobs, which are done, expected time and memory. Nothing is trained, downloaded or written.",
    )
    parser.add_argument("-m", "--multirun", action="store_true", help="optional")
    parser.add_switch("--measure", "time a few real steps of each cell, on random images")
    parser.add_switch("--jobs", f"a row per job even if there are more than {MAX_JOBS}")
    parser.add_overrides(f"as after {PROGRAM} -m")
    options = parser.parse_args(arguments)
    console = make_console()
    try:
        plan = plan_with_progress(options.overrides, options.config_dir, console, writes=False)
        estimates = measure_cells(plan, console) if options.measure else estimate_jobs(plan)
    finally:
        stop_fork_server()
    print_plan(plan, estimates, options.jobs, console)


def estimate_jobs(plan: Plan) -> Estimates:
    """Estimates from finished runs, by the job's name; a job without similar finished runs has none."""
    finished = finished_runs(plan.request.runs_dir)
    found = ((each.job.name, estimate_from_finished(each, finished)) for each in plan.jobs)
    return {name: estimate for name, estimate in found if estimate}


def measure_cells(plan: Plan, console: Console) -> Estimates:
    """Estimates from a few measured steps of one job of each cell, by the job's name."""
    cells = group_by_cell(plan.jobs, lambda each: each.job)
    with console.status("measuring") as status:
        estimates = measure_each([members[0].config for members in cells], status.update)
    return {each.job.name: estimate for members, estimate in zip(cells, estimates, strict=True) for each in members}


def print_plan(plan: Plan, estimates: Estimates, every_job: bool, console: Console) -> None:
    """Prints the question, the notes, a table of jobs or cells, the factors with their confounds, and the total cost.

    Args:
        plan: the sweep.
        estimates: by the job's name.
        every_job: a row per job, even of a large sweep.
        console: to print to.
    """
    print_plain(console, f"{plan.sweep.path}: {plan_summary(plan)}", "bold")
    if plan.record.question:
        print_plain(console, plan.record.question, "italic")
    if plan.policy.cost:
        print_plain(console, f"cost, as the experiment states it: {plan.policy.cost}")
    for note in plan.notes:
        print_plain(console, note, "yellow")
    console.print()
    console.print((job_table if every_job or len(plan.jobs) <= MAX_JOBS else cell_table)(plan, estimates))
    console.print()
    for confounds in factor_confounds(plan):
        print_confounds(confounds, plan.record.baseline, console)
    print_total_cost(plan, estimates, console)


def job_table(plan: Plan, estimates: Estimates) -> Table:
    """A row per job."""
    table = make_table(["job", "state"], ["parameters", "steps", "time", "memory"])
    for each in plan.jobs:
        state = each.status.state
        text = state + ", run again" * bool(each.due and each.stale)
        text += ", another part" * each.elsewhere
        text += ", not run again" * (not each.due and not each.elsewhere and state != "done")
        table.add_row(plain_text(each.job.label), Text(text, STATE_COLORS[state]), *cost_columns(each, estimates))
    return table


def cell_table(plan: Plan, estimates: Estimates) -> Table:
    """A row per cell."""
    keys = [key for key in plan.request.keys if key != "seed"]
    numbers = ["jobs", "done", "parameters", "steps", "time of one", "memory"]
    table = make_table([key.rpartition(".")[2] for key in keys], numbers)
    for members in group_by_cell(plan.jobs, lambda each: each.job):
        first = members[0]
        values = [plain_text(to_override(first.job.setting[key])) if key in first.job.setting else "" for key in keys]
        done = sum(each.status.state == "done" for each in members)
        table.add_row(*values, str(len(members)), str(done), *cost_columns(first, estimates))
    return table


def cost_columns(planned: PlannedJob, estimates: Estimates) -> tuple[str, str, str, str]:
    """Parameters, steps, time and memory of a job; `?` for what is unknown."""
    facts, estimate = planned.job.facts, estimates.get(planned.job.name)
    seconds = duration(estimate.seconds) if estimate else "?"
    memory = f"{estimate.peak_mb:,.0f} MB" if estimate and estimate.peak_mb else "?"
    return f"{facts['params']:,}", f"{facts['steps']:,}", seconds, memory


def factor_confounds(plan: Plan) -> list[Confounds]:
    """The factors, each with what else differs between its variants."""
    keys, facts = plan.request.keys, []
    for each in plan.jobs:
        own = each.job.facts
        known = {name: own[name] for name in FACT_LABELS if name in own} | {"train": own["n"]["train"]}
        facts.append({**flatten(each.config.identity_values()), **known})
    facts = fold_group_choices(facts, [each.config.choices for each in plan.jobs], keys)
    return find_confounds([each.job.setting for each in plan.jobs], facts, keys)


def print_confounds(confounds: Confounds, baseline: Values, console: Console) -> None:
    """Prints a factor with its levels, and below it what else differs between them."""
    key = confounds.key
    levels = [
        to_override(level) + " (baseline)" * (key in baseline and level == baseline[key]) for level in confounds.levels
    ]
    console.print(
        Text.assemble(plain_text(key, "bold"), plain_text(f": {', '.join(levels)}")), soft_wrap=True, highlight=False
    )
    for name, values in confounds.differing.items():
        text = " / ".join(map(join_values, values))
        print_plain(console, f"  also differs: {FACT_LABELS.get(name, name)} {text}", "yellow")


def print_total_cost(plan: Plan, estimates: Estimates, console: Console) -> None:
    """Prints the expected time and memory of all due jobs; nothing if none is due."""
    due, slots = plan.due, plan.slots.count
    known = [(each.config.trainer.devices, estimates[each.job.name]) for each in due if each.job.name in estimates]
    if not due:
        return
    console.print()
    if not known:
        print_plain(console, f"time: unknown, no run of these nets on these data has finished here; {MEASURE_HINT}")
        return
    unknown = len(due) - len(known)
    seconds = makespan(((devices, estimate.seconds) for devices, estimate in known), slots)
    sources = ", ".join(dict.fromkeys(estimate.source for _, estimate in known))
    least = "at least " if unknown else ""
    print_plain(console, f"time: {least}{duration(seconds)} for {len(due)} jobs, {slots} at a time ({sources})")
    if unknown:
        print_plain(console, f"  without {unknown} of them: no run of their kind has finished here; {MEASURE_HINT}")
    if peaks := sorted(estimate.peak_mb for _, estimate in known if estimate.peak_mb):
        print_plain(console, f"memory: up to {sum(peaks[-slots:]):,.0f} MB for {slots} at a time")
