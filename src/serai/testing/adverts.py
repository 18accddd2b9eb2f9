"""The contract of advert services, as tests: whoever keeps adverts elsewhere subclasses it and gives one fixture.

::

    class TestMine(AdvertsContract):
        @pytest.fixture
        def opened(self, tmp_path) -> Open:
            return lambda: MyAdverts(tmp_path / "adverts")  # the same service each time; the suite closes what it opens
"""

# ruff: noqa: D102 - the name of a test says what it shows

from __future__ import annotations

import asyncio
import contextlib
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

import pytest

from serai.errors import SeraiError, UsageError

if TYPE_CHECKING:
    from serai.adverts.service import Adverts, Change

Open = Callable[[], "Adverts"]

SOON_S = 30.0
SHORT_S = 1.0  # a life that a test waits for, and in which it does one thing more

BAD_PATHS = ["", "a", "a/b", "/a//b", "/a/../b", "/./a", "/a/", "/a\nb", "/a\0", "/" + "x" * 256, "/x" * 33, "/\ud800"]
BAD_ATTRIBUTES: list[dict[str, Any]] = [
    {"": 1},
    {"a b": 1},
    {"x": {"y": 1}},
    {"x": [[1]]},
    {"x": float("nan")},
    {"x": 1 << 63},
    {"x": "y" * 70_000},
    {f"a{n}": n for n in range(300)},
]
SECRETS: list[dict[str, Any]] = [
    {"password": "x"},
    {"db_passwd": "x"},
    {"accessToken": "x"},
    {"AWS_SECRET_ACCESS_KEY": "x"},
    {"privateKey": "x"},
    {"api-key": "x"},
    {"note": "-----BEGIN OPENSSH PRIVATE KEY-----\nabc"},
    {"url": "https://me:hunter2@host/x"},
]
FULL: dict[str, Any] = {
    "text": "grüße 'quoted\" %s :name", "n": -(1 << 62), "x": 0.1, "yes": True, "none": None, "l": ["a", 1, None],
    "empty": [],
}  # fmt: skip


def until(condition: Callable[[], object], what: str) -> None:
    """Wait for a condition, with a deadline."""
    end = time.monotonic() + SOON_S
    while not condition():
        assert time.monotonic() < end, what
        threading.Event().wait(0.01)


def seen(adverts: Adverts, directory: str, since: int, wanted: int) -> list[Change]:
    """So many changes, from as many watches as it takes."""
    changes: list[Change] = []
    while len(changes) < wanted:
        watched = adverts.watch(directory, since, SOON_S)
        assert watched.changes, f"only {changes} within {SOON_S:g} s"
        changes += watched.changes
        since = watched.version
    return changes


