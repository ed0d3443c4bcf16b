"""Hydra's side: its sweepers with our launcher, our sweeper through Hydra."""

from __future__ import annotations

import pytest

from cnnbench.__main__ import main
from cnnbench.sweep.ledger import SweepDir

TINY = ["trainer=cpu", "threads=1", "data=synthetic", "data.train_size=64", "data.val_size=32", "data.test_size=32"]
TINY += ["model=lenet", "epochs=1", "optimizer.lr=0.1,0.2", "seed=0,1", "name=driven"]


@pytest.mark.slow
def test_hydras_own_sweeper_chooses_jobs_that_our_launcher_runs_and_ours_finds_them(launch, tmp_path):
    theirs = launch("hydra/sweeper=basic", *TINY)
    assert theirs.wait() == 0, theirs.err
    assert [job.status()["state"] for job in SweepDir(tmp_path / "runs" / "driven").jobs()] == ["done"] * 4
    ours = launch("hydra/sweeper=cnnbench", *TINY)
    assert ours.wait() == 0, ours.err
    assert "4 jobs, 4 done already, nothing to run" in ours.out
    same = launch("hydra/sweeper=basic", *TINY[:-1], "seed=0", "precision=auto,32", "name=same")
    assert same.wait() == 0, same.err  # on a CPU both are 32
    assert "4 jobs, " not in same.out
    assert "2 of 4 jobs come to the same as another, and are run once" in same.out


def test_a_sweep_that_another_sweeper_chooses_needs_a_name(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert main(["-m", "hydra/sweeper=basic", "seed=0,1"]) == 2
    assert "so it needs a name; type name=..." in capsys.readouterr().err


def test_a_sweeper_that_is_not_installed_is_told_with_those_that_are(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert main(["-m", "hydra/sweeper=nobodys", "seed=0,1", "name=driven"]) == 2
    assert "basic\tcnnbench" in capsys.readouterr().err.replace(" ", "\t")
