"""Python processes that multiprocessing starts: none searches the current folder."""

import subprocess
import sys

import pytest

from cnnbench.distributed.safe_path import with_safe_path

START = """
import multiprocessing.popen_forkserver, multiprocessing.popen_spawn_posix, os
from multiprocessing import forkserver
from cnnbench.distributed.safe_path import leave_out_current_folder

os.chdir({folder!r})  # this process has imported what it needs
if {safe}:
    leave_out_current_folder()
forkserver.set_forkserver_preload(["decimal"])
process = multiprocessing.get_context({kind!r}).Process(target=print, args=("started",))
process.start()
process.join()
"""


@pytest.mark.parametrize("kind", ["forkserver", "spawn"])
@pytest.mark.parametrize("safe", [True, False])
def test_a_process_imports_nothing_of_the_current_folder_if_its_path_is_safe(tmp_path, kind, safe):
    for name in ("decimal", "linecache", "multiprocessing", "signal", "socket"):
        (tmp_path / f"{name}.py").write_text("open('imported', 'w').close(); raise ImportError")
    code = START.format(folder=str(tmp_path), safe=safe, kind=kind)
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert (tmp_path / "imported").exists() is not safe, done.stderr
    assert ("started" in done.stdout) is safe


def test_other_commands_and_arguments_stay():
    assert with_safe_path(["cnnbench.exe", "--multiprocessing-fork", "pipe=3"]) == [
        "cnnbench.exe",
        "--multiprocessing-fork",
        "pipe=3",
    ]
    changed = with_safe_path([b"python", "-X", "utf8", "-c", "start()", "--multiprocessing-fork"])
    assert (changed[:3], changed[-1]) == ([b"python", "-X", "utf8"], "--multiprocessing-fork")
    assert changed[-2].endswith("start()")
