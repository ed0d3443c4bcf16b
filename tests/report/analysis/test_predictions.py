"""Predictions, confusion and galleries against scikit-learn and hand computation."""

from __future__ import annotations

import base64
import io

import numpy as np
import pytest
from PIL import Image
from scipy.special import softmax
from scipy.stats import binomtest
from sklearn.metrics import confusion_matrix, log_loss
from statsmodels.stats.contingency_tables import mcnemar
from statsmodels.stats.multitest import multipletests

import made_sweeps as made
from cnnbench import stats
from cnnbench.report.analysis import predictions
from cnnbench.report.analysis.comparisons import review
from cnnbench.report.analysis.report_data import MAX_CELLS_COMPARED, make_report
from cnnbench.report.load.sweep import read_runs

A, B = {"model": "a"}, {"model": "b"}
RNG = np.random.default_rng(1)
TARGETS = RNG.integers(0, 4, 300)
LOGITS = [RNG.normal(0, 1, (300, 4)) + 1.5 * np.eye(4)[TARGETS] for _ in range(4)]

ARRAY = io.BytesIO()
np.save(ARRAY, np.zeros(3))
_MADE = io.BytesIO()
np.savez_compressed(_MADE, logits=LOGITS[0], targets=TARGETS)
ARCHIVE = _MADE.getvalue()


def outcome(logits, targets=TARGETS, **more):
    """A finished run with these logits."""
    return {"logits": logits, "targets": targets, **more}


def predictions_of(tmp_path, outcomes):
    """The predictions of one cell, and the problems."""
    (cell,) = review(read_runs(made.sweep(tmp_path / "s", [(A, outcomes)]))).cells
    problems = []
    return predictions.predictions_of_cell(0, cell, problems), problems


def report_of(tmp_path, ours, theirs):
    """The report on two cells, B and its baseline A."""
    return make_report(made.sweep(tmp_path / "s", [(A, theirs), (B, ours)]))


# ---- one cell -------------------------------------------------------------------------------------------------------------


def test_predictions_are_those_of_softmax():
    found = predictions.predictions_from_logits(LOGITS[0].astype(np.float32), TARGETS)
    shares = softmax(LOGITS[0], axis=1)
    assert (found.predicted == shares.argmax(1)).all()
    assert found.confidence == pytest.approx(shares.max(1), rel=1e-5)
    assert found.loss.mean() == pytest.approx(log_loss(TARGETS, shares), rel=1e-5)


def test_logits_of_any_size_give_confidences_within_0_and_1():
    found = predictions.predictions_from_logits(np.array([[1e30, -1e30], [0, 0]], np.float32), np.array([0, 1]))
    assert found.confidence.tolist() == [1.0, 0.5]


def test_confusion_is_the_sum_of_that_of_scikit_learn_over_the_runs(tmp_path):
    found, _ = predictions_of(tmp_path, {0: outcome(LOGITS[0]), 1: outcome(LOGITS[1])})
    expected = sum(confusion_matrix(TARGETS, logits.argmax(1)) for logits in LOGITS[:2])
    assert (found.confusion == expected).all()
    assert found.per_class == pytest.approx(expected.diagonal() / expected.sum(1))


def test_share_correct_is_the_fraction_of_runs_that_are_correct(tmp_path):
    found, _ = predictions_of(tmp_path, {seed: outcome(logits) for seed, logits in enumerate(LOGITS[:3])})
    assert found.share_correct == pytest.approx(np.mean([logits.argmax(1) == TARGETS for logits in LOGITS[:3]], axis=0))


def test_a_class_without_images_has_no_accuracy(tmp_path):
    found, _ = predictions_of(tmp_path, {0: outcome(made.logits_for([0, 1], 3), [0, 0])})
    assert found.per_class[0] == 0.5
    assert np.isnan(found.per_class[1:]).all()


def test_a_failed_run_is_not_in_the_confusion(tmp_path):
    found, _ = predictions_of(tmp_path, {0: outcome(LOGITS[0]), 1: outcome(LOGITS[1], state="failed")})
    assert found.seeds == 1


def test_a_cell_without_saved_predictions_has_none(tmp_path):
    assert predictions_of(tmp_path, {0: 0.5}) == (None, [])


def test_runs_on_different_images_are_not_combined(tmp_path):
    assert predictions_of(tmp_path, {0: outcome(LOGITS[0]), 1: outcome(LOGITS[1], TARGETS[::-1])})[0] is None


