"""Sources over a network: through the front end's gateway, from a peer's cache, and one after the other."""

from __future__ import annotations

import contextlib
import datetime as dt
import hashlib
import http.server
import random
import socket
import ssl
import threading
from typing import TYPE_CHECKING, Any

import pytest
from fsspec.implementations.memory import MemoryFileSystem
from tests.reading.origin_server import OriginServer

from serai.access.stores.certificates import ensure_certificate, fingerprint_of_file
from serai.adverts.gateway import Gateway
from serai.data.afar import FarSource, Reach
from serai.data.copying.stores import StoreEnd
from serai.travel.mount import serving
from serai.travel.reading import web

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tests.mount.mounting import Room

DATA = random.Random(11).randbytes(3_000_000)  # noqa: S311 - the same each time
DIGEST = hashlib.blake2b(DATA, digest_size=32).hexdigest()
TOKEN = "a-token-of-the-run"  # noqa: S105 - a test's


@pytest.fixture
def gateway(room: Room) -> Iterator[tuple[Gateway, Path]]:
    reach = Reach(lambda url: url.startswith(f"local:{room.source}"))
    token_file = room.base / "gateway-token"
    with Gateway(reach.handlers(), room.base) as made:
        token_file.touch(mode=0o600)
        token_file.write_text(made.token)
        yield made, token_file


def far(gateway: tuple[Gateway, Path], url: str, **changes: Any) -> dict[str, Any]:
    return {"kind": "gateway", "url": url, "address": gateway[0].address, "token_file": str(gateway[1])} | changes


def test_only_what_is_of_the_run_is_to_be_had(room: Room, gateway: tuple[Gateway, Path]) -> None:
    (room.source / "kept").write_text("kept")
    files = {
        "mine": far(gateway, f"local:{room.source}/kept"),
        "others": far(gateway, "local:/etc/hostname"),
        "above": far(gateway, f"local:{room.source}/../program.py"),
    }
    done = room.run("sh", "-c", "cat mount/mine; cat mount/others mount/above", files=files)
    assert done.stdout == "kept"
    assert done.stderr.count("Permission denied") == 2, done.stderr


