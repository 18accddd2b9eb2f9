"""A bare execnet loop over two popen gateways; variant `single` (a message per task) or `bundles` (of 100)."""

from __future__ import annotations

import threading
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import execnet
from meter import Asked, Engine, main

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

WAIT_S = 600
LOOP = """
import subprocess
def same(number):
    return number
def command(argv):
    done = subprocess.run(argv, capture_output=True)
    return done.returncode, done.stdout, done.stderr
for kind, bundle in channel:
    work = command if kind else same
    channel.send([work(item) for item in bundle])
"""


class Loop:
    """Two gateways that answer bundles; what is under way is bounded only by the count, as in any submit-all loop."""

    def __init__(self, group: execnet.Group, size: int) -> None:
        self._size = size
        self._channels = [group.makegateway("popen").remote_exec(LOOP) for _ in range(2)]
        self._answers: list[Any] = []
        self._awaited = 0
        self._all_there = threading.Event()
        for channel in self._channels:
            channel.setcallback(self._take)

    def _take(self, bundle: list[Any]) -> None:
        self._answers += bundle  # both gateways have their own receiver thread; a list takes this in one step
        if len(self._answers) == self._awaited:
            self._all_there.set()

    def run(self, kind: int, items: Sequence[Any]) -> list[Any]:
        """Send all items in bundles, in turn to either gateway, and await all answers."""
        self._answers, self._awaited = [], len(items)
        self._all_there.clear()
        for turn, at in enumerate(range(0, len(items), self._size)):
            self._channels[turn % 2].send((kind, items[at : at + self._size]))
        if not self._all_there.wait(WAIT_S):
            raise TimeoutError(f"{len(self._answers)} of {len(items)} answers in {WAIT_S} s")
        return self._answers


@contextmanager
def gateways(asked: Asked) -> Iterator[Engine]:
    """Open the two gateways."""
    group = execnet.Group()
    try:
        loop = Loop(group, 100 if asked.variant == "bundles" else 1)

        def functions(count: int) -> list[int]:
            return loop.run(0, list(range(count)))

        def commands(argv: Sequence[str], count: int) -> list[tuple[int, bytes, bytes]]:
            return loop.run(1, [tuple(argv)] * count)

        yield Engine(execnet.__version__, functions, commands)
    finally:
        group.terminate(timeout=5)


if __name__ == "__main__":
    main(gateways)
