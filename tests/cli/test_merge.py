"""`cnnbench merge`: copies of a sweep, as two machines make them with `sweep.part`, become one."""

from __future__ import annotations

import json
import os
import shutil
import zipfile
from pathlib import Path

import pytest

from cnnbench.__main__ import main
from cnnbench.config.schema import Config
from cnnbench.runs.run_dir import RunDir
from cnnbench.runs.sweep_dir import MERGING, SweepDir
from cnnbench.sweep.launcher import freeze_to_disk
from cnnbench.sweep.plan import PlannedJob
from processes import call_before_writes
from sweeping import METRICS, plan, tree, write_run
from sweeps import FAULTY, Sweep, swept

TYPED = ["seed=0,1,2", "model=lenet5,lenet_3x3", "name=mine"]
COMMAND = f"cnnbench -m {' '.join(TYPED)}"
TIMES = "epoch,step,train/loss,val/acc\n"


def finish(planned: PlannedJob, **result: object) -> RunDir:
    """Writes all files of a finished run, but for weights and predictions, which are small archives."""
    run = write_run(planned, "done", **{"code": "0123", **result})
    run.metrics.write_text(f"{TIMES}1,4,2.0,0.5\n2,8,1.0,0.7\n")
    run.best.parent.mkdir(exist_ok=True)
    for path in (run.best, run.last, run.predictions):
        archive(path)
    return run


def interrupt(planned: PlannedJob, epochs: int) -> RunDir:
    """Writes the files of a run that was interrupted after some epochs."""
    run = write_run(planned, "interrupted")
    run.metrics.write_text(TIMES + "".join(f"{epoch},4,2.0,0.5\n" for epoch in range(epochs)))
    run.last.parent.mkdir(exist_ok=True)
    archive(run.last)
    return run


def archive(path: Path) -> None:
    with zipfile.ZipFile(path, "w") as file:
        file.writestr("data", path.name * 20)


def make_part(runs_dir: str, part: str) -> list[RunDir]:
    """The finished runs of a part of the sweep."""
    made = freeze_to_disk(plan(*TYPED, f"runs_dir={runs_dir}", f"sweep.part={part}"), f"{COMMAND} sweep.part={part}")
    return [finish(each) for each in made.due]


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """Two folders with a part of a sweep each."""
    from sweeping import call_here, compose_cached

    folder = tmp_path_factory.mktemp("parts")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        patch.setattr("cnnbench.sweep.plan.run_in_subprocess", call_here)
        patch.setattr("cnnbench.sweep.expand.compose_values", compose_cached)
        patch.setattr("cnnbench.sweep.composer.compose_values", compose_cached)
        make_part("a", "1/2")
        make_part("b", "2/2")
    return folder


@pytest.fixture
def parts(made, tmp_path, monkeypatch):
    """The two folders, a/mine and b/mine, in the current folder."""
    shutil.copytree(made, tmp_path, dirs_exist_ok=True)
    monkeypatch.chdir(tmp_path)
    return SweepDir(Path("a/mine")), SweepDir(Path("b/mine"))


def merged(capsys, *folders: object) -> str:
    """What the command prints."""
    code = main(["merge", *map(str, folders)])
    shown = capsys.readouterr()
    assert code == 0, shown.err
    return shown.out


def refused(capsys, *folders: object, code: int) -> str:
    """The message of a merge that is refused and changes nothing."""
    before = tree(Path.cwd())
    assert main(["merge", *map(str, folders or ("a/mine", "b/mine"))]) == code
    assert tree(Path.cwd()) == before
    error = capsys.readouterr().err
    assert error.count("\n") == 1
    return error


def runs_of(sweep: SweepDir) -> list[RunDir]:
    """The runs that are in a folder."""
    return [job.directory for job in sweep.jobs() if job.directory.path.is_dir()]


def edit_json(path: Path, **fields: object) -> None:
    path.write_text(json.dumps({**json.loads(path.read_text()), **fields}))


# ---- what is copied --------------------------------------------------------------------------------------------------


