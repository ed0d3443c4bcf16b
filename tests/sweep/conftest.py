"""Fixtures of the tests of sweeps."""

from __future__ import annotations

from typing import Any

import pytest

from sweeps import STOPPABLE, Sweep, swept


@pytest.fixture(scope="session")
def whole(tmp_path_factory) -> Sweep:
    """A sweep that was never stopped. Tests read it and change nothing."""
    return swept(tmp_path_factory.mktemp("whole"), *STOPPABLE)


@pytest.fixture
def launch(tmp_path):
    """Starts sweeps in the test's folder, and kills their processes at the end of the test."""
    begun = []

    def start(*arguments: str, **more: Any) -> Sweep:
        begun.append(Sweep(tmp_path, *arguments, **more))
        return begun[-1]

    yield start
    for sweep in begun:
        sweep.end()
