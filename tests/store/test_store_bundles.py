"""Many small files in one request, and long ones straight from the socket, against a real appliance."""

from __future__ import annotations

import contextlib
import errno
import hashlib
import http.client
import json
import os
import random
import resource
import socket
import sqlite3
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

import pytest
import xxhash
from tests.store.conftest import Store, until

from serai.access.filesystems.store import StoreFileSystem
from serai.access.stores.bodies import bundle, unbundle
from serai.access.stores.wire import Server, shared_wire
from serai.data.transfer import Wishes, copy
from serai.errors import SeraiError

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path


@pytest.fixture
def fs(store: Store) -> StoreFileSystem:
    return StoreFileSystem(store.host, store.port)


def _tree(room: Path, count: int) -> dict[str, bytes]:
    source = random.Random(count)  # noqa: S311 - data of a test
    found = {f"d{n % 3}/f{n}": source.randbytes(source.randrange(40_000)) for n in range(count)}
    for name, data in found.items():
        (room / name).parent.mkdir(parents=True, exist_ok=True)
        (room / name).write_bytes(data)
    return found


@pytest.mark.parametrize(
    "message",
    [
        b"",
        b"\0\0\0\2[]x",
        b"\0\0\0\2{}",
        b"\0\0\0\3[1]",
        b"\xff\xff\xff\xff[]",
        bundle([{"size": 3}], [b"ab"]),
        bundle([{"size": -1}], []),
        bundle([{}] * 800_000, []),
    ],
    ids=range(8),
)
def test_what_is_no_bundle_is_refused(message: bytes) -> None:
    with pytest.raises(ValueError, match=r"bundle|JSON|Expecting|column"):
        unbundle(message)


def test_a_bundle_is_what_was_bundled() -> None:
    rows, contents = unbundle(bundle([{"size": 2}, {"errno": "ENOENT"}, {"size": 0}], [b"ab"]))
    assert (len(rows), [bytes(one) for one in contents]) == (3, [b"ab", b"", b""])


def test_directories_go_there_and_come_back(fs: StoreFileSystem, store: Store, tmp_path: Path) -> None:
    files = _tree(tmp_path / "here", 600)
    (tmp_path / "here/large").write_bytes(files.setdefault("large", os.urandom(20_000_000)))
    fs.put(f"{tmp_path}/here", "/tree", recursive=True)
    there = {str(path.relative_to(store.room / "tree")): path for path in (store.room / "tree").rglob("*")}
    assert {name: path.read_bytes() for name, path in there.items() if path.is_file()} == files
    fs.get("/tree", f"{tmp_path}/back", recursive=True)
    back = {str(path.relative_to(tmp_path / "back")): path for path in (tmp_path / "back").rglob("*")}
    assert {name: path.read_bytes() for name, path in back.items() if path.is_file()} == files
    assert fs.cat(sorted(f"/tree/{name}" for name in files)) == {f"/tree/{name}": data for name, data in files.items()}
    # The book has them all, with their digests: they count as ours, and are told when they are fetched.
    status, headers, _ = store.curl(f"{store.url}/tree/d0/f0")
    assert (status, "xxh3-128" in headers["repr-digest"]) == (200, True)


def test_a_bundle_has_more_files_than_a_process_may_commonly_open(tmp_path: Path) -> None:
    _, hard = before = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (220, hard))
    try:
        store = Store(tmp_path / "served", tmp_path / "config")
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, before)
    try:
        names = [f"/f{n}" for n in range(250)]
        rows = [{"path": name, "size": 1, "xxh3": xxhash.xxh3_128_hexdigest(b"x")} for name in names]
        body = bundle(rows, [b"x"] * 250)
        status, _, answer = store.curl("-X", "POST", "--data-binary", "@-", f"{store.url}/.serai/put", data=body)
        assert status == 200
        assert [row for row in json.loads(answer) if "etag" not in row] == []
    finally:
        store.stop()


def test_copies_of_directories_go_in_bundles(fs: StoreFileSystem, store: Store, tmp_path: Path) -> None:
    files = _tree(tmp_path / "here", 300)
    url = f"store://{store.host}:{store.port}"
    assert copy([f"{tmp_path}/here"], f"{url}/copied", Wishes(recursive=True)).ok
    assert {path: fs.cat_file(f"/copied/{path}") for path in files} == files
    assert copy([f"{url}/copied"], f"{tmp_path}/back", Wishes(recursive=True)).ok
    assert {path: (tmp_path / "back" / path).read_bytes() for path in files} == files


