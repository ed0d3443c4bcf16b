"""Runs in processes of their own: a command as it is typed, a shell that keeps its imports, or forks that have torch at once.

`python processes.py` is the shell: it reads a command's arguments as a line of JSON, carries it out, writes its exit code.
"""

from __future__ import annotations

import csv
import json
import multiprocessing
import os
import shutil
import signal
import subprocess
import sys
import time
import uuid
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import torch
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from cnnbench.runs.run_dir import RunDir

MARK = "CNNBENCH_TESTED"  # in the environment of everything that a test starts
OTHERWISE = {"epoch_s", "samples_per_s", "times", "in_epoch", "resume"}  # what a run that was stopped has otherwise


# ---- as it is typed --------------------------------------------------------------------------------------------------


class Typed:
    """A program in a process of its own, by default `python -m cnnbench`; its screen goes to files."""

    def __init__(self, folder: Path, *arguments: str, program: tuple[str, ...] = (), **environment: str) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.folder, self.mark = folder, uuid.uuid4().hex
        self._out, self._err = (folder / f"{self.mark}.{name}" for name in ("out", "err"))
        with self._out.open("wb") as out, self._err.open("wb") as err:
            self.process = subprocess.Popen(
                [*(program or (sys.executable, "-m", "cnnbench")), *arguments],
                cwd=folder, stdout=out, stderr=err, stdin=subprocess.DEVNULL, env=own_environment(self.mark, environment),
                start_new_session=True,
            )  # fmt: skip

    @property
    def out(self) -> str:
        return self._out.read_text()

    @property
    def err(self) -> str:
        return self._err.read_text()

    def family(self) -> list[psutil.Process]:
        """All living processes that descend from it, orphans too."""
        return marked(self.mark)

    def ranks(self) -> list[psutil.Process]:
        """Its ranks, the first one first: the children of its fork server, but for the guard, which it has first; or of torchrun."""
        family = self.family()
        servers = [p for p in family if "forkserver" in " ".join(p.cmdline())]
        parents = [*servers, *(p for p in family if p.pid == self.process.pid)]
        ranks = [c for c in family if any(c.ppid() == p.pid and c.cmdline() == p.cmdline() for p in parents)]
        ranks = sorted(ranks, key=lambda rank: rank.pid)[1 if servers else 0 :]
        first = RunDir(run_of(self.folder)).status()["pid"]
        return sorted(ranks, key=lambda rank: rank.pid != first)

    def wait(self, seconds: float = 120) -> int:
        """Its exit code."""
        try:
            return self.process.wait(seconds)
        except subprocess.TimeoutExpired:
            self.end()
            raise AssertionError(f"did not end within {seconds} s\n{self.out}\n{self.err}") from None

    def end(self) -> None:
        """Kills what is left."""
        for process in self.family():
            process.kill()
        self.process.wait(10)


def own_environment(mark: str, more: dict[str, str]) -> dict[str, str]:
    return {**os.environ, "PYTHONPATH": str(Path(__file__).parent), "OMP_NUM_THREADS": "1", MARK: mark, **more}


def marked(mark: str) -> list[psutil.Process]:
    """The living processes that were started under a mark."""
    found = []
    for process in psutil.process_iter():
        try:
            if process.environ().get(MARK) == mark and process.status() != psutil.STATUS_ZOMBIE:
                found.append(process)
        except psutil.Error:
            continue
    return found


def until(happened: Callable[[], Any], what: str, seconds: float = 90, every: float = 0.02) -> Any:
    """What `happened` gives, as soon as that is true."""
    deadline = time.monotonic() + seconds
    while not (found := happened()):
        assert time.monotonic() < deadline, f"not within {seconds} s: {what}"
        time.sleep(every)
    return found


def run_of(folder: Path) -> Path:
    """The one run directory in `folder/runs`."""
    (found,) = (folder / "runs").glob("*/*")
    return found


def saved_in(folder: Path) -> bool:
    """A run there has saved for the first time."""
    return any((folder / "runs").glob("*/*/checkpoints/last.ckpt"))


# ---- one after another -----------------------------------------------------------------------------------------------


