"""The limitations of an answer: each is named where it exists, and only there."""

from __future__ import annotations

import json

import pytest
from scipy.stats import binomtest

import made_sweeps as made
from cnnbench.report.analysis.comparisons import review
from cnnbench.report.analysis.limitations import limitations
from cnnbench.report.load.sweep import read_runs
from cnnbench.runs.sweep_dir import SweepDir
from made_reviews import review_of
from owners import OTHER_HOST, make_older, read_only, record

A, B = {"model": "a"}, {"model": "b"}
GOOD = {0: 0.8, 1: 0.82, 2: 0.81}


def limitations_of(tmp_path, *cells, listed=True, **record):
    """The limitations of a folder with a stated baseline."""
    return limitations(review(read_runs(made.sweep(tmp_path / "s", cells, listed, baseline=A, **record))))


def about(sentences, *words):
    """The sentences that contain one of the texts."""
    return [sentence for sentence in sentences if any(word in sentence for word in words)]


# ---- missing runs ---------------------------------------------------------------------------------------------------------


def test_a_complete_sweep_is_limited_only_by_its_test_images(tmp_path):
    assert len(limitations_of(tmp_path, (A, GOOD), (B, GOOD))) == 2
    assert (
        len(
            about(limitations_of(tmp_path / "2", (A, GOOD), (B, GOOD)), "The test split has", "The test split was read")
        )
        == 2
    )


def test_a_failed_run_is_named_with_its_reason(tmp_path):
    sentence = about(
        limitations_of(tmp_path, (A, GOOD), (B, {**GOOD, 2: {"state": "failed", "reason": "out of memory"}})), "failed"
    )
    assert sentence == [f"1 of 6 runs failed: {made.directory(B, 2)} (out of memory)."]


def test_a_long_reason_is_cut_to_one_line(tmp_path):
    (sentence,) = about(
        limitations_of(tmp_path, (A, {0: 0.5, 1: {"state": "failed", "reason": "word\n" * 100}})), "failed"
    )
    assert "\n" not in sentence
    assert len(sentence) < 250


@pytest.mark.parametrize(
    ("outcome", "words"), [("missing", "have no directory"), ("interrupted", "stopped before the end")]
)
def test_missing_and_interrupted_runs_are_named(tmp_path, outcome, words):
    assert about(limitations_of(tmp_path, (A, {**GOOD, 1: outcome})), words) == [
        f"1 of 3 runs {words}: {made.directory(A, 1)}."
    ]


def test_a_diverged_run_biases_the_mean_of_its_setting(tmp_path):
    sentences = limitations_of(tmp_path, (A, {**GOOD, 1: "diverged"}))
    assert len(about(sentences, "1 of 3 runs diverged")) == 1
    assert len(about(sentences, "biased upward")) == 1


def test_a_heartbeat_in_a_read_only_folder_is_not_verified(tmp_path, monkeypatch):
    folder = made.sweep(tmp_path / "s", [(A, {0: 0.8, 1: 0.8, 2: "running"})])
    status = folder / made.directory(A, 2) / "status.json"
    status.write_text(json.dumps(record(**OTHER_HOST, pid=12, state="running")))
    make_older(status, 600.1)
    monkeypatch.setattr("tempfile.TemporaryFile", read_only)
    assert about(limitations(review(read_runs(folder))), "stopped") == [
        f"1 of 3 runs stopped before the end: {made.directory(A, 2)} "
        "(pid 12 on another: heartbeat 10 min ago by this machine's clock, not verified)."
    ]


def test_a_running_sweep_is_incomplete(tmp_path):
    folder = made.sweep(tmp_path / "s", [(A, {0: 0.8, 1: "running", 2: "pending"})])
    with SweepDir(folder).lock():
        (sentence,) = about(limitations(review(read_runs(folder))), "Incomplete")
    assert sentence.startswith("Incomplete: 1 running and 1 pending of 3 runs; the sweep is still running (pid ")


def test_jobs_of_another_part_are_pending_and_the_part_is_named(tmp_path):
    folder = made.sweep(tmp_path / "s", [(A, {0: 0.8, 1: "missing", 2: "missing", 3: "missing"})], part="1/2")
    sentences = limitations(review(read_runs(folder)))
    assert about(sentences, "Incomplete") == [
        "Incomplete: 2 pending of 4 runs; 2 of them are not in part 1/2, which runs here: cnnbench merge adds the others."
    ]
    assert about(sentences, "no directory") == [f"1 of 4 runs have no directory: {made.directory(A, 3)}."]


