"""How long a command of Serai takes from nothing: the whole process, against an interpreter that does nothing."""

from __future__ import annotations

import os
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

import processes

if TYPE_CHECKING:
    import argparse

TIMES = 15
DEADLINE_S = 60.0
SERAI = str(Path(sys.executable).with_name("serai"))
COMMANDS = (
    ("serai run true", "serai", (SERAI, "run", "true")),
    ("serai --help", "serai", (SERAI, "--help")),
    ("python -c pass", "limit", (sys.executable, "-c", "pass")),
    ("true", "limit", ("true",)),
)


def study(_arguments: argparse.Namespace) -> list[dict[str, Any]]:
    """Run each command in turn, fifteen times; the first of all, which writes bytecode, does not count."""
    figures = []
    with tempfile.TemporaryDirectory(prefix="sb-", dir="/tmp") as scratch:
        env = home_in(scratch)
        for turn in range(TIMES + 1):
            for name, kind, words in COMMANDS:
                figure = take(words, env, Path(scratch)) | {"peer": name, "kind": kind, "round": turn - 1}
                if turn:
                    figures.append(figure)
    return figures


def home_in(scratch: str) -> dict[str, str]:
    """Return an environment in which Serai keeps nothing outside the scratch folder."""
    homes = ("XDG_STATE_HOME", "XDG_DATA_HOME", "XDG_CACHE_HOME", "XDG_CONFIG_HOME", "XDG_RUNTIME_DIR")
    return dict(os.environ) | {home: f"{scratch}/{home.lower()}" for home in homes}


def take(words: tuple[str, ...], env: dict[str, str], cwd: Path) -> dict[str, Any]:
    """Run one command once."""
    try:
        ended = processes.run(words, env=env, cwd=cwd, deadline_s=DEADLINE_S)
    except FileNotFoundError as missing:
        return {"error": str(missing)}
    if ended.code:
        return {"error": ended.complaint or f"exit code {ended.code}"}
    return {
        "tasks": 1,
        "against": "python -c pass",
        "wall_s": ended.wall_s,
        "cpu_s": ended.cpu_s,
        "strays": ended.strays,
    }
