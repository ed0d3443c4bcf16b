"""Sweeps that run: what becomes of good jobs and bad ones, of the same command typed again, of slots, of who looks on."""

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

from cnnbench.runs.run_dir import RunDir
from cnnbench.sweep.slots import cores
from processes import Forked, own_environment, until
from sweeps import FATED, Sweep, changed, metrics, swept

MIXED = [*FATED, "sweep.slots=2", "sweep.timeout=15"]
FATES = "+model.fate=fine,raises,diverges,segfaults,stuck,well"
ENDS = {
    "fate-fine": "done", "fate-raises": "failed", "fate-diverges": "diverged", "fate-segfaults": "failed", "fate-stuck": "failed",
    "fate-well": "done",
}  # fmt: skip
REASONS = {
    "fate-raises": "RuntimeError: out of luck",
    "fate-diverges": "the training loss is nan in step 3, lr 0.0015",
    "fate-segfaults": "its process was ended by SIGSEGV",
    "fate-stuck": "took longer than sweep.timeout=15 s",
}


@pytest.fixture(scope="module", autouse=True)
def begun(tmp_path_factory):
    """The sweep of good and bad jobs; while one of them hangs, other tests go on."""
    sweep = Sweep(tmp_path_factory.mktemp("mixed"), *MIXED, FATES)
    yield sweep
    sweep.end()


def again(sweep: Sweep, *arguments: str, **environment: str) -> Sweep:
    """A sweep in the same folder, at its end."""
    other = Sweep(sweep.folder, *arguments, **environment)
    other.wait()
    other.assert_nobody_left()
    return other


def started(sweep: Sweep) -> list[str]:
    """The jobs that it started, in their order."""
    return [line.split()[-1].rpartition("_")[0] for line in sweep.out.splitlines() if "] running" in line]


# ---- more of the same ------------------------------------------------------------------------------------------------


def files_below(folder: Path) -> dict[str, int]:
    return {
        path: at for run in (folder / "runs").glob("*/*") if run.is_dir() for path, at in changed(RunDir(run)).items()
    }


@pytest.fixture(scope="module")
def seeded(tmp_path_factory):
    """Two seeds, then three."""
    folder = tmp_path_factory.mktemp("seeded")
    first = swept(folder, *FATED, "seed=0,1", "sweep.slots=2")
    before = files_below(folder)
    return SimpleNamespace(
        first=first,
        before=before,
        second=swept(folder, *FATED, "seed=0,1,2", "sweep.slots=2"),
        after=files_below(folder),
    )


def test_another_seed_runs_the_new_job_alone(seeded):
    assert started(seeded.second) == ["seed2"]
    assert seeded.before.items() <= seeded.after.items()


def test_the_same_command_when_all_is_done_runs_nothing(seeded):
    last = again(seeded.second, *FATED, "seed=0,1,2", "sweep.slots=2")
    assert last.code == 0
    assert last.out.startswith("runs/swept: 3 jobs, 3 done already, nothing to run\n")
    assert started(last) == []
    assert files_below(last.folder) == seeded.after


@pytest.mark.slow
def test_what_was_killed_when_all_was_done_and_not_yet_said_is_put_right(seeded):
    summary, first = seeded.second.directory.summary, next(iter(seeded.second.runs().values()))
    before = summary.read_text()
    summary.unlink()
    status = json.loads((first.path / "status.json").read_text())
    (first.path / "status.json").write_text(json.dumps({**status, "state": "running", "pid_started": 0}))
    assert again(seeded.second, *FATED, "seed=0,1,2", "sweep.slots=2").code == 0
    assert first.status()["state"] == "done"
    assert summary.read_text() == before


# ---- policy ----------------------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_on_failure_stop_starts_no_further_job(launch):
    sweep = launch(*FATED, "+model.fate=raises,fine,well", "sweep.slots=1", "sweep.on_failure=stop")
    assert sweep.wait() == 3
    assert sweep.states() == {"fate-raises": "failed", "fate-fine": "pending", "fate-well": "pending"}
    assert started(sweep) == ["fate-raises"]


