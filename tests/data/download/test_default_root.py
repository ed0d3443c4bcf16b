"""The folder for data and decoded images where nobody names one, also for users without a home folder."""

from __future__ import annotations

import os
import pwd
import stat
import tempfile

import pytest

from cnnbench.config.compose import compose
from cnnbench.data.download.fetch import default_root
from cnnbench.errors import DataError
from cnnbench.training.validate import prepare


@pytest.fixture
def temporary(tmp_path, monkeypatch):
    """An empty `$TMPDIR`, for a user who has a home folder and names no other one."""
    for name in ("CNNBENCH_DATA", "XDG_CACHE_HOME"):
        monkeypatch.delenv(name, raising=False)
    for name in ("home", "tmp"):
        (tmp_path / name).mkdir()
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "tmp"))
    return tmp_path / "tmp"


@pytest.fixture
def homeless(temporary, monkeypatch):
    """The same for a user whom the system does not know, as after `docker run --user 12345`."""

    def unknown(number):
        raise KeyError(number)

    monkeypatch.delenv("HOME")
    monkeypatch.setattr(pwd, "getpwuid", unknown)
    return temporary


def test_with_a_home_folder_it_is_its_cache(temporary):
    assert default_root() == temporary.parent / "home" / ".cache" / "cnnbench"
    assert not any(temporary.iterdir())


def test_without_a_home_folder_it_is_a_private_folder_of_the_user(homeless):
    assert default_root() == default_root() == homeless / f"cnnbench-{os.getuid()}"
    assert stat.S_IMODE(default_root().stat().st_mode) == 0o700


@pytest.mark.parametrize("home", ["/", "/nonexistent"])
def test_where_the_home_folder_cannot_be_written_it_is_the_same(temporary, monkeypatch, home):
    monkeypatch.setenv("HOME", home)
    monkeypatch.setattr(os, "access", lambda path, mode: str(path) != "/")  # root may write everywhere
    assert default_root().parent == temporary


def test_a_cache_that_is_there_is_used_though_it_cannot_be_written(temporary, monkeypatch):
    cache = temporary.parent / "home" / ".cache" / "cnnbench"
    cache.mkdir(parents=True)
    monkeypatch.setattr(os, "access", lambda path, mode: False)
    assert default_root() == cache


@pytest.mark.parametrize("fault", ["open to others", "a link", "a file", "of another user", "cannot be made"])
def test_a_folder_that_is_not_private_is_refused_with_the_variable_to_set(homeless, monkeypatch, fault):
    path = homeless / f"cnnbench-{os.getuid()}"
    if fault == "open to others":
        path.mkdir()
        path.chmod(0o770)
    elif fault == "a link":
        path.symlink_to(homeless)
    elif fault == "a file":
        path.touch()
    elif fault == "cannot be made":
        monkeypatch.setattr(tempfile, "tempdir", "/nonexistent")
    else:
        path.mkdir(0o700)
        monkeypatch.setattr(os, "getuid", lambda: int(path.name.rpartition("-")[2]) + 1)
        path.rename(homeless / f"cnnbench-{os.getuid()}")
    with pytest.raises(DataError, match=r"name a folder for data with CNNBENCH_DATA$") as caught:
        default_root()
    assert "\n" not in str(caught.value)


def test_a_config_is_prepared_without_a_home_folder(homeless, quick):
    config = prepare(compose(quick)).config
    assert config.data.root == str((homeless / f"cnnbench-{os.getuid()}").resolve())
    assert list(homeless.glob("cnnbench-*/decoded/mnist5k-*/*.npy"))
