"""JSON files of a stranger's sweep with any value in any field: a command ends with one clear line, or names the file and goes on."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from cnnbench.runs.liveness import this_process
from cnnbench.runs.schema import ClaimRecord, ProcessRecord, Result, Status, SweepRecord
from cnnbench.sweep import plan as planning
from hostile import LARGE_VALUES, ODD_FILES, TEXTS, VALUES, Place, places_in, places_of, replace_file, tried, with_value
from owners import DEAD
from sweeping import SMALL, call_here, plan, use_this_process, write_run

FACTS = {"hardware": {"cpu": "x", "gpus": [], "system": "y"}, "git": {"commit": "c0ffee0", "dirty": True}, "seed": 0,
         "numerics": {"tf32": False}, "choices": {"model": "lenet5"}, "params": 10, "macs": 20, "command": "cnnbench"}  # fmt: skip
CLAIM = {"says": "x", "of": {"model": "lenet5"}, "over": {"model": "mnist_cnn"}, "above": 0.0, "metric": "test/acc"}
SWEPT = ("model=lenet5,mnist_cnn", "name=mine")
KINDS = {"sweep.json": SweepRecord, "launcher.json": ProcessRecord, "status.json": Status, "result.json": Result}
# values that are tried whenever the tests run; each of the others is like one of them
FREQUENT = ("a text", "null", "true", "nested lists", "an object", "-2**70", "a float beyond all", "an integer of 400 digits",
            "an escape sequence")  # fmt: skip
CONFIG_KEYS = ("epochs", "augment", "data._target_", "seed")  # of the fixed values, to try
PROGRESS = {"epoch": 1, "epochs": 2, "step": 1, "steps": 4, "loss": 0.5, "val_acc": 0.5, "left_s": 3.0}


@dataclass(frozen=True)
class Made:
    """A sweep of two jobs: one is done, the other one is run by this process."""

    sweep: Path
    names: list[str]

    @classmethod
    def write(cls, folder: Path) -> Made:
        planned = plan(*SWEPT)
        made = cls(folder / "runs" / "mine", [each.job.name for each in planned.jobs])
        write_run(planned.jobs[0], "done", **FACTS)
        write_run(planned.jobs[1], "running", {**this_process().model_dump(), **PROGRESS})
        record = planned.record.model_copy(update={"claims": [ClaimRecord(**CLAIM)], "baseline": {"model": "lenet5"}})
        planned.sweep.write(record, [each.job for each in planned.jobs])
        (made.sweep / "launcher.json").write_text(json.dumps({**this_process().model_dump(), **DEAD}))
        (made.done / "metrics.csv").write_text("epoch,step,train/loss\n1,2,0.5\n")
        return made

    @property
    def done(self) -> Path:
        return self.sweep / self.names[0]

    @property
    def running(self) -> Path:
        return self.sweep / self.names[1]

    def path(self, file: str) -> Path:
        folders = {"sweep.json": self.sweep, "launcher.json": self.sweep, "status.json": self.running}
        return folders.get(file, self.done) / file

    def calls(self, file: str) -> Iterator[tuple[object, ...]]:
        """The commands that read a file."""
        yield "status", self.sweep
        yield "report", self.sweep, "--text"
        if file == "status.json":
            yield "status", self.running
        if file == "sweep.json":
            yield "plan", *SMALL, *SWEPT
        if file == "result.json":
            yield "compare", self.sweep, self.sweep
            yield (f"resume={self.done}",)


@pytest.fixture(scope="module")
def template(tmp_path_factory) -> tuple[Made, object]:
    """The sweep, and its jobs as frozen: preparing them takes a second."""
    with pytest.MonkeyPatch.context() as patch:
        folder = tmp_path_factory.mktemp("template")
        use_this_process(patch, folder)
        return Made.write(folder), call_here(planning.freeze, planning.expand_sweep([*SMALL, *SWEPT]), False)


@pytest.fixture
def made(template, monkeypatch, tmp_path) -> Made:
    """A copy of the sweep, in the folder that the test is in."""
    first, frozen = template
    use_this_process(monkeypatch, tmp_path)
    monkeypatch.setattr("cnnbench.sweep.plan.run_in_subprocess", lambda *_, **__: frozen)
    shutil.copytree(first.sweep, tmp_path / "runs" / "mine")
    return Made(tmp_path / "runs" / "mine", first.names)


def places(file: str, document: object) -> list[Place]:
    """Every field of a kind of file, and every value in a document of this kind."""
    found = dict.fromkeys([*places_of(KINDS[file]), *places_in(document), ("unknown",)])
    return [place for place in found if place[0] != "fixed" or place[1:] in ((), *((key,) for key in CONFIG_KEYS))]


@pytest.mark.parametrize(
    "value", [value if value in FREQUENT else pytest.param(value, marks=pytest.mark.slow) for value in VALUES]
)
@pytest.mark.parametrize("file", KINDS)
def test_any_value_in_any_field_has_a_clear_outcome(made, file, value):
    path = made.path(file)
    document = json.loads(path.read_text())
    for place in places(file, document):
        path.write_text(with_value(document, place, VALUES[value]))
        for call in made.calls(file):
            try:
                tried(*call)
            except BaseException as error:
                raise AssertionError(f"{place} {call[0]}") from error


@pytest.mark.parametrize("value", LARGE_VALUES)
@pytest.mark.parametrize(
    ("file", "place"),
    [
        ("sweep.json", ("unknown",)), ("sweep.json", ("fixed", "epochs")), ("sweep.json", ("jobs", 0, "facts", "params")),
        ("sweep.json", ("jobs", 0, "setting", "model")), ("sweep.json", ("question",)), ("launcher.json", ("host",)),
        ("status.json", ("unknown",)), ("status.json", ("reason",)), ("result.json", ("metrics",)),
        ("result.json", ("metrics", "test/acc")), ("result.json", ("hardware", "cpu")),
    ],
)  # fmt: skip
def test_a_large_value_has_a_clear_outcome(made, file, place, value):
    path = made.path(file)
    path.write_text(with_value(json.loads(path.read_text()), place, LARGE_VALUES[value]))
    for call in made.calls(file):
        tried(*call)


@pytest.mark.parametrize("text", TEXTS)
@pytest.mark.parametrize("file", [*KINDS, "config.yaml", "metrics.csv"])
def test_a_file_of_any_content_has_a_clear_outcome(made, file, text):
    made.path(file).write_bytes(TEXTS[text])
    for call in made.calls(file):
        tried(*call)


@pytest.mark.parametrize("kind", ODD_FILES)
@pytest.mark.parametrize(
    "name",
    ["sweep.json", "launcher.json", "summary.csv", "sweep.log", ".launcher.lock", "status.json", "result.json", "config.yaml",
     "metrics.csv", "test_reads.txt", "log.txt", "predictions.npz", "mistakes.npz", ".lock", "checkpoints/best.ckpt"],
)  # fmt: skip
def test_an_odd_file_in_the_place_of_any_file_has_a_clear_outcome(made, name, kind):
    replace_file(made.path(name), kind)
    copy = made.sweep.parent / "copy" / "mine"
    shutil.copytree(made.sweep, copy, symlinks=True, ignore=lambda folder, names: {Path(name).name})
    for call in (*made.calls(name), ("status", made.done), ("clean", made.sweep), ("compare", made.sweep, copy),
                 ("merge", made.sweep, copy), (f"resume={made.running if name == 'status.json' else made.done}",)):  # fmt: skip
        tried(*call)


@pytest.mark.parametrize(
    ("metric", "value"),
    [
        ("test/acc", 1.5),
        ("test/acc", -1),
        ("test/acc", True),
        ("test/loss", "x"),
        ("best/val/acc", []),
        ("test/loss", None),
    ],
)
def test_a_finished_run_with_an_impossible_metric_is_damaged(made, metric, value):
    path = made.path("result.json")
    path.write_text(with_value(json.loads(path.read_text()), ("metrics", metric), json.dumps(value)))
    code, text = tried(f"resume={made.done}")
    assert (code, "result.json: damaged, expected the result of a run" in text) == (2, True)


@pytest.mark.parametrize("absent", ["best_epoch", "params", "time", "samples_per_s", "n"])
def test_a_finished_run_without_a_fact_is_shown_without_it(made, absent):
    path = made.path("result.json")
    values = json.loads(path.read_text())
    path.write_text(json.dumps({key: value for key, value in values.items() if key != absent}))
    code, text = tried(f"resume={made.done}")
    assert (code, "0.6250" in text) == (2, False) if absent == "n" else (0, True)
