"""Calibration: the confidence of a net against its accuracy, and the bootstrap interval of their mean gap."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from cnnbench.stats.checks import correct_array, finite_array, require_fraction, require_pairs

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import ArrayLike, NDArray


@dataclass(frozen=True)
class Calibration:
    """Confidence and accuracy of a net by bins of confidence.

    Attributes:
        edges: edges of the bins, from 0 to 1: one more than there are bins. A bin includes its upper edge; the first also 0.
        confidence: mean confidence of each bin; None where the bin is empty.
        accuracy: fraction of correct images of each bin; None where the bin is empty.
        count: number of images in each bin.
        ece: expected calibration error: the mean over images of |accuracy - confidence| of their bin.
    """

    edges: list[float]
    confidence: list[float | None]
    accuracy: list[float | None]
    count: list[int]
    ece: float


def calibration(confidence: ArrayLike, correct: ArrayLike, bins: int = 15) -> Calibration:
    """Compares confidence with accuracy in bins of equal width (Guo et al. 2017, equations 2 to 5).

    Args:
        confidence: probability of the predicted class for each image, (images,), between 0 and 1.
        correct: whether the predicted class is correct, (images,), booleans or 0 and 1.
        bins: number of bins, at least 1.

    Returns:
        The bins and the expected calibration error.

    Raises:
        ValueError: there is no image, the lengths differ, or a value or `bins` is out of its range.

    Example:
        >>> found = calibration([0.6, 0.7, 0.9, 1.0], [1, 0, 1, 1], bins=4)
        >>> found.count, found.accuracy, round(found.ece, 4)
        ([0, 0, 2, 2], [None, None, 0.5, 1.0], 0.1)
    """
    import numpy as np

    probability, is_correct, edges, bin_of = _binned(confidence, correct, bins)
    count, confidence_sums, correct_sums = (
        np.bincount(bin_of, weights, bins) for weights in (None, probability, is_correct)
    )
    means, shares = (
        [float(total / n) if n else None for total, n in zip(totals, count, strict=True)]
        for totals in (confidence_sums, correct_sums)
    )
    ece = float(np.abs(correct_sums - confidence_sums).sum() / probability.size)
    return Calibration(edges.tolist(), means, shares, count.tolist(), ece)


def bootstrap_counts(images: int, rng: np.random.Generator, draws: int = 400) -> NDArray[np.float32]:
    """Draws bootstrap samples of the images: as many as there are, with replacement (Efron 1979).

    Args:
        images: number of images, at least 1.
        rng: generator of the random numbers.
        draws: number of samples, at least 1.

    Returns:
        (draws, images): how often each sample holds each image.

    Raises:
        ValueError: `images` or `draws` is below 1.

    Example:
        >>> import numpy as np
        >>> bootstrap_counts(5, np.random.default_rng(0), draws=3).sum(axis=1).tolist()
        [5.0, 5.0, 5.0]
    """
    import numpy as np

    if images < 1 or draws < 1:
        raise ValueError(f"expected at least 1 image and at least 1 draw, got {images} and {draws}")
    counts = (np.bincount(rng.integers(images, size=images), minlength=images) for _ in range(draws))
    return np.stack(list(counts)).astype(np.float32)


def ece_interval(
    confidence: ArrayLike, correct: ArrayLike, drawn: NDArray[np.float32], bins: int = 15, level: float = 0.95
) -> tuple[float, tuple[float, float]]:
    """Computes the expected calibration error and its percentile bootstrap interval over images.

    An image is drawn together with the predictions of all runs. The error of few images is biased upward, since chance does
    not cancel within a bin, and that of a bootstrap sample more so. The interval of a well-calibrated net may therefore be
    above the point. It shows how much the error varies between samples of images, not whether the net is calibrated.

    Args:
        confidence: as for `calibration`, (images,) or (runs, images).
        correct: as for `calibration`, of the same shape.
        drawn: (draws, images) from `bootstrap_counts` for this number of images.
        bins: number of bins, at least 1.
        level: coverage of the interval, between 0 and 1.

    Returns:
        (error, (low, high)), each between 0 and 1.

    Raises:
        ValueError: as `calibration`, or `level` is out of its range.

    Example:
        >>> import numpy as np
        >>> counts = bootstrap_counts(4, np.random.default_rng(0))
        >>> error, (low, high) = ece_interval([0.6, 0.7, 0.9, 1.0], [1, 0, 1, 1], counts, bins=4)
        >>> f"{error:.2f} ({low:.2f} to {high:.2f})"
        '0.10 (0.03 to 0.52)'
    """
    import numpy as np

    require_fraction("a level", level)
    runs, images = np.atleast_2d(np.asarray(confidence)).shape
    probability, is_correct, _, bin_of = _binned(np.ravel(confidence), np.ravel(correct), bins)
    gaps = np.zeros((images, bins), np.float32)  # a bin adds |the sum of its gaps| to the error
    np.add.at(gaps, (np.tile(np.arange(images), runs), bin_of), is_correct - probability)
    errors = np.abs(drawn @ gaps).sum(1) / probability.size
    low, high = np.quantile(errors, [(1 - level) / 2, (1 + level) / 2])
    return calibration(np.ravel(confidence), np.ravel(correct), bins).ece, (float(low), float(high))


def _binned(
    confidence: ArrayLike, correct: ArrayLike, bins: int
) -> tuple[NDArray[np.float64], NDArray[np.bool_], NDArray[np.float64], NDArray[np.intp]]:
    """(confidences, whether correct, edges of the bins, index of each image's bin) as checked arrays."""
    import numpy as np

    probability, is_correct = finite_array(confidence), correct_array(correct)
    require_pairs(probability, is_correct)
    if probability.min() < 0 or probability.max() > 1 or bins < 1:
        raise ValueError(
            f"expected confidences within 0 and 1 and at least 1 bin, got {probability.min()} to {probability.max()}, {bins}"
        )
    edges = np.linspace(0, 1, bins + 1)
    return probability, is_correct, edges, np.digitize(probability, edges[1:-1], right=True)
