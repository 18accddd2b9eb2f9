"""Answering the kernel: threads that read requests from the device, each of which answers what it read.

There is always one thread that reads, so a request that waits for its data holds up no other; beyond a limit requests
stay in the kernel, whose own limit holds back programs. Each request has a deadline, and a program that is killed
while it waits is let go of at once.
"""

from __future__ import annotations

import errno
import os
import sys
import threading
import traceback

from ..reading.patience import Patience, is_ending
from . import protocol

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    Handler = Callable[["Request"], "bytes | None"]

MOST_THREADS = 48
MOST_IDLE = 4


class Request:
    """What the kernel asks.

    Attributes:
        op: of `protocol`.
        node: the number of the file that it is about.
        data: what follows the header.
        patience: how long its answer may take.
    """

    __slots__ = ("data", "node", "op", "patience", "unique")

    def __init__(self, header: tuple[int, ...], data: bytes, limit_s: float) -> None:
        _, self.op, self.unique, self.node, _, _, thread, _ = header
        self.data = data
        self.patience = Patience(limit_s, lambda: is_ending(thread))


class Session:
    """Serves one mount.

    Args:
        device: the descriptor of the mount; it is closed at the end.
        handler: answers a request: bytes, or None where the kernel wants no answer. Its OSError is the answer's errno.
        deadline_s: how long a request may wait without any progress.
    """

    def __init__(self, device: int, handler: Handler, deadline_s: float) -> None:
        self._device, self._handler, self._deadline_s = device, handler, deadline_s
        self._lock = threading.Lock()
        self._under_way: dict[int, Request] = {}
        self._threads = self._idle = 0
        self._agreed = threading.Event()
        self.ended = threading.Event()

    def start(self) -> None:
        """Begin to serve, in threads of its own."""
        with self._lock:
            self._add()

    def _add(self) -> None:
        self._threads += 1
        self._idle += 1
        threading.Thread(target=self._work, name="mount", daemon=True).start()

    def _work(self) -> None:
        buffer = bytearray(protocol.BUFFER)
        try:
            while not self.ended.is_set():
                request = self._read(buffer)
                if request is None or not self._take(request):
                    continue
                self._answer(request)
                if self._leave(request):
                    return
        except BaseException:  # noqa: BLE001 - without its threads a mount would hang
            traceback.print_exc()
            self._end()

    def _read(self, buffer: bytearray) -> Request | None:
        try:
            length = os.readv(self._device, [buffer])
        except OSError as error:
            if error.errno in (errno.ENOENT, errno.EINTR, errno.EAGAIN):
                return None  # it was taken back
            if error.errno not in (errno.ENODEV, errno.EBADF, errno.ECONNABORTED):
                traceback.print_exc()
            self._end()
            return None
        view = memoryview(buffer)[:length]
        return Request(protocol.IN.unpack_from(view), bytes(view[protocol.IN.size :]), self._deadline_s)

    def _take(self, request: Request) -> bool:
        """Whether this thread has something to do; another one reads meanwhile."""
        if request.op == protocol.INTERRUPT:
            (unique,) = protocol.NUMBER.unpack_from(request.data)
            with self._lock:
                waiting = self._under_way.get(unique)
            if waiting is not None:
                waiting.patience.signal()
            return False
        if request.op == protocol.DESTROY:
            self._send(protocol.answer(request.unique))
            return False
        with self._lock:
            self._under_way[request.unique] = request
            self._idle -= 1
            if not self._idle and self._threads < MOST_THREADS and self._agreed.is_set():
                self._add()
        return True

    def _leave(self, request: Request) -> bool:
        """Whether this thread is one too many."""
        with self._lock:
            self._under_way.pop(request.unique, None)
            if self._idle >= MOST_IDLE:
                self._threads -= 1
                return True
            self._idle += 1
        return False

    def _answer(self, request: Request) -> None:
        try:
            if request.op == protocol.INIT:
                data: bytes | None = protocol.init_out(request.data)
                self._agreed.set()
            else:
                data = self._handler(request)
            if data is None:
                return
            answer = [protocol.OUT.pack(protocol.OUT.size + len(data), 0, request.unique), data]
        except OSError as error:
            answer = [protocol.answer(request.unique, error=_plain(error.errno))]
        except Exception:  # noqa: BLE001 - a program must not hang because of a mistake of ours
            sys.stderr.write("mount: operation %d failed\n%s" % (request.op, traceback.format_exc()))
            answer = [protocol.answer(request.unique, error=errno.EIO)]
        self._send(*answer)

    def _send(self, *pieces: Any) -> None:
        try:
            os.writev(self._device, pieces)
        except OSError as error:
            if error.errno not in (errno.ENOENT, errno.ENODEV, errno.EBADF):  # nobody waits, or the mount is gone
                sys.stderr.write("mount: the kernel does not take an answer: %s\n" % error)

    def tell(self, notice: bytes) -> None:
        """Tell the kernel what it did not ask for."""
        self._send(notice)

    def _end(self) -> None:
        self.ended.set()
        self._agreed.set()


# What a source's trouble is to a program: it knows of files and disks, not of networks.
_NOT_OF_FILES = (
    errno.ETIMEDOUT, errno.ECONNREFUSED, errno.ECONNRESET, errno.ECONNABORTED, errno.EPIPE, errno.EHOSTUNREACH,
    errno.ENETUNREACH, errno.ENOTCONN, errno.EHOSTDOWN, errno.EBADMSG, errno.ESHUTDOWN,
)  # fmt: skip


def _plain(number: int | None) -> int:
    return errno.EIO if not number or not 0 < number < 512 or number in _NOT_OF_FILES else number
