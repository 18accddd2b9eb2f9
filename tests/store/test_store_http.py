"""A real appliance over HTTP: transfers, conditions, hostile requests, and how it ends."""

from __future__ import annotations

import base64
import contextlib
import hashlib
import http.client
import json
import os
import random
import signal
import socket
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any
from xml.etree import ElementTree as ET

import pytest
import xxhash
from tests.store.conftest import until

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from tests.store.conftest import Store

DATA = random.Random(1).randbytes(3_000_003)  # noqa: S311 - bytes to compare


def ask(
    store: Store, method: str, path: str, body: bytes | None = None, **headers: str
) -> tuple[int, dict[str, str], bytes]:
    connection = http.client.HTTPConnection("127.0.0.1", store.port, timeout=90)
    said = {"Authorization": f"Bearer {store.token}"}
    said |= {name.replace("_", "-"): value for name, value in headers.items()}
    connection.request(method, path, body, said)
    response = connection.getresponse()
    found = response.status, {name.lower(): value for name, value in response.getheaders()}, response.read()
    connection.close()
    return found


def raw(store: Store, data: bytes, deadline_s: float = 40.0) -> bytes:
    with socket.create_connection(("127.0.0.1", store.port), timeout=deadline_s) as peer:
        found = b""
        with contextlib.suppress(ConnectionError):  # it has answered, and takes no more
            peer.sendall(data)
        with contextlib.suppress(TimeoutError, ConnectionError):
            while piece := peer.recv(65536):
                found += piece
    return found


@pytest.mark.parametrize("size", [0, 1, 100_000, 262_144, 262_145, 3_000_003])
def test_what_is_put_is_got_with_its_digest(store: Store, size: int) -> None:
    data = DATA[:size]
    status, headers, _ = ask(store, "PUT", "/size", data)
    assert status in {201, 204}
    own = f"xxh3-128=:{base64.b64encode(xxhash.xxh3_128(data).digest()).decode()}:"
    assert headers["repr-digest"] == own
    status, headers, body = ask(store, "GET", "/size")
    assert (status, body, headers["repr-digest"]) == (200, data, own)
    status, head, body = ask(store, "HEAD", "/size")
    assert (status, body, head["content-length"], head["etag"]) == (200, b"", str(size), headers["etag"])


@pytest.mark.parametrize("size", [0, 262_144, 3_000_003])
@pytest.mark.parametrize("when", ["put", "get", "head", "said", "older"])
def test_a_sha256_is_taken_where_it_is_asked_for_and_kept(store: Store, size: int, when: str) -> None:
    data, name = DATA[:size], f"/sha-{when}-{size}"
    sha256 = base64.b64encode(hashlib.sha256(data).digest()).decode()
    said = f"xxh3-128=:{base64.b64encode(xxhash.xxh3_128(data).digest()).decode()}:, sha-256=:{sha256}:"
    how: dict[str, Any] = {
        "put": {"Want_Repr_Digest": "md5=9, sha-256=1"},
        "said": {"Repr_Digest": f"sha-256=:{sha256}:"},
    }
    status, headers, _ = ask(store, "PUT", name, data, **how.get(when, {"Want_Repr_Digest": "sha-256=0"}))
    assert (status, headers["repr-digest"] == said) == (201, when in how)
    if when not in how:
        asked: dict[str, Any] = (
            {"Want_Digest": "SHA-256;q=0.5"} if when == "older" else {"Want_Repr_Digest": "sha-256=3"}
        )
        status, headers, body = ask(store, "HEAD" if when == "head" else "GET", name, **asked)
        assert (status, headers["repr-digest"], headers["digest"]) == (200, said, f"SHA-256={sha256}")
        assert body == (b"" if when == "head" else data)
    assert ask(store, "GET", name)[1]["repr-digest"] == said  # it is known from then on
    assert ask(store, "GET", name, If_None_Match="*")[1]["repr-digest"] == said


def now_of(store: Store) -> int:
    """The time that a file is given which is changed now: it goes in steps of some milliseconds."""
    tick = store.room.parent / "tick"
    tick.touch()
    return tick.stat().st_ctime_ns