def test_copies_keep_permissions_and_times_and_links(store: Store, tmp_path: Path) -> None:
    (tmp_path / "here").mkdir()
    (tmp_path / "here/program").write_bytes(b"#!/bin/sh\n")
    (tmp_path / "here/large").write_bytes(bytes(9_000_000))
    for name, mode in (("program", 0o755), ("large", 0o600)):
        (tmp_path / "here" / name).chmod(mode)
        os.utime(tmp_path / "here" / name, (1_600_000_000, 1_600_000_000))
    (tmp_path / "here/link").symlink_to("program")
    url = f"store://{store.host}:{store.port}"
    outcome = copy([f"{tmp_path}/here"], f"{url}/plain", Wishes(recursive=True))
    assert outcome.ok, outcome.complaints
    assert (store.room / "plain/program").stat().st_mode & 0o777 == 0o755
    assert (store.room / "plain/link").readlink().name == "program"
    assert copy([f"{tmp_path}/here"], f"{url}/kept", Wishes(recursive=True, times=True)).ok
    found = {name: (store.room / "kept" / name).stat() for name in ("program", "large")}
    assert {name: (one.st_mode & 0o777, int(one.st_mtime)) for name, one in found.items()} == {
        "program": (0o755, 1_600_000_000),
        "large": (0o600, 1_600_000_000),
    }
    assert copy([f"{url}/kept"], f"{tmp_path}/back", Wishes(recursive=True, times=True)).ok
    assert (tmp_path / "back/program").stat().st_mode & 0o777 == 0o755


def test_one_that_cannot_be_written_keeps_no_other_from_it(fs: StoreFileSystem) -> None:
    fs.pipe({"/one": b"1", "/two": b"2"})
    told = dict(fs.pipe_many([("/three", b"3"), ("/no/such/place", b"x"), ("/../up", b"y"), ("/four", b"4")]))
    assert isinstance(told["/no/such/place"], FileNotFoundError)
    assert told["/../up"] is not None
    assert (told["/three"], told["/four"]) == (None, None)
    assert fs.cat(["/one", "/two", "/three", "/four"]) == {"/one": b"1", "/two": b"2", "/three": b"3", "/four": b"4"}
    found = list(fs.far.get_many(["/four", "/gone", "/", "/three"]))
    assert (found[0], found[3]) == (b"4", b"3")
    assert isinstance(found[1], FileNotFoundError)
    assert isinstance(found[2], IsADirectoryError)
    with pytest.raises(FileExistsError):
        raise dict(fs.far.put_many([("/one", b"1"), ("/five", b"5")], "x"))["/one"] or AssertionError


def test_a_wrong_digest_and_another_users_rights_hold_in_bundles(store: Store, tmp_path: Path) -> None:
    wire = shared_wire(Server(store.host, store.port))
    rows = [{"path": f"/bad{n}", "size": 1, "sha256": hashlib.sha256(b"a").hexdigest()} for n in range(2)]
    told = json.loads(wire.request("POST", "/.serai/put", {}, bundle(rows, [b"a", b"b"])).data)
    assert ("etag" in told[0], told[1]["errno"]) == (True, "EBADMSG")
    assert not (store.room / "bad1").exists()
    store.run("token", str(store.room), "--user", "ann", "--path", "/ann", "--rights", "rw", "--to", f"{tmp_path}/t")
    ann = StoreFileSystem(store.host, store.port, token_file=f"{tmp_path}/t", auto_mkdir=True)
    (store.room / "ann").mkdir(exist_ok=True)
    told = dict(ann.pipe_many([("/ann/mine", b"1"), ("/theirs", b"2")]))
    assert (told["/ann/mine"], type(told["/theirs"])) == (None, PermissionError)
    assert isinstance(list(ann.far.get_many(["/ann/mine", "/bad0"]))[1], PermissionError)


def test_a_bundle_tells_the_digests_that_are_known(store: Store) -> None:
    wire = shared_wire(Server(store.host, store.port))
    content = b"it"
    rows = [
        {"path": "/told0", "size": 2, "xxh3": xxhash.xxh3_128(content).hexdigest()},
        {"path": "/told1", "size": 2, "sha256": hashlib.sha256(content).hexdigest()},
        {"path": "/told2", "size": 2, "xxh3": "00" * 16, "sha256": hashlib.sha256(content).hexdigest()},
        {"path": "/told3", "size": 2, "xxh3": "no digest"},
        {"path": "/told4", "size": 2},
    ]
    told = json.loads(wire.request("POST", "/.serai/put", {}, bundle(rows, [content] * len(rows))).data)
    assert [one.get("errno") for one in told] == [None, None, "EBADMSG", "EINVAL", "EINVAL"]
    (store.room / "told2").write_bytes(b"another's")
    body = json.dumps({"paths": ["/told0", "/told1", "/told2"]}).encode()
    found, contents = unbundle(wire.request("POST", "/.serai/get", {}, body).data)
    assert [sorted(row) for row in found] == [["size", "xxh3"], ["sha256", "size", "xxh3"], ["size"]]
    assert [bytes(one) for one in contents] == [content, content, b"another's"]
    far = StoreFileSystem(store.host, store.port, direct=False)
    assert far.cat(["/told0", "/told1", "/told2"]) == {"/told0": b"it", "/told1": b"it", "/told2": b"another's"}


