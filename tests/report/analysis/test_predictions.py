"""What nets get wrong, against scikit-learn and hand computation."""

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
from cnnbench.report.analysis import predictions as mistakes
from cnnbench.report.analysis.comparisons import review
from cnnbench.report.analysis.report_data import ARMS, make_report
from cnnbench.report.load.sweep import read

A, B = {"model": "a"}, {"model": "b"}
RNG = np.random.default_rng(1)
TARGETS = RNG.integers(0, 4, 300)
LOGITS = [RNG.normal(0, 1, (300, 4)) + 1.5 * np.eye(4)[TARGETS] for _ in range(4)]

ARRAY = io.BytesIO()
np.save(ARRAY, np.zeros(3))
_MADE = io.BytesIO()
np.savez_compressed(_MADE, logits=LOGITS[0], targets=TARGETS)
ARCHIVE = _MADE.getvalue()


def said(logits, targets=TARGETS, **more):
    return {"logits": logits, "targets": targets, **more}


def arm(tmp_path, outcomes):
    """The arm of one cell, and what could not be read."""
    (cell,) = review(read(made.sweep(tmp_path / "s", [(A, outcomes)]))).cells
    problems = []
    return mistakes.arm_of(cell, problems), problems


def reported(tmp_path, ours, theirs, **asked):
    return make_report(made.sweep(tmp_path / "s", [(A, theirs), (B, ours)], **asked))


# ---- one arm -----------------------------------------------------------------------------------------------------------------


def test_a_prediction_is_softmaxs():
    found = mistakes.predicted(LOGITS[0].astype(np.float32), TARGETS)
    shares = softmax(LOGITS[0], axis=1)
    assert (found.said == shares.argmax(1)).all()
    assert found.confidence == pytest.approx(shares.max(1), rel=1e-5)
    assert found.loss.mean() == pytest.approx(log_loss(TARGETS, shares), rel=1e-5)


def test_logits_of_any_size_give_confidences_within_0_and_1():
    found = mistakes.predicted(np.array([[1e30, -1e30], [0, 0]], np.float32), np.array([0, 1]))
    assert found.confidence.tolist() == [1.0, 0.5]


def test_confusion_is_the_sum_of_scikit_learns_over_the_runs(tmp_path):
    found, _ = arm(tmp_path, {0: said(LOGITS[0]), 1: said(LOGITS[1])})
    wanted = sum(confusion_matrix(TARGETS, logits.argmax(1)) for logits in LOGITS[:2])
    assert (found.confusion == wanted).all()
    assert found.per_class == pytest.approx(wanted.diagonal() / wanted.sum(1))


def test_share_is_how_many_of_the_runs_are_right(tmp_path):
    found, _ = arm(tmp_path, {seed: said(logits) for seed, logits in enumerate(LOGITS[:3])})
    assert found.share == pytest.approx(np.mean([logits.argmax(1) == TARGETS for logits in LOGITS[:3]], axis=0))


def test_a_class_without_images_has_no_accuracy(tmp_path):
    found, _ = arm(tmp_path, {0: said(made.sayings([0, 1], 3), [0, 0])})
    assert found.per_class[0] == 0.5
    assert np.isnan(found.per_class[1:]).all()


def test_a_failed_run_is_in_no_confusion(tmp_path):
    found, _ = arm(tmp_path, {0: said(LOGITS[0]), 1: said(LOGITS[1], state="failed")})
    assert found.seeds == 1


def test_a_cell_without_predictions_has_no_arm(tmp_path):
    assert arm(tmp_path, {0: 0.5}) == (None, [])


def test_runs_on_other_images_have_no_arm_together(tmp_path):
    assert arm(tmp_path, {0: said(LOGITS[0]), 1: said(LOGITS[1], TARGETS[::-1])})[0] is None


