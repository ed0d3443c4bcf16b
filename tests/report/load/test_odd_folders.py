"""Folders as they come to be: numbers typed in two ways, seeds that overlap in part, files that are gone, broken, or half copied."""

from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest
from scipy.stats import ttest_rel

import made_sweeps as made
from cnnbench import load_runs
from cnnbench.__main__ import main
from cnnbench.report.analysis.claims import verdicts
from cnnbench.report.analysis.compare_sweeps import match
from cnnbench.report.analysis.comparisons import review
from cnnbench.report.analysis.conclusions import answer
from cnnbench.report.analysis.limitations import limits
from cnnbench.report.analysis.report_data import make_report
from cnnbench.report.load.sweep import read
from cnnbench.report.render.markdown import plain
from cnnbench.report.render.run_table import repeating
from report_of import reviewed

A, B, C = ({"model": name} for name in "abc")
LR = "optimizer.lr"
FIVE = (0.80, 0.81, 0.79, 0.80, 0.82)


def seeds(values, first=0):
    return dict(enumerate(values, first))


# ---- 1 and 1.0 -----------------------------------------------------------------------------------------------------------


def test_a_baseline_typed_as_1_is_the_cell_of_1_point_0():
    found = reviewed([({LR: 0.1}, [0.5, 0.6]), ({LR: 1.0}, [0.7, 0.9])], baseline={LR: 1})
    assert found.stated
    assert [cell.base for cell in found.cells] == [1, None]
    assert not any("stated baseline" in sentence for sentence in limits(found))


def test_cells_typed_as_1_and_as_1_point_0_are_one_cell_in_a_comparison(tmp_path, capsys):
    before = made.sweep(tmp_path / "a", [({LR: 0.1}, seeds(FIVE)), ({LR: 1}, seeds([0.9] * 5))])
    after = made.sweep(tmp_path / "b", [({LR: 0.1}, seeds(FIVE)), ({LR: 1.0}, seeds([0.5] * 5))])
    assert main(["compare", str(before), str(after), "--fail-if-worse", "0.01"]) == 1
    assert "2 matched cells" in capsys.readouterr().out


def test_a_claim_about_1_is_about_1_point_0():
    claim = {"says": "it learns", "of": {LR: 1}, "above": 0.5}
    (verdict,) = verdicts(reviewed([({LR: 0.1}, [0.5, 0.6]), ({LR: 1.0}, [0.70, 0.71])], claims=[claim]))
    assert verdict.outcome == "reproduced"


# ---- cells without their like ----------------------------------------------------------------------------------------------


def test_a_cell_that_b_was_asked_for_and_left_nothing_of_fails_a_comparison(tmp_path, capsys):
    before = made.sweep(tmp_path / "a", [(A, {0: 0.9}), (B, {0: 0.9})])
    after = made.sweep(tmp_path / "b", [({**A, "epochs": 5}, {0: 0.9}), ({**B, "epochs": 5}, {0: "missing"})])
    assert main(["compare", str(before), str(after), "--fail-if-worse", "0.01"]) == 1
    assert "b, epochs 5 without a result (seed 0 missing)" in capsys.readouterr().err


def test_a_lost_cell_is_matched_only_where_it_is_clear_with_which(tmp_path):
    before = made.sweep(tmp_path / "a", [(A, {0: 0.9}), (B, {0: 0.9})])
    twice = [({**B, "epochs": epochs}, {0: "missing"}) for epochs in (5, 8)]
    after = made.sweep(tmp_path / "b", [({**A, "epochs": 5}, {0: 0.9}), *twice])
    assert [pair.before.label for pair in match(read(before), read(after)).pairs] == ["a"]


def test_a_cell_without_a_cell_of_the_baselines_values_is_named():
    cells = [({**A, LR: 0.1}, FIVE), ({**B, LR: 0.1}, FIVE), ({**B, LR: 0.2}, FIVE)]
    told = "Compared with nothing, as there is no such cell with the baseline's values: b, lr 0.2."
    assert told in limits(reviewed(cells, baseline=A))
    assert told not in limits(reviewed(cells))


def test_keys_of_a_baseline_that_do_not_vary_make_it_no_other_cell():
    found = limits(reviewed([(A, [None]), (B, [0.5, 0.6]), (C, [0.5, 0.6])], baseline={**A, "epochs": 5}))
    assert any(sentence.startswith("The stated baseline has no result;") for sentence in found)


