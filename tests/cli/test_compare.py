"""`cnnbench compare`, on folders of runs made by hand."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
import yaml
from scipy.stats import ttest_rel

from cnnbench.__main__ import main
from cnnbench.errors import ConfigError
from cnnbench.report.analysis.compare_sweeps import compare_sweeps
from cnnbench.report.load.sweep import read_runs
from cnnbench.runs.run_dir import RunDir
from cnnbench.runs.schema import SweepRecord
from cnnbench.runs.sweep_dir import Job, SweepDir

DATA = {
    "_target_": "cnnbench.data.sets.mnist5k.MNIST5k",
    "fingerprint": "aa",
    "test_size": None,
    "val_size": None,
    "root": "/a",
}
RESULT = {
    "n": {"train": 400, "val": 50, "test": 50}, "split_hash": "11", "label_hash": "22", "precision": "32", "devices": 1, "threads": 1,
    "code": "c0de", "versions": {"torch": "2.0"}, "hardware": {"cpu": "x", "gpus": [], "system": "Linux"},
}  # fmt: skip


def write_run(path: Path, seed: int, outcome: float | str, config: dict, choices: dict, result: dict) -> RunDir:
    """Writes a run directory with a test accuracy or a state."""
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
    state = outcome if isinstance(outcome, str) else "done"
    (path / "status.json").write_text(json.dumps({"state": state, "reason": None}))
    if state == "done":
        (path / "result.json").write_text(json.dumps({**RESULT, "metrics": {"test/acc": outcome}, **result}))
    return RunDir(path)


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """Writes a sweep over learning rates to runs/NAME, from the outcomes of the seeds of each learning rate."""
    monkeypatch.chdir(tmp_path)

    def make(
        name: str, outcomes: dict[float, list | dict], key="optimizer.lr", choices=None, result=None, **config
    ) -> Path:
        sweep, jobs = SweepDir(Path("runs") / name), []
        for at, (level, seeds) in enumerate(outcomes.items()):
            seeds = seeds if isinstance(seeds, dict) else dict(enumerate(seeds))
            for seed, value in seeds.items():
                swept = {"optimizer": {"lr": level}} if key == "optimizer.lr" else {key: level}
                path = sweep.path / f"{level}_seed{seed}_{at:04d}{seed:04d}"
                run = (
                    write_run(path, seed, value, {**config, **swept}, choices or {}, result or {})
                    if value != "missing"
                    else RunDir(path)
                )
                jobs.append(Job(run, f"{at:04d}{seed:04d}", {key: level, "seed": seed}))
        sweep.write(SweepRecord(schema=1, name=name, keys=[key, "seed"], fixed={}, jobs=[]), jobs)
        return sweep.path

    return make


def compare(capsys, *arguments) -> tuple[int, str, str]:
    code = main(["compare", *map(str, arguments)])
    printed = capsys.readouterr()
    return code, printed.out, printed.err


def verdicts(before: Path, after: Path) -> dict[str, str]:
    return {pair.label: pair.verdict for pair in compare_sweeps(read_runs(before), read_runs(after)).pairs}


def row_of(text: str, label: str) -> list[str]:
    (row,) = [line for line in text.splitlines() if line.startswith(label)]
    return row.removeprefix(label).split()


def fails(before: Path, after: Path, limit: float = 0.01) -> list[str]:
    return compare_sweeps(read_runs(before), read_runs(after)).failures(limit)


# ---- matching -------------------------------------------------------------------------------------------------------------


def test_settings_are_matched_by_swept_keys_although_fixed_keys_differ(folder):
    before = folder("a", {0.1: [0.9], 0.2: [0.8]}, epochs=5)
    after = folder("b", {0.2: [0.7], 0.1: [0.6]}, epochs=10)
    found = compare_sweeps(read_runs(before), read_runs(after))
    assert [(pair.before.values, pair.after.values) for pair in found.pairs] == [
        ({0: 0.9}, {0: 0.6}),
        ({0: 0.8}, {0: 0.7}),
    ]


def test_settings_of_one_folder_are_named(folder, capsys):
    before = folder("a", {0.1: [0.9], 0.2: [0.8]})
    after = folder("b", {0.2: [0.8], 0.3: [0.8]})
    _, printed, _ = compare(capsys, before, after)
    assert "only in A: lr 0.1\n" in printed
    assert "only in B: lr 0.3\n" in printed


def test_a_single_run_is_matched_with_its_setting_of_a_sweep(folder):
    before = folder("a", {0.1: [0.9], 0.2: [0.8]})
    after = folder("b", {0.2: [0.7]}, epochs=10)
    found = compare_sweeps(read_runs(before), read_runs(after / "0.2_seed0_00000000"))
    assert [(pair.label, pair.before.values, pair.after.values) for pair in found.pairs] == [
        ("lr 0.2", {0: 0.8}, {0: 0.7})
    ]
    assert [cell.label for cell in found.only_before] == ["lr 0.1"]


def test_sweeps_over_different_keys_are_matched_by_the_fixed_value_of_the_other(folder):
    before = folder("a", {0.1: [0.9], 0.2: [0.8]}, epochs=10)
    after = folder("b", {5: [0.7], 10: [0.6]}, key="epochs")  # all at learning rate 0.1
    found = compare_sweeps(read_runs(before), read_runs(after))
    assert [(pair.before.values, pair.after.values) for pair in found.pairs] == [({0: 0.9}, {0: 0.6})]


def test_two_single_runs_are_compared_even_if_their_configs_differ(folder):
    before, after = folder("a", {0.1: [0.9]}), folder("b", {0.2: [0.8]}, epochs=10)
    assert verdicts(before / "0.1_seed0_00000000", after / "0.2_seed0_00000000") == {"the run": "undecided"}


def test_folders_without_a_common_setting_are_refused(folder):
    before, after = folder("a", {0.1: [0.9], 0.2: [0.9]}), folder("b", {0.3: [0.9], 0.4: [0.9]})
    with pytest.raises(
        ConfigError,
        match=r"no setting is in both; the first has lr 0\.1; lr 0\.2, the second lr 0\.3; lr 0\.4; to compare two runs .* type the dir",
    ):
        compare_sweeps(read_runs(before), read_runs(after))


def test_a_folder_without_runs_is_refused_in_one_line(folder, capsys):
    before = folder("a", {0.1: [0.9]})
    assert compare(capsys, before, "runs/none") == (
        2,
        "",
        "cnnbench: runs/none: holds no runs; the folder does not exist\n",
    )


# ---- differences ----------------------------------------------------------------------------------------------------------


def test_p_is_that_of_the_paired_t_test_corrected_over_all_settings(folder):
    a, b = {0.1: [0.90, 0.91, 0.93], 0.2: [0.80, 0.85, 0.81]}, {0.1: [0.85, 0.87, 0.88], 0.2: [0.82, 0.80, 0.83]}
    found = compare_sweeps(read_runs(folder("a", a)), read_runs(folder("b", b)))
    small, large = sorted(ttest_rel(b[lr], a[lr]).pvalue for lr in a)
    assert sorted(pair.p for pair in found.pairs) == pytest.approx([2 * small, max(2 * small, large)])


def test_seeds_are_paired_by_number_not_by_position(folder):
    found = compare_sweeps(
        read_runs(folder("a", {0.1: {0: 0.1, 1: 0.2, 2: 0.3}})), read_runs(folder("b", {0.1: {2: 0.4, 3: 0.9, 1: 0.2}}))
    )
    assert found.pairs[0].difference.by_seed == pytest.approx([0.0, 0.1])


def test_a_setting_is_better_worse_equal_or_undecided(folder):
    same = [0.5, 0.6, 0.7]
    before = folder("a", dict.fromkeys((1, 2, 3, 4, 5), same))
    after = folder(
        "b", {1: [0.7, 0.801, 0.902], 2: [0.3, 0.401, 0.499], 3: same, 4: [0.6, 0.5, 0.7], 5: ["failed"] * 3}
    )
    expected = ["better", "worse", "equal", "undecided", "no result"]
    assert verdicts(before, after) == {f"lr {lr}": verdict for lr, verdict in enumerate(expected, 1)}


def test_one_seed_is_undecided(folder):
    assert verdicts(folder("a", {0.1: [0.9]}), folder("b", {0.1: [0.1]})) == {"lr 0.1": "undecided"}


def test_a_row_shows_the_means_over_the_compared_seeds(folder, capsys):
    before, after = folder("a", {0.1: [0.9, 0.8, 0.1]}), folder("b", {0.1: [0.8, 0.7]})
    _, printed, _ = compare(capsys, before, after)
    assert row_of(printed, "lr 0.1") == ["2", "0.8500", "0.7500", "-10.0", "undecided"]


def test_different_seeds_are_compared_unpaired(folder, capsys):
    before, after = folder("a", {0.1: {0: 0.9, 1: 0.8}}), folder("b", {0.1: {2: 0.7, 3: 0.6}})
    _, printed, _ = compare(capsys, before, after)
    assert row_of(printed, "lr 0.1")[:5] == ["2", "unpaired", "0.8500", "0.6500", "-20.0"]


def test_the_mean_difference_over_all_settings_is_paired_by_seed(folder):
    a, b = {0.1: [0.9, 0.8, 0.7], 0.2: [0.5, 0.6, 0.4]}, {0.1: [0.8, 0.8, 0.6], 0.2: [0.4, 0.4, 0.4]}
    found = compare_sweeps(read_runs(folder("a", a)), read_runs(folder("b", b))).overall
    assert (found.point, found.n) == (pytest.approx(-0.25 / 3), 3)  # by seed -0.1, -0.1, -0.05
    assert found.p == pytest.approx(ttest_rel([-0.1, -0.1, -0.05], [0, 0, 0]).pvalue)


def test_the_summary_is_one_sentence(folder, capsys):
    before = folder("a", {0.1: [0.90, 0.91, 0.92], 0.2: [0.5, 0.5, 0.5]})
    after = folder("b", {0.1: [0.80, 0.82, 0.81], 0.2: [0.4, 0.41, 0.39]})
    _, printed, _ = compare(capsys, before, after)
    assert (
        "Over 2 settings the test accuracy of B is 10.0 points lower than that of A (3 paired seeds, 95 % interval -"
        in printed
    )


def test_equal_folders_have_the_same_accuracy(folder, capsys):
    outcomes = {0.1: [0.9, 0.8], 0.2: [0.7, 0.6]}
    code, printed, _ = compare(capsys, folder("a", outcomes), folder("b", outcomes), "--fail-if-worse", "0")
    assert "Over 2 settings A and B have the same test accuracy for every seed (2 paired seeds)." in printed
    assert code == 0


# ---- --fail-if-worse ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("before", "after", "reason"),
    [
        ([0.9], [0.88], "-2.0 points (one seed: by its point alone)"),
        ([0.9, 0.9], [0.7, 0.3], "-40.0 points (each of 2 seeds)"),  # p is 0.3, because the seeds vary much
        ([0.9, 0.9], [0.7, 0.7], "-20.0 points (each of 2 seeds)"),  # no p, because the differences are equal
        ([0.90, 0.91, 0.92, 0.93], [0.88, 0.90, 0.90, 0.92], "-1.5 points (p 0.014)"),  # two seeds by only 1 point
        ({0: 0.9}, {1: 0.5}, "-40.0 points (one seed: by its point alone)"),
        ({0: 0.9, 1: 0.8}, {2: 0.5, 3: 0.7}, "-25.0 points (each of 2 seeds)"),
    ],
)
def test_a_setting_that_is_worse_by_more_than_the_limit_fails(folder, before, after, reason):
    assert fails(folder("a", {0.1: before}), folder("b", {0.1: after})) == [f"lr 0.1 {reason}"]


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ([0.9], [0.892]),
        ([0.9], [0.89]),  # equal to the limit
        ([0.9], [0.95]),
        ([0.90, 0.91, 0.92], [0.86, 0.92, 0.91]),  # -1.3 points on average, from one seed
        ([0.90, 0.91, 0.92, 0.93], [0.895, 0.905, 0.914, 0.926]),  # significant but small
        ({0: 0.9, 1: 0.8}, {2: 0.5, 3: 0.81}),
    ],
)
def test_noise_and_small_losses_do_not_fail(folder, before, after):
    assert fails(folder("a", {0.1: before}), folder("b", {0.1: after})) == []


def test_the_mean_over_all_settings_fails_where_no_setting_fails_alone(folder):
    before = folder("a", {1: [0.90, 0.90, 0.90], 2: [0.8, 0.8, 0.8]})
    after = folder("b", {1: [0.90, 0.86, 0.88], 2: [0.76, 0.80, 0.78]})
    assert fails(before, after) == []  # each seed fell by 2 points on average, without variation
    other = folder("c", {1: [0.90, 0.86, 0.88], 2: [0.76, 0.801, 0.779]})
    (failure,) = fails(before, other)
    assert re.fullmatch(r"all settings -2\.0 points \(p (< )?0\.0\d\d\)", failure)


@pytest.mark.parametrize("state", ["failed", "missing", "pending"])
def test_a_run_that_has_a_result_only_in_a_fails(folder, state):
    before, after = folder("a", {0.1: [0.9, 0.9]}), folder("b", {0.1: [0.9, state]})
    assert fails(before, after) == [f"lr 0.1 without a result (seed 1 {state})"]


def test_a_setting_without_any_result_fails(folder):
    before, after = folder("a", {0.1: [0.9]}), folder("b", {0.1: ["diverged"]})
    assert fails(before, after) == ["lr 0.1 without a result (seed 0 diverged)"]


def test_a_run_without_a_result_in_a_and_b_does_not_fail(folder):
    before, after = folder("a", {0.1: [0.9, "failed"]}), folder("b", {0.1: [0.9, "failed"]})
    assert fails(before, after) == []


def test_settings_that_are_not_in_b_do_not_fail(folder):
    assert fails(folder("a", {0.1: [0.9], 0.2: [0.9]}), folder("b", {0.1: [0.9]})) == []


def test_a_failure_is_one_line_with_the_settings_and_exit_code_1(folder, capsys):
    before, after = folder("a", {0.1: [0.9], 0.2: [0.8]}), folder("b", {0.1: [0.5], 0.2: ["failed"]})
    code, _, error = compare(capsys, before, after, "--fail-if-worse", "0.01")
    failures = "lr 0.1 -40.0 points (one seed: by its point alone); lr 0.2 without a result (seed 0 failed)"
    assert (code, error) == (1, f"cnnbench: runs/b: worse by more than 0.01: {failures}\n")


def test_without_the_flag_nothing_fails(folder, capsys):
    assert compare(capsys, folder("a", {0.1: [0.9]}), folder("b", {0.1: [0.5]}))[0] == 0


@pytest.mark.parametrize("limit", ["1", "-0.1", "nan"])
def test_a_limit_that_is_not_a_fraction_is_refused(folder, capsys, limit):
    before = folder("a", {0.1: [0.9]})
    code, _, error = compare(capsys, before, before, f"--fail-if-worse={limit}")
    assert code == 2
    assert "expected a number from 0, below 1; 0.01 is one point of accuracy" in error


# ---- what else differs ----------------------------------------------------------------------------------------------------


def kinds(printed: str) -> dict[str, list[str]]:
    """The printed differences, by kind."""
    found: dict[str, list[str]] = {}
    kind = ""
    for line in printed[printed.index("\nconfig  ") :].splitlines()[1:]:
        kind = line[:10].strip() or kind
        found.setdefault(kind, []).append(line[10:])
    return found


def test_without_differences_every_kind_is_the_same(folder, capsys):
    _, printed, _ = compare(capsys, folder("a", {0.1: [0.9]}), folder("b", {0.1: [0.8]}))
    assert kinds(printed) == {kind: ["the same"] for kind in ("config", "code", "packages", "machine", "images")}


def test_a_setting_without_a_result_has_the_same_images(folder, capsys):
    _, printed, _ = compare(capsys, folder("a", {0.1: [0.9], 0.2: [0.8]}), folder("b", {0.1: [0.9], 0.2: ["failed"]}))
    assert kinds(printed)["images"] == ["the same"]


def test_keys_that_differ_in_all_settings_are_printed_once(folder, capsys):
    outcomes = {0.1: [0.9], 0.2: [0.8]}
    _, printed, _ = compare(capsys, folder("a", outcomes, epochs=5), folder("b", outcomes, epochs=10))
    assert kinds(printed)["config"] == ["epochs 5 → 10"]


def test_a_changed_group_choice_hides_the_keys_of_the_choices(folder, capsys):
    before = folder("a", {0.1: [0.9]})
    after = folder("b", {0.1: [0.9]}, choices={"model": "vgg"}, model={"_target_": "vgg", "depth": 11})
    assert kinds(compare(capsys, before, after)[1])["config"] == ["model lenet → vgg"]


def test_folders_and_options_of_saving_are_not_differences(folder, capsys):
    after = folder("b", {0.1: [0.9]}, data={**DATA, "root": "/b"}, log="full", trainer={"checkpoint_every_s": 1.0})
    assert kinds(compare(capsys, folder("a", {0.1: [0.9]}), after)[1])["config"] == ["the same"]


def test_code_packages_and_machine_are_compared(folder, capsys):
    result = {
        "code": "beef",
        "versions": {"torch": "2.1"},
        "precision": "bf16",
        "git": {"commit": "0123456789", "dirty": True},
    }
    after = folder("b", {0.1: [0.9]}, result={**result, "hardware": {"cpu": "y", "gpus": ["H100"], "system": "Linux"}})
    found = kinds(compare(capsys, folder("a", {0.1: [0.9]}), after)[1])
    assert found["code"] == ["c0de → beef (commit 0123456 with changes)"]
    assert found["packages"] == ["torch 2.0 → 2.1"]
    assert found["machine"] == ["processor x → y", "GPUs [] → [H100]", "precision 32 → bf16"]


@pytest.mark.parametrize("other", [{"fingerprint": "bb"}, {"test_size": 20}])
def test_different_test_images_are_named(folder, capsys, other):
    after = folder("b", {0.1: [0.9]}, data={**DATA, **other})
    assert kinds(compare(capsys, folder("a", {0.1: [0.9]}), after)[1])["images"][0].startswith(
        "the test images: seeds are not"
    )


def test_a_run_without_a_result_has_the_same_test_images(folder, capsys):
    before, after = folder("a", {0.1: [0.9, 0.9]}), folder("b", {0.1: ["failed", 0.9]})
    assert kinds(compare(capsys, before, after)[1])["images"] == ["the same"]


def test_a_different_validation_split_leaves_the_test_images_equal(folder, capsys):
    after = folder("b", {0.1: [0.9]}, data={**DATA, "val_size": 20}, result={"split_hash": "33"})
    assert kinds(compare(capsys, folder("a", {0.1: [0.9]}), after)[1])["images"] == ["the split"]


# ---- output ---------------------------------------------------------------------------------------------------------------


def test_names_are_printed_as_they_are(folder, capsys):
    before = folder("[red]a", {"[bold]x": [0.9]}, key="note")
    assert "[red]a" in compare(capsys, before, before)[1]


def test_help_explains_the_rule(capsys):
    with pytest.raises(SystemExit):
        main(["compare", "--help"])
    assert "by its point alone" in " ".join(capsys.readouterr().out.split())
