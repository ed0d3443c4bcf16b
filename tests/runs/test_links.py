"""Nothing is written through a link that leads out of a run or sweep directory, which may be somebody else's."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path

import pytest

import made_sweeps as made
from cnnbench.__main__ import main
from cnnbench.errors import ConfigError
from cnnbench.files import open_append, overwrite_in_place, write_atomic
from cnnbench.runs.links import find_outside_link, require_no_outside_links
from cnnbench.runs.run_dir import RunDir
from sweeping import in_this_process, tree  # noqa: F401

PRECIOUS = "what nobody may change\n"
IN_A_RUN = [
    "log.txt", "log_rank1.txt", "test_reads.txt", "metrics.csv", "curves.png", "status.json", "config.yaml", "predictions.npz",
    "mistakes.npz", ".lock", "checkpoints", "checkpoints/best.ckpt", "checkpoints/last.ckpt", "checkpoints/previous.ckpt",
    "events.out.tfevents.1.host.2.0", ".status.json.1.2.tmp", "anything",
]  # fmt: skip
IN_A_SWEEP = [
    "sweep.log", "summary.csv", "sweep.json", "launcher.json", ".launcher.lock", "report.html", "report.md", "figures",
    "figures/accuracy.svg", "pooling-max_seed0_00000000",
]  # fmt: skip


@pytest.fixture
def outside(tmp_path) -> Path:
    """A folder that no command may change."""
    folder = tmp_path / "home"
    (folder / "inner").mkdir(parents=True)
    for path in (folder / "file", folder / "inner/file", folder / "inner/.file.1.2.tmp", folder / "inner/best.ckpt"):
        path.write_text(PRECIOUS)
    return folder


def plant(directory: Path, name: str, target: Path) -> None:
    """Replaces a file or folder of a directory by a link."""
    path = directory / name
    if path.is_dir():
        shutil.rmtree(path)
    path.unlink(missing_ok=True)
    path.parent.mkdir(exist_ok=True)
    path.symlink_to(target)


def target_of(name: str, outside: Path) -> Path:
    return outside / ("inner" if "." not in name else "file")


@pytest.mark.parametrize("absent", [False, True], ids=["file", "absent"])
@pytest.mark.parametrize("name", IN_A_RUN)
def test_a_run_with_a_link_to_outside_is_not_resumed_and_nothing_there_changes(finished, outside, name, absent, capsys):
    directory = RunDir(outside.parent / finished.path.name)
    shutil.copytree(finished.path, directory.path)
    directory.result.unlink()
    before = tree(outside)
    target = outside / "new" if absent else target_of(name, outside)
    plant(directory.path, name, target)
    if name == "config.yaml" and not absent:  # still a config
        shutil.copy(finished.config, outside.parent / "config")
        plant(directory.path, name, outside.parent / "config")
    assert main([f"resume={directory.path}"]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert str(directory.path) in line
    assert tree(outside) == before


@pytest.mark.parametrize("command", ["evaluate", "clean --yes", "report"])
@pytest.mark.parametrize(
    "name", ["log.txt", "test_reads.txt", "checkpoints", "checkpoints/last.ckpt", "figures", "figures/curves.svg"]
)
def test_no_command_writes_through_a_link_in_a_finished_run(copied, outside, command, name, capsys):
    before = tree(outside)
    plant(copied.path, name, target_of(name, outside))
    word, *flags = command.split()
    main([word, str(copied.path), *flags])
    assert tree(outside) == before
    assert "Traceback" not in capsys.readouterr().err
    if command == "evaluate":
        assert main(["evaluate", str(copied.path)]) == 2
        assert f"{copied.path / name}: is a link to " in capsys.readouterr().err


@pytest.mark.parametrize("name", IN_A_SWEEP)
def test_the_report_of_a_sweep_writes_nothing_through_a_link(tmp_path, outside, name, capsys):
    folder = made.sweep(tmp_path / "s", [({"pooling": pooling}, {0: 0.5, 1: 0.7}) for pooling in ("max", "mean")])
    before = tree(outside)
    plant(folder, name, target_of(name, outside))
    code = main(["report", str(folder)])
    assert tree(outside) == before
    captured = capsys.readouterr()
    assert code == 2
    assert len(captured.err.splitlines()) == 1


@pytest.mark.usefixtures("in_this_process")
@pytest.mark.parametrize("name", IN_A_SWEEP)
def test_a_sweep_with_a_link_to_outside_is_not_started(tmp_path, outside, name, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    typed = "-m data=synthetic data.train_size=64 data.val_size=32 data.test_size=32 epochs=1 optimizer.lr=0.1,0.2 name=s".split()
    folder = tmp_path / "runs/s"
    folder.mkdir(parents=True)
    before = tree(outside)
    plant(folder, name, target_of(name, outside))
    assert main(typed) == 2
    assert len([line for line in capsys.readouterr().err.splitlines() if line.startswith("cnnbench: ")]) == 1
    assert tree(outside) == before
    assert [path.name for path in folder.iterdir()] == [Path(name).parts[0]]


def test_a_link_within_the_directory_and_a_link_to_the_directory_itself_are_used(tmp_path):
    directory = RunDir.create(tmp_path / "disk", "job")
    directory.log.write_text("")
    (directory.path / "latest.txt").symlink_to("log.txt")
    (tmp_path / "here").symlink_to(directory.path)
    require_no_outside_links(tmp_path / "here")
    with RunDir(tmp_path / "here").lock():
        RunDir(tmp_path / "here").write_status("running")
    assert directory.status().state == "running"


@pytest.mark.parametrize("target", ["../../elsewhere", "/", "checkpoints/../../other", "..", "loop"])
def test_each_form_of_a_link_to_outside_is_found(tmp_path, target):
    directory = RunDir.create(tmp_path / "runs", "job").path
    (directory / "loop").symlink_to(target)
    assert find_outside_link(directory) == (None if target == "loop" else directory / "loop")
    with pytest.raises(OSError, match="is a link to another file"):
        open_append(directory / "loop")


def test_a_file_is_neither_appended_to_nor_overwritten_behind_a_link(tmp_path, outside):
    (tmp_path / "log.txt").symlink_to(outside / "file")
    with pytest.raises(OSError, match="is a link to another file"):
        open_append(tmp_path / "log.txt")
    with pytest.raises(OSError, match="is a link to another file"):
        overwrite_in_place(tmp_path / "log.txt", b"new")
    write_atomic(tmp_path / "log.txt", "new")  # replaces the link itself
    assert ((tmp_path / "log.txt").is_symlink(), (outside / "file").read_text()) == (False, PRECIOUS)


def test_a_planted_temporary_file_is_replaced(tmp_path, outside, monkeypatch):
    monkeypatch.setattr("threading.get_ident", lambda: 7)
    (tmp_path / f".file.{os.getpid()}.7.tmp").symlink_to(outside / "file")
    write_atomic(tmp_path / "file", "new")
    assert ((tmp_path / "file").read_text(), (outside / "file").read_text()) == ("new", PRECIOUS)


def test_a_log_that_is_a_fifo_is_refused_at_once(tmp_path):
    os.mkfifo(tmp_path / "log.txt")
    with pytest.raises(OSError, match="No such device or address"):  # nobody reads it
        open_append(tmp_path / "log.txt")


# ---- directories of jobs ------------------------------------------------------------------------------------------------------


@pytest.mark.usefixtures("in_this_process")
@pytest.mark.parametrize(
    "directory",
    [
        "../../home",
        "/etc",
        "..",
        ".",
        "",
        ".git",
        "a/b",
        "a\\b",
        "a\0b",
        "a\nb",
        "\x1b[31m",
        "\u202ea",
        "x" * 300,
        3,
        None,
        ["a"],
    ],
)
def test_the_directory_of_a_job_is_a_plain_name_or_its_sweep_is_refused(
    tmp_path, outside, directory, monkeypatch, capsys
):
    folder = made.sweep(tmp_path / "runs/s", [({"optimizer.lr": lr}, {0: 0.5}) for lr in (0.1, 0.2)])
    record = json.loads((folder / "sweep.json").read_text())
    record["jobs"][1]["directory"] = directory
    (folder / "sweep.json").write_text(json.dumps(record))
    before = tree(tmp_path)
    monkeypatch.chdir(tmp_path)
    for command in (["status", str(folder)], ["-m", "optimizer.lr=0.1,0.2", "seed=0", "name=s"]):
        assert main(command) == 2, command
        (line,) = capsys.readouterr().err.splitlines()
        assert "sweep.json: its jobs (directory) cannot be understood" in line
    assert main(["report", str(folder), "--text"]) == 0  # of the runs that lie in the folder
    assert "its jobs (directory) cannot be understood" in " ".join(capsys.readouterr().out.split())
    assert tree(tmp_path) == before


def test_two_jobs_in_one_directory_are_refused(tmp_path, capsys):
    folder = made.sweep(tmp_path / "s", [({"optimizer.lr": lr}, {0: 0.5}) for lr in (0.1, 0.2)])
    record = json.loads((folder / "sweep.json").read_text())
    record["jobs"][1]["directory"] = record["jobs"][0]["directory"]
    (folder / "sweep.json").write_text(json.dumps(record))
    assert main(["status", str(folder)]) == 2
    assert "its jobs cannot be understood" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("name", "is_ours"),
    [
        (".best.ckpt.12.34.tmp", True),
        (".metrics.csv.999999999.1.tmp", True),
        (".notes.tmp", False),
        (".a.12.tmp", False),
        ("a.1.2.tmp", False),
    ],
)
@pytest.mark.parametrize("folder", [".", "checkpoints", "deeper/one"])
def test_repair_removes_only_temporary_files_of_our_own_pattern_and_only_where_we_write(
    tmp_path, name, is_ours, folder
):
    directory = RunDir.create(tmp_path, "job")
    path = directory.path / folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.touch()
    directory.repair()
    assert path.exists() == (not is_ours or folder == "deeper/one")


def test_repair_follows_no_link(tmp_path, outside):
    directory = RunDir.create(tmp_path / "runs", "job")
    plant(directory.path, "checkpoints", outside / "inner")
    with pytest.raises(ConfigError, match="checkpoints: is a link to "):
        directory.repair()
    assert (outside / "inner/.file.1.2.tmp").exists()
