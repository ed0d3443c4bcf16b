"""report.html and report.md as text: well-formed, names escaped, the numbers in the page's JSON."""

from __future__ import annotations

import json
import re
from html.parser import HTMLParser

import numpy as np
import pytest

import made_sweeps as made
from cnnbench.config.compose import compose
from cnnbench.report.analysis.report_data import make_report
from cnnbench.report.load.run import read_run
from cnnbench.report.load.sweep import read_runs
from cnnbench.report.render import markdown
from cnnbench.report.render.html import plotly, render
from cnnbench.report.render.run_table import config_differences, repeat_command, run_row
from cnnbench.runs.run_dir import RunDir

HOSTILE = """</script><script>alert(1)</script><!--"'&amp;<img src=x onerror=alert(1)>é★ """
A, B = {"model": "a"}, {"model": HOSTILE}
TARGETS = [0, 1, 0, 1]


class Parsed(HTMLParser):
    """Parses a page: its tags, its attributes, its texts, its unclosed elements."""

    VOID = ("meta", "link", "br", "img", "input")

    def __init__(self, text):
        super().__init__()
        self.open, self.tags, self.attributes, self.texts, self.wrong = [], [], [], [], []
        self.feed(text)

    def handle_starttag(self, tag, attributes):
        self.tags.append(tag)
        self.attributes += attributes
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_endtag(self, tag):
        if not self.open or self.open.pop() != tag:
            self.wrong.append(tag)

    def handle_data(self, data):
        if self.open and self.open[-1] not in ("script", "style"):
            self.texts.append(data)


def outcome(accuracy, predicted):
    return {
        "accuracy": accuracy, "logits": made.logits_for(predicted, 2), "targets": TARGETS, "epochs": made.epochs([1.0, float("nan")]),
        "result": {"classes": [HOSTILE, "dog"], "command": HOSTILE, "git": {HOSTILE: HOSTILE}},
        "images": {0: np.zeros((4, 4, 1), np.uint8)},
    }  # fmt: skip


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    cells = [
        (A, {0: outcome(0.5, [0, 1, 1, 1]), 1: {"state": "failed", "reason": HOSTILE}}),
        (B, {0: outcome(0.75, [1, 1, 0, 1]), 1: outcome(0.7, [1, 1, 0, 0])}),
    ]
    claim = {"says": HOSTILE, "of": B, "over": A, "above": 0.0}
    return made.sweep(tmp_path_factory.mktemp("made") / "mine", cells, question=HOSTILE, baseline=A, claims=[claim])


@pytest.fixture(scope="module")
def page(folder):
    """The page without plotly.js."""
    return render(make_report(folder), f"cnnbench report {HOSTILE}").replace(plotly(), "")


@pytest.fixture(scope="module")
def data(page):
    return json.loads(re.search(r'<script type="application/json" id="data">(.*?)</script>', page, re.DOTALL)[1])


def test_the_page_is_well_formed(page):
    parsed = Parsed(page)
    assert (parsed.wrong, parsed.open) == ([], [])


def test_a_hostile_name_adds_no_element(page):
    parsed = Parsed(page)
    assert parsed.tags.count("script") == 3  # the data, the library, ours
    assert "img" not in parsed.tags
    assert "onerror" not in dict(parsed.attributes)
    assert "<script>alert" not in page
    assert "<!--" not in page


def test_a_hostile_name_is_shown_unchanged(page):
    texts = Parsed(page).texts
    assert HOSTILE in texts
    assert any(HOSTILE in text for text in texts if text.startswith("Undecided"))


def test_the_json_keeps_names_unchanged(data):
    assert data["settings"][1]["label"] == HOSTILE
    assert data["errors"]["classes"] == [HOSTILE, "dog"]


def test_the_json_holds_finite_numbers_only(data):
    assert [(each["mean"], each["values"]) for each in data["settings"]] == [(0.5, [0.5]), (0.725, [0.75, 0.7])]
    (curve, _) = data["curves"]["train/loss"]
    assert curve["runs"][0]["values"] == [1.0, None]
    assert curve["band"]["mean"] == [1.0]


def test_the_json_holds_confusion_and_pictures(data):
    assert data["errors"]["settings"][0]["confusion"] == [[1, 1], [0, 2]]
    assert data["errors"]["pictures"].keys() == {"0"}
    assert [tile["index"] for tile in data["errors"]["only"]["0 1"]] == [0]
    assert data["errors"]["only"]["1 0"] == []


