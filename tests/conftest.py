"""Shared fixtures: overrides for short runs, a finished run, the folder of real data."""

from __future__ import annotations

import gc
import os
import shutil
from pathlib import Path

import pytest
import torch

from cnnbench.config.compose import compose
from cnnbench.runs.run_dir import RunDir
from small_nets import TINY
from sweeping import in_this_process  # noqa: F401

QUICK = ["threads=1", "epochs=2", "data.fraction=0.2"]  # LeNet-5 on 800 of the embedded digits: about a second


@pytest.fixture(scope="session", autouse=True)
def one_thread():
    torch.set_num_threads(1)


@pytest.fixture(scope="session", autouse=True)
def own_cache(tmp_path_factory):
    """Sets the folder for decoded images and downloads, of the tests and of the processes that they start, to a temporary one."""
    before = os.environ.get("CNNBENCH_DATA")
    os.environ["CNNBENCH_DATA"] = str(tmp_path_factory.mktemp("data_root"))
    yield
    os.environ.pop("CNNBENCH_DATA") if before is None else os.environ.update(CNNBENCH_DATA=before)


@pytest.fixture
def quick():
    """Overrides that cut the default run to about a second."""
    return list(QUICK)


@pytest.fixture
def tiny():
    """Overrides for a run of two steps on synthetic images."""
    return list(TINY)


@pytest.fixture(scope="session")
def finished(tmp_path_factory) -> RunDir:
    """A finished run of LeNet-5 on some of the embedded digits; tests only read it."""
    from cnnbench.training.run import run

    runs = tmp_path_factory.mktemp("finished") / "runs"
    outcome = run(compose([*QUICK, f"runs_dir={runs}"]), command="cnnbench threads=1")
    return outcome.directory


@pytest.fixture
def copied(finished, tmp_path) -> RunDir:
    """A copy of the finished run's directory, which a test may change."""
    return RunDir(Path(shutil.copytree(finished.path, tmp_path / finished.path.name)))


@pytest.fixture(scope="session")
def real_data() -> Path:
    """The folder with MNIST and FashionMNIST files: $CNNBENCH_TEST_DATA, or ../shared/data next to the checkout."""
    folder = Path(os.environ.get("CNNBENCH_TEST_DATA") or Path(__file__).resolve().parents[2] / "shared" / "data")
    if not (folder / "MNIST" / "raw").is_dir():
        pytest.skip(f"no real data in {folder}; set CNNBENCH_TEST_DATA to its folder")
    return folder


def pytest_configure(config):
    """Hides the GPU from all tests but those marked `gpu`: the others must pass on every machine."""
    if config.option.markexpr != "gpu":
        os.environ["CUDA_VISIBLE_DEVICES"] = ""


def pytest_collection_finish():
    """Makes garbage collections rare, and keeps what was imported out of them."""
    gc.freeze()
    gc.set_threshold(100_000, 20, 20)


def pytest_terminal_summary(terminalreporter, config):
    """After `make gpu-check`, prints the GPU and each test's outcome, with the figures that it noted by `record_property`."""
    if config.option.markexpr != "gpu":
        return
    from rich.console import Console
    from rich.table import Table

    gpus = [torch.cuda.get_device_name(index) for index in range(torch.cuda.device_count())]
    table = Table("passed", "s", "figures", "test", title=f"PyTorch {torch.__version__}; {', '.join(gpus) or 'no GPU'}")
    for outcome, word in {"passed": "yes", "failed": "no", "error": "no", "skipped": "skipped"}.items():
        for report in terminalreporter.stats.get(outcome, []):
            figures = ", ".join(f"{name} {value}" for name, value in getattr(report, "user_properties", ()))
            reason = f" ({report.longrepr[2]})" if outcome == "skipped" else ""
            table.add_row(
                word, f"{getattr(report, 'duration', 0):.1f}", figures, report.nodeid.partition("::")[2] + reason
            )
    Console(file=terminalreporter._tw._file, width=160).print(table, markup=False)