@pytest.mark.slow
def test_max_failures_starts_no_further_job_after_so_many(launch):
    sweep = launch(*FATED, "+model.fate=raises,exits,fine,well", "sweep.slots=1", "sweep.max_failures=2")
    assert sweep.wait() == 3
    ends = {"fate-raises": "failed", "fate-exits": "failed", "fate-fine": "pending", "fate-well": "pending"}
    assert sweep.states() == ends


@pytest.mark.slow
def test_what_runs_already_when_another_fails_is_not_stopped(launch, tmp_path):
    gate = tmp_path / "gate"
    bad = ["+model.fate=gated,raises,fine", "sweep.slots=2", "sweep.on_failure=stop"]
    sweep = launch(*FATED, *bad, NETS_GATE=str(gate))
    until(lambda: "failed" in sweep.states().values() if sweep.directory.record.exists() else False, "one fails")
    gate.touch()
    assert sweep.wait() == 3
    assert sweep.states() == {"fate-gated": "done", "fate-raises": "failed", "fate-fine": "pending"}


@pytest.mark.parametrize(
    ("typed", "said"),
    [
        (["optimizer.lr=0.1,0.01,fast"], "optimizer.lr=fast: expected"),
        (["+model.fate=fine,well,fien"], "no fate is called fien"),
        (["optimizer=adam,sgd,adm"], "optimizer=adm: no such optimizer; did you mean adam?"),
    ],
)
def test_a_typo_in_the_last_job_fails_in_one_line_before_anything_is_written(typed, said, launch, tmp_path):
    sweep = launch(*FATED, *typed)
    assert sweep.wait() == 2
    assert said in sweep.err
    assert sweep.err.count("\n") == 1
    if "adm" not in said:  # a choice is looked up before there are jobs
        assert f"(job {typed[0].partition('=')[0].rpartition('.')[2]}-{typed[0].rpartition(',')[2]})" in sweep.err
    assert sweep.out == ""
    assert not (tmp_path / "runs").exists()


def test_a_sweep_within_torchrun_is_refused_in_one_line(tmp_path):
    run = Forked(tmp_path, "-m", *FATED, "seed=0,1", ranks=2)
    assert run.wait() == 2
    said = "-m: a sweep is started once, and starts its jobs' processes itself; type it without torchrun or srun -n"
    assert run.err == f"cnnbench: {said}\n"
    assert run.out == ""
    assert not (tmp_path / "runs").exists()


def test_runs_dir_that_is_a_file_is_told_in_one_line(launch, tmp_path):
    (tmp_path / "runs").write_text("")
    sweep = launch(*FATED, "seed=0,1")
    assert sweep.wait() == 2
    assert sweep.err.startswith("cnnbench: runs_dir: cannot write to runs/swept (")
    assert sweep.err.count("\n") == 1


@pytest.mark.slow
def test_an_overview_that_cannot_be_written_stops_no_job_and_is_told_at_the_end(launch, tmp_path):
    """As on a disk that was full for a while."""
    for name in ("summary.csv", "sweep.log"):
        (tmp_path / "runs" / "swept" / name / "in the way").mkdir(parents=True)
    sweep = launch(*FATED, "+model.fate=fine,raises,well")
    assert sweep.wait() == 3
    assert sweep.states() == {"fate-fine": "done", "fate-raises": "failed", "fate-well": "done"}
    assert sweep.err == ""
    assert sweep.out.splitlines()[-1] == "runs/swept/summary.csv: cannot be written (Is a directory)"


# ---- slots -----------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def unequal(tmp_path_factory):
    """Four jobs in two slots, of which the first waits for the results of all others."""
    folder = tmp_path_factory.mktemp("unequal")
    arguments = [argument for argument in FATED if argument != "threads=1"]
    environment = {"NETS_RUNS": str(folder / "runs"), "NETS_NOTES": str(folder / "notes"), "NETS_WAIT": "0.05"}
    sweep = swept(
        folder, *arguments, "+model.fate=patient,fine,well,gated", "sweep.slots=2", NETS_GATE=str(folder), **environment
    )
    return SimpleNamespace(
        sweep=sweep, notes=[json.loads(line) for line in (folder / "notes").read_text().splitlines()]
    )


