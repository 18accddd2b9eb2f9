"""How near other hosts are: the time of a TCP connection to each, taken aside and told with the next beats."""

from __future__ import annotations

import socket
import threading
import time

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable
    from typing import Dict, List, Optional, Tuple

MOST = 16  # places in one go
TRIES = 3
TRY_S = 2.0


class Reach:
    """Measures on a thread of its own, one list at a time.

    Attributes:
        found: seconds for each ``host:port``, the least of a few; None where nobody answered.
    """

    def __init__(self) -> None:
        self.found: Dict[str, Optional[float]] = {}
        self._thread: Optional[threading.Thread] = None

    def measure(self, places: Iterable[List[object]]) -> None:
        """Begin to measure, unless that goes on already."""
        if self._thread is None or not self._thread.is_alive():
            wanted = [(str(host), int(str(port))) for host, port in list(places)[:MOST]]
            self._thread = threading.Thread(target=self._run, args=(wanted,), name="reach", daemon=True)
            self._thread.start()

    def _run(self, places: List[Tuple[str, int]]) -> None:
        found = {}
        for host, port in places:
            times = []
            for _ in range(TRIES):
                took = connect_time(host, port)
                if took is None:
                    break
                times.append(took)
            found["%s:%d" % (host, port)] = round(min(times), 6) if times else None
        self.found = found


def connect_time(host: str, port: int) -> Optional[float]:
    """Seconds until a TCP connection stood, its name's resolution not counted; None when none did in time."""
    try:
        family, kind, proto, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        with socket.socket(family, kind, proto) as one:
            one.settimeout(TRY_S)
            began = time.perf_counter()
            one.connect(address)
            return time.perf_counter() - began
    except (OSError, OverflowError, UnicodeError):
        return None