def test_digests_hold_for_what_came_and_for_nothing_else(store: Store) -> None:
    ask(store, "PUT", "/held", b"what came", Want_Repr_Digest="sha-256=1")
    told = ask(store, "GET", "/held")[1]["repr-digest"]
    assert ask(store, "MOVE", "/held", Destination="/moved")[0] == 201
    assert ask(store, "COPY", "/moved", Destination="/copied")[0] == 201
    assert [ask(store, "GET", name)[1]["repr-digest"] for name in ("/moved", "/copied")] == [told, told]
    path = store.room / "moved"
    before = path.stat()
    until(lambda: now_of(store) > before.st_ctime_ns, "what is changed now has another time")
    path.write_bytes(b"what CAME")  # in place, as long, and with its time put back
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
    after = path.stat()
    assert (before.st_size, before.st_mtime_ns, before.st_ino) == (after.st_size, after.st_mtime_ns, after.st_ino)
    status, headers, body = ask(store, "GET", "/moved")
    assert (status, body, "repr-digest" in headers) == (200, b"what CAME", False)
    other = base64.b64encode(hashlib.sha256(b"what CAME").digest()).decode()
    for again in range(2):
        asked: dict[str, Any] = {} if again else {"Want_Repr_Digest": "sha-256=1"}
        assert ask(store, "GET", "/moved", **asked)[1]["repr-digest"] == f"sha-256=:{other}:"


@pytest.mark.parametrize(
    ("wanted", "start", "stop"),
    [("0-9", 0, 10), ("1000000-", 1_000_000, None), ("-5", -5, None), ("5-99999999", 5, None), ("7-7", 7, 8)],
)
def test_ranges(store: Store, wanted: str, start: int, stop: int | None) -> None:
    ask(store, "PUT", "/ranged", DATA)
    status, headers, body = ask(store, "GET", "/ranged", Range=f"bytes={wanted}")
    assert (status, body) == (206, DATA[start:stop])
    first = start % len(DATA)
    assert headers["content-range"] == f"bytes {first}-{first + len(body) - 1}/{len(DATA)}"
    old = ask(store, "GET", "/ranged", Range=f"bytes={wanted}", If_Range='"another"')
    assert (old[0], old[2]) == (200, DATA)


@pytest.mark.parametrize(
    ("wanted", "status"), [("3000003-", 416), ("x", 200), ("9-1", 200), ("0-1,5-6", 200), ("-", 200), ("-0", 416)]
)
def test_ranges_that_are_none(store: Store, wanted: str, status: int) -> None:
    ask(store, "PUT", "/ranged", DATA)
    assert ask(store, "GET", "/ranged", Range=f"bytes={wanted}")[0] == status


def test_conditions(store: Store) -> None:
    etag = ask(store, "PUT", "/if", b"one")[1]["etag"]
    changed = ask(store, "HEAD", "/if")[1]["last-modified"]
    assert ask(store, "GET", "/if", If_None_Match=etag)[0] == 304
    assert ask(store, "GET", "/if", If_Modified_Since=changed)[0] == 304
    assert ask(store, "GET", "/if", If_Match='"x"')[0] == 412
    assert ask(store, "PUT", "/if", b"two", If_None_Match="*")[0] == 412
    assert ask(store, "PUT", "/if", b"two", If_Match='"x"')[0] == 412
    assert ask(store, "DELETE", "/if", If_Match='"x"')[0] == 412
    assert ask(store, "PUT", "/if", b"two", If_Match=etag)[0] == 204
    assert ask(store, "PUT", "/if", b"three", If_Match=etag)[0] == 412
    assert ask(store, "PUT", "/nothing", b"", If_Match="*")[0] == 412
    assert ask(store, "GET", "/if")[2] == b"two"


def test_a_digest_that_is_another_is_refused(store: Store) -> None:
    wrong = "sha-256=:" + base64.b64encode(hashlib.sha256(b"x").digest()).decode() + ":"
    assert ask(store, "PUT", "/digested", b"y", Repr_Digest=wrong)[0] == 409
    assert ask(store, "GET", "/digested")[0] == 404
    assert ask(store, "PUT", "/digested", b"x", Repr_Digest=wrong)[0] == 201
    own = "xxh3-128=:" + base64.b64encode(xxhash.xxh3_128(b"x").digest()).decode() + ":"
    assert ask(store, "PUT", "/digested", b"y", Repr_Digest=f"{wrong}, {own}")[0] == 409
    assert ask(store, "PUT", "/digested", b"y", Repr_Digest=own)[0] == 409
    assert ask(store, "PUT", "/digested", b"y", Repr_Digest="xxh3-128=:AAAA:")[0] == 400
    assert ask(store, "PUT", "/digested", b"y", Repr_Digest="sha-512=:AAAA:")[0] == 204  # one that is not known
    assert ask(store, "PUT", "/digested", b"x", Repr_Digest=f"{wrong}, {own}")[0] == 204