@pytest.mark.parametrize(
    ("logits", "targets"),
    [([[np.nan, 0]], [0]), ([[np.inf, 0]], [0]), ([[1, 0]], [2]), ([[1, 0]], [-1]), ([1, 0], [0, 1]), ([[1, 0]], [0, 1]),
     (np.zeros((0, 2)), []), (np.zeros((2, 0)), [0, 0]), ([[1, 0]], [[0]])],
)  # fmt: skip
def test_predictions_that_make_no_sense_are_named(tmp_path, logits, targets):
    found, problems = arm(tmp_path, {0: said(logits, targets)})
    assert found is None
    assert [problem.partition(": ")[0].endswith("predictions.npz") for problem in problems] == [True]


@pytest.mark.parametrize(
    "content",
    [b"", b"PK\x03\x04", b"no archive", ARRAY.getvalue(), ARCHIVE[:-200], ARCHIVE[:200] + b"x" * 99 + ARCHIVE[299:]],
)
def test_predictions_that_are_no_archive_are_named(tmp_path, content):
    folder = made.sweep(tmp_path / "s", [(A, {0: said(LOGITS[0])})])
    path = folder / made.directory(A, 0) / "predictions.npz"
    path.write_bytes(content)
    report = make_report(folder)
    assert report.arms == []
    assert any(f"{path}: cannot be read" in sentence for sentence in report.limits)


def test_the_calibration_error_is_the_gap_of_each_bin_weighted_by_its_images():
    confidence, right = np.array([[0.9, 0.9, 0.55, 0.55]]), np.array([[True, False, True, True]])
    # bins of 0.9 and of 0.55: |1/2 - 0.9| and |1 - 0.55|, half of the images in each
    assert stats.calibration(confidence[0], right[0]).ece == pytest.approx((0.4 + 0.45) / 2)


# ---- two arms ----------------------------------------------------------------------------------------------------------------


def test_mcnemar_is_the_exact_test_of_the_images_on_which_two_runs_differ(tmp_path):
    (pair,) = reported(tmp_path, {0: said(LOGITS[0])}, {0: said(LOGITS[1])}).comparisons
    ours, theirs = (logits.argmax(1) == TARGETS for logits in LOGITS[:2])
    only = (ours & ~theirs).sum(), (theirs & ~ours).sum()
    assert pair.only == only
    assert pair.p == pytest.approx(binomtest(only[0], sum(only)).pvalue)
    assert pair.difference.point == pytest.approx(ours.mean() - theirs.mean())


def test_with_several_runs_an_image_counts_for_the_arm_more_of_whose_runs_are_right(tmp_path):
    (pair,) = reported(
        tmp_path, dict(enumerate(map(said, LOGITS[:2]))), dict(enumerate(map(said, LOGITS[2:])))
    ).comparisons
    ours, theirs = (np.mean([logits.argmax(1) == TARGETS for logits in two], 0) for two in (LOGITS[:2], LOGITS[2:]))
    only = (ours > theirs).sum(), (ours < theirs).sum()
    assert pair.only == only
    assert pair.p == pytest.approx(binomtest(only[0], sum(only)).pvalue)


def test_any_two_arms_are_compared_with_their_p_after_holm_over_all_pairs(tmp_path):
    cells = [({"model": name}, {0: said(logits)}) for name, logits in zip("abcd", LOGITS, strict=True)]
    report = make_report(made.sweep(tmp_path / "s", cells))
    right = dict(zip("abcd", (logits.argmax(1) == TARGETS for logits in LOGITS), strict=True))
    pairs = [*("ba", "ca", "da"), *("cb", "db", "dc")]  # the baseline's first
    p_values = [mcnemar(table(right[a], right[b]), exact=True).pvalue for a, b in pairs]
    corrected = dict(zip(pairs, multipletests(p_values, method="holm")[1], strict=True))
    found = {f"{each.ours.cell.label[-1]}{each.theirs.cell.label[-1]}": each.p for each in report.others}
    assert found == pytest.approx({pair: corrected[pair] for pair in pairs[3:]})
    assert len(report.comparisons) == 3


def table(ours, theirs):
    return [[(ours & theirs).sum(), (ours & ~theirs).sum()], [(theirs & ~ours).sum(), (~ours & ~theirs).sum()]]


