"""Label noise: how many labels change, which and to what; validation and test labels never do."""

from __future__ import annotations

import hashlib
import json

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from cnnbench.__main__ import main
from cnnbench.config.compose import compose
from cnnbench.data.sets.mnist5k import MNIST5k
from cnnbench.data.sets.synthetic import Synthetic
from cnnbench.data.splits import mislabel
from cnnbench.training.factories import build_data
from cnnbench.training.run import run
from cnnbench.training.validate import prepare
from datafiles import ready

IMPOSSIBLE = 1e-6  # a smaller p-value is significant; the seeds are fixed
DIGITS = np.arange(4000) % 10

shares = st.floats(0, 0.999)
seeds = st.integers(0, 2**32 - 1)
some_labels = st.lists(st.integers(0, 5), min_size=1, max_size=150).map(np.array)


# ---- the function ----------------------------------------------------------------------------------------------------


@pytest.mark.slow
@given(labels=some_labels, share=shares, seed=seeds)
@settings(max_examples=150, deadline=None)
def test_the_number_of_changed_labels_is_the_rounded_share(labels, share, seed):
    assert (mislabel(labels, share, 6, seed) != labels).sum() == round(len(labels) * share)


@given(labels=some_labels, share=shares, seed=seeds)
@settings(max_examples=100, deadline=None)
def test_every_wrong_label_is_a_valid_class(labels, share, seed):
    noisy = mislabel(labels, share, 6, seed)
    assert noisy.min() >= 0
    assert noisy.max() < 6
    assert noisy.dtype == labels.dtype


@given(labels=some_labels, one=shares, other=shares, seed=seeds)
@settings(max_examples=100, deadline=None)
def test_a_larger_share_changes_the_same_labels_and_further_ones(labels, one, other, seed):
    small, large = (mislabel(labels, share, 6, seed) for share in sorted([one, other]))
    changed = small != labels
    assert (large[changed] == small[changed]).all()


@pytest.mark.parametrize("share", [0.1, 0.5, 0.9])
def test_with_two_classes_the_wrong_class_is_the_other_one(share):
    labels = np.arange(100) % 2
    noisy = mislabel(labels, share, 2, 0)
    assert (noisy[noisy != labels] == 1 - labels[noisy != labels]).all()


@pytest.mark.parametrize("true", [0, 3, 9])
def test_every_other_class_is_equally_likely(true):
    noisy = mislabel(np.full(40_000, true), 0.5, 10, 1)
    counts = np.delete(np.bincount(noisy, minlength=10), true)
    assert counts.sum() == 20_000
    assert stats.chisquare(counts).pvalue > IMPOSSIBLE


def test_the_wrong_class_does_not_depend_on_the_true_one():
    labels = np.arange(60_000) % 10
    steps = (mislabel(labels, 0.9, 10, 2) - labels) % 10
    table = [np.bincount(steps[labels == label], minlength=10)[1:] for label in range(10)]
    assert stats.chi2_contingency(table).pvalue > IMPOSSIBLE


def test_every_image_is_equally_likely_to_be_mislabelled():
    labels = np.zeros(50, dtype=np.int64)
    changed = sum(mislabel(labels, 0.2, 10, seed) != labels for seed in range(2000))
    # each is binomial(2000, 1/5): mean 400, deviation 17.9; six deviations
    assert changed.sum() == 20_000
    assert abs(changed - 400).max() < 108


def test_every_class_is_equally_likely_to_be_mislabelled():
    noisy = mislabel(DIGITS, 0.5, 10, 3)
    assert stats.chisquare(np.bincount(DIGITS[noisy != DIGITS], minlength=10)).pvalue > IMPOSSIBLE


def test_another_seed_changes_other_labels():
    drawn = {tuple(np.flatnonzero(mislabel(DIGITS, 0.1, 10, seed) != DIGITS)) for seed in range(20)}
    assert len(drawn) == 20


def test_a_draw_depends_on_its_arguments_only_and_not_on_global_generators():
    np.random.seed(5)
    torch.manual_seed(5)
    expected = np.random.random(), torch.rand(1).item()
    np.random.seed(5)
    torch.manual_seed(5)
    one = mislabel(DIGITS, 0.3, 10, 7)
    assert (np.random.random(), torch.rand(1).item()) == expected
    np.testing.assert_array_equal(one, mislabel(DIGITS, 0.3, 10, 7))


@pytest.mark.parametrize("share", [0.0, 0.0001, 0.3])
def test_the_given_labels_are_not_changed(share):
    labels = DIGITS.copy()
    mislabel(labels, share, 10, 0)
    np.testing.assert_array_equal(labels, DIGITS)


# ---- data sets -------------------------------------------------------------------------------------------------------

FIXED = {"train_size": [0, 400], "val_size": [4000, 4500]}  # a split without random numbers


def test_a_fifth_of_mnist5ks_4000_labels_is_changed():
    clean, noisy = (ready(MNIST5k(label_noise=share)) for share in (0.0, 0.2))
    assert (clean.images["train"].labels != noisy.images["train"].labels).sum() == 800


