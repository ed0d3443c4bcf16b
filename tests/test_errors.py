"""Exit codes and messages of errors."""

from __future__ import annotations

import pytest

from cnnbench.errors import (
    ConfigError,
    DataError,
    Diverged,
    Interrupted,
    OutputLost,
    ReportedByOtherRank,
    RunFailed,
    did_you_mean,
    exit_code_of,
    print_traceback,
)


def raising(error: BaseException):
    def work() -> None:
        raise error

    return work


@pytest.mark.parametrize(("result", "code"), [(None, 0), (0, 0), (3, 3)])
def test_the_exit_code_of_a_command_is_what_it_returns(result, code):
    assert exit_code_of(lambda: result) == code


@pytest.mark.parametrize(
    ("error", "code"),
    [(ConfigError("x"), 2), (DataError("x"), 2), (RunFailed("x"), 3), (Diverged("x"), 3), (Interrupted("x", 15), 143)],
)
def test_an_error_of_cnnbench_is_one_line_followed_by_a_hint(error, code, capsys):
    assert exit_code_of(raising(error), lambda error: "; type y") == code
    assert capsys.readouterr().err == "cnnbench: x; type y\n"


def test_the_text_of_an_error_is_one_printable_line(capsys):
    assert exit_code_of(raising(ConfigError("a\nb\x1b]0;x\x07\u202e[red]"))) == 2
    assert capsys.readouterr().err == r"cnnbench: a\nb\x1b]0;x\x07\u202e[red]" + "\n"


def test_the_traceback_of_a_bug_is_printable(capsys):
    print_traceback(ValueError("a\x1b[8m\nb"))
    assert capsys.readouterr().err == "ValueError: a\\x1b[8m\nb\n"


def test_an_error_that_another_rank_reported_prints_nothing(capsys):
    assert exit_code_of(raising(ReportedByOtherRank(3))) == 3
    assert capsys.readouterr().err == ""


def test_control_c_is_one_line(capsys):
    assert exit_code_of(raising(KeyboardInterrupt())) == 130
    assert capsys.readouterr().err == "cnnbench: interrupted\n"


def test_an_unexpected_error_keeps_its_traceback():
    with pytest.raises(ZeroDivisionError):
        exit_code_of(lambda: 1 // 0)


def test_hydra_full_error_prints_the_traceback_as_well(capsys, monkeypatch):
    monkeypatch.setenv("HYDRA_FULL_ERROR", "1")
    exit_code_of(raising(ConfigError("x")))
    assert capsys.readouterr().err.startswith("Traceback (most recent call last):\n")


@pytest.mark.parametrize(("message", "line"), [("", ""), ("stdout: no space", "cnnbench: stdout: no space\n")])
def test_a_listing_whose_output_is_lost_ends_with_141(message, line, capsys):
    assert exit_code_of(raising(OutputLost(message))) == 141
    assert capsys.readouterr().err == line


@pytest.mark.parametrize(("word", "text"), [("lenet", "; did you mean lenet5?"), ("zzz", ""), ("", "")])
def test_a_similar_choice_is_suggested(word, text):
    assert did_you_mean(word, ["lenet5", "vgg16"]) == text
