"""All that a report says of a folder of runs, gathered once for every form that it takes."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from itertools import combinations
from pathlib import Path

import numpy as np

from cnnbench import stats
from cnnbench.report.analysis import claims
from cnnbench.report.analysis import conclusions as words
from cnnbench.report.analysis import limitations as limits
from cnnbench.report.analysis import predictions as mistakes
from cnnbench.report.analysis.cell import Cell
from cnnbench.report.analysis.comparisons import Review, review
from cnnbench.report.analysis.predictions import Arm
from cnnbench.report.analysis.published_results import Published, figures_for
from cnnbench.report.load.sweep import Runs, read

ARMS = 12  # any two of so many are compared on the same images


@dataclass(frozen=True)
class Comparison:
    """Two arms on the same images; an image counts for the arm more of whose runs are right on it."""

    ours: Arm
    theirs: Arm
    difference: stats.Difference
    p: float | None = None

    @property
    def only(self) -> tuple[int, int]:
        """How many images count for the first, and for the second."""
        return int((self.ours.share > self.theirs.share).sum()), int((self.ours.share < self.theirs.share).sum())


@dataclass(frozen=True)
class Report:
    """What there is to say.

    Attributes:
        review: the numbers.
        answer, limits: sentences.
        verdicts: of the experiment's claims.
        published: figures of others, beside the cells that they are comparable with.
        arms: what each cell's nets said of the test images, where that is known.
        comparisons: of each of them with its baseline.
        others: of any other two of the first arms.
        pictures: of the test images of the first arm, as runs kept them: place in the split -> (H, W, C) uint8.
    """

    review: Review
    answer: list[str]
    limits: list[str]
    verdicts: list[claims.Verdict]
    published: list[tuple[Cell, Published]]
    arms: list[Arm]
    comparisons: list[Comparison]
    others: list[Comparison]
    pictures: dict[int, np.ndarray]


def make_report(path: Path, progress: Callable[[str], None] = lambda what: None, images: bool = True) -> Report:
    """Of a folder of runs.

    Args:
        path: of it.
        progress: is told what is done now.
        images: look at what was said of each test image as well.

    Raises:
        ConfigError: there is no run.
    """
    runs = read(path)
    progress(f"{len(runs.done)} of {len(runs.runs)} runs have a result")
    found = review(runs)
    problems: list[str] = []
    arms: list[Arm] = []
    if images:
        with ThreadPoolExecutor(os.cpu_count()) as pool:  # unzipping and numpy let other threads run
            for number, arm in enumerate(pool.map(lambda cell: mistakes.arm_of(cell, problems), found.cells)):
                progress(f"predictions, cell {number + 1} of {len(found.cells)}")
                arms += [arm] if arm is not None else []
    arms = mistakes.of_one_size(arms)
    pictured = [run for arm in mistakes.alike(arms) for run in arm.cell.runs if run.done]
    pictures = mistakes.pictures_of(pictured, problems)
    found = replace(found, runs=with_problems(runs, problems))
    verdicts = claims.verdicts(found)
    comparisons = compared(arms, found.cells)
    published = [(cell, figure) for cell in found.cells if cell.n for figure in figures_for(cell.runs)]
    return Report(
        found,
        words.answer(found),
        [*limits.limits(found), *mistakes.untold(found.cells, arms)],
        verdicts,
        published,
        arms,
        comparisons,
        other_pairs(arms[:ARMS], comparisons),
        pictures,
    )


def with_problems(runs: Runs, problems: list[str]) -> Runs:
    """The same, with more files that could not be read."""
    return replace(runs, problems=[*runs.problems, *sorted(problems)])


def compared(arms: list[Arm], cells: list[Cell]) -> list[Comparison]:
    """Each arm with its baseline's, where both were tested on the same images."""
    made = []
    by_setting = {id(arm.cell): arm for arm in arms}
    for arm in arms:
        base = by_setting.get(id(cells[arm.cell.base])) if arm.cell.base is not None else None
        if base is not None and np.array_equal(arm.targets, base.targets):
            made.append(Comparison(arm, base, on_images(arm, base)))
    corrected = stats.holm([each.difference.p for each in made])
    return [replace(each, p=p) for each, p in zip(made, corrected, strict=True)]


def other_pairs(arms: Sequence[Arm], told: Sequence[Comparison]) -> list[Comparison]:
    """Of any two arms that were tested on the same images, but for the pairs that were told; p after Holm over all pairs."""
    known = {frozenset((id(each.ours), id(each.theirs))) for each in told}
    pairs = [(ours, theirs) for theirs, ours in combinations(arms, 2) if frozenset((id(ours), id(theirs))) not in known]
    made = [Comparison(*pair, on_images(*pair)) for pair in pairs if np.array_equal(pair[0].targets, pair[1].targets)]
    corrected = stats.holm([each.difference.p for each in (*made, *told)])
    return [replace(each, p=p) for each, p in zip(made, corrected, strict=False)]


def on_images(ours: Arm, theirs: Arm) -> stats.Difference:
    """McNemar's; with several seeds the same question of the shares of them that are right."""
    if ours.seeds == theirs.seeds == 1:
        return stats.mcnemar(ours.share == 1, theirs.share == 1)
    mean = stats.paired(ours.share.tolist(), theirs.share.tolist())
    return replace(mean, p=stats.sign_test(ours.share, theirs.share))
