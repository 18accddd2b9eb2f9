"""Several executors over one cache, killed in the middle: the limit is kept, what is in use stays, the log is right."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

MORE = int(os.environ.get("SERAI_CROWDS", "0"))  # seeds beyond those that always run
EACH = 2


@pytest.mark.parametrize("seed", range(0, 8 + MORE, EACH))
def test_executors_that_are_killed_leave_a_cache_that_is_right(seed: int) -> None:
    words = [sys.executable, str(Path(__file__).with_name("crowd.py")), str(seed), str(seed + EACH - 1)]
    done = subprocess.run(words, capture_output=True, text=True, timeout=100, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    lines = done.stdout.splitlines()
    assert len(lines) == EACH
    assert all(int(line.split()[2]) >= 5 for line in lines), "hardly any was killed"
