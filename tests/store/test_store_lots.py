"""Guaranteed space, with a clock that is set."""

from __future__ import annotations

import contextlib
import os
import random
import sqlite3
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from serai.access.stores.bodies import SHA256, XXH3
from serai.data.appliance.book import Book, Row
from serai.data.appliance.files import Files
from serai.data.appliance.keys import Keys, drafts_directory, state_of
from serai.data.appliance.lots import Hold, Ledger, NoRoom
from serai.data.appliance.paths import Parts, Root
from serai.data.appliance.rights import Identity
from serai.data.appliance.uploads import Upload, copy_file, sweep, write_at

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

ANN, BOB = "ann", "bob"


class SetClock:
    def __init__(self) -> None:
        self.time = 1000.0

    def now(self) -> float:
        return self.time

    def wall(self) -> float:
        return self.time


def test_a_lot_is_kept_free_for_its_user() -> None:
    ledger = Ledger()
    ledger.reserve("l1", ANN, 80, 2000, 100, 1000)
    with pytest.raises(NoRoom):
        ledger.hold(BOB, 21, 100, 1000)
    ledger.settle(ledger.hold(BOB, 20, 100, 1000), 20)
    ledger.settle(ledger.hold(ANN, 80, 100, 1000), 80)
    assert ledger.used == {(BOB, ""): 20, (ANN, "l1"): 80}
    with pytest.raises(NoRoom):
        ledger.reserve("l2", ANN, 1, 2000, 100, 1000)


def test_what_is_being_written_counts() -> None:
    ledger = Ledger()
    hold = ledger.hold(ANN, 60, 100, 0)
    with pytest.raises(NoRoom):
        ledger.hold(BOB, 41, 100, 0)
    with pytest.raises(NoRoom):
        ledger.grow(hold, 41, 100, 0)
    ledger.drop(hold)
    assert ledger.hold(BOB, 100, 100, 0).evict == 0


def test_files_of_an_ended_lot_stay_until_space_is_needed() -> None:
    ledger = Ledger()
    ledger.reserve("l1", ANN, 80, 2000, 100, 1000)
    ledger.settle(ledger.hold(ANN, 70, 100, 1000), 70)
    assert ledger.hold(BOB, 30, 100, 2000).evict == 0
    assert ledger.hold(BOB, 20, 100, 2000).evict == 20
    lot, evict = ledger.renew("l1", 3000, 130, 2000)
    assert (lot.until, evict) == (3000, 0)


def test_a_quota_counts_files_and_lots() -> None:
    ledger = Ledger(quotas={ANN: 50})
    ledger.reserve("l1", ANN, 40, 2000, 1000, 1000)
    with pytest.raises(NoRoom, match="quota"):
        ledger.hold(ANN, 45, 1000, 1000)
    ledger.hold(ANN, 40, 1000, 1000)  # in the lot
    with pytest.raises(NoRoom, match="quota"):
        ledger.reserve("l2", ANN, 20, 2000, 1000, 1000)
    ledger.hold(BOB, 900, 1000, 1000)


def test_a_lot_of_another_user_cannot_be_named() -> None:
    ledger = Ledger()
    ledger.reserve("l1", ANN, 40, 2000, 100, 1000)
    for lot in ("l1", "l2"):
        with pytest.raises(KeyError):
            ledger.hold(BOB, 1, 100, 1000, lot)
    with pytest.raises(KeyError):
        ledger.hold(ANN, 1, 100, 2000, "l1")


