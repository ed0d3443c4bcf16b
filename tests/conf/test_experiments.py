"""Every file in experiments/: its jobs compose and can be planned, it states question and cost; a shortened version runs."""

from __future__ import annotations

import csv
import os
import re
from functools import cache
from pathlib import Path

import pytest
import yaml

from cnnbench.config.compose import groups
from cnnbench.sweep.expand import expand_sweep
from cnnbench.sweep.plan import make_plan
from sweeps import Sweep

FILES = sorted((Path(__file__).parents[2] / "experiments").glob("*.yaml"))
CUT = ["epochs=1", "trainer.max_steps=2", "data.train_size=100", "data.val_size=40", "data.test_size=40", "batch_size=16",
       "threads=1", "trainer=cpu", "sweep.seeds=1"]  # fmt: skip
SETS = {"mnist": "MNIST", "fashionmnist": "FashionMNIST"}  # not part of the install; their folders

experiments = pytest.mark.parametrize("file", FILES, ids=lambda file: file.stem)


@cache
def expanded(file):
    return expand_sweep([f"experiment={file.stem}"])


@pytest.fixture
def data_root(file):
    """The override `data.root=...` for the experiment's data set; none if the data set is part of the install."""
    (chosen,) = [
        line["override /data"] for line in yaml.safe_load(file.read_text())["defaults"] if "override /data" in line
    ]
    if chosen not in SETS:
        return []
    shared = os.environ.get("CNNBENCH_TEST_DATA") or Path(__file__).resolve().parents[3] / "shared" / "data"
    if not (Path(shared) / SETS[chosen] / "raw").is_dir():
        pytest.skip(f"no {SETS[chosen]} in {shared}; name its folder in CNNBENCH_TEST_DATA")
    return [f"data.root={shared}"]


def test_all_experiments_can_be_chosen():
    assert {file.stem for file in FILES} == groups()["experiment"].keys()
    assert len(FILES) >= 5


@experiments
def test_an_experiment_composes_and_is_named_after_its_file(file):
    request = expanded(file)
    assert request.name == file.stem
    assert request.notes == ()
    assert len(request.configs) == len(request.settings)


@experiments
def test_an_experiment_states_its_question_and_its_cost_in_runs(file):
    request = expanded(file)
    assert request.policy.question.endswith("?")
    assert re.fullmatch(rf"{len(request.settings)} runs, .+ on 2 cores", request.policy.cost)


@experiments
def test_an_experiment_has_at_least_three_seeds_of_each_cell(file):
    seeds = {}
    for setting in expanded(file).settings:
        seeds.setdefault(str({**setting, "seed": 0}), []).append(setting["seed"])
    assert all(listed == list(range(len(listed))) and len(listed) >= 3 for listed in seeds.values())


@experiments
def test_the_baseline_is_one_of_the_cells(file):
    request = expanded(file)
    assert {**request.policy.baseline, "seed": 0} in request.settings


@experiments
def test_an_experiment_can_be_planned(file, data_root, in_this_process):
    plan = make_plan([f"experiment={file.stem}", "trainer=cpu", *data_root])
    assert len(plan.due) == len(plan.request.settings)
    assert len({planned.job.identity for planned in plan.jobs}) == len(plan.jobs)
    assert not list(Path().iterdir())


@pytest.mark.slow
@experiments
def test_a_shortened_experiment_runs_to_its_end(file, data_root, tmp_path):
    sweep = Sweep(tmp_path, f"experiment={file.stem}", *CUT, *data_root)
    assert sweep.wait(900) == 0, sweep.err + sweep.out
    with (tmp_path / "runs" / file.stem / "summary.csv").open(newline="") as table:
        states = [row["state"] for row in csv.DictReader(table)]
    cells = {str({**setting, "seed": 0}) for setting in expanded(file).settings}
    assert states == ["done"] * len(cells)
