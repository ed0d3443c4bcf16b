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
    slow = ("torch", "torchvision", "pytorch_lightning", "hydra", "pandas", "plotly", "matplotlib")
    print("cnnbench", command, "exit code", code, "imported", *[name for name in slow if name in sys.modules])
"""
PLAN = (
    "plan -m model=lenet5,lenet_3x3 trainer=cpu threads=1 data=synthetic data.train_size=64 data.val_size=32 epochs=1"
)


COMMANDS_AND_IMPORTS = [  # (command, exit code, slow packages that it imports), in an order in which none hides another's import
    ("--help", 0, ""),
    ("--version", 0, ""),
    *((f"{command} --help", 0, "") for command in COMMANDS),
    ("list", 0, ""),
    ("list model", 0, ""),
    ("trian", 2, ""),
    ("model=lenet6", 2, ""),
    ("status a", 0, ""),
    ("compare a b", 0, ""),
    ("report --text a", 0, ""),
    ("report a", 0, "plotly matplotlib"),
]


def imports_after(folder: Path, *commands: str) -> list[str]:
    """Runs the commands one after another in one process; returns the line that it prints after each."""
    arguments = [sys.executable, "-c", PRINT_IMPORTED, *commands]
    ended = subprocess.run(arguments, cwd=folder, capture_output=True, text=True, timeout=120)
    assert ended.returncode == 0, ended.stderr
    return [line for line in ended.stdout.splitlines() if line.startswith("cnnbench ") and " imported" in line]


def test_a_command_imports_neither_torch_nor_lightning(tmp_path):
    for name in ("a", "b"):
        shutil.copytree(BEFORE / "sweep", tmp_path / name)
    expected = [
        f"cnnbench {command} exit code {code} imported {names}" for command, code, names in COMMANDS_AND_IMPORTS
    ]
    found = imports_after(tmp_path, *(command for command, _, _ in COMMANDS_AND_IMPORTS))
    assert found == [line.strip() for line in expected]


@pytest.mark.slow
def test_a_plan_imports_neither_torch_nor_lightning(tmp_path):
    """The process that it starts to build the nets imports them."""
    assert imports_after(tmp_path, PLAN) == [f"cnnbench {PLAN} exit code 0 imported hydra"]
