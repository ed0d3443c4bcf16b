"""Data that move, vanish or change after a run was planned; the root as it was typed; pictures decoded off the clock."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest

from cnnbench.config.compose import compose
from cnnbench.config.schema import Config
from cnnbench.data import datamodule
from cnnbench.data.sets.imagefolder import ImageFolder
from cnnbench.errors import ConfigError, RunFailed
from cnnbench.runs.run_dir import RunDir
from cnnbench.sweep.launcher import run_job
from cnnbench.training.callbacks.history import History
from cnnbench.training.run import run
from cnnbench.training.validate import prepare
from datafiles import write_idx
from picturefolders import NET, folders, nothing_decoded_yet  # noqa: F401

DIGITS = ["data=mnist", "data.val_size=10", "model=simplecnn", "threads=1", "epochs=1", "trainer=cpu"]


@pytest.fixture(autouse=True)
def nothing_kept(monkeypatch, tmp_path, nothing_decoded_yet):
    monkeypatch.chdir(tmp_path)


@pytest.fixture
def pictures(tmp_path) -> Path:
    return folders(tmp_path / "pics", {"cat": 15, "dog": 15})


def job(overrides: list[str]) -> tuple[Config, Path]:
    """A planned job: its frozen config, and its directory with this config."""
    config = prepare(compose(overrides)).config
    directory = RunDir.create(Path("runs") / "s", "job")
    directory.config.write_text(config.dump(), encoding="utf-8")
    return config, directory.path


# ---- files that have vanished or changed -----------------------------------------------------------------------------


def test_a_job_whose_files_have_vanished_names_one_and_downloads_nothing(tmp_path, monkeypatch):
    folder = write_idx(tmp_path / "sets")
    config, path = job([*DIGITS, "data.root=sets"])
    monkeypatch.setattr(datamodule, "fetch", None)
    (tmp_path / "sets").rename(tmp_path / "gone")
    assert run_job(config, path, "") == 2
    status = RunDir(path).status()
    absent = folder / "train-images-idx3-ubyte"
    assert (status.state, status.reason.splitlines()) == ("failed", [status.reason])
    assert status.reason.startswith(f"data=mnist: {absent} was there when the run was planned, and is absent now; ")
    assert not (tmp_path / "sets").exists()


def test_a_single_run_may_download_what_is_absent(tmp_path, monkeypatch):
    asked = []

    def download(name, remotes, folder, *more):
        asked.append(folder)
        write_idx(tmp_path / "sets")

    monkeypatch.setattr(datamodule, "fetch", download)
    assert run(compose([*DIGITS, "data.root=sets"])).fresh
    assert asked == [Path("sets/MNIST/raw")]


def test_a_job_whose_picture_folder_has_vanished_fails_in_one_line(pictures):
    config, path = job([*NET, "data.root=pics"])
    pictures.rename("gone")
    assert run_job(config, path, "") == 2
    assert RunDir(path).status().reason.startswith(f"data=imagefolder data.root={pictures}: no such folder; ")


def test_a_job_whose_pictures_have_changed_is_not_trained(pictures):
    config, path = job([*NET, "data.root=pics"])
    (pictures / "cat" / "000.png").unlink()
    assert run_job(config, path, "") == 2
    reason = RunDir(path).status().reason
    assert reason.startswith(f"{path}: the data in {pictures} have changed since this run was planned; ")


@pytest.mark.parametrize("kind", ["pictures", "files of a set"])
def test_a_run_whose_data_vanish_while_it_trains_fails_in_one_line_and_resumes_when_they_are_back(
    tmp_path, monkeypatch, kind
):
    place = tmp_path / "place"
    if kind == "pictures":
        folders(place, {"cat": 15, "dog": 15})
        overrides, reason = NET, f"data.root={place}: the folder has gone since this command began; put it back"
    else:
        test_images = write_idx(place) / "t10k-images-idx3-ubyte"
        overrides, reason = DIGITS, f"data=mnist: {test_images} cannot be read (No such file or directory)"
    train_epoch_end = History.on_train_epoch_end

    def moving(self, trainer, pl_module):
        train_epoch_end(self, trainer, pl_module)
        place.rename(tmp_path / "gone")

    with monkeypatch.context() as patch:
        patch.setattr(History, "on_train_epoch_end", moving)
        with pytest.raises(RunFailed, match=r"; put the data back, and resume the run$"):
            run(compose([*overrides, f"data.root={place}"]))
    (path,) = Path("runs").glob("*/*")
    assert (RunDir(path).status().state, RunDir(path).status().reason) == ("failed", reason)
    shutil.move(tmp_path / "gone", place)
    config = Config.load(path / "config.yaml").model_copy(update={"resume": str(path)})
    assert len(run(config).result.metrics) > 3


# ---- the root, as typed and resolved ---------------------------------------------------------------------------------


@pytest.mark.parametrize("typed", ["pics", "./pics/../pics", "link"])
def test_the_frozen_config_has_the_root_as_typed_beside_the_resolved_one(pictures, typed):
    Path("link").symlink_to(pictures)
    frozen = prepare(compose([*NET, f"data.root={typed}"])).config
    saved = Path("config.yaml")
    saved.write_text(frozen.dump(), encoding="utf-8")
    for config in (Config.load(saved), prepare(Config.load(saved)).config):  # also once it is resumed
        assert (config.data.root, config.data.typed_root) == (str(pictures), typed)
    by_path = prepare(compose([*NET, f"data.root={pictures}"])).config
    assert frozen.identity() == by_path.identity()


def test_a_root_that_nobody_typed_is_only_resolved(quick):
    frozen = prepare(compose(quick)).config
    assert frozen.data.typed_root is prepare(frozen).config.data.typed_root is None


def test_a_config_of_an_earlier_version_has_no_typed_root(pictures):
    frozen = prepare(compose([*NET, "data.root=pics"])).config
    values = frozen.as_dict()
    del values["data"]["typed_root"]
    assert Config.from_saved(values).data.typed_root is None
    assert Config.from_saved(values).identity() == frozen.identity()


def test_a_root_whose_name_cannot_be_saved_is_refused_before_anything_runs(tmp_path, monkeypatch):
    place = folders(tmp_path / os.fsdecode(b"caf\xe9"), {"cat": 15, "dog": 15})
    with pytest.raises(ConfigError, match=r"^data.root=.*/caf\?: expected a folder with a name in UTF-8; rename it"):
        run(compose([*NET, f"data.root={place}"]))
    monkeypatch.chdir(place)
    with pytest.raises(ConfigError, match=r"^data.root=.*/caf\?: expected a folder with a name in UTF-8; rename it"):
        run(compose([*NET, "data.root=."]))
    assert not Path("runs").exists()


# ---- the clock -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("more", [[], ["augment=resized_crop", "data.image_size=8"]], ids=["plain", "stored larger"])
@pytest.mark.parametrize("kept", [True, False], ids=["decoded to a file", "decoded in memory"])
def test_no_picture_is_decoded_while_the_clock_of_the_fit_runs(pictures, monkeypatch, tmp_path, more, kept):
    decode, start, end = ImageFolder._decode, History.on_train_start, History.on_train_epoch_end
    running, decoded = [False], []

    def noted(self, path, side):
        decoded.append(running[0])
        return decode(self, path, side)

    def starting(self, *arguments):
        running[0] = True
        start(self, *arguments)

    def ending(self, *arguments):
        end(self, *arguments)
        running[0] = len(self.epochs) < 2

    if not kept:
        (tmp_path / "file").touch()
        monkeypatch.setenv("CNNBENCH_DATA", str(tmp_path / "file"))
        monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    monkeypatch.setattr(ImageFolder, "_decode", noted)
    monkeypatch.setattr(History, "on_train_start", starting)
    monkeypatch.setattr(History, "on_train_epoch_end", ending)
    run(compose([*NET, "data.root=pics", "epochs=2", *more]))
    assert len(decoded) >= 30
    assert not any(decoded)
