"""Times a sweep of very many jobs: planning, freezing, starting, status and summary. A stub replaces training.

python benchmarks/many_jobs.py 10000
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from cnnbench.config.schema import Config
from cnnbench.console import make_console
from cnnbench.distributed.fork_server import stop_fork_server
from cnnbench.files import write_atomic
from cnnbench.runs.run_dir import RunDir
from cnnbench.sweep.launcher import Launcher, freeze_to_disk
from cnnbench.sweep.plan import make_plan
from cnnbench.sweep.status_table import SweepDisplay, cell_table


def stub(config: Config, path: Path, command: str) -> int:
    """Replaces training: writes the files that mark a run as finished."""
    directory = RunDir(path)
    metrics = {"best/val/acc": 0.9, "best/val/loss": 0.3, "last/val/acc": 0.9, "test/acc": 0.9, "test/loss": 0.3}
    result = {"metrics": metrics, "time": {"fit_s": 0.0}, "best_epoch": 1, "samples_per_s": 1.0, "code": "stub"}
    write_atomic(directory.result, json.dumps(result), lasting=False)
    directory.write_status("done")
    return 0


def main(jobs: int) -> None:
    """Prints the seconds that each part takes."""
    with tempfile.TemporaryDirectory() as folder:
        seeds = f"seed=range({jobs // 10})"
        overrides = [
            f"optimizer.lr={','.join(str(n / 1000) for n in range(1, 11))}",
            seeds,
            "name=many",
            f"runs_dir={folder}",
        ]
        begun = time.perf_counter()

        def took(what: str) -> None:
            nonlocal begun
            print(f"{what:<48}{time.perf_counter() - begun:8.1f} s", flush=True)
            begun = time.perf_counter()

        plan = make_plan(overrides)
        took(f"{len(plan.jobs)} jobs composed, checked, matched with the disk")
        with plan.sweep.lock():
            plan = freeze_to_disk(plan, "a stub")
            took("frozen to disk")
            screen = SweepDisplay(plan, make_console())
            screen.console.quiet = True
            code = Launcher(plan, "a stub", screen, stub).run()
            took(f"run, {plan.slots.count} at a time: exit code {code}")
        cell_table((each.job for each in plan.jobs), plan.record.keys)
        took("table of settings")
        subprocess.run([sys.executable, "-m", "cnnbench", "status", str(plan.sweep.path)], check=True)
        took("status, in a separate process")
        again = make_plan(overrides)
        took(f"planned again: {len(again.due)} to run")
        print(f"summary.csv: {len(plan.sweep.summary.read_text().splitlines())} lines")
        stop_fork_server()


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 10_000)
