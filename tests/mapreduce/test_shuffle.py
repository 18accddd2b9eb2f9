"""Map outputs between workers: only to those of the run, and only what was registered."""

from __future__ import annotations

import io
import os
import socket
import ssl
from typing import TYPE_CHECKING

import pytest

from serai.travel.mapreduce.fetching import Fetcher, Missing
from serai.travel.peers import Gone, Peers, Server, Unreachable, listening_sockets, own_addresses

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tests.mapreduce.mrfront import certificate_and_key
else:
    from mrfront import certificate_and_key

HERE = ["127.0.0.1"]
DATA = bytes(range(256)) * 4000


@pytest.fixture(scope="module")
def own() -> dict[str, str]:
    return certificate_and_key()


@pytest.fixture
def server(tmp_path: Path, own: dict[str, str]) -> Iterator[Server]:
    path = tmp_path / "out"
    path.write_bytes(DATA)
    sockets = listening_sockets()
    server = Server(sockets, own["cert"], own["key"], str(tmp_path))
    server.register(str(path), len(DATA))
    yield server
    server.close()


def fetched(peers: Peers, port: int, path: object, start: int, size: int, addresses: list[str] | None = None) -> bytes:
    into = io.BytesIO()
    wanted = {"path": str(path), "start": start, "size": size}
    peers.fetch(HERE if addresses is None else addresses, port, wanted, into)
    return into.getvalue()


def test_ranges_come_over_one_connection(tmp_path: Path, server: Server, own: dict[str, str]) -> None:
    peers = Peers(own["cert"], own["key"], str(tmp_path))
    for start, size in ((0, 10), (5, 700_000), (len(DATA), 0), (0, len(DATA))):
        assert fetched(peers, server.port, tmp_path / "out", start, size) == DATA[start : start + size]
    assert len(server._open) <= 2  # the plain socket, and the same in TLS
    peers.close()


@pytest.mark.skipif(not os.path.exists("/proc/net/if_inet6"), reason="this system has no IPv6")
def test_both_families_are_served(tmp_path: Path, server: Server, own: dict[str, str]) -> None:
    peers = Peers(own["cert"], own["key"], str(tmp_path))
    for address in ("127.0.0.1", "::1"):
        assert fetched(peers, server.port, tmp_path / "out", 3, 4, [address]) == DATA[3:7]
    assert "127.0.0.1" not in own_addresses()
    peers.close()


def test_other_files_and_ranges_are_refused(tmp_path: Path, server: Server, own: dict[str, str]) -> None:
    (tmp_path / "secret").write_text("s")
    peers = Peers(own["cert"], own["key"], str(tmp_path))
    for path, start, size in (
        (tmp_path / "secret", 0, 1),
        (tmp_path / "." / "x" / ".." / "out", 0, 1),
        (tmp_path / "out", 1, len(DATA)),
        (tmp_path / "out", -1, 1),
    ):
        with pytest.raises(Gone, match="no such part"):
            fetched(peers, server.port, path, start, size)
    server.forget(str(tmp_path / "out"))
    with pytest.raises(Gone):
        fetched(peers, server.port, tmp_path / "out", 0, 1)
    peers.close()


def test_a_foreign_certificate_is_refused_on_both_sides(tmp_path: Path, server: Server) -> None:
    other = certificate_and_key()
    peers = Peers(other["cert"], other["key"], str(tmp_path))
    with pytest.raises(Unreachable, match="CERTIFICATE_VERIFY_FAILED"):
        fetched(peers, server.port, tmp_path / "out", 0, 1)
    with pytest.raises(Unreachable, match="before"):
        fetched(peers, server.port, tmp_path / "out", 0, 1)
    # One that trusts the server, and shows a certificate of its own, or none.
    for key in (other, None):
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
        if key is not None:
            pem = tmp_path / "pem"
            pem.write_text(key["cert"] + key["key"])
            context.load_cert_chain(pem)
        with socket.create_connection(("127.0.0.1", server.port), 5) as plain, context.wrap_socket(plain) as connection:
            assert nothing_comes(connection)


def nothing_comes(connection: socket.socket) -> bool:
    """Whether the other side ends it; TLS 1.3 tells the client of a refusal with the first answer."""
    connection.settimeout(40)
    try:
        connection.sendall(b"GET / HTTP/1.0\r\n\r\n")
        return not connection.recv(1)
    except (ssl.SSLError, ConnectionError):
        return True


def test_what_is_no_tls_is_let_go(tmp_path: Path, server: Server, own: dict[str, str]) -> None:
    with socket.create_connection(("127.0.0.1", server.port), 5) as plain:
        assert nothing_comes(plain)
    peers = Peers(own["cert"], own["key"], str(tmp_path))
    assert fetched(peers, server.port, tmp_path / "out", 0, 2) == DATA[:2]
    peers.close()


def test_a_peer_that_ended_is_asked_through_the_front_end(tmp_path: Path, server: Server, own: dict[str, str]) -> None:
    peers = Peers(own["cert"], own["key"], str(tmp_path))
    asked = []

    def call(do: str, head: dict[str, int]) -> tuple[dict[str, object], bytes]:
        asked.append(do)
        return {}, DATA[head["start"] : head["start"] + head["length"]]

    one = {"task": 4, "worker": "w", "host": "another", "addresses": HERE, "port": server.port}
    one.update(path=str(tmp_path / "out"), start=7, size=100_000)
    (tmp_path / "room").mkdir()
    fetcher = Fetcher(call, peers, str(tmp_path / "room"))
    for ended in (False, True):
        if ended:
            server.close()
            peers.close()
        (part,) = fetcher.fetch([one], lambda _: None)
        with open(part.path, "rb") as file:
            file.seek(part.start)
            assert file.read(part.size) == DATA[7:100_007]
        assert asked == ["peer.read"] * ended
    with pytest.raises(Missing, match="map 4"):
        Fetcher(lambda _do, _head: ({}, b""), peers, str(tmp_path / "room")).fetch([one], lambda _: None)
