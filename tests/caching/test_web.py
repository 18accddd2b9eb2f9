"""Objects by HTTP, for mounts of other nodes."""

from __future__ import annotations

import contextlib
import http.client
import os
import ssl
import time
from typing import TYPE_CHECKING

import pytest

from serai.access.stores.certificates import pinned_certificate
from serai.travel import peers
from serai.travel.caching import web

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

DATA = os.urandom(600_000)
TOKEN = "the-run's-token".replace("'", "")


@pytest.fixture
def client(tmp_path: Path) -> Iterator[http.client.HTTPSConnection]:
    path = tmp_path / "object"
    path.write_bytes(DATA)
    secrets = pinned_certificate("test", time.time())

    def find(name: str) -> peers.Offer | None:
        return {
            "objects/abc": peers.Offer(str(path)),
            "objects/gone": peers.Offer("/nonesuch"),
            "files/1": peers.Offer(str(path), lambda info: info.st_size == len(DATA)),
        }.get(name)

    server = peers.Server(
        peers.listening_sockets(),
        secrets["cert"],
        secrets["key"],
        str(tmp_path),
        find,
        by_http=lambda connection, stream, known: web.answer(connection, stream, TOKEN, find, known),
    )
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    with contextlib.closing(http.client.HTTPSConnection("127.0.0.1", server.port, timeout=40, context=context)) as one:
        yield one
    server.close()


def ask(
    client: http.client.HTTPSConnection, target: str, wanted: str | None = None, token: str = TOKEN, method: str = "GET"
) -> tuple[int, bytes, str | None]:
    headers = {"Authorization": f"Bearer {token}", **({"Range": wanted} if wanted else {})}
    client.request(method, target, headers=headers)
    answer = client.getresponse()
    return answer.status, answer.read(), answer.headers["Content-Range"]


@pytest.mark.parametrize(
    ("wanted", "part", "status"),
    [
        (None, DATA, 200),
        ("bytes=0-9", DATA[:10], 206),
        ("bytes=599990-", DATA[599_990:], 206),
        ("bytes=-7", DATA[-7:], 206),
        ("bytes=599990-700000", DATA[599_990:], 206),
        ("bytes=600000-", b"", 416),
        ("bytes=9-0", b"", 416),
        ("bytes=-", b"", 416),
        ("lines=1-2", b"", 416),
    ],
    ids=lambda value: value if isinstance(value, str) else "",  # bytes differ from process to process
)
def test_parts(client: http.client.HTTPSConnection, wanted: str | None, part: bytes, status: int) -> None:
    assert ask(client, "/objects/abc", wanted)[:2] == (status, part)
    assert ask(client, "/objects/abc", "bytes=5-5") == (206, DATA[5:6], "bytes 5-5/600000")  # the connection is kept


def test_strangers_and_what_is_not_there(client: http.client.HTTPSConnection) -> None:
    assert ask(client, "/objects/abc", token="another")[0] == 401  # noqa: S106 - none that opens anything
    for target in ("/objects/gone", "/objects/nonesuch", "/etc/passwd", "/../../etc/passwd", "/"):
        assert ask(client, target)[0] == 404
    assert ask(client, "/objects/abc", method="HEAD") == (200, b"", None)
    assert ask(client, "/objects/abc", method="DELETE")[0] == 405


def test_what_is_not_what_it_was_is_said_to_be_so(client: http.client.HTTPSConnection, tmp_path: Path) -> None:
    assert ask(client, "/files/1", "bytes=0-9")[:2] == (206, DATA[:10])
    (tmp_path / "object").write_bytes(b"another")
    assert ask(client, "/files/1")[0] == 412
    assert ask(client, "/objects/abc")[0] == 200  # and the connection is kept


def test_what_changes_while_it_is_sent_is_not_sent_to_its_end(
    client: http.client.HTTPSConnection, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = bytes(30_000_000)  # more than sockets hold
    monkeypatch.setattr(f"{__name__}.DATA", data)
    (tmp_path / "object").write_bytes(data)
    client.request("GET", "/files/1", headers={"Authorization": f"Bearer {TOKEN}"})
    answer = client.getresponse()
    with (tmp_path / "object").open("ab") as file:
        file.write(b"more")
    with pytest.raises(http.client.IncompleteRead):
        answer.read()


def test_what_is_no_request_ends_the_connection(client: http.client.HTTPSConnection) -> None:
    client.connect()
    client.sock.sendall(b"\0" * 100 + b"\n")
    assert client.sock.recv(100) == b""


def test_a_stranger_that_is_slow_on_purpose_keeps_its_connection_for_a_moment_only(
    client: http.client.HTTPSConnection, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(peers, "STRANGER_S", 2.0)  # in which one can also say who one is on a busy machine
    client.connect()
    client.sock.sendall(b"GET /objects/abc HTTP/1.1\r\nx: ")
    until, closed = time.monotonic() + 40, False
    client.sock.settimeout(0.1)
    while not closed and time.monotonic() < until:
        try:
            client.sock.sendall(b"y")
            closed = client.sock.recv(1) == b""
        except TimeoutError:
            continue
        except OSError:
            closed = True
    assert closed


def test_one_that_has_shown_the_token_keeps_its_connection(
    client: http.client.HTTPSConnection, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(peers, "STRANGER_S", 2.0)
    assert ask(client, "/objects/abc")[0] == 200
    here, until = client.sock.getsockname(), time.monotonic() + 2.5
    while time.monotonic() < until:
        assert ask(client, "/objects/abc", "bytes=0-9")[:2] == (206, DATA[:10])
    assert client.sock.getsockname() == here


def test_a_long_answer_to_one_that_has_shown_the_token_is_not_cut_off(
    client: http.client.HTTPSConnection, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(peers, "STRANGER_S", 2.0)
    with (tmp_path / "object").open("r+b") as file:
        file.truncate(100_000_000)  # more than sockets hold
    client.request("GET", "/objects/abc", headers={"Authorization": f"Bearer {TOKEN}"})
    answer, until, size = client.getresponse(), time.monotonic() + 3.0, 0
    while data := answer.read(1 << 20):
        size += len(data)
        while size < 2 << 20 and time.monotonic() < until:
            time.sleep(0.05)
    assert size == 100_000_000


def test_there_may_be_as_many_connections_as_it_says(
    client: http.client.HTTPSConnection, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(peers, "MOST_CONNECTIONS", 4)
    with contextlib.ExitStack() as stack:
        for _ in range(4):
            one = http.client.HTTPSConnection("127.0.0.1", client.port, timeout=40, context=client._context)  # type: ignore[attr-defined] # the same
            stack.enter_context(contextlib.closing(one))
            assert ask(one, "/objects/abc")[0] == 200
        with pytest.raises(OSError, match=r"."):
            ask(client, "/objects/abc")