# ---- seeds and baseline ---------------------------------------------------------------------------------------------------


def test_unequal_seeds_are_counted(tmp_path):
    sentence = "Not every setting has 3 seeds: b has 2. A difference uses only the seeds that both settings have."
    assert sentence in limitations_of(tmp_path, (A, GOOD), (B, {0: 0.8, 1: 0.9}))


def test_one_seed_per_setting_is_a_limitation():
    assert any(
        sentence.startswith("One seed per setting") for sentence in limitations(review_of([(A, [0.5]), (B, [0.6])]))
    )


def test_an_unpaired_comparison_is_named():
    assert (
        len(about(limitations(review_of([(A, {0: 0.5, 1: 0.6}), (B, {2: 0.5, 3: 0.6})])), "unpaired (Welch): b")) == 1
    )


@pytest.mark.parametrize(
    ("record", "start"),
    [({}, "No baseline is stated"), ({"baseline": {"model": "z"}}, "The stated baseline is not one of the settings")],
)
def test_a_baseline_that_is_not_the_stated_one_is_named(record, start):
    found = limitations(review_of([(A, [None]), (B, [0.5, 0.6]), ({"model": "c"}, [0.5, 0.6])], **record))
    assert f"{start}; the other settings are compared with the first that has results, b." in found


def test_a_grid_without_a_shared_seed_has_unknown_main_effects():
    cells = [
        ({"model": m, "lr": lr}, {0: 0.5} if m == "a" or lr == 0.1 else {1: 0.6}) for m in "ab" for lr in (0.1, 0.2)
    ]
    assert "No seed is done in all settings, so main effects are unknown: run the missing seeds." in limitations(
        review_of(cells)
    )


def test_with_several_factors_the_seeds_of_a_main_effect_are_named():
    cells = [({"model": m, "lr": lr}, [0.5, 0.6] if m == "b" else [0.6, 0.7, 0.8]) for m in "ab" for lr in (0.1, 0.2)]
    assert (
        len(
            about(
                limitations(review_of(cells)),
                "that both settings have, a main effect only those that all settings have.",
            )
        )
        == 1
    )


def test_a_stated_baseline_without_a_result_is_named():
    found = limitations(review_of([(A, [None]), (B, [0.5, 0.6]), ({"model": "c"}, [0.5, 0.6])], baseline=A))
    assert (
        "The stated baseline has no result; the other settings are compared with the first that has results, b."
        in found
    )


# ---- confounds ------------------------------------------------------------------------------------------------------------


def sized(params, **config):
    return {seed: {"result": {"params": params}, "config": config} for seed in range(2)}


def test_a_learning_rate_that_varies_with_the_model_is_a_confound(tmp_path):
    rates = {"a": {"optimizer.lr": 0.005}, "b": {"optimizer.lr": 0.01}}
    cells = [(setting, sized(1000, **rates[setting["model"]])) for setting in (A, B)]
    (sentence,) = about(limitations_of(tmp_path, *cells), "also differ in")
    assert sentence == "The variants of model (a / b) also differ in: learning rate (0.005 / 0.01)."


def test_different_numbers_of_parameters_are_a_confound(tmp_path):
    assert about(limitations_of(tmp_path, (A, sized(1000)), (B, sized(2000))), "parameters (1,000 / 2,000)") != []


def test_a_failed_run_is_not_a_confound(tmp_path):
    assert about(limitations_of(tmp_path, (A, GOOD), (B, {**GOOD, 2: "failed"})), "also differ in") == []


def test_different_numbers_of_steps_are_a_confound(tmp_path):
    cells = [(setting, sized(1000, **{"trainer.max_steps": steps})) for setting, steps in ((A, None), (B, 100))]
    assert about(limitations_of(tmp_path, *cells), "trainer.max_steps (null / 100)") != []


def test_the_place_of_the_data_and_the_threads_are_not_a_confound(tmp_path):
    cells = [
        (setting, sized(1000, **{"data.root": root, "threads": len(root)})) for setting, root in ((A, "/x"), (B, "/yy"))
    ]
    assert about(limitations_of(tmp_path, *cells), "also differ in") == []


