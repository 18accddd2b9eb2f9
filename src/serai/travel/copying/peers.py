"""Files that go from this host to another without the front end between: through this host's own ssh.

This porter starts a porter on the other host, with what the user has set up here (keys, ssh_config, known hosts): no
credential comes with the request, nobody is asked for one, and the other host must be who the front end says it is.
What is written there under which name was decided by the front end, as ever.
"""

from __future__ import annotations

import contextlib
import errno
import itertools
import json
import os
import select
import subprocess
import tempfile
import threading
import time

from ..frames import Reader, pack, unpack, write
from ..porter.calls import ANSWER, CALL, CANCEL, DATA, END, FAILED, PIECE, TAKEN, WINDOW, Cancelled, Trouble
from . import lots, shuttle

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping
    from typing import Any, Callable, Optional

    from ..porter.calls import Call

MARK = b"\0serai\0"  # what a program that travelled says first; see boot.MARK
MOST_NOISE = 1 << 20  # bytes before the mark
SILENCE_S = 60.0  # of a peer that has something to do
TELL_S = 0.2  # between two words about progress
SAME = ("host", "boot", "uid", "root")
MOST_PEERS = 64
LOST = "the connection between the two hosts was lost"


class Sending:
    """One call to a peer that takes bytes and ends with an answer."""

    def __init__(self, peer: Peer, number: int) -> None:
        self._peer = peer
        self._number = number
        self._ready = threading.Condition()
        self._room = WINDOW
        self._end: Optional[tuple[int, dict[str, Any]]] = None

    def write(self, data: bytes, asked: Call) -> None:
        """Send bytes; waits until the peer takes them.

        Raises:
            OSError: it has failed.
        """
        view = memoryview(data)
        while view:
            self._wait(lambda: self._room > 0 or self._end is not None, asked)
            if self._end is not None:
                self.result(asked)
                raise OSError(errno.EPIPE, "ended before it had taken all")
            size = min(len(view), self._room, PIECE)
            with self._ready:
                self._room -= size
            self._peer.send(pack(DATA, 0, self._number, None, bytes(view[:size])))
            view = view[size:]

    def finish(self) -> None:
        """Say that these were all."""
        self._peer.send(pack(END, 0, self._number))

    def cancel(self) -> None:
        """Give it up."""
        if self._end is None:
            with contextlib.suppress(OSError):
                self._peer.send(pack(CANCEL, 0, self._number))

    def result(self, asked: Call) -> dict[str, Any]:
        """Its answer."""
        self._wait(lambda: self._end is not None, asked)
        assert self._end is not None  # noqa: S101 - for the reader of types
        op, head = self._end
        if op == ANSWER:
            return head
        if head.get("errno"):
            raise OSError(head["errno"], head["what"])
        raise Trouble(str(head.get("kind")), str(head.get("what")))

    def _wait(self, until: Callable[[], bool], asked: Call) -> None:
        end = time.monotonic() + SILENCE_S
        with self._ready:
            while not until():
                if asked.cancelled:
                    raise Cancelled
                left = end - time.monotonic()
                if left <= 0:
                    raise OSError(errno.ETIMEDOUT, os.strerror(errno.ETIMEDOUT))
                self._ready.wait(min(left, 0.5))

    def heed(self, op: int, head: dict[str, Any]) -> None:
        """Take a frame of this call."""
        with self._ready:
            if op == TAKEN:
                self._room += int(head["bytes"])
            elif op in (ANSWER, FAILED):
                self._end = op, head
            self._ready.notify_all()