# ---- seeds that overlap in part ------------------------------------------------------------------------------------------------


def test_seeds_that_only_one_of_two_cells_has_are_named():
    found = reviewed([(A, seeds(FIVE)), (B, {3: 0.84, 4: 0.85, 6: 0.84, 7: 0.86, 8: 0.85})])
    assert (
        "These are compared by the seeds that they share with their baseline: b by 2 (it has no seed 0, 1, 2, its baseline no 6, 7, 8)."
    ) in limits(found)


def test_a_cell_that_lacks_seeds_is_told_once():
    assert not any("These are compared by" in text for text in limits(reviewed([(A, FIVE), (B, FIVE[:3])])))


def test_where_all_cells_share_one_seed_of_several_the_cells_are_told_and_not_their_means():
    grid = [({"model": model, LR: lr}, seeds(FIVE, 10 * (model == "b"))) for model in "ab" for lr in (0.1, 0.2)]
    found = reviewed(grid)
    assert found.effects == []
    assert "on average over" not in " ".join(answer(found))


def test_several_undecided_differences_are_told_with_intervals_the_largest_first():
    cells = [
        ({"model": f"m{n}"}, [0.5 + n * 0.001, 0.52, 0.55 - n * 0.001 + (0.03 if n == 3 else 0)]) for n in range(5)
    ]
    (sentence,) = answer(reviewed(cells))
    by_seed = np.array(cells[3][1]) - np.array(cells[0][1])
    low = 100 * ttest_rel(cells[3][1], cells[0][1]).confidence_interval().low
    largest = f"m3 (+{100 * by_seed.mean():.1f} points, 95 % interval {low:.1f}"
    assert sentence.startswith(f"Undecided whether they differ from the baseline: {largest}")
    assert ", 3 seeds each; " in sentence


# ---- claims --------------------------------------------------------------------------------------------------------------------


def test_a_claims_twin_is_as_its_cell_in_all_that_over_does_not_name():
    grid = [({**A, LR: 0.1}, [0.80, 0.81]), ({**A, LR: 0.2}, [0.90, 0.91]), ({**B, LR: 0.2}, [0.85, 0.87])]
    claim = {"says": "b is worse", "of": {**B, LR: 0.2}, "over": A, "below": 0.0}
    (verdict,) = verdicts(reviewed(grid, claims=[claim]))
    assert verdict.point == pytest.approx(-0.045)


@pytest.mark.parametrize(
    ("claim", "why"),
    [
        ({"of": {"model": "z"}}, "no cell has model=z"),
        ({"of": {"nosuch": None}}, "no cell has nosuch=None"),
        ({"of": A, "over": {"model": "z"}}, "no cell has model=z and is otherwise as one that has model=a"),
        ({"of": A, "over": A}, "no cell has model=a and is otherwise as one that has model=a"),
        ({"of": A, "metric": "test/f1"}, "no run of it has test/f1"),
        ({"of": C}, "no run of it has test/acc"),
        ({"of": A, "above": None}, "it says neither above nor below what"),
    ],
)
def test_a_claim_without_numbers_says_why(claim, why):
    (verdict,) = verdicts(reviewed([(A, FIVE), (B, FIVE), (C, [None])], claims=[{"says": "x", "above": 0.0, **claim}]))
    assert (verdict.outcome, verdict.why) == ("undecided", why)


# ---- marks ---------------------------------------------------------------------------------------------------------------------


def test_what_the_answer_tells_from_the_best_is_not_marked_as_like_it():
    worse = {name: [value - gap for value, gap in zip(FIVE, gaps, strict=True)] for name, gaps in {
        "b": (0.02, 0.03, 0.02, 0.01, 0.02), "c": (0.03, 0.01, 0.02, 0.02, 0.03), "d": (0.02, 0.01, 0.03, 0.02, 0.01)}.items()}  # fmt: skip
    found = reviewed([(A, FIVE), *(({"model": name}, values) for name, values in worse.items())])
    assert found.cells[0].best
    assert all(cell.p < 0.05 and not cell.alike for cell in found.cells[1:])


# ---- files that are gone or broken ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("listed", [True, False])
def test_a_finished_run_without_its_config_is_named(tmp_path, listed):
    folder = made.sweep(tmp_path / "s", [(A, seeds(FIVE)), (B, seeds(FIVE))], listed=listed)
    path = folder / made.directory(A, 0) / "config.yaml"
    path.unlink()
    assert f"1 file could not be read: {path}: is not there." in limits(review(read(folder)))


