"""Text forms of values, keys, names and durations."""

from __future__ import annotations

import math

import pytest
from hydra.core.override_parser.overrides_parser import OverridesParser
from hypothesis import given
from hypothesis import strategies as st

from cnnbench.text import (
    NAME,
    canonical_json,
    csv_table,
    duration,
    file_size,
    finite_number,
    first_few,
    flatten,
    printable,
    safe_filename,
    shorten,
    shown_line,
    to_override,
    unflatten,
)

KEYS = st.text("abc_", min_size=1, max_size=4)
LEAVES = st.integers() | st.none()
NESTED = st.dictionaries(
    KEYS, LEAVES | st.dictionaries(KEYS, LEAVES | st.dictionaries(KEYS, LEAVES, min_size=1), min_size=1), max_size=4
)


def test_equal_values_have_the_same_canonical_json():
    assert canonical_json({"b": [1.0, {"d": 2, "c": None}], "a": True}) == '{"a": true, "b": [1, {"c": null, "d": 2}]}'
    assert canonical_json((1, 2)) == canonical_json([1.0, 2.0])


def test_different_values_have_different_canonical_json():
    assert len({canonical_json(value) for value in (1, 1.5, "1", True, None, [1], {"1": 1})}) == 7


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (None, "null"),
        (True, "true"),
        (0.5, "0.5"),
        ("sgd", "sgd"),
        ([1, [2, None]], "[1,[2,null]]"),
        ({"a": {"b": 1}}, "{a:{b:1}}"),
    ],
)
def test_an_override_is_read_by_hydra_as_the_value(value, text):
    assert to_override(value) == text
    assert OverridesParser.create().parse_override(f"key={text}").value() == value


@given(NESTED)
def test_flattened_keys_are_unflattened_to_the_same_dicts(values):
    flat = flatten(values)
    assert not any(isinstance(value, dict) and value for value in flat.values())
    assert unflatten(flat) == values


def test_dotted_keys_name_the_nested_ones():
    assert flatten({"model": {"depth": 3, "extra": {}}, "seed": 0}) == {"model.depth": 3, "model.extra": {}, "seed": 0}


def test_the_later_of_two_contradicting_keys_remains():
    assert unflatten({"model": "lenet5", "model.depth": 3}) == {"model": {"depth": 3}}


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf, 1e301, 10**400, "1", None, [1], {}])
def test_other_values_are_no_finite_number(value):
    assert finite_number({"a": {"b": value}}, "a", "b") is None


def test_a_finite_number_is_found_at_its_path():
    assert finite_number({"a": {"b": 3}}, "a", "b") == 3.0
    assert finite_number({"a": 3}, "a", "b") is None
    assert finite_number(None, "a") is None


@pytest.mark.parametrize(
    ("text", "name"),
    [("a/b c", "a-b-c"), ("lr=0.1", "lr-0.1"), ("..", "x"), ("", "x"), ("é", "x"), ("-a-", "a"), ("../../etc", "etc")],
)
def test_a_safe_filename_has_only_letters_digits_dots_hyphens_and_underscores(text, name):
    assert safe_filename(text) == name
    assert NAME.fullmatch(name)


@pytest.mark.parametrize("name", ["", ".hidden", "-x", "a/b", "a b", "a" * 81, "a\n"])
def test_other_names_are_not_allowed(name):
    assert not NAME.fullmatch(name)