def test_the_page_loads_nothing_from_a_network(page):
    assert re.findall(r'(?:src|href)="(?!#|data:)[^"]*"', page) == []
    assert "url(" not in page
    assert "@import" not in page


def test_only_a_setting_that_others_are_compared_with_is_marked_as_baseline(tmp_path):
    cells = [
        ({"model": "a", "lr": 1}, {0: 0.5}),
        ({"model": "b", "lr": 1}, {0: 0.5}),
        ({"model": "b", "lr": 2}, {0: 0.5}),
    ]
    text = render(make_report(made.sweep(tmp_path / "s", cells, baseline={"model": "a"})), "")
    assert text.count('<tr class="base">') + text.count('<tr class="best base">') == 1


def test_a_folder_without_finished_runs_has_a_page(tmp_path):
    text = render(make_report(made.sweep(tmp_path / "s", [(A, {0: "failed"})])), "")
    assert "Nothing is known yet" in text
    assert len(text) < 200_000  # no plots, no library


def test_a_run_lists_its_config_differences(tmp_path):
    cells = [({"optimizer.lr": lr}, {0: {"config": {"data.root": f"/{lr}"}}}) for lr in (0.1, 0.2)]
    base, other = read_runs(made.sweep(tmp_path / "s", cells)).runs
    assert config_differences(other, base) == "optimizer.lr=0.2"
    assert config_differences(base, base) == ""


def test_a_run_has_its_command_and_environment(folder):
    run = read_runs(folder).runs[2]
    row = run_row(run, 1, None)
    assert str(run.directory.path) in row.command
    assert {"git", "code", "versions", "hardware"} <= row.environment.keys()


# ---- report.md ---------------------------------------------------------------------------------------------------------------


def test_markdown_escapes_names(folder):
    text = markdown.render(make_report(folder), [], folder, "cnnbench report")
    assert "<script>" not in text.replace("\\<", "")
    assert "\\<script\\>" in text
    rows = [line for line in text.splitlines() if line.startswith("| ")]
    assert len({len(re.findall(r"(?<!\\)\|", row)) for row in rows[:3]}) == 1


@pytest.mark.parametrize(
    ("text", "escaped"),
    [
        ("](javascript:alert(1))", r"\](javascript:alert(1))"), ("![x](y)", r"!\[x\](y)"), ("# a", r"\# a"), ("a|b", r"a\|b"),
        ("`a`", r"\`a\`"), ("<b>&", r"\<b\>\&"), ("a\n\n# b", r"a \# b"), ("a\x1b\u202e", r"a\\x1b\\u202e"), ("$x$", r"\$x\$"),
    ],
)  # fmt: skip
def test_markdown_shows_a_text_as_it_is(text, escaped):
    assert markdown.plain(text) == escaped


@pytest.mark.parametrize(
    ("text", "code"), [("a", "`a`"), ("a`b", "`` a`b ``"), ("``a", "``` ``a ```"), ("a\nb\x1b", r"`a\nb\x1b`")]
)
def test_markdown_shows_code_as_it_is(text, code):
    assert markdown.code(text) == code


@pytest.mark.parametrize(("model", "flag"), [(["lenet5"], ""), (["custom", "model._target_=nets.Linear"], " --trust")])
def test_the_repeat_command_has_trust_for_code_of_the_user(model, flag, tmp_path):
    (tmp_path / "config.yaml").write_text(compose([f"model={model[0]}", *model[1:]]).dump())
    (tmp_path / "status.json").write_text('{"state": "done"}')
    (tmp_path / "result.json").write_text('{"metrics": {}}')
    assert repeat_command(read_run(RunDir(tmp_path), [])) == f"cnnbench reproduce {tmp_path}{flag}"


@pytest.mark.parametrize("state", ["failed", "diverged", "interrupted", "pending"])
def test_a_run_without_result_has_the_command_that_resumes_it(state, tmp_path):
    folder = made.run(tmp_path / "run", {"model": "lenet5"}, state=state)
    assert repeat_command(read_run(RunDir(folder), [])).startswith(f"cnnbench resume={folder}")


def test_markdown_explains_a_mark_only_if_it_occurs(tmp_path):
    for outcomes, there in (({0: 0.5}, True), ({0: "failed"}, False)):
        folder = made.sweep(tmp_path / str(there), [({"model": model}, outcomes) for model in "ab"])
        assert ("★ highest" in markdown.render(make_report(folder), [], folder, "")) is there
