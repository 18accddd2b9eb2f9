"""Where a reduce's output goes: a file on this node that is renamed when it is whole, or the front end."""

from __future__ import annotations

import collections
import contextlib
import hashlib
import os
from concurrent.futures import ThreadPoolExecutor

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from typing import Any

CHUNK = 1 << 22  # bytes that are sent at once
AHEAD = 3  # of them under way


class Output:
    """Takes bytes; knows their digest and size. Subclasses say where they go."""

    def __init__(self) -> None:
        self._digest = hashlib.sha256()
        self._held: list[bytes] = []
        self._held_bytes = 0
        self.size = 0
        self.records = 0

    def write(self, data: bytes, records: int = 0) -> None:
        """Add bytes, which are so many records."""
        self._held.append(data)
        self._held_bytes += len(data)
        self.records += records
        if self._held_bytes >= CHUNK:
            self._flush()

    def _flush(self) -> None:
        data = b"".join(self._held)
        self._held, self._held_bytes = [], 0
        for at in range(0, len(data), CHUNK):
            part = data if len(data) <= CHUNK else data[at : at + CHUNK]
            self._digest.update(part)
            self._put(part)
            self.size += len(part)

    def finish(self) -> dict[str, Any]:
        """Make it whole.

        Returns:
            ``size`` in bytes, ``digest`` (SHA-256) and ``records``.
        """
        self._flush()
        facts = {"size": self.size, "digest": "sha256:" + self._digest.hexdigest(), "records": self.records}
        self._end(facts)
        return facts

    def abandon(self) -> None:
        """Let go of what was written."""

    def _put(self, data: bytes) -> None:
        raise NotImplementedError

    def _end(self, facts: Mapping[str, Any]) -> None:
        raise NotImplementedError


class LocalOutput(Output):
    """A file on this node, written beside its name.

    Args:
        path: its name once it is whole.
        mark: what no other worker or attempt has, for its name until then.
    """

    def __init__(self, path: str, mark: str) -> None:
        super().__init__()
        self._path = path
        self._aside = "%s.%s.part" % (path, mark)
        os.makedirs(os.path.dirname(path) or ".", exist_ok=True)
        self._file = os.fdopen(os.open(self._aside, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o666), "wb", 0)

    def _put(self, data: bytes) -> None:
        view = memoryview(data)
        while view:
            view = view[self._file.write(view) or 0 :]

    def _end(self, facts: Mapping[str, Any]) -> None:
        os.fsync(self._file.fileno())
        self._file.close()
        os.replace(self._aside, self._path)

    def abandon(self) -> None:
        """See `Output.abandon`."""
        self._file.close()
        with contextlib.suppress(OSError):
            os.unlink(self._aside)


class RelayedOutput(Output):
    """A file that the front end writes, several parts under way at once.

    Args:
        call: of the gateway: ``call(do, head, body)``.
        name: of the output.
        attempt: which one this is.
    """

    def __init__(self, call: Callable[..., Any], name: str, attempt: int) -> None:
        super().__init__()
        self._call = call
        self._head = {"name": name, "attempt": attempt}
        self._threads = ThreadPoolExecutor(AHEAD, thread_name_prefix="write")
        self._under_way: collections.deque[Any] = collections.deque()

    def _put(self, data: bytes) -> None:
        if len(self._under_way) >= AHEAD:
            self._under_way.popleft().result()
        head = dict(self._head, offset=self.size)
        self._under_way.append(self._threads.submit(self._call, "file.write", head, data))

    def _end(self, facts: Mapping[str, Any]) -> None:
        while self._under_way:
            self._under_way.popleft().result()
        self._threads.shutdown()
        self._call("file.commit", dict(self._head, size=facts["size"], digest=facts["digest"]))

    def abandon(self) -> None:
        """See `Output.abandon`; what was sent is the front end's to remove."""
        for future in self._under_way:
            future.cancel()
        self._threads.shutdown(wait=False)