def test_webdavs_own_methods(store: Store) -> None:
    assert ask(store, "MKCOL", "/dav")[0] == 201
    assert ask(store, "MKCOL", "/dav")[0] == 405
    assert ask(store, "MKCOL", "/no/dav")[0] == 409
    assert ask(store, "MKCOL", "/dav2", b"<x/>")[0] == 415
    assert ask(store, "PUT", "/no/file", b"")[0] == 409
    assert ask(store, "PUT", "/dav", b"")[0] == 409
    name = "/dav/%C3%A9%20%26%3C%22%23%25"
    assert ask(store, "PUT", name, b"it")[0] == 201
    where = f"http://127.0.0.1:{store.port}/dav/copy"
    assert ask(store, "COPY", name, Destination=where)[0] == 201
    assert ask(store, "COPY", name, Destination=where, Overwrite="F")[0] == 412
    assert ask(store, "COPY", name, Destination=where)[0] == 204
    assert ask(store, "MOVE", "/dav/none", Destination=where)[0] == 404
    assert ask(store, "COPY", name, Destination="http://elsewhere/x")[0] == 400
    assert ask(store, "COPY", name, Destination="/../x")[0] == 400
    assert ask(store, "COPY", "/dav", Destination="/dav3")[0] == 201
    assert ask(store, "COPY", "/dav", Destination="/dav/in")[0] == 403
    assert ask(store, "MOVE", "/dav", Destination="/dav/in")[0] == 409
    assert ask(store, "MOVE", "/dav", Destination="/dav3")[0] == 204
    assert ask(store, "GET", "/dav")[0] == 404
    status, headers, body = ask(store, "PROPFIND", "/dav3", Depth="1")
    assert status == 207
    assert headers["content-type"].startswith("application/xml")
    found = [one.text for one in ET.fromstring(body).iter("{DAV:}href")]  # noqa: S314 - what our own server made
    assert sorted(map(str, found)) == ["/dav3/", "/dav3/%C3%A9%20%26%3C%22%23%25", "/dav3/copy"]
    assert ask(store, "PROPFIND", "/dav3", Depth="infinity")[0] == 403
    assert ask(store, "DELETE", "/dav3")[0] == 204
    assert ask(store, "DELETE", "/dav3")[0] == 404
    assert ask(store, "DELETE", "/")[0] == 403
    assert ask(store, "OPTIONS", "/")[1]["dav"] == "1"
    assert ask(store, "LOCK", "/x")[0] == 405


def test_propfind_answers_what_is_asked_and_takes_no_entities(store: Store) -> None:
    ask(store, "PUT", "/props", b"12345")
    body = b'<a:propfind xmlns:a="DAV:"><a:prop><a:getcontentlength/><b:x xmlns:b="urn:b"/></a:prop></a:propfind>'
    status, _, found = ask(store, "PROPFIND", "/props", body, Depth="0")
    tree = ET.fromstring(found)  # noqa: S314 - what our own server made
    assert status == 207
    assert [one.text for one in tree.iter("{DAV:}getcontentlength")] == ["5"]
    assert [one.text for one in tree.iter("{DAV:}status")] == ["HTTP/1.1 200 OK", "HTTP/1.1 404 Not Found"]
    assert list(tree.iter("{urn:b}x"))
    bomb = b'<!DOCTYPE x [<!ENTITY a "aaaa"><!ENTITY b "&a;&a;">]><propfind xmlns="DAV:"><allprop/></propfind>'
    for bad in (bomb, bomb.decode().encode("utf-16"), b"<x", b"<a>" * 20 + b"</a>" * 20, b" " * 70_000 + b"<a/>"):
        assert ask(store, "PROPFIND", "/props", bad, Depth="0")[0] == 400


