"""A real sweep whose files are changed at random: every command has a clear outcome, in time, and changes nothing elsewhere.

`CNNBENCH_FUZZ_S` sets how many seconds this takes, by default 600.
"""

from __future__ import annotations

import itertools
import json
import os
import random
import shutil
import time
from collections import Counter
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import HealthCheck, Phase, given, note, seed, settings
from hypothesis import strategies as st

from cnnbench.errors import RunFailed
from cnnbench.sweep import plan as planning
from hostile import VALUES, Place, tried
from sweeping import call_here, use_this_process
from sweeps import swept

FUZZ_S = float(os.environ.get("CNNBENCH_FUZZ_S", 600))
TYPED = ["model=lenet5,lenet_3x3", "data=synthetic", "data.train_size=100", "data.val_size=20", "data.test_size=20", "epochs=2",
         "batch_size=32", "threads=1", "trainer=cpu", "name=mine"]  # fmt: skip
DOCUMENTS = ("sweep.json", "launcher.json", "status.json", "result.json", "config.yaml")
FILES = (*DOCUMENTS, "metrics.csv", "summary.csv", "test_reads.txt")
MARK = "the other value"
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=6,
).map(json.dumps)


class Fuzzed:
    """A finished sweep in a folder; `restore` undoes every change."""

    def __init__(self, folder: Path) -> None:
        swept(folder, *TYPED)
        self.folder, self.sweep = folder, folder / "runs" / "mine"
        self.run = sorted(path.parent for path in self.sweep.glob("*/config.yaml"))[0]
        shutil.copy(self.run / "status.json", self.sweep / "launcher.json")
        (self.run / "test_reads.txt").write_text("2026-01-01 evaluate\n")
        shutil.copytree(self.sweep, folder / "other" / "mine")
        (folder / "runs" / "elsewhere").mkdir()
        (folder / "runs" / "elsewhere" / "kept.txt").write_text("kept")
        shutil.copytree(self.sweep, folder / "before")
        self.outside = self.others()

    def path(self, file: str) -> Path:
        return (self.sweep if file in ("sweep.json", "launcher.json", "summary.csv") else self.run) / file

    def restore(self) -> None:
        shutil.rmtree(self.sweep)
        shutil.copytree(self.folder / "before", self.sweep)

    def others(self) -> dict[str, tuple[int, int]]:
        """Size and time of every file that is not in the sweep."""
        found = {}
        for folder, names, files in os.walk(self.folder):
            names[:] = [name for name in names if Path(folder, name) != self.sweep]
            for path in (Path(folder, name) for name in files):
                found[str(path)] = (path.stat().st_size, path.stat().st_mtime_ns)
        return found

    def calls(self) -> list[tuple[object, ...]]:
        """All commands that read the sweep, the quick ones first."""
        return [
            ("status", self.sweep), ("status", self.run), ("compare", self.sweep, self.folder / "other" / "mine"),
            ("report", self.sweep, "--text"), ("report", self.run, "--text"), ("clean", self.sweep),
            ("plan", *TYPED), (f"resume={self.run}",), ("merge", self.sweep, self.folder / "other" / "mine"),
        ]  # fmt: skip


@pytest.fixture(scope="module")
def fuzzed(tmp_path_factory) -> Iterator[Fuzzed]:
    folder = tmp_path_factory.mktemp("fuzzed")
    made = Fuzzed(folder)
    with pytest.MonkeyPatch.context() as patch:
        use_this_process(patch, folder)
        frozen = call_here(planning.freeze, planning.expand_sweep(TYPED), False)
        patch.setattr("cnnbench.sweep.plan.run_in_subprocess", lambda *_, **__: frozen)
        patch.setattr("cnnbench.training.run.fit_and_test", refuse_to_train)
        yield made


def refuse_to_train(*_: object) -> None:
    raise RunFailed("nothing trains here")


def every_place(document: Any, before: Place = ()) -> Iterator[Place]:
    """Yields the place of every value in a document."""
    for key, value in document.items() if isinstance(document, dict) else enumerate(document):
        yield (*before, key)
        if isinstance(value, dict | list):
            yield from every_place(value, (*before, key))


