"""Executors over one cache that are killed in the middle of what they do, from a seed; and what must hold all the time.

Each is a process of its own, which ends by SIGKILL just before or just after a call that it makes of the system, or in
the middle of one that writes. As a command: ``python tests/caching/crowd.py FIRST LAST``, for many seeds.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import random
import shutil
import signal
import sys
import tempfile
import time
import traceback
from pathlib import Path
from typing import TYPE_CHECKING, Any

from serai.travel.caching import log as logs
from serai.travel.caching.log import Log
from serai.travel.caching.objects import Cache, NoRoom
from serai.travel.caching.replacement import KINDS, LRU, Replacement

if TYPE_CHECKING:
    from collections.abc import Callable

AT_ONCE = 3  # executors
KILLED = 9  # of those there are, before the last end well
STEPS = 60  # of one that is not killed
FILES = 40
CALLS = ("rename", "unlink", "link", "open", "ftruncate", "fchmod", "utime", "close", "fstat")
DEADLINE_S = 40.0


class Broken(AssertionError):
    """Something did not hold."""


def bytes_of(file: int) -> bytes:
    """What a file of the test is; some are large."""
    draw = random.Random(file)  # noqa: S311 - no secret
    return draw.randbytes(draw.choice((500, 2000, 9000)))


def name_of(data: bytes) -> str:
    return hashlib.blake2b(data, digest_size=32).hexdigest()


# ---- one executor


def _dies(draw: random.Random, at: int) -> None:
    """End this process at its call of that number, before, in, or after it."""
    count = 0

    def mortal(real: Callable[..., Any]) -> Callable[..., Any]:
        def call(*args: Any, **more: Any) -> Any:
            nonlocal count
            count += 1
            if count == at and draw.random() < 0.5:
                if real is _write and len(args[1]) > 1:
                    real(args[0], bytes(args[1])[: draw.randrange(1, len(args[1]))])
                os.kill(os.getpid(), signal.SIGKILL)
            found = real(*args, **more)
            if count == at:
                os.kill(os.getpid(), signal.SIGKILL)
            return found

        return call

    for name in (*CALLS, "write"):
        setattr(os, name, mortal(getattr(os, name)))


_write = os.write


def executor(directory: Path, room: Path, seed: int, limit: int, dies_at: int) -> None:
    """Be one: bring files, use them, and let go of them."""
    draw = random.Random(seed)  # noqa: S311 - no secret
    said = os.open(room / "said", os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    if dies_at:
        _dies(draw, dies_at)
    cache = Cache(str(directory), limit, draw.choice(KINDS))
    pins: dict[str, Path] = {}
    for step in range(STEPS):
        data = bytes_of(draw.randrange(FILES))
        digest, pin = name_of(data), room / str(step)
        if pins and (len(pins) > 3 or draw.random() < 0.3):
            gone = draw.choice(list(pins))
            _write(said, b"- %s\n" % pins[gone].name.encode())
            pins.pop(gone).unlink()
        elif digest in pins:
            cache.is_whole(digest)
        elif cache.pin(digest, str(pin), quickly=draw.random() < 0.3) is not None or _bring(cache, data, pin, draw):
            pins[digest] = pin
            _write(said, b"+ %s %s\n" % (pin.name.encode(), digest.encode()))
            if pin.read_bytes() != data:
                raise Broken(f"{digest} is something else")
        cache.changes()
        for one in pins:
            if not Path(cache.path(one)).exists():
                raise Broken(f"{one} has left though it is in use")


def _bring(cache: Cache, data: bytes, pin: Path, draw: random.Random) -> bool:
    try:
        filling = cache.begin(len(data))
    except NoRoom:
        return False
    for at in range(0, len(data), 1000):
        filling.write(data[at : at + 1000])
    if draw.random() < 0.1:
        filling.abandon()
        return False
    cache.keep(filling, name_of(data), str(pin))
    return True


# ---- what must hold


def check(directory: Path, log: Log, limit: int) -> None:
    """Look at the cache while nobody changes it."""
    with log.locked():
        there = {path.name: path.stat().st_size for path in directory.glob("objects/*/*")}
        coming = 0
        for path in directory.glob("coming/*"):
            with contextlib.suppress(FileNotFoundError):  # it was given up meanwhile: that takes no lock
                coming += path.stat().st_size
        said = {digest: one.size for digest, one in log.objects.items()}
        if not there.items() <= said.items():
            raise Broken(f"the log lacks {there.items() - said.items()}")
        if log.held_bytes != sum(said.values()):
            raise Broken(f"{log.held_bytes} bytes are not the sum of {sum(said.values())}")
        if sum(there.values()) + coming > limit:
            raise Broken(f"{sum(there.values())} and {coming} bytes on their way are more than {limit}")


def check_pins(directory: Path, room: Path) -> None:
    """What a dead executor had in use is there, as long as nobody has cleared its directory away."""
    pins: dict[str, str] = {}
    for line in (room / "said").read_text().splitlines():
        sign, name, *more = line.split()
        if sign == "+":
            pins[name] = more[0]
        else:
            pins.pop(name)
    for name, digest in pins.items():
        if name_of((room / name).read_bytes()) != digest:
            raise Broken(f"the pin {name} is something else than {digest}")
        if not (directory / "objects" / digest[:2] / digest).exists():
            raise Broken(f"{digest} has left though it is in use")


class Crowd:
    """Executors that come, work, and are killed.

    Args:
        seed: of all that is drawn.
        base: an empty directory.
    """

    def __init__(self, seed: int, base: Path) -> None:
        logs.LOCK_S = 2 * DEADLINE_S  # who goes on without the lock may go beyond the limit
        self._draw = random.Random(seed)  # noqa: S311 - no secret
        self._seed = seed * 1000
        self._base = base
        self._directory = base / "cache"
        self._limits = [self._draw.randrange(20_000, 120_000) for _ in range(AT_ONCE)]
        Cache(str(self._directory), 0)
        self._log = Log(str(self._directory), lambda: Replacement(LRU, self._draw))
        self._rooms: dict[int, Path] = {}  # of those that live
        self._dead: list[Path] = []
        self._begun = 0
        self.killed = 0

    def run(self) -> None:
        """Let all come and go.

        Raises:
            Broken: something did not hold.
        """
        until = time.monotonic() + DEADLINE_S
        try:
            while self._begin() or self._rooms:
                check(self._directory, self._log, max(self._limits))
                for room in self._dead[-2:]:
                    check_pins(self._directory, room)
                self._bury()
                if time.monotonic() > until:
                    raise Broken("they take too long")
        finally:
            for pid in self._rooms:
                os.kill(pid, signal.SIGKILL)
                os.waitpid(pid, 0)
        self._check_end()

    def _begin(self) -> bool:
        """Have as many as there may be; returns whether there will be more."""
        while len(self._rooms) < AT_ONCE and self._begun < KILLED + AT_ONCE:
            self._begun += 1
            room = self._base / str(self._begun)
            room.mkdir()
            dies_at = self._draw.randrange(1, 400) if self._begun <= KILLED else 0
            limit = self._limits[self._begun % AT_ONCE]
            self._rooms[_fork(room, executor, self._directory, room, self._seed + self._begun, limit, dies_at)] = room
        return self._begun < KILLED + AT_ONCE

    def _bury(self) -> None:
        for pid in list(self._rooms):
            gone, status = os.waitpid(pid, os.WNOHANG)
            if gone:
                room = self._rooms.pop(pid)
                if status and not os.WIFSIGNALED(status):
                    raise Broken(f"an executor failed: {(room / 'why').read_text()}")
                self.killed += bool(status)
                if self._draw.random() < 0.5:
                    shutil.rmtree(room)  # as the next executor does with what a dead one left
                else:
                    self._dead.append(room)

    def _check_end(self) -> None:
        for room in self._dead:
            check_pins(self._directory, room)
        check(self._directory, self._log, max(self._limits))
        last = Cache(str(self._directory), min(self._limits))
        if set(last.digests()) != {path.name for path in self._directory.glob("objects/*/*")}:
            raise Broken("the log is not what is there, though it was looked through")
        if list(self._directory.glob("coming/*")):
            raise Broken("what dead executors were fetching was not cleared away")
        for room in self._dead:
            shutil.rmtree(room)
        last.begin(1).abandon()
        check(self._directory, self._log, min(self._limits))


def _fork(room: Path, run: Callable[..., None], *args: Any) -> int:
    pid = os.fork()
    if not pid:
        code = 1
        try:
            run(*args)
            code = 0
        except BaseException:  # noqa: BLE001 - the parent says so
            (room / "why").write_text(traceback.format_exc())
        finally:
            os._exit(code)
    return pid


def main() -> None:
    """Seeds from the first to the last."""
    for seed in range(int(sys.argv[1]), int(sys.argv[2]) + 1):
        with tempfile.TemporaryDirectory() as base:
            crowd = Crowd(seed, Path(base))
            try:
                crowd.run()
            except Broken as error:
                sys.exit(f"seed {seed}: {error}")
        sys.stdout.write(f"seed {seed}: {crowd.killed} of {KILLED} were killed\n")


if __name__ == "__main__":
    main()
