"""What limits an answer: each limit is told where it is one, and not where it is none."""

from __future__ import annotations

import json

import pytest
from scipy.stats import binomtest

import made_sweeps as made
from cnnbench.report.analysis.comparisons import review
from cnnbench.report.analysis.limitations import limits
from cnnbench.report.load.sweep import read
from cnnbench.runs.sweep_dir import SweepDir
from report_of import reviewed

A, B = {"model": "a"}, {"model": "b"}
GOOD = {0: 0.8, 1: 0.82, 2: 0.81}


def told(tmp_path, *cells, listed=True, **asked):
    """The limits of a folder whose baseline is stated."""
    return limits(review(read(made.sweep(tmp_path / "s", cells, listed, baseline=A, **asked))))


def about(sentences, *words):
    return [sentence for sentence in sentences if any(word in sentence for word in words)]


# ---- missing runs ------------------------------------------------------------------------------------------------------------


def test_a_whole_sweep_is_limited_by_its_test_images_alone(tmp_path):
    assert len(told(tmp_path, (A, GOOD), (B, GOOD))) == 2
    assert len(about(told(tmp_path / "2", (A, GOOD), (B, GOOD)), "Test has", "Test was read")) == 2


def test_a_failed_run_is_named_with_its_reason(tmp_path):
    sentence = about(
        told(tmp_path, (A, GOOD), (B, {**GOOD, 2: {"state": "failed", "reason": "out of memory"}})), "failed"
    )
    assert sentence == [f"1 of 6 runs failed: {made.directory(B, 2)} (out of memory)."]


def test_a_long_reason_is_cut_to_a_line(tmp_path):
    (sentence,) = about(told(tmp_path, (A, {0: 0.5, 1: {"state": "failed", "reason": "word\n" * 100}})), "failed")
    assert "\n" not in sentence
    assert len(sentence) < 250


@pytest.mark.parametrize(
    ("outcome", "words"), [("missing", "left no directory"), ("interrupted", "stopped before the end")]
)
def test_a_run_that_is_not_there_is_named(tmp_path, outcome, words):
    assert about(told(tmp_path, (A, {**GOOD, 1: outcome})), words) == [f"1 of 3 runs {words}: {made.directory(A, 1)}."]


def test_a_run_that_diverged_flatters_the_mean_of_the_others(tmp_path):
    sentences = told(tmp_path, (A, {**GOOD, 1: "diverged"}))
    assert len(about(sentences, "1 of 3 runs diverged")) == 1
    assert len(about(sentences, "flatters")) == 1


def test_a_sweep_that_is_still_on_says_so(tmp_path):
    folder = made.sweep(tmp_path / "s", [(A, {0: 0.8, 1: "running", 2: "pending"})])
    with SweepDir(folder).held():
        (sentence,) = about(limits(review(read(folder))), "yet")
    assert sentence.startswith("Not all is there yet: 1 running and 1 pending of 3 runs; the sweep is on (pid ")


# ---- seeds and baseline ------------------------------------------------------------------------------------------------------


def test_unequal_seeds_are_counted(tmp_path):
    sentence = "Not every cell has 3 seeds: b has 2. A difference uses the seeds that both cells have."
    assert sentence in told(tmp_path, (A, GOOD), (B, {0: 0.8, 1: 0.9}))


def test_one_seed_a_cell_is_told():
    assert any(sentence.startswith("One seed a cell") for sentence in limits(reviewed([(A, [0.5]), (B, [0.6])])))


def test_an_unpaired_comparison_is_told():
    assert len(about(limits(reviewed([(A, {0: 0.5, 1: 0.6}), (B, {2: 0.5, 3: 0.6})])), "unpaired (Welch): b")) == 1


@pytest.mark.parametrize(
    ("asked", "start"),
    [({}, "No baseline was stated"), ({"baseline": {"model": "z"}}, "The stated baseline is none of the cells")],
)
def test_a_baseline_that_was_only_taken_is_told(asked, start):
    found = limits(reviewed([(A, [None]), (B, [0.5, 0.6]), ({"model": "c"}, [0.5, 0.6])], **asked))
    assert f"{start}; the others are compared with the first that has results, b." in found


def test_a_main_effect_that_no_seed_tells_is_named():
    cells = [
        ({"model": m, "lr": lr}, {0: 0.5} if m == "a" or lr == 0.1 else {1: 0.6}) for m in "ab" for lr in (0.1, 0.2)
    ]
    assert "No seed is done in all cells, so main effects are not known: run what is missing." in limits(
        reviewed(cells)
    )


def test_with_several_factors_it_is_told_which_seeds_a_main_effect_uses():
    cells = [({"model": m, "lr": lr}, [0.5, 0.6] if m == "b" else [0.6, 0.7, 0.8]) for m in "ab" for lr in (0.1, 0.2)]
    assert len(about(limits(reviewed(cells)), "that both cells have, a main effect those that all have.")) == 1


def test_a_stated_baseline_that_has_no_result_is_told():
    found = limits(reviewed([(A, [None]), (B, [0.5, 0.6]), ({"model": "c"}, [0.5, 0.6])], baseline=A))
    assert "The stated baseline has no result; the others are compared with the first that has results, b." in found


# ---- confounds ---------------------------------------------------------------------------------------------------------------


def sized(params, **config):
    return {seed: {"result": {"params": params}, "config": config} for seed in range(2)}


def test_a_learning_rate_that_goes_with_the_model_is_told(tmp_path):
    rates = {"a": {"optimizer.lr": 0.005}, "b": {"optimizer.lr": 0.01}}
    cells = [(setting, sized(1000, **rates[setting["model"]])) for setting in (A, B)]
    (sentence,) = about(told(tmp_path, *cells), "differ in more")
    assert sentence == "The arms of model (a / b) differ in more than that: learning rate (0.005 / 0.01)."


