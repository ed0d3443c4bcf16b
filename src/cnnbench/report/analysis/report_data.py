"""All findings about a folder of runs, computed once for the page, the Markdown text, the figures and the terminal."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from itertools import combinations
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
    """Two cells on the same test images; an image counts for the cell of which more runs are correct on it.

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
    images: dict[int, np.ndarray]


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
    comparisons = compare_with_baselines(predictions)
    return Report(
        found,
        answer(found),
        [*limitations(found), *missing_predictions(found.cells, predictions)],
        judge_claims(found),
        [(cell, result) for cell in found.cells if cell.n for result in published_results_for(cell.runs)],
        predictions,
        comparisons,
        compare_other_pairs(predictions[:MAX_CELLS_COMPARED], comparisons),
        pictures,
    )


def predictions_of_cells(
    cells: Sequence[Cell], progress: Callable[[str], None], problems: list[str]
) -> list[CellPredictions]:
    """Loads the predictions of all cells in parallel, with confusion matrices of one size."""
    predictions = []
    with ThreadPoolExecutor(os.cpu_count()) as pool:  # decompression and numpy release the interpreter's lock
        found = pool.map(lambda index: predictions_of_cell(index, cells[index], problems), range(len(cells)))
        for number, each in enumerate(found, 1):
            progress(f"predictions, setting {number} of {len(cells)}")
            if each is not None:
                predictions.append(each)
    return pad_confusions(predictions)


def compare_with_baselines(predictions: Sequence[CellPredictions]) -> list[ImageComparison]:
    """Compares each cell with its baseline where both have the same test images; p is corrected over these pairs."""
    by_index: dict[int | None, CellPredictions] = {each.index: each for each in predictions}
    pairs = [(each, by_index[each.cell.base]) for each in predictions if each.cell.base in by_index]
    return with_corrected_p(compare_on_images(pairs))


def compare_other_pairs(
    predictions: Sequence[CellPredictions], compared: Sequence[ImageComparison]
) -> list[ImageComparison]:
    """Compares the other pairs of cells that have the same test images; p is corrected over all pairs, the compared ones too."""
    known = {frozenset((each.ours.index, each.theirs.index)) for each in compared}
    pairs = [
        (ours, theirs)
        for theirs, ours in combinations(predictions, 2)
        if frozenset((ours.index, theirs.index)) not in known
    ]
    found = compare_on_images(pairs)
    return with_corrected_p([*found, *compared])[: len(found)]


def compare_on_images(pairs: Iterable[tuple[CellPredictions, CellPredictions]]) -> list[ImageComparison]:
    """Compares the pairs that have the same test images; p is not corrected yet."""
    return [
        ImageComparison(ours, theirs, difference_on_images(ours, theirs))
        for ours, theirs in pairs
        if np.array_equal(ours.targets, theirs.targets)
    ]


def difference_on_images(ours: CellPredictions, theirs: CellPredictions) -> stats.Difference:
    """McNemar's test for one seed each; for several seeds the sign test of the fractions of seeds that are correct."""
    if ours.seeds == theirs.seeds == 1:
        return stats.mcnemar(ours.share_correct == 1, theirs.share_correct == 1)
    mean = stats.paired(ours.share_correct.tolist(), theirs.share_correct.tolist())
    return replace(mean, p=stats.sign_test(ours.share_correct, theirs.share_correct))
