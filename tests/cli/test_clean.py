"""`cnnbench clean`: what takes room, and what finished runs no longer need."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from PIL import Image

from cnnbench.__main__ import main
from cnnbench.config.compose import compose
from cnnbench.runs.disk_use import disk_use, find_runs, freed_size, total_size
from cnnbench.runs.run_dir import RunDir
from cnnbench.text import file_size
from sweeping import tree

HOLD = """
import sys, time
from pathlib import Path
from cnnbench.runs.run_dir import RunDir
with RunDir(Path(sys.argv[1])).lock():
    print("locked", flush=True)
    time.sleep(600)
"""


@pytest.fixture
def runs(finished, tmp_path, monkeypatch) -> Path:
    """`runs` in the current folder: one of its folders holds a finished run, with traces of a kill, and an unfinished one."""
    monkeypatch.chdir(tmp_path)
    folder = Path("runs/mine")
    for name in ("a_seed0_01234560", "a_seed1_01234561"):
        shutil.copytree(finished.path, folder / name)
        shutil.copy(folder / name / "checkpoints/last.ckpt", folder / name / "checkpoints/previous.ckpt")
        (folder / name / "checkpoints/.last.ckpt.123.456.tmp").write_bytes(b"x" * 1000)
    unfinished = RunDir(folder / "a_seed1_01234561")
    unfinished.result.unlink()
    (folder / ".report.html.999999999.1.tmp").write_bytes(b"x" * 500)  # no process has such an id
    (folder / f".summary.csv.{os.getpid()}.1.tmp").write_bytes(b"x" * 500)
    return folder.parent


DROPPED = [  # in the folder `runs`
    "mine/.report.html.999999999.1.tmp",
    "mine/a_seed0_01234560/checkpoints/.last.ckpt.123.456.tmp",
    "mine/a_seed0_01234560/checkpoints/last.ckpt",
    "mine/a_seed0_01234560/checkpoints/previous.ckpt",
]


def cleaned(capsys, *arguments: object) -> str:
    """What the command prints."""
    assert main(["clean", *map(str, arguments)]) == 0, capsys.readouterr().err
    return capsys.readouterr().out


def lost(before: dict, folder: Path) -> list[str]:
    """The files that are gone; all others must be as before."""
    now = tree(folder)
    assert now == {name: before[name] for name in now}
    return sorted(before.keys() - now.keys())


# ---- what is deleted -------------------------------------------------------------------------------------------------


def test_without_yes_nothing_changes_and_the_command_that_deletes_is_named(runs, capsys):
    before = tree(runs)
    out = cleaned(capsys, "runs/mine")
    assert lost(before, runs) == []
    size = 1500 + 2 * os.path.getsize("runs/mine/a_seed0_01234560/checkpoints/last.ckpt")
    assert f"nothing was deleted. To free {file_size(size)}: cnnbench clean runs/mine --yes\n" in out
    assert "1 finished run; not touched: 1 interrupted" in out
    assert "last checkpoints of finished runs" in out


@pytest.mark.parametrize("typed", ["runs", "runs/mine", "runs/mine/"])
def test_yes_drops_last_checkpoints_and_temporary_files_of_finished_runs_only(runs, capsys, typed):
    before = tree(runs)
    out = cleaned(capsys, typed, "--yes")
    assert lost(before, runs) == DROPPED
    assert "deleted 4 files, " in out
    assert "nothing to delete" in cleaned(capsys, typed, "--yes")


def test_a_run_directory_may_be_typed(runs, capsys):
    before = tree(runs)
    cleaned(capsys, "runs/mine/a_seed0_01234560", "--yes")
    assert lost(before, runs) == DROPPED[1:]
    cleaned(capsys, "runs/mine/a_seed1_01234561", "--yes")
    assert lost(before, runs) == DROPPED[1:]


@pytest.mark.parametrize("change", ["damaged result", "no best weights", "best weights cut off", "running"])
def test_a_run_that_may_need_its_last_checkpoint_keeps_it(runs, capsys, change):
    run = RunDir(runs / "mine" / "a_seed0_01234560")
    if change == "damaged result":
        run.result.write_text(run.result.read_text()[:50])
    elif change == "no best weights":
        run.best.unlink()
    elif change == "best weights cut off":
        run.best.write_bytes(run.best.read_bytes()[:1000])
    else:  # it has written its result, and not yet ended
        run.write_status("running")
    cleaned(capsys, "runs", "--yes")
    assert run.last.is_file()


def test_a_locked_run_is_not_touched(runs, capsys):
    run = runs / "mine" / "a_seed0_01234560"
    holder = subprocess.Popen([sys.executable, "-c", HOLD, str(run)], stdout=subprocess.PIPE)
    try:
        assert holder.stdout.readline() == b"locked\n"
        before = tree(runs)
        assert "not touched: 1 running" in cleaned(capsys, "runs", "--yes")
        assert lost(before, runs) == DROPPED[:1]
    finally:
        holder.kill()
        holder.wait()


def test_links_are_neither_followed_nor_removed(runs, capsys, tmp_path):
    outside = tmp_path / "outside"
    shutil.copytree(runs / "mine" / "a_seed0_01234560", outside)
    (runs / "mine" / "linked_seed0_01234569").symlink_to(outside)
    (tmp_path / "sweep").mkdir()
    shutil.copytree(outside, tmp_path / "sweep" / outside.name)
    (runs / "linked").symlink_to(tmp_path / "sweep")
    checkpoints = runs / "mine" / "a_seed0_01234560" / "checkpoints"
    (checkpoints / "last.ckpt").unlink()
    (checkpoints / "last.ckpt").symlink_to(outside / "checkpoints" / "last.ckpt")
    before = tree(outside)
    assert "1 finished run; " in cleaned(capsys, "runs", "--yes")
    assert tree(outside) == tree(tmp_path / "sweep" / outside.name) == before
    assert (checkpoints / "last.ckpt").is_symlink()
    assert not (checkpoints / "previous.ckpt").exists()


# ---- sizes -----------------------------------------------------------------------------------------------------------


def test_a_file_with_another_name_elsewhere_counts_once_and_frees_nothing(runs, tmp_path):
    checkpoints = runs / "mine" / "a_seed0_01234560" / "checkpoints"
    size = (checkpoints / "last.ckpt").stat().st_size
    before = disk_use(runs, find_runs(runs))
    os.link(checkpoints / "last.ckpt", tmp_path / "backup.ckpt")
    (checkpoints / "previous.ckpt").unlink()
    os.link(checkpoints / "best.ckpt", checkpoints / "previous.ckpt")
    after = disk_use(runs, find_runs(runs))
    assert freed_size(before.unused) - freed_size(after.unused) == 2 * size
    assert total_size(before.files) - total_size(after.files) == size


def test_a_file_that_vanishes_meanwhile_is_no_error(runs, capsys, monkeypatch):
    found = disk_use(runs, find_runs(runs))
    (runs / "mine" / "a_seed0_01234560" / "checkpoints" / "last.ckpt").unlink()
    monkeypatch.setattr("cnnbench.cli.clean.disk_use", lambda *arguments: found)
    assert "deleted 3 files" in cleaned(capsys, "runs", "--yes")


def test_a_folder_that_cannot_be_written_to_is_one_line(runs, capsys, monkeypatch):
    def refuse(path: Path, missing_ok: bool = False) -> None:
        raise PermissionError(13, "Permission denied", str(path))

    before = tree(runs)
    with monkeypatch.context() as patch:
        patch.setattr(Path, "unlink", refuse)
        assert main(["clean", "runs", "--yes"]) == 1
    error = capsys.readouterr().err
    assert error.count("\n") == 1
    assert error.endswith("cannot be deleted (Permission denied) and 3 more\n")
    Path("runs/mine/a_seed0_01234560/.lock").unlink()
    assert tree(runs) == before


@pytest.mark.parametrize("typed", ["none", ".", "/", "runs/mine/a_seed0_01234560/result.json"])
def test_a_folder_without_runs_is_one_line(runs, capsys, typed):
    assert main(["clean", typed]) == 2
    assert capsys.readouterr().err.endswith("; type a run, a sweep (runs/NAME) or the folder runs\n")


# ---- afterwards ------------------------------------------------------------------------------------------------------


def test_a_cleaned_run_is_evaluated_predicted_repeated_reported_and_done_as_before(
    finished, quick, tmp_path, monkeypatch, capsys
):
    from cnnbench.training.run import run

    monkeypatch.chdir(tmp_path)
    name = Path("runs", finished.path.parent.name)
    shutil.copytree(finished.path.parent, name)
    path = name / finished.path.name
    Image.new("L", (28, 28)).save("zero.png")
    commands = [["evaluate", str(path)], ["predict", str(path), "zero.png"], ["report", "--text", str(path)]]

    def outputs() -> list[str]:
        for command in commands:
            assert main(command) == 0
        return capsys.readouterr().out.splitlines()[:4]

    before = outputs()
    cleaned(capsys, "runs", "--yes")
    assert not RunDir(path).last.exists()
    assert outputs() == before
    assert not run(compose([*quick, "resume=auto"])).fresh
    assert main([f"resume={path}"]) == 0
    assert "is done already" in capsys.readouterr().out
    assert main(["compare", str(path), str(finished.path)]) == 0
    assert main(["reproduce", str(path)]) == 0
    assert "bit for bit" in capsys.readouterr().out
