"""Running a mapper over a split: a function here, a command behind pipes.

A function is called with each line. Where it is ``str.split`` itself and its keys are counted, whole blocks are split
at once: an end of a line is white space too, so the words are the same.
"""

from __future__ import annotations

import collections
import importlib
import importlib.util
import itertools
import re
import struct
import sys

from .commands import in_pieces, run_filter
from .gathering import Counts, Groups, Sums, combined_by
from .splits import byte_lines, lines_of, text_lines

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping
    from typing import Any

    from .commands import Command
    from .gathering import Gathered

WORTH_IMPORT = 16 << 20  # bytes of words: importing pyarrow takes as long as counting these
MOST_HELD = 1 << 25  # bytes of text whose words are held before they are counted

_SEPARATORS = (0x1C, 0x1D, 0x1E, 0x1F)
_RARE = (  # what Unicode calls white space beyond ASCII, in UTF-8, by the byte that it begins with
    (0xC2, re.compile(rb"\xc2[\x85\xa0]")),
    (0xE1, re.compile(rb"\xe1\x9a\x80")),
    (0xE2, re.compile(rb"\xe2(?:\x80[\x80-\x8a\xa8\xa9\xaf]|\x81\x9f)")),
    (0xE3, re.compile(rb"\xe3\x80\x80")),
)
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
    if isinstance(into, Counts) and (mapper, records) in ((str.split, LINES), (bytes.split, BYTES)):
        count_words(blocks, records == LINES, into)
        return
    if records not in (LINES, BYTES):
        raise BadJob("records are %r: lines or bytes" % (records,))
    cut = text_lines if records == LINES else byte_lines
    add = into.add_keys if isinstance(into, Counts) else into.add_pairs
    for block in blocks:
        add(itertools.chain.from_iterable(map(mapper, cut(block))))


def count_words(blocks: Iterable[bytes], is_text: bool, into: Counts) -> None:
    """Count words as ``str.split`` or ``bytes.split`` give them.

    That is twice as fast with pyarrow, where it is installed and there is enough to be worth its import.

    Args:
        blocks: whole lines.
        is_text: words are text, and what is white space Unicode's to say.
        into: what collects.
    """
    natively = Words.if_there(into, is_text) if "pyarrow" in sys.modules else None  # an earlier split imported it
    seen = 0
    for block in blocks:
        seen += len(block)
        if natively is not None and not (is_text and has_rare_spaces(block)):
            natively.add(block)
        elif is_text:
            into.add_list(block.decode("utf-8", "surrogateescape").split())
        else:
            into.add_list(block.split())
        if natively is None and seen >= WORTH_IMPORT:
            natively = Words.if_there(into, is_text)
            seen = 0
    if natively is not None:
        natively.flush()


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
    if not text:
        raise BadJob("values are summed, and a line has none: mappers write key TAB number")
    raise BadJob("values are summed, and %r is no number" % text[:100].decode("utf-8", "backslashreplace"))


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


def has_rare_spaces(block: bytes) -> bool:
    """Whether ``str.split`` may cut a text elsewhere than at the white space that ASCII has and C knows."""
    if any(byte in block for byte in _SEPARATORS):
        return True
    return not block.isascii() and any(lead in block and pattern.search(block) for lead, pattern in _RARE)


class Words:
    """Counts words of blocks.

    Args:
        arrow: the module ``pyarrow``.
        compute: the module ``pyarrow.compute``.
        into: takes the counts.
        is_text: words are text.
    """

    def __init__(self, arrow: Any, compute: Any, into: Counts, is_text: bool) -> None:
        self._arrow = arrow
        self._compute = compute
        self._into = into
        self._is_text = is_text
        self._most = min(MOST_HELD, into.limit // 8)
        self._held: list[Any] = []
        self._held_bytes = 0

    @classmethod
    def if_there(cls, into: Counts, is_text: bool) -> Words | None:
        """One, if pyarrow can be imported."""
        try:
            if importlib.util.find_spec("pyarrow") is None:
                return None
            arrow, compute = importlib.import_module("pyarrow"), importlib.import_module("pyarrow.compute")
            compute.ascii_split_whitespace  # noqa: B018 - whether it has it
            arrow.set_cpu_count(1)  # the other processors have workers of their own
        except Exception:  # noqa: BLE001 - one that does not fit this Python is as good as none
            return None
        return cls(arrow, compute, into, is_text)

    def add(self, block: bytes) -> None:
        """Count the words of some whole lines."""
        arrow = self._arrow
        ends = arrow.py_buffer(struct.pack("=ii", 0, len(block)))  # a block is never as long as 2 GB: a line is not
        whole = arrow.StringArray.from_buffers(1, ends, arrow.py_buffer(block))
        self._held.append(self._compute.list_flatten(self._compute.ascii_split_whitespace(whole)))
        self._held_bytes += len(block)
        if self._held_bytes >= self._most:
            self.flush()

    def flush(self) -> None:
        """Hand over what was counted."""
        if not self._held:
            return
        counted = self._compute.value_counts(self._arrow.chunked_array(self._held))
        self._held, self._held_bytes = [], 0
        words = counted.field("values").cast(self._arrow.binary()).to_pylist()
        if self._is_text:
            words = [word.decode("utf-8", "surrogateescape") for word in words]
        counts = dict(zip(words, counted.field("counts").to_pylist()))  # noqa: B905 - runs on Python 3.8
        counts.pop("" if self._is_text else b"", None)  # what is before the first and behind the last space
        self._into.add_counts(counts)
