"""Splits, against counts by hand, scikit-learn's stratified counts, and properties for random labels."""

from __future__ import annotations

import re

import numpy as np
import pytest
from hypothesis import assume, example, given, settings
from hypothesis import strategies as st
from sklearn.model_selection import StratifiedShuffleSplit

from cnnbench.data.splits import size_indices, split_hash, split_train, stratified
from cnnbench.errors import ConfigError, DataError

DIGITS = np.arange(1000) % 10
SIXTY_THOUSAND = np.arange(60_000) % 10

some_labels = st.lists(st.integers(0, 5), min_size=4, max_size=150).map(np.array)
seeds = st.integers(0, 2**32 - 1)


@st.composite
def sizes_that_fit(draw):
    """Labels, and keys of `split_train` that fit them."""
    labels = draw(st.lists(st.integers(0, 5), min_size=20, max_size=200).map(np.array))
    total = len(labels)
    train = draw(st.one_of(st.none(), st.integers(1, total // 2), st.tuples(st.just(total // 4), st.just(total // 2))))
    val = draw(st.one_of(st.none(), st.integers(1, total // 4), st.tuples(st.just(total // 2), st.just(total - 1))))
    return labels, {
        "train_size": list(train) if isinstance(train, tuple) else train,
        "val_size": list(val) if isinstance(val, tuple) else val,
        "val_share": draw(st.floats(0.02, 0.45)),
        "fraction": draw(st.floats(0.6 / (train if isinstance(train, int) else 5), 1.0)),  # of one image at least
        "split_seed": draw(seeds),
    }


def extent(size):
    return size if isinstance(size, int) else size[1] - size[0]


def by_class(labels, indices):
    return {label: set(indices[labels[indices] == label]) for label in np.unique(labels)}


def message(**keys):
    with pytest.raises(DataError) as caught:
        split_train(DIGITS, **keys)
    return str(caught.value)


# ---- counts and ranges of the official order ----------------------------------------------------------------------


def test_a_count_takes_the_first_n_of_the_official_order():
    assert size_indices(4, 10, "data.test_size").tolist() == [0, 1, 2, 3]


def test_a_range_takes_that_part_of_the_official_order():
    assert size_indices([3, 6], 10, "data.test_size").tolist() == [3, 4, 5]


def test_null_takes_the_whole_split():
    assert size_indices(None, 5, "data.test_size").tolist() == [0, 1, 2, 3, 4]


@pytest.mark.parametrize("size", [10, [0, 10], [9, 10]])
def test_a_size_may_reach_the_last_image(size):
    assert size_indices(size, 10, "data.test_size")[-1] == 9


@pytest.mark.parametrize(("size", "typed"), [(11, "11"), ([3, 11], "[3,11]"), ([20, 30], "[20,30]")])
def test_the_error_for_a_size_beyond_the_split_names_key_and_largest_value(size, typed):
    with pytest.raises(DataError, match=re.escape(f"data.test_size={typed}: ") + ".*at most 10$"):
        size_indices(size, 10, "data.test_size")


def test_a_size_that_does_not_fit_is_a_configuration_error():
    with pytest.raises(ConfigError) as caught:
        size_indices(11, 10, "data.test_size")
    assert caught.value.exit_code == 2


def test_a_train_count_takes_the_first_n():
    assert split_train(DIGITS, train_size=40, val_size=10)[0].tolist() == list(range(40))
    assert split_train(DIGITS, train_size=40, val_size=[500, 600])[0].tolist() == list(range(40))


def test_with_a_drawn_validation_a_train_count_takes_the_first_n_others():
    train, val = split_train(DIGITS, train_size=40)
    assert train.tolist() == [index for index in range(1000) if index not in set(val)][:40]


def test_a_drawn_validation_does_not_depend_on_the_train_count():
    every = [split_train(DIGITS, train_size=n)[1].tolist() for n in (1, 100, 900, None)]
    assert all(val == every[0] for val in every)


def test_a_train_range_takes_that_range():
    assert split_train(DIGITS, train_size=[500, 540])[0].tolist() == list(range(500, 540))


def test_a_val_range_takes_that_range_of_the_train_split():
    assert split_train(DIGITS, val_size=[10, 30])[1].tolist() == list(range(10, 30))


def test_a_val_count_takes_the_first_n():
    assert split_train(DIGITS, val_size=30)[1].tolist() == list(range(30))


def test_a_val_count_skips_training_images():
    _, val = split_train(DIGITS, train_size=[2, 5], val_size=4)
    assert val.tolist() == [0, 1, 5, 6]


def test_without_train_size_all_other_images_train():
    train, val = split_train(DIGITS, val_size=[10, 30])
    assert train.tolist() == [*range(10), *range(30, 1000)]
    assert len(val) == 20


def test_the_books_sizes_select_1000_and_200_images():
    train, val = split_train(SIXTY_THOUSAND, train_size=1000, val_size=[50_000, 50_200])
    assert (train[0], train[-1], len(train)) == (0, 999, 1000)
    assert (val[0], val[-1], len(val)) == (50_000, 50_199, 200)


def test_without_sizes_a_tenth_of_each_class_validates():
    train, val = split_train(SIXTY_THOUSAND)
    assert np.bincount(SIXTY_THOUSAND[train]).tolist() == [5400] * 10
    assert np.bincount(SIXTY_THOUSAND[val]).tolist() == [600] * 10


def test_without_val_size_val_share_of_the_images_validates():
    assert len(split_train(np.arange(4500) % 10, val_share=1 / 9)[1]) == 500


# ---- errors ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("key", "size", "typed"),
    [
        ("train_size", [0, 1001], "[0,1001]"),
        ("val_size", [0, 1001], "[0,1001]"),
        ("val_size", [2000, 3000], "[2000,3000]"),
    ],
)
def test_a_size_larger_than_the_train_split_names_its_key(key, size, typed):
    assert message(**{key: size}) == f"data.{key}={typed}: the split has 1000 images; type at most 1000"


def test_the_error_for_a_too_large_val_count_names_the_number_left():
    assert message(train_size=900, val_size=101) == (
        "data.val_size=101: only 100 images are not in data.train_size; type at most 100"
    )


def test_the_largest_val_size_that_the_error_names_works():
    train, val = split_train(DIGITS, train_size=900, val_size=100)
    assert (len(train), len(val)) == (900, 100)


def test_the_error_for_a_too_large_train_size_names_the_largest_possible():
    for size in (901, 70_000):
        assert message(train_size=size) == (
            f"data.train_size={size}: the split has 1000 images, and 100 of them are for validation; type at most 900"
        )
    text = message(train_size=[0, 901])
    assert text.startswith(
        "data.train_size=[0,901]: leaves 99 of 1000 images for validation, which takes 100; type a smaller"
    )


def test_the_largest_train_size_that_the_error_names_works():
    train, val = split_train(DIGITS, train_size=900)
    assert (len(train), len(val)) == (900, 100)


def test_the_error_for_overlapping_ranges_names_both_keys_and_the_overlap():
    text = message(train_size=[100, 200], val_size=[180, 300])
    assert text.startswith("data.val_size=[180,300]: overlaps data.train_size=[100,200] in 20 images")


def test_adjacent_ranges_do_not_overlap():
    train, val = split_train(DIGITS, train_size=[100, 200], val_size=[200, 300])
    assert (train[-1], val[0]) == (199, 200)


@given(a=st.integers(0, 30), n=st.integers(1, 20), b=st.integers(0, 30), m=st.integers(1, 20))
@settings(max_examples=60, deadline=None)
def test_two_ranges_are_refused_exactly_if_they_share_an_image(a, n, b, m):
    shared = len(set(range(a, a + n)) & set(range(b, b + m)))
    keys = {"train_size": [a, a + n], "val_size": [b, b + m]}
    if shared:
        assert f" in {shared} images" in message(**keys)
    else:
        train, val = split_train(DIGITS, **keys)
        assert (train.tolist(), val.tolist()) == (list(range(a, a + n)), list(range(b, b + m)))


@pytest.mark.parametrize("size", [1000, [0, 1000]])
def test_a_validation_that_takes_every_image_is_refused(size):
    assert re.match(r"data\.val_size=.*: leaves no image to train on", message(val_size=size))


def test_a_train_split_of_one_image_has_none_for_a_drawn_validation():
    with pytest.raises(
        DataError, match=r"leaves 1 of 1 images for validation, which takes 1; type a smaller data\.train_size"
    ):
        split_train(np.array([0]))


# ---- properties of every split ---------------------------------------------------------------------------------------


@given(sizes_that_fit())
@settings(max_examples=80, deadline=None)
def test_no_image_both_trains_and_validates(case):
    labels, keys = case
    train, val = split_train(labels, **keys)
    assert not set(train) & set(val)


@given(sizes_that_fit())
@settings(max_examples=80, deadline=None)
def test_both_parts_are_ascending_indices_into_the_split(case):
    labels, keys = case
    for part in split_train(labels, **keys):
        assert part.tolist() == sorted(set(part))
        assert part[0] >= 0
        assert part[-1] < len(labels)


@given(sizes_that_fit())
@settings(max_examples=80, deadline=None)
def test_both_parts_have_the_given_sizes(case):
    labels, keys = case
    train, val = split_train(labels, **keys)
    wanted_val = (
        max(1, round(len(labels) * keys["val_share"])) if keys["val_size"] is None else extent(keys["val_size"])
    )
    whole = len(labels) - wanted_val if keys["train_size"] is None else extent(keys["train_size"])
    assert len(val) == wanted_val
    assert len(train) == (whole if keys["fraction"] == 1 else round(whole * keys["fraction"]))


@given(sizes_that_fit())
@settings(max_examples=60, deadline=None)
def test_a_split_does_not_depend_on_the_global_generator(case):
    labels, keys = case
    np.random.seed(1)
    first = split_train(labels, **keys)
    np.random.seed(2)
    second = split_train(labels, **keys)
    assert [part.tolist() for part in first] == [part.tolist() for part in second]


def test_drawing_does_not_change_the_global_generator():
    np.random.seed(3)
    expected = np.random.random()
    np.random.seed(3)
    split_train(DIGITS, fraction=0.5)
    assert np.random.random() == expected


@given(labels=some_labels, share=st.floats(0.05, 0.9), seed=seeds)
@settings(max_examples=60, deadline=None)
def test_a_drawn_validation_has_every_class_in_proportion_to_within_one_image(labels, share, seed):
    assume(round(len(labels) * share) < len(labels))
    _, val = split_train(labels, val_share=share, split_seed=seed)
    for label in range(6):
        exact = (labels == label).sum() * len(val) / len(labels)
        assert abs((labels[val] == label).sum() - exact) < 1


@given(labels=some_labels, fraction=st.floats(0.01, 0.99), seed=seeds)
@settings(max_examples=60, deadline=None)
def test_fraction_keeps_every_class_in_proportion_to_within_one_image(labels, fraction, seed):
    whole, _ = split_train(labels, val_size=1)
    assume(round(len(whole) * fraction) > 0)
    kept, _ = split_train(labels, val_size=1, fraction=fraction, split_seed=seed)
    for label in range(6):
        exact = (labels[whole] == label).sum() * len(kept) / len(whole)
        assert abs((labels[kept] == label).sum() - exact) < 1


def test_fraction_changes_the_train_images_only():
    whole, val = split_train(DIGITS, train_size=[100, 500])
    kept, same = split_train(DIGITS, train_size=[100, 500], fraction=0.25)
    assert set(kept) < set(whole)
    assert np.bincount(DIGITS[kept]).tolist() == [10] * 10
    assert val.tolist() == same.tolist()


def test_a_smaller_fraction_is_part_of_a_larger_one():
    parts = [set(split_train(DIGITS, fraction=share)[0]) for share in (0.1, 0.2, 0.5, 1.0)]
    assert parts[0] < parts[1] < parts[2] < parts[3]


def test_the_fraction_that_the_error_names_keeps_one_image():
    assert len(split_train(DIGITS, fraction=0.0011)[0]) == 1
    for fraction in (1e-300, 1e-9, 0.0005):
        assert message(fraction=fraction) == (
            f"data.fraction={fraction}: keeps none of 900 train images; type at least 0.0011"
        )


@pytest.mark.parametrize("fraction", [1.0, 0.3, 0.01])
def test_validation_does_not_depend_on_the_fraction(fraction):
    assert split_train(DIGITS, fraction=fraction)[1].tolist() == split_train(DIGITS)[1].tolist()


@pytest.mark.parametrize("train_size", [100, 400, [20, 500]])
def test_a_validation_range_does_not_depend_on_the_train_size(train_size):
    _, val = split_train(DIGITS, train_size=train_size, val_size=[600, 700])
    assert val.tolist() == list(range(600, 700))


@pytest.mark.parametrize("train_size", [[50, 100], [50, 900], [300, 400], None])
def test_a_validation_count_takes_the_first_images_before_a_train_range(train_size):
    _, val = split_train(DIGITS, train_size=train_size, val_size=50)
    assert val.tolist() == list(range(50))


def test_another_split_seed_draws_other_validation_images():
    draws = {tuple(split_train(DIGITS, split_seed=seed)[1]) for seed in range(20)}
    assert len(draws) == 20


def test_another_split_seed_keeps_other_train_images():
    draws = {tuple(split_train(DIGITS, val_size=[900, 1000], fraction=0.5, split_seed=seed)[0]) for seed in range(20)}
    assert len(draws) == 20


def test_split_seed_has_no_effect_if_nothing_is_drawn():
    one, other = (split_train(DIGITS, train_size=100, val_size=50, split_seed=seed) for seed in (0, 1))
    assert [part.tolist() for part in one] == [part.tolist() for part in other]


# ---- stratified draws ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("sizes", "count", "expected"),
    [
        ([50, 30, 20], 10, [5, 3, 2]),
        ([6, 6, 2], 10, [4, 4, 2]),  # 4.29, 4.29, 1.43: the largest remainder is the last
        ([3, 3, 3], 4, [2, 1, 1]),  # equal remainders go to the lower class
        ([3, 3, 3], 5, [2, 2, 1]),
        ([1, 2, 3] * 40, 100, [1, 1, 1] * 20 + [0, 1, 1] * 20),  # 0.42, 0.83, 1.25: of 40 equal remainders the first 20
        ([97, 2, 1], 3, [3, 0, 0]),
        ([4, 4], 8, [4, 4]),
    ],
)
def test_a_stratified_draw_has_the_counts_computed_by_hand(sizes, count, expected):
    labels = np.repeat(np.arange(len(sizes)), sizes)
    drawn = np.bincount(labels[stratified(labels, count, 0)], minlength=len(sizes))
    assert drawn.tolist() == expected


@pytest.mark.parametrize("count", [37, 201, 555])
def test_a_stratified_draw_has_the_counts_of_scikit_learn(count):
    sizes = np.array([401, 283, 157, 101, 58])
    labels = np.random.default_rng(0).permutation(np.repeat(np.arange(5), sizes))
    remainders = sizes * count / 1000 % 1
    assert len(set(remainders.round(6))) == 5  # scikit-learn breaks ties at random
    chosen, _ = next(StratifiedShuffleSplit(1, train_size=count, random_state=0).split(labels, labels))
    assert np.bincount(labels[stratified(labels, count, 0)]).tolist() == np.bincount(labels[chosen]).tolist()


@given(labels=some_labels, share=st.floats(0, 1), seed=seeds)
@settings(max_examples=60, deadline=None)
def test_a_stratified_draw_has_exactly_count_different_images(labels, share, seed):
    count = max(1, round(share * len(labels)))
    drawn = stratified(labels, count, seed)
    assert drawn.tolist() == sorted(set(drawn))
    assert len(drawn) == count


@given(labels=some_labels, counts=st.tuples(*2 * [st.floats(0, 1)]), seed=seeds)
@example(labels=np.repeat([0, 1, 2], [6, 6, 2]), counts=(10 / 14, 11 / 14), seed=0)
@settings(max_examples=60, deadline=None)
def test_within_a_class_the_smaller_of_two_draws_is_part_of_the_larger(labels, counts, seed):
    one, other = (by_class(labels, stratified(labels, max(1, round(s * len(labels))), seed)) for s in counts)
    for label in one:
        assert one[label] <= other[label] or other[label] <= one[label]


@given(classes=st.integers(1, 6), each=st.integers(1, 20), counts=st.tuples(*2 * [st.floats(0, 1)]), seed=seeds)
@settings(max_examples=60, deadline=None)
def test_draws_from_equal_classes_are_nested_for_one_seed(classes, each, counts, seed):
    labels = np.arange(classes * each) % classes
    small, large = sorted(max(1, round(share * len(labels))) for share in counts)
    assert set(stratified(labels, small, seed)) <= set(stratified(labels, large, seed))


def test_every_image_is_equally_likely_to_be_drawn():
    hits = np.bincount(np.concatenate([stratified(DIGITS[:40], 10, seed) for seed in range(1000)]), minlength=40)
    # binomial(1000, 1/4): mean 250, deviation 13.7; five deviations
    assert hits.min() > 181
    assert hits.max() < 319


def test_a_draw_is_the_same_on_every_machine():
    assert stratified(np.arange(20) % 2, 6, 0).tolist() == [3, 4, 7, 8, 11, 16]


# ---- the hash of a split ---------------------------------------------------------------------------------------------


index_arrays = st.lists(st.lists(st.integers(0, 10**6), max_size=8), min_size=1, max_size=4)


def hashed(lists):
    return split_hash(*(np.array(part, dtype=np.int64) for part in lists))


@given(lists=index_arrays, data=st.data())
@settings(max_examples=60, deadline=None)
def test_the_hash_changes_with_any_index(lists, data):
    assume(any(lists))
    part = data.draw(st.sampled_from([number for number, part in enumerate(lists) if part]))
    place = data.draw(st.integers(0, len(lists[part]) - 1))
    changed = [list(part) for part in lists]
    changed[part][place] += data.draw(st.integers(1, 2**40))
    assert hashed(changed) != hashed(lists)


@given(one=index_arrays, other=index_arrays)
@settings(max_examples=60, deadline=None)
def test_equal_arrays_have_equal_hashes_and_others_differ(one, other):
    assert (hashed(one) == hashed(other)) == (one == other)


def test_the_hash_changes_when_an_image_moves_from_train_to_validation():
    assert hashed([[0, 1, 2], [3], []]) != hashed([[0, 1], [2, 3], []])


def test_the_hash_changes_when_train_and_validation_are_exchanged():
    assert hashed([[0, 1], [2, 3]]) != hashed([[2, 3], [0, 1]])


def test_the_hash_is_sixteen_hex_digits():
    assert re.fullmatch(r"[0-9a-f]{16}", hashed([[1, 2], [3]]))


@pytest.mark.parametrize("kind", [np.int32, ">i8", np.uint16])
def test_the_hash_does_not_depend_on_the_type_of_the_indices(kind):
    assert split_hash(np.arange(9).astype(kind)) == split_hash(np.arange(9))


def test_the_hash_does_not_depend_on_the_layout_in_memory():
    assert split_hash(np.arange(20)[::2]) == split_hash(np.array(range(0, 20, 2)))


def test_the_hash_of_a_known_split_is_a_constant():
    assert split_hash(*split_train(DIGITS), np.arange(100)) == "23a6510447463dc1"