HOSTILE = [
    "/../../etc/passwd", "/%2e%2e/%2e%2e/etc/passwd", "/..%2f..%2fetc/passwd", "//etc/passwd/../../../etc/passwd",
    "/%00", "/a%00b", "/out/secret", "/.serai/access.json", "/.serai/cert.pem", "/%2eserai/access.json",
    "/.SERAI/access.json", "/x/../.serai/access.json", "/%", "/%zz", "/out", "/.serai",
]  # fmt: skip


@pytest.mark.parametrize("method", ["GET", "PUT", "DELETE", "PROPFIND", "MKCOL", "COPY", "MOVE", "PATCH"])
@pytest.mark.parametrize("target", HOSTILE)
def test_hostile_paths_are_refused(store: Store, method: str, target: str) -> None:
    secret = store.room.parent / "secret"
    secret.write_text("secret")
    with contextlib.suppress(FileExistsError):
        os.symlink(store.room.parent, store.room / "out")
    before = sorted(os.listdir(store.room.parent))
    if method == "DELETE" and target == "/out":
        return  # the link itself may be removed
    extra = "Destination: /taken\r\nUpload-Offset: 0\r\nDepth: 1\r\nContent-Length: 0\r\nConnection: close\r\n"
    head = f"{method} {target} HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {store.token}\r\n{extra}\r\n"
    answer = raw(store, head.encode())
    assert answer.split(b" ", 2)[1][:1] == b"4", answer[:200]
    assert b"secret" not in answer
    assert b"root:" not in answer
    assert secret.read_text() == "secret"
    assert sorted(os.listdir(store.room.parent)) == before
    assert not (store.room / "taken").exists()


def test_who_has_no_token_or_few_rights_gets_little(store: Store) -> None:
    ask(store, "MKCOL", "/cms")
    ask(store, "PUT", "/cms/data", b"it")
    ask(store, "PUT", "/other", b"it")
    reader = store.run("token", str(store.room), "--user", "ann", "--path", "/cms", "--rights", "r")
    assert store.curl(f"{store.url}/cms/data", token=reader)[::2] == (200, b"it")
    for words in (
        [f"{store.url}/other"],
        [f"{store.url}/"],
        ["-X", "DELETE", f"{store.url}/cms/data"],
        ["-T", "/etc/hostname", f"{store.url}/cms/new"],
        ["-X", "MOVE", "-H", "Destination: /cms/b", f"{store.url}/cms/data"],
        ["-X", "COPY", "-H", "Destination: /cms/b", f"{store.url}/cms/data"],
        ["-X", "POST", "-d", '{"do": "stat", "path": "/other"}', f"{store.url}/.serai/files"],
        ["-X", "POST", "-d", '{"do": "remove", "paths": ["/cms/data"]}', f"{store.url}/.serai/files"],
        ["-X", "POST", "-d", '{"size": 5, "life_s": 5}', f"{store.url}/.serai/lots"],
    ):
        assert store.curl(*words, token=reader)[0] == 403, words
    for token in ("", "sst_x", reader[:-2]):
        status, headers, _ = store.curl(f"{store.url}/cms/data", token=token)
        assert (status, headers["www-authenticate"][:5]) == (401, "Basic")
    store.run("revoke", str(store.room), "ann")
    assert store.curl(f"{store.url}/cms/data", token=reader)[0] == 401


def test_another_sites_page_changes_nothing(store: Store) -> None:
    assert ask(store, "PUT", "/page", b"x", Origin="http://evil.example")[0] == 403
    assert ask(store, "PUT", "/page", b"x", Sec_Fetch_Site="cross-site")[0] == 403
    assert ask(store, "PUT", "/page", b"x", Origin=f"http://127.0.0.1:{store.port}")[0] == 201


def test_many_puts_of_one_name_leave_one_of_them_whole(store: Store) -> None:
    bodies = [bytes([n]) * 700_000 for n in range(12)]
    seen: list[bytes] = []
    done = threading.Event()

    def look() -> None:
        last = False
        while not last:
            last = done.is_set()  # one look at least comes when all is written
            status, _, body = ask(store, "GET", "/same")
            if status == 200:
                seen.append(body)

    looking = threading.Thread(target=look)
    looking.start()
    with ThreadPoolExecutor(6) as pool:
        codes = list(pool.map(lambda body: ask(store, "PUT", "/same", body)[0], bodies * 3))
    done.set()
    looking.join(90)
    assert set(codes) <= {201, 204}
    assert seen
    assert set(seen) <= set(bodies)
    exclusive = list(
        ThreadPoolExecutor(6).map(lambda body: ask(store, "PUT", "/only", body, If_None_Match="*")[0], bodies)
    )
    assert sorted(exclusive) == [201] + [412] * 11


