"""Statistics as pure functions: numbers or arrays in, (point, interval) or a small dataclass out.

    proportions            an accuracy with its interval: Wilson
    means                  means over seeds, and their differences: Student's and Welch's t tests
    same_images            two nets on the same test images: McNemar's test, the sign test
    multiple_comparisons   p values corrected for the number of comparisons: Holm
    sample_size            power of the paired t test, seeds needed
    calibration_error      confidence against accuracy, and its bootstrap interval
    pareto_front           the points that no other point dominates

numpy and scipy.special are imported inside the functions that use them: together they take half a second, and `wilson`
needs neither. scipy.stats takes 1.5 s more and is never imported.
"""

from cnnbench.stats.calibration_error import Calibration, bootstrap_counts, calibration, ece_interval
from cnnbench.stats.estimates import ALPHA, Difference, Interval
from cnnbench.stats.means import mean_interval, one_sample, paired, welch
from cnnbench.stats.multiple_comparisons import holm
from cnnbench.stats.pareto_front import pareto
from cnnbench.stats.proportions import wilson
from cnnbench.stats.same_images import mcnemar, sign_test
from cnnbench.stats.sample_size import more_pairs, pairs_needed, power

__all__ = [
    "ALPHA",
    "Calibration",
    "Difference",
    "Interval",
    "bootstrap_counts",
    "calibration",
    "ece_interval",
    "holm",
    "mcnemar",
    "mean_interval",
    "more_pairs",
    "one_sample",
    "paired",
    "pairs_needed",
    "pareto",
    "power",
    "sign_test",
    "welch",
    "wilson",
]