class AdvertsContract:
    """What every advert service does."""

    @pytest.fixture
    def opened(self) -> Open:
        """Opens the service, which is empty, as another process would: all that are open see the same."""
        raise NotImplementedError

    @pytest.fixture
    def open_one(self, opened: Open) -> Iterator[Open]:
        """The same; what it opened is closed at the end."""
        with contextlib.ExitStack() as stack:
            yield lambda: stack.enter_context(opened())

    @pytest.fixture
    def adverts(self, open_one: Open) -> Adverts:
        """One, open."""
        return open_one()

    # ---- entries

    def test_what_was_put_is_there_for_all(self, adverts: Adverts, open_one: Open) -> None:
        version = adverts.put("/nodes/lab1", FULL, 60)
        entry = open_one().get("/nodes/lab1")
        assert entry is not None
        assert (entry.path, entry.attributes, entry.version, entry.owner) == ("/nodes/lab1", FULL, version, None)
        assert entry.expires is not None
        assert 50 < entry.expires - adverts.now() <= 60
        assert adverts.get("/nodes") is None
        assert adverts.get("/nodes/lab") is None

    def test_putting_again_replaces_all_of_it_unless_it_must_not_be_there(self, adverts: Adverts) -> None:
        first = adverts.put("/a", {"x": 1}, 60)
        second = adverts.put("/a", {"y": 2})
        entry = adverts.get("/a")
        assert second > first
        assert entry is not None
        assert (entry.attributes, entry.expires, entry.version) == ({"y": 2}, None, second)
        with pytest.raises(FileExistsError):
            adverts.put("/a", {}, exclusive=True)
        adverts.put("/b", {}, exclusive=True)

    def test_updating_keeps_what_is_not_named(self, adverts: Adverts) -> None:
        adverts.put("/a", {"x": 1, "y": 1}, 60)
        adverts.update("/a", {"y": 2, "z": [3]})
        entry = adverts.get("/a")
        assert entry is not None
        assert entry.attributes == {"x": 1, "y": 2, "z": [3]}
        assert entry.expires is not None
        with pytest.raises(FileNotFoundError):
            adverts.update("/b", {"x": 1})

    def test_an_entry_is_gone_when_its_life_is_over_and_renewing_it_lengthens_that(self, adverts: Adverts) -> None:
        adverts.put("/d/renewed", {}, SHORT_S)
        adverts.renew("/d/renewed", 60)
        adverts.put("/d/short", {}, SHORT_S)
        until(lambda: adverts.get("/d/short") is None, "it is gone")
        assert [entry.path for entry in adverts.list("/d")] == ["/d/renewed"]
        with pytest.raises(FileNotFoundError):
            adverts.renew("/d/short", 60)
        with pytest.raises(FileNotFoundError):
            adverts.claim("/d/short", "me", 1)
        adverts.renew("/d/renewed", None)
        entry = adverts.get("/d/renewed")
        assert entry is not None
        assert entry.expires is None
        adverts.put("/d/short", {"back": True}, exclusive=True)

    def test_removing(self, adverts: Adverts) -> None:
        for path in ("/a", "/a/b", "/a/b/c", "/a-b", "/ab"):
            adverts.put(path, {})
        assert adverts.remove("/a/b") == 1
        assert adverts.get("/a/b/c") is not None
        with pytest.raises(FileNotFoundError):
            adverts.remove("/a/b")
        assert adverts.remove("/a", recursive=True) == 2
        assert [entry.path for entry in adverts.list()] == ["/a-b", "/ab"]
        with pytest.raises(FileNotFoundError):
            adverts.remove("/a", recursive=True)
        assert adverts.remove("/", recursive=True) == 2

    @pytest.mark.parametrize("path", BAD_PATHS)
    def test_what_is_no_path_is_refused(self, adverts: Adverts, path: str) -> None:
        with pytest.raises(UsageError):
            adverts.put(path, {})

    @pytest.mark.parametrize("attributes", [*BAD_ATTRIBUTES, *SECRETS], ids=lambda one: next(iter(one)))
    def test_what_cannot_be_an_attribute_is_refused_and_so_are_secrets(
        self, adverts: Adverts, attributes: dict[str, Any]
    ) -> None:
        adverts.put("/a", {"x": 0})
        for change in (adverts.put, adverts.update):
            with pytest.raises(UsageError) as caught:
                change("/a", attributes)
            assert "hunter2" not in str(caught.value)
        entry = adverts.get("/a")
        assert entry is not None
        assert entry.attributes == {"x": 0}

    @pytest.mark.parametrize("life_s", [0, -1.0, 1e12, float("inf"), float("nan")])
    def test_what_is_no_life_is_refused(self, adverts: Adverts, life_s: float) -> None:
        adverts.put("/a", {})
        with pytest.raises(UsageError):
            adverts.put("/a", {}, life_s)
        with pytest.raises(UsageError):
            adverts.renew("/a", life_s)
        with pytest.raises(UsageError):
            adverts.claim("/a", "me", life_s)

    # ---- directories

    def test_directories_exist_by_their_entries(self, adverts: Adverts) -> None:
        for path in ("/a/x", "/a/y/z", "/a-b/c/d", "/a0/b", "/a.b/x", "/top", "/ü/é"):
            adverts.put(path, {})
        adverts.put("/gone/x", {}, SHORT_S)
        until(lambda: adverts.get("/gone/x") is None, "it is gone")
        assert adverts.directories() == ["/a", "/a-b", "/a.b", "/a0", "/ü"]
        assert adverts.directories("/a") == ["/a/y"]
        assert adverts.directories("/a/x") == []
        assert [entry.path for entry in adverts.list("/a")] == ["/a/x"]
        assert [entry.path for entry in adverts.list("/a/")] == ["/a/x"]
        assert [entry.path for entry in adverts.list("/a", recursive=True)] == ["/a/x", "/a/y/z"]
        assert [entry.path for entry in adverts.list("/")] == ["/top"]
        assert len(adverts.list("/", recursive=True)) == 7
        assert adverts.list("/none") == []

    def test_conditions_on_attributes(self, adverts: Adverts) -> None:
        adverts.put("/n/1", {"os": "linux", "cores": 4, "sites": ["eu", "us"], "gpu": True})
        adverts.put("/n/2", {"os": "linux-arm", "cores": 64, "gpu": False})
        adverts.put("/n/3", {"cores": "many"})

        def found(*where: str) -> list[str]:
            return [entry.path[-1] for entry in adverts.list("/n", where)]

        assert found("os=linux") == ["1"]
        assert found("os=linux*") == ["1", "2"]
        assert found("cores>3") == ["1", "2"]
        assert found("cores>3", "cores<10.5") == ["1"]
        assert found("cores=64") == ["2"]
        assert found("sites=us") == ["1"]
        assert found("gpu=true") == ["1"]
        assert found("absent=*") == []
        assert [entry.path for entry in adverts.list("/n", "cores=many")] == ["/n/3"]
        for bad in ("cores", "=x", "cores>many", "a b=c"):
            with pytest.raises(UsageError):
                found(bad)

    def test_many_entries_come_in_pages(self, adverts: Adverts) -> None:
        paths = [f"/many/{number:04}" for number in range(1100)]
        with ThreadPoolExecutor(8) as threads:
            list(threads.map(lambda path: adverts.put(path, {}), paths))
        assert [entry.path for entry in adverts.list("/many")] == paths
        page = adverts.page("/many", after=paths[4], most=3)
        assert [entry.path for entry in page] == paths[5:8]
        assert len(adverts.page("/many", most=10_000)) <= 1000
        assert adverts.remove("/many", recursive=True) == 1100

    # ---- claims

    def test_a_claim_is_one_owners_until_it_is_given_up(self, adverts: Adverts, open_one: Open) -> None:
        other = open_one()
        adverts.put("/jobs/1", {"x": 1})
        assert adverts.claim("/jobs/1", "w1", 60)
        assert adverts.claim("/jobs/1", "w1", 90)
        assert not other.claim("/jobs/1", "w2", 60)
        entry = other.get("/jobs/1")
        assert entry is not None
        assert entry.owner == "w1"
        assert entry.owned_until is not None
        assert 60 < entry.owned_until - adverts.now() <= 90
        adverts.update("/jobs/1", {"x": 2})
        adverts.put("/jobs/1", {"x": 3})
        with pytest.raises(PermissionError):
            other.release("/jobs/1", "w2")
        assert not other.claim("/jobs/1", "w2", 60), "putting and updating leave a claim"
        adverts.release("/jobs/1", "w1")
        adverts.release("/jobs/1", "w1")
        assert other.claim("/jobs/1", "w2", 60)
        for owner in ("", "a\nb", "x" * 300):
            with pytest.raises(UsageError):
                adverts.claim("/jobs/1", owner, 1)

    def test_a_claim_ends_with_its_time_and_whoever_waits_is_told(self, adverts: Adverts) -> None:
        adverts.put("/jobs/1", {})
        assert adverts.claim("/jobs/1", "w1", SHORT_S)
        since = adverts.watch("/jobs", None, 0).version
        began = time.monotonic()
        (change,) = seen(adverts, "/jobs", since, 1)
        assert change.kind == "changed"
        assert change.entry is not None
        assert change.entry.owner is None
        assert time.monotonic() - began < SHORT_S + SOON_S / 2
        assert adverts.claim("/jobs/1", "w2", 60)

    def test_of_many_who_claim_at_once_one_wins(self, adverts: Adverts, open_one: Open) -> None:
        others = [open_one() for _ in range(3)]
        for number in range(10):
            path = f"/race/{number}"
            adverts.put(path, {})
            start = threading.Barrier(8)

            def claim(who: int, path: str = path, start: threading.Barrier = start) -> bool:
                start.wait(SOON_S)
                return others[who % 3].claim(path, f"w{who}", 60)

            with ThreadPoolExecutor(8) as threads:
                won = list(threads.map(claim, range(8)))
            assert won.count(True) == 1
            entry = adverts.get(path)
            assert entry is not None
            assert entry.owner == f"w{won.index(True)}"

    # ---- changes

    def test_a_watch_tells_what_there_is_and_then_every_change_in_order(self, adverts: Adverts, open_one: Open) -> None:
        other = open_one()
        adverts.put("/d/a", {"x": 1})
        adverts.put("/d/sub/b", {})
        adverts.put("/other", {})
        watched = other.watch("/d", 0, SOON_S)
        assert [(change.kind, change.path) for change in watched.changes] == [("added", "/d/a"), ("added", "/d/sub/b")]
        adverts.update("/d/a", {"x": 2})
        adverts.put("/d", {"itself": True})
        adverts.remove("/d/sub/b")
        adverts.put("/dd", {})
        changes = seen(other, "/d", watched.version, 3)
        assert [(change.kind, change.path) for change in changes] == [
            ("changed", "/d/a"), ("added", "/d"), ("removed", "/d/sub/b")
        ]  # fmt: skip
        assert changes[0].entry is not None
        assert changes[0].entry.attributes == {"x": 2}
        assert changes[2].entry is None
        versions = [change.version for change in changes]
        assert versions == sorted(set(versions))

    def test_a_watch_is_woken_by_others_and_ends_at_its_deadline(self, adverts: Adverts, open_one: Open) -> None:
        other = open_one()
        since = other.watch("/d", None, 0).version
        began = time.monotonic()
        assert other.watch("/d", since, SHORT_S) == other.watch("/d", since, 0)
        assert SHORT_S <= time.monotonic() - began < SHORT_S + SOON_S / 2
        with ThreadPoolExecutor(1) as threads:
            waiting = threads.submit(other.watch, "/d", since, SOON_S)
            threading.Event().wait(0.1)
            assert not waiting.done()
            put = time.monotonic()
            adverts.put("/d/x", {})
            assert [change.path for change in waiting.result(SOON_S).changes] == ["/d/x"]
            assert time.monotonic() - put < SOON_S / 2  # who is not woken looks when its deadline has come

    def test_expiry_is_told_though_nobody_does_anything(self, adverts: Adverts, open_one: Open) -> None:
        adverts.put("/d/x", {}, SHORT_S)
        adverts.put("/d/y", {}, 60)
        since = adverts.watch("/d", None, 0).version
        (change,) = seen(open_one(), "/d", since, 1)
        assert (change.kind, change.path, change.entry) == ("expired", "/d/x", None)

    def test_what_comes_again_is_added_again(self, adverts: Adverts) -> None:
        adverts.put("/d/x", {})
        since = adverts.watch("/d", None, 0).version
        adverts.remove("/d/x")
        adverts.put("/d/x", {"again": True})
        assert [change.kind for change in seen(adverts, "/d", since, 1)] == ["added"]

    def test_a_version_from_elsewhere_begins_again(self, adverts: Adverts) -> None:
        adverts.put("/d/x", {})
        changes = adverts.watch("/d", 1 << 40, SOON_S).changes
        assert [change.kind for change in changes] == ["reset", "added"]

    def test_changes_as_asyncio_has_them(self, adverts: Adverts, open_one: Open) -> None:
        adverts.put("/d/0", {})
        other = open_one()

        async def follow() -> list[str]:
            told = []
            async with asyncio.timeout(SOON_S):
                async with contextlib.aclosing(other.changes("/d")) as changes:
                    async for change in changes:
                        told.append(change.path)
                        if len(told) == 4:
                            return told
                        await asyncio.to_thread(adverts.put, f"/d/{len(told)}", {})
            raise AssertionError

        assert asyncio.run(follow()) == ["/d/0", "/d/1", "/d/2", "/d/3"]

    def test_no_change_is_passed_over_while_many_write(self, adverts: Adverts, open_one: Open) -> None:
        writers = [open_one() for _ in range(3)]
        paths = {f"/busy/{who}-{number}" for who in range(3) for number in range(40)}

        def write(who: int) -> None:
            for number in range(40):
                writers[who].put(f"/busy/{who}-{number}", {})

        told: list[str] = []
        with ThreadPoolExecutor(3) as threads:
            done = [threads.submit(write, who) for who in range(3)]
            since = 0
            while len(told) < len(paths):
                watched = adverts.watch("/busy", since, SOON_S)
                assert watched.changes, f"{len(told)} of {len(paths)} were told"
                told += [change.path for change in watched.changes]
                since = watched.version
            for one in done:
                one.result(SOON_S)
        assert sorted(told) == sorted(paths)

    def test_closing_ends_watches_and_more_is_refused(self, opened: Open) -> None:
        adverts = opened()
        since = adverts.watch("/d", None, 0).version
        with ThreadPoolExecutor(1) as threads:
            waiting = threads.submit(adverts.watch, "/d", since, SOON_S)
            threading.Event().wait(0.1)
            began = time.monotonic()
            adverts.close()
            with pytest.raises(SeraiError):
                waiting.result(SOON_S)
            assert time.monotonic() - began < SOON_S / 2
        with pytest.raises(SeraiError):
            adverts.get("/d")
        adverts.close()
