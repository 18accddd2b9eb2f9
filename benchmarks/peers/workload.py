"""What every peer is asked to run: the same two functions, importable in every worker, so that no peer pickles code."""

from __future__ import annotations

import subprocess
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

TRUE = ("/bin/true",)
# Its three marks differ from those of a command that nobody looked at.
PROBE = ("/bin/sh", "-c", "echo out; echo err >&2; exit 3")
PROBED = (3, b"out\n", b"err\n")


def same(number: int) -> int:
    """Return what came: a no-op whose answer can be checked."""
    return number


def command(argv: Sequence[str]) -> tuple[int, bytes, bytes]:
    """Run a command and keep its exit code, standard output and standard error."""
    done = subprocess.run(argv, capture_output=True, check=False)
    return done.returncode, done.stdout, done.stderr
