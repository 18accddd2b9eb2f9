"""A file at its origin: parts and wholes, who is believed, what is shown to whom, and what is said when it fails."""

from __future__ import annotations

import errno
import os
import socket
import threading
import time
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

import pytest
from tests.reading.origin_server import OriginServer

from serai.travel.reading import direct as of_direct
from serai.travel.reading import web
from serai.travel.reading.direct import UNREACHED_S, Direct, Unreached
from serai.travel.reading.patience import Pace

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

DATA = os.urandom(700_000)
SIZE = len(DATA)
SECRET = "X-Signature=sesame"  # noqa: S105 - of a server on loopback


@pytest.fixture(autouse=True)
def _no_connection_is_kept() -> Iterator[None]:
    """All sources of a process share what they connect to, for as long as it lives."""
    yield
    with of_direct._lock:
        servers = list(of_direct._servers.values())
        of_direct._servers.clear()
    for one in servers:
        one.close()


@pytest.fixture
def plain() -> Iterator[OriginServer]:
    one = OriginServer(DATA)
    yield one
    one.close()


@pytest.fixture
def secure(tmp_path: Path) -> Iterator[OriginServer]:
    one = OriginServer(DATA, tmp_path / "server.pem")
    yield one
    one.close()


def direct(server: OriginServer, memory: Unreached | None = None, **more: Any) -> tuple[Direct, list[dict[str, Any]]]:
    """A source, and the grants that it is given when it asks, the last of them again and again."""
    grant = {"url": f"{server.url}/x?{SECRET}", "fingerprint": server.fingerprint, "etag": '"v1"', **more}
    renewals = [grant]
    return Direct("https far", SIZE, lambda _anew: renewals.pop(0) if len(renewals) > 1 else renewals[0], grant,
                  memory=memory, silent_s=2.0), renewals  # fmt: skip


def read(one: Direct, start: int = 0, length: int = SIZE) -> bytes:
    return b"".join(one.read("/", "", start, length))


@pytest.mark.parametrize("kind", ["plain", "secure"])
def test_wholes_and_parts(kind: str, request: pytest.FixtureRequest) -> None:
    server = request.getfixturevalue(kind)
    one, _ = direct(server)
    assert read(one) == DATA
    for start, length in ((0, 10), (5, 100_000), (SIZE - 7, 7)):
        assert read(one, start, length) == DATA[start : start + length]
    assert one.stat("/").size == SIZE
    assert "Range" not in server.requests[0][1]
    assert server.requests[1][1]["Range"] == "bytes=0-9"


def test_a_certificate_that_is_not_known_is_told_nothing(secure: OriginServer, tmp_path: Path) -> None:
    for pin in ("0" * 64, ""):  # another one's; or an authority's that is not trusted here
        one, _ = direct(secure, Unreached(str(tmp_path / "memory")), fingerprint=pin, token="t")  # noqa: S106 - of nobody
        with pytest.raises(OSError, match="certificate") as caught:
            read(one)
        assert caught.value.errno == errno.EACCES
    assert secure.requests == []


def test_an_authority_that_is_trusted_is_enough(
    secure: OriginServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path / "server.pem"))
    one, _ = direct(secure, url=f"https://localhost:{secure.port}/x", fingerprint="")
    assert read(one, 1, 10) == DATA[1:11]
    one, _ = direct(secure, url=f"https://127.0.0.2:{secure.port}/x", fingerprint="")  # another name than its own
    with pytest.raises(OSError, match=r"certificate|refused"):
        read(one)


def test_what_is_refused_is_asked_for_again_with_another_grant(secure: OriginServer) -> None:
    secure.token = "new"  # noqa: S105 - of nobody
    one, renewals = direct(secure, token="old")  # noqa: S106 - the same
    renewals.insert(0, {**renewals[0], "token": "new"})
    assert read(one, 0, 1000) == DATA[:1000]
    assert [headers["Authorization"] for _, headers in secure.requests] == ["Bearer old", "Bearer new"]
    secure.token = "none"  # noqa: S105 - the same
    with pytest.raises(PermissionError, match="it refuses this node"):
        read(one, 0, 1000)