@settings(max_examples=200, deadline=None)
@given(st.integers(0, 1 << 30))
def test_never_more_is_promised_than_there_is(seed: int) -> None:  # noqa: C901 - a world in one loop
    """Random reservations, writes, expiries and evictions: what is guaranteed can always be written."""
    maker = random.Random(seed)  # noqa: S311 - a seed is what is wanted
    capacity, now = 1000, 0.0
    ledger, holds = Ledger(), list[Hold]()

    def evict(size: int) -> None:
        for (user, lot), used in list(ledger.used.items()):
            if lot and not ledger.lots[lot].live(now) and size > 0:
                gone = min(used, size)
                ledger.charge(user, lot, -gone)
                size -= gone
        assert size <= 0

    for step in range(60):
        now += maker.random() * 10
        user = maker.choice([ANN, BOB])
        try:
            match maker.randrange(5):
                case 0:
                    _, size = ledger.reserve(f"l{step}", user, maker.randrange(1, 500), now + 30, capacity, now)
                    evict(size)
                case 1 | 2:
                    hold = ledger.hold(user, maker.randrange(300), capacity, now)
                    evict(hold.evict)
                    holds.append(hold)
                case 3 if holds:
                    hold = holds.pop()
                    ledger.settle(hold, maker.randrange(hold.size + 1))
                case 4 if ledger.lots:
                    _, size = ledger.renew(maker.choice(list(ledger.lots)), now + 30, capacity, now)
                    evict(size)
        except NoRoom:
            pass
        held = sum(hold.size for hold in holds)
        assert ledger.stored() + held <= capacity + held  # what is stored fits
        assert ledger.stored() <= capacity
        for lot in ledger.lots.values():
            if lot.live(now):
                assert ledger.in_lot(lot.name) <= lot.size
        promised = ledger.taken(now)
        assert promised - ledger.best_effort(now) <= capacity


@pytest.fixture
def shop(tmp_path: Path) -> Iterator[tuple[Files, SetClock]]:
    clock, top = SetClock(), tmp_path / "served"
    top.mkdir()
    state = state_of(str(top))
    root, keys = Root(str(top)), Keys(f"{state}/access.json")
    made: list[Files] = []

    def remove(parts: Parts, row: Row) -> bool:
        return made[0].evict(parts, row)

    book = Book(f"{state}/book.sqlite", clock, 1000, lambda: 1 << 40, remove, lambda: keys.quotas)
    made.append(Files(root, book, keys))
    yield made[0], clock
    book.close()
    root.close()


def put(files: Files, user: str, name: str, size: int) -> None:
    with Upload(files, Identity(user), (name.encode(),), size) as upload:
        upload.write([b"x" * size])
        upload.finish()


def names(files: Files) -> list[str]:
    return sorted(row["name"] for row in files.rows(Identity(ANN), ()))


def test_best_effort_files_go_the_oldest_first_and_others_never(shop: tuple[Files, SetClock]) -> None:
    files, clock = shop
    put(files, BOB, "plain", 200)
    lot = files.book.reserve("l1", ANN, 600, 2000)
    for name in ("one", "two", "three"):
        clock.time += 1
        put(files, ANN, name, 200)
    with pytest.raises(NoRoom):
        put(files, BOB, "more", 300)
    clock.time = lot.until
    assert names(files) == ["one", "plain", "three", "two"]
    put(files, BOB, "more", 300)
    assert names(files) == ["more", "plain", "three", "two"]
    with pytest.raises(NoRoom):
        put(files, BOB, "much", 901)
    assert names(files) == ["more", "plain", "three", "two"]
    files.book.reserve("l2", BOB, 500, 9000)
    assert names(files) == ["more", "plain"]
    assert [lot.name for lot, _ in files.book.lots()] == ["l2"]


def test_the_book_follows_files_that_move_and_go(shop: tuple[Files, SetClock]) -> None:
    files, _ = shop
    ann = Identity(ANN)
    files.mkdir(ann, (b"dir",))
    with Upload(files, ann, (b"dir", b"a"), 100) as upload:
        upload.write([b"x" * 100])
        upload.finish()
    files.move(ann, (b"dir",), (b"new",))
    assert files.book.row((b"dir", b"a")) is None
    row = files.book.row((b"new", b"a"))
    assert row is not None
    assert row.user == ANN
    put(files, ANN, "over", 50)
    put(files, ANN, "over", 70)
    assert files.book.usage() == {ANN: 170}
    files.remove(ann, (b"new",), recursive=True)
    assert files.book.usage() == {ANN: 70}


