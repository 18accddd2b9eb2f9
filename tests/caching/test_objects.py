"""The objects of a cache: shared, limited, whole."""

from __future__ import annotations

import contextlib
import errno
import hashlib
import itertools
import os
import resource
import subprocess
import sys
import threading
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from serai.travel.caching import log, objects
from serai.travel.caching.objects import Altered, Cache, NoRoom, digest_of, directory_beside
from serai.travel.caching.replacement import FIFO

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

KB = 1024


def name_of(data: bytes) -> str:
    return hashlib.blake2b(data, digest_size=32).hexdigest()


def put(cache: Cache, data: bytes, digest: str = "", pin: str = "", size: int | None = None) -> str:
    filling = cache.begin(len(data) if size is None else size)
    try:
        filling.write(data)
        return cache.keep(filling, digest, pin)
    finally:
        filling.abandon()


@pytest.fixture
def make(tmp_path: Path) -> Callable[..., Cache]:
    """Caches of one directory, as several executors have them."""
    ticks = itertools.count(1)

    def one(limit: int = 100 * KB, kind: str = "lru") -> Cache:
        return Cache(str(tmp_path / "cache"), limit, kind, now=lambda: float(next(ticks)))

    return one


def test_what_came_is_pinned_under_a_second_name_and_cannot_be_written(
    make: Callable[..., Cache], tmp_path: Path
) -> None:
    cache, data = make(), os.urandom(5000)
    digest = put(cache, data)
    assert digest == name_of(data) == digest_of(cache.path(digest))
    stamp = cache.pin(digest, str(tmp_path / "pin"))
    info = (tmp_path / "pin").stat()
    assert stamp == (5000, info.st_mtime_ns)
    assert (info.st_mode & 0o777, info.st_nlink) == (0o444, 2)
    assert cache.pin(name_of(b"other"), str(tmp_path / "none")) is None
    assert cache.changes() == ([digest], [])
    assert cache.changes() == ([], [])


def test_what_is_not_what_was_announced_is_not_taken_in(make: Callable[..., Cache]) -> None:
    cache = make()
    for data, digest, says in (
        (b"x" * 10, name_of(b"y" * 10), "its digest is another"),
        (b"x" * 9, "", "9 of 10 bytes came"),
        (b"x" * 11, "", "longer than the 10 bytes"),
    ):
        with pytest.raises(Altered, match=says):
            put(cache, data, digest, size=10)
    assert cache.digests() == []
    assert os.listdir(Path(cache.directory) / "coming") == []


def test_a_filling_may_begin_again(make: Callable[..., Cache]) -> None:
    cache, data = make(), os.urandom(3000)
    filling = cache.begin(len(data))
    filling.write(b"z" * 2999)
    filling.seek(0)
    filling.truncate()
    for at in range(0, 3000, 1000):
        filling.write(data[at : at + 1000])
    assert cache.keep(filling) == name_of(data)


def test_the_least_used_leave_and_what_is_in_use_stays(make: Callable[..., Cache], tmp_path: Path) -> None:
    cache = make(limit=40 * KB)
    first, second, third, fourth = (put(cache, bytes([n]) * 10 * KB) for n in range(4))
    assert cache.pin(first, str(tmp_path / "a")) is not None
    assert cache.pin(second, str(tmp_path / "b")) is not None
    os.unlink(tmp_path / "b")  # used, and not in use: older than nobody but the first
    fifth = put(cache, b"\5" * 15 * KB)
    assert set(cache.digests()) == {first, second, fifth}, (third, fourth)
    assert cache.used_bytes() == 35 * KB


def test_no_room_where_all_is_in_use_or_it_is_too_large(make: Callable[..., Cache], tmp_path: Path) -> None:
    cache = make(limit=30 * KB)
    for n in range(3):
        put(cache, bytes([n]) * 10 * KB, pin=str(tmp_path / f"p{n}"))
    with pytest.raises(NoRoom, match="in use"):
        cache.begin(1)
    with pytest.raises(NoRoom, match="more than the cache may hold"):
        cache.begin(31 * KB)
    os.unlink(tmp_path / "p1")
    put(cache, b"\4" * KB)
    assert len(cache.digests()) == 3


