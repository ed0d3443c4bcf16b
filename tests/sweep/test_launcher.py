"""Running sweeps: jobs that finish or fail, the same command again, limits, slots, and status from another process."""

from __future__ import annotations

import csv
import json
import os
import signal
import socket
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

from cnnbench.runs.environment import usable_cores
from cnnbench.runs.run_dir import RunDir
from owners import DEAD
from processes import ForkedCommand, child_environment, wait_until
from sweeps import FAULTY, Sweep, changed, metrics, swept

MIXED = [*FAULTY, "sweep.slots=2"]
FAULTS = "+model.fault=fine,raises,diverges,segfaults,well"
ENDS = {
    "fault-fine": "done",
    "fault-raises": "failed",
    "fault-diverges": "diverged",
    "fault-segfaults": "failed",
    "fault-well": "done",
}
REASONS = {
    "fault-raises": "RuntimeError: out of luck",
    "fault-diverges": "the training loss is nan in step 3, lr 0.0015",
    "fault-segfaults": "its process was killed by SIGSEGV",
}


@pytest.fixture(scope="module", autouse=True)
def begun(tmp_path_factory):
    """A sweep with jobs that finish and fail; other tests run meanwhile."""
    sweep = Sweep(tmp_path_factory.mktemp("mixed"), *MIXED, FAULTS)
    yield sweep
    sweep.end()


def launch_again(sweep: Sweep, *arguments: str, **environment: str) -> Sweep:
    """A second sweep in the same folder, after its end."""
    other = Sweep(sweep.folder, *arguments, **environment)
    other.wait()
    other.assert_no_process_left()
    return other


def started(sweep: Sweep) -> list[str]:
    """The jobs that the sweep started, in their order."""
    return [line.split()[-1].rpartition("_")[0] for line in sweep.out.splitlines() if "] running" in line]


# ---- more seeds ------------------------------------------------------------------------------------------------------


def files_below(folder: Path) -> dict[str, int]:
    return {
        path: at for run in (folder / "runs").glob("*/*") if run.is_dir() for path, at in changed(RunDir(run)).items()
    }


@pytest.fixture(scope="module")
def seeded(tmp_path_factory):
    """A sweep of two seeds, then of three."""
    folder = tmp_path_factory.mktemp("seeded")
    first = swept(folder, *FAULTY, "seed=0,1", "sweep.slots=2")
    before = files_below(folder)
    return SimpleNamespace(
        first=first,
        before=before,
        second=swept(folder, *FAULTY, "seed=0,1,2", "sweep.slots=2"),
        after=files_below(folder),
    )


def test_a_new_seed_runs_only_the_new_job(seeded):
    assert started(seeded.second) == ["seed2"]
    assert seeded.before.items() <= seeded.after.items()


def test_the_same_command_after_the_end_runs_nothing(seeded):
    last = launch_again(seeded.second, *FAULTY, "seed=0,1,2", "sweep.slots=2")
    assert last.code == 0
    assert last.out.startswith("runs/swept: 3 jobs, 3 done already, nothing to run\n")
    assert started(last) == []
    assert files_below(last.folder) == seeded.after


@pytest.mark.slow
def test_a_missing_summary_and_an_old_status_are_repaired(seeded):
    summary, first = seeded.second.directory.summary, next(iter(seeded.second.runs().values()))
    before = summary.read_text()
    summary.unlink()
    status = json.loads((first.path / "status.json").read_text())
    (first.path / "status.json").write_text(json.dumps({**status, "state": "running", **DEAD}))
    assert launch_again(seeded.second, *FAULTY, "seed=0,1,2", "sweep.slots=2").code == 0
    assert first.status().state == "done"
    assert summary.read_text() == before


# ---- limits and errors -----------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_on_failure_stop_starts_no_further_job(launch):
    sweep = launch(*FAULTY, "+model.fault=raises,fine,well", "sweep.slots=1", "sweep.on_failure=stop")
    assert sweep.wait() == 3
    assert sweep.states() == {"fault-raises": "failed", "fault-fine": "pending", "fault-well": "pending"}
    assert started(sweep) == ["fault-raises"]


@pytest.mark.slow
def test_max_failures_starts_no_further_job_after_that_many(launch):
    sweep = launch(*FAULTY, "+model.fault=raises,exits,fine,well", "sweep.slots=1", "sweep.max_failures=2")
    assert sweep.wait() == 3
    ends = {"fault-raises": "failed", "fault-exits": "failed", "fault-fine": "pending", "fault-well": "pending"}
    assert sweep.states() == ends