def test_a_link_that_is_put_in_the_way_of_what_comes_leads_to_no_place_without_rights(
    shop: tuple[Files, SetClock],
) -> None:
    files, _ = shop
    files.mkdir(Identity(BOB), (b"bobs",))
    files.mkdir(Identity(BOB), (b"anns",))
    files.mkdir(Identity(BOB), (b"anns", b"dir"))
    files.keys.allow(ANN, "/anns", "rlw")
    ann = Identity(ANN)
    with Upload(files, ann, (b"anns", b"dir", b"f"), 1) as upload:
        upload.write([b"x"])
        files.move(ann, (b"anns", b"dir"), (b"anns", b"aside"))
        files.link(ann, "../bobs", (b"anns", b"dir"))
        with pytest.raises(PermissionError):
            upload.finish()
    assert os.listdir(f"{files.root.directory}/bobs") == []
    assert files.book.usage() == {}


def test_what_is_written_into_a_file_while_it_is_copied_has_no_digest_of_before(
    shop: tuple[Files, SetClock], monkeypatch: pytest.MonkeyPatch
) -> None:
    files, _ = shop
    ann = Identity(ANN)
    put(files, ANN, "a", 100)
    copied = Upload.copy_from

    def slowly(upload: Upload, fd: int) -> None:
        wait_a_tick(f"{files.root.directory}/tick")
        write, end = write_at(files, ann, (b"a",), 0, 100)
        os.write(write, b"y" * 100)
        end(100)
        copied(upload, fd)

    monkeypatch.setattr(Upload, "copy_from", slowly)
    assert copy_file(files, ann, (b"a",), (b"b",)).digests == {}
    opened = files.open(ann, (b"b",))
    os.close(opened.fd)
    assert opened.digests == {}


def test_what_a_thread_is_finishing_is_given_up_by_nobody(
    shop: tuple[Files, SetClock], monkeypatch: pytest.MonkeyPatch
) -> None:
    files, _ = shop
    upload = Upload(files, Identity(ANN), (b"a",), 1)
    upload.write([b"x"])
    looked, go_on = threading.Event(), threading.Event()

    def look(_found: os.stat_result | None) -> None:
        looked.set()
        assert go_on.wait(10)

    monkeypatch.setattr(upload, "_look", look)
    with ThreadPoolExecutor(2) as threads:
        finishing = threads.submit(upload.finish)
        assert looked.wait(10)
        given_up = threads.submit(upload.abandon)  # as at the server's end
        with contextlib.suppress(TimeoutError):
            given_up.result(0.2)
        go_on.set()
        finishing.result(10)
        given_up.result(10)
    opened = files.open(Identity(ANN), (b"a",))
    os.close(opened.fd)
    assert opened.known
    assert files.book.usage() == {ANN: 1}


def wait_a_tick(path: str) -> None:
    """Until the time of a file that is changed now is another."""
    seen = set[int]()
    until = time.monotonic() + 5
    while len(seen) < 3:
        assert time.monotonic() < until
        with open(path, "w", encoding="ascii") as file:
            seen.add(os.fstat(file.fileno()).st_ctime_ns)
    os.unlink(path)


def test_a_digest_that_was_taken_of_a_former_version_is_not_kept_for_the_next(shop: tuple[Files, SetClock]) -> None:
    files, _ = shop
    ann = Identity(ANN)
    put(files, ANN, "a", 100)
    opened = files.open(ann, (b"a",))
    put(files, ANN, "a", 100)  # between its digest and the book
    files.book.refresh(opened.parts, opened.found, {SHA256: b"0" * 32}, opened.found)
    os.close(opened.fd)
    now = files.open(ann, (b"a",))
    os.close(now.fd)
    assert now.known
    assert list(now.digests) == [XXH3]


