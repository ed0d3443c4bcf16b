"""YAML files of a stranger, as config.yaml of a run and in a conf folder: one clear line, in time, and no code runs."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from cnnbench.config.compose import compose
from cnnbench.config.schema import Config
from cnnbench.config.yaml_file import read_yaml
from cnnbench.errors import ConfigError
from hostile import ODD_FILES, replace_file

NET = b"_target_: cnnbench.models.lenet5.LeNet5\n"


def doubled(first: bytes, line: Callable[[int], bytes], levels: int = 12) -> bytes:
    """A file in which each of some levels stands several times for the level before it."""
    return first + b"".join(map(line, range(1, levels)))


BOMBS = {
    "lists of aliases": doubled(
        b"a0: &a0 [x]\n", lambda n: b"a%d: &a%d [%s]\n" % (n, n, b",".join([b"*a%d" % (n - 1)] * 9))
    ),
    "dicts of aliases": doubled(
        b"a0: &a0 {x: 1}\n",
        lambda n: b"a%d: &a%d {%s}\n" % (n, n, b",".join(b"k%d: *a%d" % (key, n - 1) for key in range(9))),
    ),
    "merged aliases": doubled(
        b"a0: &a0 {x: 1}\n",
        lambda n: b"a%d: &a%d\n  <<: [%s]\n  y%d: 1\n" % (n, n, b",".join([b"*a%d" % (n - 1)] * 9), n),
    ),
    "aliases as keys": doubled(b"a0: &a0 [x]\n", lambda n: b"? &a%d [*a%d, *a%d]\n: 1\n" % (n, n - 1, n - 1), 40),
    "a list that holds itself": b"a: &a [*a]",
    "a dict that holds itself": b"&a {b: *a}",
    "deep lists": b"a: " + b"[" * 100_000,
    "closed deep lists": b"a: " + b"[" * 900 + b"]" * 900,
    "lists 60 deep": b"a: " + b"[" * 60 + b"]" * 60,
    "deep dicts": b"{a: " * 100_000,
    "deep blocks": b"".join(b" " * level + b"a:\n" for level in range(2_000)),
    "5 MB of keys": b"".join(b"k%d: 1\n" % number for number in range(400_000)),
    "a million bytes of keys": b"".join(b"k%d: 1\n" % number for number in range(120_000))[: 1 << 20],
    "100,000 anchors": b"".join(b"- &a%d x\n" % number for number in range(70_000)),
    "an absent alias": b"a: *b",
    "Python's tags": b"model: !!python/object/apply:os.system [touch ran]",
    "Python's tags by a directive": b"%TAG ! tag:yaml.org,2002:python/\n---\na: !object/apply:os.system [touch ran]",
    "a tag of its own": b"a: !mine x",
    "no truth value": b"seed: !!bool x",
    "no integer": b"seed: !!int ''",
    "half an integer": b"seed: !!int 0x",
    "no float": b"seed: !!float x",
    "no time": b"seed: !!timestamp x",
    "no set": b"seed: !!set [1]",
    "no ordered dict": b"seed: !!omap [1]",
    "no pairs": b"seed: !!pairs x",
    "5,000 digits": b"seed: " + b"9" * 5_000,
    "a list as key": b"? [1, 2]\n: 3",
    "a dict as key": b"? {a: b}\n: 3",
    "NUL bytes": b"a\0b: 1",
    "escape sequences": b"a\x1b[31m: 1",
    "UTF-16": "a: 1".encode("utf-16"),
    "Latin-1": b"a: \xe9",
    "two documents": b"a: 1\n---\nb: 2\n",
    "another version of YAML": b"%YAML 9.9\n---\na: 1",
    "a tab": b"a:\n\t- b",
    "half of a text": b"a: 'b",
    "a list": b"- 1",
    "a text": b"x",
}
OTHERS = {  # what YAML can read, and no config is
    "nothing": b"",
    "comments": b"#\n" * 1000,
    "numbers as keys": b"1: 2\n2.5: 3\nnull: 4\ntrue: 5\n2001-01-01: 1",
    "a date": b"seed: 2001-01-01",
    "bytes": b"seed: !!binary aGk=",
    "a set": b"seed: !!set {a, b}",
    "a list as target": b"model: {_target_: [1]}",
    "a list of nets": b"model: [1]",
    "an infinite number": b"optimizer: {lr: .inf}",
}
FILES = {**BOMBS, **OTHERS}


@pytest.mark.parametrize("name", FILES)
def test_the_config_of_a_run_is_refused_in_one_line(tmp_path, monkeypatch, name):
    monkeypatch.chdir(tmp_path)
    path = tmp_path / "config.yaml"
    path.write_bytes(FILES[name])
    begun = time.process_time()
    with pytest.raises(ConfigError) as raised:
        Config.load(path)
    assert time.process_time() - begun < 5
    assert "\n" not in str(raised.value)
    assert os.listdir() == ["config.yaml"]


@pytest.mark.parametrize("kind", [kind for kind in ODD_FILES if kind not in ("an empty file", "half of the file")])
def test_an_odd_file_is_no_config(tmp_path, kind):
    replace_file(tmp_path / "config.yaml", kind)
    with pytest.raises(ConfigError):
        Config.load(tmp_path / "config.yaml")


@pytest.mark.parametrize(
    ("content", "value"),
    [(b"a: 1\r\nb: [2]\r\n", {"a": 1, "b": [2]}), (b"\xef\xbb\xbfa: 1", {"a": 1}), (b"a: 1\na: 2", {"a": 2}), (b"", None),
     (b"a: &x {b: 1}\nc: {<<: *x, d: 2}", {"a": {"b": 1}, "c": {"b": 1, "d": 2}})],
)  # fmt: skip
def test_unusual_and_harmless_yaml_is_read(tmp_path, content, value):
    (tmp_path / "a.yaml").write_bytes(content)
    assert read_yaml(tmp_path / "a.yaml") == value


INTERPOLATIONS = {
    "a loop": b"a: ${model.b}\nb: ${model.a}\n",
    "itself": b"kernel_size: ${model.kernel_size}\n",
    "its parent": b"kernel_size: ${model}\n",
    "a bomb": doubled(b"a0: xxxxxxxxxx\n", lambda n: b"a%d: %s\n" % (n, b"${model.a%d}" % (n - 1) * 10), 9),
    "a bomb of dicts": doubled(
        b"a0: {x: 1}\n", lambda n: b"a%d: {x: ${model.a%d}, y: ${model.a%d}}\n" % (n, n - 1, n - 1), 40
    ),
    "3,000 levels": b"kernel_size: " + b"${" * 3_000 + b"a" + b"}" * 3_000,
    "3,000 keys": b"kernel_size: " + b"${seed}" * 3_000,
    "half of one": b"kernel_size: ${oc.decode:'${'}\n",
    "an absent key": b"kernel_size: ${model.absent}\n",
    "an absent resolver": b"kernel_size: ${mine:1}\n",
}
DEFAULTS = {
    "itself": b"defaults:\n  - x\n  - _self_\n",
    "a number": b"defaults: 5\n",
    "a dict in a dict": b"defaults:\n  - {a: {b: c}}\n",
    "a file elsewhere": b"defaults:\n  - ../../../../../etc/passwd\n",
    "a part of Hydra": b"defaults:\n  - override /hydra/launcher: basic\n",
}
IN_CONF = {
    **BOMBS,
    **{f"interpolates {name}": NET + content for name, content in INTERPOLATIONS.items()},
    **{f"includes {name}": content + NET for name, content in DEFAULTS.items()},
    "a package of 5,000 parts": b"# @package " + b"a." * 5_000 + b"b\nx: 1\n",
    "a package of Hydra's": b"# @package hydra\nrun: {dir: x}\n",
    "a missing value": b"_target_: ???\n",
}


def composed(folder: Path, override: str) -> None:
    """Checks that a conf folder is refused in one line, in time, and that nothing is written."""
    begun = time.process_time()
    with pytest.raises(ConfigError) as raised:
        compose([override, "data=synthetic"], folder)
    assert time.process_time() - begun < 8
    assert str(raised.value)
    assert "\n" not in str(raised.value)
    assert not Path("ran").exists()


@pytest.mark.parametrize("name", IN_CONF)
def test_a_net_of_a_conf_folder_is_refused_in_one_line(tmp_path, monkeypatch, name):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "x.yaml").write_bytes(IN_CONF[name])
    composed(tmp_path, "model=x")


@pytest.mark.parametrize("name", [*BOMBS, "includes itself", "includes a number", "includes a dict in a dict"])
def test_a_step_of_a_conf_folder_is_refused_in_one_line(tmp_path, monkeypatch, name):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "augment").mkdir()
    (tmp_path / "augment" / "x.yaml").write_bytes(IN_CONF[name])
    composed(tmp_path, "augment=[x,basic]")


@pytest.mark.parametrize(
    "kind", ["a FIFO", "a link to /dev/zero", "a folder", "a link to itself", "a sparse file of 300 MB"]
)
@pytest.mark.parametrize("group", ["model", "augment"])
def test_an_odd_file_of_a_conf_folder_is_refused_in_one_line(tmp_path, monkeypatch, group, kind):
    monkeypatch.chdir(tmp_path)
    replace_file(tmp_path / group / "x.yaml", kind)
    composed(tmp_path, {"model": "model=x", "augment": "augment=[x,basic]"}[group])


def test_a_file_with_a_few_interpolations_is_composed(tmp_path):
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "x.yaml").write_bytes(NET + b"kernel_size: ${model.stride}\nstride: ${oc.decode:'1'}\n")
    assert compose(["model=x"], tmp_path).model.arguments["kernel_size"] == 1
