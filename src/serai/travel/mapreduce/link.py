"""The worker's way to the front end, made again when it is lost."""

from __future__ import annotations

import threading
import time

from ..gateway import Gateway, GatewayError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import Any

CALL_S = 60.0
PATIENCE_S = 30.0
GAVE_UP = 75  # a worker's exit status when the front end cannot be reached (EX_TEMPFAIL): nothing else is at fault


class Link:
    """The way to the front end, made again when it is lost.

    Args:
        environment: names the gateway.
        patience_s: for how long it may be lost.

    Raises:
        GatewayError: it cannot be reached.
    """

    def __init__(self, environment: Mapping[str, str], patience_s: float = PATIENCE_S) -> None:
        self._environment = environment
        self._patience_s = patience_s
        self._lock = threading.Lock()
        self._gateway = Gateway.from_environment(environment)

    def call(
        self, do: str, head: Mapping[str, Any] | None = None, body: bytes = b"", deadline_s: float = CALL_S
    ) -> tuple[dict[str, Any], bytes]:
        """Let the front end do something; asked again where the connection was lost meanwhile.

        Raises:
            GatewayError: it says no, or could not be reached in time.
        """
        until = 0.0
        while True:
            gateway = self._gateway
            try:
                return gateway.call(do, head, body, deadline_s)
            except GatewayError as error:
                now = time.monotonic()
                until = until or now + self._patience_s
                if not error.transient or now > until:
                    raise
                if gateway.lost:
                    self._again(gateway, until)
                else:
                    time.sleep(0.2)

    def _again(self, lost: Gateway, until: float) -> None:
        """Connect anew, unless another thread has."""
        pause = 0.1
        while True:
            with self._lock:
                if self._gateway is not lost:
                    return
                try:
                    self._gateway = Gateway.from_environment(self._environment)
                except GatewayError as error:
                    if not error.transient or time.monotonic() > until:
                        raise
                else:
                    return
            time.sleep(pause)
            pause = min(2.0, pause * 2)

    def last_call(self, do: str, head: Mapping[str, Any]) -> None:
        """Let the front end do something at the end, when nobody waits for it to come back.

        Raises:
            GatewayError: it says no.
        """
        if not self._gateway.lost:
            self._gateway.call(do, head, deadline_s=2.0)

    def close(self) -> None:
        """End the connection."""
        self._gateway.close()
