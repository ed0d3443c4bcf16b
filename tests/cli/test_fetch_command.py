"""The command `cnnbench fetch`, and downloads by a run."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from cnnbench.__main__ import main
from cnnbench.data.sets.idx import FILES
from cnnbench.data.sets.mnist import MNIST
from datafiles import ready
from fetching import (  # noqa: F401
    digits,
    flip,
    impatient,
    names,
    no_network,
    photographs,
    server,
    wait_until,
)
from webserver import good, not_found, page, slow


def test_the_command_downloads_a_set_and_prints_its_folder(tmp_path, digits, capfd):
    root = tmp_path / "new"
    assert main(["fetch", "mnist", "--root", str(root)]) == 0
    out, err = capfd.readouterr()
    assert out.startswith(f"mnist: 40 + 20 images in {root / 'MNIST' / 'raw'}\n    LeCun")
    assert "licence: CC BY-SA 3.0" in out
    assert [line.split(",")[0] for line in err.splitlines()] == [f"mnist: downloading {file}.gz" for file in FILES]
    assert ready(digits(root=root)).fingerprint == ready(digits(root=tmp_path / "source")).fingerprint


def test_without_a_root_the_command_downloads_to_the_default_root(tmp_path, digits, monkeypatch):
    monkeypatch.setenv("CNNBENCH_DATA", str(tmp_path / "cache"))
    assert main(["fetch", "mnist"]) == 0
    assert names(tmp_path / "cache" / "MNIST" / "raw") == set(FILES)


def test_the_command_requests_nothing_for_a_complete_set(tmp_path, digits, no_network, capfd):
    assert main(["fetch", "mnist", "--root", str(tmp_path / "source")]) == 0
    out, err = capfd.readouterr()
    assert out.startswith("mnist: 40 + 20 images in ")
    assert err == ""


@pytest.mark.parametrize("damage", ["flipped", "cut off", "absent", "empty"])
def test_the_command_replaces_a_damaged_file(tmp_path, digits, server, damage):
    path = tmp_path / "source" / "MNIST" / "raw" / FILES[1]
    content = path.read_bytes()
    {
        "flipped": lambda: flip(path),
        "cut off": lambda: path.write_bytes(content[:20]),
        "absent": path.unlink,
        "empty": lambda: path.write_bytes(b""),
    }[damage]()
    assert main(["fetch", "mnist", "--root", str(tmp_path / "source")]) == 0
    assert path.read_bytes() == content
    assert [request.path for request in server.requests] == [f"/mnist/{FILES[1]}.gz"]


@pytest.mark.slow
@pytest.mark.parametrize("name", ["synthetic", "mnist5k"])
def test_the_command_says_which_sets_need_no_download(tmp_path, no_network, capfd, name):
    assert main(["fetch", name]) == 0
    assert capfd.readouterr() == (f"{name}: needs no download\n", "")


@pytest.mark.slow
@pytest.mark.parametrize("order", [["cifar10", "mnist"], ["mnist", "cifar10"]])
def test_a_set_that_fails_does_not_stop_the_others(tmp_path, digits, photographs, server, capfd, order):
    server.paths[f"/cifar10/{photographs.remotes[0].name}"] = not_found()
    assert main(["fetch", *order, "synthetic", "--root", str(tmp_path / "new")]) == 2
    out, err = capfd.readouterr()
    assert "mnist: 40 + 20 images" in out
    assert "synthetic: needs no download" in out
    assert err.count("cnnbench: ") == 1
    assert err.count("HTTP 404") == 1
    assert "data=cifar10: not in " in err


def test_both_of_two_failed_sets_are_reported(tmp_path, digits, photographs, server, capfd):
    server.paths.clear()
    assert main(["fetch", "mnist", "cifar10", "--root", str(tmp_path / "new")]) == 2
    err = capfd.readouterr().err
    for name in ("mnist", "cifar10"):
        assert f"data={name}: not in " in err


def test_a_set_that_is_named_twice_is_downloaded_once(tmp_path, digits, capfd):
    assert main(["fetch", "mnist", "mnist", "--root", str(tmp_path / "new")]) == 0
    assert capfd.readouterr().out.count("mnist: 40 + 20 images") == 1


@pytest.mark.parametrize(
    "folder", ["a b", "it's", 'say "so"', "a=b,c", "${x}", "$HOME", "[1]", "Größe", "back\\slash", "a:b", "%41", "#1"]
)
def test_a_root_may_have_the_name(tmp_path, digits, capfd, folder):
    assert main(["fetch", "mnist", "--root", str(tmp_path / folder)]) == 0, capfd.readouterr().err
    assert set(FILES) <= names(tmp_path / folder / "MNIST" / "raw")


def test_a_tilde_in_the_root_is_the_home_folder(tmp_path, digits, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    assert main(["fetch", "mnist", "--root", "~/sets"]) == 0
    assert set(FILES) <= names(tmp_path / "home" / "sets" / "MNIST" / "raw")


def test_an_unknown_home_folder_is_one_clear_line(digits, monkeypatch, capfd):
    monkeypatch.setenv("CNNBENCH_DATA", "~nobody-of-this-name/sets")
    for arguments in (["fetch", "mnist"], ["fetch", "mnist", "--root", "~nobody-of-this-name"]):
        assert main(arguments) == 2
        err = capfd.readouterr().err
        assert "~nobody-of-this-name" in err
        assert err.count("\n") == 1


@pytest.mark.parametrize(
    ("arguments", "line"),
    [
        (["fetch"], "cnnbench: the following arguments are required: SET"),
        (["fetch", "mnits"], "cnnbench: data=mnits: no such data; did you mean mnist"),
        (["fetch", ""], "cnnbench: "),
        (["fetch", "data=mnist"], "cnnbench: data=mnist: fetch takes the names of sets, as in fetch mnist"),
        (["fetch", "mnist,cifar10"], "cnnbench: data=mnist,cifar10: "),
        (["fetch", "../mnist"], "cnnbench: "),
        (["fetch", "mnist", "--rot", "x"], "cnnbench: "),
        (["fetch", "mnist", "--root"], "cnnbench: argument --root: expected one argument"),
    ],
)
def test_a_mistake_is_one_clear_line_and_nothing_is_requested(digits, server, capfd, arguments, line):
    assert main(arguments) == 2
    out, err = capfd.readouterr()
    assert err.startswith(line)
    assert err.count("\n") == 1
    assert (out, server.requests) == ("", [])


def test_a_misspelt_set_is_reported_before_any_download(tmp_path, digits, server, capfd):
    assert main(["fetch", "mnist", "mnits", "--root", str(tmp_path / "new")]) == 2
    assert server.requests == []


PROGRAM = """
import sys
from cnnbench.__main__ import main
from cnnbench.data.download.mirrors import Remote
from cnnbench.data.sets.mnist import MNIST
MNIST.remotes, MNIST.sums = {remotes!r}, {sums!r}
sys.exit(main(sys.argv[1:]))
"""


def program(kind: type[MNIST], tmp_path: Path, *arguments: str, **keys) -> subprocess.Popen:
    """A program that runs `cnnbench` on a small MNIST."""
    code = PROGRAM.format(remotes=kind.remotes, sums=kind.sums)
    return subprocess.Popen(
        [sys.executable, "-c", code, *arguments],
        cwd=tmp_path,
        env={**os.environ, "CNNBENCH_DATA": str(tmp_path / "cache"), **keys},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def exit_code_and_output(process: subprocess.Popen) -> tuple[int, str, str]:
    out, err = process.communicate(timeout=120)
    assert "Traceback" not in err
    return process.returncode, out, err


TRAINING = "data=mnist threads=1 epochs=1 trainer=cpu".split()


@pytest.mark.slow
def test_the_first_run_downloads_its_set_and_the_second_requests_nothing(tmp_path, digits, server):
    code, out, err = exit_code_and_output(program(digits, tmp_path, *TRAINING))
    assert code == 0, err
    assert scored(out)
    assert err.splitlines()[0].startswith("mnist: downloading ")
    assert len(server.requests) == 4
    code, out, err = exit_code_and_output(program(digits, tmp_path, *TRAINING, "seed=1"))
    assert code == 0, err
    assert "downloading" not in err
    assert len(server.requests) == 4


def scored(text: str) -> bool:
    """Whether the output has the table of a result."""
    return any(line.startswith("test ") for line in text.splitlines())


@pytest.mark.soak
def test_two_first_runs_at_once_share_one_download(tmp_path, digits, server):
    for path, content in digits.packed.items():
        server.paths[f"/mnist/{path}"] = slow(content, 20_000)
    runs = [program(digits, tmp_path, *TRAINING, f"seed={seed}") for seed in range(2)]
    for run in runs:
        code, out, err = exit_code_and_output(run)
        assert code == 0, err
        assert scored(out)
    assert sorted(request.path for request in server.requests) == sorted(f"/mnist/{file}.gz" for file in FILES)


@pytest.mark.slow
def test_a_run_whose_set_cannot_be_downloaded_leaves_nothing(tmp_path, digits, server):
    server.paths.clear()
    code, out, err = exit_code_and_output(program(digits, tmp_path, *TRAINING))
    assert code == 2
    assert out == ""
    assert err.count("cnnbench: ") == 1
    assert all(file in err for file in FILES)
    assert not (tmp_path / "runs").exists()


@pytest.mark.slow
@pytest.mark.parametrize(
    "arguments",
    [pytest.param(["fetch", "mnist"], id="fetch"), pytest.param(TRAINING, id="training", marks=pytest.mark.soak)],
)
def test_ctrl_c_in_a_download_is_one_line_and_the_next_command_continues(tmp_path, digits, server, arguments):
    largest = f"{FILES[0]}.gz"
    server.paths[f"/mnist/{largest}"] = [slow(digits.packed[largest], 20_000), good(digits.packed[largest])]
    first = program(digits, tmp_path, *arguments)
    part = tmp_path / "cache" / "MNIST" / "raw" / f".{largest}.part"
    wait_until(lambda: part.is_file() and part.stat().st_size > 0, 60)
    first.send_signal(signal.SIGINT)
    code, _, err = exit_code_and_output(first)
    assert code == 130
    assert err.splitlines()[1:] == ["cnnbench: interrupted"]
    code, out, err = exit_code_and_output(program(digits, tmp_path, "fetch", "mnist"))
    assert code == 0, err
    assert out.startswith("mnist: 40 + 20 images in ")
    assert server.asked(f"/mnist/{largest}")[1].range is not None


@pytest.mark.slow
def test_the_error_of_the_real_command_with_a_wrong_mirror_says_what_to_do(tmp_path, server):
    for remote in MNIST.remotes:
        server.paths[f"/mnist/{remote.name}"] = page()
    nowhere = dict.fromkeys(("http_proxy", "https_proxy", "HTTP_PROXY", "HTTPS_PROXY"), "http://127.0.0.1:1")
    done = subprocess.run(
        [sys.executable, "-m", "cnnbench", "fetch", "mnist", "--root", str(tmp_path / "new")],
        env={**os.environ, **nowhere, "CNNBENCH_MIRROR": server.url},
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 2
    assert done.stdout == ""
    assert "Traceback" not in done.stderr
    assert done.stderr.count("cnnbench: ") == 1
    assert f"127.0.0.1:{server.server_port}: sent a web page in place of the file" in done.stderr
    for remote in MNIST.remotes:
        assert f"{remote.name}  {remote.size:,} bytes  sha256 {remote.checksum[7:]}" in done.stderr
