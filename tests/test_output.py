"""stdout and stderr that fail: a listing ends with 141, a command that computes goes on and notes it once."""

from __future__ import annotations

import errno
import io
import os
import subprocess
import sys
from pathlib import Path

import pytest

from cnnbench.__main__ import only_prints
from cnnbench.console import Console, print_plain
from cnnbench.errors import OutputLost
from cnnbench.output import guarded_output, note_lost_output_in
from lost_output import ERRORS


class Failing(io.StringIO):
    """A stream on which every write fails."""

    def __init__(self, number: int) -> None:
        super().__init__()
        self.number, self.writes = number, 0

    def write(self, text: str) -> int:
        self.writes += 1
        raise OSError(self.number, os.strerror(self.number))


@pytest.mark.parametrize("name", ["stdout", "stderr"])
@pytest.mark.parametrize("number", [errno.EPIPE, errno.EIO, errno.ENOSPC, errno.EBADF])
def test_a_stream_is_dropped_at_the_first_failed_write_and_noted_once(name, number, monkeypatch, tmp_path):
    failing = Failing(number)
    monkeypatch.setattr(sys, name, failing)
    with guarded_output():
        note_lost_output_in(tmp_path / "log.txt")
        for _ in range(3):
            print("text", file=getattr(sys, name), flush=True)
    assert failing.writes == 1
    assert getattr(sys, name) is failing
    assert (tmp_path / "log.txt").read_text() == f"{name}: {os.strerror(number)}; nothing more is shown there\n"


def test_a_loss_before_the_log_exists_is_noted_when_it_does(monkeypatch, tmp_path):
    monkeypatch.setattr(sys, "stdout", Failing(errno.EPIPE))
    with guarded_output():
        print("text")
        note_lost_output_in(tmp_path / "log.txt")
    assert (tmp_path / "log.txt").read_text() == "stdout: Broken pipe; nothing more is shown there\n"


def test_a_log_that_cannot_be_written_does_not_stop_the_command(monkeypatch, tmp_path):
    monkeypatch.setattr(sys, "stdout", Failing(errno.EPIPE))
    with guarded_output():
        note_lost_output_in(tmp_path / "absent" / "log.txt")
        print("text")


@pytest.mark.parametrize(
    ("number", "message"),
    [(errno.EPIPE, ""), (errno.EIO, ""), (errno.ENOSPC, "stdout: No space left on device")],
)
def test_a_listing_ends_when_stdout_is_lost(number, message, monkeypatch):
    monkeypatch.setattr(sys, "stdout", Failing(number))
    with guarded_output(end=True), pytest.raises(OutputLost, match=f"^{message}$"):
        print("text")


def test_a_listing_goes_on_without_stderr(monkeypatch):
    monkeypatch.setattr(sys, "stderr", Failing(errno.EPIPE))
    with guarded_output(end=True):
        print("text", file=sys.stderr)


def test_text_is_written_as_without_the_guard(capfd):
    with guarded_output():
        print("é text", flush=True)
        print("error", file=sys.stderr)
        assert sys.stdout.encoding
        assert not sys.stdout.isatty()
    assert tuple(capfd.readouterr()) == ("é text\n", "error\n")


def test_what_a_library_prints_is_printable_and_what_a_console_prints_keeps_its_colours(capfd):
    with guarded_output():
        print("a\x1b[8mb\r\u202ec\td\n\xe9", flush=True)
        print("\x9b\x07", file=sys.stderr)
        console = Console(force_terminal=True, color_system="standard")
        print_plain(console, "a\x1b[8m", "red")
    shown = capfd.readouterr()
    assert shown.out == "a\\x1b[8mb\\r\\u202ec\td\n\xe9\n\x1b[31ma\\x1b[8m\x1b[0m\n"
    assert shown.err == "\\x9b\\x07\n"


