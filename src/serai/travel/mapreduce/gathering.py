"""Collecting what mappers give, by key, within a limit of memory; what does not fit is spilled as sorted runs.

Keys are collected in a dict: of counts, of sums or of lists of values, so that what is sorted and sent is the distinct
keys only. How much memory is held is estimated from the sizes of what came in.
"""

from __future__ import annotations

import functools
import itertools
import os
from collections import Counter
from sys import getsizeof

from .keys import in_order, parted
from .runs import BLOCK, FAN_IN, SMALLEST, RunWriter, added, merged, read_piece, second, write_records

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping
    from typing import Any

ENTRY = 144  # bytes of a dict's entry with the slack of its growth, and of a small number
LIST = 120  # bytes of a short list, beside its values
POINTER = 9  # bytes in a list that grows
NUMBER = 20  # bytes, between the small ones that are shared and others
TEXT = 57  # bytes, beside what it says
BATCH = 1 << 12  # pairs that are taken at once
_SCALAR = frozenset((int, float, bool, type(None)))
_TEXT = frozenset((str, bytes))
_FLAT = _SCALAR | _TEXT


class GivesNoPairs(TypeError):
    """What a mapper gives are no (key, value) pairs, or cannot be collected."""


def weigh(value: Any, depth: int = 4) -> int:
    """Estimate the bytes of memory that a value takes."""
    size = getsizeof(value)
    if type(value) in _FLAT or not depth:
        return size
    if isinstance(value, dict):
        return size + sum(weigh(one, depth - 1) for pair in value.items() for one in pair)
    if isinstance(value, (tuple, list, set, frozenset)):
        return size + sum(weigh(one, depth - 1) for one in value)
    inside = getattr(value, "__dict__", None)
    return size + (weigh(inside, depth - 1) if isinstance(inside, dict) else 0)


def weigh_all(values: Iterable[Any]) -> int:
    """Estimate the memory of many values; much faster where they are all scalars."""
    values = values if isinstance(values, list) else list(values)
    types = set(map(type, values))
    if types <= _SCALAR:
        return NUMBER * len(values)
    if len(types) == 1 and types <= _TEXT:
        return TEXT * len(values) + sum(map(len, values))
    if types <= _FLAT:
        return sum(map(getsizeof, values))
    return sum(map(weigh, values))


