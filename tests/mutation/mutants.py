"""Mutation testing: measures whether the tests fail when the code that they test is changed.

    python tests/mutation/mutants.py draw                       draws the mutants, and forgets all outcomes
    python tests/mutation/mutants.py run --tree . [--jobs 1]    runs the tests of each mutant in a copy of a tree
    python tests/mutation/mutants.py compare                    lists those that were killed before and are not now

`mutants.json` holds the mutants and their outcomes. A mutant is addressed by its subject and function, not by file and
line, so that the same mutants are found after code has moved; `subjects.py` lists what has moved.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import random
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import asdict
from functools import cache
from pathlib import Path
from queue import SimpleQueue
from typing import Any

from operators import Address, Change, changes, found
from subjects import GONE, RENAMED, SUBJECTS

HERE = Path(__file__).resolve().parent
RECORD = HERE / "mutants.json"
SEED = 1
COUNT = 100
LATE = "time limit"
LEFT = shutil.ignore_patterns(".*", "__pycache__", "node_modules")
LEFT_AT_THE_TOP = ("runs", "shared", "build", "dist")

Mutant = dict[str, Any]
Clean = dict[str, float]


# ---- finding ------------------------------------------------------------


def file_of(tree: Path, module: str) -> Path:
    """The file of a dotted module name; a package's is its `__init__.py`."""
    path = tree.joinpath("src", *module.split("."))
    return path / "__init__.py" if path.is_dir() else path.with_suffix(".py")


def all_changes(tree: Path, subject: str) -> Iterator[Change]:
    """Every change to the code of a subject."""
    part = SUBJECTS[subject]
    for module in part.modules:
        for change in changes(file_of(tree, module).read_text(encoding="utf-8")):
            name = change.address.function
            if name not in part.left_out and (not part.names or name in part.names):
                yield change


def locate(tree: Path, mutant: Mutant) -> tuple[Path, Change] | None:
    """The file that a mutant changes in a tree, and how; None where its function or node is not there.

    Raises:
        LookupError: several modules outside the subject's have it.
    """
    listed = [file_of(tree, module) for module in SUBJECTS[mutant["subject"]].modules]
    for path in listed:
        if path.is_file() and (change := _in_file(path, mutant)):
            return path, change
    others = [path for path in sorted((tree / "src" / "cnnbench").rglob("*.py")) if path not in listed]
    elsewhere = [(path, change) for path in others if (change := _in_file(path, mutant))]
    if len(elsewhere) > 1:
        places = ", ".join(str(path.relative_to(tree)) for path, _ in elsewhere)
        raise LookupError(f"{mutant['function']} of {mutant['subject']} is in {places}; list its module in subjects.py")
    return elsewhere[0] if elsewhere else None


def _in_file(path: Path, mutant: Mutant) -> Change | None:
    """A mutant's change to a file, by its own names, else by those that replace them."""
    source = path.read_text(encoding="utf-8")
    renamed = RENAMED.get(mutant["subject"], {})
    names = dict.fromkeys((mutant["function"], renamed.get(mutant["function"], mutant["function"])))
    if not any(re.search(rf"\b{re.escape(name.rpartition('.')[2])}\b", source) for name in names):
        return None  # the most of them, and quickly
    known = _addresses(source)
    for text in dict.fromkeys((mutant["text"], replaced(mutant["text"], renamed))):
        for name in names:
            address = Address(name, mutant["operator"], text, mutant["occurrence"], mutant["variant"])
            if address in known:
                return known[address]
    return None


@cache
def _addresses(source: str) -> dict[Address, Change]:
    """All changes to a source by their addresses."""
    return {change.address: change for change in found(source)}


def gone(mutant: Mutant) -> str | None:
    """Where the code of a mutant no longer exists: which test checks its behaviour now."""
    return GONE.get(mutant["subject"], {}).get((mutant["function"], mutant["text"]))


def replaced(text: str, renamed: dict[str, str]) -> str:
    """A node's text with what has been renamed in it: all of it, or single identifiers."""
    if text in renamed:
        return renamed[text]
    return re.sub(r"[^\W\d]\w*", lambda word: renamed.get(word[0], word[0]), text)


# ---- drawing ------------------------------------------------------------


def draw(tree: Path) -> None:
    """Draws the mutants from all that there are, and writes them without outcomes."""
    everything = [(subject, change) for subject in SUBJECTS for change in all_changes(tree, subject)]
    drawn = sorted(random.Random(SEED).sample(range(len(everything)), COUNT))
    mutants = [
        {"subject": subject, **asdict(change.address), "becomes": change.becomes}
        for subject, change in (everything[number] for number in drawn)
    ]
    possible = Counter(subject for subject, _ in everything)
    write({"seed": SEED, "possible": possible, "clean_s": {}, "mutants": mutants})
    print(f"{len(mutants)} of {len(everything)} mutants")
    for subject, count in Counter(mutant["subject"] for mutant in mutants).items():
        print(f"{subject:12} {count:3} of {possible[subject]}")


