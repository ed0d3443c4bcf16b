"""All findings about a folder of runs, computed once for the page, the Markdown text, the figures and the terminal."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from itertools import combinations, count, repeat
from pathlib import Path

import numpy as np

from cnnbench import stats
from cnnbench.report.analysis.cell import Cell, with_corrected_p
from cnnbench.report.analysis.claims import Verdict, judge_claims
from cnnbench.report.analysis.comparisons import Review, review
from cnnbench.report.analysis.conclusions import answer
from cnnbench.report.analysis.limitations import limitations
from cnnbench.report.analysis.predictions import (
    CellPredictions,
    Images,
    load_images,
    missing_predictions,
    pad_confusions,
    predictions_of_cell,
    same_test_images,
)
from cnnbench.report.analysis.published_results import PublishedResult, published_results_for
from cnnbench.report.load.sweep import read_runs

MAX_CELLS_COMPARED = 12  # any two of the first cells are compared on the same images


@dataclass(frozen=True)
class ImageComparison:
    """Two cells on the same test images; an image counts for the cell with the larger share of correct runs.

    Attributes:
        ours, theirs: predictions of the two cells.
        difference: our accuracy minus theirs.
        p: p value of the difference, corrected (Holm) over the pairs of its table.
    """

    ours: CellPredictions
    theirs: CellPredictions
    difference: stats.Difference
    p: float | None = None

    @property
    def only(self) -> tuple[int, int]:
        """Number of images that count for ours, and for theirs."""
        ours, theirs = self.ours.share_correct, self.theirs.share_correct
        return int((ours > theirs).sum()), int((ours < theirs).sum())


@dataclass(frozen=True)
class Report:
    """All findings about a folder of runs.

    Attributes:
        review: the findings as numbers.
        answer, limits: sentences.
        verdicts: outcomes of the experiment's claims.
        published: published results with the cells that they are comparable with.
        cell_predictions: predictions of each cell on the test images, where runs have saved them.
        comparisons: each of these cells against its baseline.
        other_comparisons: every other pair of the first of these cells.
        images: misclassified test images that runs of the first cell's images have saved: index in the split -> (H, W, C) uint8.
    """

    review: Review
    answer: list[str]
    limits: list[str]
    verdicts: list[Verdict]
    published: list[tuple[Cell, PublishedResult]]
    cell_predictions: list[CellPredictions]
    comparisons: list[ImageComparison]
    other_comparisons: list[ImageComparison]
    images: Images


def make_report(path: Path, progress: Callable[[str], None] = lambda message: None, images: bool = True) -> Report:
    """Computes all findings about a folder of runs.

    Args:
        path: the folder.
        progress: called with a message at each step.
        images: whether to analyse the predictions on single test images, too.

    Raises:
        ConfigError: there is no run.
    """
    runs = read_runs(path)
    progress(f"{len(runs.done)} of {len(runs.runs)} runs have a result")
    found = review(runs)
    problems: list[str] = []
    predictions = predictions_of_cells(found.cells, progress, problems) if images else []
    tested = [run for each in same_test_images(predictions) for run in each.cell.runs if run.done]
    pictures = load_images(tested, problems)
    found = replace(found, runs=replace(runs, problems=[*runs.problems, *sorted(problems)]))
    comparisons, others = compare_on_images(predictions)
    return Report(
        found,
        answer(found),
        [*limitations(found), *missing_predictions(found.cells, predictions)],
        judge_claims(found),
        [(cell, result) for cell in found.known_cells for result in published_results_for(cell.runs)],
        predictions,
        comparisons,
        others,
        pictures,
    )


def predictions_of_cells(
    cells: Sequence[Cell], progress: Callable[[str], None], problems: list[str]
) -> list[CellPredictions]:
    """Loads the predictions of all cells in parallel, with confusion matrices of one size."""
    predictions = []
    with ThreadPoolExecutor(os.cpu_count()) as pool:  # decompression and numpy release the interpreter's lock
        found = pool.map(predictions_of_cell, count(), cells, repeat(problems))
        for number, each in enumerate(found, 1):
            progress(f"predictions, setting {number} of {len(cells)}")
            if each is not None:
                predictions.append(each)
    return pad_confusions(predictions)


def compare_on_images(
    predictions: Sequence[CellPredictions],
) -> tuple[list[ImageComparison], list[ImageComparison]]:
    """Compares cells that have the same test images: (each with its baseline, the other pairs of the first cells).

    p is corrected over the pairs with a baseline, and that of the other pairs over all pairs.
    """
    by_index: dict[int | None, CellPredictions] = {each.index: each for each in predictions}
    with_baselines = [(each, by_index[each.cell.base]) for each in predictions if each.cell.base in by_index]
    others = [
        (ours, theirs)
        for theirs, ours in combinations(predictions[:MAX_CELLS_COMPARED], 2)
        if ours.cell.base != theirs.index and theirs.cell.base != ours.index
    ]
    first, second = (
        [
            ImageComparison(ours, theirs, difference_on_images(ours, theirs))
            for ours, theirs in pairs
            if np.array_equal(ours.targets, theirs.targets)
        ]
        for pairs in (with_baselines, others)
    )
    return with_corrected_p(first), with_corrected_p([*second, *first])[: len(second)]


def difference_on_images(ours: CellPredictions, theirs: CellPredictions) -> stats.Difference:
    """McNemar's test for one seed each; for several seeds the sign test of the fractions of seeds that are correct."""
    shares = (ours.share_correct, theirs.share_correct)
    if ours.seeds == theirs.seeds == 1:
        return stats.mcnemar(*shares)
    return replace(stats.paired(*shares), p=stats.sign_test(*shares))
