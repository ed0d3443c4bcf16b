"""Every file of experiments/: its jobs compose and can be planned, and it says what it costs; cut short, it runs."""

from __future__ import annotations

import csv
import os
import re
from pathlib import Path

import pytest
import yaml

from cnnbench.config.compose import groups
from cnnbench.sweep.expand import ask
from cnnbench.sweep.plan import make_plan
from sweeping import quickly  # noqa: F401
from sweeps import Sweep

FILES = sorted((Path(__file__).parents[2] / "experiments").glob("*.yaml"))
CUT = ["epochs=1", "trainer.max_steps=2", "data.train_size=100", "data.val_size=40", "data.test_size=40", "batch_size=16",
       "threads=1", "trainer=cpu", "sweep.seeds=1"]  # fmt: skip
SETS = {"mnist": "MNIST", "fashionmnist": "FashionMNIST"}  # that do not come with the install, and their folders

experiments = pytest.mark.parametrize("file", FILES, ids=lambda file: file.stem)


@pytest.fixture
def at(file):
    """Where the experiment's data are: `data.root=...`, or nothing where they come with the install."""
    (chosen,) = [
        line["override /data"] for line in yaml.safe_load(file.read_text())["defaults"] if "override /data" in line
    ]
    if chosen not in SETS:
        return []
    shared = os.environ.get("CNNBENCH_TEST_DATA") or Path(__file__).resolve().parents[3] / "shared" / "data"
    if not (Path(shared) / SETS[chosen] / "raw").is_dir():
        pytest.skip(f"no {SETS[chosen]} in {shared}; name its folder in CNNBENCH_TEST_DATA")
    return [f"data.root={shared}"]


def test_there_are_experiments_and_all_of_them_can_be_chosen():
    assert {file.stem for file in FILES} == groups()["experiment"].keys()
    assert len(FILES) >= 5


@experiments
def test_an_experiment_composes_and_is_called_after_its_file(file, quickly):
    asked = ask([f"experiment={file.stem}"])
    assert asked.name == file.stem
    assert asked.notes == ()
    assert len(asked.configs) == len(asked.settings)


@experiments
def test_an_experiment_says_its_question_and_how_many_runs_it_costs(file, quickly):
    asked = ask([f"experiment={file.stem}"])
    assert asked.policy.question.endswith("?")
    assert re.fullmatch(rf"{len(asked.settings)} runs, .+ on 2 cores", asked.policy.cost)


@experiments
def test_an_experiment_has_several_seeds_of_each_cell(file, quickly):
    settings = ask([f"experiment={file.stem}"]).settings
    seeds = {}
    for setting in settings:
        seeds.setdefault(str({**setting, "seed": 0}), []).append(setting["seed"])
    assert all(listed == list(range(len(listed))) and len(listed) >= 3 for listed in seeds.values())


@experiments
def test_the_baseline_is_one_of_the_cells(file, quickly):
    asked = ask([f"experiment={file.stem}"])
    assert {**asked.policy.baseline, "seed": 0} in asked.settings


@experiments
def test_an_experiment_can_be_planned(file, at, quickly):
    plan = make_plan([f"experiment={file.stem}", "trainer=cpu", *at])
    assert len(plan.due) == len(plan.asked.settings)
    assert len({planned.job.identity for planned in plan.jobs}) == len(plan.jobs)
    assert not list(Path().iterdir())


@pytest.mark.slow
@experiments
def test_an_experiment_that_is_cut_short_runs_to_its_end(file, at, tmp_path):
    sweep = Sweep(tmp_path, f"experiment={file.stem}", *CUT, *at)
    assert sweep.wait(900) == 0, sweep.err + sweep.out
    with (tmp_path / "runs" / file.stem / "summary.csv").open(newline="") as table:
        states = [row["state"] for row in csv.DictReader(table)]
    cells = {str({**setting, "seed": 0}) for setting in ask([f"experiment={file.stem}"]).settings}
    assert states == ["done"] * len(cells)
