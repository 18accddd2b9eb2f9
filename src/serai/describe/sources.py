"""Where tasks come from: files on the command line, ranges, lists, tables and JSON lines, read as they are needed.

A source never holds its tasks: two million rows pass through it one by one. It can be described in JSON, so that a run
can be resumed from its journal, and its file has a fingerprint, so that a changed file is noticed.
"""

from __future__ import annotations

import csv
import json
import re
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any, Protocol

from serai.describe.task import Item
from serai.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

_LONGEST_LINE_BYTES = 16 * 1024**2  # a file without newlines is not read into memory whole
_RANGE = re.compile(r"(-?[0-9]+)\.\.(-?[0-9]+)", re.ASCII)
_PYTHON_RANGE = re.compile(r"range:(-?[0-9]+):(-?[0-9]+)(?::(-?[0-9]+))?", re.ASCII)
_LARGEST = 10**18
_BOM = b"\xef\xbb\xbf"
_FORMS = "a source is 0..100, range:0:100:2, a file of lines, a .csv, .tsv or .jsonl file, or - for standard input"
_DELIMITERS = {".csv": ",", ".tsv": "\t"}


class Source(Protocol):
    """Where tasks come from."""

    @property
    def columns(self) -> tuple[str, ...]:
        """The names of the columns that every item has."""
        ...

    @property
    def length(self) -> int | None:
        """How many items there are; None when only reading them all would tell."""
        ...

    @property
    def resumable(self) -> bool:
        """Whether it can be read again in a later run."""
        ...

    def __iter__(self) -> Iterator[Item]:
        """Reads the items from the first one on."""
        ...

    def describe(self) -> dict[str, Any]:
        """What `source_from` makes it again from, fit for JSON."""
        ...

    def fingerprint(self) -> str | None:
        """What changes when its file does: size and modification time; None without a file."""
        ...