def test_a_grant_that_is_about_to_expire_is_renewed_first(secure: OriginServer) -> None:
    secure.token = "new"  # noqa: S105 - of nobody
    one, renewals = direct(secure, token="old", life_s=5.0)  # noqa: S106 - the same
    renewals.insert(0, {**renewals[0], "token": "new", "life_s": 500.0})
    for at in range(0, 100_000, 50_000):
        assert read(one, at, 1000) == DATA[at : at + 1000]
    assert {headers["Authorization"] for _, headers in secure.requests} == {"Bearer new"}
    assert len(renewals) == 1


def test_a_token_goes_nowhere_without_tls_nor_to_where_it_is_led(secure: OriginServer, plain: OriginServer) -> None:
    one, _ = direct(plain, token="t")  # noqa: S106 - of nobody
    with pytest.raises(PermissionError, match="TLS"):
        read(one)
    secure.answers = [(302, {"Location": f"{plain.url}/y"})]
    one, _ = direct(secure, token="t")  # noqa: S106 - of nobody
    with pytest.raises(OSError, match="302"):
        read(one)
    secure.answers = [(302, {"Location": f"{plain.url}/y"})]
    one, _ = direct(secure)
    with pytest.raises(PermissionError, match="leads to where nobody is followed"):
        read(one)
    assert plain.requests == []


@pytest.mark.parametrize(
    ("change", "number"),
    [("etag", errno.ESTALE), ("size", errno.ESTALE), ("gone", errno.ENOENT), ("no ranges", errno.EOPNOTSUPP)],
)
def test_another_version_is_noticed_and_says_nothing_of_the_origin(
    plain: OriginServer, tmp_path: Path, change: str, number: int
) -> None:
    memory = Unreached(str(tmp_path / "memory"))
    one, _ = direct(plain, memory)
    assert read(one, 0, 10) == DATA[:10]
    if change == "etag":
        plain.etag = '"v2"'
    elif change == "size":
        plain.data += b"more"
    elif change == "gone":
        plain.answers = [404]
    else:
        plain.ranges = False
    with pytest.raises(OSError, match="https far: ") as caught:
        read(one, 10, 10)
    assert caught.value.errno == number
    assert memory.why("https far") == ""