def test_two_parts_become_one_sweep(parts, capsys):
    a, b = parts
    before = tree(b.path)
    assert merged(capsys, a.path, b.path).startswith("a/mine: 3 runs copied; 6 of 6 jobs are done\n")
    assert tree(b.path) == before
    for run in runs_of(b):
        assert tree(a.path / run.path.name) == tree(run.path)
    assert [job.status().state for job in a.jobs()] == ["done"] * 6
    assert a.summary.read_text().count(",done,") == 6
    record = a.read()
    assert (record.part, record.command) == (None, COMMAND)
    assert main(["status", "a/mine"]) == 0
    assert capsys.readouterr().out == "a/mine  6 done of 6\n"


def test_the_same_command_has_nothing_to_do_on_a_merged_folder(in_this_process, made, capsys):
    shutil.copytree(made, ".", dirs_exist_ok=True)
    merged(capsys, "a/mine", "b/mine")
    for part in ([], ["sweep.part=1/2"], ["sweep.part=2/2"]):
        assert plan(*TYPED, "runs_dir=a", *part).due == []


def test_copying_the_job_directories_by_hand_gives_the_same(in_this_process, made, capsys):
    shutil.copytree(made, ".", dirs_exist_ok=True)
    for run in runs_of(SweepDir(Path("b/mine"))):
        shutil.copytree(run.path, Path("a/mine", run.path.name))
    assert plan(*TYPED, "runs_dir=a").due == []
    assert main(["status", "a/mine"]) == 0
    assert capsys.readouterr().out == "a/mine, part 1/2  3 done of 3\nother parts: 3 of 3 jobs are done here\n"
    assert main(["report", "--text", "a/mine"]) == 0
    assert "Incomplete" not in capsys.readouterr().out


def test_what_is_finished_in_both_is_compared_and_stays(parts, capsys):
    a, b = parts
    merged(capsys, a.path, b.path)
    before = tree(a.path)
    out = merged(capsys, a.path, b.path)
    assert out.startswith(
        "a/mine: 0 runs copied, 3 finished in several folders, with equal results; 6 of 6 jobs are done\n"
    )
    assert {name: before[name] for name in before if name != "sweep.json"} == {
        name: content for name, content in tree(a.path).items() if name != "sweep.json"
    }


def test_three_folders_are_merged_into_one(parts, capsys):
    a, b = parts
    shutil.copytree(a.path, "c/mine")
    for run in runs_of(a):
        shutil.rmtree(run.path)
    assert merged(capsys, a.path, "c/mine", b.path).startswith("a/mine: 6 runs copied; 6 of 6 jobs are done\n")


def test_a_finished_run_replaces_an_unfinished_one_and_no_other_way_round(parts, capsys):
    a, b = parts
    run, ours = runs_of(b)[0], runs_of(a)[0]
    shutil.copytree(run.path, a.path / run.path.name)
    (a.path / run.path.name / "result.json").unlink()
    (a.path / run.path.name / "only_here.txt").touch()
    shutil.copytree(ours.path, b.path / ours.path.name)
    (b.path / ours.path.name / "result.json").unlink()
    assert "3 runs copied; 6 of 6 jobs are done" in merged(capsys, a.path, b.path)
    assert tree(a.path / run.path.name) == tree(run.path)


def test_of_two_unfinished_runs_the_one_that_got_further_is_taken(in_this_process, capsys):
    for folder, epochs in (("a", (1, 3, 2)), ("b", (2, 1, 2))):
        made = freeze_to_disk(plan("seed=0,1,2", f"runs_dir={folder}", "name=mine"), COMMAND)
        for planned, count in zip(made.jobs, epochs, strict=True):
            interrupt(planned, count)
            (planned.job.directory.path / "made_in.txt").write_text(folder)
    out = merged(capsys, "a/mine", "b/mine")
    assert out.startswith("a/mine: 1 run copied; 0 of 3 jobs are done\n")
    assert f"to continue: {COMMAND}\n" in out
    assert [(run.path / "made_in.txt").read_text() for run in runs_of(SweepDir(Path("a/mine")))] == ["b", "a", "a"]


