"""Commands that load no net start without torch, whose import takes seconds."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from cnnbench.__main__ import COMMANDS

BEFORE = Path(__file__).parents[1] / "fixtures" / "before"
PRINT_IMPORTED = """
import sys
from cnnbench.__main__ import main
for command in sys.argv[1:]:
    try:
        code = main(command.split())
    except SystemExit as exit:
        code = exit.code
    slow = ("torch", "torchvision", "pytorch_lightning", "hydra", "pandas", "matplotlib")
    print("cnnbench", command, "exit code", code, "imported", *[name for name in slow if name in sys.modules])
"""
PLAN = (
    "plan -m model=lenet5,lenet_3x3 trainer=cpu threads=1 data=synthetic data.train_size=64 data.val_size=32 epochs=1"
)


@pytest.fixture(scope="module")
def runs(tmp_path_factory) -> Path:
    """A folder with two equal sweeps, `a` and `b`."""
    folder = tmp_path_factory.mktemp("runs")
    for name in ("a", "b"):
        shutil.copytree(BEFORE / "sweep", folder / name)
    return folder


@pytest.mark.parametrize(
    ("command", "code", "imported"),
    [
        ("--help", 0, ""),
        ("--version", 0, ""),
        ("list", 0, ""),
        ("list model", 0, ""),
        ("status a", 0, ""),
        ("report --text a", 0, ""),
        ("report a", 0, "matplotlib"),
        ("compare a b", 0, ""),
        (PLAN, 0, "hydra"),
        ("trian", 2, ""),
        ("model=lenet6", 2, ""),
    ],
)
def test_a_command_imports_neither_torch_nor_lightning(command, code, imported, runs):
    assert imports_after([command], runs) == [f"cnnbench {command} exit code {code} imported {imported}".strip()]


def test_the_help_of_a_command_imports_neither_torch_nor_lightning(runs):
    commands = [f"{command} --help" for command in COMMANDS]
    assert imports_after(commands, runs) == [f"cnnbench {command} exit code 0 imported" for command in commands]


def imports_after(commands: list[str], folder: Path) -> list[str]:
    """Runs the commands one after another in one process; returns the line that it prints after each."""
    arguments = [sys.executable, "-c", PRINT_IMPORTED, *commands]
    ended = subprocess.run(arguments, cwd=folder, capture_output=True, text=True, timeout=120)
    assert ended.returncode == 0, ended.stderr
    return [line for line in ended.stdout.splitlines() if line.startswith("cnnbench ") and " imported" in line]