def test_room_is_spoken_for_while_objects_come(make: Callable[..., Cache]) -> None:
    cache = make(limit=30 * KB)
    coming = cache.begin(20 * KB)
    with pytest.raises(NoRoom):
        make(limit=30 * KB).begin(11 * KB)
    coming.abandon()
    make(limit=30 * KB).begin(11 * KB).abandon()


def test_the_disk_is_never_filled(make: Callable[..., Cache], monkeypatch: pytest.MonkeyPatch) -> None:
    cache = make()
    disk = os.statvfs(cache.directory)
    monkeypatch.setattr(objects, "FLOOR_SHARE", 1.0)
    monkeypatch.setattr(objects, "FLOOR_BYTES", disk.f_bavail * disk.f_frsize - 20 * KB)
    with pytest.raises(NoRoom):
        cache.begin(60 * KB)


def test_executors_share_what_each_of_them_brings(make: Callable[..., Cache], tmp_path: Path) -> None:
    one, other = make(limit=20 * KB, kind=FIFO), make(limit=20 * KB, kind=FIFO)
    mine = put(one, b"a" * 8 * KB)
    assert other.pin(mine, str(tmp_path / "o")) is not None
    theirs = put(other, b"b" * 8 * KB)
    assert one.changes() == ([mine, theirs], [])
    os.unlink(tmp_path / "o")
    third = put(other, b"c" * 8 * KB)
    assert one.changes() == ([third], [mine])
    assert not one.has(mine)


def test_what_an_earlier_executor_left_is_read_before_it_is_used(make: Callable[..., Cache], tmp_path: Path) -> None:
    digest = put(make(), b"a" * 5000)
    path = Path(make().path(digest))
    info = path.stat()
    path.chmod(0o600)
    path.write_bytes(b"b" * 5000)
    os.utime(path, ns=(info.st_mtime_ns, info.st_mtime_ns))  # nothing tells that it was altered
    again = make()
    assert again.digests() == [digest]
    assert again.pin(digest, str(tmp_path / "q"), quickly=True) is None
    assert again.pin(digest, str(tmp_path / "q")) is None
    assert not path.exists()
    assert not (tmp_path / "q").exists()
    assert again.digests() == []


def test_an_object_that_was_written_to_is_read_again(make: Callable[..., Cache]) -> None:
    cache = make()
    well, bad = put(cache, b"a" * 5000), put(cache, b"b" * 5000)
    os.utime(cache.path(well))
    Path(cache.path(bad)).chmod(0o600)
    Path(cache.path(bad)).write_bytes(b"c" * 5000)
    assert cache.is_whole(well)
    assert not cache.is_whole(bad)
    assert cache.digests() == [well]
    assert not cache.is_whole("../../etc/passwd")


def test_what_was_killed_half_way_is_cleared_away_and_what_is_there_is_found(make: Callable[..., Cache]) -> None:
    cache = make()
    gone, lost, kept = (put(cache, bytes([n]) * KB) for n in range(3))
    coming = cache.begin(KB)
    script = (
        f"import os; open({str(Path(cache.directory) / 'coming' / 'dead')!r}, 'wb').write(b'x' * 1000); os._exit(9)"
    )
    subprocess.run([sys.executable, "-c", script], check=False)
    os.unlink(cache.path(gone))
    log = Path(cache.directory) / "log"
    lines = [line for line in log.read_bytes().splitlines(keepends=True) if lost.encode() not in line]
    log.write_bytes(b"".join(lines) + b"+ ab")
    for _ in range(2):  # the second reads what the first has set right
        assert set(make().digests()) == {lost, kept}
    assert os.listdir(Path(cache.directory) / "coming") == [os.path.basename(coming.path)]
    coming.abandon()


