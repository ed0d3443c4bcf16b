"""Texts that somebody else may have put into a file, and sweeps that hold them in one field."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import yaml

import made_sweeps
from cnnbench.runs.liveness import this_process

TEXTS = {
    "an escape sequence": "a\x1b[8mb",
    "a window title": "a\x1b]0;title\x07b",
    "a clipboard": "a\x1b]52;c;ZXZpbA==\x07b",
    "a hyperlink": "a\x1b]8;;https://evil.example\x1b\\b",
    "a CSI of one byte": "a\x9b8mb",
    "backspaces": "a\x08\x08b\x7f",
    "a carriage return": "a\rb",
    "line ends": "a\nb\r\nc\u2028d\x85e",
    "a reversed direction": "a\u202eb\u2066c",
    "no width": "a\u200b\u2060\ufeffb\u00ad",
    "a lone surrogate": "a\udcffb",
    "markup": "[red]a[/] [link=https://evil.example]b[/link] [/]",
    "an emoji code": "a :smile: b",
    "mathtext": r"$\frac{$",
    "Markdown": "# a | `b` ](javascript:alert(1)) ![x](y)",
    "HTML": "</script><img src=x onerror=alert(1)>",
    "a formula": "=HYPERLINK(1)",
    "a shell command": "a; touch pwned $(touch pwned) `touch pwned` | sh # b",
}
# a JSON file with a lone surrogate is refused as a whole
ALL = " ".join(text for kind, text in TEXTS.items() if kind != "a lone surrogate")
# what a terminal obeys, and what changes the order of a text or has no width
OBEYED = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u00ad\u200b-\u200f\u2028-\u202e\u2060-\u2069\ufeff\ud800-\udfff]")
COLOURS = re.compile(r"\x1b\[[0-9;]*m")  # of rich


def obeyed(text: str) -> list[str]:
    """The characters of an output that a terminal would obey."""
    return OBEYED.findall(text)


def sweep_with(path: Path, field: str, text: str) -> Path:
    """Writes a sweep of two settings: two runs are done, one has failed, one is missing; `text` is in a field of `FIELDS`."""
    made_sweeps.sweep(path, [({"model": "a"}, {0: 0.5, 1: "failed"}), ({"model": "b"}, {0: 0.6, 1: "missing"})])
    FIELDS[field](path, text)
    return path


def _in_json(name: str, change: Callable[[Any, str], None]) -> Callable[[Path, str], None]:
    """A function that changes all JSON files of a name in a sweep."""

    def write(path: Path, text: str) -> None:
        for file in [*path.glob(name), *path.glob(f"*/{name}")]:
            values = json.loads(file.read_text())
            change(values, text)
            file.write_text(json.dumps(values))

    return write


def _in_config(change: Callable[[Any, str], None]) -> Callable[[Path, str], None]:
    def write(path: Path, text: str) -> None:
        for file in path.glob("*/config.yaml"):
            values = yaml.safe_load(file.read_text())
            change(values, text)
            file.write_text(yaml.safe_dump(values))

    return write


def _level(record: Any, text: str) -> None:
    for job in record["jobs"]:
        job["setting"]["model"] = text + job["setting"]["model"]


def _key(record: Any, text: str) -> None:
    record["keys"].append(text)
    for number, job in enumerate(record["jobs"]):
        job["setting"][text] = number // 2


def _classes(path: Path, text: str) -> None:
    _in_json("result.json", lambda result, text: result.update(classes=[text, "$x$"]))(path, text)
    for file in path.glob("*/result.json"):
        logits = made_sweeps.logits_for([0, 1, 1, 0], 2)
        np.savez_compressed(file.with_name("predictions.npz"), logits=logits, targets=np.array([0, 1, 0, 1]))


def _file_name(text: str) -> str:
    return text.replace("/", "-").replace("\\", "-")[:80]


def _directory(path: Path, text: str) -> None:
    record = json.loads((path / "sweep.json").read_text())
    for job in record["jobs"]:
        before, job["directory"] = job["directory"], f"{_file_name(text)}_{job['directory']}"
        if (path / before).exists():
            (path / before).rename(path / job["directory"])
    (path / "sweep.json").write_text(json.dumps(record))


def _launcher(path: Path, text: str) -> None:
    other = this_process().model_copy(update={"host": text, "boot_id": "other", "pid_namespace": 1})
    (path / "launcher.json").write_text(other.to_json())


def _unlisted(path: Path, text: str) -> None:
    shutil.copytree(next(path.glob("a_seed0_*")), path / _file_name(text))


def _metrics(path: Path, text: str) -> None:
    for file in path.glob("*/result.json"):
        file.with_name("metrics.csv").write_text(f'epoch,"{text}"\n1,{text}\n', errors="surrogateescape")


FIELDS: dict[str, Callable[[Path, str], None]] = {  # each puts a text into a place of a sweep
    "question": _in_json("sweep.json", lambda record, text: record.update(question=text)),
    "cost": _in_json("sweep.json", lambda record, text: record.update(cost=text)),
    "command": _in_json("sweep.json", lambda record, text: record.update(command=f"cnnbench -m {text}")),
    "name": _in_json("sweep.json", lambda record, text: record.update(name=text, command=None)),
    "fixed value": _in_json("sweep.json", lambda record, text: record.update(fixed={"epochs": text})),
    "claim": _in_json(
        "sweep.json", lambda record, text: record.update(claims=[{"says": text, "of": {"model": "a"}, "above": 0.1}])
    ),
    "baseline": _in_json("sweep.json", lambda record, text: record.update(baseline={"model": text})),
    "level": _in_json("sweep.json", _level),
    "key": _in_json("sweep.json", _key),
    "directory": _directory,
    "folder that the sweep does not list": _unlisted,
    "reason": _in_json("status.json", lambda status, text: status.update(reason=text)),
    "state": _in_json("status.json", lambda status, text: status.update(state=text)),
    "host of a run": _in_json(
        "status.json", lambda status, text: status.update(host=text, boot_id="other", state="running")
    ),
    "host of the launcher": _launcher,
    "classes": _classes,
    "command of a run": _in_json("result.json", lambda result, text: result.update(command=text)),
    "hardware": _in_json("result.json", lambda result, text: result.update(hardware={"cpu": text, text: 1})),
    "code": _in_json("result.json", lambda result, text: result.update(code=text)),
    "name of a metric": _in_json("result.json", lambda result, text: result["metrics"].update({text: 0.5})),
    "metrics.csv": _metrics,
    "choice": _in_config(lambda config, text: config["choices"].update(model=text)),
    "value of a config": _in_config(lambda config, text: config["model"].update(note=text)),
    "key of a config": _in_config(lambda config, text: config["model"].update({text: 1})),
    "target": _in_config(lambda config, text: config["model"].update(_target_=text)),
}