def test_jobs_that_only_the_other_folder_lists_are_added(in_this_process, capsys):
    for folder, seeds in (("a", "0,1"), ("b", "0,1,2")):
        for each in freeze_to_disk(plan(f"seed={seeds}", f"runs_dir={folder}", "name=mine"), COMMAND).jobs:
            finish(each)
    assert "1 run copied, 2 finished in several folders" in merged(capsys, "a/mine", "b/mine")
    assert [job.setting for job in SweepDir(Path("a/mine")).jobs()] == [{"seed": 0}, {"seed": 1}, {"seed": 2}]


def test_the_command_to_continue_is_that_of_the_folder_with_most_jobs(in_this_process, capsys):
    for folder, seeds, done in (("a", "0,1", 2), ("b", "0,1,2,3", 3)):
        made = freeze_to_disk(
            plan(f"seed={seeds}", f"runs_dir={folder}", "name=mine"), f"{COMMAND} seed={seeds} sweep.part=1/2"
        )
        for each in made.jobs[:done]:
            finish(each)
    assert f"to continue: {COMMAND} seed=0,1,2,3\n" in merged(capsys, "a/mine", "b/mine")


def test_folders_of_different_names_and_data_places_are_the_same_sweep(parts, capsys):
    a, b = parts
    for run in runs_of(b):
        run.config.write_text(run.config.read_text().replace("root: ", "root: /elsewhere"))
    b.path.rename("b/from_the_laptop")
    assert "3 runs copied" in merged(capsys, a.path, "b/from_the_laptop")


def test_links_locks_and_partly_written_files_are_not_copied(parts, capsys):
    a, b = parts
    run = runs_of(b)[0].path
    (run / ".lock").touch()
    (run / ".status.json.1.2.tmp").touch()
    (run / "link").symlink_to((run / "result.json").resolve())
    merged(capsys, a.path, b.path)
    assert not {".lock", ".status.json.1.2.tmp", "link"} & {path.name for path in (a.path / run.name).iterdir()}


# ---- what is refused -------------------------------------------------------------------------------------------------


def test_another_result_of_a_job_is_refused_and_named(parts, capsys):
    a, b = parts
    run = runs_of(a)[0]
    shutil.copytree(run.path, b.path / run.path.name)
    edit_json(b.path / run.path.name / "result.json", metrics={**METRICS, "test/acc": 0.6250000000000001})
    assert refused(capsys, code=1) == (
        f"cnnbench: b/mine/{run.path.name}: has another result than {run.path} (test/acc: 0.625, there 0.6250000000000001); "
        "delete the directory that is not to count, and merge again\n"
    )


def test_another_fixed_key_is_refused_and_named(parts, capsys):
    fixed = json.loads(parts[1].record.read_text())["fixed"]
    edit_json(parts[1].record, fixed={**fixed, "epochs": 3})
    message = "cnnbench: b/mine: is another sweep than a/mine (epochs: 2, there 3)\n"
    assert refused(capsys, code=1) == message


def test_another_varied_key_is_refused_and_named(parts, capsys):
    edit_json(parts[1].record, keys=["model", "epochs", "seed"])
    assert "(epochs varies only in b/mine)" in refused(capsys, code=1)


def test_other_data_files_are_refused_and_named(parts, capsys):
    b = parts[1]
    jobs = json.loads(b.record.read_text())["jobs"]
    for run in runs_of(b):
        data = Config.load(run.config).data.model_copy(update={"fingerprint": "ffff"})
        config = Config.load(run.config).model_copy(update={"data": data})
        run.config.write_text(config.dump())
        next(job for job in jobs if job["directory"] == run.path.name)["identity"] = config.identity()
    edit_json(b.record, jobs=jobs)
    assert "(data.fingerprint: " in (error := refused(capsys, code=1))
    assert "there ffff)" in error


def test_runs_of_another_version_of_the_code_are_copied_and_named(parts, capsys):
    for run in runs_of(parts[1]):
        edit_json(run.result, code="4567")
    assert "made by 2 versions of the code: 3 by 0123, 3 by 4567; " in merged(capsys, "a/mine", "b/mine")


HALVES = ["status.json", "config.yaml", "metrics.csv", "predictions.npz", "checkpoints/best.ckpt"]