def test_of_very_many_arms_any_two_of_the_first_are_compared(tmp_path):
    cells = [({"model": f"m{number}"}, {0: said(LOGITS[number % 4])}) for number in range(ARMS + 2)]
    report = make_report(made.sweep(tmp_path / "s", cells))
    assert len(report.comparisons) == ARMS + 1
    assert len(report.others) == (ARMS - 1) * (ARMS - 2) // 2


def test_arms_on_other_images_are_not_compared(tmp_path):
    report = reported(tmp_path, {0: said(LOGITS[0])}, {0: said(LOGITS[1], TARGETS[::-1])})
    assert report.comparisons == report.others == []


# ---- galleries ---------------------------------------------------------------------------------------------------------------


def pictures(count, size=4):
    return {place: np.full((size, size, 1), place, np.uint8) for place in range(count)}


def test_the_most_missed_images_come_first_and_only_those_with_a_picture(tmp_path):
    outcomes = {
        seed: said(made.sayings(says, 2), [0, 0, 0, 0]) for seed, says in enumerate(([1, 1, 0, 1], [0, 1, 0, 1]))
    }
    found, _ = arm(tmp_path, outcomes)
    missed = mistakes.most_missed([found], {0: None, 1: None, 2: None})
    assert [(image.index, image.said) for image in missed] == [(1, [(1, 0.0)])]  # the first is missed by half


def test_only_first_is_right_for_one_and_wrong_for_the_other(tmp_path):
    targets = [0, 0, 0, 0]
    report = reported(
        tmp_path,
        {0: said(made.sayings([0, 1, 0, 1], 2), targets, images=pictures(4))},
        {0: said(made.sayings([1, 0, 0, 1], 2), targets)},
    )
    theirs, ours = report.arms
    assert [image.index for image in mistakes.only_first(ours, theirs, report.pictures)] == [0]
    assert [image.index for image in mistakes.only_first(theirs, ours, report.pictures)] == [1]


def test_a_gallery_has_so_many_images_at_most(tmp_path):
    found, _ = arm(tmp_path, {0: said(made.sayings([1] * 50, 2), [0] * 50)})
    assert len(mistakes.most_missed([found], pictures(50))) == mistakes.SHOWN


def test_pictures_of_another_data_set_are_not_shown(tmp_path):
    ours = {0: said(LOGITS[0], images={3: np.full((4, 4, 1), 7, np.uint8)})}
    theirs = {0: said(LOGITS[1], TARGETS[::-1], images={5: np.full((4, 4, 1), 8, np.uint8)})}
    assert reported(tmp_path, ours, theirs).pictures.keys() == {5}


@pytest.mark.parametrize(
    "image", [np.zeros((4, 4, 2), np.uint8), np.zeros((4, 4, 1), np.float32), np.zeros((4, 4), np.uint8)]
)
def test_pictures_that_are_none_are_named(tmp_path, image):
    folder = made.sweep(tmp_path / "s", [(A, {0: said(LOGITS[0], images={0: image})})])
    problems = []
    assert mistakes.pictures_of(read(folder).done, problems) == {}
    assert [problem.partition(": ")[0].endswith("mistakes.npz") for problem in problems] == [True]


@pytest.mark.parametrize("channels", [1, 3])
def test_a_picture_comes_out_as_it_went_in(channels):
    image = np.random.default_rng(0).integers(0, 256, (5, 7, channels), dtype=np.uint8)
    head, _, content = mistakes.as_uri(image).partition(",")
    read_back = np.asarray(Image.open(io.BytesIO(base64.b64decode(content))))
    assert head == "data:image/png;base64"
    assert (read_back.reshape(image.shape) == image).all()


def test_classes_are_named_by_the_results_else_by_number(tmp_path):
    folder = made.sweep(tmp_path / "s", [(A, {0: 0.5, 1: {"result": {"classes": ["cat", "dog"]}}})])
    runs = read(folder).done
    assert mistakes.class_names(runs, 2) == ["cat", "dog"]
    assert mistakes.class_names(runs, 3) == ["0", "1", "2"]