def test_what_is_no_bundle_is_refused_and_the_next_one_taken(store: Store) -> None:
    wire = shared_wire(Server(store.host, store.port))
    for size in (3, 100_000, 5_000_000):  # the last one straight from its socket
        with pytest.raises(SeraiError, match="400"):
            wire.request("POST", "/.serai/put", {}, b"\1" * size)
        rows = [{"path": f"/next{size}", "size": size, "xxh3": xxhash.xxh3_128(bytes(size)).hexdigest()}]
        told = json.loads(wire.request("POST", "/.serai/put", {}, bundle(rows, [bytes(size)])).data)
        assert "etag" in told[0]


def test_what_is_spoilt_is_found_out(store: Store) -> None:
    """A book whose digests are another file's stands for a disk that has changed a byte."""
    fs = StoreFileSystem(store.host, store.port, direct=False)
    fs.pipe({"/spoilt": os.urandom(5_000_000), "/small": b"small", "/whole": b"whole"})
    with contextlib.closing(sqlite3.connect(store.room / ".serai/book.sqlite", timeout=10)) as book, book:
        book.executemany("UPDATE files SET xxh3 = zeroblob(16) WHERE path = ?", [(b"spoilt",), (b"small",)])
    for path in ("/spoilt", "/small"):
        with pytest.raises(OSError, match="not what the store has"):
            fs.cat_file(path)
    found = list(fs.far.get_many(["/whole", "/small"]))
    assert (found[0], getattr(found[1], "errno", 0)) == (b"whole", errno.EBADMSG)


def test_a_quota_holds_in_bundles(start: Callable[..., Store]) -> None:
    small = start("--size", "100KB")
    fs = StoreFileSystem(small.host, small.port)
    told = list(fs.pipe_many([(f"/f{n}", bytes(40_000)) for n in range(4)]))
    assert [error is None for _, error in told] == [True, True, False, False]
    assert "No space" in os.strerror(told[3][1].errno or 0) if told[3][1] else False


def _head(path: str, token: str, length: int) -> bytes:
    lines = [f"PUT {path} HTTP/1.1", "Host: x", f"Authorization: Bearer {token}", f"Content-Length: {length}"]
    return "\r\n".join([*lines, "", ""]).encode()


def test_a_long_body_that_breaks_off_leaves_nothing(store: Store) -> None:
    with socket.create_connection((store.host, store.port), timeout=10) as peer:
        peer.sendall(_head("/broken", store.token, 50_000_000) + bytes(6_000_000))
        until(lambda: os.listdir(store.room / ".serai/drafts"), "the draft is begun")
    until(lambda: not os.listdir(store.room / ".serai/drafts"), "the draft is gone")
    assert not (store.room / "broken").exists()


def test_a_long_answer_that_is_given_up_ends_its_connection(store: Store) -> None:
    fs = StoreFileSystem(store.host, store.port, direct=False)
    data = os.urandom(30_000_000)
    fs.pipe_file("/longer", data)
    pieces = fs.far.read_from("/longer")
    first = next(pieces)
    assert first == data[: len(first)]
    pieces.close()
    assert b"".join(fs.read_from("/longer")) == data
    assert fs.cat_file("/longer", 5, 20_000_000) == data[5:20_000_000]


def test_a_long_answer_that_nobody_sends_ends_when_it_is_given_up() -> None:
    """The server tells of more than it sends, and is silent then."""
    with socket.create_server(("127.0.0.1", 0)) as listening, ThreadPoolExecutor(1) as pool:
        fs = StoreFileSystem("127.0.0.1", listening.getsockname()[1], direct=False)

        def answer() -> socket.socket:
            peer, _ = listening.accept()
            while b"\r\n\r\n" not in peer.recv(65536):
                pass
            peer.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 50000000\r\n\r\n" + bytes(5 << 20))
            return peer

        answered = pool.submit(answer)
        pieces = fs.far.read_from("/x")
        assert not any(next(pieces))
        began = time.monotonic()
        pieces.close()  # it does not wait for what does not come
        assert time.monotonic() - began < 30
        answered.result(10).close()


