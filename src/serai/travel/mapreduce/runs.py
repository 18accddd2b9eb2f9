"""Sorted runs: how they are written, read and merged.

A run holds records (key, item) sorted by key. It is stored in blocks: a header with the payload's length and checksum,
then a pickle of two lists, keys and items. An item is one value, or a list of values; a key may stand in several
records after one another. Merging keeps records of equal keys in the order of the runs.
"""

from __future__ import annotations

import functools
import io
import itertools
import operator
import os
import pickle
import struct
from bisect import bisect_left, bisect_right
from zlib import crc32

from ..executor.functions import dumps
from .keys import KeyRefused

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence
    from typing import Any, BinaryIO

    Block = tuple[Sequence[Any], Sequence[Any]]

HEADER = struct.Struct("<II")
BLOCK = 1 << 18  # bytes that a block aims at
SMALLEST = 1 << 14
MOST_RECORDS = 1 << 16  # of a block
MOST_VALUES = 1 << 12  # of one item that is a list: more of them are another record
FAN_IN = 48  # runs that are merged at once
_PLAIN = frozenset((str, bytes, int, float, bool, type(None)))

first = operator.itemgetter(0)
second = operator.itemgetter(1)


class RunBroken(Exception):
    """A run's bytes are not those that were written."""


def pack(keys: list[Any], items: list[Any], plain: bool) -> bytes:
    """Pickle a block.

    Args:
        keys: of the records.
        items: of the records.
        plain: nothing in it refers to itself or to a class of the user's, so there is nothing to remember meanwhile.
    """
    if not plain:
        return dumps((keys, items))
    file = io.BytesIO()
    pickler = pickle.Pickler(file, 4)
    pickler.fast = True
    pickler.dump((keys, items))
    return file.getvalue()


def is_plain(keys: Sequence[Any], items: Sequence[Any], grouped: bool) -> bool:
    """Whether a block has scalars only (in lists, where it is grouped)."""
    values = itertools.chain.from_iterable(items) if grouped else items
    return _PLAIN.issuperset(map(type, keys)) and _PLAIN.issuperset(map(type, values))


class RunWriter:
    """Writes a file of partitions one after another, each a sorted run.

    Args:
        path: the file; it is made anew, for this user only.
        grouped: items are lists of values.
        block_bytes: what a block aims at.
    """

    def __init__(self, path: str, grouped: bool, block_bytes: int = BLOCK) -> None:
        self._file = os.fdopen(
            os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600), "wb", 1 << 20
        )
        self._grouped = grouped
        self._aim = block_bytes
        self._count = 256  # records of the next block
        self._start = self._at = 0
        self.path = path
        self.index: list[list[int]] = []

    def write(self, keys: Sequence[Any], items: Sequence[Any]) -> None:
        """Add records to the partition; their keys are in order and not before those that are there."""
        if self._grouped:
            keys, items = _divided(keys, items)
        at = 0
        while at < len(keys):
            stop = min(len(keys), at + self._count)
            some, held = list(keys[at:stop]), list(items[at:stop])
            payload = pack(some, held, is_plain(some, held, self._grouped))
            self._file.write(HEADER.pack(len(payload), crc32(payload)))
            self._file.write(payload)
            self._at += HEADER.size + len(payload)
            fitting = (stop - at) * self._aim // max(1, len(payload))
            self._count = max(1, min(fitting, 4 * self._count, MOST_RECORDS))
            at = stop

    def end_partition(self) -> None:
        """What is written from now on belongs to the next partition."""
        self.index.append([self._start, self._at - self._start])
        self._start = self._at

    def close(self) -> None:
        """Write what is buffered.

        Raises:
            OSError: the disk is full, for example.
        """
        self._file.close()


def _divided(keys: Sequence[Any], items: Sequence[Any]) -> Block:
    """Make records with very many values into several."""
    if not items or max(map(len, items)) <= MOST_VALUES:
        return keys, items
    divided_keys, divided = [], []
    for key, item in zip(keys, items):  # noqa: B905 - runs on Python 3.8
        for at in range(0, len(item), MOST_VALUES):
            divided_keys.append(key)
            divided.append(item[at : at + MOST_VALUES])
    return divided_keys, divided


def read_blocks(file: BinaryIO, size: int) -> Iterator[Block]:
    """Read a run's blocks from where the file stands.

    Args:
        file: open for reading.
        size: bytes of the run.

    Raises:
        RunBroken: it is cut off, or its bytes were changed.
    """
    while size > 0:
        header = file.read(HEADER.size)
        if len(header) < HEADER.size:
            raise RunBroken("a run ends within a header")
        length, checksum = HEADER.unpack(header)
        size -= HEADER.size + length
        payload = file.read(length) if size >= 0 else b""
        if len(payload) < length or crc32(payload) != checksum:
            raise RunBroken("a run's block is cut off or damaged")
        yield pickle.loads(payload)  # noqa: S301 - the run's own workers wrote it


