"""Where no laboratory can be had, tests are skipped; in CI they fail."""

from __future__ import annotations

import os
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from pathlib import Path

CONFTEST = """
import os
from serai.testing.lab import fixtures
pytest_plugins = ["serai.testing.lab.fixtures"]
fixtures.why_not = lambda: "the moon is full"
os.geteuid = lambda: 0
"""
TEST = "def test_it(lab):\n    raise AssertionError\n"


@pytest.mark.parametrize(("ci", "ending"), [("", "1 skipped"), ("true", "1 error")])
def test_a_missing_laboratory_is_a_skip_at_home_and_an_error_in_ci(tmp_path: Path, ci: str, ending: str) -> None:
    (tmp_path / "conftest.py").write_text(CONFTEST, encoding="utf-8")
    (tmp_path / "test_it.py").write_text(TEST, encoding="utf-8")
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-rsE", "-p", "no:cacheprovider", "--rootdir", tmp_path, "test_it.py"],
        cwd=tmp_path,
        env={**os.environ, "CI": ci},
        capture_output=True,
        text=True,
        timeout=150,
        check=False,
    )
    assert ending in done.stdout
    assert "the moon is full" in done.stdout
