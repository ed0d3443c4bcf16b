"""The commands that are printed for a run directory."""

from __future__ import annotations

import shlex

import pytest

from cnnbench.config.compose import compose
from cnnbench.runs.commands import resume_command, trust_flag


@pytest.mark.parametrize("name", ["plain", "with space", "it's", "$HOME;ls", "größe"])
def test_a_shell_reads_the_directory_of_the_resume_command_unchanged(tmp_path, name):
    words = shlex.split(resume_command(tmp_path / name))
    assert words == ["python", "-m", "cnnbench", f"resume={tmp_path / name}"]


def test_a_run_of_shipped_parts_needs_no_trust(tmp_path):
    (tmp_path / "config.yaml").write_text(compose([]).dump())
    assert trust_flag(tmp_path) == ""


def test_a_run_of_another_package_needs_trust(tmp_path):
    (tmp_path / "config.yaml").write_text(compose(["model=custom", "model._target_=nets.Linear"]).dump())
    assert trust_flag(tmp_path) == " --trust"
    assert resume_command(tmp_path).endswith(" --trust")


def test_a_run_without_a_config_needs_no_trust(tmp_path):
    assert trust_flag(tmp_path) == ""
