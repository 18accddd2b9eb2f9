"""Limits of a pool's queues."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

import serai
from serai.apps.frontends import functions
from serai.errors import QueueFull


def wait_for(path: str) -> None:
    while not Path(path).exists():
        time.sleep(0.02)


def test_calls_beyond_the_limit_are_refused_and_room_comes_back(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(functions, "MOST_FUTURES", 3)
    with serai.Pool("local:?slots=1") as pool:
        futures = [pool.submit(wait_for, str(tmp_path / "go"))]
        futures += [pool.submit(abs, -number) for number in range(2)]
        with pytest.raises(QueueFull) as refused:
            pool.submit(abs, -3)
        assert refused.value.transient
        (tmp_path / "go").touch()
        for future in futures:
            future.exception(30)
        assert pool.submit(abs, -3).result(30) == 3