def test_other_parameters_are_told(tmp_path):
    assert about(told(tmp_path, (A, sized(1000)), (B, sized(2000))), "parameters (1,000 / 2,000)") != []


def test_a_run_that_failed_makes_no_confound(tmp_path):
    assert about(told(tmp_path, (A, GOOD), (B, {**GOOD, 2: "failed"})), "differ in more") == []


def test_another_number_of_steps_is_told(tmp_path):
    cells = [(setting, sized(1000, **{"trainer.max_steps": steps})) for setting, steps in ((A, None), (B, 100))]
    assert about(told(tmp_path, *cells), "trainer.max_steps (null / 100)") != []


def test_where_it_ran_is_no_confound(tmp_path):
    cells = [
        (setting, sized(1000, **{"data.root": root, "threads": len(root)})) for setting, root in ((A, "/x"), (B, "/yy"))
    ]
    assert about(told(tmp_path, *cells), "differ in more") == []


# ---- how they were made ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("result", "what"),
    [
        ({"code": "ffff"}, "versions of the code"), ({"versions": {"torch": "9"}}, "sets of package versions"),
        ({"hardware": {"cpu": "y"}}, "kinds of hardware"), ({"precision": "bf16-mixed"}, "precisions"),
        ({"devices": 2}, "numbers of devices"),
    ],
)  # fmt: skip
def test_what_was_made_otherwise_is_named(tmp_path, result, what):
    found = about(told(tmp_path, (A, {**GOOD, 3: {"accuracy": 0.8, "result": result}})), what)
    assert found == [f"The runs were made with 2 {what}: 3 with one, the others are {made.directory(A, 3)}."]


def test_hardware_of_another_memory_is_the_same_kind(tmp_path):
    hardware = {"cpu": "x", "gpus": [], "system": "Linux x86_64", "memory_gib": 99}
    assert about(told(tmp_path, (A, {**GOOD, 3: {"result": {"hardware": hardware}}})), "hardware") == []


def test_devices_that_were_varied_on_purpose_are_no_limit(tmp_path):
    cells = [({"trainer.devices": devices}, {0: {"result": {"devices": devices}}}) for devices in (1, 2)]
    assert about(told(tmp_path, *cells), "numbers of devices") == []


# ---- test --------------------------------------------------------------------------------------------------------------------


def test_what_an_image_is_worth_and_what_other_images_would_change_is_told(tmp_path):
    (sentence,) = about(told(tmp_path, (A, {0: 0.8, 1: 0.8}), (B, {0: 0.7})), "Test has")
    interval = binomtest(800, 1000).proportion_ci(method="wilson")
    assert sentence.startswith("Test has 1,000 images, one of which is 0.1 points.")
    assert sentence.endswith(
        f"an accuracy of 0.8000 is known to about ±{50 * (interval.high - interval.low):.1f} points."
    )


def test_every_reading_of_test_is_counted(tmp_path):
    folder = made.sweep(tmp_path / "s", [(A, GOOD), (B, GOOD)])
    (folder / made.directory(A, 0) / "test_reads.txt").write_text("2026 evaluate\n2026 evaluate\n")
    (sentence,) = about(limits(review(read(folder))), "Test was read")
    assert (
        sentence
        == "Test was read 8 times, 2 of them by evaluate; chosen by it, the best of 2 cells looks better than it is."
    )


def test_other_test_images_are_told(tmp_path):
    other = {0: {"config": {"data.fingerprint": "bb"}}}
    assert about(told(tmp_path, (A, GOOD), (B, other)), "not tested on the same images") != []


@pytest.mark.parametrize("config", [{"data.label_noise": 0.2}, {"data.train_size": 100}, {"data.root": "/elsewhere"}])
def test_other_training_images_or_labels_are_no_other_test_images(tmp_path, config):
    other = {0: {"config": config, "result": {"label_hash": "bb", "split_hash": "cc"}}}
    assert about(told(tmp_path, (A, GOOD), (B, other)), "not tested on the same images") == []


def test_a_result_that_names_no_images_is_not_of_others(tmp_path):
    assert (
        about(told(tmp_path, (A, GOOD), (B, {0: {"result": {"label_hash": None, "n": {}}}})), "not tested on the same")
        == []
    )


# ---- left out ----------------------------------------------------------------------------------------------------------------


def test_what_is_left_out_is_named(tmp_path):
    for name in ("a_00000000", "a_00000000-2"):
        made.run(tmp_path / name, A, 0, 0.5)
    assert "Left out, as another run has the same setting and seed: a_00000000." in limits(review(read(tmp_path)))


def test_a_run_that_is_not_listed_is_named(tmp_path):
    folder = made.sweep(tmp_path / "s", [(A, GOOD)])
    made.run(folder / "stray_ffffffff", A, 0, 0.5)
    assert "Left out, as the sweep does not list them: stray_ffffffff." in limits(review(read(folder)))


def test_a_result_without_an_accuracy_is_named(tmp_path):
    sentences = told(tmp_path, (A, {0: 0.5, 1: {"accuracy": None}}))
    assert f"Left out, as their results hold no test accuracy: {made.directory(A, 1)}." in sentences


def test_a_broken_file_is_named(tmp_path):
    folder = made.sweep(tmp_path / "s", [(A, GOOD)])
    path = folder / made.directory(A, 1) / "result.json"
    path.write_text(json.dumps([]))
    assert f"1 file could not be read: {path}: is no result, it has no metrics." in limits(review(read(folder)))