def value_at(document: Any, place: Iterable[str | int]) -> Any:
    """The value at a place of a document."""
    for name in place:
        document = document[name]
    return document


def changed_document(data: st.DataObject, document: Any, is_yaml: bool) -> str:
    """The text of a document with one to three changes: a value is replaced, removed, put into lists or repeated elsewhere."""
    values: list[str] = []
    for _ in range(data.draw(st.integers(1, 3))):
        places = list(every_place(document)) if isinstance(document, dict | list) else []
        if not places:
            break
        *above, key = data.draw(st.sampled_from(places))
        inner = value_at(document, above)
        change = data.draw(st.sampled_from(["replace", "replace", "replace", "remove", "deepen", "repeat", "rename"]))
        note(f"{change} {[*above, key]}")
        if change == "remove":
            del inner[key]
        elif change == "deepen":
            for _ in range(data.draw(st.sampled_from([1, 2, 30, 60, 300]))):
                inner[key] = [inner[key]]
        elif change == "repeat":
            inner[key] = json.loads(json.dumps(value_at(document, data.draw(st.sampled_from(places)))))
        elif change == "rename" and isinstance(inner, dict):
            inner[data.draw(st.text(max_size=10))] = inner.pop(key)
        else:
            values.append(data.draw(st.sampled_from(list(VALUES.values())) | JSON))
            inner[key] = f"{MARK} {len(values) - 1}"
    text = yaml.safe_dump(document, sort_keys=False) if is_yaml and data.draw(st.booleans()) else json.dumps(document)
    for number, value in enumerate(values):
        text = text.replace(json.dumps(f"{MARK} {number}"), value).replace(f"{MARK} {number}", value)
    return text


def changed_bytes(data: st.DataObject, content: bytes) -> bytes:
    """The content of a file with some bytes replaced, removed, repeated or put in."""
    changed = bytearray(content)
    for _ in range(data.draw(st.integers(1, 5))):
        at = data.draw(st.integers(0, max(0, len(changed) - 1)))
        end = at + data.draw(st.integers(0, 8))
        changed[at:end] = data.draw(st.binary(max_size=8) | st.just(bytes(changed[at:end]) * 2))
    return bytes(changed[: data.draw(st.integers(0, len(changed)))] if data.draw(st.integers(0, 9)) == 0 else changed)


def change(data: st.DataObject, path: Path) -> None:
    """Changes a file at random."""
    content = path.read_bytes()
    if path.name in DOCUMENTS and data.draw(st.integers(0, 3)):
        is_yaml = path.suffix == ".yaml"
        document = yaml.safe_load(content) if is_yaml else json.loads(content)
        path.write_bytes(changed_document(data, document, is_yaml).encode("utf-8", "surrogatepass"))
    else:
        path.write_bytes(changed_bytes(data, content))


@pytest.mark.soak
def test_every_command_has_a_clear_outcome_for_a_sweep_that_is_changed_at_random(fuzzed):
    outcomes = Counter[str]()

    @given(st.data())
    @settings(
        max_examples=100, deadline=None, database=None, phases=[Phase.generate], suppress_health_check=list(HealthCheck)
    )
    def fuzz(data: st.DataObject) -> None:
        fuzzed.restore()
        for file in data.draw(st.lists(st.sampled_from(FILES), min_size=1, max_size=2, unique=True)):
            note(file)
            change(data, fuzzed.path(file))
        calls = fuzzed.calls()
        for call in (*calls[:4], data.draw(st.sampled_from(calls[4:]))):
            note(f"{call}")
            code, _ = tried(*call)
            outcomes[f"{str(call[0]).partition('=')[0]} {code}"] += 1
        assert fuzzed.others() == fuzzed.outside

    first, end = random.randrange(10**9), time.monotonic() + FUZZ_S
    for number in itertools.count(first):
        if time.monotonic() > end:
            break
        seed(number)(fuzz)()
    print(
        f"{outcomes.total():,} commands:",
        ", ".join(f"{outcome}: {count:,}" for outcome, count in sorted(outcomes.items())),
    )