@dataclass(frozen=True, slots=True)
class Files:
    """Files named on the command line, ``group`` of them to a task; the last task may have fewer."""

    paths: tuple[str, ...]
    group: int = 1
    columns: tuple[str, ...] = ()
    resumable: bool = True

    @property
    def length(self) -> int:
        """See `Source.length`."""
        return -(-len(self.paths) // self.group)

    def __iter__(self) -> Iterator[Item]:
        return (Item(self.paths[at : at + self.group]) for at in range(0, len(self.paths), self.group))

    def describe(self) -> dict[str, Any]:
        """See `Source.describe`."""
        return {"kind": "files", "paths": list(self.paths), "group": self.group}

    def fingerprint(self) -> None:
        """See `Source.fingerprint`."""


@dataclass(frozen=True, slots=True)
class Numbers:
    """Whole numbers, as Python's ``range`` gives them."""

    start: int
    stop: int
    step: int = 1
    columns: tuple[str, ...] = ()
    resumable: bool = True

    @property
    def length(self) -> int:
        """See `Source.length`."""
        return len(range(self.start, self.stop, self.step))

    def __iter__(self) -> Iterator[Item]:
        return (Item(line=str(number)) for number in range(self.start, self.stop, self.step))

    def describe(self) -> dict[str, Any]:
        """See `Source.describe`."""
        return {"kind": "numbers", "start": self.start, "stop": self.stop, "step": self.step}

    def fingerprint(self) -> None:
        """See `Source.fingerprint`."""


@dataclass(frozen=True, slots=True)
class Lines:
    """A file of lines, each a task.

    Lines are counted as ``wc -l`` counts them, so that task N is line N: an empty line is a task whose line is empty. A
    last line without a newline is a task too. A carriage return before the newline and a byte order mark at the very
    beginning are taken off. Bytes that are not UTF-8 arrive as they are.
    """

    path: str
    columns: tuple[str, ...] = ()
    length: None = None
    resumable: bool = True

    def __iter__(self) -> Iterator[Item]:
        with _open(self.path) as stream:
            yield from (Item(line=text) for _, text in _texts(stream, self.path))

    def describe(self) -> dict[str, Any]:
        """See `Source.describe`."""
        return {"kind": "lines", "path": self.path}

    def fingerprint(self) -> str:
        """See `Source.fingerprint`."""
        return _fingerprint(self.path)


@dataclass(frozen=True, slots=True)
class StandardInput:
    """Lines as `Lines` reads them, from a stream that can be read once."""

    stream: IO[bytes]
    columns: tuple[str, ...] = ()
    length: None = None
    resumable: bool = False

    def __iter__(self) -> Iterator[Item]:
        return (Item(line=text) for _, text in _texts(self.stream, "standard input"))

    def describe(self) -> dict[str, Any]:
        """See `Source.describe`."""
        return {"kind": "stdin"}

    def fingerprint(self) -> None:
        """See `Source.fingerprint`."""


@dataclass(frozen=True, slots=True)
class Table:
    """A CSV or TSV file whose first row names its columns; an item's line is its first column.

    Empty rows are skipped.
    """

    path: str
    delimiter: str
    columns: tuple[str, ...]
    length: None = None
    resumable: bool = True

    def __iter__(self) -> Iterator[Item]:
        with _open(self.path) as stream:
            rows = _rows(stream, self.path, self.delimiter)
            _, header = next(rows, (1, []))
            if tuple(name.strip() for name in header) != self.columns:
                raise UsageError(f"{self.path}: its header has changed since it was first read")
            for number, row in rows:
                if len(row) != len(self.columns):
                    raise UsageError(
                        f"{self.path}, line {number}: {len(row)} fields where the header names {len(self.columns)}",
                        hint="quote fields that hold the delimiter, and give every row every column",
                    )
                yield Item(line=row[0], columns=dict(zip(self.columns, row, strict=True)))

    def describe(self) -> dict[str, Any]:
        """See `Source.describe`."""
        return {"kind": "table", "path": self.path, "delimiter": self.delimiter, "columns": list(self.columns)}

    def fingerprint(self) -> str:
        """See `Source.fingerprint`."""
        return _fingerprint(self.path)


@dataclass(frozen=True, slots=True)
class JsonLines:
    """A file of JSON objects, one to a line.

    ``in`` and ``out`` are lists of paths, ``line`` is text or a number, and every other key is a column (text or a
    number, written as it stands in the file). The columns are those of the first object; later objects have them all,
    and may have more. Blank lines are skipped.
    """

    path: str
    columns: tuple[str, ...]
    length: None = None
    resumable: bool = True

    def __iter__(self) -> Iterator[Item]:
        with _open(self.path) as stream:
            for number, text in _texts(stream, self.path):
                if text.strip():
                    item = _object(text, f"{self.path}, line {number}")
                    missing = [name for name in self.columns if name not in item.columns]
                    if missing:
                        raise UsageError(
                            f"{self.path}, line {number}: no {missing[0]!r}, which the first object has",
                            hint="give every object every column",
                        )
                    yield item

    def describe(self) -> dict[str, Any]:
        """See `Source.describe`."""
        return {"kind": "jsonl", "path": self.path, "columns": list(self.columns)}

    def fingerprint(self) -> str:
        """See `Source.fingerprint`."""
        return _fingerprint(self.path)


def files(paths: Sequence[str], group: int = 1) -> Source:
    """Makes tasks of files, ``group`` of them to a task.

    Raises:
        UsageError: there are no files, or the group is smaller than 1.
    """
    if group < 1 or not paths:
        raise UsageError("there are no files" if not paths else f"a group of {group} files is none")
    return Files(tuple(paths), group)


def each(text: str, *, stdin: IO[bytes] | None = None) -> Source:
    """Makes tasks of what ``--each`` names.

    Args:
        text: ``0..100`` (both included), ``range:0:100:2`` (as in Python), a file, or ``-``. A file whose name looks
            like a range is written ``./0..100``.
        stdin: what ``-`` reads; the process's own by default.

    Raises:
        UsageError: it is none of these, or its file cannot be read or has no header.
    """
    if text == "-":
        return StandardInput(stdin if stdin is not None else sys.stdin.buffer)
    if match := _RANGE.fullmatch(text):
        return _numbers(text, int(match[1]), int(match[2]) + 1, 1)
    if match := _PYTHON_RANGE.fullmatch(text):
        return _numbers(text, int(match[1]), int(match[2]), int(match[3] or 1))
    path = Path(text)
    if not text or "\0" in text or not path.exists():
        few = re.fullmatch(r"(?:([0-9]+)[-:,])?([0-9]+)", text)  # what a range is written like elsewhere
        hint = f"did you mean {few[1] or 1}..{few[2]}?" if few else _FORMS
        raise UsageError(f"there is no file {text!r}", hint=hint)
    suffix, absolute = path.suffix.lower(), str(path.absolute())
    if suffix in _DELIMITERS:
        return _table(absolute, _DELIMITERS[suffix])
    if suffix == ".jsonl":
        return _json_lines(absolute)
    if path.is_dir() or path.is_file():
        _open(absolute).close()
    # A pipe, as of `--each <(seq 9)`, is not opened before it is read, and cannot be read again.
    return Lines(absolute, resumable=path.is_file())


def source_from(description: Mapping[str, Any]) -> Source:
    """Makes a source again from what `Source.describe` gave.

    Raises:
        UsageError: it cannot be read again, or its columns are no longer the same.
    """
    kind = description.get("kind")
    makers: dict[object, Callable[[], Source]] = {
        "files": lambda: Files(tuple(description["paths"]), description["group"]),
        "numbers": lambda: Numbers(description["start"], description["stop"], description["step"]),
        "lines": lambda: Lines(description["path"]),
        "table": lambda: _table(description["path"], description["delimiter"]),
        "jsonl": lambda: _json_lines(description["path"]),
    }
    if kind not in makers:
        raise UsageError(
            "a run from standard input cannot be resumed" if kind == "stdin" else f"unknown kind of source {kind!r}",
            hint="save the lines in a file and run with --each FILE" if kind == "stdin" else None,
        )
    source = makers[kind]()
    if list(source.columns) != description.get("columns", []):
        raise UsageError(f"{description['path']}: its columns have changed since the run began")
    return source


def _numbers(text: str, start: int, stop: int, step: int) -> Source:
    if max(abs(start), abs(stop), abs(step)) > _LARGEST:
        raise UsageError(f"the range {text} has numbers beyond {_LARGEST:.0e}")
    if step == 0 or not range(start, stop, step):
        raise UsageError(f"the range {text} is empty", hint="write FIRST..LAST, or range:START:STOP:STEP as in Python")
    return Numbers(start, stop, step)


def _table(path: str, delimiter: str) -> Table:
    with _open(path) as stream:
        _, header = next(_rows(stream, path, delimiter), (1, []))
    names = tuple(name.strip() for name in header)
    if not all(names) or not names:
        raise UsageError(f"{path}, line 1: " + ("a column has no name" if names else "there is no header"))
    if len(set(names)) < len(names):
        twice = next(name for name in names if names.count(name) > 1)
        raise UsageError(f"{path}, line 1: the column {twice!r} is there twice")
    return Table(path, delimiter, names)


def _json_lines(path: str) -> JsonLines:
    with _open(path) as stream:
        for number, text in _texts(stream, path):
            if text.strip():
                return JsonLines(path, tuple(_object(text, f"{path}, line {number}").columns))
    return JsonLines(path, ())


def _open(path: str) -> IO[bytes]:
    try:
        return Path(path).open("rb")
    except OSError as error:
        raise UsageError(f"{path}: {error.strerror}", hint=_FORMS) from error


def _fingerprint(path: str) -> str:
    try:
        found = Path(path).stat()
    except OSError as error:
        raise UsageError(f"{path}: {error.strerror}") from error
    return f"{found.st_size}:{found.st_mtime_ns}"


def _texts(stream: IO[bytes], where: str) -> Iterator[tuple[int, str]]:
    """Reads lines and their numbers, as `Lines` describes."""
    number = 0
    while raw := stream.readline(_LONGEST_LINE_BYTES + 1):
        number += 1
        if len(raw) > _LONGEST_LINE_BYTES:
            raise UsageError(f"{where}, line {number}: longer than {_LONGEST_LINE_BYTES} bytes", hint=_FORMS)
        if number == 1:
            raw = raw.removeprefix(_BOM)
        if raw.endswith(b"\n"):
            raw = raw[:-1].removesuffix(b"\r")
        yield number, raw.decode("utf-8", "surrogateescape")


def _rows(stream: IO[bytes], path: str, delimiter: str) -> Iterator[tuple[int, list[str]]]:
    """Reads rows that are not empty, and the numbers of the lines at which they end."""
    # A quoted field may hold newlines: each line keeps one, and a last line may do without.
    reader = csv.reader((f"{text}\n" for _, text in _texts(stream, path)), delimiter=delimiter, strict=True)
    try:
        for row in reader:
            if row:
                yield reader.line_num, row
    except csv.Error as error:
        raise UsageError(f"{path}, line {reader.line_num}: {error}") from error


def _object(text: str, where: str) -> Item:
    """Reads one line of JSON; ``where`` names it in errors."""
    try:
        # Numbers stay as they are written: 1.10 is not 1.1 in a file name.
        value = json.loads(text, parse_int=str, parse_float=str, parse_constant=_refuse)
    except (ValueError, RecursionError) as error:
        raise UsageError(f"{where}: {error}", hint="each line is one JSON object") from error
    if not isinstance(value, dict):
        raise UsageError(f"{where}: not a JSON object", hint='write {"in": ["a.txt"], "alpha": 1}')
    inputs, outputs = (_paths(value.pop(key, []), key, where) for key in ("in", "out"))
    for key, one in value.items():
        if not isinstance(one, str):
            raise UsageError(f"{where}: the value of {key!r} is neither text nor a number")
    line = value.pop("line", None)
    return Item(inputs, line, value, outputs)


def _paths(value: object, key: str, where: str) -> tuple[str, ...]:
    if not isinstance(value, list) or not all(isinstance(one, str) and one for one in value):
        raise UsageError(f"{where}: {key!r} is not a list of paths", hint=f'write "{key}": ["a.txt", "b.txt"]')
    return tuple(value)


def _refuse(constant: str) -> str:
    raise ValueError(f"{constant} is no number of JSON")