def test_a_single_run_without_its_config_is_told_as_that(tmp_path, capsys):
    path = made.run(tmp_path / "r", A)
    (path / "config.yaml").unlink()
    assert main(["report", str(path)]) == 2
    assert "config.yaml: is not there" in capsys.readouterr().err


@pytest.mark.parametrize("content", ["[]", "null", '{"state": 5}', '{"stat', "{}"])
@pytest.mark.parametrize("done", [True, False])
def test_a_broken_status_is_named_and_the_run_counts_by_its_result(tmp_path, content, done):
    folder = made.sweep(tmp_path / "s", [(A, {0: 0.5 if done else "running"}), (B, {0: 0.6})])
    path = folder / made.directory(A, 0) / "status.json"
    path.write_text(content)
    found = read(folder)
    assert [run.state for run in found.runs] == ["done" if done else "interrupted", "done"]
    assert found.problems == [f"{path}: is no status"]


DEEP = "[" * 100_000 + "]" * 100_000


@pytest.mark.parametrize(
    ("file", "content"),
    [("config.yaml", "a: &a {b: *a}"), ("config.yaml", DEEP[:2000]), ("result.json", DEEP)],
)
def test_what_leads_round_or_too_deep_is_named(tmp_path, file, content):
    folder = made.sweep(tmp_path / "s", [(A, {0: 0.5}), (B, {0: 0.6})])
    path = folder / made.directory(A, 0) / file
    path.write_text(content)
    report = make_report(folder)
    assert any(f"{path}: " in sentence for sentence in report.limits)


def test_choices_that_are_no_names_are_left_out(tmp_path):
    folder = made.sweep(tmp_path / "s", [(A, {0: {"config": {"choices.1": 2}}}), (B, {0: 0.6})])
    assert make_report(folder).answer


def test_a_loss_beyond_all_bounds_is_drawn_by_nobody(tmp_path):
    rows = made.epochs([1.0, 1e308, -1e308])
    folder = made.sweep(tmp_path / "s", [(A, {seed: {"epochs": rows} for seed in (0, 1)})])
    assert main(["report", str(folder)]) == 0


def test_pictures_without_pixels_are_named(tmp_path):
    outcome = {"logits": made.sayings([0, 1], 2), "targets": [1, 0], "images": {0: np.zeros((0, 0, 1), np.uint8)}}
    folder = made.sweep(tmp_path / "s", [(A, {0: outcome}), (B, {0: {**outcome, "images": None}})])
    assert any("mistakes.npz: cannot be read" in sentence for sentence in make_report(folder).limits)


def test_arms_of_different_numbers_of_classes_are_drawn_beside_each_other(tmp_path):
    three, four = ({"logits": made.sayings([0, 1, 2], classes), "targets": [0, 1, 1]} for classes in (3, 4))
    folder = made.sweep(tmp_path / "s", [(A, {0: three}), (B, {0: four})])
    assert [arm.confusion.shape for arm in make_report(folder).arms] == [(4, 4), (4, 4)]
    assert main(["report", str(folder)]) == 0


def test_it_is_told_of_how_many_runs_the_mistakes_are(tmp_path):
    said = {"logits": made.sayings([0, 1], 2), "targets": [0, 0]}
    other = {**said, "targets": [1, 1]}
    cells = [(A, {0: said, 1: 0.5, 2: 0.5}), (B, {0: said, 1: other}), (C, {0: said, 1: said})]
    found = make_report(made.sweep(tmp_path / "s", cells)).limits
    assert "What nets get wrong is of the runs alone that left their predictions: a (1 of 3)." in found
    assert next(text for text in found if text.startswith("What nets get wrong is not known of")).endswith(": b.")


# ---- what is counted -----------------------------------------------------------------------------------------------------------


def test_a_repetition_has_read_the_test_images_too(tmp_path):
    folder = made.sweep(tmp_path / "s", [(A, {0: 0.5}), (B, {0: 0.6})])
    made.run(folder / f"{made.directory(A, 0)}-2", A)
    sentence = limits(review(read(folder)))[-1]
    assert sentence.startswith("Test was read 3 times, 1 of them by runs of the same; ")


