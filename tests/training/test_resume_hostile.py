"""A last.ckpt from somebody else: the run starts anew, or fails in one line; it neither hangs nor shows a traceback."""

from __future__ import annotations

import os
import shutil
import sys
import time
from pathlib import Path

import pytest
import torch

from cnnbench.__main__ import main
from cnnbench.config.compose import compose
from cnnbench.runs.run_dir import RunDir
from cnnbench.training.callbacks.checkpoints import Checkpoints
from cnnbench.training.callbacks.curves import Curves
from cnnbench.training.run import run
from small_nets import TINY


@pytest.fixture(scope="module")
def made(tmp_path_factory) -> RunDir:
    """A run of two epochs whose last.ckpt is that of the end of the first one."""
    runs, save = tmp_path_factory.mktemp("made"), Checkpoints.save

    def save_first(self, *arguments, **keys) -> None:
        if not self.context.directory.last.is_file():
            save(self, *arguments, **keys)

    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(Checkpoints, "save", save_first)
        return run(compose([*TINY, "epochs=2", "optimizer=adam", f"runs_dir={runs}"])).directory


@pytest.fixture
def begun(made, tmp_path, monkeypatch) -> RunDir:
    """The run without its result."""
    monkeypatch.setattr(Curves, "draw", lambda self: None)
    directory = RunDir(Path(shutil.copytree(made.path, tmp_path / made.path.name)))
    directory.result.unlink()
    return directory


def outcome(directory: RunDir, capsys) -> tuple[int, str]:
    """Resumes the run; returns the exit code and stdout."""
    capsys.readouterr()
    began = time.process_time()
    code = main([f"resume={directory.path}"])
    out, error = capsys.readouterr()
    assert code in (0, 3), error
    assert (error.count("\n"), "Traceback" in out) == (int(code != 0), False), error
    assert time.process_time() - began < 20
    return code, out


def callback(name: str):
    return lambda content: content["callbacks"][name]


def set_in(find, **values):
    return lambda content: find(content).update(values)


def top(content: dict) -> dict:
    return content


def rank(content: dict) -> dict:
    return content["callbacks"]["Checkpoints"]["ranks"][0]


def random(content: dict) -> dict:
    return rank(content)["random"]


def position(content: dict) -> dict:
    return content["callbacks"]["Checkpoints"]["position"]


def spoil_optimizer(content: dict) -> None:
    for state in content["optimizer_states"][0]["state"].values():
        state["exp_avg"] = torch.zeros(3)


def more_groups(content: dict) -> None:
    content["optimizer_states"][0]["param_groups"] *= 2


def weights_of_another_net(content: dict) -> None:
    content["state_dict"] = {name: value[:1] for name, value in content["state_dict"].items() if value.ndim}


def complex_weights(content: dict) -> None:
    content["state_dict"] = {name: value.to(torch.complex64) for name, value in content["state_dict"].items()}