def test_the_log_is_written_anew_and_others_read_on(
    make: Callable[..., Cache], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(log, "LONGEST_LOG", 2000)
    one, other = make(), make()
    first = put(one, b"a" * KB)
    for n in range(40):
        assert one.pin(first, str(tmp_path / f"{n}")) is not None
    second = put(one, b"b" * KB)
    assert (Path(one.directory) / "log").stat().st_size < 2000
    assert other.changes() == ([first, second], [])
    third = put(other, b"c" * KB)
    assert set(one.digests()) == {first, second, third}


def test_many_threads_and_processes_keep_the_limit(make: Callable[..., Cache]) -> None:
    caches = [make(limit=50 * KB) for _ in range(3)]
    wrong: list[BaseException] = []

    def fill(n: int) -> None:
        try:
            for turn in range(20):
                put(caches[n % 3], bytes([n, turn]) * 2 * KB)
        except BaseException as error:  # noqa: BLE001 - the test fails with it
            wrong.append(error)

    threads = [threading.Thread(target=fill, args=(n,)) for n in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(100)
    assert not wrong
    there = {path.name: path.stat().st_size for path in Path(caches[0].directory).glob("objects/*/*")}
    assert sum(there.values()) <= 50 * KB
    assert all(set(cache.digests()) == set(there) for cache in caches)


def test_another_users_directory_and_a_link_are_refused(tmp_path: Path) -> None:
    (tmp_path / "real").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "real")
    with pytest.raises(OSError, match="not a directory of this user"):
        Cache(str(tmp_path / "link"))
    if os.getuid() == 0:
        os.chown(tmp_path / "real", 12345, 12345)
        with pytest.raises(OSError, match="not a directory of this user"):
            Cache(str(tmp_path / "real"))


def test_it_lies_beside_the_executors() -> None:
    assert directory_beside("/x/serai-0-run-abc") == f"/x/serai-{os.getuid()}-cache"


def test_a_log_that_is_long_for_good_reasons_is_not_gone_through_at_each_line(
    make: Callable[..., Cache], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(log, "LONGEST_LOG", 2000)
    cache = make()
    digests = [put(cache, bytes([n])) for n in range(60)]
    calls: list[int] = []
    anew = log.Log._write_anew

    def counted(one: log.Log) -> None:
        calls.append(1)
        anew(one)

    monkeypatch.setattr(log.Log, "_write_anew", counted)
    for turn in range(2):
        for digest in digests:
            assert cache.pin(digest, str(tmp_path / f"{turn}-{digest}")) is not None
    assert len(calls) <= 4
    assert set(cache.digests()) == set(digests) == set(make().digests())


def test_an_executor_that_hangs_with_the_lock_holds_up_no_other_for_ever(
    make: Callable[..., Cache], monkeypatch: pytest.MonkeyPatch
) -> None:
    cache = make()
    monkeypatch.setattr(log, "LOCK_S", 0.3)
    script = (
        "import fcntl, os, sys; fd = os.open(sys.argv[1], os.O_RDWR); fcntl.flock(fd, fcntl.LOCK_EX);"
        "print('held', flush=True); sys.stdin.read()"
    )
    words = [sys.executable, "-c", script, f"{cache.directory}/index.lock"]
    pipe = subprocess.PIPE
    with subprocess.Popen(words, stdin=pipe, stdout=pipe) as holder:
        assert holder.stdout is not None
        assert holder.stdout.readline() == b"held\n"
        done = threading.Thread(target=lambda: put(cache, b"x"), daemon=True)
        done.start()
        done.join(40)
        stuck = done.is_alive()
        holder.communicate()
        done.join(40)
    assert not stuck
    assert cache.digests() == [name_of(b"x")]


def test_one_that_went_on_without_the_lock_misses_nothing_for_good(
    make: Callable[..., Cache], monkeypatch: pytest.MonkeyPatch
) -> None:
    one, other = make(), make()
    monkeypatch.setattr(log, "LOCK_S", 0.05)
    monkeypatch.setattr(log, "AGAIN_S", 0.05)
    first = put(one, b"first")
    with one._log.locked():  # and is stopped here for longer than others wait
        second = put(other, b"second")
        one._log.was_used(first, 5.0)
    third = put(other, b"third")
    assert set(one.digests()) == set(other.digests()) == {first, second, third}
    assert one.used_bytes() == other.used_bytes() == 16


def test_two_that_give_up_the_same_filling_close_no_other_file(make: Callable[..., Cache]) -> None:
    cache = make()
    close, closed = os.close, []
    meet = threading.Barrier(2, timeout=1)

    def slowly(fd: int) -> None:
        closed.append(fd)
        with contextlib.suppress(threading.BrokenBarrierError):
            meet.wait()  # the other comes here too, if it can
        close(fd)

    filling = cache.begin(10)
    wrong: list[OSError] = []

    def give_up() -> None:
        try:
            filling.abandon()
        except OSError as error:
            wrong.append(error)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(os, "close", slowly)
        threads = [threading.Thread(target=give_up) for _ in range(2)]
        for one in threads:
            one.start()
        for one in threads:
            one.join(40)
    assert (len(closed), wrong) == (1, [])


def test_a_new_object_costs_a_full_cache_no_look_at_all_others(
    make: Callable[..., Cache], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cache = make(limit=300 * KB)
    pinned = put(cache, b"first" * 200, pin=str(tmp_path / "pin"))
    for n in range(400):
        put(cache, b"%04d" % n * 250)
    looks: list[str] = []
    lstat = os.lstat

    def counted(path: str) -> os.stat_result:
        looks.append(path)
        return lstat(path)

    monkeypatch.setattr(os, "lstat", counted)
    for n in range(20):
        put(cache, b"%05d" % n * 200)
    assert len(looks) <= 20 * 5
    assert cache.used_bytes() <= 300 * KB
    assert cache.has(pinned)


def test_an_object_that_is_only_in_the_log_makes_room_for_none_twice(make: Callable[..., Cache]) -> None:
    cache = make(limit=30 * KB)
    lost = put(cache, b"a" * 10 * KB)
    os.unlink(cache.path(lost))
    for n in range(3):
        put(cache, bytes([n]) * 10 * KB)
    assert len(cache.digests()) == 3
    assert cache.used_bytes() == 30 * KB


def test_what_is_killed_between_the_log_and_the_disk_leaves_the_log_with_more(make: Callable[..., Cache]) -> None:
    """Then the limit is kept, whatever died: what is on the disk and in no log would count for nobody."""
    cache = make(limit=30 * KB)
    filling = cache.begin(10 * KB)
    filling.write(b"x" * 10 * KB)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(os, "rename", dies)
        with pytest.raises(KeyboardInterrupt):
            cache.keep(filling)
    filling.abandon()  # by its death
    assert make(limit=30 * KB).digests() == []  # who begins puts it right
    put(cache, b"y" * 30 * KB)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(os, "write", dies)
        with pytest.raises(KeyboardInterrupt):
            put(cache, b"z" * 10 * KB)
    assert not list(Path(cache.directory).glob("objects/*/*"))
    assert len(put(cache, b"z" * 30 * KB)) == 64


def dies(*_: object) -> None:
    raise KeyboardInterrupt


FILLS_A_CACHE = """
import sys
from serai.travel.caching.objects import Cache
cache = Cache(sys.argv[1], int(sys.argv[2]))
for line in sys.stdin:
    filling = cache.begin(int(line))
    filling.write(bytes([cache._numbers]) * int(line))
    print(cache.keep(filling), flush=True)
"""


@contextlib.contextmanager
def no_file_beyond(size: int) -> Iterator[None]:
    """What a full disk does to files that grow: a line is cut, and the next bytes are refused."""
    _, hard = before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


def test_a_log_that_cannot_grow_keeps_nobody_from_what_is_there_nor_from_making_room(
    make: Callable[..., Cache], tmp_path: Path
) -> None:
    cache, other = make(), make()
    first, second = put(cache, b"1" * KB), put(cache, b"2" * KB)
    size = (Path(cache.directory) / "log").stat().st_size
    with no_file_beyond(size + 10):
        with pytest.raises(OSError, match=os.strerror(errno.EFBIG)):
            put(cache, b"3" * KB)
        assert cache.pin(first, str(tmp_path / "pin")) == (KB, (tmp_path / "pin").stat().st_mtime_ns)
        assert cache.pin(second, str(tmp_path / "pin2")) is not None
        os.unlink(tmp_path / "pin2")
        assert other.has(first)
        assert other.has(second)
        cache.drop(second)
        assert not cache.has(name_of(b"3" * KB))
    assert not os.path.exists(cache.path(second))
    third = put(cache, b"3" * KB)
    assert other.pin(third, str(tmp_path / "pin3")) is not None
    assert other.pin(second, str(tmp_path / "none")) is None
    assert sorted(make().digests()) == sorted(other.digests()) == sorted(cache.digests()) == sorted([first, third])


def test_a_log_that_cannot_be_written_anew_goes_on(
    make: Callable[..., Cache], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(log, "LONGEST_LOG", 4 * KB)
    cache = make()
    digest = put(cache, b"1" * KB)
    os.mkdir(Path(cache.directory) / "log.new")  # nothing can be written there
    for _ in range(100):
        cache.pin(digest, str(tmp_path / "pin"))
        os.unlink(tmp_path / "pin")
    assert make().digests() == cache.digests() == [digest]
    assert (Path(cache.directory) / "log").stat().st_size > 4 * KB


def test_lines_go_into_no_other_file_when_the_log_cannot_be_opened_again(make: Callable[..., Cache]) -> None:
    cache = make()
    first = put(cache, b"1" * KB)
    path = Path(cache.directory) / "log"
    lines = path.read_bytes()
    path.unlink()
    path.symlink_to("elsewhere")
    with pytest.raises(OSError, match=os.strerror(errno.ELOOP)):
        cache.has(first)
    other = os.open(path.parent / "other", os.O_RDWR | os.O_CREAT)  # gets the number of what was closed
    try:
        path.unlink()
        path.write_bytes(lines)
        second = put(cache, b"2" * KB)
        assert os.fstat(other).st_size == 0
        assert make().digests() == [first, second]
    finally:
        os.close(other)


def test_while_a_run_with_a_larger_limit_is_there_a_smaller_one_throws_out_nothing_of_its(
    tmp_path: Path,
) -> None:
    small = Cache(str(tmp_path / "cache"), 20 * KB)
    words = [sys.executable, "-c", FILLS_A_CACHE, small.directory, str(100 * KB)]
    with subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, bufsize=1) as larger:
        assert larger.stdin is not None
        assert larger.stdout is not None
        theirs = []
        for _ in range(4):
            larger.stdin.write(f"{20 * KB}\n")
            theirs.append(larger.stdout.readline().strip())
        mine = put(small, b"m" * 10 * KB)
        assert set(small.digests()) == {*theirs, mine}
        put(small, b"n" * 15 * KB)
        assert set(theirs) - set(small.digests()) == {theirs[0]}  # the larger limit is one, too
        with pytest.raises(NoRoom, match="more than the cache may hold"):
            small.begin(21 * KB)
        larger.kill()
    assert small.used_bytes() == 85 * KB
    last = put(small, b"o" * 20 * KB)
    assert small.digests() == [last]  # its own limit again, as soon as it brings something
    assert len(os.listdir(Path(small.directory) / "limits")) == 1
