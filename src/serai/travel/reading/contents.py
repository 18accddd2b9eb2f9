"""The bytes of files: which blocks are there, which are coming, and which are asked for next.

Only what is missing is asked for, what touches in one request, and nothing twice: whoever wants a block that is coming
waits for it. What was read and what was moved is noted for each file.
"""

from __future__ import annotations

import errno
import sys
import threading
import time
import traceback
from collections import deque

from .blocks import BLOCK, Blocks, key_of

TYPE_CHECKING = False
if TYPE_CHECKING:
    from .ahead import Habits
    from .careful import Careful
    from .patience import Patience

PIECE = 1 << 20  # bytes of one request, about
AT_ONCE = 8  # requests under way
MOST_STUCK = 32  # threads whose source does not answer
MOST_COMING = 2 * AT_ONCE * PIECE // BLOCK  # blocks, of one file
GROUP = 1 << 18  # bytes that are kept in one go
MOST_AHEAD_WAITING = 32  # requests for what nobody waits for yet


class Spans:
    """Parts of a file, as a union of intervals."""

    def __init__(self) -> None:
        self.spans: list[tuple[int, int]] = []

    def add(self, start: int, stop: int) -> None:
        """Add the bytes from start to stop, without the last."""
        if start >= stop:
            return
        spans = self.spans
        low = 0
        high = len(spans)
        while low < high:  # the first that ends at start or later
            middle = (low + high) // 2
            if spans[middle][1] < start:
                low = middle + 1
            else:
                high = middle
        last = low
        while last < len(spans) and spans[last][0] <= stop:
            start, stop = min(start, spans[last][0]), max(stop, spans[last][1])
            last += 1
        spans[low:last] = [(start, stop)]

    def total(self) -> int:
        """Bytes in it."""
        return sum(stop - start for start, stop in self.spans)


class Use:
    """What was done with one file: bytes read of it, bytes moved for it, seconds that were waited for them.

    Attributes:
        source: where they came from last, and `missed`: see `sources.Source`.
    """

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.read = Spans()
        self.moved = 0
        self.took_s = 0.0
        self.size = 0
        self.source = ""
        self.missed: dict[str, str] = {}


class Fetch:
    """A request for some blocks of one file, one after the other."""

    def __init__(self, content: Content, first: int, stop: int) -> None:
        self.content, self.first, self.stop = content, first, stop
        self.next = first  # the block that comes next
        self.progress = time.monotonic()
        self.error: OSError | None = None
        self.over = False
        self.begun = False
        self.given_up = False
        self.waiting: set[Patience] = set()

    def wake(self) -> None:
        """Let those who wait look again."""
        for one in list(self.waiting):
            one.woken.set()


class Fetcher:
    """Carries out requests in threads of its own; wanted ones before those ahead.

    Args:
        blocks: where blocks go.
        deadline_s: how long a source may be silent.
    """

    def __init__(self, blocks: Blocks, deadline_s: float) -> None:
        self.blocks, self.deadline_s = blocks, deadline_s
        self._condition = threading.Condition()
        self._wanted: deque[Fetch] = deque()
        self._ahead: deque[Fetch] = deque()
        self._free = self._busy = self._stuck = 0
        self._closed = False

    def submit(self, fetch: Fetch, *, wanted: bool) -> bool:
        """Queue a request; False where it is not wanted enough."""
        with self._condition:
            if not wanted and len(self._ahead) >= MOST_AHEAD_WAITING:
                return False
            (self._wanted if wanted else self._ahead).append(fetch)
            if not self._free and self._busy - self._stuck < AT_ONCE and self._stuck < MOST_STUCK:
                self._busy += 1
                threading.Thread(target=self._work, name="fetch", daemon=True).start()
            else:
                self._condition.notify()
        return True

    def hurry(self, fetch: Fetch) -> None:
        """Somebody waits for what was only asked for ahead."""
        with self._condition:
            try:
                self._ahead.remove(fetch)
            except ValueError:
                return
            self._wanted.append(fetch)

    def give_up(self, fetch: Fetch) -> None:
        """A request's source does not answer: its thread is not waited for, and another one may be had."""
        with self._condition:
            if fetch.begun and not fetch.over and not fetch.given_up:
                fetch.given_up = True
                self._stuck += 1

    def close(self) -> None:
        """Begin nothing more."""
        with self._condition:
            self._closed = True
            self._wanted.clear()
            self._ahead.clear()
            self._condition.notify_all()

    def _work(self) -> None:
        while True:
            with self._condition:
                while not self._wanted and not self._ahead and not self._closed:
                    self._free += 1
                    woken = self._condition.wait(10.0)
                    self._free -= 1
                    if not woken and not self._wanted and not self._ahead:
                        self._busy -= 1
                        return
                if self._closed:
                    self._busy -= 1
                    return
                fetch = self._wanted.popleft() if self._wanted else self._ahead.popleft()
            if fetch.over:
                continue
            fetch.content.carry_out(fetch)
            with self._condition:
                if fetch.given_up:  # it has answered after all
                    self._stuck -= 1