# ---- environment ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("result", "what"),
    [
        ({"code": "ffff"}, "versions of the code"), ({"versions": {"torch": "9"}}, "sets of package versions"),
        ({"hardware": {"cpu": "y"}}, "kinds of hardware"), ({"precision": "bf16-mixed"}, "precisions"),
        ({"devices": 2}, "numbers of devices"),
    ],
)  # fmt: skip
def test_runs_of_another_environment_are_named(tmp_path, result, what):
    found = about(limitations_of(tmp_path, (A, {**GOOD, 3: {"accuracy": 0.8, "result": result}})), what)
    assert found == [f"The runs were computed with 2 {what}: 3 with one, the others are {made.directory(A, 3)}."]


def test_hardware_with_another_memory_size_is_the_same_kind(tmp_path):
    hardware = {"cpu": "x", "gpus": [], "system": "Linux x86_64", "memory_gib": 99}
    assert about(limitations_of(tmp_path, (A, {**GOOD, 3: {"result": {"hardware": hardware}}})), "hardware") == []


def test_devices_that_the_sweep_varies_are_not_a_limitation(tmp_path):
    cells = [({"trainer.devices": devices}, {0: {"result": {"devices": devices}}}) for devices in (1, 2)]
    assert about(limitations_of(tmp_path, *cells), "numbers of devices") == []


# ---- test -----------------------------------------------------------------------------------------------------------------


def test_the_number_of_test_images_and_the_uncertainty_for_other_images_are_named(tmp_path):
    (sentence,) = about(limitations_of(tmp_path, (A, {0: 0.8, 1: 0.8}), (B, {0: 0.7})), "The test split has")
    interval = binomtest(800, 1000).proportion_ci(method="wilson")
    assert sentence.startswith("The test split has 1,000 images; one image is 0.1 points.")
    assert sentence.endswith(
        f"an accuracy of 0.8000 is uncertain by about ±{50 * (interval.high - interval.low):.1f} points."
    )


def test_every_reading_of_the_test_split_is_counted(tmp_path):
    folder = made.sweep(tmp_path / "s", [(A, GOOD), (B, GOOD)])
    (folder / made.directory(A, 0) / "test_reads.txt").write_text("2026 evaluate\n2026 evaluate\n")
    (sentence,) = about(limitations(review(read_runs(folder))), "The test split was read")
    assert (
        sentence
        == "The test split was read 8 times, 2 of them by evaluate; selecting the best of 2 settings on test is biased upward."
    )


def test_different_test_images_are_named(tmp_path):
    other = {0: {"config": {"data.fingerprint": "bb"}}}
    assert about(limitations_of(tmp_path, (A, GOOD), (B, other)), "tested on different images") != []


@pytest.mark.parametrize("config", [{"data.label_noise": 0.2}, {"data.train_size": 100}, {"data.root": "/elsewhere"}])
def test_different_training_images_or_labels_leave_the_test_images_equal(tmp_path, config):
    other = {0: {"config": config, "result": {"label_hash": "bb", "split_hash": "cc"}}}
    assert about(limitations_of(tmp_path, (A, GOOD), (B, other)), "tested on different images") == []


def test_a_result_without_the_number_of_images_is_not_one_of_different_images(tmp_path):
    assert (
        about(
            limitations_of(tmp_path, (A, GOOD), (B, {0: {"result": {"label_hash": None, "n": {}}}})),
            "tested on different images",
        )
        == []
    )


# ---- excluded -------------------------------------------------------------------------------------------------------------


def test_duplicate_runs_are_named(tmp_path):
    for name in ("a_00000000", "a_00000000-2"):
        made.run(tmp_path / name, A, 0, 0.5)
    assert "Excluded, because another run has the same setting and seed: a_00000000." in limitations(
        review(read_runs(tmp_path))
    )


def test_unlisted_runs_are_named(tmp_path):
    folder = made.sweep(tmp_path / "s", [(A, GOOD)])
    made.run(folder / "stray_ffffffff", A, 0, 0.5)
    assert "Excluded, because the sweep does not list them: stray_ffffffff." in limitations(review(read_runs(folder)))


def test_a_result_without_an_accuracy_is_named(tmp_path):
    sentences = limitations_of(tmp_path, (A, {0: 0.5, 1: {"accuracy": None}}))
    assert f"Excluded, because their results have no test accuracy: {made.directory(A, 1)}." in sentences


def test_a_broken_file_is_named(tmp_path):
    folder = made.sweep(tmp_path / "s", [(A, GOOD)])
    path = folder / made.directory(A, 1) / "result.json"
    path.write_text(json.dumps([]))
    assert f"1 file could not be read: {path}: cannot be read (Input should be an object)." in limitations(
        review(read_runs(folder))
    )
