"""The recorded commit is that of cnnbench's checkout, even if git's variables, hooks or outer folders name another repository."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

import cnnbench
from cnnbench.runs import environment
from cnnbench.runs.environment import code_version, git_state

pytestmark = pytest.mark.skipif(not shutil.which("git"), reason="git is not installed")
REDIRECTING = {
    "GIT_DIR": "{other}/.git",
    "GIT_WORK_TREE": "{other}",
    "GIT_INDEX_FILE": "{other}/.git/index",
    "GIT_COMMON_DIR": "{other}/.git",
    "GIT_OBJECT_DIRECTORY": "{other}/.git/objects",
    "GIT_NAMESPACE": "other",
    "GIT_CEILING_DIRECTORIES": "{checkout}",
    "GIT_CONFIG_PARAMETERS": "'core.worktree'='{other}'",
}


def git(folder: Path, *arguments: str) -> str:
    own = {key: value for key, value in os.environ.items() if not key.startswith("GIT_")}
    command = ["git", "-C", str(folder), "-c", "user.name=x", "-c", "user.email=x@x", *arguments]
    return subprocess.run(command, env=own, check=True, capture_output=True, text=True).stdout.strip()


def repository(folder: Path, text: str) -> Path:
    """A repository with a committed `src/cnnbench/__init__.py`."""
    (folder / "src" / "cnnbench").mkdir(parents=True)
    (folder / "src" / "cnnbench" / "__init__.py").write_text(text)
    git(folder, "init", "-q")
    git(folder, "add", ".")
    git(folder, "commit", "-q", "-m", text)
    return folder


@pytest.fixture
def checkout(tmp_path, monkeypatch) -> Path:
    """A clean checkout, which cnnbench seems to be imported from."""
    folder = repository(tmp_path / "chéckout", "own")
    use(folder, monkeypatch)
    return folder


@pytest.fixture(autouse=True)
def not_called_yet():
    """Functions that keep what they found at their first call have none."""
    forget()
    yield
    forget()


def forget() -> None:
    git_state.cache_clear()
    environment._hash_of_sources.cache_clear()


def use(folder: Path, monkeypatch) -> None:
    monkeypatch.setattr(cnnbench, "__file__", str(folder / "src" / "cnnbench" / "__init__.py"))


def state_of(checkout: Path, dirty: bool = False) -> dict:
    return {"commit": git(checkout, "rev-parse", "HEAD"), "dirty": dirty}


@pytest.mark.parametrize("variable", REDIRECTING)
def test_no_variable_of_git_redirects_to_another_repository(checkout, tmp_path, monkeypatch, variable):
    other = repository(tmp_path / "other", "other")
    monkeypatch.setenv(variable, REDIRECTING[variable].format(other=other, checkout=checkout.parent))
    assert git_state() == state_of(checkout)


def test_a_changed_file_makes_it_dirty_and_a_new_one_does_not(checkout):
    (checkout / "notes.txt").write_text("untracked")
    assert git_state() == state_of(checkout)
    (checkout / "src" / "cnnbench" / "__init__.py").write_text("changed")
    forget()
    assert git_state() == state_of(checkout, dirty=True)


def test_code_that_changes_later_is_not_that_of_this_process(checkout):
    source = checkout / "src" / "cnnbench" / "__init__.py"
    before = code_version(), git_state()
    source.write_text("changed")
    assert (code_version(), git_state()) == before
    forget()
    assert code_version() != before[0]
    assert git_state() != before[1]


def test_a_hook_of_another_repository_records_cnnbenchs_own_commit(checkout, tmp_path):
    other, found = repository(tmp_path / "other", "other"), tmp_path / "found.json"
    script = (
        f"import cnnbench, json; cnnbench.__file__ = {cnnbench.__file__!r}\n"
        "from cnnbench.runs.environment import git_state\n"
        f"json.dump(git_state(), open({str(found)!r}, 'w'))"
    )
    (other / "script.py").write_text(script, encoding="utf-8")
    hook = other / ".git" / "hooks" / "pre-commit"
    hook.parent.mkdir(exist_ok=True)
    hook.write_text(f"#!/bin/sh\nexec '{sys.executable}' script.py\n")
    hook.chmod(0o755)
    git(other, "commit", "-q", "--allow-empty", "-m", "again")
    assert json.loads(found.read_text()) == state_of(checkout)


def test_a_worktree_has_its_own_commit(checkout, tmp_path, monkeypatch):
    folder = tmp_path / "tree"
    git(checkout, "worktree", "add", "-q", str(folder))
    git(folder, "commit", "-q", "--allow-empty", "-m", "further")
    use(folder, monkeypatch)
    assert git_state() == state_of(folder) != state_of(checkout)


@pytest.mark.parametrize("kind", ["a broken checkout", "sources that the repository ignores"])
def test_a_repository_that_does_not_hold_the_sources_is_not_theirs(tmp_path, monkeypatch, kind):
    outer = repository(tmp_path / "outer", "outer")
    folder = outer / "inner" if kind == "a broken checkout" else outer
    if folder != outer:
        shutil.copytree(outer / "src", folder / "src")
        (folder / ".git").mkdir()  # git goes on to the folder above
    else:
        git(outer, "rm", "-q", "-r", "--cached", "src")
        git(outer, "commit", "-q", "-m", "without")
    use(folder, monkeypatch)
    assert git_state() is None


@pytest.mark.parametrize("git_is", ["absent", "hanging", "refusing", "answering something else"])
def test_without_an_answer_of_git_there_is_no_commit(checkout, tmp_path, monkeypatch, git_is):
    body = {"hanging": "exec /bin/sleep 60", "refusing": "exit 128", "answering something else": "echo hello"}.get(
        git_is
    )
    (tmp_path / "bin").mkdir()
    if body:
        (tmp_path / "bin" / "git").write_text(f"#!/bin/sh\n{body}\n")
        (tmp_path / "bin" / "git").chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path / 'bin'}{os.pathsep}/nowhere")
    monkeypatch.setattr(environment, "GIT_TIMEOUT_S", 0.3)
    assert git_state() is None


def test_another_users_checkout_has_no_commit(checkout, monkeypatch):
    if os.geteuid() != 0:
        pytest.skip("only root can give files to another user")
    monkeypatch.setenv("HOME", "/nonexistent")  # without the user's safe.directory
    for path in [checkout, *checkout.rglob("*")]:
        os.chown(path, 12345, 12345)
    assert git_state() is None