def test_of_test_sets_of_two_sizes_no_precision_is_told(tmp_path):
    cells = [(A, {0: {"result": {"n": {"test": 100}}}}), (B, {0: {"result": {"n": {"test": 1000}}}})]
    found = limits(review(read(made.sweep(tmp_path / "s", cells))))
    assert not any(sentence.startswith("Test has") for sentence in found)
    assert any("were not tested on the same images" in sentence for sentence in found)


def test_a_result_that_says_less_of_itself_is_not_of_another_make(tmp_path):
    bare = dict.fromkeys(("code", "versions", "hardware", "precision", "devices", "params", "macs", "n"))
    found = limits(
        review(read(made.sweep(tmp_path / "s", [(A, {0: 0.5}), (B, {0: {"accuracy": 0.5, "result": bare}})])))
    )
    assert not any("The runs were made with" in sentence or "differ in more" in sentence for sentence in found)


def test_results_without_test_accuracy_are_not_called_unfinished():
    runs = reviewed([(A, [0.5]), (B, [0.5])])
    for run in runs.runs.runs:
        run.result["metrics"].clear()
    assert answer(review(runs.runs)) == ["Nothing is known: no result of 2 runs holds a test accuracy."]


def test_an_empty_list_of_steps_is_none():
    found = reviewed([({"augment": []}, FIVE), ({"augment": ["crop"]}, FIVE)])
    assert [cell.label for cell in found.cells] == ["augment none", "augment crop"]


def test_a_run_is_called_by_its_folder_also_from_within(tmp_path, monkeypatch):
    path = made.run(tmp_path / "r", A, state="failed", reason="no luck")
    monkeypatch.chdir(path)
    assert "1 of 1 run failed: r (no luck)." in limits(review(read(path.relative_to(path))))


# ---- other forms ---------------------------------------------------------------------------------------------------------------


def test_markdown_takes_nothing_for_marks():
    assert plain("a&amp;$x^2$~b~") == r"a\&amp;\$x^2\$\~b\~"


def test_a_frame_of_what_has_just_begun_has_its_metrics_columns(tmp_path):
    frame = load_runs(made.sweep(tmp_path / "s", [(A, {0: "running"}), (B, {0: "missing"})]))
    assert frame.groupby("model")["test/acc"].count().to_dict() == {"a": 0, "b": 0}


def test_a_pipe_that_is_closed_ends_a_command_as_any_other(tmp_path):
    folder = made.sweep(tmp_path / "s", [({"model": f"m{n}"}, seeds(FIVE)) for n in range(200)])
    command = [sys.executable, "-m", "cnnbench", "report", "--text", str(folder)]
    shell = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    assert shell.stdout.readline().decode() == f"{folder}\n"
    shell.stdout.close()
    assert shell.wait() == 141
    assert shell.stderr.read() == b""


def test_a_baseline_or_claim_that_no_job_has_is_noted_before_anything_runs(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    claim = "{says: it wins,of:{model:resnet18},above:0}"
    typed = ["init=torch,paddle", "trainer=cpu", f"sweep.claims=[{claim}]", "sweep.baseline={init:zeros}"]
    assert main(["plan", "-m", *typed]) == 0
    said = " ".join(capsys.readouterr().out.split())
    assert "no job has what the baseline is about: init=zeros; there is torch, paddle" in said
    assert "no job has what the claim that it wins is about: model=resnet18; there is lenet5" in said


@pytest.mark.parametrize(
    "claim", ["{says: x,of:{model:a},above:0.9,below:0.5}", "{says: x,of:{model:a},above:0,metric:test/f1}"]
)
def test_a_claim_that_can_never_hold_is_refused(claim, capsys):
    assert main(["plan", "-m", "seed=0,1", f"sweep.claims=[{claim}]"]) == 2
    assert capsys.readouterr().err.startswith("cnnbench: sweep.claims=")


def test_the_command_that_repeats_a_run_says_where_to_put_it_where_its_folder_has_no_runs_name(tmp_path):
    odd = made.sweep(tmp_path / "my sw, ü", [(A, {0: 0.5})])
    (run,) = read(odd).runs
    assert repeating(run) == f"python -m cnnbench reproduce '{odd}/{run.name}' runs_dir=runs --trust"


def test_the_command_that_repeats_a_run_is_typed_anywhere(tmp_path, monkeypatch):
    path = made.run(tmp_path / "r", A)
    monkeypatch.chdir(path)
    (run,) = read(path.relative_to(path)).runs
    assert f"reproduce {path} " in repeating(run)
