"""Functions that test_fork_server.py runs in child processes; imports little, as each child imports it."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

from cnnbench.distributed import fork_server
from cnnbench.distributed.fork_server import RankProcesses
from cnnbench.errors import ConfigError, DataError


def add(one, other, progress):
    progress("adding", one)
    progress("adding", other)
    return one + other, os.getpid(), os.getsid(0)


def fail(kind, progress):
    if kind == "killed":
        os.kill(os.getpid(), signal.SIGKILL)
    raise {"config": ConfigError, "data": DataError, "bug": ZeroDivisionError}[kind]("this is wrong")


def exit_with(codes):
    code = codes[int(os.environ.get("RANK", 0))]
    if code is None:
        time.sleep(60)
    return code


def print_environment():
    print({name: os.environ[name] for name in ("RANK", "WORLD_SIZE", "MASTER_ADDR", "COLOUR")}, flush=True)
    return 0


def sleep(folder, deaf=False):
    """Writes its process id; at SIGTERM it writes `saved` and exits, unless it is deaf."""

    def save(number, frame):
        if not deaf:
            Path(folder, "saved").touch()
            os._exit(0)

    signal.signal(signal.SIGTERM, save)
    child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"])
    Path(folder, "pids.tmp").write_text(f"{os.getpid()} {child.pid}")
    Path(folder, "pids.tmp").rename(Path(folder, "pids"))
    time.sleep(60)
    return 0


def launch(folder):
    fork_server.forkserver.set_forkserver_preload = lambda modules: None
    fork_server.GRACE_S = 0.5
    ranks = RankProcesses(sleep, (folder, "deaf" in folder), 1)
    ranks.start()
    time.sleep(60)
