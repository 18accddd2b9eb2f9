"""Running a mapper over a split: a function here, a command behind pipes.

A function is called with each line. Where it is ``str.split`` itself and its keys are counted, whole blocks are split
at once: an end of a line is white space too, so the words are the same.
"""

from __future__ import annotations

import collections
import itertools

from .commands import in_pieces, run_filter
from .gathering import Counts, Groups, Sums, combined_by
from .splits import byte_lines, lines_of, text_lines

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping
    from typing import Any

    from .commands import Command
    from .gathering import Gathered

LINES, BYTES = "lines", "bytes"  # what a record is: a line as text, or as bytes


class BadJob(ValueError):
    """What a run was asked for cannot be carried out."""


def gathered_by(combiner: Any, partitions: int, memory_bytes: int, scratch: str) -> Gathered:
    """What collects for a combiner: ``count``, ``sum``, a function, a command or None."""
    if combiner == "count":
        return Counts(partitions, memory_bytes, scratch)
    if combiner == "sum":
        return Sums(partitions, memory_bytes, scratch)
    if combiner is None:
        return Groups(partitions, memory_bytes, scratch)
    if isinstance(combiner, str):
        raise BadJob("there is no combiner %r: it is count, sum, a function or a command" % combiner)
    if callable(combiner):
        return Groups(partitions, memory_bytes, scratch, combined_by(combiner))
    return Groups(partitions, memory_bytes, scratch, lambda items: combined_by_command(combiner, items))


def map_with_function(
    mapper: Callable[[Any], Iterable[Any]], blocks: Iterable[bytes], records: str, into: Gathered
) -> None:
    """Call a mapper with each record and collect what it gives.

    Args:
        mapper: gives (key, value) pairs, or keys alone where they are counted.
        blocks: whole lines.
        records: ``lines`` or ``bytes``.
        into: what collects.
    """
    if isinstance(into, Counts):
        if mapper is str.split and records == LINES:
            for block in blocks:
                into.add_list(block.decode("utf-8", "surrogateescape").split())
            return
        if mapper is bytes.split and records == BYTES:
            for block in blocks:
                into.add_list(block.split())
            return
    if records not in (LINES, BYTES):
        raise BadJob("records are %r: lines or bytes" % (records,))
    cut = text_lines if records == LINES else byte_lines
    add = into.add_keys if isinstance(into, Counts) else into.add_pairs
    for block in blocks:
        add(itertools.chain.from_iterable(map(mapper, cut(block))))


def map_with_command(command: Command, blocks: Iterable[bytes], into: Gathered) -> None:
    """Run a command over the lines of a split and collect the lines that it gives.

    Args:
        command: reads lines, writes ``key TAB value`` lines; a line without a TAB is a key without a value.
        blocks: whole lines.
        into: what collects.
    """
    repeats = True  # until they do not: then nothing is gained by looking
    for block in lines_of(in_pieces(run_filter(command, blocks), 1 << 20)):
        lines = block.split(b"\n")
        if not lines[-1]:
            lines.pop()
        if isinstance(into, Counts):
            into.add_list(lines if b"\t" not in block else [line.partition(b"\t")[0] for line in lines])
        elif isinstance(into, Sums):
            into.add_pairs((key, number(value)) for key, _, value in (line.partition(b"\t") for line in lines))
        else:
            several = repeated(lines) if repeats and isinstance(into, Groups) else None
            if several is not None and isinstance(into, Groups):
                into.add_repeated(several)
            else:
                repeats = False
                into.add_pairs(iter(list(map(parsed, lines))))


def repeated(lines: list[bytes]) -> list[tuple[bytes, bytes | None, int]] | None:
    """Count lines that say the same: (key, value, times).

    None where that gains little, and where a key has several values here, whose order counting would lose.
    """
    counted = collections.Counter(lines)
    if 2 * len(counted) > len(lines):
        return None
    several = [(*parsed(line), times) for line, times in counted.items()]
    return several if len({key for key, _, _ in several}) == len(several) else None


def parsed(line: bytes) -> tuple[bytes, bytes | None]:
    """A line's key and value; the value is None where there is no TAB."""
    key, tab, value = line.partition(b"\t")
    return key, value if tab else None


def number(text: bytes | None) -> float:
    """The number that a line's value is, for sums.

    Raises:
        BadJob: it is none.
    """
    for kind in (int, float):
        try:
            return kind(text or b"")
        except ValueError:
            pass
    raise BadJob("values are summed, and %r is no number" % (text or b"")[:100])


def lines_with(items: Mapping[Any, Iterable[Any]]) -> Iterator[bytes]:
    """Blocks of ``key TAB value`` lines, sorted by key, for a command."""
    for key in sorted(items):
        yield joined(key, items[key])


def joined(key: bytes, values: Iterable[bytes | None]) -> bytes:
    """The lines of a key, each with its end."""
    return b"".join([key + b"\n" if value is None else b"%s\t%s\n" % (key, value) for value in values])


def combined_by_command(command: Command, items: dict[Any, list[Any]]) -> dict[Any, list[Any]]:
    """Run a combiner over what is held, sorted by key, and collect the lines that it gives."""
    combined: dict[Any, list[Any]] = {}
    for block in lines_of(run_filter(command, lines_with(items))):
        for key, value in map(parsed, block[: -1 if block.endswith(b"\n") else None].split(b"\n")):
            combined.setdefault(key, []).append(value)
    return combined
