"""What is SQLite's own: the file, its place, its troubles."""

from __future__ import annotations

import os
import sqlite3
import stat
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

import pytest

import serai.adverts.sqlite as module
from serai.adverts.service import open_adverts
from serai.adverts.sqlite import SqliteAdverts, default_path
from serai.clock import SystemClock
from serai.errors import DeadlineExceeded, SeraiError, UsageError

if TYPE_CHECKING:
    from pathlib import Path

SOON_S = 30.0


def test_the_usual_place_is_private_and_names_the_machine(tmp_path: Path) -> None:
    environment = {"SERAI_STATE": str(tmp_path / "state")}
    with open_adverts(environment=environment) as adverts:
        adverts.put("/a", {})
        path = default_path(environment)
        assert os.uname().nodename in path.name
        files = sorted(path.parent.iterdir())
        assert path in files
        assert all(stat.S_IMODE(file.stat().st_mode) == 0o600 for file in files)
        assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700
    with open_adverts("sqlite:", environment) as adverts:
        assert adverts.get("/a") is not None
    with open_adverts(environment={"SERAI_ADVERTS": f"sqlite://{tmp_path}/other"}) as adverts:
        assert adverts.get("/a") is None
        assert (tmp_path / "other").exists()


@pytest.mark.parametrize("url", ["mysql://x/y", "sqlite://host/path", "sqlite:x?mode=ro", "nothing", "gateway://x"])
def test_what_is_no_service_is_refused(url: str) -> None:
    with pytest.raises(UsageError):
        open_adverts(url)


def test_a_file_that_is_none_of_ours_is_refused(tmp_path: Path) -> None:
    text = tmp_path / "text"
    text.write_text("not a database, but long enough to be taken for one" * 100)
    with pytest.raises(SeraiError, match="not a database"):
        SqliteAdverts(text, SystemClock())
    newer = tmp_path / "newer"
    with SqliteAdverts(newer, SystemClock()):
        pass
    with sqlite3.connect(newer) as connection:
        connection.execute("PRAGMA user_version = 99")
    connection.close()
    with pytest.raises(SeraiError, match="another version"):
        SqliteAdverts(newer, SystemClock())
    with pytest.raises(SeraiError, match="cannot be opened"):
        SqliteAdverts(text / "below", SystemClock())


def test_who_waits_too_long_for_a_turn_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "BUSY_S", 0.2)
    path = tmp_path / "a"
    hold = (
        "import sqlite3, sys; c = sqlite3.connect(sys.argv[1]); c.execute('BEGIN IMMEDIATE')\n"
        "print(flush=True); input()"
    )
    with SqliteAdverts(path, SystemClock()) as adverts:
        adverts.put("/a", {})
        other = subprocess.Popen(
            [sys.executable, "-c", hold, path], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        assert other.stdout is not None
        other.stdout.readline()
        with pytest.raises(DeadlineExceeded, match="other processes"):
            adverts.put("/a", {"x": 1})
        assert adverts.get("/a") is not None, "readers wait for nobody"
        other.communicate("\n", timeout=SOON_S)
        adverts.put("/a", {"x": 1})


def test_several_open_it_for_the_first_time_at_once(tmp_path: Path) -> None:
    start = threading.Barrier(8)

    def first(number: int) -> int:
        start.wait(SOON_S)
        with SqliteAdverts(tmp_path / "a", SystemClock()) as adverts:
            return adverts.put(f"/x/{number}", {})

    with ThreadPoolExecutor(8) as threads:
        assert len(set(threads.map(first, range(8)))) == 8


def test_another_object_of_the_process_is_woken_at_once_and_polling_ends(tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to(tmp_path)
    with (
        SqliteAdverts(tmp_path / "a", SystemClock()) as one,
        SqliteAdverts(tmp_path / "link" / "a", SystemClock()) as other,
    ):
        assert one._bell is other._bell
        since = one.watch("/d", None, 0).version
        with ThreadPoolExecutor(1) as threads:
            waiting = threads.submit(other.watch, "/d", since, SOON_S)
            end = time.monotonic() + SOON_S
            while not one._bell.waiting:
                assert time.monotonic() < end, "nobody waits"
                time.sleep(0.005)
            one.put("/d/x", {})
            assert waiting.result(SOON_S).changes
        end = time.monotonic() + SOON_S
        while any(thread.name == "adverts-poll" for thread in threading.enumerate()):
            assert time.monotonic() < end, "nobody waits, and still it looks"
            time.sleep(0.02)


def test_a_file_that_was_removed_under_a_watch_is_no_endless_loop(tmp_path: Path) -> None:
    # In a process of its own: what counts is its processor's time, and not that of the threads of other tests.
    program = """
import sys, time
from pathlib import Path
from serai.adverts.sqlite import SqliteAdverts
from serai.clock import SystemClock
with SqliteAdverts(Path(sys.argv[1]) / "a", SystemClock()) as adverts:
    for file in Path(sys.argv[1]).iterdir():
        file.unlink()
    began = time.process_time()
    assert not adverts.watch("/", 0, 1.0).changes
    print(time.process_time() - began)
"""
    done = subprocess.run([sys.executable, "-c", program, tmp_path], capture_output=True, check=True, timeout=60)
    assert float(done.stdout) < 0.5


@pytest.mark.parametrize("slashes", ["", "//", "///"])
def test_a_path_with_any_number_of_slashes_is_absolute(tmp_path: Path, slashes: str) -> None:
    with open_adverts(f"sqlite:{slashes}{tmp_path}/a.db") as adverts:
        adverts.put("/x", {})
    assert (tmp_path / "a.db").exists()


def test_what_others_write_is_seen_by_a_process_that_opens_the_file_twice(tmp_path: Path) -> None:
    """Locks of a process are of the file, not of a connection: closing one of them must not drop another's."""
    url = f"sqlite:///{tmp_path}/adverts"
    put = (
        "import sys; from serai.adverts.service import open_adverts as o; o(sys.argv[1]).put('/x', {'n': sys.argv[2]})"
    )
    with open_adverts(url) as first, open_adverts(url) as second:
        for number in "012":
            subprocess.run([sys.executable, "-c", put, url, number], check=True, timeout=60)
            for one in (first, second):
                entry = one.get("/x")
                assert entry is not None
                assert entry.attributes == {"n": number}
