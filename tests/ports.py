"""Ports that are known before anybody binds them."""

from __future__ import annotations

import socket


def unused_port() -> int:
    """A port of loopback at which nothing listens, and which nobody gets for the next minute who does not ask for it.

    A port that is merely free may become another's before the server that is told of it binds it: tests run side by
    side, and open many. Where a connection has just ended, the system waits for what may still come of it. Until then
    it picks that port for nobody, and gives it to those who name it and say that they do not mind, as servers do.
    """
    with socket.create_server(("127.0.0.1", 0)) as server:
        port: int = server.getsockname()[1]
        with socket.create_connection(("127.0.0.1", port)) as client:
            server.accept()[0].close()  # who ends it first is the one who waits
            client.recv(1)
    return port