@pytest.mark.parametrize(
    ("logits", "targets"),
    [([[np.nan, 0]], [0]), ([[np.inf, 0]], [0]), ([[1, 0]], [2]), ([[1, 0]], [-1]), ([1, 0], [0, 1]), ([[1, 0]], [0, 1]),
     (np.zeros((0, 2)), []), (np.zeros((2, 0)), [0, 0]), ([[1, 0]], [[0]])],
)  # fmt: skip
def test_predictions_of_wrong_shape_or_value_are_named(tmp_path, logits, targets):
    found, problems = predictions_of(tmp_path, {0: outcome(logits, targets)})
    assert found is None
    assert [problem.partition(": ")[0].endswith("predictions.npz") for problem in problems] == [True]


@pytest.mark.parametrize(
    "content",
    [b"", b"PK\x03\x04", b"no archive", ARRAY.getvalue(), ARCHIVE[:-200], ARCHIVE[:200] + b"x" * 99 + ARCHIVE[299:]],
)
def test_a_predictions_file_that_is_not_an_archive_is_named(tmp_path, content):
    folder = made.sweep(tmp_path / "s", [(A, {0: outcome(LOGITS[0])})])
    path = folder / made.directory(A, 0) / "predictions.npz"
    path.write_bytes(content)
    report = make_report(folder)
    assert report.cell_predictions == []
    assert any(f"{path}: cannot be read" in sentence for sentence in report.limits)


def test_the_calibration_error_is_the_mean_gap_of_the_bins_weighted_by_images():
    confidence, correct = [0.9, 0.9, 0.55, 0.55], [True, False, True, True]
    # bins of 0.9 and of 0.55: |1/2 - 0.9| and |1 - 0.55|, half of the images in each
    assert stats.calibration(confidence, correct).ece == pytest.approx((0.4 + 0.45) / 2)


# ---- two cells ------------------------------------------------------------------------------------------------------------


def test_single_runs_are_compared_by_the_exact_test_of_mcnemar(tmp_path):
    (pair,) = report_of(tmp_path, {0: outcome(LOGITS[0])}, {0: outcome(LOGITS[1])}).comparisons
    ours, theirs = (logits.argmax(1) == TARGETS for logits in LOGITS[:2])
    only = (ours & ~theirs).sum(), (theirs & ~ours).sum()
    assert pair.only == only
    assert pair.p == pytest.approx(binomtest(only[0], sum(only)).pvalue)
    assert pair.difference.point == pytest.approx(ours.mean() - theirs.mean())


def test_with_several_runs_an_image_counts_for_the_cell_with_more_correct_runs(tmp_path):
    (pair,) = report_of(
        tmp_path, dict(enumerate(map(outcome, LOGITS[:2]))), dict(enumerate(map(outcome, LOGITS[2:])))
    ).comparisons
    ours, theirs = (np.mean([logits.argmax(1) == TARGETS for logits in two], 0) for two in (LOGITS[:2], LOGITS[2:]))
    only = (ours > theirs).sum(), (ours < theirs).sum()
    assert pair.only == only
    assert pair.p == pytest.approx(binomtest(only[0], sum(only)).pvalue)


def test_any_two_cells_are_compared_with_p_corrected_over_all_pairs(tmp_path):
    cells = [({"model": name}, {0: outcome(logits)}) for name, logits in zip("abcd", LOGITS, strict=True)]
    report = make_report(made.sweep(tmp_path / "s", cells))
    correct = dict(zip("abcd", (logits.argmax(1) == TARGETS for logits in LOGITS), strict=True))
    pairs = [*("ba", "ca", "da"), *("cb", "db", "dc")]  # the baseline's first
    p_values = [mcnemar(table(correct[a], correct[b]), exact=True).pvalue for a, b in pairs]
    corrected = dict(zip(pairs, multipletests(p_values, method="holm")[1], strict=True))
    found = {f"{each.ours.cell.label[-1]}{each.theirs.cell.label[-1]}": each.p for each in report.other_comparisons}
    assert found == pytest.approx({pair: corrected[pair] for pair in pairs[3:]})
    assert len(report.comparisons) == 3


def table(ours, theirs):
    return [[(ours & theirs).sum(), (ours & ~theirs).sum()], [(theirs & ~ours).sum(), (~ours & ~theirs).sum()]]


