"""Serves the files of a folder over HTTP to the peers' hosts, by sendfile: python diffusion_origin.py FOLDER ADDRESS.

It says its port, and works until its standard input ends. What follows a comma in a name is left out: so that a peer
that names its copies after the address can have several of one file at a time.
"""

from __future__ import annotations

import sys
import threading
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

FOLDER, ADDRESS = Path(sys.argv[1]), sys.argv[2]


class Handler(BaseHTTPRequestHandler):
    """One request."""

    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        """Send one file of the folder."""
        path = FOLDER / self.path.rpartition("/")[2].partition(",")[0]
        if not path.is_file():
            self.send_error(HTTPStatus.NOT_FOUND)
            return
        self.send_response(HTTPStatus.OK)
        self.send_header("Content-Length", str(path.stat().st_size))
        self.end_headers()
        self.wfile.flush()
        with path.open("rb") as source:
            self.connection.sendfile(source)

    def log_message(self, *_: object) -> None:
        """Say nothing: the errors of a request are the client's to tell."""


with ThreadingHTTPServer((ADDRESS, 0), Handler) as server:
    print(server.server_address[1], flush=True)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    sys.stdin.read()
    server.shutdown()