def write(record: dict[str, Any]) -> None:
    """Writes the record whole."""
    part = RECORD.with_suffix(".part")
    part.write_text(json.dumps(record, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    part.replace(RECORD)


def read() -> dict[str, Any]:
    """Reads the record."""
    return json.loads(RECORD.read_text(encoding="utf-8"))


# ---- running ------------------------------------------------------------


def run(tree: Path, moment: str, jobs: int, again: bool) -> None:
    """Runs the tests of every mutant that has no outcome yet or was not found, each in a copy of the tree with this change alone."""
    record = read()
    if again:
        record["clean_s"].pop(moment, None)
        for mutant in record["mutants"]:
            mutant.pop(moment, None)
    due = [mutant for mutant in record["mutants"] if mutant.get(moment, {}).get("outcome", "absent") == "absent"]
    with tempfile.TemporaryDirectory(prefix="mutants-") as work:
        copies: SimpleQueue[Path] = SimpleQueue()
        for number in range(jobs):
            copies.put(shutil.copytree(tree, Path(work) / str(number) / "tree", symlinks=True, ignore=left_out(tree)))
        clean = record["clean_s"].setdefault(moment, {})
        for subject in dict.fromkeys(mutant["subject"] for mutant in due):
            clean[subject] = clean_run(copies, subject)
            write(record)
        with ThreadPoolExecutor(jobs) as pool:
            running = {pool.submit(outcome, copies, mutant, clean): mutant for mutant in due}
            for number, ended in enumerate(as_completed(running), 1):
                mutant = running[ended]
                mutant[moment] = ended.result()
                write(record)
                address = " ".join(str(mutant[name]) for name in ("subject", "function", "operator"))
                print(f"{number}/{len(due)} {mutant[moment]['outcome']:8} {address}", flush=True)


def left_out(tree: Path) -> Callable[[str, list[str]], set[str]]:
    """What a copy of a tree leaves out, as `shutil.copytree` asks for it."""
    return lambda folder, names: LEFT(folder, names) | (set(LEFT_AT_THE_TOP) if Path(folder) == tree else set())


def clean_run(copies: SimpleQueue[Path], subject: str) -> float:
    """How many seconds the tests of a subject take without a mutant.

    Raises:
        SystemExit: they do not pass, or import another tree.
    """
    copy = copies.get()
    try:
        imported = subprocess.run(
            [sys.executable, "-c", "import cnnbench; print(cnnbench.__file__)"],
            cwd=copy, env=environment(copy), capture_output=True, text=True, check=True,
        ).stdout.strip()  # fmt: skip
        if Path(imported).resolve() != (copy / "src" / "cnnbench" / "__init__.py").resolve():
            raise SystemExit(f"tests would import {imported}, not the copy in {copy}")
        code, text, seconds = tested(copy, subject, limit_s=600)
    finally:
        copies.put(copy)
    if code != 0:
        raise SystemExit(f"{subject}: its tests do not pass without a mutant:\n{text[-3000:]}")
    print(f"{subject}: its tests take {seconds:.1f} s", flush=True)
    return seconds


def outcome(copies: SimpleQueue[Path], mutant: Mutant, clean: Clean) -> dict[str, Any]:
    """What the tests say of a mutant: `killed` or `survived`; `gone` or `absent` where the tree has no such node."""
    copy = copies.get()
    try:
        place = locate(copy, mutant)
        if place is None:
            return {"outcome": "gone" if gone(mutant) else "absent"}
        path, change = place
        source = path.read_text(encoding="utf-8")
        try:
            path.write_text(change.applied(source), encoding="utf-8")
            code, text, seconds = tested(copy, mutant["subject"], limit_s=60 + 3 * clean[mutant["subject"]])
        finally:
            path.write_text(source, encoding="utf-8")
    finally:
        copies.put(copy)
    if code == 0:
        return {"outcome": "survived", "seconds": seconds}
    return {"outcome": "killed", "by": killer(code, text), "seconds": seconds}


def tested(copy: Path, subject: str, limit_s: float) -> tuple[int | None, str, float]:
    """Runs a subject's tests until one fails.

    Returns:
        pytest's exit status, None after the time limit; what it printed; the seconds that it took.
    """
    own = copy.parent / "tmp"
    shutil.rmtree(own, ignore_errors=True)
    command = [sys.executable, "-m", "pytest", "-x", "-q", "-rfE", "--tb=no", "-p", "no:cacheprovider"]
    command += ["-p", "mutation_plugin", f"--basetemp={own}", *SUBJECTS[subject].tests]
    begun = time.monotonic()
    with tempfile.TemporaryFile("w+", encoding="utf-8", errors="replace") as output:
        process = subprocess.Popen(
            command, cwd=copy, env=environment(copy), stdout=output, stderr=subprocess.STDOUT, start_new_session=True
        )
        try:
            code: int | None = process.wait(limit_s)
        except subprocess.TimeoutExpired:
            code = None
        finally:
            end(process)
        output.seek(0)
        return code, output.read(), round(time.monotonic() - begun, 1)


def end(process: subprocess.Popen[bytes]) -> None:
    """Ends a process and those that it started."""
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()


def environment(copy: Path) -> dict[str, str]:
    """The environment in which Python imports the copy, and leaves no compiled files in it."""
    sources = str(copy / "src")
    own = {"PYTHONPATH": os.pathsep.join([sources, str(HERE / "guard")]), "MUTATION_SOURCES": sources}
    return {**os.environ, **own, "PYTHONDONTWRITEBYTECODE": "1", "OMP_NUM_THREADS": "1"}


def killer(code: int | None, text: str) -> str:
    """What ended a run: the test that failed, the time limit, or pytest's exit status."""
    if code is None:
        return LATE
    failed = re.search(r"^(?:FAILED|ERROR) (.+?)(?: - .*)?$", text, re.MULTILINE)
    return failed[1] if failed else f"exit status {code}"


# ---- comparing ------------------------------------------------------------


def compare() -> int:
    """Prints the outcomes before and after, and the mutants that were killed before and are not now.

    Returns:
        1 where there is such a mutant, or one without an outcome; else 0.
    """
    mutants = read()["mutants"]
    counts = Counter(
        (mutant["subject"], *(mutant.get(moment, {}).get("outcome", "not run") for moment in ("before", "after")))
        for mutant in mutants
    )
    for (subject, before, after), count in sorted(counts.items()):
        print(f"{subject:12} {before:8} -> {after:8} {count:3}")
    lost = [mutant for mutant in mutants if is_lost(mutant)]
    for mutant in lost:
        now = mutant.get("after", {}).get("outcome", "not run")
        address = ": ".join(mutant[name] for name in ("subject", "function", "operator"))
        print(f"\n{now}: {address} (occurrence {mutant['occurrence']})")
        print(f"    {mutant['text']}\n    {mutant['becomes']}")
    ended = [mutant for mutant in mutants if mutant.get("after", {}).get("outcome") == "gone"]
    if ended:
        print(f"\n{len(ended)} mutants of code that no longer exists:")
    for mutant in ended:
        print(f"    {mutant['subject']}: {mutant['function']}: {mutant['operator']}: {gone(mutant)}")
    late = [mutant["function"] for mutant in mutants if mutant.get("after", {}).get("by") == LATE]
    if late:
        print(f"\nkilled by the time limit, which a busy machine may reach as well: {', '.join(late)}")
    print(f"\n{len(lost)} of {len(mutants)} mutants are lost: killed before and not now, absent, or not run")
    return 1 if lost else 0


def is_lost(mutant: Mutant) -> bool:
    """Whether a mutant was killed before and is not known to be killed now; one that survived must still be there.

    A mutant of code that no longer exists is not lost.
    """
    before, after = (mutant.get(moment, {}).get("outcome") for moment in ("before", "after"))
    if after == "gone":
        return False
    return after != "killed" if before == "killed" else after not in ("killed", "survived")


def survivors(moment: str) -> None:
    """Prints the mutants that survived."""
    for number, mutant in enumerate(read()["mutants"], 1):
        if mutant.get(moment, {}).get("outcome") == "survived":
            print(f"{number}. {mutant['subject']}: {mutant['function']}: {mutant['operator']}")
            print(f"    {mutant['text']}\n    {mutant['becomes']}")


def main() -> int:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    actions = parser.add_subparsers(dest="action", required=True)
    drawing = actions.add_parser("draw", help="draw the mutants, and forget all outcomes")
    running = actions.add_parser("run", help="run the tests of each mutant that has no outcome yet")
    for action in (drawing, running):
        action.add_argument("--tree", type=Path, default=HERE.parents[1], help="a checkout; it is read, never changed")
    running.add_argument(
        "--jobs", type=int, default=1, help="mutants tested in parallel, each in a separate copy of the tree"
    )
    running.add_argument("--moment", choices=("before", "after"), default="after", help="which outcome to fill in")
    running.add_argument("--again", action="store_true", help="forget the outcomes of this moment first")
    actions.add_parser("compare", help="list the mutants that were killed before and are not now")
    listing = actions.add_parser("survivors", help="list the mutants that survived")
    listing.add_argument("--moment", choices=("before", "after"), default="after")
    given = parser.parse_args()
    if given.action == "draw":
        draw(given.tree)
    elif given.action == "run":
        run(given.tree.resolve(), given.moment, given.jobs, given.again)
    elif given.action == "survivors":
        survivors(given.moment)
    return compare() if given.action == "compare" else 0


if __name__ == "__main__":
    sys.exit(main())
