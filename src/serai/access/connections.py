"""One connection per host and process, shared by all who work there."""

from __future__ import annotations

import atexit
import os
import threading
from typing import TYPE_CHECKING

from serai.access.openssh import Connection, Target
from serai.clock import SystemClock
from serai.session.context import current_context
from serai.session.home import control_directory

if TYPE_CHECKING:
    from collections.abc import Mapping

    from serai.session.url import Url

__all__ = ["close_all", "shared", "target_of"]

_lock = threading.Lock()
_connections: dict[Target, Connection] = {}


def target_of(url: Url, environment: Mapping[str, str], ssh_config: str | None = None) -> Target:
    """The host that an ``ssh://`` URL names, with the context of the current session.

    Args:
        url: its user, host and port count.
        environment: ``$SERAI_SSH_CONFIG`` names the file that ssh is given when nothing else does.
        ssh_config: the file that ssh is given instead of the user's own.
    """
    config = ssh_config or environment.get("SERAI_SSH_CONFIG") or None
    path = None if config is None else os.path.expanduser(config)
    return Target(url.host or "", url.user, url.port, path, current_context("ssh", url.user))


def shared(target: Target) -> Connection:
    """The open connection to a host; made when there is none, made again when it was lost. Nobody closes it but us.

    Raises:
        AccessError: see `Connection.open`.
    """
    with _lock:
        connection = _connections.get(target)
        if connection is None:
            connection = Connection(target, control_dir=control_directory(os.environ), clock=SystemClock())
            _connections[target] = connection
    connection.open()  # looks whether it lives; one at a time, so that two callers do not log in twice
    return connection


def close_all() -> None:
    """Close every shared connection; the next caller opens anew."""
    with _lock:
        connections = list(_connections.values())
        _connections.clear()
    for connection in connections:
        connection.begin_close()
    for connection in connections:
        connection.close()


atexit.register(close_all)
os.register_at_fork(after_in_child=_connections.clear)  # they are the parent's