def test_a_server_that_ends_does_not_wait_for_a_silent_long_body(start: Callable[..., Store]) -> None:
    one = start()
    with socket.create_connection((one.host, one.port), timeout=10) as peer:
        peer.sendall(_head("/long", one.token, 9_000_000) + bytes(5_000_000))
        until(lambda: os.listdir(one.room / ".serai/drafts"), "the draft is begun")
        ending = threading.Thread(target=one.stop)
        ending.start()
        peer.sendall(bytes(4_000_000))  # what is under way may finish
        assert b"201" in peer.recv(100)
        ending.join(60)
    assert not ending.is_alive()
    assert (one.room / "long").stat().st_size == 9_000_000


def test_a_long_body_beyond_the_space_is_refused_and_told(start: Callable[..., Store]) -> None:
    small = start("--size", "5MB")
    fs = StoreFileSystem(small.host, small.port)
    with pytest.raises((OSError, SeraiError), match=r"space|room|free"):
        fs.pipe_file("/big", bytes(8_000_000))
    assert not fs.exists("/big")


def test_a_file_of_a_known_size_is_sent_in_one(fs: StoreFileSystem, store: Store, tmp_path: Path) -> None:
    data = os.urandom(9_000_000)
    pieces: list[bytes | memoryview] = [data[:5_000_000], memoryview(data)[5_000_000:]]
    digest = fs.write_sized("/sized", pieces, len(data))
    assert digest == hashlib.sha256(data).hexdigest()
    headers = store.curl("-I", f"{store.url}/sized")[1]
    assert "sha-256" in headers["repr-digest"]  # it was asked for
    assert fs.far.send("/sized2", iter(pieces), len(data), "w", parents=False, sha256=True).hex() == digest
    fs.far.send("/sized3", iter(pieces), len(data), "w", parents=False)
    assert "sha-256" not in store.curl("-I", f"{store.url}/sized3")[1]["repr-digest"]
    assert (store.room / "sized").read_bytes() == data
    for size in (len(data) - 1, len(data) + 1):
        with pytest.raises(OSError, match="its size changed"):
            fs.write_sized("/other", iter([data]), size)
    assert not fs.exists("/other")
    (tmp_path / "large").write_bytes(data)
    fs.put_file(f"{tmp_path}/large", "/a/b/large")
    assert fs.cat_file("/a/b/large") == data
    with pytest.raises(FileExistsError):
        fs.put_file(f"{tmp_path}/large", "/a/b/large", mode="create")


def test_bundles_and_single_files_do_not_wait_for_each_other_for_ever(store: Store) -> None:
    wire = shared_wire(Server(store.host, store.port))
    rows = [{"path": f"/many{n}", "size": 1, "sha256": hashlib.sha256(b"a").hexdigest()} for n in range(250)]
    message = bundle(rows, [b"a"] * len(rows))
    ended, statuses = threading.Event(), []

    def single() -> None:
        while not ended.is_set():
            with contextlib.closing(http.client.HTTPConnection(store.host, store.port, timeout=60)) as one:
                one.request("PUT", "/single", b"1", {"Authorization": f"Bearer {store.token}"})
                statuses.append(one.getresponse().status)

    threads = [threading.Thread(target=single, daemon=True) for _ in range(4)]
    for one in threads:
        one.start()
    try:
        end = time.monotonic() + 60
        rounds = 0
        while rounds < 4 or len(statuses) <= 4:
            assert time.monotonic() < end, "single files wait for bundles"
            rounds += 1
            told = json.loads(wire.request("POST", "/.serai/put", {}, message).data)
            assert all("etag" in row for row in told)
    finally:
        ended.set()
        for one in threads:
            one.join(60)
    assert len(statuses) > 4
    assert set(statuses) <= {201, 204}


def test_slow_long_bodies_keep_nobody_else_waiting(store: Store) -> None:
    with contextlib.ExitStack() as stack:
        for n in range(20):
            peer = stack.enter_context(socket.create_connection((store.host, store.port), timeout=10))
            peer.sendall(_head(f"/slow{n}", store.token, 50_000_000) + bytes(1000))
        until(lambda: len(os.listdir(store.room / ".serai/drafts")) >= 16, "their drafts are begun")
        with contextlib.closing(http.client.HTTPConnection(store.host, store.port, timeout=60)) as one:
            one.request("PUT", "/quick", b"1", {"Authorization": f"Bearer {store.token}"})
            assert one.getresponse().status == 201
