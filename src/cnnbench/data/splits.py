"""Index arrays of the train, validation and test images, from labels and sizes; equal on every machine and version.

A size n selects the first n images of the official order, `[a, b]` that range of it. With `val_size` null, a share of every
class is drawn with `split_seed` first, so that the validation images are the same for every `train_size`.
Random numbers come from `numpy.random.RandomState`, whose streams NumPy has frozen.
"""

from __future__ import annotations

import hashlib

import numpy as np

from cnnbench.errors import DataError
from cnnbench.text import to_override

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
        train_size: a range; or a count: the first n images, without validation images if `val_size` is None; None: all
            images that are not used for validation.
        val_size: a range; or a count: the first n images that are not in `train_size`; None: `val_share` of the N images,
            stratified, from the images outside a range of `train_size`.
        val_share: see `val_size`.
        fraction: share of the train images to keep, stratified.
        split_seed: seed of the two stratified draws.

    Raises:
        DataError: a size exceeds the split, train and validation overlap, or no train image is left.
    """
    total = len(labels)
    everything = np.arange(total)
    if val_size is None:
        outside = np.setdiff1d(
            everything, size_indices(train_size, total, "data.train_size") if isinstance(train_size, list) else []
        )
        count = max(1, round(total * val_share))
        if count >= total or count > len(outside):
            raise DataError(
                f"data.train_size={to_override(train_size)}: leaves {len(outside)} of {total} images for validation, which takes "
                f"{count}; type a smaller data.train_size, or a data.val_size"
            )
        val = outside[stratified(labels[outside], count, split_seed)]
        reason = f"the split has {total} images, and {count} of them are for validation"
        train = _first_outside(val, train_size, total, "data.train_size", reason)
    else:
        wanted = everything[:0] if train_size is None else size_indices(train_size, total, "data.train_size")
        reason = f"only {total - len(wanted)} images are not in data.train_size"
        val = _first_outside(wanted, val_size, total, "data.val_size", reason)
        train = np.setdiff1d(everything, val) if train_size is None else wanted
    overlap = np.intersect1d(train, val)
    if len(overlap):
        raise DataError(
            f"data.val_size={to_override(val_size)}: overlaps data.train_size={to_override(train_size)} in {len(overlap)} images of the "
            "train split; choose ranges that do not"
        )
    if not len(train):
        raise DataError(f"data.val_size={to_override(val_size)}: leaves no image to train on; type less than {total}")
    return keep_fraction(train, labels, fraction, split_seed), val


def keep_fraction(train: np.ndarray, labels: np.ndarray, fraction: float, split_seed: int) -> np.ndarray:
    """A share of the train indices, stratified by their labels and ascending; all of them if `fraction` is 1.

    Raises:
        DataError: the share is less than one image.
    """
    if fraction == 1:
        return train
    count = round(len(train) * fraction)
    if not count:
        raise DataError(
            f"data.fraction={fraction}: keeps none of {len(train)} train images; type at least {1 / len(train):.2g}"
        )
    return train[stratified(labels[train], count, split_seed)]


def size_indices(size: Size, total: int, key: str) -> np.ndarray:
    """Ascending indices into `total` images: the first n of a count, those of a range, all for None.

    Raises:
        DataError: `key`, named in the message, exceeds the split.
    """
    start, stop = (0, total) if size is None else (0, size) if isinstance(size, int) else size
    if stop > total:
        raise DataError(f"{key}={to_override(size)}: the split has {total} images; type at most {total}")
    return np.arange(start, stop)


def stratified(labels: np.ndarray, count: int, seed: int) -> np.ndarray:
    """`count` ascending indices into `labels`, each class in proportion to within one image (largest remainders).

    For one seed, the images that a smaller draw takes from a class are among those of a larger draw.
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
    """Labels (N,) of which round(N * share) are replaced by another class, each other class with equal probability.

    The result depends on `split_seed`, not on the run's seed. A larger share changes the same labels in the same way, and
    further ones. With no label to change, `labels` itself is returned.
    """
    changed = round(len(labels) * share)
    if not changed:
        return labels
    random = np.random.RandomState(split_seed)
    at = random.permutation(len(labels))[:changed]
    steps = random.randint(1, num_classes, len(labels))[:changed]  # drawn for all: independent of the share
    noisy = labels.copy()
    noisy[at] = (labels[at] + steps) % num_classes
    return noisy


def split_hash(*indices: np.ndarray) -> str:
    """Sixteen hex digits of the SHA-256 of index arrays, in their order."""
    digest = hashlib.sha256()
    for array in indices:
        digest.update(f"{len(array)}:".encode())
        digest.update(np.ascontiguousarray(array, dtype="<i8").tobytes())
    return digest.hexdigest()[:16]


def _first_outside(taken: np.ndarray, size: Size, total: int, key: str, reason: str) -> np.ndarray:
    """The first images that are not `taken`, of `total`: n for a count, all for None; a range is a range of all images.

    Raises:
        DataError: `key` exceeds the split, or the images that are not taken, for the `reason` given.
    """
    if isinstance(size, list):
        return size_indices(size, total, key)
    free = np.setdiff1d(np.arange(total), taken)
    if size is not None and size > len(free):
        raise DataError(f"{key}={size}: {reason}; type at most {len(free)}")
    return free[:size]