@pytest.mark.parametrize("file", HALVES)
def test_a_finished_run_that_lacks_a_file_is_half_copied(parts, capsys, file):
    run = runs_of(parts[1])[0].path
    (run / file).unlink()
    assert f"{run}: is half copied, {file} is absent; copy this run again" in refused(capsys, code=2)


@pytest.mark.parametrize(
    "file", ["result.json", "predictions.npz", "checkpoints/best.ckpt", "config.yaml", "metrics.csv", "status.json"]
)
def test_a_run_with_a_file_that_is_cut_off_is_half_copied(parts, capsys, file):
    run = runs_of(parts[1])[0].path
    os.truncate(run / file, 50)
    assert f"{run}: is half copied, {file} is cut off or damaged" in refused(capsys, code=2)


@pytest.mark.parametrize("cut", ["the last row", "the end of the last row", "the last line end"])
def test_a_table_of_epochs_that_ends_early_is_half_copied(cut, parts, capsys):
    metrics = runs_of(parts[1])[0].metrics
    text = metrics.read_text()
    lines = text.splitlines(keepends=True)
    ends = {"the last row": "".join(lines[:-1]), "the end of the last row": text.rpartition(",")[0] + "\n"}
    metrics.write_text(ends.get(cut, text[:-1]))
    assert "is half copied, metrics.csv is cut off or damaged" in refused(capsys, code=2)


@pytest.mark.parametrize("name", ["checkpoints/best.ckpt", "checkpoints", "metrics.csv"])
def test_a_run_whose_files_are_links_is_refused(name, parts, capsys, tmp_path):
    path = runs_of(parts[1])[0].path / name
    path.rename(tmp_path / "elsewhere")
    path.symlink_to(tmp_path / "elsewhere")
    assert "is a link, which is not copied; make a copy of the sweep with cp -rL" in refused(capsys, code=2)


@pytest.mark.parametrize("kind", ["folder", "file", "link"])
def test_what_is_no_run_is_never_replaced(kind, parts, capsys):
    a, b = parts
    place = a.path / runs_of(b)[0].path.name
    if kind == "folder":
        place.mkdir()
        (place / "notes.txt").write_text("mine")
    elif kind == "file":
        place.write_text("mine")
    else:
        place.symlink_to("/nowhere")
    assert f"{place}: holds no run, and a run is to be copied there; move it elsewhere" in refused(capsys, code=2)


def test_a_pipe_in_place_of_a_table_does_not_hang(parts, capsys):
    run = runs_of(parts[1])[0]
    run.metrics.unlink()
    os.mkfifo(run.metrics)
    assert "metrics.csv is absent" in refused(capsys, code=2)


def test_a_live_sweep_is_refused(parts, capsys):
    for sweep in parts:
        with sweep.lock():
            assert f"{sweep.path}: this sweep is live (pid " in refused(capsys, code=2)


def test_a_live_run_is_refused(parts, capsys):
    run = runs_of(parts[1])[0]
    run.result.unlink()
    run.write_status("running")
    assert f"{run.path}: this run is live (pid " in refused(capsys, code=2)


@pytest.mark.parametrize("name", ["../../evil", "/etc", "..", ""])
def test_a_directory_outside_of_the_sweep_is_refused(parts, capsys, name):
    jobs = json.loads(parts[1].record.read_text())["jobs"]
    edit_json(parts[1].record, jobs=[{**jobs[0], "directory": name}, *jobs[1:]])
    assert "b/mine/sweep.json: its jobs (directory) cannot be understood" in refused(capsys, code=2)


@pytest.mark.parametrize(
    ("typed", "message"),
    [
        (["a/mine", "a/../a/mine"], "a/../a/mine: is the same folder as a/mine; name each folder once"),
        (["a", "b/mine"], "a: not a sweep, it holds no sweep.json; did you mean a/mine?"),
        (["a/mine", "b"], "b: not a sweep, it holds no sweep.json; did you mean b/mine?"),
        (["a/mine"], "the following arguments are required: B"),
    ],
)
def test_a_wrong_folder_is_one_line(parts, capsys, typed, message):
    assert message in refused(capsys, *typed, code=2)


