"""Divides the jobs of a sweep between machines: `sweep.part=1/2` is the first of two parts."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, TypeVar

from pydantic import AfterValidator, Field

T = TypeVar("T")


def _one_of_its_parts(part: str) -> str:
    """Checks that the part is one of the parts.

    Raises:
        ValueError: its number is larger than theirs.
    """
    number, count = map(int, part.split("/"))
    if number > count:
        raise ValueError("part")
    return part


Part = Annotated[str, Field(pattern="^[1-9][0-9]{0,5}/[1-9][0-9]{0,5}$"), AfterValidator(_one_of_its_parts)]


def in_part(jobs: Sequence[T], part: str | None) -> list[T]:
    """Returns the jobs of one part, in their order; all jobs if `part` is None.

    Each round of n jobs has one job of each part, so the parts have equal numbers of jobs, and the seeds of a setting, which follow
    each other, are spread over the machines. Each round begins one part later: otherwise a factor with n values, of which one
    may take all the time, would be divided by its values. Depends on nothing but the order of the jobs: not on what is done.

    Args:
        jobs: of the whole sweep.
        part: `"1/2"` for the first of two.
    """
    if part is None:
        return list(jobs)
    number, count = map(int, part.split("/"))
    return [job for at, job in enumerate(jobs) if (at + at // count) % count == number - 1]
