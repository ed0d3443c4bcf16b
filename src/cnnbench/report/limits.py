"""What limits an answer: what is missing, what else differs, what the test images are good for. Each limit is a sentence."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import Any

from cnnbench.notation import as_typed, canonical
from cnnbench.report.confounds import FACTS, Arms, confounds
from cnnbench.report.read import DETAILS, Run
from cnnbench.report.review import METRIC, Review, word
from cnnbench.report.stats import wilson
from cnnbench.report.words import plural, points, some

TROUBLE = ("failed", "diverged", "interrupted", "missing")
WAITING = ("running", "pending")
MOST_VALUES = 4


def limits(review: Review) -> list[str]:
    """All of them, the gravest first."""
    return [
        *unfinished(review),
        *unequal(review),
        *(told for arms in other_differences(review) for told in confounded(arms)),
        *made_otherwise(review),
        *of_test(review),
        *left_out(review),
    ]


def unfinished(review: Review) -> Iterator[str]:
    """Runs without a result."""
    runs = review.runs.runs
    for state in TROUBLE:
        found = [run for run in runs if run.state == state]
        if found:
            why = f" ({found[0].reason})" if found[0].reason and state == "failed" else ""
            yield f"{len(found)} of {plural(len(runs), 'run')} {_has(found)}{state}: {some([run.name for run in found])}{why}."
    waiting = [run for run in runs if run.state in WAITING]
    if waiting:
        states = " and ".join(
            f"{count} {state}" for state in WAITING if (count := sum(run.state == state for run in waiting))
        )
        on = f"; the sweep is on ({review.runs.launcher})" if review.runs.launcher else ""
        yield f"Not all is there yet: {states} of {plural(len(runs), 'run')}{on}."


def _has(found: list[Run]) -> str:
    if found[0].state == "failed":
        return "have " if len(found) > 1 else "has "
    if found[0].state == "diverged":
        return ""
    return "are " if len(found) > 1 else "is "


def unequal(review: Review) -> Iterator[str]:
    """Cells with other seeds than their baseline."""
    counts = [cell.n for cell in review.cells if cell.n]
    if counts and max(counts) == 1:
        yield "One seed a cell: how far seeds scatter is not known, and no difference can be told from chance."
    elif counts and min(counts) < max(counts):
        few = [f"{cell.label} {cell.n}" for cell in review.cells if cell.n < max(counts)]
        yield f"Seeds are unequal, {max(counts)} at most: {some(few)}. A difference uses the seeds that both cells have."
    unpaired = [cell.label for cell in review.cells if cell.difference is not None and not cell.paired]
    if unpaired:
        yield f"These share too few seeds with their baseline and are compared unpaired (Welch): {some(unpaired)}."
    if not review.stated and sum(cell.n > 0 for cell in review.cells) > 1:
        yield f"No baseline was stated; it is the first cell, {review.cells[0].label}."


def other_differences(review: Review) -> list[Arms]:
    """The factors, with what else differs between their arms."""
    runs = [run for run in review.runs.runs if run.config]
    return confounds([run.setting for run in runs], [facts(run) for run in runs], review.runs.keys)


def facts(run: Run) -> dict[str, Any]:
    """What may differ between two runs besides what was meant to."""
    result, details = run.result or {}, tuple(f"{name}." for name in DETAILS)
    config = {
        key: value for key, value in run.config.items() if key not in (*DETAILS, "seed") and not key.startswith(details)
    }
    own = {"lr": config.get("optimizer.lr"), "image": config.get("data.image_size")}
    own |= {name: config.get(name) for name in ("epochs", "batch_size")}
    own |= {name: result.get(name) for name in ("params", "macs")} if result else {}
    if result:
        own["train"] = (result.get("n") or {}).get("train")
    return {**config, **own}


def confounded(arms: Arms) -> Iterator[str]:
    """What else differs between a factor's arms."""
    besides = {name: values for name, values in arms.differing.items() if name in FACTS}
    rest = [name for name in arms.differing if name not in FACTS]
    told = [f"{FACTS[name]} ({' / '.join(map(several, values))})" for name, values in besides.items()]
    if len(rest) > MOST_VALUES:
        told.append(f"{len(rest)} other keys, such as {some(rest, 2).partition(' and ')[0]}")
    else:
        told += [f"{name} ({' / '.join(map(several, arms.differing[name]))})" for name in rest]
    if told:
        names = " / ".join(word(arms.key, level) for level in arms.levels[:MOST_VALUES])
        yield f"With {arms.key.rpartition('.')[2]} ({names}) there differ as well: {'; '.join(told)}."


