"""`python -m cnnbench compare`: of folders of runs that are made by hand."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from scipy.stats import ttest_rel

from cnnbench.__main__ import main
from cnnbench.errors import ConfigError
from cnnbench.report.analysis.compare_sweeps import match
from cnnbench.report.load.sweep import read
from cnnbench.runs.run_dir import RunDir
from cnnbench.runs.sweep_dir import Job, SweepDir

COMPARE = """
import sys
from cnnbench.__main__ import main
code = main(["compare", *sys.argv[1:]])
assert not {"torch", "pytorch_lightning", "hydra", "matplotlib", "pandas"} & sys.modules.keys(), "it imported what takes long"
sys.exit(code)
"""
DATA = {
    "_target_": "cnnbench.data.sets.mnist5k.MNIST5k",
    "fingerprint": "aa",
    "test_size": None,
    "val_size": None,
    "root": "/a",
}
MADE = {
    "n": {"train": 400, "val": 50, "test": 50}, "split_hash": "11", "label_hash": "22", "precision": "32", "devices": 1, "threads": 1,
    "code": "c0de", "versions": {"torch": "2.0"}, "hardware": {"cpu": "x", "gpus": [], "system": "Linux"},
}  # fmt: skip


def leave(path: Path, seed: int, came: float | str, config: dict, choices: dict, made: dict) -> RunDir:
    """A run that came to a test accuracy, or to a state."""
    path.mkdir(parents=True)
    values = {
        "model": {"_target_": "lenet", "act": "relu"},
        "data": DATA,
        "optimizer": {"lr": 0.1},
        "epochs": 5,
        "seed": seed,
    }
    values |= {"choices": {"model": "lenet", "data": "mnist5k", **choices}, **config}
    (path / "config.yaml").write_text(yaml.safe_dump(values))
    state = came if isinstance(came, str) else "done"
    (path / "status.json").write_text(json.dumps({"state": state, "reason": None}))
    if state == "done":
        (path / "result.json").write_text(json.dumps({**MADE, "metrics": {"test/acc": came}, **made}))
    return RunDir(path)


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """Makes a sweep over learning rates in runs/NAME: what its seeds came to, by learning rate."""
    monkeypatch.chdir(tmp_path)

    def make(name: str, came: dict[float, list | dict], key="optimizer.lr", choices=None, made=None, **config) -> Path:
        sweep, jobs = SweepDir(Path("runs") / name), []
        for at, (level, seeds) in enumerate(came.items()):
            seeds = seeds if isinstance(seeds, dict) else dict(enumerate(seeds))
            for seed, value in seeds.items():
                swept = {"optimizer": {"lr": level}} if key == "optimizer.lr" else {key: level}
                path = sweep.path / f"{level}_seed{seed}_{at:04d}{seed:04d}"
                run = (
                    leave(path, seed, value, {**config, **swept}, choices or {}, made or {})
                    if value != "missing"
                    else RunDir(path)
                )
                jobs.append(Job(run, f"{at:04d}{seed:04d}", {key: level, "seed": seed}))
        sweep.write({"name": name, "keys": [key, "seed"], "fixed": {}}, jobs)
        return sweep.path

    return make


def compare(capsys, *arguments) -> tuple[int, str, str]:
    code = main(["compare", *map(str, arguments)])
    printed = capsys.readouterr()
    return code, printed.out, printed.err


def verdicts(before: Path, after: Path) -> dict[str, str]:
    return {pair.label: pair.verdict for pair in match(read(before), read(after)).pairs}


def row_of(text: str, label: str) -> list[str]:
    (row,) = [line for line in text.splitlines() if line.startswith(label)]
    return row.removeprefix(label).split()


def fails(before: Path, after: Path, limit: float = 0.01) -> list[str]:
    return match(read(before), read(after)).worse_by(limit)


# ---- which cells are the same ones -------------------------------------------------------------------------------------------


def test_cells_are_matched_by_what_varies_though_the_fixed_part_is_another(folder):
    before = folder("a", {0.1: [0.9], 0.2: [0.8]}, epochs=5)
    after = folder("b", {0.2: [0.7], 0.1: [0.6]}, epochs=10)
    found = match(read(before), read(after))
    assert [(pair.before.values, pair.after.values) for pair in found.pairs] == [
        ({0: 0.9}, {0: 0.6}),
        ({0: 0.8}, {0: 0.7}),
    ]


def test_cells_that_one_of_them_lacks_are_named(folder, capsys):
    before = folder("a", {0.1: [0.9], 0.2: [0.8]})
    after = folder("b", {0.2: [0.8], 0.3: [0.8]})
    _, told, _ = compare(capsys, before, after)
    assert "only in A: lr 0.1\n" in told
    assert "only in B: lr 0.3\n" in told


def test_a_single_run_is_matched_with_its_cell_of_a_sweep(folder):
    before = folder("a", {0.1: [0.9], 0.2: [0.8]})
    after = folder("b", {0.2: [0.7]}, epochs=10)
    found = match(read(before), read(after / "0.2_seed0_00000000"))
    assert [(pair.label, pair.before.values, pair.after.values) for pair in found.pairs] == [
        ("lr 0.2", {0: 0.8}, {0: 0.7})
    ]
    assert [cell.label for cell in found.only_before] == ["lr 0.1"]


def test_sweeps_over_other_keys_are_matched_by_config(folder):
    before = folder("a", {0.1: [0.9], 0.2: [0.8]}, epochs=10)
    after = folder("b", {5: [0.7], 10: [0.6]}, key="epochs")  # all at learning rate 0.1
    found = match(read(before), read(after))
    assert [(pair.before.values, pair.after.values) for pair in found.pairs] == [({0: 0.9}, {0: 0.6})]


def test_two_single_runs_are_compared_whatever_they_are(folder):
    before, after = folder("a", {0.1: [0.9]}), folder("b", {0.2: [0.8]}, epochs=10)
    assert verdicts(before / "0.1_seed0_00000000", after / "0.2_seed0_00000000") == {"the run": "not decided"}


def test_folders_without_a_common_cell_are_refused(folder):
    before, after = folder("a", {0.1: [0.9], 0.2: [0.9]}), folder("b", {0.3: [0.9], 0.4: [0.9]})
    with pytest.raises(
        ConfigError, match=r"no cell is in both; the first has lr 0\.1; lr 0\.2, the second lr 0\.3; lr 0\.4$"
    ):
        match(read(before), read(after))


def test_a_folder_without_runs_is_refused_in_one_line(folder, capsys):
    before = folder("a", {0.1: [0.9]})
    assert compare(capsys, before, "runs/none") == (
        2,
        "",
        "cnnbench: runs/none: holds no runs; there is no such folder\n",
    )


# ---- what became of them -----------------------------------------------------------------------------------------------------


def test_p_is_that_of_the_paired_t_test_by_seed_after_holm(folder):
    a, b = {0.1: [0.90, 0.91, 0.93], 0.2: [0.80, 0.85, 0.81]}, {0.1: [0.85, 0.87, 0.88], 0.2: [0.82, 0.80, 0.83]}
    found = match(read(folder("a", a)), read(folder("b", b)))
    small, large = sorted(ttest_rel(b[lr], a[lr]).pvalue for lr in a)
    assert sorted(pair.p for pair in found.pairs) == pytest.approx([2 * small, max(2 * small, large)])


def test_seeds_are_paired_by_number_not_by_place(folder):
    found = match(
        read(folder("a", {0.1: {0: 0.1, 1: 0.2, 2: 0.3}})), read(folder("b", {0.1: {2: 0.4, 3: 0.9, 1: 0.2}}))
    )
    assert found.pairs[0].by_seed == pytest.approx([0.0, 0.1])


def test_a_cell_is_better_worse_equal_or_not_decided(folder):
    same = [0.5, 0.6, 0.7]
    before = folder("a", dict.fromkeys((1, 2, 3, 4, 5), same))
    after = folder(
        "b", {1: [0.7, 0.801, 0.902], 2: [0.3, 0.401, 0.499], 3: same, 4: [0.6, 0.5, 0.7], 5: ["failed"] * 3}
    )
    told = ["better", "worse", "equal", "not decided", "no result"]
    assert verdicts(before, after) == {f"lr {lr}": verdict for lr, verdict in enumerate(told, 1)}


def test_one_seed_decides_nothing(folder):
    assert verdicts(folder("a", {0.1: [0.9]}), folder("b", {0.1: [0.1]})) == {"lr 0.1": "not decided"}


def test_a_row_shows_means_of_the_seeds_that_are_compared(folder, capsys):
    before, after = folder("a", {0.1: [0.9, 0.8, 0.1]}), folder("b", {0.1: [0.8, 0.7]})
    _, told, _ = compare(capsys, before, after)
    assert row_of(told, "lr 0.1") == ["2", "0.8500", "0.7500", "-10.0", "not", "decided"]


def test_other_seeds_are_compared_unpaired_and_it_says_so(folder, capsys):
    before, after = folder("a", {0.1: {0: 0.9, 1: 0.8}}), folder("b", {0.1: {2: 0.7, 3: 0.6}})
    _, told, _ = compare(capsys, before, after)
    assert row_of(told, "lr 0.1")[:5] == ["2", "unpaired", "0.8500", "0.6500", "-20.0"]


def test_over_all_cells_the_mean_difference_is_paired_by_seed(folder):
    a, b = {0.1: [0.9, 0.8, 0.7], 0.2: [0.5, 0.6, 0.4]}, {0.1: [0.8, 0.8, 0.6], 0.2: [0.4, 0.4, 0.4]}
    found = match(read(folder("a", a)), read(folder("b", b))).overall
    assert (found.point, found.n) == (pytest.approx(-0.25 / 3), 3)  # by seed -0.1, -0.1, -0.05
    assert found.p == pytest.approx(ttest_rel([-0.1, -0.1, -0.05], [0, 0, 0]).pvalue)


def test_the_first_line_says_what_came_out(folder, capsys):
    before = folder("a", {0.1: [0.90, 0.91, 0.92], 0.2: [0.5, 0.5, 0.5]})
    after = folder("b", {0.1: [0.80, 0.82, 0.81], 0.2: [0.4, 0.41, 0.39]})
    _, told, _ = compare(capsys, before, after)
    assert (
        "Over 2 cells the test accuracy of B is 10.0 points lower than that of A (3 paired seeds, 95 % interval -"
        in told
    )


def test_equal_folders_are_said_to_be_equal(folder, capsys):
    came = {0.1: [0.9, 0.8], 0.2: [0.7, 0.6]}
    code, told, _ = compare(capsys, folder("a", came), folder("b", came), "--fail-if-worse", "0")
    assert "Over 2 cells A and B have the same test accuracy for every seed (2 paired seeds)." in told
    assert code == 0


# ---- --fail-if-worse ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("before", "after", "why"),
    [
        ([0.9], [0.88], "-2.0 points (one seed: by its point alone)"),
        ([0.9, 0.9], [0.7, 0.3], "-40.0 points (each of 2 seeds)"),  # far apart: p is 0.3
        ([0.9, 0.9], [0.7, 0.7], "-20.0 points (each of 2 seeds)"),  # no spread: there is no p
        ([0.90, 0.91, 0.92, 0.93], [0.88, 0.90, 0.90, 0.92], "-1.5 points (p 0.014)"),  # two seeds by 1 point only
        ({0: 0.9}, {1: 0.5}, "-40.0 points (one seed: by its point alone)"),
        ({0: 0.9, 1: 0.8}, {2: 0.5, 3: 0.7}, "-25.0 points (each of 2 seeds)"),
    ],
)
def test_a_cell_that_is_worse_by_more_fails(folder, before, after, why):
    assert fails(folder("a", {0.1: before}), folder("b", {0.1: after})) == [f"lr 0.1 {why}"]


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ([0.9], [0.892]),
        ([0.9], [0.89]),  # as much, not more
        ([0.9], [0.95]),
        ([0.90, 0.91, 0.92], [0.86, 0.92, 0.91]),  # -1.3 points on average, one seed alone
        ([0.90, 0.91, 0.92, 0.93], [0.895, 0.905, 0.914, 0.926]),  # certain, and small
        ({0: 0.9, 1: 0.8}, {2: 0.5, 3: 0.81}),
    ],
)
def test_noise_and_small_losses_do_not_fail(folder, before, after):
    assert fails(folder("a", {0.1: before}), folder("b", {0.1: after})) == []


def test_all_cells_together_fail_where_no_cell_does_by_itself(folder):
    before = folder("a", {1: [0.90, 0.90, 0.90], 2: [0.8, 0.8, 0.8]})
    after = folder("b", {1: [0.90, 0.86, 0.88], 2: [0.76, 0.80, 0.78]})
    assert fails(before, after) == []  # all seeds fell by 2 points on average, without a spread
    other = folder("c", {1: [0.90, 0.86, 0.88], 2: [0.76, 0.801, 0.779]})
    (told,) = fails(before, other)
    assert re.fullmatch(r"all cells -2\.0 points \(p (< )?0\.0\d\d\)", told)


@pytest.mark.parametrize("state", ["failed", "diverged", "interrupted", "missing", "pending"])
def test_a_run_without_a_result_that_had_one_before_fails(folder, state):
    before, after = folder("a", {0.1: [0.9, 0.9]}), folder("b", {0.1: [0.9, state]})
    assert fails(before, after) == [f"lr 0.1 without a result (seed 1 {state})"]


def test_a_cell_without_any_result_fails(folder):
    before, after = folder("a", {0.1: [0.9]}), folder("b", {0.1: ["diverged"]})
    assert fails(before, after) == ["lr 0.1 without a result (seed 0 diverged)"]


def test_what_had_no_result_before_may_have_none(folder):
    before, after = folder("a", {0.1: [0.9, "failed"]}), folder("b", {0.1: [0.9, "failed"]})
    assert fails(before, after) == []


def test_cells_that_were_not_asked_for_fail_nothing(folder):
    assert fails(folder("a", {0.1: [0.9], 0.2: [0.9]}), folder("b", {0.1: [0.9]})) == []


def test_the_failure_is_one_line_with_the_cells_and_exit_code_1(folder, capsys):
    before, after = folder("a", {0.1: [0.9], 0.2: [0.8]}), folder("b", {0.1: [0.5], 0.2: ["failed"]})
    code, _, error = compare(capsys, before, after, "--fail-if-worse", "0.01")
    told = "lr 0.1 -40.0 points (one seed: by its point alone); lr 0.2 without a result (seed 0 failed)"
    assert (code, error) == (1, f"cnnbench: runs/b: worse by more than 0.01: {told}\n")


def test_without_the_flag_nothing_fails(folder, capsys):
    assert compare(capsys, folder("a", {0.1: [0.9]}), folder("b", {0.1: [0.5]}))[0] == 0


@pytest.mark.parametrize("limit", ["1", "-0.1", "nan", "5"])
def test_a_limit_that_is_no_share_is_refused(folder, capsys, limit):
    before = folder("a", {0.1: [0.9]})
    code, _, error = compare(capsys, before, before, f"--fail-if-worse={limit}")
    assert code == 2
    assert "expected a number from 0, below 1; 0.01 is one point of accuracy" in error


# ---- what else differs -------------------------------------------------------------------------------------------------------


def kinds(told: str) -> dict[str, list[str]]:
    """The lines of what differs, by kind."""
    found: dict[str, list[str]] = {}
    kind = ""
    for line in told[told.index("\nconfig  ") :].splitlines()[1:]:
        kind = line[:10].strip() or kind
        found.setdefault(kind, []).append(line[10:])
    return found


def test_where_nothing_differs_it_says_so(folder, capsys):
    _, told, _ = compare(capsys, folder("a", {0.1: [0.9]}), folder("b", {0.1: [0.8]}))
    assert kinds(told) == {kind: ["the same"] for kind in ("config", "code", "packages", "machine", "images")}


def test_what_has_no_result_is_of_no_other_images(folder, capsys):
    _, told, _ = compare(capsys, folder("a", {0.1: [0.9], 0.2: [0.8]}), folder("b", {0.1: [0.9], 0.2: ["failed"]}))
    assert kinds(told)["images"] == ["the same"]


def test_keys_that_differ_in_all_cells_are_told_once(folder, capsys):
    came = {0.1: [0.9], 0.2: [0.8]}
    _, told, _ = compare(capsys, folder("a", came, epochs=5), folder("b", came, epochs=10))
    assert kinds(told)["config"] == ["epochs 5 → 10"]


def test_another_choice_is_told_rather_than_what_belongs_to_it(folder, capsys):
    before = folder("a", {0.1: [0.9]})
    after = folder("b", {0.1: [0.9]}, choices={"model": "vgg"}, model={"_target_": "vgg", "depth": 11})
    assert kinds(compare(capsys, before, after)[1])["config"] == ["model lenet → vgg"]


def test_places_and_ways_of_saving_are_no_differences(folder, capsys):
    after = folder("b", {0.1: [0.9]}, data={**DATA, "root": "/b"}, log="full", trainer={"checkpoint_every_s": 1.0})
    assert kinds(compare(capsys, folder("a", {0.1: [0.9]}), after)[1])["config"] == ["the same"]


def test_code_packages_and_machine_are_told(folder, capsys):
    made = {
        "code": "beef",
        "versions": {"torch": "2.1"},
        "precision": "bf16",
        "git": {"commit": "0123456789", "dirty": True},
    }
    after = folder("b", {0.1: [0.9]}, made={**made, "hardware": {"cpu": "y", "gpus": ["H100"], "system": "Linux"}})
    found = kinds(compare(capsys, folder("a", {0.1: [0.9]}), after)[1])
    assert found["code"] == ["c0de → beef (commit 0123456 with changes)"]
    assert found["packages"] == ["torch 2.0 → 2.1"]
    assert found["machine"] == ["processor x → y", "GPUs [] → [H100]", "precision 32 → bf16"]


@pytest.mark.parametrize("other", [{"fingerprint": "bb"}, {"test_size": 20}])
def test_other_test_images_are_told_to_spoil_the_pairs(folder, capsys, other):
    after = folder("b", {0.1: [0.9]}, data={**DATA, **other})
    assert kinds(compare(capsys, folder("a", {0.1: [0.9]}), after)[1])["images"][0].startswith(
        "the test images: seeds are not"
    )


def test_a_run_without_a_result_has_the_same_test_images(folder, capsys):
    before, after = folder("a", {0.1: [0.9, 0.9]}), folder("b", {0.1: ["failed", 0.9]})
    assert kinds(compare(capsys, before, after)[1])["images"] == ["the same"]


def test_another_validation_split_leaves_the_test_images(folder, capsys):
    after = folder("b", {0.1: [0.9]}, data={**DATA, "val_size": 20}, made={"split_hash": "33"})
    assert kinds(compare(capsys, folder("a", {0.1: [0.9]}), after)[1])["images"] == ["the split"]


# ---- how it looks ------------------------------------------------------------------------------------------------------------


def test_names_are_printed_as_they_are(folder, capsys):
    before = folder("[red]a", {"[bold]x": [0.9]}, key="note")
    assert "[red]a" in compare(capsys, before, before)[1]


def test_compare_loads_no_torch(folder):
    before = folder("a", {0.1: [0.9, 0.8]})
    typed = [sys.executable, "-c", COMPARE, str(before), str(before)]
    done = subprocess.run(typed, capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stderr) == (0, "")


def test_help_tells_the_rule(capsys):
    with pytest.raises(SystemExit):
        main(["compare", "--help"])
    assert "by its point alone" in " ".join(capsys.readouterr().out.split())