def test_an_origin_that_is_not_to_be_had_is_remembered_for_a_while(
    plain: OriginServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    memory = Unreached(str(tmp_path / "memory"))
    one, _ = direct(plain, memory)
    plain.answers = [503]
    with pytest.raises(OSError, match="503"):
        read(one)
    assert "503" in memory.why("https far")
    with pytest.raises(OSError, match="503"):
        one.stat("/")
    assert memory.why("https near") == ""
    now = time.time()
    monkeypatch.setattr(time, "time", lambda: now + UNREACHED_S + 1)
    assert memory.why("https far") == ""
    assert one.stat("/").size == SIZE


def test_one_that_says_nothing_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        grant = {"url": f"http://127.0.0.1:{silent.getsockname()[1]}/x"}
        one = Direct("https far", SIZE, lambda _anew: grant, grant, silent_s=0.3)
        began = time.monotonic()
        with pytest.raises(TimeoutError, match="said nothing"):
            read(one)
        assert time.monotonic() - began < 20.0  # who is silent is so for ever
    monkeypatch.setattr(web, "CONNECT_S", 1.2)
    began = time.monotonic()
    grant = {"url": "http://10.255.255.1:9/x"}  # nobody answers at all, or the network says so at once
    with pytest.raises(OSError, match="https far"):
        read(Direct("https far", SIZE, lambda _anew: grant, grant))
    assert time.monotonic() - began < 20.0  # the system itself tries for two minutes


@pytest.mark.parametrize("mood", ["trickle", "slow head"])
@pytest.mark.parametrize("kept", [False, True])
def test_one_that_gives_a_byte_now_and_then_is_as_good_as_silent(
    secure: OriginServer, tmp_path: Path, mood: str, kept: bool
) -> None:
    memory = Unreached(str(tmp_path / "memory"))
    grant = {"url": f"{secure.url}/x", "fingerprint": secure.fingerprint}
    one = Direct("https far", SIZE, lambda _anew: grant, grant, memory=memory, silent_s=0.4)
    if kept:
        assert read(one, 0, 100) == DATA[:100]
    secure.answers = [mood, mood]
    began = time.monotonic()
    with pytest.raises(TimeoutError, match="as good as nothing"):
        read(one)
    assert 0.8 < time.monotonic() - began < 5.0
    assert len(secure.requests) == (2 if kept else 1)  # and it is not asked again
    assert "as good as nothing" in memory.why("https far")


def test_pace_is_judged_by_the_time_that_was_waited_and_over_whole_windows() -> None:
    pace = Pace(30.0)
    for _ in range(1000):
        pace.note(2_000, 1.0)  # slow, and no more than that
    pace.note(1, 29.0)  # what came in this window before is enough for all of it
    pace.note(1, 29.0)
    pace.note(1, 29.0)
    with pytest.raises(TimeoutError, match="it gave 3 bytes in 87 s"):
        pace.note(1, 29.0)
    patient = Pace(30.0)
    for _ in range(10_000):
        patient.note(1, 0.001)  # who takes it is slow: nobody waited


@pytest.mark.parametrize("url", ["http://127.0.0.1:1/x", "http://127.0.0.1:99999/x", "http://[::1/x", "http://a b/ü"])
def test_no_error_says_what_is_secret(url: str, tmp_path: Path, plain: OriginServer) -> None:
    for where in (f"{url}?{SECRET}", f"{plain.url}/x?{SECRET}"):
        plain.answers = [403, 403]
        one = Direct("https far", SIZE, lambda _anew: {}, {"url": where}, memory=Unreached(str(tmp_path / "memory")))
        with pytest.raises(OSError, match="https far") as caught:
            read(one)
        assert "sesame" not in repr(caught.value) + str(caught.value) + str(caught.value.__cause__)
    assert not any("sesame" in path.read_text() for path in (tmp_path / "memory").glob("*"))
    server = web.Server("127.0.0.1", plain.port)
    plain.answers = [403]
    with pytest.raises(OSError, match="Permission") as caught:
        server.ask("GET", f"/x?{SECRET}")
    assert "sesame" not in str(caught.value)
    server.close()


def test_a_connection_is_kept_and_one_that_was_closed_meanwhile_is_made_anew(secure: OriginServer) -> None:
    one, _ = direct(secure)
    for at in range(5):
        assert read(one, at, 10) == DATA[at : at + 10]
    assert len(secure.peers) == 1
    secure.answers = ["last"]
    assert read(one, 7, 10) == DATA[7:17]
    assert read(one, 8, 10) == DATA[8:18]
    assert len(secure.peers) == 2


def test_the_usual_port_is_not_named_since_signatures_are_over_the_name(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[bytes] = []

    def connected(_host: str, _port: int, _abroad: object) -> socket.socket:
        ours, theirs = socket.socketpair()

        def answer() -> None:
            with theirs:
                asked.append(theirs.recv(4096))
                theirs.sendall(b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\nConnection: close\r\n\r\n")

        threading.Thread(target=answer, daemon=True).start()
        return ours

    monkeypatch.setattr(web, "_connected", connected)
    monkeypatch.setattr(web.Server, "_wrapped", lambda _self, plain: plain)
    for url, host in (("https://b.s3.example.org/x", b"b.s3.example.org"), ("https://h.lab:9000/x", b"h.lab:9000")):
        with pytest.raises(FileNotFoundError):
            read(Direct("https far", SIZE, lambda _anew: {}, {"url": url}))
        assert b"\r\nHost: " + host + b"\r\n" in asked.pop()


@pytest.mark.parametrize(
    "host",
    ["127.0.0.1", "localhost", "127.1", "2130706433", "0.0.0.0", "[::1]", "[::ffff:127.0.0.1]"],  # noqa: S104 - asked
)
def test_nobody_is_led_to_this_very_host_whatever_it_is_called(plain: OriginServer, host: str) -> None:
    plain.answers = [(302, {"Location": f"http://{host}:{plain.port}/inside"})]
    one, _ = direct(plain)
    with pytest.raises(PermissionError, match="leads to where nobody is followed"):
        read(one)
    assert [path.partition("?")[0] for path, _ in plain.requests] == ["/x"]


def test_connections_are_kept_to_so_many_servers_and_no_more(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(of_direct, "MOST_SERVERS", 3)
    monkeypatch.setattr(of_direct, "_servers", {})
    parts = [urlsplit(f"https://r{n}.example.org/x") for n in range(10)]
    first = of_direct._server(parts[0], "", 1.0, abroad=False)
    for one in parts:
        of_direct._server(one, "", 1.0, abroad=False)
        assert of_direct._server(parts[0], "", 1.0, abroad=False) is first  # it is in use all the time
    assert len(of_direct._servers) == 3