def test_a_part_that_was_written_into_a_file_which_is_gone_or_another_now_is_charged_to_nobody(
    shop: tuple[Files, SetClock],
) -> None:
    files, _ = shop
    ann = Identity(ANN)
    for replaced in (True, False):
        put(files, ANN, "a", 100)
        fd, end = write_at(files, ann, (b"a",), 100, 50)
        os.write(fd, b"y" * 50)
        files.remove(ann, (b"a",))
        if replaced:
            put(files, BOB, "a", 30)
        end(150)
        assert files.book.usage() == ({BOB: 30} if replaced else {})
        assert (files.book.row((b"a",)) is not None) == replaced
        assert files.book.sums()["free"] == 1000 - 30 * replaced


def test_after_a_start_what_changed_meanwhile_is_noticed(shop: tuple[Files, SetClock]) -> None:
    files, clock = shop
    put(files, ANN, "gone", 100)
    put(files, ANN, "changed", 100)
    put(files, ANN, "kept", 100)
    top, state = files.root.directory, state_of(files.root.directory)
    with open(f"{top}/changed", "a", encoding="ascii") as file:
        file.write("more")
    files.remove(Identity(ANN), (b"kept",))
    put(files, ANN, "kept", 90)
    with open(f"{top}/foreign", "w", encoding="ascii") as file:
        file.write("x" * 300)
    os.unlink(f"{top}/gone")
    again = Book(f"{state}/book.sqlite", clock, 1000, lambda: 1 << 40, lambda *_: False)
    again.reconcile(files.everything())
    assert again.usage() == {ANN: 90}
    assert again.sums()["stored"] == 90 + 104 + 300
    again.close()


def test_what_was_not_finished_is_swept(shop: tuple[Files, SetClock]) -> None:
    files, _ = shop
    upload = Upload(files, Identity(ANN), (b"half",), 100)
    upload.write([b"x" * 50])
    assert names(files) == []
    assert sweep(files.root.directory) == 1
    upload.abandon()
    assert not os.listdir(drafts_directory(files.root.directory))
    assert files.book.sums()["free"] == 1000


def test_a_book_of_an_earlier_version_is_read_on(shop: tuple[Files, SetClock], tmp_path: Path) -> None:
    files, clock = shop
    put(files, ANN, "old", 100)
    found = os.stat(f"{files.root.directory}/old")
    with contextlib.closing(sqlite3.connect(tmp_path / "book")) as old, old:
        old.execute(
            "CREATE TABLE files (path BLOB PRIMARY KEY, user TEXT NOT NULL, lot TEXT NOT NULL, size INTEGER NOT NULL,"
            " mtime_ns INTEGER NOT NULL, ino INTEGER NOT NULL, sha256 BLOB, written REAL NOT NULL) WITHOUT ROWID"
        )
        row = (b"old", ANN, "", found.st_size, found.st_mtime_ns, found.st_ino, bytes(32), 1.0)
        old.execute("INSERT INTO files VALUES (?, ?, ?, ?, ?, ?, ?, ?)", row)
    for _ in range(2):
        book = Book(str(tmp_path / "book"), clock, 1000, lambda: 1 << 40, lambda *_: False)
        known = book.row((b"old",))
        assert known is not None
        assert (known.user, known.of(found), dict(known.digests(found))) == (
            ANN,
            True,
            {},
        )  # its bytes may have changed
        hold = book.hold(ANN, 100)
        book.settle(hold, (b"new",), found, {"sha-256": bytes(32), "xxh3-128": bytes(16)})
        known = book.row((b"new",))
        assert known is not None
        assert known.digests(found) == {"sha-256": bytes(32), "xxh3-128": bytes(16)}
        assert book.usage() == {ANN: 200}
        book.close()
