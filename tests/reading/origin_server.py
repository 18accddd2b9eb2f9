"""An HTTP server with ranges, TLS and moods, on loopback."""

from __future__ import annotations

import contextlib
import hashlib
import ssl
import sys
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

from serai.access.stores.certificates import pinned_certificate

BETWEEN_S = 0.05  # of what trickles


class _Server(ThreadingHTTPServer):
    def handle_error(self, *_: object) -> None:
        """Say nothing of clients that break off."""


class OriginServer:
    """Serves one file at every path.

    Attributes:
        data: the file.
        etag, modified: its version, by either or none.
        token: that a request must show; None for none.
        requests: (path, headers) of each.
        peers: addresses of those that asked.
        answers: for each of the next requests something else: a status, (status, headers), "cut" in the middle, "last"
            of its connection, which nobody is told, "trickle" for a byte now and then, or "slow head" for an answer
            that begins so and has no end.
        fingerprint: of its certificate, where there is one.
    """

    def __init__(self, data: bytes, secure: Path | None = None, host: str = "127.0.0.1", port: int = 0) -> None:
        self.data, self.etag, self.modified = data, '"v1"', ""
        self.token: str | None = None
        self.ranges = True
        self.requests: list[tuple[str, dict[str, str]]] = []
        self.answers: list[Any] = []
        self.peers: set[Any] = set()
        self._closing = threading.Event()
        outer = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_GET(self) -> None:
                outer._answer(self)

            do_HEAD = do_GET  # noqa: N815 - http.server's

            def log_message(self, *_: object) -> None:
                pass

        self._server = _Server((host, port), Handler)
        self.fingerprint = ""
        if secure is not None and secure.exists():
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            context.load_cert_chain(secure)
            self._server.socket = context.wrap_socket(self._server.socket, server_side=True)
        elif secure is not None:
            made = pinned_certificate("localhost", time.time())
            secure.write_text(made["cert"] + made["key"])
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            context.load_cert_chain(secure)
            self._server.socket = context.wrap_socket(self._server.socket, server_side=True)
            self.fingerprint = hashlib.sha256(ssl.PEM_cert_to_DER_cert(made["cert"])).hexdigest()
        self.port = self._server.server_address[1]
        self.url = f"http{'s' if secure else ''}://127.0.0.1:{self.port}"
        self._thread = threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
        self._thread.start()

    def close(self) -> None:
        self._closing.set()
        self._server.shutdown()
        self._server.server_close()
        self._thread.join(5)

    def _answer(self, request: BaseHTTPRequestHandler) -> None:
        self.requests.append((request.path, dict(request.headers)))
        self.peers.add(request.client_address)
        refused = self.token is not None and request.headers.get("Authorization") != f"Bearer {self.token}"
        mood = 401 if refused else self.answers.pop(0) if self.answers else None
        if isinstance(mood, int):
            mood = (mood, {})
        if isinstance(mood, tuple):
            request.send_response(mood[0])
            for name, value in {"Content-Length": "0", **mood[1]}.items():
                request.send_header(name, value)
            request.end_headers()
        elif mood == "slow head":
            self._trickle(request, b"HTTP/1.1 200 OK\r\nX: " + b"x" * 60_000)
        else:
            self._give(request, mood)

    def _give(self, request: BaseHTTPRequestHandler, mood: str | None) -> None:
        """Give the file, or a part of it."""
        start, stop, status = 0, len(self.data), 200
        wanted = request.headers.get("Range")
        if wanted and self.ranges:
            first, _, last = wanted.removeprefix("bytes=").partition("-")
            start, stop, status = int(first), int(last) + 1, 206
        request.send_response(status)
        if status == 206:
            request.send_header("Content-Range", f"bytes {start}-{stop - 1}/{len(self.data)}")
        request.send_header("Content-Length", str(stop - start))
        for name, value in {"ETag": self.etag, "Last-Modified": self.modified}.items():
            if value:
                request.send_header(name, value)
        request.end_headers()
        if mood == "last":
            request.close_connection = True
        if mood == "cut":
            stop = start + (stop - start) // 2
            request.close_connection = True
        if mood == "trickle":
            self._trickle(request, self.data[start:stop])
        elif request.command == "GET":
            request.wfile.write(self.data[start:stop])

    def _trickle(self, request: BaseHTTPRequestHandler, data: bytes) -> None:
        """Give a byte now and then, until nobody takes it."""
        request.close_connection = True
        with contextlib.suppress(OSError):
            for at in range(len(data)):
                if self._closing.wait(BETWEEN_S):
                    return
                request.wfile.write(data[at : at + 1])


if __name__ == "__main__":  # FILE CERTIFICATE HOST PORT: another process, in another network
    OriginServer(Path(sys.argv[1]).read_bytes(), Path(sys.argv[2]), sys.argv[3], int(sys.argv[4]))
    threading.Event().wait()
