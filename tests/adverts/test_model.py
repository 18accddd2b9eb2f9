"""SQLite against a model: a dictionary, with a clock that the test moves. A follower that watches knows the same."""

from __future__ import annotations

import tempfile
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from serai.adverts.sqlite import SqliteAdverts
from serai.adverts.tables import KEEP_GONE_S, MOST_SWEPT

if TYPE_CHECKING:
    from collections.abc import Iterator

PATHS = st.sampled_from(["/a", "/a/b", "/a/b/c", "/a-b", "/a0", "/b/x", "/ü"])
DIRECTORIES = st.sampled_from(["/", "/a", "/a/b", "/b", "/none"])
LIVES = st.sampled_from([None, 1.0, 5.0, 60.0])
ATTRIBUTES = st.dictionaries(st.sampled_from("xyz"), st.integers(0, 9), max_size=3)
OWNERS = st.sampled_from(["w1", "w2"])


class Hand:
    """A clock that is moved by hand."""

    def __init__(self) -> None:
        self.time = 1e9

    def now(self) -> float:
        return self.time

    def wall(self) -> float:
        return self.time


@dataclass
class Kept:
    attributes: dict[str, Any]
    expires: float | None
    owner: str | None = None
    until: float = 0.0


@dataclass
class Follower:
    directory: str
    since: int = 0
    knows: dict[str, dict[str, Any]] = field(default_factory=dict)


class Model(RuleBasedStateMachine):
    def __init__(self) -> None:
        super().__init__()
        self.room = tempfile.TemporaryDirectory()
        self.clock = Hand()
        self.adverts = SqliteAdverts(Path(self.room.name) / "adverts.sqlite", self.clock)
        self.model: dict[str, Kept] = {}
        self.followers = [Follower("/"), Follower("/a"), Follower("/b")]

    def teardown(self) -> None:
        self.adverts.close()
        self.room.cleanup()

    def there(self, path: str) -> Kept | None:
        kept = self.model.get(path)
        return kept if kept and (kept.expires is None or kept.expires > self.clock.time) else None

    def ends(self, life_s: float | None) -> float | None:
        return None if life_s is None else self.clock.time + life_s

    @rule(path=PATHS, attributes=ATTRIBUTES, life_s=LIVES, exclusive=st.booleans())
    def put(self, path: str, attributes: dict[str, Any], life_s: float | None, *, exclusive: bool) -> None:
        old = self.there(path)
        if old and exclusive:
            with pytest.raises(FileExistsError):
                self.adverts.put(path, attributes, life_s, exclusive=True)
            return
        self.adverts.put(path, attributes, life_s, exclusive=exclusive)
        self.model[path] = Kept(attributes, self.ends(life_s), old.owner if old else None, old.until if old else 0.0)

    @rule(path=PATHS, attributes=ATTRIBUTES)
    def update(self, path: str, attributes: dict[str, Any]) -> None:
        kept = self.there(path)
        if kept is None:
            with pytest.raises(FileNotFoundError):
                self.adverts.update(path, attributes)
        else:
            self.adverts.update(path, attributes)
            kept.attributes = {**kept.attributes, **attributes}

    @rule(path=PATHS, life_s=LIVES)
    def renew(self, path: str, life_s: float | None) -> None:
        kept = self.there(path)
        if kept is None:
            with pytest.raises(FileNotFoundError):
                self.adverts.renew(path, life_s)
        else:
            self.adverts.renew(path, life_s)
            kept.expires = self.ends(life_s)

    @rule(path=PATHS, recursive=st.booleans())
    def remove(self, path: str, *, recursive: bool) -> None:
        gone = [
            one for one in self.model if self.there(one) and (one == path or (recursive and one.startswith(path + "/")))
        ]
        if gone:
            assert self.adverts.remove(path, recursive=recursive) == len(gone)
        else:
            with pytest.raises(FileNotFoundError):
                self.adverts.remove(path, recursive=recursive)
        for one in gone:
            del self.model[one]

    @rule(path=PATHS, owner=OWNERS, for_s=st.sampled_from([1.0, 10.0]))
    def claim(self, path: str, owner: str, for_s: float) -> None:
        kept = self.there(path)
        if kept is None:
            with pytest.raises(FileNotFoundError):
                self.adverts.claim(path, owner, for_s)
            return
        free = kept.owner in {None, owner} or kept.until <= self.clock.time
        assert self.adverts.claim(path, owner, for_s) == free
        if free:
            kept.owner, kept.until = owner, self.clock.time + for_s

    @rule(path=PATHS, owner=OWNERS)
    def release(self, path: str, owner: str) -> None:
        kept = self.there(path)
        if kept is None:
            with pytest.raises(FileNotFoundError):
                self.adverts.release(path, owner)
        elif kept.owner not in {None, owner} and kept.until > self.clock.time:
            with pytest.raises(PermissionError):
                self.adverts.release(path, owner)
        else:
            self.adverts.release(path, owner)
            kept.owner = None

    @rule(step_s=st.sampled_from([0.5, 1.0, 6.0, 100.0, KEEP_GONE_S + 1]))
    def time_passes(self, step_s: float) -> None:
        self.clock.time += step_s

    @rule(which=st.integers(0, 2))
    def follow(self, which: int) -> None:
        follower = self.followers[which]
        watched = self.adverts.watch(follower.directory, follower.since, 0)
        for change in watched.changes:
            if change.kind == "reset":
                follower.knows.clear()
            elif change.entry is None:
                follower.knows.pop(change.path, None)
            else:
                follower.knows[change.path] = change.entry.attributes
        follower.since = watched.version
        assert follower.knows == {
            path: kept.attributes
            for path, kept in self.model.items()
            if self.there(path) and (path + "/").startswith(follower.directory.rstrip("/") + "/")
        }

    @rule(directory=DIRECTORIES)
    def look_around(self, directory: str) -> None:
        head = directory.rstrip("/") + "/"
        below = sorted(path for path in self.model if self.there(path) and path.startswith(head))
        assert [one.path for one in self.adverts.list(directory, recursive=True)] == below
        direct = [path for path in below if "/" not in path[len(head) :]]
        assert [one.path for one in self.adverts.list(directory)] == direct
        deeper = {head + path[len(head) :].partition("/")[0] for path in below if "/" in path[len(head) :]}
        assert self.adverts.directories(directory) == sorted(deeper)

    @invariant()
    def every_entry_is_as_the_model_says(self) -> None:
        for path in ("/a", "/a/b", "/b/x"):
            kept, entry = self.there(path), self.adverts.get(path)
            assert (kept is None) == (entry is None)
            if kept and entry:
                owner = kept.owner if kept.until > self.clock.time else None
                assert (entry.attributes, entry.expires, entry.owner) == (kept.attributes, kept.expires, owner)


