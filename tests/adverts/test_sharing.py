"""Several processes over one service: claims, waking, and a process that is killed."""

from __future__ import annotations

import contextlib
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

import pytest

from serai.adverts.service import open_adverts

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from serai.testing.postgres import PostgresServer

SOON_S = 60.0
PROCESSES = 8
LEASE_S = 4.0  # in which the next one is told that it comes too early

CLAIM = """
import sys
from serai.adverts.service import open_adverts
url, me = sys.argv[1:]
with open_adverts(url) as adverts:
    adverts.put(f"/ready/{me}", {})
    assert adverts.watch("/go", 0, 30).changes
    print("won" if adverts.claim("/prize", me, 60) else "lost")
"""
HOLD = """
import sys, threading
from serai.adverts.service import open_adverts
url, for_s = sys.argv[1:]
adverts = open_adverts(url)
assert adverts.claim("/prize", "holder", float(for_s))
print("held", flush=True)
threading.Event().wait(60)
"""


@pytest.fixture(params=["sqlite", "postgresql"])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    if request.param == "sqlite":
        return f"sqlite://{tmp_path}/adverts.sqlite"
    server: PostgresServer = request.getfixturevalue("postgres")
    server.sql("DROP TABLE IF EXISTS serai_adverts, serai_adverts_turn")
    return server.url


@contextlib.contextmanager
def running(program: str, *words: str) -> Iterator[subprocess.Popen[str]]:
    process = subprocess.Popen([sys.executable, "-c", program, *words], stdout=subprocess.PIPE, text=True)
    try:
        yield process
    finally:
        process.kill()
        process.communicate(timeout=SOON_S)


def test_of_eight_processes_that_claim_one_entry_one_wins(url: str) -> None:
    with open_adverts(url) as adverts, contextlib.ExitStack() as stack:
        adverts.put("/prize", {})
        others = [stack.enter_context(running(CLAIM, url, f"p{number}")) for number in range(PROCESSES)]
        ready, since = set[str](), 0
        while len(ready) < PROCESSES:
            watched = adverts.watch("/ready", since, SOON_S)
            assert watched.changes, f"only {ready} are ready"
            ready |= {change.path for change in watched.changes}
            since = watched.version
        adverts.put("/go", {})
        said = [other.communicate(timeout=SOON_S)[0].strip() for other in others]
        assert sorted(said) == ["lost"] * (PROCESSES - 1) + ["won"]
        entry = adverts.get("/prize")
        assert entry is not None
        assert entry.owner == f"p{said.index('won')}"


def test_what_a_killed_process_held_is_free_when_its_claim_ends(url: str) -> None:
    with open_adverts(url) as adverts, contextlib.ExitStack() as stack:
        adverts.put("/prize", {})
        holder = stack.enter_context(running(HOLD, url, str(LEASE_S)))
        assert holder.stdout is not None
        assert holder.stdout.readline() == "held\n"
        since = adverts.watch("/prize", None, 0).version
        holder.kill()
        holder.wait(SOON_S)
        assert not adverts.claim("/prize", "next", 60)
        (change,) = adverts.watch("/prize", since, SOON_S).changes
        assert change.entry is not None
        assert change.entry.owner is None
        assert adverts.claim("/prize", "next", 60)


def test_another_process_is_told_soon(url: str) -> None:
    program = (
        "import sys; from serai.adverts.service import open_adverts\n"
        "adverts = open_adverts(sys.argv[1]); sys.stdin.readline(); adverts.put('/told', {})"
    )
    with open_adverts(url) as adverts:
        other = subprocess.Popen([sys.executable, "-c", program, url], stdin=subprocess.PIPE, text=True)
        since = adverts.watch("/told", None, 0).version
        with ThreadPoolExecutor(1) as threads:
            waiting = threads.submit(adverts.watch, "/told", since, SOON_S)
            other.communicate("\n", timeout=SOON_S)
            ended = time.monotonic()
            assert [change.kind for change in waiting.result(SOON_S).changes] == ["added"]
        assert time.monotonic() - ended < SOON_S / 4  # who is not told looks when its deadline has come
