"""Commands over files from Python: lazily, over an iterator of any length."""

from __future__ import annotations

import contextlib
import glob as globbing
import os
import queue
import threading
from dataclasses import dataclass
from typing import TYPE_CHECKING

from serai.apps.bag import Bag, Outcome
from serai.describe.places import is_url
from serai.describe.sources import Source, files
from serai.describe.task import Item
from serai.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from serai.apps.plan import Plan
    from serai.dispatch.run import Run

READ_AHEAD = 500  # items taken from an iterator and not yet recorded
LOOK_S = 0.2  # between two looks whether anybody still wants more
AHEAD = 10_000  # tasks taken from an iterator and not yet consumed as outcomes


@dataclass(slots=True)
class _End:
    """The end of an iterator, and what it raised, if it did."""

    error: BaseException | None


def matching(*patterns: str, group: int = 1) -> Source:
    """Files by name or pattern (``data/*.txt``, ``**`` for any depth), sorted within a pattern.

    Args:
        patterns: names or patterns, or URLs of such: ``any://lab1/data/*.txt``.
        group: files in a task.

    Raises:
        UsageError: a pattern matches nothing; a URL names no file, or a host that cannot be asked.
    """
    found: list[str] = []
    for pattern in patterns:
        if is_url(pattern):
            from serai.apps.inputs import expand  # noqa: PLC0415 - fsspec is slow to import

            found += expand([pattern])
            continue
        names = sorted(globbing.glob(pattern, recursive=True)) if globbing.has_magic(pattern) else [pattern]
        if not names:
            raise UsageError(f"no file matches {pattern!r}", hint=f"looked from {os.getcwd()}")
        found += names
    return files(found, group)


def as_items(values: Iterable[Item | str | os.PathLike[str] | int | float]) -> Iterator[Item]:
    """Items as they are; a path is an input file, and anything else, such as a number, is a line."""
    for value in values:
        if isinstance(value, Item):
            yield value
        elif isinstance(value, str | os.PathLike):
            yield Item(inputs=(os.fspath(value),))
        else:
            yield Item(line=str(value))


def run_commands(
    run: Run, plan: Plan, values: Iterable[Item | str | os.PathLike[str] | int | float], bags: list[Bag]
) -> Iterator[Outcome]:
    """Run a plan over values; yields outcomes as they come. A caller that stops early ends what still runs.

    Args:
        run: where.
        plan: what.
        values: items, or paths of input files.
        bags: those of the pool, to which this one is added while it runs.
    """
    bag = Bag(run, plan, ahead=AHEAD)
    bags.append(bag)
    return _outcomes(bag, values, bags)


def _feed_promptly(bag: Bag, items: Iterator[Item]) -> None:
    """Feed a bag so that no item waits for the one after it: that one may depend on an outcome of this."""
    ready: queue.Queue[Item | _End] = queue.Queue(READ_AHEAD)

    def put(one: Item | _End) -> bool:
        while not bag.stopped:
            with contextlib.suppress(queue.Full):
                ready.put(one, timeout=LOOK_S)
                return True
        return False

    def read() -> None:
        try:
            for item in items:
                if not put(item):
                    return
            put(_End(None))
        except BaseException as error:  # noqa: BLE001 - the feeding thread raises it
            put(_End(error))

    threading.Thread(target=read, name="read", daemon=True).start()
    end: _End | None = None
    while end is None and not bag.stopped:
        batch, end = _take(ready)
        if batch and not bag.add(batch):
            return
    if end is not None and end.error is not None:
        raise end.error
    bag.finish_feeding()


def _take(ready: queue.Queue[Item | _End]) -> tuple[list[Item], _End | None]:
    """Take what is ready, and the end if that is; waits a moment where nothing is."""
    batch: list[Item] = []
    with contextlib.suppress(queue.Empty):
        one = ready.get(timeout=LOOK_S)
        while not isinstance(one, _End):
            batch.append(one)
            if len(batch) >= READ_AHEAD:
                return batch, None
            one = ready.get_nowait()
        return batch, one
    return batch, None


def _outcomes(
    bag: Bag, values: Iterable[Item | str | os.PathLike[str] | int | float], bags: list[Bag]
) -> Iterator[Outcome]:
    arrived: queue.SimpleQueue[list[Outcome] | None] = queue.SimpleQueue()
    bag.on_ended = arrived.put
    bag.on_broken = lambda: arrived.put(None)
    trouble: list[BaseException] = []

    def feed() -> None:
        try:
            _feed_promptly(bag, as_items(values))
        except BaseException as error:  # noqa: BLE001 - the caller gets it
            trouble.append(error)
            bag.finish_feeding()
        arrived.put(None)

    threading.Thread(target=feed, name="feed", daemon=True).start()
    fed = False
    taken = 0
    try:
        while not (fed and taken >= bag.total):
            batch = arrived.get()
            if batch is None:
                if bag.failure is not None:
                    raise bag.failure
                fed = True
                continue
            taken += len(batch)
            yield from batch
        if trouble:
            raise trouble[0]
    finally:
        bag.cancel()
        bags.remove(bag)