class Gathered:
    """What was collected, in memory and in spilled runs. Subclasses say what an item is.

    Args:
        partitions: how many.
        memory_bytes: what may be held before it is spilled, about.
        scratch: a directory for runs.

    Attributes:
        limit: the memory.
    """

    grouped = False
    fold: Callable[[Iterator[Any]], Any] | None = None

    def __init__(self, partitions: int, memory_bytes: int, scratch: str) -> None:
        self._partitions = partitions
        self.limit = memory_bytes
        self._scratch = scratch
        self._weight = 0
        self._spills: list[tuple[str, list[list[int]]]] = []
        self._spilled = 0
        self._block_bytes = max(SMALLEST, min(BLOCK, memory_bytes // (8 * FAN_IN)))
        self.items: dict[Any, Any] = {}

    def add_keys(self, keys: Iterator[Any]) -> None:
        """Collect keys that stand for (key, 1)."""
        self.add_pairs(zip(keys, itertools.repeat(1)))

    def add_pairs(self, pairs: Iterator[tuple[Any, Any]]) -> None:
        """Collect (key, value)."""
        raise NotImplementedError

    def combine(self) -> None:
        """Combine what is held, where something combines, and weigh it again."""

    def finish(self, path: str) -> list[list[int]]:
        """Write all that was collected: one file of sorted partitions one after another.

        Args:
            path: where to.

        Returns:
            [start, size] in bytes of each partition.
        """
        self.combine()
        if not self._spills:
            self._write(path)
            return self._written
        if self.items:
            self._spill()
        self._merge_spills(path)
        return self._written

    def _made_room(self) -> None:
        """Called now and then: spill where the limit is reached."""
        if self._weight > self.limit:
            self.combine()
            if self._weight > self.limit // 2:
                self._spill()

    def _spill(self) -> None:
        path = os.path.join(self._scratch, "spill-%d" % self._spilled)
        self._spilled += 1
        self._write(path)
        self._spills.append((path, self._written))
        if len(self._spills) == FAN_IN:
            path = os.path.join(self._scratch, "spill-%d" % self._spilled)
            self._spilled += 1
            self._merge_spills(path)
            self._spills = [(path, self._written)]

    def _write(self, path: str) -> None:
        """Write what is held as a run, and let go of it."""
        writer = RunWriter(path, self.grouped, self._block_bytes)
        try:
            items = self.items
            for keys in parted(items, self._partitions):
                ordered = in_order(keys)
                writer.write(ordered, list(map(items.__getitem__, ordered)))
                writer.end_partition()
        finally:
            writer.close()
        self._written = writer.index
        self.items.clear()
        self._weight = 0

    def _merge_spills(self, path: str) -> None:
        writer = RunWriter(path, self.grouped, self._block_bytes)
        try:
            for partition in range(self._partitions):
                runs = [read_piece(spill, *index[partition]) for spill, index in self._spills]
                write_records(merged(runs), writer, self.fold)
        finally:
            writer.close()
        self._written = writer.index
        for spill, _ in self._spills:
            os.unlink(spill)
        self._spills = []

    def _weigh_new(self, known: int) -> None:
        """Weigh the keys that came since there were ``known``: a dict keeps them in the order of their coming."""
        new = len(self.items) - known
        if new:
            self._weight += weigh_all(list(itertools.islice(reversed(self.items), new))) + ENTRY * new


class Counts(Gathered):
    """How often each key came."""

    fold = staticmethod(added)

    def __init__(self, partitions: int, memory_bytes: int, scratch: str) -> None:
        super().__init__(partitions, memory_bytes, scratch)
        self._counter: Counter[Any] = Counter()
        self.items = self._counter

    def add_keys(self, keys: Iterator[Any]) -> None:
        """See `Gathered.add_keys`; at the speed of C."""
        for one in keys:  # whatever a mapper gives, no more than so many are taken before there is room for them
            self.add_list(itertools.chain((one,), itertools.islice(keys, 16 * BATCH)))

    def add_list(self, keys: Iterable[Any]) -> None:
        """Count some keys; they are not too many."""
        known = len(self.items)
        try:
            self._counter.update(keys)
        except TypeError as error:
            if from_within(error, 1):
                raise
            raise GivesNoPairs("the mapper's keys cannot be counted: %s" % error) from error
        self._weigh_new(known)
        self._made_room()

    def add_counts(self, counts: Mapping[Any, int]) -> None:
        """Add what was counted elsewhere."""
        known = len(self.items)
        items = self.items
        if items:
            get = items.get
            for key, count in counts.items():
                items[key] = get(key, 0) + count
        else:
            items.update(counts)
        self._weigh_new(known)
        self._made_room()


class Sums(Gathered):
    """The sum of each key's values."""

    fold = staticmethod(added)

    def add_pairs(self, pairs: Iterator[tuple[Any, Any]]) -> None:
        """See `Gathered.add_pairs`."""
        items = self.items
        pair: Any = None
        value: Any = None
        try:
            for one in pairs:  # a mapper may give any number
                known = len(items)
                for pair in itertools.chain((one,), itertools.islice(pairs, BATCH)):
                    key, value = pair
                    if key in items:
                        items[key] = items[key] + value
                    else:
                        items[key] = value
                self._weigh_new(known)
                if type(value) not in _SCALAR:
                    self._weight += BATCH * weigh(value)
                self._made_room()
        except (TypeError, ValueError) as error:
            if from_within(error):
                raise
            raise _explained(pair, error) from error

    def combine(self) -> None:
        """See `Gathered.combine`: sums may be as large as one of what was added, or as all of it."""
        self._weight = weigh_all(list(self.items)) + weigh_all(list(self.items.values())) + ENTRY * len(self.items)


class Groups(Gathered):
    """Each key's values, in the order of their coming.

    Args:
        partitions: how many.
        memory_bytes: as of `Gathered`.
        scratch: as of `Gathered`.
        combine: makes fewer values of them: takes all that is held and gives it anew; None for nothing.
    """

    grouped = True

    def __init__(
        self,
        partitions: int,
        memory_bytes: int,
        scratch: str,
        combine: Callable[[dict[Any, list[Any]]], dict[Any, list[Any]]] | None = None,
    ) -> None:
        super().__init__(partitions, memory_bytes, scratch)
        self._combine = combine
        self._batch = 64

    def add_pairs(self, pairs: Iterator[tuple[Any, Any]]) -> None:
        """See `Gathered.add_pairs`."""
        while True:
            batch = list(itertools.islice(pairs, self._batch))
            if not batch:
                return
            items = self.items
            known = len(items)
            pair: Any = None
            try:
                for pair in batch:
                    key, value = pair
                    if key in items:
                        items[key].append(value)
                    else:
                        items[key] = [value]
                came = weigh_all(list(map(second, batch))) + POINTER * len(batch)
            except (TypeError, ValueError) as error:
                raise _explained(pair, error) from error
            self._weight += came + LIST * (len(items) - known)
            self._weigh_new(known)
            # Values may be large: no more than a small part of the memory is to come unweighed.
            self._batch = max(1, self._batch // 2) if came > self.limit // 32 else min(BATCH, self._batch * 2)
            self._made_room()

    def add_repeated(self, repeated: Iterable[tuple[Any, Any, int]]) -> None:
        """Collect (key, value, how many times)."""
        items = self.items
        known = len(items)
        for key, value, times in repeated:
            if key in items:
                items[key].extend(itertools.repeat(value, times))
            else:
                items[key] = [value] * times
            self._weight += POINTER * times + TEXT
        self._weight += LIST * (len(items) - known)
        self._weigh_new(known)
        self._made_room()

    def combine(self) -> None:
        """See `Gathered.combine`."""
        if self._combine is not None:
            self.items = self._combine(self.items)
            values = itertools.chain.from_iterable(self.items.values())
            self._weight = weigh_all(list(self.items)) + weigh_all(values) + (ENTRY + LIST) * len(self.items)


def from_within(error: BaseException, between: int = 0) -> bool:
    """Whether the user's function raised it, and not the one that catches it.

    Args:
        error: what was caught.
        between: functions of the library that are between the one that catches it and the user's.
    """
    inner = error.__traceback__
    for _ in range(between + 1):
        inner = inner and inner.tb_next
    return inner is not None


def _explained(pair: Any, error: Exception) -> Exception:
    """What is to be said where collecting failed."""
    if not isinstance(pair, (tuple, list)) or len(pair) != 2:
        return GivesNoPairs("a mapper gives (key, value) pairs; this one gave %s" % (repr(pair)[:200]))
    return GivesNoPairs("what the mapper gives cannot be collected: %s: %s" % (type(error).__name__, error))


def combined_by(combiner: Callable[[Any, Iterator[Any]], Any]) -> Callable[..., dict[Any, list[Any]]]:
    """How a function combines: it is called as ``combiner(key, values)`` where there is more than one value."""
    return functools.partial(_combined, combiner)


def _combined(combiner: Callable[[Any, Iterator[Any]], Any], items: dict[Any, list[Any]]) -> dict[Any, list[Any]]:
    for key, values in items.items():
        if len(values) > 1:
            items[key] = outcomes(combiner(key, iter(values)))
    return items


def outcomes(outcome: Any) -> list[Any]:
    """What a combiner or reducer gave, as a list: a generator gives several values, anything else is one."""
    return list(outcome) if hasattr(outcome, "send") and hasattr(outcome, "__next__") else [outcome]
