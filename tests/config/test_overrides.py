"""Reading and writing `key=value`: what Hydra's grammar reads is what was meant."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cnnbench.config.overrides import hydra_override, last_typed, override_value, quote_text, read_overrides
from cnnbench.errors import ConfigError

TEXT = st.text(st.characters(blacklist_categories=("Cs", "Cc")))
PLAIN = st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | TEXT
VALUES = st.recursive(PLAIN, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from("abc"), inner))


@given(VALUES)
def test_hydra_reads_back_the_value_that_was_written(value):
    assert override_value(hydra_override("key", value)) == value


def test_nan_is_written_as_a_number():
    assert math.isnan(override_value(hydra_override("key", math.nan)))


@pytest.mark.parametrize("text", ["null", "True", "1", "1e3", "", "a b", "a,b", "[x]", "${x}", "it's", "end\\", "été"])
def test_text_that_looks_like_something_else_stays_text(text):
    assert override_value(hydra_override("key", text)) == text


@pytest.mark.parametrize(
    "name",
    [
        "été",
        "a,b",
        "pics (2024)",
        "a'b",
        'a"b',
        "a#b",
        "a=b",
        "a!b",
        "123",
        "[x]",
        "{x}",
        "back\\slash",
        "end\\",
        "null",
    ],
)
def test_a_path_with_any_characters_is_read_as_it_was_typed(name):
    for key in ("data.root", "runs_dir"):
        assert override_value(quote_text(f"{key}=/x/{name}")) == f"/x/{name}"


@pytest.mark.parametrize("typed", ["data.root='/x/a b'", 'data.root="/x/a b"', "data.root=", "name=a b"])
def test_quoted_paths_empty_paths_and_other_keys_stay_as_typed(typed):
    assert quote_text(typed) == typed


def test_the_last_value_of_a_repeated_key_counts():
    assert last_typed(["seed=1", "seed=2", "epochs=3"], "seed") == "2"
    assert last_typed(["seed=1"], "epochs") is None
    assert read_overrides(["seed=1,2", "seed=3"], {}).fixed == {"seed": "seed=3"}
    assert read_overrides(["seed=3", "seed=1,2"], {}).swept == {"seed": [1, 2]}


@pytest.mark.parametrize(
    ("typed", "message"),
    [
        (
            "optimizer.lr=interval(0,1)",
            "an interval has infinitely many values; type some of them, as in optimizer.lr=0.01,0.1",
        ),
        ("model=glob(foo*)", "matches no choice; choices: lenet5, vgg16"),
        ("seed=[1", "cannot be read; expected key=value, with quotes around a value that holds = or brackets"),
    ],
)
def test_values_that_give_no_list_are_refused(typed, message):
    with pytest.raises(ConfigError) as raised:
        read_overrides([typed], {"model": dict.fromkeys(["lenet5", "vgg16"])})
    assert str(raised.value) == f"{typed}: {message}"