def test_a_console_notices_the_loss_of_its_stream(monkeypatch, tmp_path):
    failing = Failing(errno.EPIPE)
    monkeypatch.setattr(sys, "stdout", failing)
    with guarded_output():
        note_lost_output_in(tmp_path / "log.txt")
        print_plain(Console(), "a")
        print_plain(Console(), "b")
    assert failing.writes == 1
    assert (tmp_path / "log.txt").read_text() == "stdout: Broken pipe; nothing more is shown there\n"


@pytest.mark.parametrize(
    ("number", "line"),
    [
        (errno.EPIPE, ""),
        (errno.EIO, ""),
        (errno.ENOSPC, "cnnbench: stdout: No space left on device; nothing more is shown there\n"),
    ],
)
def test_a_command_without_a_log_names_a_full_disk_on_stderr(number, line, monkeypatch, capsys):
    monkeypatch.setattr(sys, "stdout", Failing(number))
    with guarded_output():
        print("text")
    assert capsys.readouterr().err == line


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        ("info model=lenet5", True),
        ("report --text runs/a", True),
        ("report runs/a", False),
        ("--config-dir my list", True),
    ]
    + [("clean runs", True), ("clean runs --yes", False), ("model=lenet5", False), ("-m seed=1,2", False), ("", False)],
)
def test_commands_that_only_print_end_with_their_output(arguments, expected):
    assert only_prints(arguments.split()) is expected


def run(*program: str) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parent)}
    return subprocess.run(program, capture_output=True, text=True, env=environment, timeout=60)


# ---- real streams ------------------------------------------------------------------------------------------------------------

LISTING = """
import sys
from lost_output import lose
lose(*sys.argv[1:3])
from cnnbench.__main__ import main
sys.exit(main(sys.argv[3:]))
"""


@pytest.mark.parametrize("error", ERRORS)
@pytest.mark.parametrize("command", [["list"], ["info", "model=lenet5"], ["list", "model"], ["--version"]], ids=str)
def test_a_listing_without_stdout_ends_with_141(error, command):
    if command[0] == "info" and error != "EPIPE":
        pytest.skip("imports torch: once is enough")
    done = run(sys.executable, "-c", LISTING, "stdout", error, *command)
    line = "cnnbench: stdout: No space left on device\n" if error == "ENOSPC" else ""
    assert (done.returncode, done.stderr) == (141, line)


def test_a_pipe_of_which_one_line_is_read_ends_a_listing_quietly():
    command = f"{sys.executable} -m cnnbench list | head -1; exit ${{PIPESTATUS[0]}}"
    done = run("bash", "-c", command)
    assert (done.returncode, done.stderr, len(done.stdout.splitlines())) in ((141, "", 1), (0, "", 1))


@pytest.mark.parametrize("closed", [">&-", "2>&-", ">&- 2>&-", "<&- >&- 2>&-"])
def test_streams_that_are_closed_at_the_start_are_the_null_device(closed, tmp_path):
    (tmp_path / "code.py").write_text(
        "import sys\n"
        "from cnnbench.output import guarded_output\n"
        "with guarded_output():\n"
        "    file = open('mine.txt', 'w')\n"
        "    print('shown')\n"
        "    print('shown', file=sys.stderr)\n"
        "    file.write(str(file.fileno() > 2))\n"
    )
    done = subprocess.run(["bash", "-c", f"{sys.executable} code.py {closed}"], cwd=tmp_path)
    assert (done.returncode, (tmp_path / "mine.txt").read_text()) == (0, "True")


def test_after_a_loss_child_processes_write_to_the_null_device():
    code = (
        "import subprocess, sys\nfrom lost_output import lose\nfrom cnnbench.output import guarded_output\n"
        "lose('stdout', 'EPIPE')\n"
        "with guarded_output():\n"
        "    print('text', flush=True)\n"
        "    sys.exit(subprocess.run(['echo', 'text']).returncode)\n"
    )
    assert run(sys.executable, "-c", code).returncode == 0