def read_piece(path: str, start: int, size: int) -> Iterator[Block]:
    """Read the run that is a part of a file."""
    if not size:
        return
    with open(path, "rb", buffering=1 << 17) as file:
        file.seek(start)
        yield from read_blocks(file, size)


class _Cursor:
    """Where the reading of a run is; after `load`, ``at`` is within ``keys`` unless the run is at its end."""

    def __init__(self, blocks: Iterator[Block]) -> None:
        self._blocks = blocks
        self.keys: Sequence[Any] = ()
        self.items: Sequence[Any] = ()
        self.at = 0

    def load(self) -> bool:
        """Whether there are records left."""
        while self.at >= len(self.keys):
            block = next(self._blocks, None)
            if block is None:
                self.keys = ()
                return False
            self.keys, self.items = block
            self.at = 0
        return True

    def take(self, stop: int) -> Iterator[tuple[Any, Any]]:
        """The records up to an index."""
        start, self.at = self.at, stop
        return zip(self.keys[start:stop], self.items[start:stop])  # noqa: B905 - runs on Python 3.8


def merged(runs: Iterable[Iterator[Block]]) -> Iterator[list[tuple[Any, Any]]]:
    """Merge sorted runs; holds one block of each.

    Whole pieces of the runs are concatenated and sorted, since the sort of lists finds the pieces and merges them, and
    is stable: what is equal stays in the order of the runs. Sorted are, at a time, the records below the least of the
    blocks' last keys; those equal to it follow run by run, however many blocks they fill.

    Yields:
        Lists of (key, item), together all records in order.

    Raises:
        KeyRefused: keys cannot be compared.
    """
    cursors = [_Cursor(iter(run)) for run in runs]
    try:
        while True:
            cursors = [cursor for cursor in cursors if cursor.load()]
            if len(cursors) < 2:
                break
            bound = min(cursor.keys[-1] for cursor in cursors)
            pieces = [cursor.take(bisect_left(cursor.keys, bound, cursor.at)) for cursor in cursors]
            records = list(itertools.chain.from_iterable(pieces))
            if records:
                records.sort(key=first)
                yield records
            for cursor in cursors:
                while cursor.load() and cursor.keys[cursor.at] == bound:
                    yield list(cursor.take(bisect_right(cursor.keys, bound, cursor.at)))
    except TypeError as error:
        raise KeyRefused("the keys of a run are sorted, and these cannot be compared: %s" % error) from error
    for cursor in cursors:
        while cursor.load():
            yield list(cursor.take(len(cursor.keys)))


def grouped(records: Iterable[list[tuple[Any, Any]]]) -> Iterator[tuple[Any, Iterator[Any]]]:
    """Give (key, its items) for what `merged` gives; the items are to be used before the next key is asked for."""
    for key, group in itertools.groupby(itertools.chain.from_iterable(records), first):
        yield key, map(second, group)


def write_records(
    records: Iterable[list[tuple[Any, Any]]], writer: RunWriter, fold: Callable[[Iterator[Any]], Any] | None
) -> None:
    """Write what `merged` gives as one partition.

    Args:
        records: in order.
        writer: where to.
        fold: makes one item of those of a key; None to leave them as they are.
    """
    if fold is None:
        for some in records:
            writer.write([key for key, _ in some], [item for _, item in some])
    else:
        folded = ((key, fold(items)) for key, items in grouped(records))
        while True:
            some = list(itertools.islice(folded, 4096))
            if not some:
                break
            writer.write([key for key, _ in some], [item for _, item in some])
    writer.end_partition()


def added(items: Iterator[Any]) -> Any:
    """The sum of items, in their order; of anything that can be added."""
    return functools.reduce(operator.add, items)


def narrowed(
    sources: list[Callable[[], Iterator[Block]]],
    scratch: str,
    fold: Callable[[Iterator[Any]], Any] | None,
    is_grouped: bool,
    block_bytes: int = BLOCK,
) -> list[Callable[[], Iterator[Block]]]:
    """Merge neighbours over runs on disk until no more than `FAN_IN` are left.

    Args:
        sources: each opens a run; in order.
        scratch: a directory for the runs that are made, which stay there.
        fold: as of `write_records`.
        is_grouped: items are lists.
        block_bytes: of the runs that are made.
    """
    made = 0
    while len(sources) > FAN_IN:
        following: list[Callable[[], Iterator[Block]]] = []
        for number in range(0, len(sources), FAN_IN):
            writer = RunWriter(os.path.join(scratch, "merge-%d" % made), is_grouped, block_bytes)
            made += 1
            try:
                write_records(merged(source() for source in sources[number : number + FAN_IN]), writer, fold)
            finally:
                writer.close()
            following.append(functools.partial(read_piece, writer.path, *writer.index[0]))
        sources = following
    return sources