def test_label_noise_changes_neither_pixels_nor_split():
    clean, noisy = (ready(MNIST5k(**FIXED, label_noise=share)) for share in (0.0, 0.5))
    assert torch.equal(clean.images["train"].pixels, noisy.images["train"].pixels)
    assert clean.split_hash == noisy.split_hash


@pytest.mark.parametrize("split", ["val", "test"])
def test_validation_and_test_labels_are_never_changed(split):
    clean, noisy = (ready(MNIST5k(label_noise=share)) for share in (0.0, 0.9))
    assert torch.equal(clean.images[split].labels, noisy.images[split].labels)


def test_the_wrong_labels_are_the_same_for_every_seed_of_a_run():
    sizes = ["data=mnist5k", "data.label_noise=0.3"]
    one, other = (ready(build_data(compose([*sizes, f"seed={seed}"]))) for seed in (0, 1))
    assert torch.equal(one.images["train"].labels, other.images["train"].labels)


def test_the_split_seed_selects_the_wrong_labels():
    one, other = (ready(MNIST5k(**FIXED, label_noise=0.3, split_seed=seed)) for seed in (0, 1))
    assert one.indices["train"].tolist() == other.indices["train"].tolist()
    assert not torch.equal(one.images["train"].labels, other.images["train"].labels)


def test_shares_of_a_data_set_are_nested():
    clean, small, large = (ready(MNIST5k(**FIXED, label_noise=share)).images["train"].labels for share in (0, 0.1, 0.4))
    changed = small != clean
    assert changed.sum() == 40
    assert torch.equal(large[changed], small[changed])


@pytest.mark.parametrize("keys", [{"fraction": 0.1}, {"train_size": 123}, {"train_size": [7, 30]}])
def test_the_share_is_of_the_images_in_use(keys):
    clean, noisy = (ready(MNIST5k(**keys, label_noise=share)).images["train"].labels for share in (0.0, 0.25))
    assert (clean != noisy).sum() == round(0.25 * len(clean))


def test_setting_up_twice_changes_no_further_labels():
    data = ready(MNIST5k(label_noise=0.3))
    before = data.images["train"].labels.clone()
    for stage in ("fit", "validate", "test"):
        data.setup(stage)
    assert torch.equal(data.images["train"].labels, before)


def test_training_uses_the_wrong_labels():
    data = ready(MNIST5k(**FIXED, label_noise=0.5))
    loader = data.train_dataloader()
    seen = torch.cat([labels for _, labels in loader])
    assert torch.equal(seen, data.images["train"].labels[torch.from_numpy(loader.order(0))])


def test_label_noise_applies_to_sets_without_files():
    keys = {"train_size": 100, "val_size": 20, "test_size": 20, "num_classes": 3}
    clean, noisy = (ready(Synthetic(**keys, label_noise=share)) for share in (0.0, 0.5))
    assert (clean.images["train"].labels != noisy.images["train"].labels).sum() == 50
    assert noisy.images["train"].labels.max() == 2


# ---- the hash --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("share", "known"), [(0.0, "10f3f9ded685d1af"), (0.2, "a1cfe796220e5809")])
def test_the_label_hash_of_mnist5k_is_a_constant(share, known):
    data = ready(MNIST5k(label_noise=share))
    labels = data.images["train"].labels.numpy().astype("<i8")
    assert data.label_hash == hashlib.sha256(b"4000:" + labels.tobytes()).hexdigest()[:16] == known


def test_the_label_hash_changes_with_the_share_and_its_seed_and_not_with_the_runs_seed():
    variants = [{}, {"label_noise": 0.1}, {"label_noise": 0.2}, {"label_noise": 0.2, "split_seed": 1}]
    assert len({ready(MNIST5k(**FIXED, **keys)).label_hash for keys in variants}) == 4
    noise = ["data=mnist5k", "data.label_noise=0.2"]
    one, other = (ready(build_data(compose([*noise, *keys]))) for keys in ([], ["seed=5", "batch_size=7"]))
    assert one.label_hash == other.label_hash


@pytest.mark.slow
def test_the_label_hash_is_in_the_result(tmp_path, tiny):
    config = compose([*tiny, "data.label_noise=0.3", f"runs_dir={tmp_path / 'runs'}"])
    outcome = run(config)
    data = build_data(config)
    data.prepare_data()
    data.setup("fit")
    assert json.loads(outcome.directory.result.read_text())["label_hash"] == data.label_hash
    assert data.label_hash != ready(build_data(compose(tiny))).label_hash


@pytest.mark.slow
def test_the_share_is_part_of_a_runs_identity(tiny):
    clean, noisy = (prepare(compose([*tiny, f"data.label_noise={share}"])).config for share in (0, 0.1))
    assert clean.identity() != noisy.identity()


@pytest.mark.parametrize("value", ["-0.1", "1", "1.5", "a", "null", "nan", "inf", "[0.1]", "true"])
def test_an_invalid_share_is_one_clear_line(tmp_path, capsys, monkeypatch, value):
    monkeypatch.chdir(tmp_path)
    assert main([f"data.label_noise={value}"]) == 2
    out, err = capsys.readouterr()
    assert (
        err
        == f"cnnbench: data.label_noise={value}: expected a number from 0, below 1; for instance data.label_noise=0.2\n"
    )
    assert out == ""
    assert not list(tmp_path.iterdir())
