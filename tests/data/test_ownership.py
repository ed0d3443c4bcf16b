"""Which files and folders another user may change."""

from __future__ import annotations

import errno
import os
import stat
from types import SimpleNamespace

import pytest

from cnnbench.data import ownership
from cnnbench.data.ownership import (
    advice_for,
    can_be_written,
    make_private_folder,
    require_no_links,
    who_may_change,
    why_not_private,
)
from users import ALICE, AS_ROOT, BOB, FOREIGN, GROUP, acting_as, public  # noqa: F401

pytestmark = pytest.mark.skipif(not hasattr(os, "geteuid"), reason="this system has no users")

FILE, FOLDER = stat.S_IFREG, stat.S_IFDIR


@pytest.mark.parametrize(
    ("user", "group", "mode", "expected"),
    [
        ("own", GROUP, FILE | 0o644, ""),
        ("own", GROUP, FILE | 0o600, ""),
        ("root", GROUP, FILE | 0o644, ""),
        ("own", GROUP, FOLDER | 0o755, ""),
        ("own", GROUP, FOLDER | 0o1777, ""),
        ("root", GROUP, FOLDER | 0o3775, ""),
        ("own", GROUP, FILE | 0o666, "may be changed by all users"),
        ("own", GROUP, FILE | 0o1666, "may be changed by all users"),
        ("root", GROUP, FOLDER | 0o777, "may be changed by all users"),
        ("own", GROUP, FILE | 0o664, f"may be changed by the group {GROUP}"),
        ("root", GROUP, FOLDER | 0o2775, f"may be changed by the group {GROUP}"),
        ("other", GROUP, FILE | 0o444, f"belongs to the user {ALICE}"),
        ("other", GROUP, FOLDER | 0o1777, f"belongs to the user {ALICE}"),
    ],
)
def test_only_the_user_and_root_may_change_a_file(user, group, mode, expected):
    number = {"own": os.geteuid(), "root": 0, "other": ALICE}[user]
    assert who_may_change(SimpleNamespace(st_uid=number, st_gid=group, st_mode=mode)) == expected


@pytest.mark.parametrize(
    ("name", "members", "is_private"),
    [("ann", [], True), ("ann", ["ann"], True), ("ann", ["ann", "bob"], False), ("staff", [], False)],
)
def test_a_group_of_the_users_name_with_no_other_member_is_private(monkeypatch, name, members, is_private):
    monkeypatch.setattr(ownership, "user_name", lambda number: "ann")
    monkeypatch.setattr("grp.getgrgid", lambda number: SimpleNamespace(gr_name=name, gr_mem=members))
    found = SimpleNamespace(st_uid=os.geteuid(), st_gid=7, st_mode=FOLDER | 0o775)
    assert (who_may_change(found) == "") == is_private


def test_a_private_folder_has_no_fault_and_absent_ones_have_none(tmp_path):
    tmp_path.chmod(0o755)
    (tmp_path / "a").mkdir()
    for folder in (tmp_path, tmp_path / "a", tmp_path / "a" / "absent", tmp_path / "absent" / "below"):
        assert why_not_private(tmp_path, folder) == ""


@AS_ROOT
@pytest.mark.parametrize("how", FOREIGN)
@pytest.mark.parametrize("which", ["", "a", "a/b"])
def test_the_first_folder_that_others_may_change_is_named(tmp_path, which, how):
    (tmp_path / "a" / "b").mkdir(parents=True)
    FOREIGN[how](tmp_path / which)
    assert why_not_private(tmp_path, tmp_path / "a" / "b").startswith(f"{tmp_path / which}: ")


@pytest.mark.parametrize("which", ["a", "a/b"])
def test_a_folder_below_the_top_may_not_be_a_link(tmp_path, which):
    (tmp_path / "elsewhere" / "b").mkdir(parents=True)
    path = tmp_path / "top" / which
    path.parent.mkdir(parents=True)
    path.symlink_to(tmp_path / "elsewhere")
    assert why_not_private(tmp_path / "top", tmp_path / "top" / "a" / "b") == f"{path}: is a link"
    with pytest.raises(OSError, match="is a link to another folder") as caught:
        require_no_links(tmp_path / "top", tmp_path / "top" / "a" / "b")
    assert caught.value.filename == str(path)


def test_the_top_may_be_a_link(tmp_path):
    (tmp_path / "real" / "a").mkdir(parents=True)
    (tmp_path / "top").symlink_to(tmp_path / "real")
    assert why_not_private(tmp_path / "top", tmp_path / "top" / "a") == ""
    require_no_links(tmp_path / "top", tmp_path / "top" / "a")


def test_a_file_in_place_of_a_folder_is_named(tmp_path):
    (tmp_path / "a").touch()
    assert why_not_private(tmp_path, tmp_path / "a" / "b") == f"{tmp_path / 'a'}: is no folder"


@pytest.mark.parametrize("umask", [0o000, 0o002, 0o022, 0o077])
def test_a_private_folder_is_made_under_any_umask(tmp_path, umask):
    before = os.umask(umask)
    try:
        make_private_folder(tmp_path / "a" / "b")
    finally:
        os.umask(before)
    for folder in ("a", "a/b"):
        assert stat.S_IMODE((tmp_path / folder).stat().st_mode) == 0o755 & ~umask


def test_a_folder_that_another_user_makes_in_this_moment_is_refused(tmp_path, monkeypatch):
    (tmp_path / "a").mkdir()
    (tmp_path / "a").chmod(0o777)
    monkeypatch.setattr("pathlib.Path.is_dir", lambda path: path != tmp_path / "a")
    with pytest.raises(PermissionError, match="may be changed by all users"):
        make_private_folder(tmp_path / "a")


@AS_ROOT
@pytest.mark.parametrize(("mode", "expected"), [(0o755, False), (0o775, True), (0o1777, True), (0o2755, False)])
def test_whether_a_folder_can_be_written_is_found_for_it_and_for_absent_ones_below(public, mode, expected):
    os.chown(public, -1, GROUP)
    public.chmod(mode)
    with acting_as(BOB):
        assert can_be_written(public) == can_be_written(public / "absent" / "below") == expected


@AS_ROOT
def test_the_advice_names_the_owner_of_the_nearest_folder_that_can_be_seen(public):
    (public / "closed").mkdir(mode=0o700)
    os.chown(public / "closed", ALICE, -1)
    with acting_as(BOB):
        error = PermissionError(errno.EACCES, "Permission denied", str(public / "closed" / "file"))
        assert advice_for(error) == (
            f"; {public / 'closed'} belongs to the user {ALICE}, mode 0700: ask for chmod -R a+rX there, or name another folder "
            "with data.root=... or CNNBENCH_DATA"
        )


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EROFS, errno.EACCES])
def test_there_is_no_advice_for_other_errors_and_own_files(tmp_path, code):
    assert advice_for(OSError(code, "error", str(tmp_path / "file"))) == ""
