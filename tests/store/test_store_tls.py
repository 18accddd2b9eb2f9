"""TLS, fingerprints, and what is known of stores."""

from __future__ import annotations

import os
import platform
import socket
import ssl
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

from serai.access.filesystems.store import StoreFileSystem
from serai.access.stores import trust, wire
from serai.clock import SystemClock
from serai.data.appliance.serve import Appliance, Settings
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


@pytest.mark.parametrize("host", ["127.0.0.1", "10.77.0.254", "nestore.example", "0.0.0.0"])  # noqa: S104 - of this host all
def test_it_is_known_to_its_own_user_by_the_names_that_lead_to_it(tmp_path: Path, host: str) -> None:
    appliance = Appliance(Settings(str(tmp_path), host=host), SystemClock())
    environment = {"SERAI_CONFIG": str(tmp_path / "mine")}
    names = {"127.0.0.1": ["127.0.0.1", "localhost"], "0.0.0.0": ["127.0.0.1", "localhost", platform.node()]}  # noqa: S104
    try:
        shown = dict(appliance.facts(9094)["modes"])["store"]
        assert shown == f"store://{platform.node() if host == '0.0.0.0' else host}:9094/"  # noqa: S104 - compared
        path = appliance.owner_token(9094, environment)
        for name in names.get(host, [host]):
            assert trust.read_token(trust.token_path(name, 9094, environment)) == trust.read_token(path)
            pin = trust.known_fingerprint(name, 9094, environment)
            assert pin == (None if host == "127.0.0.1" else appliance.fingerprint)
    finally:
        appliance.close()


def test_a_store_without_tls_where_one_with_tls_was_is_spoken_to_in_the_clear(tmp_path: Path) -> None:
    environment = {"SERAI_CONFIG": str(tmp_path / "mine")}
    trust.remember("elsewhere", 1, WRONG, environment)
    for tls in (True, False):
        appliance = Appliance(Settings(str(tmp_path), tls=tls), SystemClock())
        appliance.owner_token(9094, environment)
        appliance.close()
        assert (trust.known_fingerprint("127.0.0.1", 9094, environment) is not None) == tls
    assert trust.known_fingerprint("elsewhere", 1, environment) is not None


def test_what_is_said_names_the_store_and_what_to_do(
    start: Callable[..., Store], secure: Store, tmp_path: Path
) -> None:
    store = start(room="other")
    fs = StoreFileSystem("127.0.0.1", store.port, direct=False)
    for absent in (lambda: fs.info("/d/na me"), lambda: fs.cat_file("/d/na me"), lambda: fs.rm_file("/d/na me")):
        with pytest.raises(FileNotFoundError) as missing:
            absent()
        assert missing.value.filename == f"store://127.0.0.1:{store.port}/d/na me"
    words = [sys.executable, "-m", "serai", "store", "lot", "release", f"store://127.0.0.1:{store.port}", "nolot"]
    refused = subprocess.run(words, capture_output=True, text=True, check=False)
    assert refused.stderr == f"serai: store://127.0.0.1:{store.port}/: there is no lot nolot of yours\n"
    mine = store.token_file.rename(tmp_path / "mine")
    with pytest.raises(LoginRefused, match=f"wants a token, and there is none in {store.token_file}"):
        fs.info("/")
    mine.rename(store.token_file)
    path = tmp_path / "token"
    trust.save_token(str(path), "sst_0")
    with pytest.raises(LoginRefused, match=f"refuses the token in {path}: it is wrong, revoked or has expired"):
        StoreFileSystem("127.0.0.1", store.port, token_file=str(path), direct=False).info("/")
    with socket.create_server(("127.0.0.1", 0)) as listening:
        port = listening.getsockname()[1]
    with pytest.raises(HostUnreachable, match=r"the store does not answer: .*Connection refused") as down:
        StoreFileSystem("127.0.0.1", port).info("/")
    assert down.value.host == f"127.0.0.1:{port}"
    assert "serai store serve" in str(down.value.hint)
    trust.forget("127.0.0.1", secure.port, os.environ)
    wire.close_all()
    with pytest.raises(HostUnreachable) as mute:
        wire.Wire(wire.Server("127.0.0.1", secure.port), os.environ).json("GET", "/.serai/status")
    assert "serai store trust" in str(mute.value.hint)


def test_urls() -> None:
    server, path = wire.server_of("store://lab1/a?b=%20 c")
    assert (server, path) == (wire.Server("lab1", 9094), "/a?b=%20 c")
    assert wire.server_of(f"store://[::1]:99/?fingerprint={WRONG}")[0] == wire.Server("::1", 99, "ab" * 32)
    for bad in ("store:///x", "ssh://x", "store://a:b@c/", f"store://x/?fingerprint={'a' * 66}"):
        with pytest.raises(UsageError):
            wire.server_of(bad)
