"""Which images train, validate and test: index arrays from labels and sizes, the same on every machine and version.

A size that is a number takes the first n of the official order, `[a, b]` that range of it. An absent `val_size` is a
share of every class, drawn by `split_seed` before anything else, so that validation is the same whatever `train_size`.
Draws come from `numpy.random.RandomState`, whose streams NumPy has frozen.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

import numpy as np

from cnnbench.errors import DataError

Size = int | list[int] | None


def split_train(
    labels: np.ndarray,
    *,
    train_size: Size = None,
    val_size: Size = None,
    val_share: float = 0.1,
    fraction: float = 1.0,
    split_seed: int = 0,
) -> tuple[np.ndarray, np.ndarray]:
    """Indices (train, val) into the official train split, disjoint, each ascending.

    Args:
        labels: (N,) class of each image of the official train split.
        train_size: a range; a count: the first n, of those that are not validation where `val_size` is None; None: all
            that is not validation.
        val_size: a range; a count: the first n that are not in `train_size`; None: `val_share` of the N images,
            stratified, of those that are not in a range of `train_size`.
        val_share: see `val_size`.
        fraction: keeps this share of the train images, stratified.
        split_seed: seeds the two stratified draws.

    Raises:
        DataError: a size exceeds the split, or train and validation overlap.
    """
    total = len(labels)
    everything = np.arange(total)
    if val_size is None:
        outside = np.setdiff1d(
            everything, take(train_size, total, "data.train_size") if isinstance(train_size, list) else []
        )
        count = max(1, round(total * val_share))
        if count >= total or count > len(outside):
            raise DataError(
                f"data.train_size={_typed(train_size)}: leaves {len(outside)} of {total} images for validation, which takes "
                f"{count}; type a smaller data.train_size, or a data.val_size"
            )
        val = outside[stratified(labels[outside], count, split_seed)]
        train = _train_beside(val, train_size, total)
    else:
        wanted = everything[:0] if train_size is None else take(train_size, total, "data.train_size")
        val = take(val_size, total, "data.val_size") if isinstance(val_size, list) else _first(wanted, val_size, total)
        train = np.setdiff1d(everything, val) if train_size is None else wanted
    overlap = np.intersect1d(train, val)
    if len(overlap):
        raise DataError(
            f"data.val_size={_typed(val_size)}: overlaps data.train_size={_typed(train_size)} in {len(overlap)} images of the "
            "train split; choose ranges that do not"
        )
    if not len(train):
        raise DataError(f"data.val_size={_typed(val_size)}: leaves no image to train on; type less than {total}")
    return thinned(train, labels, fraction, split_seed), val


def thinned(train: np.ndarray, labels: np.ndarray, fraction: float, split_seed: int) -> np.ndarray:
    """A share of the train indices, stratified; all of them where `fraction` is 1."""
    if fraction == 1:
        return train
    return train[stratified(labels[train], max(1, round(len(train) * fraction)), split_seed)]


def take(size: Size, total: int, key: str) -> np.ndarray:
    """The indices that a count, a range or None (all) names among `total` images."""
    start, stop = (0, total) if size is None else (0, size) if isinstance(size, int) else size
    if stop > total:
        raise DataError(f"{key}={_typed(size)}: the split has {total} images; type at most {total}")
    return np.arange(start, stop)


def stratified(labels: np.ndarray, count: int, seed: int) -> np.ndarray:
    """`count` ascending indices into `labels`, every class in proportion to within one image (largest remainders).

    Within a class a smaller draw is, for one seed, part of a larger one.
    """
    classes, sizes = np.unique(labels, return_counts=True)
    exact = sizes * count / len(labels)
    counts = np.floor(exact).astype(int)
    order = np.argsort(-(exact - counts), kind="stable")
    counts[order[: count - counts.sum()]] += 1
    random = np.random.RandomState(seed)
    chosen = [random.permutation(np.flatnonzero(labels == label))[:n] for label, n in zip(classes, counts, strict=True)]
    return np.sort(np.concatenate(chosen))


def mislabel(labels: np.ndarray, share: float, num_classes: int, split_seed: int) -> np.ndarray:
    """`labels` with a share of them, to within one, replaced by another class, each other class as likely.

    Which ones, and by what, is a function of `split_seed`: the same for every seed of a run. A larger share changes the
    same labels, and more. Without noise the labels are returned as they are.
    """
    changed = round(len(labels) * share)
    if not changed:
        return labels
    random = np.random.RandomState(split_seed)
    at = random.permutation(len(labels))[:changed]
    steps = random.randint(1, num_classes, len(labels))[:changed]  # drawn for all, so that a share does not change them
    noisy = labels.copy()
    noisy[at] = (labels[at] + steps) % num_classes
    return noisy


def split_hash(*indices: np.ndarray) -> str:
    """Sixteen hex digits that stand for the index arrays, in their order."""
    digest = hashlib.sha256()
    for array in indices:
        digest.update(f"{len(array)}:".encode())
        digest.update(np.ascontiguousarray(array, dtype="<i8").tobytes())
    return digest.hexdigest()[:16]


def _train_beside(val: np.ndarray, train_size: Size, total: int) -> np.ndarray:
    """The train images where validation was drawn first."""
    if isinstance(train_size, list):
        return take(train_size, total, "data.train_size")
    free = np.setdiff1d(np.arange(total), val)
    if train_size is not None and train_size > len(free):
        raise DataError(
            f"data.train_size={train_size}: the split has {total} images, and {len(val)} of them validate; type at most {len(free)}"
        )
    return free[:train_size]


def _first(train: np.ndarray, count: int, total: int) -> np.ndarray:
    """The first `count` images that are not in `train`."""
    free = np.setdiff1d(np.arange(total), train)
    if count > len(free):
        raise DataError(
            f"data.val_size={count}: only {len(free)} images are not in data.train_size; type at most {len(free)}"
        )
    return free[:count]


def _typed(size: int | Sequence[int] | None) -> str:
    return "null" if size is None else str(size) if isinstance(size, int) else f"[{size[0]},{size[1]}]"