class Shell:
    """A process of its own that carries out commands one after another; it and its fork server import torch once."""

    def __init__(self, folder: Path) -> None:
        self.mark = uuid.uuid4().hex
        self.err = folder / "shell.err"
        with self.err.open("wb") as err:
            self.process = subprocess.Popen(
                [sys.executable, __file__],
                cwd=folder, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=err, text=True,
                env=own_environment(self.mark, {}), start_new_session=True,
            )  # fmt: skip

    def __call__(self, *arguments: str) -> tuple[int, str]:
        """The exit code of a command, and what it showed."""
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.process.stdin.write(json.dumps(arguments) + "\n")
        self.process.stdin.flush()
        shown = []
        for line in self.process.stdout:
            if line.startswith(MARK):
                return int(line.split()[1]), "".join(shown)
            shown.append(line)
        raise AssertionError(f"the shell has ended\n{self.err.read_text()}")

    def train(self, folder: Path, *arguments: str) -> RunDir:
        """The directory of a run that went well."""
        code, shown = self(*arguments, f"runs_dir={folder / 'runs'}")
        assert code == 0, f"{arguments}\n{shown}\n{self.err.read_text()}"
        return RunDir(run_of(folder))

    def close(self) -> None:
        for process in marked(self.mark):
            process.kill()
        self.process.wait(10)


def serve() -> None:
    from cnnbench.__main__ import main

    for line in sys.stdin:
        code = main(json.loads(line))
        print(f"\n{MARK} {code}", flush=True)


# ---- forks -----------------------------------------------------------------------------------------------------------


class Forked:
    """A command in a process that has torch and Lightning at once, or in one for each of several ranks, as torchrun would start them.

    `fault` is called in each of them before the command: it can spoil what it likes.
    """

    def __init__(
        self,
        folder: Path,
        *arguments: str,
        ranks: int = 1,
        fault: Callable[..., None] | None = None,
        about: tuple[Any, ...] = (),
        screens: Path | None = None,
        **environment: str,
    ) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        context = multiprocessing.get_context("forkserver")
        context.set_forkserver_preload(["cnnbench.training.run", "cnnbench.sweep.run", "hydra"])
        self.screens, port = screens or folder, str(free_port())
        self.name = uuid.uuid4().hex
        self.processes = []
        for rank in range(ranks):
            places = {"RANK": str(rank), "LOCAL_RANK": str(rank), "GROUP_RANK": "0", "WORLD_SIZE": str(ranks)}
            places |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}
            every = {**environment, **(places if ranks > 1 else {})}
            screen = [str(self.screens / f"{self.name}.{rank}.{stream}") for stream in ("out", "err")]
            process = context.Process(target=be_command, args=(str(folder), arguments, every, screen, fault, about))
            process.start()
            self.processes.append(process)

    @property
    def err(self) -> str:
        return "".join(path.read_text() for path in sorted(self.screens.glob(f"{self.name}.*.err")))

    @property
    def out(self) -> str:
        return "".join(path.read_text() for path in sorted(self.screens.glob(f"{self.name}.*.out")))

    @property
    def living(self) -> bool:
        return any(process.is_alive() for process in self.processes)

    def kill(self) -> None:
        """kill -9 to all of them."""
        for process in self.processes:
            process.kill()

    def wait(self, seconds: float = 120) -> int:
        """The exit code, the largest of several; below 0 it is a signal."""
        deadline = time.monotonic() + seconds
        for process in self.processes:
            process.join(max(0, deadline - time.monotonic()))
        if self.living:
            self.kill()
            raise AssertionError(f"did not end within {seconds} s\n{self.out}\n{self.err}")
        codes = [process.exitcode for process in self.processes]
        return min(codes) if min(codes) < 0 else max(codes)


def forked(folder: Path, *arguments: str, **more: Any) -> RunDir:
    """The directory of a forked run that went well."""
    run = Forked(folder, *arguments, **more)
    assert run.wait() == 0, f"{run.out}\n{run.err}"
    return RunDir(run_of(folder))


