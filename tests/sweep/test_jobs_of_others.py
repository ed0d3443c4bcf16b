"""A launcher leaves the runs of other processes as they are; its jobs are pretended, so nothing trains."""

from __future__ import annotations

import io
import json

import pytest
from rich.console import Console

from cnnbench.runs.liveness import STALE_S, is_this_process
from cnnbench.runs.schema import Status
from cnnbench.runs.sweep_dir import SweepDir
from cnnbench.sweep.launcher import Launcher, freeze_to_disk, run_job
from cnnbench.sweep.status_table import SweepDisplay
from owners import DEAD, OTHER_HOST, OTHER_NAMESPACE, make_older, record
from sweeping import plan, result_values, write_run

pytestmark = pytest.mark.usefixtures("in_this_process")


@pytest.fixture
def job():
    """A job of a sweep that is frozen to disk and has not run."""
    return freeze_to_disk(plan("seed=0"), "typed").jobs[0]


@pytest.fixture
def launch(monkeypatch):
    """Runs the jobs of a sweep; each start calls the next function, which returns the exit code. Returns (exit code, output)."""

    def launch(*starts):
        class Processes:
            def __init__(self, *arguments):
                pass

            def start(self):
                self.code = left.pop(0)()

            def exit_code(self):
                return self.code

            def sentinels(self):
                return []

            def kill(self):
                pass

        left = list(starts)
        monkeypatch.setattr("cnnbench.sweep.launcher.RankProcesses", Processes)
        monkeypatch.setattr("cnnbench.sweep.launcher.TICK_S", 0.01)
        planned, console = plan("seed=0", "sweep.retry=all"), Console(file=io.StringIO(), width=200)
        code = Launcher(planned, "typed", SweepDisplay(planned, console)).run()
        assert not left
        return code, console.file.getvalue()

    return launch


def finish(directory) -> int:
    directory.write_status("done")
    directory.result.write_text(json.dumps(result_values()))
    return 0


def test_a_job_that_another_process_has_begun_in_the_meantime_is_waited_for(job, launch, monkeypatch):
    """Its own process is refused; once the other process has a result, the job ends with that."""

    def refused():
        write_run(job, "running", record(**OTHER_HOST, pid=12))
        return 2

    def note_host(sweep):
        hosts.append(job.job.directory.status().host)
        if len(hosts) == 3:
            finish(job.job.directory)

    hosts: list[str] = []  # at each heartbeat of the launcher
    monkeypatch.setattr("cnnbench.sweep.launcher.HEARTBEAT_S", 0.02)
    monkeypatch.setattr(SweepDir, "renew_launcher", note_host)
    code, output = launch(refused, lambda: 0)
    assert code == 0
    assert f"pending     {job.job.name}: waits for pid 12 on another, which runs it" in output
    assert hosts[:3] == ["another"] * 3
    assert output.splitlines()[-1].startswith("[1/1] done")


@pytest.mark.parametrize("owner", [OTHER_HOST, OTHER_NAMESPACE], ids=["host", "namespace"])
def test_a_job_that_is_refused_leaves_the_status_to_the_process_that_runs_it(job, owner):
    write_run(job, "running", record(**owner))
    before = job.job.directory.status_file.read_bytes()
    assert run_job(job.config, job.job.directory.path, "typed") == 2
    assert job.job.directory.status_file.read_bytes() == before


def test_a_job_that_cannot_begin_is_failed(job, monkeypatch):
    def refuse(*_):
        raise ValueError("no luck")

    monkeypatch.setattr("cnnbench.training.run.prepare", refuse)
    assert run_job(job.config, job.job.directory.path, "typed") == 1
    assert (job.job.directory.status().state, job.job.directory.status().reason) == ("failed", "ValueError: no luck")


@pytest.mark.parametrize("before", ["failed", "interrupted", "diverged"])
def test_the_process_of_an_earlier_launch_stays_in_the_status_of_a_job_that_starts(job, launch, before):
    def started():
        seen.append(job.job.directory.status())
        return finish(job.job.directory)

    seen: list[Status] = []
    write_run(job, before, record(**DEAD))
    assert launch(started)[0] == 0
    assert (seen[0].state, seen[0].start_ticks) == ("pending", 0)


@pytest.mark.parametrize("begun", [True, False])
def test_a_job_that_ends_without_a_word_is_failed_and_has_no_living_process(job, launch, begun):
    def crash():
        if begun:
            write_run(job, "running", record(**DEAD))
        return 1

    code, _ = launch(crash)
    status = job.job.directory.status()
    assert (code, status.state) == (3, "failed")
    assert status.reason == "its process exited with code 1 and without a result"
    assert not is_this_process(status)


def test_the_status_of_a_run_whose_process_on_another_host_has_died_is_left_to_its_job(job, launch):
    def started():
        seen.append(job.job.directory.status_file.read_bytes())
        return finish(job.job.directory)

    seen: list[bytes] = []
    write_run(job, "running", record(**OTHER_HOST))
    make_older(job.job.directory.status_file, STALE_S + 1)
    before = job.job.directory.status_file.read_bytes()
    assert launch(started)[0] == 0
    assert seen == [before]


@pytest.mark.parametrize("alive", [True, False])
def test_freezing_repairs_a_finished_run_only_where_its_process_is_dead(job, alive):
    run = write_run(job, "running", record(**({} if alive else DEAD)))
    run.result.write_text(json.dumps(result_values()))
    freeze_to_disk(plan("seed=0"), "typed")
    assert run.status().state == ("running" if alive else "done")
    assert run.effective_status().state == "done"