def test_a_full_disk_is_found_before_anything_is_copied(parts, capsys, monkeypatch):
    monkeypatch.setattr("cnnbench.sweep.merge.shutil.disk_usage", lambda path: shutil._ntuple_diskusage(10, 10, 10))
    assert "are to be copied, 10 bytes are free; free some space" in refused(capsys, code=2)


def test_a_disk_that_gets_full_is_one_line_and_the_same_merge_goes_on_later(parts, capsys, monkeypatch):
    def full(source: Path, target: Path) -> None:
        raise OSError(28, "No space left on device", str(target))

    with monkeypatch.context() as patch:
        patch.setattr("cnnbench.sweep.merge.shutil.copy2", full)
        assert main(["merge", "a/mine", "b/mine"]) == 1
    assert "No space left on device; the merge is not complete, type it again" in capsys.readouterr().err
    assert not (parts[0].path / MERGING).exists()
    assert "3 runs copied; 6 of 6 jobs are done" in merged(capsys, "a/mine", "b/mine")


# ---- kills -----------------------------------------------------------------------------------------------------------


def merge_killed_before(change: int) -> None:
    """In a fork: merges, and kills the process before it changes a file for the n-th time."""
    changes = iter(range(1, change))

    def count(event: str, path: str) -> None:
        if next(changes, None) is None:
            os.kill(os.getpid(), 9)

    call_before_writes(count)
    os._exit(main(["merge", "runs/a/mine", "runs/b/mine"]))


@pytest.mark.parametrize("change", [1, 3, 6, 9, 12, 15, 18, 21, 24])
def test_a_killed_merge_leaves_whole_runs_and_can_be_typed_again(made, tmp_path, monkeypatch, capsys, change):
    monkeypatch.chdir(tmp_path)
    shutil.copytree(made, "runs")
    child = os.fork()
    if child == 0:
        merge_killed_before(change)
    assert os.WTERMSIG(os.waitpid(child, 0)[1]) == 9
    a, b = SweepDir(Path("runs/a/mine")), SweepDir(Path("runs/b/mine"))
    for run in runs_of(b):
        if (a.path / run.path.name).is_dir():
            assert tree(a.path / run.path.name) == tree(run.path)
    assert main(["status", "runs/a/mine"]) == 0
    assert "6 of 6 jobs are done" in merged(capsys, a.path, b.path)
    assert not (a.path / MERGING).exists()
    assert all(tree(a.path / run.path.name) == tree(run.path) for run in runs_of(b))


def test_clean_drops_what_a_killed_merge_left(parts, capsys):
    left = parts[0].path / MERGING / "a_seed0_01234560" / "checkpoints"
    left.mkdir(parents=True)
    (left / "best.ckpt").write_bytes(b"x" * 10)
    before = set(tree(parts[0].path))
    assert main(["clean", "a/mine", "--yes"]) == 0
    gone = before - set(tree(parts[0].path))
    assert MERGING in gone
    assert {Path(name).name for name in gone if MERGING not in name} == {"last.ckpt"}


# ---- real runs -------------------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_two_machines_do_half_each_and_the_merged_sweep_has_the_bits_of_the_whole(tmp_path):
    typed = [*FAULTY, "seed=0,1", "optimizer=sgd,adam", "sweep.slots=2"]
    whole = swept(tmp_path / "whole", *typed)
    halves = [swept(tmp_path / name, *typed, f"sweep.part={part}") for name, part in (("a", "1/2"), ("b", "2/2"))]
    for half in halves:
        assert "4 jobs, 2 of them in part " in half.out
        assert sorted(half.states().values()) == ["done", "done", "pending", "pending"]
        assert "other parts: 0 of 2 jobs are done here" in half.out
    merge = Sweep(tmp_path / "a", "runs/swept", str(halves[1].directory.path), first="merge")
    assert merge.wait() == 0, merge.err
    results = [{name: run.load_result().metrics for name, run in sweep.runs().items()} for sweep in (whole, halves[0])]
    assert results[0] == results[1]
    again = swept(tmp_path / "a", *typed)
    assert again.out.startswith("runs/swept: 4 jobs, 4 done already, nothing to run\n")