def several(values: list[Any]) -> str:
    """The values of an arm; of many numbers the range."""
    numbers = [value for value in values if isinstance(value, int | float) and not isinstance(value, bool)]
    if len(values) > MOST_VALUES and len(numbers) == len(values):
        return f"{_number(min(numbers))} to {_number(max(numbers))}"
    return " or ".join(map(_number, values[:MOST_VALUES])) + (" or others" if len(values) > MOST_VALUES else "")


def _number(value: Any) -> str:
    return f"{value:,}" if isinstance(value, int) and not isinstance(value, bool) else as_typed(value)


def made_otherwise(review: Review) -> Iterator[str]:
    """Runs of other code, versions, machines or number formats than the others."""
    done = review.runs.done
    looks: dict[str, Callable[[dict[str, Any]], Any]] = {
        "versions of the code": lambda result: result.get("code"),
        "sets of package versions": lambda result: result.get("versions"),
        "kinds of hardware": lambda result: {
            key: value
            for key, value in (result.get("hardware") or {}).items()
            if key in ("cpu", "gpu", "gpus", "system")
        },
        "precisions": lambda result: result.get("precision"),
        "numbers of devices": lambda result: result.get("devices"),
    }
    for what, look in looks.items():
        found = {canonical(look(run.result or {})) for run in done}
        if len(found) > 1 and not (what == "numbers of devices" and "trainer.devices" in review.runs.keys):
            odd = _rarest(done, lambda run, look=look: canonical(look(run.result or {})))
            yield f"The runs were made with {len(found)} {what}; the fewer are {some([run.name for run in odd])}."


def _rarest(runs: list[Run], key: Callable[[Run], str]) -> list[Run]:
    counts: dict[str, list[Run]] = {}
    for run in runs:
        counts.setdefault(key(run), []).append(run)
    most = max(counts.values(), key=len)
    return [run for run in runs if run not in most]


def of_test(review: Review) -> Iterator[str]:
    """How many images decide, and how often they were looked at."""
    done = review.runs.done
    if not done:
        return
    sizes = {(run.result or {}).get("n", {}).get("test") for run in done}
    labels = {(run.result or {}).get("label_hash") for run in done}
    if len(sizes) > 1 or len(labels) > 1:
        yield "The runs were not tested on the same images; their differences include that of the images."
    size = min((size for size in sizes if isinstance(size, int) and size > 0), default=None)
    best = max((cell.mean for cell in review.cells if cell.mean is not None), default=None)
    if size and best is not None:
        _, (low, high) = wilson(round(best * size), size)
        half = points((high - low) / 2)
        yield (
            f"Test has {size:,} images, one of which is {points(1 / size)} points. The intervals are those of seeds, on these images; "
            f"for other images of the kind an accuracy of {best:.4f} is known to ±{half} points."
        )
    reads = sum(1 + test_reads(run) for run in done)
    besides = f", {reads - len(done)} of them by evaluate" if reads > len(done) else ", once a run"
    tested = sum(cell.n > 0 for cell in review.cells)
    best_of = f"; the best of {tested} cells looks better than it is" if tested > 1 else ""
    yield f"Test was read {plural(reads, 'time')}{besides}{best_of}."


def test_reads(run: Run) -> int:
    """How often the test images of a run were scored after its end."""
    try:
        return len(run.directory.test_reads.read_text(encoding="utf-8").splitlines())
    except (OSError, ValueError):
        return 0


def left_out(review: Review) -> Iterator[str]:
    """What lies there and does not count."""
    runs = review.runs
    if runs.twice:
        yield f"{plural(len(runs.twice), 'run')} repeat a seed of their cell, and do not count: {some([run.name for run in runs.twice])}."
    if runs.unlisted:
        yield f"{plural(len(runs.unlisted), 'run')} beside those that the sweep lists do not count: {some(runs.unlisted)}."
    bare = [run.name for run in runs.done if run.metric(METRIC) is None]
    if bare:
        yield f"{plural(len(bare), 'result')} without a test accuracy do not count: {some(bare)}."
    yield from _broken(runs.problems)


def _broken(problems: Iterable[str]) -> Iterator[str]:
    listed = list(problems)
    if listed:
        yield f"{plural(len(listed), 'file')} could not be read: {'; '.join(listed[:MOST_VALUES])}."