class Content:
    """One version of one file's bytes.

    Args:
        fetcher: carries out requests.
        careful: where they come from.
        path: of the file there.
        version: its stamp and size.
        use: what is done with it.
    """

    def __init__(self, fetcher: Fetcher, careful: Careful, path: str, version: tuple[str, int], use: Use) -> None:
        self._fetcher, self._careful, self._path, self._use = fetcher, careful, path, use
        self.stamp, self.size = version
        source = careful.source
        digest = source.identity.startswith("digest:")
        self.key = key_of(source.identity + ("" if digest else "\0" + path), "" if digest else self.stamp, self.size)
        self._lock = threading.Lock()
        self._coming: dict[int, Fetch] = {}

    def read(self, start: int, length: int, patience: Patience, habits: Habits | None) -> bytes:
        """Bytes of the file; fewer at its end.

        Raises:
            OSError: they cannot be had.
        """
        stop = min(start + length, self.size)
        if start >= stop:
            return b""
        ahead = (stop, stop)
        with self._use.lock:
            self._use.read.add(start, stop)
            if habits is not None:
                ahead = habits.ahead(start, stop - start, self.size)
        also = range(ahead[0] // BLOCK, (ahead[1] + BLOCK - 1) // BLOCK) if ahead[0] < ahead[1] else range(0)
        first, last = start // BLOCK, (stop - 1) // BLOCK
        found: dict[int, bytes | memoryview] = {}
        for turn in range(8):  # a block may be taken away between its coming and its reading
            missing = [at for at in range(first, last + 1) if at not in found and not self._find(found, at)]
            if not missing:
                break
            began = time.monotonic()
            self._careful.check()
            fetches, also = self._ask(missing, also, again=turn > 0), range(0)
            self._await(fetches, patience)
            with self._use.lock:
                self._use.took_s += time.monotonic() - began
        else:
            raise OSError(errno.EIO, "its blocks do not stay", self._path)
        if also:
            self._ask([], also, again=False)
        pieces = [found[at] for at in range(first, last + 1)]
        pieces[-1] = memoryview(pieces[-1])[: stop - last * BLOCK]
        pieces[0] = memoryview(pieces[0])[start - first * BLOCK :]
        return b"".join(pieces)

    def keep(self, block: int, data: bytes) -> None:
        """Know a block from elsewhere: what was just written."""
        self._fetcher.blocks.put(self.key, block, data)

    def _length(self, block: int) -> int:
        return min(BLOCK, self.size - block * BLOCK)

    def _find(self, found: dict[int, bytes | memoryview], block: int) -> bool:
        data = self._fetcher.blocks.get(self.key, block, self._length(block))
        if data is None:
            return False
        found[block] = data
        return True

    def _ask(self, missing: list[int], ahead: range, *, again: bool) -> dict[Fetch, int]:
        """Ask for missing blocks, and for those ahead; returns the last missing one that each request brings.

        A block may have come since it was missed: then it is not asked for, unless it was missed again.
        """
        waited: dict[Fetch, int] = {}
        fresh: list[tuple[Fetch, bool]] = []
        blocks = self._fetcher.blocks
        with self._lock:
            wanted: set[int] = set()
            for at in missing:
                fetch = self._coming.get(at)
                if fetch is not None:
                    waited[fetch] = at
                elif again or not blocks.has(self.key, at):
                    wanted.add(at)
            room = len(self._coming) < MOST_COMING
            also = {at for at in ahead if room and at not in self._coming and not blocks.has(self.key, at)}
            for first, stop in _ranges(sorted(wanted | also)):
                fetch = Fetch(self, first, stop)
                self._coming.update(dict.fromkeys(range(first, stop), fetch))
                needed = [at for at in range(first, stop) if at in wanted]
                fresh.append((fetch, bool(needed)))
                if needed:
                    waited[fetch] = needed[-1]
        for fetch, is_wanted in fresh:
            if not self._fetcher.submit(fetch, wanted=is_wanted):
                self._end(fetch, None)
        for fetch in waited:
            if not fetch.begun:
                self._fetcher.hurry(fetch)
        return waited

    def _await(self, fetches: dict[Fetch, int], patience: Patience) -> None:
        for fetch in fetches:
            fetch.waiting.add(patience)
        try:
            for fetch, last in fetches.items():
                while fetch.next <= last and not fetch.over:
                    try:
                        patience.wait(fetch.progress)
                    except TimeoutError:
                        self._give_up(fetch)
                        raise OSError(errno.EIO, "the source is silent", self._path) from None
                if fetch.error is not None and fetch.next <= last:
                    raise OSError(fetch.error.errno or errno.EIO, fetch.error.strerror, self._path)
        finally:
            for fetch in fetches:
                fetch.waiting.discard(patience)

    def _give_up(self, fetch: Fetch) -> None:
        self._careful.lost()
        self._fetcher.give_up(fetch)
        self._end(fetch, OSError(errno.EIO, "the source is silent", self._path))

    def carry_out(self, fetch: Fetch) -> None:
        """Get what a request is for; called by the fetcher's threads."""
        fetch.begun = True
        fetch.progress = time.monotonic()
        error: OSError | None = None
        try:
            self._pour(fetch)
        except OSError as one:
            error = one
        except Exception as one:  # noqa: BLE001 - whoever waits must be told
            sys.stderr.write(traceback.format_exc())
            error = OSError(errno.EIO, str(one))
        self._careful.note(error)
        self._end(fetch, error)

    def _pour(self, fetch: Fetch) -> None:
        start, stop = fetch.first * BLOCK, min(fetch.stop * BLOCK, self.size)
        source = self._careful.source
        pieces: list[bytes] = []
        held = 0
        for data in source.read(self._path, self.stamp, start, stop - start):
            fetch.progress = time.monotonic()
            with self._use.lock:
                self._use.moved += len(data)
                self._use.source, self._use.missed = source.name, source.missed
            pieces.append(data)
            held += len(data)
            left = stop - fetch.next * BLOCK
            if held >= min(GROUP, left):
                # Of the last block of a file there is less than one; of what is too much, nothing is known.
                whole = min(left, held)
                whole -= 0 if whole == left else whole % BLOCK
                joined = pieces[0] if len(pieces) == 1 else b"".join(pieces)
                self._fetcher.blocks.put(self.key, fetch.next, memoryview(joined)[:whole])
                fetch.next += (whole + BLOCK - 1) // BLOCK
                pieces = [joined[whole:]] if whole < len(joined) else []
                held = len(joined) - whole
                fetch.wake()
        if fetch.next < fetch.stop:
            raise OSError(errno.EIO, "the file is shorter than it was", self._path)

    def _end(self, fetch: Fetch, error: OSError | None) -> None:
        if not fetch.over:
            fetch.error, fetch.over = error, True
        with self._lock:
            for at in range(fetch.first, fetch.stop):
                if self._coming.get(at) is fetch:
                    del self._coming[at]
        fetch.wake()


def _ranges(blocks: list[int]) -> list[tuple[int, int]]:
    """Blocks as ranges of no more than a piece each; a rest that is small goes along."""
    most = PIECE // BLOCK
    found: list[tuple[int, int]] = []
    at = 0
    while at < len(blocks):
        stop = at + 1
        while stop < len(blocks) and blocks[stop] == blocks[stop - 1] + 1:
            stop += 1
        first, count = blocks[at], stop - at
        while count > 0:
            take = count if count <= most + most // 4 else most
            found.append((first, first + take))
            first, count = first + take, count - take
        at = stop
    return found
