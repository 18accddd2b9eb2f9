"""TLS, fingerprints, and what is known of stores."""

from __future__ import annotations

import os
import socket
import ssl
from typing import TYPE_CHECKING

import pytest

from serai.access.filesystems.store import StoreFileSystem
from serai.access.stores import trust, wire
from serai.errors import HostKeyRefused, HostUnreachable, LoginRefused, UsageError

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from tests.store.conftest import Store

WRONG = "sha256:" + "ab" * 32


@pytest.fixture
def secure(start: Callable[..., Store]) -> Store:
    return start("--listen", "0.0.0.0:0")


def test_beyond_loopback_there_is_tls_and_a_fingerprint(secure: Store) -> None:
    assert secure.fingerprint
    with socket.create_connection(("127.0.0.1", secure.port), timeout=10) as plain:
        plain.sendall(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
        assert not plain.recv(100).startswith(b"HTTP/1.1 2")
    assert secure.curl(f"{secure.url}/", token="no")[0] == 401  # noqa: S106 - it is none
    assert (secure.room / ".serai/key.pem").stat().st_mode & 0o777 == 0o600
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    context.maximum_version = ssl.TLSVersion.TLSv1_2
    with socket.create_connection(("127.0.0.1", secure.port)) as peer, context.wrap_socket(peer) as talking:
        assert talking.version() == "TLSv1.2"


def test_files_travel_over_tls(secure: Store) -> None:
    fs = StoreFileSystem("127.0.0.1", secure.port)
    data = os.urandom(5_000_000)
    with fs.open("/big", "wb") as file:
        file.write(data)
    assert fs.cat_file("/big") == data
    assert fs.cat_file("/big", 1_000_000, 4_000_000) == data[1_000_000:4_000_000]
    url = f"store://127.0.0.1:{secure.port}/big?fingerprint=sha256:{secure.fingerprint}"
    assert StoreFileSystem._strip_protocol(url) == "/big"
    assert StoreFileSystem(**StoreFileSystem._get_kwargs_from_urls(url)).size("/big") == len(data)


def test_another_fingerprint_is_refused_before_anything_is_said(secure: Store) -> None:
    fs = StoreFileSystem("127.0.0.1", secure.port, fingerprint=WRONG)
    with pytest.raises(HostKeyRefused, match="not the one that is known"):
        fs.pipe_file("/x", b"x")
    assert not (secure.room / "x").exists()
    trust.remember("127.0.0.1", secure.port, WRONG, os.environ)
    with pytest.raises(HostKeyRefused):
        StoreFileSystem("127.0.0.1", secure.port, lot="fresh").info("/")
    url = f"store://127.0.0.1:{secure.port}"
    secure.run("trust", url, f"sha256:{secure.fingerprint}")
    assert StoreFileSystem("127.0.0.1", secure.port, lot="fresh").info("/")["type"] == "directory"


def test_a_certificate_that_nobody_knows_is_refused(secure: Store, tmp_path: Path) -> None:
    token = secure.token
    (tmp_path / "config/known_stores").unlink()
    wire.close_all()
    trust.save_token(trust.token_path("127.0.0.2", secure.port, os.environ), token)
    server = wire.Server("127.0.0.2", secure.port)
    made = wire.Wire(server, os.environ)
    assert not made.secure  # a loopback address of which nothing is known is spoken to in the clear
    with pytest.raises(HostUnreachable):
        made.json("GET", "/.serai/status")
    name = socket.gethostname()
    try:
        socket.getaddrinfo(name, secure.port)
    except OSError:
        return
    with pytest.raises((HostKeyRefused, HostUnreachable)):
        wire.Wire(wire.Server(name, secure.port), os.environ).json("GET", "/.serai/status")


def test_given_certificates_are_used(start: Callable[..., Store], secure: Store) -> None:
    cert, key = secure.room / ".serai/cert.pem", secure.room / ".serai/key.pem"
    other = start("--cert", str(cert), "--key", str(key), room="other")
    assert other.fingerprint == secure.fingerprint
    assert StoreFileSystem("127.0.0.1", other.port).ls("/") == []


def test_a_token_that_others_may_read_or_that_is_none_is_refused(store: Store, tmp_path: Path) -> None:
    path = tmp_path / "token"
    trust.save_token(str(path), store.token)
    assert StoreFileSystem("127.0.0.1", store.port, token_file=str(path)).exists("/")
    path.chmod(0o644)
    with pytest.raises(LoginRefused, match="others may read"):
        StoreFileSystem("127.0.0.1", store.port, token_file=str(path)).ls("/")
    trust.save_token(str(tmp_path / "wrong"), "sst_0")
    with pytest.raises(LoginRefused):
        StoreFileSystem("127.0.0.1", store.port, token_file=str(tmp_path / "wrong")).ls("/")
    with pytest.raises(LoginRefused):
        StoreFileSystem("127.0.0.1", store.port, token_file=str(tmp_path / "none")).ls("/")


def test_urls() -> None:
    server, path = wire.server_of("store://lab1/a?b=%20 c")
    assert (server, path) == (wire.Server("lab1", 9094), "/a?b=%20 c")
    assert wire.server_of(f"store://[::1]:99/?fingerprint={WRONG}")[0] == wire.Server("::1", 99, "ab" * 32)
    for bad in ("store:///x", "ssh://x", "store://a:b@c/", f"store://x/?fingerprint={'a' * 66}"):
        with pytest.raises(UsageError):
            wire.server_of(bad)
