"""The front end gives a node the catalogued files that no peer gave it: read from their origin, digested on the way."""

from __future__ import annotations

import contextlib
import hashlib
import os
import queue
import threading
from typing import TYPE_CHECKING, Any

from serai.dispatch.files.origins import look
from serai.errors import SeraiError
from serai.travel.executor import wire

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from serai.dispatch.files.catalogue import Catalogue
    from serai.dispatch.files.origins import File

AT_ONCE = 4  # files that one node is sent at a time: origins may answer slowly
PART = 1 << 20  # bytes that another node is asked for at a time
MOST_ASKED = 100_000
GRANT = -1  # no attempt: the file itself is not wanted
CHANGED = "it has changed since the run looked at it"


class Filler:
    """What sends files to one node.

    Args:
        node: its name.
        catalogue: knows the files.
        send: takes a frame to the node, waiting while the way is full; any thread.
    """

    def __init__(self, node: str, catalogue: Catalogue, send: Callable[[bytes], object]) -> None:
        self._node = node
        self._catalogue = catalogue
        self._send = send
        self._asked: queue.Queue[tuple[int, int] | None] = queue.Queue(MOST_ASKED)
        self._threads: list[threading.Thread] = []
        self._ended = False
        self.unreadable: set[str] = set()  # what was said of origins that cannot be read

    def ask(self, number: int, attempt: int) -> None:
        """The node asks for a file; or, the attempt being `GRANT`, for what lets it read that at its origin.

        Returns at once.

        Raises:
            ValueError: there is no such file, or it asks for too many.
        """
        try:
            self._catalogue.file(number)
            self._asked.put_nowait((number, attempt))
        except (KeyError, queue.Full) as error:
            raise ValueError(f"file {number} cannot be asked for: {error!r}") from error
        if len(self._threads) < AT_ONCE and self._asked.qsize():
            thread = threading.Thread(target=self._run, name=f"fill-{self._node}", daemon=True)
            self._threads.append(thread)
            thread.start()

    def close(self) -> None:
        """Send nothing more."""
        self._ended = True
        for _ in self._threads:
            with contextlib.suppress(queue.Full):  # then there is enough for each of them to be woken by
                self._asked.put_nowait(None)

    def _run(self) -> None:
        while (asked := self._asked.get()) is not None and not self._ended:
            try:
                (self._grant if asked[1] == GRANT else self._serve)(*asked)
            except OSError:
                return  # the node is gone; the carrier's own thread says so
            except Exception as error:  # noqa: BLE001 - without this thread, the node would wait for each further file
                with contextlib.suppress(OSError, SeraiError):
                    self._put(*asked, {"bad": f"the front end failed: {error!r}"})

    def _grant(self, number: int, _attempt: int) -> None:
        self._send(wire.pack(wire.GRANTED, 0, number, {"grant": self._catalogue.grant(number, anew=True)}))

    def _serve(self, number: int, attempt: int) -> None:
        file = self._catalogue.file(number)
        sent = _Sent(number, attempt)
        read_here, settled = True, self._catalogue.is_settled(number)
        try:
            try:
                self._give(file, self._read_origin(file), sent)
            except _Unreadable:
                if sent.at:
                    raise
                read_here = False
                self._give(file, self._relayed(file), sent)
                if sent.at != file.size:
                    raise
            why = "" if sent.at == file.size else CHANGED
        except _Changed:
            why = CHANGED
        except _Unreadable as error:
            why = str(error)
            if len(self.unreadable) < MOST_ASKED:
                self.unreadable.add(why)
        if self._ended:
            return
        digest = sent.digest.hexdigest()
        if not why and not read_here and file.digest not in {"", digest}:
            why = "what another node gave of it is something else"
        if why:
            self._put(number, attempt, {"bad": why})
        else:
            self._catalogue.learn(number, digest, read_here=read_here, settled=settled)
            self._put(number, attempt, {"end": 1})

    def _give(self, file: File, pieces: Iterator[bytes | None], sent: _Sent) -> None:
        """Send the bytes of a file, but none beyond its size."""
        for piece in pieces:
            if piece is None:  # the origin is tried again, perhaps; the node gives up what it hears nothing of
                self._put(sent.number, sent.attempt, {})
                continue
            sent.digest.update(piece)
            sent.at += len(piece)
            if sent.at > file.size or self._ended:
                return
            self._put(sent.number, sent.attempt, {}, piece)

    def _put(self, number: int, attempt: int, head: dict[str, Any], body: bytes = b"") -> None:
        self._send(wire.pack(wire.PIECE, attempt, number, head, body))

    def _relayed(self, file: File) -> Iterator[bytes | None]:
        """The bytes of a file from another node that has it; fewer, or none, where they are not to be had."""
        for node, name in self._catalogue.holders(file.number, but=self._node):
            yield None
            at = 0
            while at < file.size and (data := self._catalogue.read_from(node, name, at, PART)):
                at += len(data)
                for start in range(0, len(data), wire.CHUNK):
                    yield data[start : start + wire.CHUNK]
            if at:
                return

    def _read_origin(self, file: File) -> Iterator[bytes | None]:
        """The bytes of a file.

        Raises:
            _Unreadable: they cannot be had.
            _Changed: they are not what was catalogued.
        """
        origin, reader = file.origin, self._catalogue.reader
        try:
            if os.path.isabs(origin):
                yield from _read(origin)
                if look(origin) != (file.size, file.stamp):
                    raise _Changed
            elif reader is not None:
                yield from reader(origin, file.stamp)
            else:
                raise _Unreadable(f"nobody here reads {origin}")
        except OSError as error:
            raise _Unreadable(f"cannot read its input {origin}: {error.strerror or error}") from error
        except SeraiError as error:
            raise _Unreadable(error.what) from error


def _read(path: str) -> Iterator[bytes]:
    with open(path, "rb", buffering=0) as stream:
        while piece := stream.read(wire.CHUNK):
            yield piece


class _Sent:
    """What was sent of a file."""

    def __init__(self, number: int, attempt: int) -> None:
        self.number = number
        self.attempt = attempt
        self.at = 0
        self.digest = hashlib.blake2b(digest_size=32)


class _Changed(Exception):
    """An origin is not what it was; it has another number by now, or soon will."""


class _Unreadable(Exception):
    """An origin cannot be read."""