def test_of_many_cells_any_two_of_the_first_are_compared(tmp_path):
    cells = [({"model": f"m{number}"}, {0: outcome(LOGITS[number % 4])}) for number in range(MAX_CELLS_COMPARED + 2)]
    report = make_report(made.sweep(tmp_path / "s", cells))
    assert len(report.comparisons) == MAX_CELLS_COMPARED + 1
    assert len(report.other_comparisons) == (MAX_CELLS_COMPARED - 1) * (MAX_CELLS_COMPARED - 2) // 2


def test_cells_on_different_images_are_not_compared(tmp_path):
    report = report_of(tmp_path, {0: outcome(LOGITS[0])}, {0: outcome(LOGITS[1], TARGETS[::-1])})
    assert report.comparisons == report.other_comparisons == []


# ---- galleries ------------------------------------------------------------------------------------------------------------


def saved_images(count, size=4):
    """The images of a mistakes.npz, by index."""
    return {place: np.full((size, size, 1), place, np.uint8) for place in range(count)}


def test_images_that_most_runs_get_wrong_are_selected_if_they_are_saved(tmp_path):
    outcomes = {
        seed: outcome(made.logits_for(classes, 2), [0, 0, 0, 0])
        for seed, classes in enumerate(([1, 1, 0, 1], [0, 1, 0, 1]))
    }
    found, _ = predictions_of(tmp_path, outcomes)
    wrong = predictions.most_misclassified([found], {0: None, 1: None, 2: None})
    # half of the runs get the first wrong
    assert [(image.index, image.predicted) for image in wrong] == [(1, [(1, 0.0)])]


def test_images_that_only_one_cell_gets_right_are_selected(tmp_path):
    targets = [0, 0, 0, 0]
    report = report_of(
        tmp_path,
        {0: outcome(made.logits_for([0, 1, 0, 1], 2), targets, images=saved_images(4))},
        {0: outcome(made.logits_for([1, 0, 0, 1], 2), targets)},
    )
    theirs, ours = report.cell_predictions
    assert [image.index for image in predictions.correct_only_in_first(ours, theirs, report.images)] == [0]
    assert [image.index for image in predictions.correct_only_in_first(theirs, ours, report.images)] == [1]


def test_the_number_of_images_in_a_gallery_is_limited(tmp_path):
    found, _ = predictions_of(tmp_path, {0: outcome(made.logits_for([1] * 50, 2), [0] * 50)})
    assert len(predictions.most_misclassified([found], saved_images(50))) == predictions.MAX_IMAGES


def test_images_of_another_test_split_are_not_shown(tmp_path):
    ours = {0: outcome(LOGITS[0], images={3: np.full((4, 4, 1), 7, np.uint8)})}
    theirs = {0: outcome(LOGITS[1], TARGETS[::-1], images={5: np.full((4, 4, 1), 8, np.uint8)})}
    assert report_of(tmp_path, ours, theirs).images.keys() == {5}


@pytest.mark.parametrize(
    "image", [np.zeros((4, 4, 2), np.uint8), np.zeros((4, 4, 1), np.float32), np.zeros((4, 4), np.uint8)]
)
def test_saved_images_of_wrong_shape_or_type_are_named(tmp_path, image):
    folder = made.sweep(tmp_path / "s", [(A, {0: outcome(LOGITS[0], images={0: image})})])
    problems = []
    assert predictions.load_images(read_runs(folder).done, problems) == {}
    assert [problem.partition(": ")[0].endswith("mistakes.npz") for problem in problems] == [True]


@pytest.mark.parametrize("channels", [1, 3])
def test_an_encoded_image_decodes_to_itself(channels):
    image = np.random.default_rng(0).integers(0, 256, (5, 7, channels), dtype=np.uint8)
    head, _, content = predictions.png_data_uri(image).partition(",")
    read_back = np.asarray(Image.open(io.BytesIO(base64.b64decode(content))))
    assert head == "data:image/png;base64"
    assert (read_back.reshape(image.shape) == image).all()


def test_class_names_come_from_a_result_else_are_numbers(tmp_path):
    folder = made.sweep(tmp_path / "s", [(A, {0: 0.5, 1: {"result": {"classes": ["cat", "dog"]}}})])
    runs = read_runs(folder).done
    assert predictions.class_names(runs, 2) == ["cat", "dog"]
    assert predictions.class_names(runs, 3) == ["0", "1", "2"]