@pytest.mark.slow
def test_a_running_job_continues_when_another_fails(launch, tmp_path):
    gate = tmp_path / "gate"
    bad = ["+model.fault=waits_for_file,raises,fine", "sweep.slots=2", "sweep.on_failure=stop"]
    sweep = launch(*FAULTY, *bad, NETS_GATE=str(gate))
    wait_until(lambda: "failed" in sweep.states().values() if sweep.directory.record.exists() else False, "one fails")
    gate.touch()
    assert sweep.wait() == 3
    assert sweep.states() == {"fault-waits_for_file": "done", "fault-raises": "failed", "fault-fine": "pending"}


@pytest.mark.parametrize(
    ("typed", "message"),
    [
        (["optimizer.lr=0.1,0.01,fast"], "optimizer.lr=fast: expected"),
        (["+model.fault=fine,well,fien"], "no fault is called fien"),
        (["optimizer=adam,sgd,adm"], "optimizer=adm: no such optimizer; did you mean adam?"),
    ],
)
def test_an_error_in_the_last_job_is_one_line_before_anything_is_written(typed, message, launch, tmp_path):
    sweep = launch(*FAULTY, *typed)
    assert sweep.wait() == 2
    assert message in sweep.err
    assert sweep.err.count("\n") == 1
    if "adm" not in message:  # choices are checked before the jobs
        assert f"(job {typed[0].partition('=')[0].rpartition('.')[2]}-{typed[0].rpartition(',')[2]})" in sweep.err
    assert sweep.out == ""
    assert not (tmp_path / "runs").exists()


def test_a_sweep_within_torchrun_is_refused_in_one_line(tmp_path):
    run = ForkedCommand(tmp_path, "-m", *FAULTY, "seed=0,1", ranks=2)
    assert run.wait() == 2
    message = "-m: a sweep is started once, and starts its jobs' processes itself; type it without torchrun or srun -n"
    assert run.err == f"cnnbench: {message}\n"
    assert run.out == ""
    assert not (tmp_path / "runs").exists()


def test_a_runs_dir_that_is_a_file_is_an_error_of_one_line(launch, tmp_path):
    (tmp_path / "runs").write_text("")
    sweep = launch(*FAULTY, "seed=0,1")
    assert sweep.wait() == 2
    assert sweep.err.startswith("cnnbench: runs_dir: cannot write to runs/swept (")
    assert sweep.err.count("\n") == 1


@pytest.mark.slow
def test_an_unwritable_summary_stops_no_job_and_is_reported_at_the_end(launch, tmp_path):
    """As on a full disk."""
    for name in ("summary.csv", "sweep.log"):
        (tmp_path / "runs" / "swept" / name / "in the way").mkdir(parents=True)
    sweep = launch(*FAULTY, "+model.fault=fine,raises,well")
    assert sweep.wait() == 3
    assert sweep.states() == {"fault-fine": "done", "fault-raises": "failed", "fault-well": "done"}
    assert sweep.err == ""
    assert sweep.out.splitlines()[-1] == "runs/swept/summary.csv: cannot be written (Is a directory)"


@pytest.mark.slow
def test_a_job_that_takes_too_long_is_killed_with_its_children(launch):
    """A job that holds the GIL, blocks all signals, and has started a process that sleeps."""
    sweep = launch(*FAULTY, "+model.fault=holds_gil,fine", "sweep.slots=2", "sweep.timeout=15")
    assert sweep.wait() == 3
    assert sweep.states() == {"fault-holds_gil": "failed", "fault-fine": "done"}
    assert sweep.runs()["fault-holds_gil"].status().reason == "took longer than sweep.timeout=15 s"
    sweep.assert_no_process_left()


# ---- slots -----------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def unequal(tmp_path_factory):
    """Four jobs in two slots; the first waits for the results of the others."""
    folder = tmp_path_factory.mktemp("unequal")
    arguments = [argument for argument in FAULTY if argument != "threads=1"]
    environment = {"NETS_RUNS": str(folder / "runs"), "NETS_NOTES": str(folder / "notes"), "NETS_WAIT": "0.05"}
    sweep = swept(
        folder,
        *arguments,
        "+model.fault=waits_for_results,fine,well,waits_for_file",
        "sweep.slots=2",
        NETS_GATE=str(folder),
        **environment,
    )
    return SimpleNamespace(
        sweep=sweep, notes=[json.loads(line) for line in (folder / "notes").read_text().splitlines()]
    )