HOSTILE = {
    "no parts": dict.clear,
    "no loops": lambda content: content.pop("loops"),
    "loops of text": set_in(top, loops="x"),
    "loops of no fit": set_in(top, loops={}),
    "a negative step": set_in(top, global_step=-1),
    "an enormous step": set_in(top, global_step=10**12),
    "a step of text": set_in(top, global_step="x"),
    "an enormous epoch": set_in(position, epoch=10**12),
    "a negative epoch": set_in(position, epoch=-1),
    "an epoch of text": set_in(position, epoch="x"),
    "an enormous batch": set_in(position, batch=10**12),
    "a negative batch": set_in(position, batch=-5),
    "another position": set_in(position, further=1),
    "no ranks": set_in(callback("Checkpoints"), ranks=[]),
    "ranks of text": set_in(callback("Checkpoints"), ranks="x"),
    "an environment of text": set_in(callback("Checkpoints"), environment="x"),
    "an environment of lists": set_in(callback("Checkpoints"), environment={"torch": [1, 2]}),
    "another identity": set_in(callback("Checkpoints"), identity="0" * 64),
    "an identity that is a tensor": set_in(callback("Checkpoints"), identity=torch.zeros(3)),
    "no torch state": set_in(random, torch=torch.zeros(0, dtype=torch.uint8)),
    "a short torch state": set_in(random, torch=torch.zeros(3, dtype=torch.uint8)),
    "a torch state of floats": set_in(random, torch=torch.zeros(5056)),
    "a torch state of text": set_in(random, torch="x"),
    "a short Python state": set_in(random, python=[3, [1, 2], None]),
    "a Python state of text": set_in(random, python="x"),
    "another Python state": set_in(random, python=[99, [0] * 625, None]),
    "a short NumPy state": set_in(random, numpy=["MT19937", torch.zeros(3, dtype=torch.int64), 0, 0, 0.0]),
    "another NumPy generator": set_in(random, numpy=["evil", torch.zeros(624, dtype=torch.int64), 0, 0, 0.0]),
    "a NumPy position outside": set_in(random, numpy=["MT19937", torch.zeros(624, dtype=torch.int64), 10**9, 0, 0.0]),
    "sums of text": set_in(rank, train_sums="x"),
    "sums of nan": set_in(rank, train_sums=[float("nan")] * 2),
    "images of text": set_in(rank, train_images="x"),
    "no history": lambda content: content["callbacks"].pop("History"),
    "a history of text": lambda content: content["callbacks"].update(History="x"),
    "no validations": set_in(callback("History"), validations=[]),
    "a best outside": set_in(callback("History"), best=[10**9, None]),
    "a best of text": set_in(callback("History"), best=["x", None]),
    "three bests": set_in(callback("History"), best=[0, None, None]),
    "validations of text": set_in(callback("History"), validations=["x"], best=[None, None]),
    "epochs of text": set_in(callback("History"), epochs="x"),
    "times of text": set_in(callback("History"), times="x"),
    "no callbacks": set_in(top, callbacks={}),
    "callbacks of text": set_in(top, callbacks="x"),
    "optimizers of text": set_in(top, optimizer_states="x"),
    "no optimizers": set_in(top, optimizer_states=[]),
    "an optimizer of another shape": spoil_optimizer,
    "an optimizer of more groups": more_groups,
    "schedules of text": set_in(top, lr_schedulers="x"),
    "a schedule of text": set_in(top, lr_schedulers=["x"]),
    "a schedule with other names": set_in(top, lr_schedulers=[{"__class__": "x", "last_epoch": 10**12}]),
    "a version of text": set_in(top, **{"pytorch-lightning_version": "evil"}),
    "an ancient version": set_in(top, **{"pytorch-lightning_version": "0.0.1"}),
    "weights of text": set_in(top, state_dict="x"),
    "no weights": set_in(top, state_dict={}),
    "weights of another net": weights_of_another_net,
    "complex weights": complex_weights,
}


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("change", HOSTILE.values(), ids=HOSTILE)
def test_a_wrong_value_starts_the_run_anew_or_fails_in_one_line(begun, capsys, change):
    begun.previous.unlink(missing_ok=True)
    content = torch.load(begun.last, weights_only=True)
    change(content)
    torch.save(content, begun.last)
    outcome(begun, capsys)


FILES = {
    "empty": lambda path: path.write_bytes(b""),
    "truncated": lambda path: path.write_bytes(path.read_bytes()[:-50]),
    "a FIFO": lambda path: (path.unlink(), os.mkfifo(path)),
    "a folder": lambda path: (path.unlink(), path.mkdir()),
    "a device": lambda path: (path.unlink(), path.symlink_to("/dev/zero")),
    "absent": Path.unlink,
}


@pytest.mark.skipif(sys.platform == "win32", reason="needs FIFOs and links")
@pytest.mark.parametrize("name", ["last", "best"])
@pytest.mark.parametrize("change", FILES.values(), ids=FILES)
def test_what_is_no_checkpoint_is_not_read(begun, capsys, change, name):
    change(getattr(begun, name))
    capsys.readouterr()
    code = main([f"resume={begun.path}"])
    error = capsys.readouterr().err
    assert (code in (0, 2, 3), error.count("\n")) == (True, int(code != 0)), error