def test_a_body_that_does_not_end_leaves_nothing(store: Store) -> None:
    head = f"PUT /half HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {store.token}\r\n"
    for framing in ("Content-Length: 5000000\r\n\r\n", "Transfer-Encoding: chunked\r\n\r\nF4240\r\n"):
        with socket.create_connection(("127.0.0.1", store.port)) as peer:
            peer.sendall((head + framing).encode() + b"x" * 1_000_000)
            until(lambda: os.listdir(store.room / ".serai/drafts"), "it is being written")
        until(lambda: not os.listdir(store.room / ".serai/drafts"), "the draft is removed")
        assert ask(store, "GET", "/half")[0] == 404


def test_killed_in_the_middle_of_a_put_nothing_is_half(start: Callable[..., Store]) -> None:
    store = start()
    ask(store, "PUT", "/old", b"old")
    head = f"PUT /old HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {store.token}\r\nContent-Length: 9000000\r\n\r\n"
    with socket.create_connection(("127.0.0.1", store.port)) as peer:
        peer.sendall(head.encode() + b"x" * 8_000_000)
        draft = until(lambda: os.listdir(store.room / ".serai/drafts"), "it is being written")
        store.stop(signal.SIGKILL)
    assert os.listdir(store.room / ".serai/drafts") == draft
    assert (store.room / "old").read_bytes() == b"old"
    store.start()
    assert os.listdir(store.room / ".serai/drafts") == []
    assert sorted(os.listdir(store.room)) == [".serai", "old"]
    assert ask(store, "GET", "/old")[2] == b"old"


def test_told_to_end_it_lets_a_transfer_finish(start: Callable[..., Store]) -> None:
    store = start()
    head = f"PUT /last HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {store.token}\r\nContent-Length: 2000000\r\n\r\n"
    address = ("127.0.0.1", store.port)
    with socket.create_connection(address), socket.create_connection(address) as peer:  # the first one stays idle
        peer.sendall(head.encode() + b"x" * 1_500_000)
        until(lambda: os.listdir(store.room / ".serai/drafts"), "it is being written")
        store.process.send_signal(signal.SIGTERM)
        until(lambda: refused(store.port), "it takes no more connections")
        peer.sendall(b"x" * 500_000)
        assert peer.recv(1000).startswith(b"HTTP/1.1 201")
        assert store.stop() == 0
    assert (store.room / "last").stat().st_size == 2_000_000


def refused(port: int) -> bool:
    try:
        socket.create_connection(("127.0.0.1", port), timeout=1).close()
    except (ConnectionRefusedError, ConnectionResetError):  # reset: it was in the queue of the listener that closed
        return True
    return False


def test_a_full_store_and_a_full_lot_say_507(start: Callable[..., Store]) -> None:
    store = start("--size", "1MB")
    assert ask(store, "PUT", "/much", b"x" * 1_000_001)[0] == 507
    assert ask(store, "PUT", "/some", b"x" * 300_000)[0] == 201
    url = f"store://127.0.0.1:{store.port}"
    lot = store.run("lot", "reserve", url, "500kB", "--for", "1h")
    status, headers, _ = ask(store, "PUT", "/more", b"x" * 600_000)
    assert (status, headers["serai-errno"]) == (507, "ENOSPC")
    assert ask(store, "PUT", "/more", b"x" * 400_000, Serai_Lot=lot)[0] == 201
    assert ask(store, "PUT", "/rest", b"x" * 200_000, Serai_Lot=lot)[0] == 507
    assert ask(store, "PUT", "/rest", b"x" * 200_000, Serai_Lot="none")[0] == 404
    assert json.loads(store.run("lot", "list", url, "--json"))[0]["used"] == 400_000
    store.run("lot", "release", url, lot)
    assert ask(store, "PUT", "/rest", b"x" * 600_000)[0] == 201
    assert sorted(os.listdir(store.room)) == [".serai", "rest", "some"]
    found = json.loads(store.run("status", url, "--json"))
    assert (found["capacity"], found["stored"]) == (1_000_000, 900_000)