@pytest.mark.slow
def test_a_free_slot_is_refilled_at_once_however_long_others_take(unequal):
    assert set(unequal.sweep.states().values()) == {"done"}  # had they waited for the first, it would have failed


@pytest.mark.slow
def test_no_more_jobs_are_on_than_there_are_slots(unequal):
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


def test_each_job_is_in_a_process_of_its_own(unequal):
    assert len({note["pid"] for note in unequal.notes}) == 4


def test_slots_divide_the_processor(unequal):
    share = max(1, cores() // 2)
    assert f"4 jobs, 4 to run, 2 at a time, {share} thread{'s' * (share > 1)} each\n" in unequal.sweep.out
    assert {note["threads"] for note in unequal.notes} == {share}
    assert all(f"threads: {share}\n" in run.config.read_text() for run in unequal.sweep.runs().values())


# ---- a sweep that is on ----------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def looked_at(tmp_path_factory):
    """What others see of a sweep: while its first job runs, and after all was killed."""
    folder = tmp_path_factory.mktemp("live")
    arguments = [*FATED, "+model.fate=gated", "sweep.slots=1", "seed=0,1,2"]
    sweep = Sweep(folder, *arguments, NETS_GATE=str(folder / "gate"))
    first = until(lambda: sweep.directory.jobs(), "its jobs are known")[0].directory
    until(lambda: first.status().get("epochs"), "the first trains")
    seen = SimpleNamespace(sweep=sweep, arguments=arguments, first=first)
    seen.before = files_below(folder).keys()
    seen.second = again(sweep, *arguments)
    seen.after = files_below(folder).keys()
    seen.on = status(folder)
    os.killpg(sweep.pid, signal.SIGKILL)
    sweep.end()
    seen.killed = status(folder)
    return seen


def status(folder: Path) -> SimpleNamespace:
    """What `status` shows, and whether it imports torch for that."""
    source = "import sys; from cnnbench.__main__ import main; code = main(['status', 'runs/swept']); print('torch' in sys.modules)"
    ended = subprocess.run(
        [sys.executable, "-c", source],
        cwd=folder,
        env=own_environment("status", {}),
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
        == f"cnnbench: runs/swept: this sweep is live ({who}); python -m cnnbench status runs/swept shows it\n"
    )
    assert looked_at.before == looked_at.after


@pytest.mark.slow
def test_status_from_another_process_shows_it_running_with_its_progress(looked_at):
    assert looked_at.on.shown.startswith("runs/swept  1 running, 2 pending of 3")
    assert f"(pid {looked_at.sweep.pid} on {socket.gethostname()})" in looked_at.on.shown
    row = next(line for line in looked_at.on.shown.splitlines() if line.startswith(looked_at.first.path.name))
    assert row.split()[1] == "1/1"
    assert 1 < float(row.split()[2]) < 4


@pytest.mark.slow
def test_status_of_a_killed_sweep_shows_it_interrupted_and_what_to_type(looked_at):
    assert looked_at.killed.shown.startswith("runs/swept  2 pending, 1 interrupted of 3")
    said = "nobody runs it. To go on, type the same again: python -m cnnbench -m "
    typed = "".join(looked_at.killed.shown.splitlines()).partition(said)[2]
    assert typed.replace("'", "").split() == looked_at.arguments


@pytest.mark.slow
def test_status_imports_no_torch(looked_at):
    assert not looked_at.on.torch


# ---- good jobs and bad ones ------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def mixed(begun):
    """The sweep of good and bad jobs at its end."""
    begun.wait()
    return begun


def rows(sweep: Sweep) -> dict[str, dict[str, str]]:
    with sweep.directory.summary.open() as file:
        return {row["job"].rpartition("_")[0]: row for row in csv.DictReader(file)}


def test_a_sweep_with_failures_ends_with_3(mixed):
    assert mixed.code == 3
    assert mixed.err == ""


def test_a_bad_job_takes_down_no_other(mixed):
    assert mixed.states() == ENDS


def test_each_status_says_why(mixed):
    runs = mixed.runs()
    assert {name: runs[name].status()["reason"] for name in REASONS} == REASONS


def test_the_summary_says_the_same(mixed):
    table = rows(mixed)
    assert {name: row["state"] for name, row in table.items()} == ENDS
    assert {name: row["reason"] for name, row in table.items() if row["reason"]} == REASONS


def test_the_summary_has_the_metrics_of_what_is_done(mixed):
    table, runs = rows(mixed), mixed.runs()
    for name, end in ENDS.items():
        assert table[name]["test/acc"] == (str(metrics(runs[name])["test/acc"]) if end == "done" else "")


@pytest.mark.parametrize("name", REASONS)
def test_each_bad_job_is_told_in_one_line_and_where_its_log_is(name, mixed):
    lines = mixed.out.splitlines()
    (told,) = (number for number, line in enumerate(lines) if REASONS[name] in line)
    assert f"{ENDS[name]:<11} {mixed.runs()[name].path.name}: {REASONS[name]}  " in lines[told]
    assert lines[told + 1] == f"  its log: {mixed.runs()[name].log.relative_to(mixed.folder)}"


def test_a_failure_is_told_before_later_jobs_end(mixed):
    lines = mixed.out.splitlines()
    places = {name: next(n for n, line in enumerate(lines) if reason in line) for name, reason in REASONS.items()}
    assert places["fate-raises"] < next(n for n, line in enumerate(lines) if "] done" in line and "fate-well" in line)


def test_a_traceback_is_in_the_jobs_own_log_alone(mixed):
    runs = mixed.runs()
    assert 'raise RuntimeError("out of luck")' in runs["fate-raises"].log.read_text()
    assert "Fatal Python error: Segmentation fault" in runs["fate-segfaults"].log.read_text()
    assert all("out of luck" not in run.log.read_text() for name, run in runs.items() if name != "fate-raises")
    assert "Traceback" not in mixed.out


def test_nobody_is_left_of_it_neither_what_hangs_nor_what_that_started(mixed):
    mixed.assert_nobody_left()


def test_typed_again_nothing_is_run_and_what_failed_is_named_with_what_to_type(mixed, begun):
    before = files_below(mixed.folder)
    second = again(mixed, *MIXED, FATES)
    assert second.code == 3
    assert started(second) == []
    assert "3 have failed before; sweep.retry=failed runs them again: fate-raises_" in second.out
    assert "1 have diverged before; sweep.retry=diverged runs them again: fate-diverges_" in second.out
    assert files_below(mixed.folder) == before


@pytest.fixture(scope="module")
def retried(mixed):
    """The same with nothing bad about the nets any more: what failed; then all, and one more."""
    before = files_below(mixed.folder)
    first = again(mixed, *MIXED, FATES, "sweep.retry=failed", NETS_HEALED="1")
    between = files_below(mixed.folder)
    second = again(mixed, *MIXED, f"{FATES},exits", "sweep.retry=all", NETS_HEALED="1")
    return SimpleNamespace(before=before, first=first, between=between, second=second)


@pytest.mark.slow
def test_retry_failed_runs_what_failed_and_not_what_diverged(retried):
    assert started(retried.first) == ["fate-raises", "fate-segfaults", "fate-stuck"]
    assert retried.first.code == 3


@pytest.mark.slow
def test_retry_all_runs_the_rest_and_another_value_the_new_job(retried):
    assert started(retried.second) == ["fate-diverges", "fate-exits"]
    assert retried.second.code == 0
    assert set(retried.second.states().values()) == {"done"}


@pytest.mark.slow
def test_the_files_of_what_was_done_are_untouched(retried):
    for name, run in retried.second.runs().items():
        of_it = changed(run)
        assert (of_it.items() <= retried.before.items()) == (ENDS.get(name) == "done"), name
        assert (of_it.items() <= retried.between.items()) == (name not in started(retried.second)), name
