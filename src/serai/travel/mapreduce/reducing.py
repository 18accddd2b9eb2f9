"""One partition of all map outputs: merged, grouped by key, reduced and written.

The parts come in the order of the map tasks, and values keep the order (map task, position), whatever worker made them
and whichever attempt it was: the output is the same byte for byte.
"""

from __future__ import annotations

import contextlib
import itertools

from ..executor.functions import dumps
from .commands import Command, run_filter
from .gathering import ENTRY, LIST, outcomes, weigh_all
from .keys import in_order
from .mapping import BadJob, joined, number
from .runs import BLOCK, FAN_IN, SMALLEST, added, first, grouped, merged, narrowed, second

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence
    from typing import Any

    from .outputs import Output
    from .runs import Block

    Source = Callable[[], Iterator[Block]]

TEXT, PICKLE = "text", "pickle"
BATCH = 4096  # records that are written at once


class Program:
    """What is reduced with.

    Args:
        combiner: of the run: ``count``, ``sum``, or anything else.
        reducer: ``sum``, ``count``, a function, a `Command`, or None to leave values as they are.
        is_text: keys and values are bytes of lines, as commands give them.
    """

    def __init__(self, combiner: Any, reducer: Any, is_text: bool) -> None:
        if isinstance(reducer, str) and reducer not in ("sum", "count"):
            raise BadJob("there is no reducer %r: it is sum, count, a function or a command" % reducer)
        self.scalar = combiner in ("count", "sum")  # items are numbers and such, not lists of values
        if self.scalar and (reducer is None or (reducer == "count" and combiner == "count")):
            reducer = "sum"
        self.combiner = combiner
        self.reducer = reducer
        self.is_text = is_text

    @property
    def fold(self) -> Callable[[Iterator[Any]], Any] | None:
        """How parts may be merged on the way: counts and sums become one where they are summed anyhow."""
        return added if self.scalar and self.reducer == "sum" else None

    def values(self, items: Iterable[Any]) -> Iterator[Any]:
        """The values that items hold."""
        return iter(items) if self.scalar else itertools.chain.from_iterable(items)

    def results(self, key: Any, values: Iterator[Any]) -> Sequence[Any]:
        """What is written for a key."""
        reducer = self.reducer
        if reducer is None:
            return list(values)
        if reducer == "sum":
            if self.is_text and not self.scalar:
                values = map(number, values)
            return [added(values)]
        if reducer == "count":
            return [sum(1 for _ in values)]
        return outcomes(reducer(key, values))


def reduce_into(
    sources: list[Source], size: int, program: Program, memory_bytes: int, scratch: str
) -> Iterator[tuple[Any, Iterator[Any]]]:
    """Merge parts and give (key, values) in the order of keys.

    Args:
        sources: each opens a part; in the order of the map tasks. They may be opened twice.
        size: bytes of all parts.
        program: what is reduced with.
        memory_bytes: what may be held, about.
        scratch: a directory for what does not fit.
    """
    held = _held(sources, program, memory_bytes) if size <= memory_bytes // 4 else None
    if held is not None:
        for key in in_order(held):
            items = held.pop(key)
            yield key, program.values(items)
        return
    block_bytes = max(SMALLEST, min(BLOCK, memory_bytes // (8 * FAN_IN)))
    few = narrowed(sources, scratch, program.fold, not program.scalar, block_bytes)
    for key, several in grouped(merged(source() for source in few)):
        yield key, program.values(several)


def _held(sources: Iterable[Source], program: Program, memory_bytes: int) -> dict[Any, list[Any]] | None:
    """All items by key, or None when they are more than the memory that they may take."""
    held: dict[Any, list[Any]] = {}
    summed = program.fold is not None
    weight = 0
    for source in sources:
        for keys, items in source():
            known = len(held)
            if summed:
                for key, item in zip(keys, items):  # noqa: B905 - runs on Python 3.8
                    if key in held:
                        held[key] = held[key] + item
                    else:
                        held[key] = item
            else:
                for key, item in zip(keys, items):  # noqa: B905 - runs on Python 3.8
                    if key in held:
                        held[key].append(item)
                    else:
                        held[key] = [item]
                weight += weigh_all(items) + 9 * len(items)
            new = len(held) - known
            weight += weigh_all(list(itertools.islice(reversed(held), new))) + (ENTRY + LIST) * new
            if weight > memory_bytes:
                return None
    return {key: [item] for key, item in held.items()} if summed else held


def write_reduced(pairs: Iterator[tuple[Any, Iterator[Any]]], program: Program, form: str, output: Output) -> None:
    """Reduce and write.

    Args:
        pairs: (key, values) in order.
        program: what is reduced with.
        form: ``text`` (``key TAB value`` lines) or ``pickle`` (lists of pairs one after another).
        output: where to.
    """
    if isinstance(program.reducer, Command):
        if form != TEXT:
            raise BadJob("a command's output is text")
        for data in run_filter(program.reducer, (joined(_bytes(key), map(_value, values)) for key, values in pairs)):
            output.write(data, data.count(b"\n"))
        return
    flat = ((key, result) for key, values in pairs for result in program.results(key, values))
    write = dumps if form == PICKLE else _lines
    while True:
        some = list(itertools.islice(flat, BATCH))
        if not some:
            return
        output.write(write(some), len(some))


def _lines(pairs: list[tuple[Any, Any]]) -> bytes:
    if {str} == set(map(type, map(first, pairs))) and bytes not in set(map(type, map(second, pairs))):
        with contextlib.suppress(UnicodeEncodeError):
            return "".join(["%s\t%s\n" % pair for pair in pairs]).encode()
    lines = []
    for key, value in pairs:
        alone = value is None and type(key) is bytes  # a command's line without a TAB
        lines.append(_bytes(key) + (b"\n" if alone else b"\t" + _bytes(value) + b"\n"))
    return b"".join(lines)


def _value(value: Any) -> bytes | None:
    return None if value is None else _bytes(value)


def _bytes(value: Any) -> bytes:
    """A key or value as the text of a line; lone surrogates become the bytes that they were made of."""
    if type(value) is bytes:
        return value
    text = str(value)
    try:
        return text.encode("utf-8", "surrogateescape")
    except UnicodeEncodeError:
        return text.encode("utf-8", "surrogatepass")