@pytest.fixture
def clock() -> Hand:
    return Hand()


@pytest.fixture
def adverts(tmp_path: Path, clock: Hand) -> Iterator[SqliteAdverts]:
    with SqliteAdverts(tmp_path / "adverts.sqlite", clock) as adverts:
        yield adverts


def told(adverts: SqliteAdverts, since: int) -> list[tuple[str, str]]:
    return [(change.kind, change.path) for change in adverts.watch("/", since, 0).changes]


def test_who_looked_away_for_too_long_begins_again(adverts: SqliteAdverts, clock: Hand) -> None:
    adverts.put("/a", {})
    adverts.put("/b", {})
    since = adverts.watch("/", 0, 0).version
    adverts.remove("/a")
    clock.time += KEEP_GONE_S - 1
    adverts.put("/c", {})
    assert told(adverts, since) == [("removed", "/a"), ("added", "/c")]
    clock.time += 10
    adverts.put("/d", {})
    assert told(adverts, since) == [("reset", "/"), ("added", "/b"), ("added", "/c"), ("added", "/d")]
    assert told(adverts, 0) == [("added", "/b"), ("added", "/c"), ("added", "/d")]
    assert told(adverts, adverts.watch("/", None, 0).version) == []


def test_what_came_back_is_not_dropped_with_what_was_gone(adverts: SqliteAdverts, clock: Hand) -> None:
    adverts.put("/a", {})
    adverts.put("/b", {}, 1)
    adverts.remove("/a")
    clock.time += 10
    adverts.put("/a", {"again": 1})  # and sweeps /b
    adverts.put("/b", {"again": 1})
    clock.time += KEEP_GONE_S + 10
    adverts.put("/c", {})
    assert [entry.path for entry in adverts.list()] == ["/a", "/b", "/c"]


def test_many_that_expire_at_once_are_all_told(adverts: SqliteAdverts, clock: Hand) -> None:
    for number in range(MOST_SWEPT + 50):
        adverts.put(f"/x/{number}", {}, 10)
    since = adverts.watch("/", None, 0).version
    clock.time += 11
    gone = set[str]()
    while changes := (watched := adverts.watch("/x", since, 0)).changes:
        gone |= {change.path for change in changes if change.kind == "expired"}
        since = watched.version
    assert len(gone) == MOST_SWEPT + 50


Model.TestCase.settings = settings(max_examples=40, stateful_step_count=40, deadline=None)
TestModel = Model.TestCase