def be_command(
    folder: str,
    arguments: tuple[str, ...],
    environment: dict[str, str],
    screen: list[str],
    fault: Callable[..., None] | None,
    about: tuple[Any, ...],
) -> None:
    """What a fork does: the command, in a folder, with its screen in files."""
    from cnnbench.__main__ import main

    os.environ |= environment
    os.chdir(folder)
    for path, number in zip(screen, (1, 2), strict=True):
        os.dup2(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644), number)
    sys.stdout.reconfigure(line_buffering=True)  # type: ignore[union-attr]
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1):
        signal.signal(number, signal.default_int_handler if number == signal.SIGINT else signal.SIG_DFL)
    if fault is not None:
        fault(*about)
    code = main(list(arguments))
    sys.stdout.flush()
    sys.exit(code)


def free_port() -> int:
    from cnnbench.distributed.fork_server import free_port

    return free_port()


# ---- what is touched -------------------------------------------------------------------------------------------------


def touching(at: Callable[[str, str], None]) -> None:
    """Calls `at(event, path)` before each file of a run is opened to be written, renamed or removed, in this process from now on."""

    def hook(event: str, given: tuple[Any, ...]) -> None:
        if event == "open" and not (isinstance(given[1], str) and set(given[1]) & set("wxa+")):
            return
        if event in ("open", "os.rename", "os.remove"):
            path = os.path.abspath(os.fsdecode(given[1] if event == "os.rename" else given[0]))
            if f"{os.sep}runs{os.sep}" in path:
                at(event, path)

    sys.addaudithook(hook)


# ---- the same bits ---------------------------------------------------------------------------------------------------


def assert_same_run(one: RunDir, other: RunDir) -> None:
    """Two finished runs left the same checkpoints, metrics, result, answers and points of TensorBoard, but for times and rates."""
    for name in ("best", "best_ema", "last"):
        paths = [getattr(directory, name) for directory in (one, other)]
        assert paths[0].is_file() == paths[1].is_file(), name
        if paths[0].is_file():
            assert_same_content(*(torch.load(path, weights_only=True) for path in paths), where=name)
    rows = [list(csv.DictReader(directory.metrics.open())) for directory in (one, other)]
    assert_same_content(*rows, where="metrics.csv")
    results = [json.loads(directory.result.read_text()) for directory in (one, other)]
    for result in results:
        for key in ("time", "samples_per_s", "command", "git"):
            del result[key]
    assert results[0] == results[1]
    for name in ("predictions", "mistakes"):
        kept = [np.load(getattr(directory, name)) for directory in (one, other)]
        for key in kept[0]:
            np.testing.assert_array_equal(kept[0][key], kept[1][key], strict=True)
    assert points(one) == points(other)
    assert RunDir(one.path).status()["state"] == RunDir(other.path).status()["state"] == "done"


def assert_same_content(one: Any, other: Any, where: str) -> None:
    """Two values of nested plain types and tensors are the same to the bit."""
    assert type(one) is type(other), where
    if isinstance(one, dict):
        assert one.keys() == other.keys(), where
        for key in one.keys() - OTHERWISE:
            assert_same_content(one[key], other[key], f"{where}/{key}")
    elif isinstance(one, list | tuple):
        assert len(one) == len(other), where
        for number, pair in enumerate(zip(one, other, strict=True)):
            assert_same_content(*pair, where=f"{where}/{number}")
    elif isinstance(one, torch.Tensor):
        assert torch.equal(one, other), where
    else:
        assert one == other or (one != one and other != other), f"{where}: {one} and {other}"


def points(directory: RunDir) -> dict[str, list[tuple[int, float]]]:
    """TensorBoard's scalars as it shows them, but for rates, and norms, which after a stop are of the rest; each step of each tag once."""
    events = EventAccumulator(str(directory.path), size_guidance={"scalars": 0})
    events.Reload()
    shown = {tag: [(event.step, event.value) for event in events.Scalars(tag)] for tag in events.Tags()["scalars"]}
    for tag, found in shown.items():
        assert len({step for step, _ in found}) == len(found), f"{tag}: {found}"
    return {
        tag: found
        for tag, found in shown.items()
        if not tag.startswith(("samples_per_s", "gradient_norm/", "activation_rms/"))
    }


def copy_of(directory: RunDir, folder: Path) -> RunDir:
    """The same run in `folder/runs`."""
    path = folder / "runs" / directory.path.parent.name / directory.path.name
    shutil.copytree(directory.path, path)
    return RunDir(path)


if __name__ == "__main__":
    serve()