class Peer:
    """A porter on another host.

    Args:
        words: the ssh command.
        parcel: the program.
        deadline_s: from its start to its first answer.

    Raises:
        Trouble: it did not start, with what ssh said.
    """

    def __init__(self, words: list[str], parcel: bytes, deadline_s: float) -> None:
        self.words = words
        self.shuttle: tuple[str, bytes] = ("", b"")
        self._lock = threading.Lock()
        self._numbers = itertools.count(1)
        self._calls: dict[int, Sending] = {}
        self.gone = False
        self.process, self._in, self._out = start(words, parcel, deadline_s)
        threading.Thread(target=self._listen, daemon=True).start()

    def submit(self, do: str, head: Mapping[str, Any], body: bytes = b"") -> Sending:
        """Begin a call."""
        with self._lock:
            if self.gone:
                raise OSError(errno.ECONNRESET, LOST)
            number = next(self._numbers)
            call = self._calls[number] = Sending(self, number)
        self.send(pack(CALL, 0, number, dict(head, do=do), body))
        return call

    def send(self, frame: bytes) -> None:
        """Send a frame."""
        with self._lock:
            write(self._in, frame)

    def close(self) -> None:
        """End it."""
        self.process.kill()  # whoever listens closes what it listens to
        end(self.process)

    def _listen(self) -> None:
        reader = Reader(self._out)
        while True:
            frames = reader.read()
            if frames is None:
                break
            for frame in frames:
                op, _, number, head, _ = unpack(frame)
                call = self._calls.pop(number, None) if op in (ANSWER, FAILED) else self._calls.get(number)
                if call is not None:
                    call.heed(op, head)
        with self._lock:
            self.gone = True
            calls = list(self._calls.values())
        for call in calls:
            call.heed(FAILED, {"errno": errno.ECONNRESET, "what": LOST})
        end(self.process)


def start(words: list[str], parcel: bytes, deadline_s: float) -> tuple[subprocess.Popen[bytes], int, int]:
    """Start what travelled: its process, what it reads from and what it writes to.

    Raises:
        Trouble: it did not start, with what ssh said.
    """
    with tempfile.TemporaryFile() as said:
        process = subprocess.Popen(
            words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=said, start_new_session=True
        )
        assert process.stdin is not None  # noqa: S101 - for the reader of types
        assert process.stdout is not None  # noqa: S101 - the same
        fd_in, fd_out = process.stdin.fileno(), process.stdout.fileno()
        try:
            greet(fd_in, fd_out, parcel, time.monotonic() + deadline_s)
        except (OSError, Trouble) as error:
            end(process)
            said.seek(0)
            last = said.read(4000).decode("utf-8", "replace").strip().rpartition("\n")[2].strip()
            raise Trouble("unreachable", last or str(error)) from None
    return process, fd_in, fd_out


def end(process: subprocess.Popen[bytes]) -> None:
    """End what was started."""
    process.kill()
    process.wait()
    for pipe in (process.stdin, process.stdout):
        if pipe is not None:
            with contextlib.suppress(OSError):
                pipe.close()


def greet(fd_in: int, fd_out: int, parcel: bytes, deadline: float) -> None:
    """Send the program and wait for its mark.

    Raises:
        Trouble: it does not come.
    """
    os.set_blocking(fd_in, False)
    heard, view = b"", memoryview(parcel)
    while not heard.endswith(MARK):
        left = deadline - time.monotonic()
        if left <= 0:
            raise Trouble("deadline", "no answer in time")
        readable, writable, _ = select.select([fd_out], [fd_in] if view else [], [], left)
        if writable:
            view = view[os.write(fd_in, view) :]
        if readable:
            data = os.read(fd_out, 1 << 16)
            heard += data
            if not data or len(heard) > MOST_NOISE:
                raise Trouble("ended", "it ended before it gave a sign of life")
    os.set_blocking(fd_in, True)


_peers: dict[str, Peer] = {}


def do_open(call: Call) -> tuple[Mapping[str, Any], bytes]:
    """{"name", "ways": [[word]], "deadline_s", "where", "shuttle", "size"}, programs -> {"tried"}.

    "where" is what `looks.where` says on that host, "shuttle" the command of such. The body is the porter's program, of
    "size" bytes, and the shuttle's.

    The first way that leads to this very host and login is taken.
    """
    name = str(call.head["name"])
    tried = []
    size = int(call.head["size"])
    end = time.monotonic() + float(call.head["deadline_s"])
    if len(_peers) >= MOST_PEERS:
        raise Trouble("full", "%d other hosts are reached from here already" % MOST_PEERS)
    for words in call.head["ways"]:
        try:
            peer = Peer([str(word) for word in words], call.body[:size], max(0.5, end - time.monotonic()))
        except (Trouble, OSError) as error:
            tried.append(str(error))
            continue
        who = peer.submit("looks.where", {}).result(call)
        if all(who.get(key) == call.head["where"].get(key) for key in SAME):
            old = _peers.pop(name, None)
            if old is not None:
                old.close()
            peer.shuttle = str(call.head["shuttle"]), call.body[size:]
            _peers[name] = peer
            return {"tried": tried}, b""
        peer.close()
        tried.append("that name leads to another host or login: %s, uid %s" % (who.get("host"), who.get("uid")))
    raise Trouble("unreachable", "; ".join(tried) or "there is no way")


