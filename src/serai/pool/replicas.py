"""The replica catalogue in the advert service: which nodes' caches have which of the files that runs read.

An ad is at ``/replicas/<digest>/<node>``; it expires by itself unless it is renewed, which is done while the run lives.
As with the ads of nodes, a thread of its own does all of it, in portions, and a service that does not answer is done
without: what a node has, it says itself when it checks in.
"""

from __future__ import annotations

import threading
import time
from typing import TYPE_CHECKING

from serai.errors import SeraiError

if TYPE_CHECKING:
    from collections.abc import Callable

    from serai.adverts.service import Adverts

REPLICAS = "/replicas"
MOST = 20_000  # that a run advertises; further ones are not
PORTION = 200  # changes at a time
LOOK_S = 2.0
LIFE_S = 3600.0  # caches outlive runs
RENEW_S = LIFE_S / 3
LAST_S = 2.0  # that a run's end waits


class Replicas:
    """Advertises replicas.

    Args:
        run: the name of the run that says so.
        service: opens the advert service.
        look_s: between two looks at what has changed.
    """

    def __init__(self, run: str, service: Callable[[], Adverts], look_s: float = LOOK_S) -> None:
        self._run = run
        self._service = service
        self._look_s = look_s
        self._lock = threading.Lock()  # guards the following two
        self._changes: dict[tuple[str, str], int | None] = {}  # size in bytes; None: it is gone
        self._there: dict[tuple[str, str], tuple[int, float]] = {}  # size, and when it was said last
        self._end = threading.Event()
        self._thread: threading.Thread | None = None

    def tell(self, digest: str, node: str, size: int | None) -> None:
        """A node has a replica now, of so many bytes; or, with None, has it no longer. Any thread; returns at once.

        What was said is always taken back; of what is said anew there may be too much.
        """
        key = digest, node
        with self._lock:
            said = key in self._changes or key in self._there
            if not said and len(self._changes) + len(self._there) >= (MOST if size is not None else 2 * MOST):
                return
            self._changes[key] = size
            if self._thread is None and not self._end.is_set():
                self._thread = threading.Thread(target=self._work, name="replicas", daemon=True)
                self._thread.start()

    def close(self) -> None:
        """Say what there still is to say, if the service answers soon."""
        self._end.set()
        if self._thread is not None:
            self._thread.join(LAST_S)

    def _work(self) -> None:
        adverts: Adverts | None = None
        ended = False
        while not ended:
            ended = self._end.wait(self._look_s)
            try:
                adverts = adverts or self._service()
                self._publish(adverts)
                until = time.monotonic() + LAST_S
                while ended and self._changes and time.monotonic() < until:
                    self._publish(adverts)
            except (SeraiError, OSError):
                if adverts is not None:
                    adverts.close()
                adverts = None  # tried again
        if adverts is not None:
            adverts.close()

    def _publish(self, adverts: Adverts) -> None:
        now = adverts.now()
        with self._lock:
            gone = [key for key, size in self._changes.items() if size is None]
            portion = {key: self._changes[key] for key in (gone or list(self._changes))[:PORTION]}
            due = [key for key, (_, at) in self._there.items() if now - at > RENEW_S and key not in self._changes]
            portion |= {key: self._there[key][0] for key in due[:PORTION]}
        for (digest, node), size in portion.items():
            path = f"{REPLICAS}/{digest}/{node.replace('/', '_')}"
            if size is not None:
                adverts.put(path, {"Node": node, "Size": size, "Run": self._run}, LIFE_S)
            else:
                _remove(adverts, path)
            with self._lock:
                if size is not None:
                    self._there[digest, node] = size, now
                else:
                    self._there.pop((digest, node), None)
                if self._changes.get((digest, node), -1) == size:
                    del self._changes[digest, node]


def _remove(adverts: Adverts, path: str) -> None:
    try:
        adverts.remove(path)
    except FileNotFoundError:
        return  # it expired


__all__ = ["REPLICAS", "Replicas"]
