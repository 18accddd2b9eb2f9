"""Functions and commands that need something of their nodes."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import pytest

import serai
from serai.errors import NeedsUnmet, UsageError

if TYPE_CHECKING:
    from pathlib import Path

POOL = """
[[site]]
url = "local://slow?slots=1"
attributes = { Mips = 600 }
[[site]]
url = "local://fast?slots=1"
attributes = { Mips = 750 }
"""


def test_functions_go_where_they_ask_to_go(tmp_path: Path) -> None:
    (tmp_path / "p.toml").write_text(POOL)
    fast = serai.Needs(requirements="Mips > 700")
    with serai.Pool(str(tmp_path / "p.toml"), options=serai.Options(needs=serai.Needs(rank="Mips"))) as pool:
        here = {pool.needing(fast).submit(os.getppid).result(60) for _ in range(3)}
        there = {pool.needing(serai.Needs(requirements="Mips < 700")).submit(os.getppid).result(60) for _ in range(3)}
        assert len(here) == len(there) == 1
        assert here != there
        assert set(pool.map(abs, [-1, -2], needs=fast, timeout=60)) == {1, 2}
        with pytest.raises(NeedsUnmet, match="it requires Mips > 9000, and Mips is"):
            pool.needing(serai.Needs(requirements="Mips > 9000")).submit(os.getppid).result(60)
        assert [one.node for one in pool.run("true", needs=fast)] == ["fast"]
        with pytest.raises(UsageError, match="requirements: not a ClassAd expression"):
            pool.needing(serai.Needs(requirements="Mips > "))
        with pytest.raises(UsageError, match="rank: not a ClassAd expression"):
            pool.run("true", needs=serai.Needs(rank="a b"))


def test_a_pool_whose_needs_are_none_does_not_start(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="rank"):
        serai.Pool(options=serai.Options(runs=tmp_path / "runs", needs=serai.Needs(rank="a b")))
    assert not (tmp_path / "runs").exists()