class Peer:
    """An executor's objects, over TLS, with a token and ranges."""

    def __init__(self, room: Path) -> None:
        cert, key = ensure_certificate(str(room), ["peer"], dt.datetime.now(dt.UTC))
        self.fingerprint, self.breaks_after = fingerprint_of_file(cert), 1 << 60
        self.asked: list[str] = []
        self.token_file = room / "peer-token"
        self.token_file.touch(mode=0o600)
        self.token_file.write_text(TOKEN)
        peer = self

        class Handler(http.server.BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_GET(self) -> None:
                peer.asked.append(self.path)
                if self.headers.get("Authorization") != f"Bearer {TOKEN}":
                    self.send_error(401)
                elif self.path != f"/objects/{DIGEST}":
                    self.send_error(404)
                else:
                    first, _, last = self.headers["Range"].removeprefix("bytes=").partition("-")
                    body = DATA[int(first) : int(last) + 1]
                    self.send_response(206)
                    self.send_header("Content-Length", str(len(body)))
                    self.end_headers()
                    self.wfile.write(body[: peer.breaks_after])
                    if len(body) > peer.breaks_after:
                        self.close_connection = True

            def log_message(self, *_: object) -> None:
                return

        self.server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.server.daemon_threads = True
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(cert, key)
        self.server.socket = context.wrap_socket(self.server.socket, server_side=True, do_handshake_on_connect=False)
        threading.Thread(target=self.server.serve_forever, daemon=True).start()

    def source(self, **changes: Any) -> dict[str, Any]:
        found: dict[str, Any] = {"kind": "peer", "host": "127.0.0.1", "port": self.server.server_address[1]}
        found |= {"fingerprint": self.fingerprint, "token_file": str(self.token_file)}
        return found | {"digest": DIGEST, "size": len(DATA), "silent_s": 30.0} | changes


@pytest.fixture
def peer(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Peer]:
    made = Peer(tmp_path_factory.mktemp("peer"))
    yield made
    made.server.shutdown()
    made.server.server_close()


def test_an_object_of_a_peer_is_read(room: Room, peer: Peer) -> None:
    done = room.run("sh", "-c", "md5sum < mount/a", files={"a": peer.source(url="ssh://far/a")})
    assert done.stdout.split()[0] == hashlib.md5(DATA, usedforsecurity=False).hexdigest(), done.stderr
    assert room.record()["a"]["moved_bytes"] == len(DATA)


def test_a_peer_that_is_another_is_told_nothing(room: Room, peer: Peer) -> None:
    done = room.run("cat", "mount/a", files={"a": peer.source(fingerprint="0" * 64)})
    assert done.returncode == 1
    assert "Permission denied" in done.stderr
    assert peer.asked == []
    peer.token_file.chmod(0o644)
    assert room.run("cat", "mount/a", files={"a": peer.source()}).returncode == 1
    assert peer.asked == []


def test_what_a_task_was_promised_and_not_given_is_told(room: Room, peer: Peer) -> None:
    told = room.base / "trouble"
    (room.source / "b").write_bytes(DATA)
    here = {"kind": "directory", "path": str(room.source)}
    files = {"a": peer.source(), "b": {**here, "file": "/b"}, "c": {**here, "file": "/c"}}
    probing = "cat mount/a mount/b > all; cat mount/index; ls mount/a/d; echo x > mount/b; true"
    assert room.run("sh", "-c", probing, files=files, trouble=str(told), cache=None, scratch=None).returncode == 0
    assert not told.exists()
    room.run("sh", "-c", "cat mount/c; true", files=files, trouble=str(told))
    assert told.read_text() == "c cannot be read: No such file or directory"
    peer.token_file.write_text("revoked")
    room.run("sh", "-c", "cat mount/a; true", files=files, trouble=str(told), cache=None)
    assert told.read_text().startswith("a cannot be read: ")


def test_a_source_that_fails_is_followed_by_the_next(room: Room, peer: Peer) -> None:
    (room.source / "a").write_bytes(DATA)
    origin = {"kind": "directory", "path": str(room.source), "file": "/a"}
    peer.breaks_after = 700_000
    for broken in (peer.source(), peer.source(port=1), peer.source(digest="0" * 64)):
        files = {"a": {"kind": "first", "of": [broken, origin], "digest": "", "url": "ssh://far/a"}}
        done = room.run("cmp", "mount/a", str(room.source / "a"), files=files, cache=None)
        assert (done.returncode, done.stderr) == (0, ""), broken


def test_what_was_read_of_one_peer_is_known_of_another(room: Room, peer: Peer) -> None:
    (room.source / "a").write_bytes(DATA)
    origin = {"kind": "directory", "path": str(room.source), "file": "/a"}
    for of in ([peer.source()], [origin]):
        files = {"a": {"kind": "first", "of": of, "digest": DIGEST, "url": "ssh://far/a"}}
        assert room.run("cmp", "mount/a", str(room.source / "a"), files=files).returncode == 0
    assert room.record()["a"]["moved_bytes"] == 0


def test_a_server_that_gives_more_than_was_asked_for_is_not_read_for_ever() -> None:
    ended = threading.Event()
    with socket.create_server(("127.0.0.1", 0)) as listening:

        def talk() -> None:
            peer, _ = listening.accept()
            with peer, contextlib.suppress(OSError):
                peer.recv(4096)
                peer.sendall(b"HTTP/1.1 206 Partial Content\r\nContent-Length: 999999999999\r\n\r\n0123456789")
                while not ended.is_set():
                    peer.sendall(bytes(1 << 16))

        threading.Thread(target=talk, daemon=True).start()
        source = web.Store(web.Server("127.0.0.1", listening.getsockname()[1]), "/")
        found: list[bytes] = []
        reading = threading.Thread(target=lambda: found.append(b"".join(source.read("/x", "1", 0, 10))), daemon=True)
        reading.start()
        reading.join(30)
        ended.set()
        reading.join(30)
    assert found == [b"0123456789"]


def test_names_that_no_directory_can_have_spoil_no_listing() -> None:
    names = [b"", b".", b"..", b"a/b", b"a\0b", b"a" * 1025]
    assert not any(serving._can_be(name) for name in names)
    assert all(serving._can_be(name) for name in (b"...", b"a" * 1024, b"\xff"))


def test_bytes_that_were_not_asked_for_are_not_taken_for_a_part(monkeypatch: pytest.MonkeyPatch) -> None:
    files = MemoryFileSystem()
    files.pipe_file("/whole", b"0123456789")
    source = FarSource("memory://")
    assert b"".join(source.read("/whole", "", 5, 2)) == b"56"
    monkeypatch.setattr(MemoryFileSystem, "cat_file", lambda *_, **__: b"0123456789")  # knows no ranges
    with pytest.raises(OSError, match="parts of files"):
        b"".join(source.read("/whole", "", 5, 2))
    files.rm_file("/whole")


def test_a_store_that_names_what_is_above_is_not_followed(monkeypatch: pytest.MonkeyPatch) -> None:
    row = {"type": "file", "size": 1}
    names = ["/top/well", "/top/..", "/top/../up", "/top/a\0b"]
    monkeypatch.setattr(MemoryFileSystem, "find", lambda *_, **__: {name: {**row, "name": name} for name in names})
    facts, troubles = StoreEnd(MemoryFileSystem()).walk("/top")
    assert (sorted(facts), len(troubles)) == (["", "well"], 3)


@pytest.mark.parametrize("told", ["etag", "modified"])
def test_a_version_of_a_web_server_is_told_by_whatever_it_says(told: str) -> None:
    server = OriginServer(bytes(1000))
    try:
        source = FarSource(f"{server.url}/d/x")
        server.etag = ""
        setattr(server, told, "1")
        first = source.stat("/")
        assert (first.kind, first.size, source.stat("/")) == ("file", 1000, first)
        setattr(server, told, "2")
        assert source.stat("/").stamp != first.stamp
    finally:
        server.close()
