"""The commands that are printed for a run directory."""

from __future__ import annotations

import shlex

import pytest

from cnnbench.config.compose import compose
from cnnbench.runs.commands import checked_command, resume_command, sweep_command, trust_flag


@pytest.mark.parametrize("name", ["plain", "with space", "it's", "$HOME;ls", "größe"])
def test_a_shell_reads_the_directory_of_the_resume_command_unchanged(tmp_path, name):
    words = shlex.split(resume_command(tmp_path / name))
    assert words == ["cnnbench", f"resume={tmp_path / name}"]


def test_a_run_of_shipped_parts_needs_no_trust(tmp_path):
    (tmp_path / "config.yaml").write_text(compose([]).dump())
    assert trust_flag(tmp_path) == ""


def test_a_run_of_another_package_needs_trust(tmp_path):
    (tmp_path / "config.yaml").write_text(compose(["model=custom", "model._target_=nets.Linear"]).dump())
    assert trust_flag(tmp_path) == " --trust"
    assert resume_command(tmp_path).endswith(" --trust")


def test_a_run_without_a_config_needs_no_trust(tmp_path):
    assert trust_flag(tmp_path) == ""


@pytest.mark.parametrize(
    ("stored", "offered"),
    [
        ("cnnbench -m seed=0,1", "cnnbench -m seed=0,1"),
        ("python -m cnnbench -m seed=0,1", "cnnbench -m seed=0,1"),
        ("cnnbench --multirun +model.a=1 ++b.c=2 ~augment", "cnnbench --multirun +model.a=1 ++b.c=2 '~augment'"),
        ("cnnbench --config-dir 'my conf' -m seed=0,1", "cnnbench --config-dir 'my conf' -m seed=0,1"),
        ("cnnbench --config-dir=conf -m seed=0,1", "cnnbench --config-dir=conf -m seed=0,1"),
        ("cnnbench -m 'optimizer.lr=choice(0.1,0.2)'", "cnnbench -m 'optimizer.lr=choice(0.1,0.2)'"),
        ("cnnbench -m sweep.question=größer?", "cnnbench -m 'sweep.question=größer?'"),
        ("cnnbench -m name=a;rm -m", None),
        ("cnnbench -m name=$(rm)", "cnnbench -m 'name=$(rm)'"),
        ("cnnbench -m name='a b' 'c=`rm`'", "cnnbench -m 'name=a b' 'c=`rm`'"),
    ],
)
def test_a_sweeps_command_is_quoted_anew(stored, offered):
    if offered is None:  # a shell would take the semicolon: here it is a part of the value
        offered = "cnnbench -m 'name=a;rm' -m"
    assert checked_command(stored) == offered
    assert sweep_command(stored, "mine") == offered


@pytest.mark.parametrize(
    "stored",
    [
        None, "", "rm -rf /", "cnnbench", "cnnbench seed=0", "cnnbench clean runs --yes", "cnnbench -m; rm -rf /",
        "cnnbench -m | sh", "cnnbench -m & rm x", "cnnbench -m $(rm x)", "cnnbench -m `rm x`", "cnnbench -m # seed=0",
        "cnnbench -m a=1\nrm x", "cnnbench -m a=1 > x", "cnnbench -m a=\x1b[8mx", "cnnbench -m a=\u202ex",
        "cnnbench -m 'a=1", "cnnbench -m --trust a=1", "cnnbench -m --config-dir", "sudo cnnbench -m",
        "./cnnbench -m a=1", "A=1 cnnbench -m a=1", "python -m evil -m a=1", "python -c cnnbench -m a=1",
        "cnnbench -m a.b", "cnnbench -m é=1",
    ],
)  # fmt: skip
def test_another_command_is_not_offered(stored):
    assert checked_command(stored or "") is None
    assert sweep_command(stored, "mine") == "cnnbench -m name=mine ..."
    assert sweep_command(stored, "a; rm") == "cnnbench -m ..."
