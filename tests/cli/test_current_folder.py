"""The current folder may be a stranger's: no command imports a module that lies there, except for a part of the user's own."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from cnnbench.runs.run_dir import RunDir

SCRIPT = (str(Path(sys.executable).with_name("cnnbench")),)
MODULE = (sys.executable, "-m", "cnnbench")
PROGRAMS = pytest.mark.parametrize("program", [SCRIPT, MODULE], ids=["cnnbench", "python -m cnnbench"])
PLANTED = """
    __future__ argparse csv dataclasses difflib glob hashlib io json logging multiprocessing pickle random re selectors shlex signal
    socket string struct subprocess tempfile threading traceback linecache typing uuid
    cuda filelock hydra lightning matplotlib numpy omegaconf pandas PIL psutil pydantic pytorch_lightning requests rich scipy
    tensorboard torch torchmetrics torchvision tqdm yaml
    sitecustomize usercustomize hydra_plugins
""".split()
QUICK = [
    "data=synthetic", "data.train_size=100", "data.val_size=20", "data.test_size=20", "epochs=1", "batch_size=32", "threads=1",
    "trainer=cpu",
]  # fmt: skip
OWN = [*QUICK, "model=custom", "model._target_=own_nets.Net"]
OWN_NET = """
import own_layers
from torch import nn
class Net(nn.Sequential):
    def __init__(self, num_classes: int = 10):
        super().__init__(nn.Flatten(), nn.LazyLinear(num_classes))
        self[1](__import__("torch").zeros(1, 784))