class _Teller:
    """Says how many bytes went by, now and then."""

    def __init__(self, call: Call) -> None:
        self._call = call
        self._bytes = 0
        self._last = time.monotonic()

    def count(self, pieces: Iterable[bytes]) -> Iterator[bytes]:
        """Pass pieces on, and say so."""
        for piece in pieces:
            yield piece
            self._bytes += len(piece)
            now = time.monotonic()
            if now - self._last >= TELL_S:
                self._last = now
                self._say()
            elif self._call.cancelled:
                raise Cancelled
        self._say()

    def _say(self) -> None:
        self._call.write(b"%d\n" % self._bytes)
        self._bytes = 0


def _into(call: Call, do: str, head: Mapping[str, Any], body: bytes, pieces: Iterable[bytes]) -> dict[str, Any]:
    """Hand a stream to a call of the peer that is named, and return its answer."""
    peer = _peers.get(str(call.head["peer"]))
    if peer is None:
        raise Trouble("unreachable", "there is no such peer")
    sending = peer.submit(do, head, body)
    try:
        for piece in pieces:
            sending.write(piece, call)
        sending.finish()
        return sending.result(call)
    finally:
        sending.cancel()


def _shuttled(call: Call, pieces: Iterable[bytes]) -> dict[str, Any]:
    """Hand a large file to a session of its own on the peer's host."""
    peer = _peers.get(str(call.head["peer"]))
    if peer is None:
        raise Trouble("unreachable", "there is no such peer")
    command, parcel = peer.shuttle
    process, fd_in, fd_out = start([*peer.words[:-1], command], parcel, SILENCE_S)
    try:
        order = {"path": call.head["to"], "start": int(call.head["start"])}
        return shuttle.land_order(shuttle.Line(fd_out, fd_in), order, pieces)
    finally:
        end(process)


class _Source:
    """Tells the errors of the one side from those of the other."""

    def __init__(self) -> None:
        self.error: Optional[OSError] = None

    def watch(self, pieces: Iterable[bytes]) -> Iterator[bytes]:
        """Pass pieces on; keep the error of where they come from."""
        try:
            yield from pieces
        except OSError as error:
            self.error = error
            raise


def _failure(source: _Source, error: OSError) -> dict[str, Any]:
    side = "source" if source.error is error else "target"
    return {"failed": [side, error.errno or 0, error.strerror or str(error)]}


def do_lots(call: Call) -> tuple[Mapping[str, Any], bytes]:
    """{"peer" | null, "follow", "wishes"}, {"paths", "rows"} -> as `lots.store`, {"lost": [number, errno, sentence]}.

    Pieces are numbers of bytes, a line each.
    """
    asked = json.loads(call.body)
    lost: list[list[Any]] = []
    source = _Source()
    pieces = _Teller(call).count(source.watch(lots.lots(asked["paths"], bool(call.head.get("follow")), lost)))
    try:
        if call.head.get("peer") is None:
            done = lots.store(pieces, asked["rows"], call.head["wishes"])
        else:
            rows = json.dumps(asked["rows"]).encode("ascii")
            done = _into(call, "lots.store", {"wishes": call.head["wishes"]}, rows, pieces)
    except OSError as error:
        return _failure(source, error), b""
    return dict(done, lost=lost), b""


def do_large(call: Call) -> tuple[Mapping[str, Any], bytes]:
    """{"peer" | null, "path", "start", "follow", "to"} -> {"sent": {digest, size}, "landed": the same}.

    Pieces as of `do_lots`; {"failed": [side, errno, sentence]} when one of the two sides does not do its part.
    """
    head = call.head
    said: dict[str, Any] = {}
    source = _Source()
    pieces = source.watch(lots.read(head["path"], int(head["start"]), bool(head.get("follow")), said))
    counted = _Teller(call).count(pieces)
    try:
        if head.get("peer") is None:
            landed = lots.land(head["to"], int(head["start"]), counted)
        else:
            landed = _shuttled(call, counted)
    except OSError as error:
        return _failure(source, error), b""
    return {"sent": said, "landed": landed}, b""


HANDLERS = {"peer.open": do_open, "peer.lots": do_lots, "peer.large": do_large}
