"""`python -m cnnbench -m key=a,b ...`: plans, freezes and runs a sweep, and shows what came out."""

from __future__ import annotations

import shlex
from collections import Counter
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.live import Live

from cnnbench.console import plain
from cnnbench.errors import Interrupted
from cnnbench.runs.sweep_dir import Job
from cnnbench.sweep.launcher import Launcher, freeze_to_disk
from cnnbench.sweep.plan import Plan, make_plan
from cnnbench.sweep.progress import Tally
from cnnbench.sweep.schema import SweepKeys
from cnnbench.sweep.status_table import cells, line, rendered, retry


def run(plan: Plan, command: str, console: Console) -> int:
    """Carries out a plan; the exit code."""
    with plan.sweep.held():
        plan = freeze_to_disk(plan, command)
        plain(console, f"{plan.sweep.path}: {counted(plan)}", "bold")
        for note in plan.notes:
            plain(console, note, "yellow")
        screen = Screen(plan, console)
        launcher = Launcher(plan, command, screen.told, screen.tick)
        try:
            with screen:
                code = launcher.run()
        except Interrupted as error:
            saved = "" if launcher.at_once else "; saved"
            raise Interrupted(f"{error}{saved}. To go on, type the same again: {command}", error.signum) from error
    conclude(plan, console)
    left_over(Counter(status["state"] for status in launcher.states.values()), plan.policy, command, console)
    if launcher.summary.trouble:
        plain(console, launcher.summary.trouble, "yellow")
    return code


def planned(overrides: list[str], config_dir: Path | None, console: Console) -> Plan:
    """The plan, while one sees that it is being made."""
    if not console.is_terminal:
        return make_plan(overrides, config_dir)
    with console.status("importing torch and Lightning") as status:
        return make_plan(overrides, config_dir, lambda what, done, of: status.update(f"{what} {done} of {of} jobs"))


def counted(plan: Plan) -> str:
    """How many jobs there are and what is left to do, in a line."""
    done = sum(planned.status["state"] == "done" and not planned.due for planned in plan.jobs)
    resumed = sum(planned.status["state"] in ("interrupted", "running") for planned in plan.due)
    slots, threads = plan.slots, sorted({int(planned.config.threads) for planned in plan.due})
    each = f"{' or '.join(map(str, threads))} thread{'s' * (threads != [1])} each"
    gpus = list(dict.fromkeys(slots.gpus))
    where = f"on GPU{'s' * (len(gpus) > 1)} {', '.join(gpus)}" if gpus else each
    parts = [f"{len(plan.jobs)} job{'s' * (len(plan.jobs) > 1)}"]
    parts += [f"{done} done already"] * bool(done) + [f"{len(plan.due)} to run" if plan.due else "nothing to run"]
    parts += [f"{resumed} of them resumed"] * bool(resumed) + [f"{slots.count} at a time, {where}"] * bool(plan.due)
    return ", ".join(parts)


class Screen:
    """What one sees while a sweep runs: on a terminal a table that keeps up, elsewhere a line for each thing that happens."""

    def __init__(self, plan: Plan, console: Console) -> None:
        self.plan, self.console = plan, console
        self.tally = Tally(
            (each.job for each in plan.jobs), {each.job.name: each.status for each in plan.jobs}, plan.slots.count
        )
        self._live: Live | None = None

    def __enter__(self) -> Screen:
        if self.console.is_terminal:
            self._live = Live(console=self.console, auto_refresh=False, transient=True)
            self._live.start()
        return self

    def __exit__(self, *_: object) -> None:
        if self._live is not None:
            self._live.stop()
            self._live = None

    def told(self, job: Job, status: dict[str, Any], took: float | None) -> None:
        """A job has begun or ended."""
        self.tally.set(job, status, took)
        text = line(job, status, took, self.tally.ended, self.tally.total, self.tally.left())
        with suppress(OSError), self.plan.sweep.log.open("a", encoding="utf-8") as log:
            log.write(text + "\n")
        bad = status["state"] in ("failed", "diverged")
        if bad or self._live is None:
            plain(self.console, text, "red" if bad else None)
        if bad and self._live is None:
            plain(self.console, f"  its log: {job.directory.log}", None)

    def tick(self) -> None:
        """Shows how it stands."""
        if self._live is not None:
            self._live.update(rendered(self.tally.standing(), str(self.plan.sweep.path)), refresh=True)


def conclude(plan: Plan, console: Console) -> None:
    """What came out, and what to type next."""
    table = cells([planned.job for planned in plan.jobs], plan.record["keys"])
    if table is not None:
        console.print()
        console.print(table)
        console.print()
    path = shlex.quote(str(plan.sweep.path))
    for what, text in {
        "answer": f"python -m cnnbench report {path}",
        "look": f"python -m cnnbench status {path}",
        "table": f"{path}/summary.csv",
        "watch": f"tensorboard --logdir {path}",
    }.items():
        plain(console, f"{what:<12}{text}")


def left_over(counts: Mapping[str, int], policy: SweepKeys, command: str, console: Console) -> None:
    """What is not done, why, and what to type for it."""
    named = {"failed": "failed", "diverged": "diverged", "interrupted": "interrupted", "pending": "not started"}
    told = [f"{counts[state]} {words}" for state, words in named.items() if counts.get(state)]
    if not told:
        return
    limit = "on_failure=stop" if policy.on_failure == "stop" else f"max_failures={policy.max_failures}"
    why = f" (stopped by sweep.{limit})" if counts.get("pending") else ""
    plain(console, f"{', '.join(told)}{why}. To go on: {command}{retry(counts)}", "yellow")
