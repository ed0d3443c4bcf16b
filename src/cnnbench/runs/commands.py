"""Commands that a user types on a run directory."""

from __future__ import annotations

import shlex
from pathlib import Path

from cnnbench.errors import ConfigError


def resume_command(run_dir: Path) -> str:
    """The command that resumes a run."""
    return f"python -m cnnbench resume={shlex.quote(str(run_dir))}{trust_flag(run_dir)}"


def without_key(command: str, key: str) -> str:
    """A command without the overrides of a key."""
    words = shlex.split(command)
    kept = [word for word in words if not word.startswith(f"{key}=")]
    return shlex.join(kept) if len(kept) < len(words) else command


def trust_flag(run_dir: Path) -> str:
    """` --trust` if the run's config names code from outside cnnbench, torch and torchvision, else an empty string."""
    from cnnbench.config.schema import Config  # takes a tenth of a second, which a status without such a command saves
    from cnnbench.config.trusted_names import foreign_parts

    try:
        return " --trust" if foreign_parts(Config.load(run_dir / "config.yaml")) else ""
    except ConfigError:  # the run was stopped before it wrote its config
        return ""
