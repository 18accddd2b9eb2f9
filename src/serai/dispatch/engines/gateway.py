"""An agent at the far end of an execnet gateway: what the local and the ssh engine share."""

from __future__ import annotations

import atexit
import contextlib
import threading
from typing import TYPE_CHECKING

from serai.pool.executor import boot, wire

if TYPE_CHECKING:
    from collections.abc import Callable

    import execnet

CLOSE_S = 3.0
BYE_S = 1.0


class GatewayLink:
    """A link over an execnet gateway.

    Args:
        gateway: to the node; the link owns it.
        deliver: takes frames, and None at the end.
        group: of the gateway alone.
        lingers: the agent goes on when its front end is gone, unless it is told to end.
    """

    def __init__(
        self,
        gateway: execnet.Gateway,
        deliver: Callable[[bytes | None], None],
        group: execnet.Group,
        *,
        lingers: bool = False,
    ) -> None:
        self._group = group
        self._lingers = lingers
        # The link ends the group. execnet would, too, when the interpreter ends: also in a child made by fork,
        # whose end must not end what its parent uses.
        atexit.unregister(group._cleanup_atexit)  # noqa: SLF001 - execnet has no other way to leave it
        self._lock = threading.Lock()
        self._closed = False
        self._channel = gateway.remote_exec(boot.channel_source(lingers=lingers))
        self._channel.send(boot.channel_parcel(lingers=lingers))
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
        if self._lingers:
            # The way may be full or gone: said from a thread of its own, and not waited for longer than a moment.
            farewell = threading.Thread(target=self._say_bye, daemon=True)
            farewell.start()
            farewell.join(BYE_S)
        with contextlib.suppress(OSError, EOFError):
            self._channel.close()
        self._group.terminate(timeout=CLOSE_S)

    def _say_bye(self) -> None:
        with contextlib.suppress(OSError, EOFError):
            self._channel.send(wire.pack(wire.BYE))
