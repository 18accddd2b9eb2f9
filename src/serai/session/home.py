"""Where Serai keeps what it must remember: runs below the state directory, control sockets below the runtime one."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping


def state_directory(environment: Mapping[str, str]) -> Path:
    """The directory of runs: ``$SERAI_STATE``, else below ``$XDG_STATE_HOME``, else ``~/.local/state/serai``."""
    if environment.get("SERAI_STATE"):
        return Path(environment["SERAI_STATE"])
    base = environment.get("XDG_STATE_HOME") or str(Path(environment.get("HOME", "~")).expanduser() / ".local/state")
    return Path(base) / "serai"


def runs_directory(environment: Mapping[str, str]) -> Path:
    """Where runs are, one directory each."""
    return state_directory(environment) / "runs"


def mapreduce_directory(environment: Mapping[str, str]) -> Path:
    """Where runs of MapReduce are, one directory each."""
    return state_directory(environment) / "mapreduce"


def control_directory(environment: Mapping[str, str]) -> Path:
    """Where control sockets are; short, because a socket's path may not be long."""
    runtime = environment.get("XDG_RUNTIME_DIR")
    return Path(runtime) / "serai" if runtime else state_directory(environment) / "ctl"