"""


def plant(folder: Path) -> Path:
    """Puts modules into a folder that note that they were imported; returns the folder."""
    for name in PLANTED:
        (folder / f"{name}.py").write_text(f"open({str(folder / 'imported')!r}, 'a').write('{name} ')")
    return folder


def start(folder: Path, program: tuple[str, ...], *arguments: str, **environment: str) -> subprocess.CompletedProcess:
    variables = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"} | {"OMP_NUM_THREADS": "1"}
    return subprocess.run(
        [*program, *arguments], cwd=folder, env=variables | environment, capture_output=True, text=True
    )


def runs_nothing_of(folder: Path, program: tuple[str, ...], *arguments: str) -> str:
    """Runs a command that succeeds and imports no planted module; returns what it printed."""
    done = start(folder, program, *arguments)
    assert not (folder / "imported").exists(), (folder / "imported").read_text()
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.fixture
def strange_run(finished, tmp_path):
    """A run of somebody else, with modules next to its files."""
    shutil.copytree(finished.path, tmp_path / finished.path.name)
    return plant(tmp_path / finished.path.name)


@PROGRAMS
@pytest.mark.parametrize(
    "command", ["status .", "report . --text", "list", "compare . .", "clean ."], ids=lambda command: command.split()[0]
)
def test_a_listing_imports_no_file_of_the_current_folder(strange_run, program, command):
    runs_nothing_of(strange_run, program, *command.split())


@pytest.mark.slow
@PROGRAMS
@pytest.mark.parametrize("command", ["report .", "evaluate .", "resume=."])
def test_a_command_that_uses_torch_imports_no_file_of_the_current_folder(strange_run, program, command):
    runs_nothing_of(strange_run, program, *command.split())


@pytest.mark.slow
@PROGRAMS
@pytest.mark.parametrize(
    "arguments", [[], ["trainer.devices=2"], ["-m", "seed=0,1"]], ids=["one process", "two ranks", "a sweep"]
)
def test_training_imports_no_file_of_the_current_folder(tmp_path, program, arguments):
    runs_nothing_of(plant(tmp_path), program, *arguments, *QUICK)


@pytest.mark.slow
def test_ranks_of_torchrun_import_no_file_of_the_current_folder(tmp_path):
    torchrun = str(Path(sys.executable).with_name("torchrun"))
    command = (torchrun, "--standalone", "--nproc-per-node", "2", *MODULE[1:])
    runs_nothing_of(plant(tmp_path), command, *QUICK, "trainer.devices=2")


@pytest.mark.slow
@pytest.mark.parametrize(
    "arguments", [[], ["trainer.devices=2"], ["-m", "seed=0,1"]], ids=["typed", "two ranks", "a sweep"]
)
def test_a_net_in_the_current_folder_runs_and_hides_no_installed_package(tmp_path, arguments):
    (tmp_path / "own_nets.py").write_text(OWN_NET)
    (tmp_path / "own_layers.py").touch()
    for name in ("numpy", "torch", "yaml", "json", "typing", "rich"):
        (tmp_path / f"{name}.py").write_text("raise SystemExit('imported from the current folder')")
    done = start(tmp_path, SCRIPT, *arguments, *OWN)
    assert done.returncode == 0, done.stderr
    assert RunDir(next(tmp_path.glob("runs/*/*/result.json")).parent).load_result().metrics


@pytest.mark.slow
def test_a_conf_folder_names_a_net_in_the_current_folder(tmp_path):
    (tmp_path / "own_nets.py").write_text(OWN_NET)
    (tmp_path / "own_layers.py").touch()
    (tmp_path / "conf" / "model").mkdir(parents=True)
    (tmp_path / "conf" / "model" / "mine.yaml").write_text("_target_: own_nets.Net\n")
    done = start(tmp_path, SCRIPT, "info", "--config-dir", "conf", "model=mine")
    assert done.returncode == 0, done.stderr


@pytest.mark.slow
def test_a_loaded_config_imports_from_the_current_folder_with_trust_alone(tmp_path):
    (tmp_path / "own_nets.py").write_text(OWN_NET)
    (tmp_path / "own_layers.py").touch()
    assert start(tmp_path, SCRIPT, *OWN).returncode == 0
    run = next(tmp_path.glob("runs/*/*/result.json")).parent
    (tmp_path / "own_layers.py").write_text(f"open({str(tmp_path / 'imported')!r}, 'w').close()")
    refused = start(tmp_path, SCRIPT, "evaluate", str(run))
    assert refused.returncode == 2
    assert refused.stderr.endswith(f"trust it: cnnbench evaluate {run} --trust\n")
    assert not (tmp_path / "imported").exists()
    assert start(tmp_path, SCRIPT, "evaluate", str(run), "--trust").returncode == 0
    assert (tmp_path / "imported").exists()


@PROGRAMS
def test_a_folder_in_pythonpath_is_searched_even_if_it_is_the_current_one(tmp_path, program):
    plant(tmp_path)
    start(tmp_path, program, "--version", PYTHONPATH=str(tmp_path))
    assert (tmp_path / "imported").exists()


@pytest.mark.skipif(sys.version_info < (3, 11), reason="Python 3.11 added -P")
@pytest.mark.parametrize("flag", ["-P", "-I"])
def test_python_without_the_current_folder_loses_no_other_one(tmp_path, flag):
    assert start(plant(tmp_path), (sys.executable, flag, "-m", "cnnbench"), "--version").stdout.startswith("cnnbench ")
    assert not (tmp_path / "imported").exists()
    code = "import runpy, sys; sys.argv[1:] = ['--version']; runpy.run_module('cnnbench', run_name='__main__')"
    show = f"import atexit, sys; before = list(sys.path); atexit.register(lambda: print(sys.path == before)); {code}"
    assert start(tmp_path, (sys.executable, flag), "-c", show).stdout.endswith("True\n")


def test_python_m_in_a_removed_folder_loses_no_other_one(tmp_path):
    (tmp_path / "gone").mkdir()
    (tmp_path / "kept").mkdir()
    code = f"import os, subprocess; os.chdir('gone'); os.rmdir('../gone'); subprocess.run({[*MODULE, '--version']!r})"
    done = start(tmp_path, (sys.executable, "-c", code), PYTHONPATH=str(tmp_path / "kept"))
    assert done.stdout.startswith("cnnbench "), done.stderr