@pytest.mark.parametrize(
    "text", ["", "größe 猫 × – … ★ ≈", "résumé 👍", "مرحبا שלום", "e\u0301", r"\x1b $\frac{$ [red] :smile: `a` | <b>"]
)
def test_ordinary_text_is_printable_as_it_is(text):
    assert printable(text) == text


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("\x1b[31m", r"\x1b[31m"), ("\x9b8m", r"\x9b8m"), ("\x00\x07\x08\x7f", r"\x00\x07\x08\x7f"), ("a\nb\tc\r", r"a\nb\tc\r"),
        ("\u2028\u2029\x85", r"\u2028\u2029\x85"), ("\u202e\u2066\u2069\u200f", r"\u202e\u2066\u2069\u200f"),
        ("\u200b\u200d\u2060\ufeff\xad", r"\u200b\u200d\u2060\ufeff\xad"), ("\udcff", r"\udcff"), ("\U000e0041", r"\U000e0041"),
        ("\ue000\uffff", r"\ue000\uffff"), ("a\xa0b\u3000c\u2009d", "a b c d"),
    ],
)  # fmt: skip
def test_what_a_terminal_obeys_or_does_not_show_becomes_an_escape(text, shown):
    assert printable(text) == shown
    assert printable(shown) == shown


def test_characters_to_keep_are_kept():
    assert printable("a\n\tb\x1b", keep="\n\t") == "a\n\tb\\x1b"


@given(st.text())
def test_any_text_becomes_printable(text):
    assert printable(text).isprintable()
    assert shown_line(text).isprintable()


def test_a_long_text_is_shortened():
    assert shorten("a" * 10_000) == "a" * 10_000
    assert shorten("a" * 1_000_000, 5) == "aaaaa... (1,000,000 characters)"


def test_a_text_of_several_lines_is_shown_in_one():
    assert shown_line(" why\n\tthis\r\n ? \x1b") == r"why this ? \x1b"
    assert len(shown_line("word " * 1_000_000)) < 2100


@pytest.mark.parametrize(
    "text", ["=1+1", "+1+1", "-1+1", "@A1", "=cmd|' /C calc'!A0", ' "=1', "'=1", "＝1", "＋1", "－1", "＠1", "-"]
)
def test_a_text_that_a_spreadsheet_would_compute_is_a_text_in_csv(text):
    assert csv_table(["a"], [{"a": text}]).splitlines()[1].lstrip('"').startswith("'")


@pytest.mark.parametrize("text", ["\t=1", "\r=1", "\x1b=1", "\n=1"])
def test_control_characters_are_escapes_in_csv(text):
    assert csv_table([text], [{text: text}]) == f"{printable(text)}\n" * 2


@pytest.mark.parametrize("value", [-0.5, "-0.5", "+1e-3", "-inf", "1e5", "nan", -3, 0.1 + 0.2, "a=b", "é, 猫"])
def test_numbers_and_other_texts_stay_as_they_are_in_csv(value):
    text = csv_table(["a"], [{"a": value}]).splitlines()[1]
    assert text.strip('"') == str(value)


def test_an_absent_value_is_an_empty_field_of_csv():
    assert csv_table(["=a", "b"], [{"=a": 1, "c": 2}, {"b": None}]) == "'=a,b\n1,\n,\n"


@pytest.mark.parametrize(
    ("texts", "shown"), [("", ""), ("a", "a"), ("abcd", "a, b, c, d"), ("abcdef", "a, b, c, d and 2 more")]
)
def test_the_first_few_texts_are_listed_and_the_others_counted(texts, shown):
    assert first_few(list(texts)) == shown


@pytest.mark.parametrize(
    ("count", "text"),
    [
        (0, "0 bytes"), (1, "1 byte"), (999, "999 bytes"), (1000, "1.0 kB"), (1_250_000, "1.2 MB"), (2e9, "2.0 GB"),
        (3e12, "3,000.0 GB"),
    ],
)  # fmt: skip
def test_a_file_size_has_its_largest_decimal_unit(count, text):
    assert file_size(count) == text


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0, "0.0 s"), (8.26, "8.3 s"), (59.94, "59.9 s"), (59.96, "1 min"), (250, "4 min 10 s"), (3599.6, "1 h"),
        (7500, "2 h 5 min"), (86399.7, "1 d"), (273600, "3 d 4 h"),
    ],
)  # fmt: skip
def test_a_duration_has_its_two_largest_units(seconds, text):
    assert duration(seconds) == text