def test_chunked_bodies_are_counted_as_they_come(start: Callable[..., Store]) -> None:
    store = start("--size", "100MB")
    status, _, _ = store.curl("-T", "-", f"{store.url}/stream", data=DATA)
    assert status == 201
    assert (store.room / "stream").read_bytes() == DATA


def test_heads_and_connections_have_limits(store: Store) -> None:
    long = f"GET / HTTP/1.1\r\nHost: x\r\nX-Long: {'x' * 40_000}\r\n\r\n".encode()
    many = b"GET / HTTP/1.1\r\nHost: x\r\n" + b"".join(b"X-%d: y\r\n" % n for n in range(1000)) + b"\r\n"
    for bad in (long, many, b"GET /" + b"x" * 40_000 + b" HTTP/1.1\r\n\r\n", b"\x16\x03\x01 nonsense\r\n\r\n"):
        assert raw(store, bad).startswith(b"HTTP/1.") or raw(store, bad) == b""
        assert b" 400 " in raw(store, bad)[:30]
    peers = [socket.create_connection(("127.0.0.1", store.port)) for _ in range(600)]
    try:
        peers[-1].settimeout(40)
        assert peers[-1].recv(10) == b""
    finally:
        for peer in peers:
            peer.close()
    until(lambda: raw(store, b"GET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"), "it answers again")


def test_whoever_sends_nothing_is_sent_away(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The limits of time, with short ones, in this process."""
    import asyncio  # noqa: PLC0415 - only here

    from serai.clock import SystemClock  # noqa: PLC0415 - only here
    from serai.data.appliance.serve import Settings, serve  # noqa: PLC0415 - only here

    monkeypatch.setattr(asyncio.SelectorEventLoop, "add_signal_handler", lambda *_: None)
    lines: list[str] = []
    settings = Settings(str(tmp_path), adverts="", head_s=0.5, idle_s=0.5, end_s=0.5)

    async def run() -> None:
        task = asyncio.ensure_future(
            serve(settings, SystemClock(), lines.append, {"SERAI_CONFIG": str(tmp_path / "c")})
        )
        while "ready" not in lines:  # noqa: ASYNC110 - it says so in lines
            await asyncio.sleep(0.01)  # it is told in lines
        port = int(lines[2].rstrip("/").rpartition(":")[2])
        token = next((tmp_path / "c/stores").iterdir()).read_text().strip()
        auth = f"PUT /slow HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {token}\r\nContent-Length: 100\r\n\r\n"
        for data in (b"", b"GET / HT", auth.encode() + b"x", auth.encode().replace(b"100", b"9999999") + b"x" * 9999):
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
            writer.write(data)
            begun = time.monotonic()
            answer = await asyncio.wait_for(reader.read(), 40)
            assert time.monotonic() - begun < 15  # of the 20 and 60 s that it is without our limits
            assert b" 408 " in answer or not answer or b" 400 " in answer
            writer.close()
        assert os.listdir(tmp_path / ".serai/drafts") == []
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)

    asyncio.run(run())


def test_a_directory_is_served_once(store: Store) -> None:
    import subprocess  # noqa: PLC0415 - only here
    import sys  # noqa: PLC0415 - only here

    words = [sys.executable, "-m", "serai", "store", "serve", str(store.room), "--listen", "127.0.0.1:0", "--no-ad"]
    done = subprocess.run(words, capture_output=True, text=True, check=False, timeout=90)
    assert done.returncode == 2
    assert "being served already" in done.stderr


def test_a_browser_gets_a_listing(store: Store) -> None:
    ask(store, "MKCOL", "/html")
    ask(store, "PUT", "/html/%3Cscript%3E", b"")
    ask(store, "PUT", "/html/%FF", b"")
    assert ask(store, "GET", "/html")[:2][1]["location"] == "/html/"
    status, headers, body = ask(store, "GET", "/html/")
    assert (status, headers["content-type"]) == (200, "text/html; charset=utf-8")
    assert b"<script>" not in body
    assert b"%3Cscript%3E" in body
    assert b"%FF" in body
    assert len(body) < 1000
