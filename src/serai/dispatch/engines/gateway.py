"""An agent at the far end of an execnet gateway: what the local and the ssh engine share."""

from __future__ import annotations

import atexit
import contextlib
import threading
from typing import TYPE_CHECKING

from serai.pool.executor import boot

if TYPE_CHECKING:
    from collections.abc import Callable

    import execnet

CLOSE_S = 3.0


class GatewayLink:
    """A link over an execnet gateway.

    Args:
        gateway: to the node; the link owns it.
        deliver: takes frames, and None at the end.
        group: of the gateway alone.
    """

    def __init__(self, gateway: execnet.Gateway, deliver: Callable[[bytes | None], None], group: execnet.Group) -> None:
        self._group = group
        # The link ends the group. execnet would, too, when the interpreter ends: also in a child made by fork,
        # whose end must not end what its parent uses.
        atexit.unregister(group._cleanup_atexit)  # noqa: SLF001 - execnet has no other way to leave it
        self._lock = threading.Lock()
        self._closed = False
        self._channel = gateway.remote_exec(boot.channel_source())
        self._channel.send(boot.sources())
        self._channel.setcallback(deliver, endmarker=None)

    def send(self, frame: bytes) -> None:
        """See `Link.send`."""
        self._channel.send(frame)

    def close(self) -> None:
        """See `Link.close`."""
        with self._lock:
            if self._closed:
                return
            self._closed = True
        with contextlib.suppress(OSError, EOFError):
            self._channel.close()
        self._group.terminate(timeout=CLOSE_S)