@pytest.mark.slow
def test_a_free_slot_is_refilled_while_another_job_still_runs(unequal):
    assert set(unequal.sweep.states().values()) == {"done"}  # else the first would have failed


@pytest.mark.slow
def test_at_most_one_job_per_slot_runs_at_a_time(unequal):
    times: dict[int, list[float]] = {}
    for note in unequal.notes:
        times.setdefault(note["pid"], []).append(note["at"])
    assert len(times) == 4
    on = [
        sum(min(steps) <= moment <= max(steps) for steps in times.values())
        for note in unequal.notes
        for moment in [note["at"]]
    ]
    assert max(on) == 2


@pytest.mark.slow
def test_each_job_runs_in_its_own_process(unequal):
    assert len({note["pid"] for note in unequal.notes}) == 4


@pytest.mark.slow
def test_slots_divide_the_cpu_threads(unequal):
    share = max(1, usable_cores() // 2)
    assert f"4 jobs, 4 to run, 2 at a time, {share} thread{'s' * (share > 1)} each\n" in unequal.sweep.out
    assert {note["threads"] for note in unequal.notes} == {share}
    assert all(f"threads: {share}\n" in run.config.read_text() for run in unequal.sweep.runs().values())


# ---- status of a running sweep ---------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def looked_at(tmp_path_factory):
    """The status of a sweep from another process: while its first job runs, and after a kill."""
    folder = tmp_path_factory.mktemp("live")
    arguments = [*FAULTY, "+model.fault=waits_for_file", "sweep.slots=1", "seed=0,1,2"]
    sweep = Sweep(folder, *arguments, NETS_GATE=str(folder / "gate"))
    first = wait_until(lambda: sweep.directory.jobs(), "its jobs are known")[0].directory
    wait_until(lambda: first.status().epochs, "the first trains")
    seen = SimpleNamespace(sweep=sweep, arguments=arguments, first=first)
    seen.before = files_below(folder).keys()
    seen.second = launch_again(sweep, *arguments)
    seen.after = files_below(folder).keys()
    seen.on = status(folder)
    os.killpg(sweep.pid, signal.SIGKILL)
    sweep.end()
    seen.killed = status(folder)
    return seen


def status(folder: Path) -> SimpleNamespace:
    """The output of `status`, and whether it imported torch."""
    source = "import sys; from cnnbench.__main__ import main; code = main(['status', 'runs/swept']); print('torch' in sys.modules)"
    ended = subprocess.run(
        [sys.executable, "-c", source],
        cwd=folder,
        env=child_environment("status", {}),
        capture_output=True,
        text=True,
        check=True,
    )
    *lines, torch = ended.stdout.splitlines()
    assert ended.stderr == ""
    return SimpleNamespace(shown="\n".join(lines), torch=torch == "True")


@pytest.mark.slow
def test_a_second_launch_of_a_live_sweep_is_refused_naming_process_and_host(looked_at):
    who = f"pid {looked_at.sweep.pid} on {socket.gethostname()}"
    assert looked_at.second.code == 2
    assert (
        looked_at.second.err
        == f"cnnbench: runs/swept: this sweep is live ({who}); cnnbench status runs/swept shows it\n"
    )
    assert looked_at.before == looked_at.after


@pytest.mark.slow
def test_status_from_another_process_shows_the_progress(looked_at):
    assert looked_at.on.shown.startswith("runs/swept  1 running, 2 pending of 3")
    assert f"(pid {looked_at.sweep.pid} on {socket.gethostname()})" in looked_at.on.shown
    row = next(line for line in looked_at.on.shown.splitlines() if line.startswith(looked_at.first.path.name))
    assert row.split()[1] == "1/1"
    assert 1 < float(row.split()[2]) < 4


@pytest.mark.slow
def test_status_of_a_killed_sweep_shows_interrupted_jobs_and_the_command(looked_at):
    assert looked_at.killed.shown.startswith("runs/swept  2 pending, 1 interrupted of 3")
    hint = "no process runs it. To continue, type the same command again: cnnbench -m "
    typed = "".join(looked_at.killed.shown.splitlines()).partition(hint)[2]
    assert typed.replace("'", "").split() == looked_at.arguments


@pytest.mark.slow
def test_status_imports_no_torch(looked_at):
    assert not looked_at.on.torch


# ---- failing jobs ----------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def mixed(begun):
    """The sweep with failing jobs, after its end."""
    begun.wait()
    return begun


def rows(sweep: Sweep) -> dict[str, dict[str, str]]:
    with sweep.directory.summary.open() as file:
        return {row["job"].rpartition("_")[0]: row for row in csv.DictReader(file)}


def test_a_sweep_with_failures_exits_with_3(mixed):
    assert mixed.code == 3
    assert mixed.err == ""


def test_a_failing_job_stops_no_other(mixed):
    assert mixed.states() == ENDS


def test_each_status_has_the_reason(mixed):
    runs = mixed.runs()
    assert {name: runs[name].status().reason for name in REASONS} == REASONS


def test_the_summary_has_the_same_states_and_reasons(mixed):
    table = rows(mixed)
    assert {name: row["state"] for name, row in table.items()} == ENDS
    assert {name: row["reason"] for name, row in table.items() if row["reason"]} == REASONS


def test_the_summary_has_the_metrics_of_finished_jobs(mixed):
    table, runs = rows(mixed), mixed.runs()
    for name, end in ENDS.items():
        assert table[name]["test/acc"] == (str(metrics(runs[name])["test/acc"]) if end == "done" else "")


@pytest.mark.parametrize("name", REASONS)
def test_each_failed_job_is_reported_in_one_line_with_its_log(name, mixed):
    lines = mixed.out.splitlines()
    (found,) = (number for number, line in enumerate(lines) if REASONS[name] in line)
    assert f"{ENDS[name]:<11} {mixed.runs()[name].path.name}: {REASONS[name]}  " in lines[found]
    assert lines[found + 1] == f"  its log: {mixed.runs()[name].log.relative_to(mixed.folder)}"


def test_a_failure_is_reported_before_later_jobs_end(mixed):
    lines = mixed.out.splitlines()
    places = {name: next(n for n, line in enumerate(lines) if reason in line) for name, reason in REASONS.items()}
    assert places["fault-raises"] < next(n for n, line in enumerate(lines) if "] done" in line and "fault-well" in line)


def test_a_traceback_is_only_in_the_log_of_its_job(mixed):
    runs = mixed.runs()
    assert 'raise RuntimeError("out of luck")' in runs["fault-raises"].log.read_text()
    assert "Fatal Python error: Segmentation fault" in runs["fault-segfaults"].log.read_text()
    assert all("out of luck" not in run.log.read_text() for name, run in runs.items() if name != "fault-raises")
    assert "Traceback" not in mixed.out


def test_no_process_is_left(mixed):
    mixed.assert_no_process_left()


def test_the_same_command_again_runs_nothing_and_names_the_failed_jobs(mixed, begun):
    before = files_below(mixed.folder)
    second = launch_again(mixed, *MIXED, FAULTS)
    assert second.code == 3
    assert started(second) == []
    assert "2 failed before; sweep.retry=failed runs them again: fault-raises_" in second.out
    assert "1 diverged before; sweep.retry=diverged runs them again: fault-diverges_" in second.out
    assert files_below(mixed.folder) == before


@pytest.fixture(scope="module")
def retried(mixed):
    """The same sweep with repaired nets: with sweep.retry=failed; then with sweep.retry=all and one more job."""
    before = files_below(mixed.folder)
    first = launch_again(mixed, *MIXED, FAULTS, "sweep.retry=failed", NETS_REPAIRED="1")
    between = files_below(mixed.folder)
    second = launch_again(mixed, *MIXED, f"{FAULTS},exits", "sweep.retry=all", NETS_REPAIRED="1")
    return SimpleNamespace(before=before, first=first, between=between, second=second)


@pytest.mark.slow
def test_retry_failed_runs_failed_jobs_and_not_diverged_ones(retried):
    assert started(retried.first) == ["fault-raises", "fault-segfaults"]
    assert retried.first.code == 3


@pytest.mark.slow
def test_retry_all_runs_the_rest_and_the_new_job(retried):
    assert started(retried.second) == ["fault-diverges", "fault-exits"]
    assert retried.second.code == 0
    assert set(retried.second.states().values()) == {"done"}


@pytest.mark.slow
def test_the_files_of_finished_jobs_do_not_change(retried):
    for name, run in retried.second.runs().items():
        of_it = changed(run)
        assert (of_it.items() <= retried.before.items()) == (ENDS.get(name) == "done"), name
        assert (of_it.items() <= retried.between.items()) == (name not in started(retried.second)), name
