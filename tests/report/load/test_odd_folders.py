"""Unusual folders: numbers typed in two ways, seeds that are shared in part, files that are missing, broken or half copied."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.stats import ttest_rel

import made_sweeps as made
from cnnbench import load_runs
from cnnbench.__main__ import main
from cnnbench.report.analysis.claims import judge_claims
from cnnbench.report.analysis.compare_sweeps import compare_sweeps
from cnnbench.report.analysis.comparisons import review
from cnnbench.report.analysis.conclusions import answer
from cnnbench.report.analysis.limitations import limitations
from cnnbench.report.analysis.report_data import make_report
from cnnbench.report.load.sweep import read_runs
from cnnbench.report.render.markdown import plain
from cnnbench.report.render.run_table import repeat_command
from made_reviews import review_of

A, B, C = ({"model": name} for name in "abc")
LR = "optimizer.lr"
FIVE = (0.80, 0.81, 0.79, 0.80, 0.82)


def seeds(values, first=0):
    return dict(enumerate(values, first))


# ---- 1 and 1.0 ------------------------------------------------------------------------------------------------------------


def test_a_baseline_of_1_is_the_setting_of_1_point_0():
    found = review_of([({LR: 0.1}, [0.5, 0.6]), ({LR: 1.0}, [0.7, 0.9])], baseline={LR: 1})
    assert found.baseline_stated
    assert [cell.base for cell in found.cells] == [1, None]
    assert not any("stated baseline" in sentence for sentence in limitations(found))


def test_settings_of_1_and_of_1_point_0_are_compared_with_each_other(tmp_path, capsys):
    before = made.sweep(tmp_path / "a", [({LR: 0.1}, seeds(FIVE)), ({LR: 1}, seeds([0.9] * 5))])
    after = made.sweep(tmp_path / "b", [({LR: 0.1}, seeds(FIVE)), ({LR: 1.0}, seeds([0.5] * 5))])
    assert main(["compare", str(before), str(after), "--fail-if-worse", "0.01"]) == 1
    assert "2 matched settings" in capsys.readouterr().out


def test_a_claim_about_1_is_about_1_point_0():
    claim = {"says": "it learns", "of": {LR: 1}, "above": 0.5}
    (verdict,) = judge_claims(review_of([({LR: 0.1}, [0.5, 0.6]), ({LR: 1.0}, [0.70, 0.71])], claims=[claim]))
    assert verdict.outcome == "reproduced"


# ---- settings without a partner -------------------------------------------------------------------------------------------


def test_a_setting_of_b_without_any_run_directory_fails_a_comparison(tmp_path, capsys):
    before = made.sweep(tmp_path / "a", [(A, {0: 0.9}), (B, {0: 0.9})])
    after = made.sweep(tmp_path / "b", [({**A, "epochs": 5}, {0: 0.9}), ({**B, "epochs": 5}, {0: "missing"})])
    assert main(["compare", str(before), str(after), "--fail-if-worse", "0.01"]) == 1
    assert "b, epochs 5 without a result (seed 0 missing)" in capsys.readouterr().err


def test_a_setting_that_b_has_with_another_fixed_value_is_not_matched(tmp_path):
    before = made.sweep(tmp_path / "a", [(A, {0: 0.9}), (B, {0: 0.9})])
    after = made.sweep(tmp_path / "b", [({**A, "epochs": 5}, {0: 0.9}), ({**B, "epochs": 8}, {0: 0.9})])
    found = compare_sweeps(read_runs(before), read_runs(after))
    assert [pair.label for pair in found.pairs] == ["a, epochs 5"]
    assert ([cell.label for cell in found.only_before], [cell.label for cell in found.only_after]) == (
        ["b"],
        ["b, epochs 8"],
    )


def test_a_setting_without_a_baseline_is_named():
    cells = [({**A, LR: 0.1}, FIVE), ({**B, LR: 0.1}, FIVE), ({**B, LR: 0.2}, FIVE)]
    sentence = "Not compared, because no setting has the baseline's values and is otherwise equal: b, lr 0.2."
    assert sentence in limitations(review_of(cells, baseline=A))
    assert sentence not in limitations(review_of(cells))


def test_keys_of_a_baseline_that_do_not_vary_are_ignored():
    found = limitations(review_of([(A, [None]), (B, [0.5, 0.6]), (C, [0.5, 0.6])], baseline={**A, "epochs": 5}))
    assert any(sentence.startswith("The stated baseline has no result;") for sentence in found)


# ---- seeds that are shared in part ----------------------------------------------------------------------------------------


def test_seeds_that_only_one_of_two_settings_has_are_named():
    found = review_of([(A, seeds(FIVE)), (B, {3: 0.84, 4: 0.85, 6: 0.84, 7: 0.86, 8: 0.85})])
    assert (
        "These settings are compared with their baseline only over the seeds that they share: b over 2 (it has no seed 0, 1, 2, its "
        "baseline no seed 6, 7, 8)."
    ) in limitations(found)


def test_a_setting_with_fewer_seeds_than_its_baseline_is_named_once():
    assert not any("only over the seeds" in text for text in limitations(review_of([(A, FIVE), (B, FIVE[:3])])))


def test_a_grid_without_shared_seeds_is_answered_setting_by_setting():
    grid = [({"model": model, LR: lr}, seeds(FIVE, 10 * (model == "b"))) for model in "ab" for lr in (0.1, 0.2)]
    found = review_of(grid)
    assert found.effects == []
    assert "on average over" not in " ".join(answer(found))


def test_several_undecided_differences_are_listed_with_intervals_the_largest_first():
    cells = [
        ({"model": f"m{n}"}, [0.5 + n * 0.001, 0.52, 0.55 - n * 0.001 + (0.03 if n == 3 else 0)]) for n in range(5)
    ]
    (sentence,) = answer(review_of(cells))
    by_seed = np.array(cells[3][1]) - np.array(cells[0][1])
    low = 100 * ttest_rel(cells[3][1], cells[0][1]).confidence_interval().low
    largest = f"m3 (+{100 * by_seed.mean():.1f} points, 95 % interval {low:.1f}"
    assert sentence.startswith(f"Undecided whether they differ from the baseline: {largest}")
    assert ", 3 seeds each; " in sentence


# ---- claims ---------------------------------------------------------------------------------------------------------------


def test_a_claim_compares_settings_that_agree_in_all_keys_that_over_does_not_name():
    grid = [({**A, LR: 0.1}, [0.80, 0.81]), ({**A, LR: 0.2}, [0.90, 0.91]), ({**B, LR: 0.2}, [0.85, 0.87])]
    claim = {"says": "b is worse", "of": {**B, LR: 0.2}, "over": A, "below": 0.0}
    (verdict,) = judge_claims(review_of(grid, claims=[claim]))
    assert verdict.point == pytest.approx(-0.045)


@pytest.mark.parametrize(
    ("claim", "reason"),
    [
        ({"of": {"model": "z"}}, "no setting has model=z"),
        ({"of": {"nosuch": None}}, "no setting has nosuch=None"),
        ({"of": A, "over": {"model": "z"}}, "no setting has model=z and is otherwise equal to one that has model=a"),
        ({"of": A, "over": A}, "no setting has model=a and is otherwise equal to one that has model=a"),
        ({"of": A, "metric": "test/f1"}, "no run of it has test/f1"),
        ({"of": C}, "no run of it has test/acc"),
        ({"of": A, "above": None}, "the claim has no bound, neither above nor below"),
    ],
)
def test_a_claim_without_numbers_has_a_reason(claim, reason):
    (verdict,) = judge_claims(
        review_of([(A, FIVE), (B, FIVE), (C, [None])], claims=[{"says": "x", "above": 0.0, **claim}])
    )
    assert (verdict.outcome, verdict.reason) == ("undecided", reason)


# ---- the best -------------------------------------------------------------------------------------------------------------


def test_settings_that_differ_significantly_from_the_best_are_not_tied_with_it():
    worse = {name: [value - gap for value, gap in zip(FIVE, gaps, strict=True)] for name, gaps in {
        "b": (0.02, 0.03, 0.02, 0.01, 0.02), "c": (0.03, 0.01, 0.02, 0.02, 0.03), "d": (0.02, 0.01, 0.03, 0.02, 0.01)}.items()}  # fmt: skip
    found = review_of([(A, FIVE), *(({"model": name}, values) for name, values in worse.items())])
    assert found.cells[0].best
    assert all(cell.p < 0.05 and not cell.tied_with_best for cell in found.cells[1:])


# ---- files that are missing or broken -------------------------------------------------------------------------------------


@pytest.mark.parametrize("listed", [True, False])
def test_a_finished_run_without_its_config_is_named(tmp_path, listed):
    folder = made.sweep(tmp_path / "s", [(A, seeds(FIVE)), (B, seeds(FIVE))], listed=listed)
    path = folder / made.directory(A, 0) / "config.yaml"
    path.unlink()
    assert f"1 file could not be read: {path}: does not exist." in limitations(review(read_runs(folder)))


def test_a_single_run_without_its_config_is_refused(tmp_path, capsys):
    path = made.run(tmp_path / "r", A)
    (path / "config.yaml").unlink()
    assert main(["report", str(path)]) == 2
    assert "config.yaml: does not exist" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("content", "done"),
    [("[]", True), ("null", True), ('{"state": 5}', True), ('{"stat', True), ("{}", True), ("{}", False)],
)
def test_a_broken_status_is_named_and_the_run_counts_by_its_result(tmp_path, content, done):
    folder = made.sweep(tmp_path / "s", [(A, {0: 0.5 if done else "running"}), (B, {0: 0.6})])
    path = folder / made.directory(A, 0) / "status.json"
    path.write_text(content)
    found = read_runs(folder)
    assert [run.state for run in found.runs] == ["done" if done else "interrupted", "done"]
    assert found.problems == [f"{path}: not the status of a run"]


DEEP = "[" * 100_000 + "]" * 100_000


@pytest.mark.parametrize(
    ("file", "content"),
    [("config.yaml", "a: &a {b: *a}"), ("config.yaml", DEEP[:2000]), ("result.json", DEEP)],
)
def test_files_with_circular_or_very_deep_content_are_named(tmp_path, file, content):
    folder = made.sweep(tmp_path / "s", [(A, {0: 0.5}), (B, {0: 0.6})])
    path = folder / made.directory(A, 0) / file
    path.write_text(content)
    report = make_report(folder)
    assert any(f"{path}: " in sentence for sentence in report.limits)


def test_choices_that_are_not_names_are_ignored(tmp_path):
    folder = made.sweep(tmp_path / "s", [(A, {0: {"config": {"choices.1": 2}}}), (B, {0: 0.6})])
    assert make_report(folder).answer


def test_a_huge_loss_does_not_stop_the_figures(tmp_path):
    rows = made.epochs([1.0, 1e308, -1e308])
    folder = made.sweep(tmp_path / "s", [(A, {seed: {"epochs": rows} for seed in (0, 1)})])
    assert main(["report", str(folder)]) == 0


def test_saved_images_without_pixels_are_named(tmp_path):
    outcome = {"logits": made.logits_for([0, 1], 2), "targets": [1, 0], "images": {0: np.zeros((0, 0, 1), np.uint8)}}
    folder = made.sweep(tmp_path / "s", [(A, {0: outcome}), (B, {0: {**outcome, "images": None}})])
    assert any("mistakes.npz: cannot be read" in sentence for sentence in make_report(folder).limits)


def test_settings_with_different_numbers_of_classes_have_confusions_of_one_size(tmp_path):
    three, four = ({"logits": made.logits_for([0, 1, 2], classes), "targets": [0, 1, 1]} for classes in (3, 4))
    folder = made.sweep(tmp_path / "s", [(A, {0: three}), (B, {0: four})])
    assert [each.confusion.shape for each in make_report(folder).cell_predictions] == [(4, 4), (4, 4)]
    assert main(["report", str(folder)]) == 0


def test_settings_with_missing_predictions_are_named(tmp_path):
    saved = {"logits": made.logits_for([0, 1], 2), "targets": [0, 0]}
    other = {**saved, "targets": [1, 1]}
    cells = [(A, {0: saved, 1: 0.5, 2: 0.5}), (B, {0: saved, 1: other}), (C, {0: saved, 1: saved})]
    found = make_report(made.sweep(tmp_path / "s", cells)).limits
    assert "Errors are counted only in the runs that saved their predictions: a (1 of 3)." in found
    assert next(text for text in found if text.startswith("Errors are unknown for these settings")).endswith(": b.")


# ---- counts ---------------------------------------------------------------------------------------------------------------


def test_the_test_reads_of_a_repetition_are_counted(tmp_path):
    folder = made.sweep(tmp_path / "s", [(A, {0: 0.5}), (B, {0: 0.6})])
    made.run(folder / f"{made.directory(A, 0)}-2", A)
    sentence = limitations(review(read_runs(folder)))[-1]
    assert sentence.startswith("The test split was read 3 times, 1 of them by repeated runs; ")


def test_for_test_splits_of_two_sizes_no_uncertainty_is_named(tmp_path):
    cells = [(A, {0: {"result": {"n": {"test": 100}}}}), (B, {0: {"result": {"n": {"test": 1000}}}})]
    found = limitations(review(read_runs(made.sweep(tmp_path / "s", cells))))
    assert not any(sentence.startswith("The test split has") for sentence in found)
    assert any("were tested on different images" in sentence for sentence in found)


def test_a_result_with_fewer_fields_is_not_of_another_environment(tmp_path):
    bare = dict.fromkeys(("code", "versions", "hardware", "precision", "devices", "params", "macs", "n"))
    found = limitations(
        review(read_runs(made.sweep(tmp_path / "s", [(A, {0: 0.5}), (B, {0: {"accuracy": 0.5, "result": bare}})])))
    )
    assert not any("The runs were computed with" in sentence or "also differ in" in sentence for sentence in found)


def test_results_without_test_accuracy_are_not_unfinished():
    runs = review_of([(A, [0.5]), (B, [0.5])])
    for run in runs.runs.runs:
        run.result.metrics.clear()
    assert answer(review(runs.runs)) == ["Nothing is known: no result of 2 runs has a test accuracy."]


def test_an_empty_list_of_steps_is_called_none():
    found = review_of([({"augment": []}, FIVE), ({"augment": ["crop"]}, FIVE)])
    assert [cell.label for cell in found.cells] == ["augment none", "augment crop"]


def test_a_run_has_the_name_of_its_folder_even_from_within(tmp_path, monkeypatch):
    path = made.run(tmp_path / "r", A, state="failed", reason="no luck")
    monkeypatch.chdir(path)
    assert "1 of 1 run failed: r (no luck)." in limitations(review(read_runs(path.relative_to(path))))


# ---- output ---------------------------------------------------------------------------------------------------------------


def test_markdown_escapes_marks():
    assert plain("a&amp;$x^2$~b~") == r"a\&amp;\$x^2\$\~b\~"


def test_the_frame_of_a_sweep_without_results_has_metric_columns(tmp_path):
    frame = load_runs(made.sweep(tmp_path / "s", [(A, {0: "running"}), (B, {0: "missing"})]))
    assert frame.groupby("model")["test/acc"].count().to_dict() == {"a": 0, "b": 0}


def test_the_command_that_repeats_a_run_names_runs_dir_if_its_folder_has_an_unusual_name(tmp_path):
    odd = made.sweep(tmp_path / "my sw, ü", [(A, {0: 0.5})])
    (run,) = read_runs(odd).runs
    assert repeat_command(run) == f"cnnbench reproduce '{odd}/{run.name}' runs_dir=runs --trust"


def test_the_command_that_repeats_a_run_can_be_typed_in_any_folder(tmp_path, monkeypatch):
    path = made.run(tmp_path / "r", A)
    monkeypatch.chdir(path)
    (run,) = read_runs(path.relative_to(path)).runs
    assert f"reproduce {path} " in repeat_command(run)
