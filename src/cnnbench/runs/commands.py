"""Commands that a user types on a run directory or a sweep."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

from cnnbench.errors import PROGRAM, ConfigError
from cnnbench.text import NAME

PROGRAMS = ([PROGRAM], ["python", "-m", PROGRAM])  # how a stored command may begin; the second in earlier versions
WORD = re.compile(r"-m|--multirun|--config-dir=.+|(\+{0,2}|~)[A-Za-z_][\w./@-]*=.*|~[A-Za-z_][\w./@-]*", re.ASCII)


def resume_command(run_dir: Path) -> str:
    """The command that resumes a run."""
    return f"{PROGRAM} resume={shlex.quote(str(run_dir))}{trust_flag(run_dir)}"


def sweep_command(stored: str | None, name: str) -> str:
    """The command that continues a sweep, which a user may type without a thought.

    Args:
        stored: the command in sweep.json, perhaps of somebody else.
        name: of the sweep, in the same file.
    """
    fallback = f"{PROGRAM} -m name={name} ..." if NAME.fullmatch(name) else f"{PROGRAM} -m ..."
    return checked_command(stored or "") or fallback


def checked_command(stored: str) -> str | None:
    """A sweep's command from a file, with each word checked and quoted anew; None where it is another command.

    A word is `-m`, `--config-dir DIR` or an override, of printable characters: a shell runs nothing else.
    """
    try:
        words = shlex.split(stored)
    except ValueError:  # a quote without its end
        return None
    program = next((program for program in PROGRAMS if words[: len(program)] == program), None)
    if program is None or not stored.isprintable():
        return None
    words = words[len(program) :]
    folders = [at for at, word in enumerate(words) if word == "--config-dir"]
    others = [word for at, word in enumerate(words) if at not in folders and at - 1 not in folders]
    if not {"-m", "--multirun"} & set(others) or len(words) - 1 in folders or not all(map(WORD.fullmatch, others)):
        return None
    return shlex.join([PROGRAM, *words])


def without_key(command: str, key: str) -> str:
    """A command without the overrides of a key."""
    words = shlex.split(command)
    kept = [word for word in words if not word.startswith(f"{key}=")]
    return shlex.join(kept) if len(kept) < len(words) else command


def trust_flag(run_dir: Path) -> str:
    """` --trust` where a run's config names code from outside cnnbench, torch and torchvision, or weights of others; else empty."""
    from cnnbench.config.schema import Config  # takes a tenth of a second, which a status without such a command saves
    from cnnbench.config.trusted_names import needs_trust

    try:
        return " --trust" if needs_trust(Config.load(run_dir / "config.yaml")) else ""
    except ConfigError:  # the run was stopped before it wrote its config
        return ""
