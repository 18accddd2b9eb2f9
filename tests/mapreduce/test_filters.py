"""Commands as mappers, combiners and reducers."""

from __future__ import annotations

import collections
import contextlib
import itertools
import os
import time
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from serai.travel.mapreduce import mapping
from serai.travel.mapreduce.commands import Command, CommandFailed, run_filter
from serai.travel.mapreduce.gathering import Counts, Groups
from serai.travel.mapreduce.mapping import combined_by_command, map_with_command, repeated

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


def test_more_than_pipes_hold_goes_through() -> None:
    blocks = (b"%d\n" % number * 1000 for number in range(2000))
    assert sum(map(len, run_filter(Command("cat"), blocks))) == sum(len(b"%d\n" % n) * 1000 for n in range(2000))


def test_a_command_need_not_read_all() -> None:
    assert b"".join(run_filter(Command(["head", "-n1"]), itertools.repeat(b"line\n" * 1000))) == b"line\n"


def test_how_it_failed_is_told() -> None:
    with pytest.raises(CommandFailed, match=r"(?s)mapper ended with exit status 3: .*\nwhy\n19\n.*not$"):
        list(run_filter(Command("cat >/dev/null; seq 18; for i in why `seq 19 36` not; do echo $i >&2; done; exit 3", what="mapper"), [b""]))  # fmt: skip  # noqa: E501
    with pytest.raises(CommandFailed, match="ended by signal 9"):
        list(run_filter(Command("kill -9 $$"), []))
    with pytest.raises(CommandFailed, match=r"cannot be started: /no/such.*No such file"):
        list(run_filter(Command(["/no/such"]), []))


def test_what_is_wrong_with_the_input_is_raised() -> None:
    def broken() -> Iterator[bytes]:
        yield b"x\n"
        raise OSError("the disk")

    with pytest.raises(OSError, match="the disk"):
        list(run_filter(Command("cat"), broken()))


def test_children_of_children_are_ended(tmp_path: Path) -> None:
    pid = tmp_path / "pid"
    command = Command("sleep 1000 & echo $! > pid; echo up; wait", directory=str(tmp_path))
    chunks = run_filter(command, [])
    assert next(chunks) == b"up\n"
    chunks.close()  # type: ignore[attr-defined]
    child = int(pid.read_text())
    until = time.monotonic() + 40
    with contextlib.suppress(ProcessLookupError):
        while _state(child) not in "ZX":
            os.kill(child, 0)
            assert time.monotonic() < until
            time.sleep(0.01)


def _state(pid: int) -> str:
    try:
        with open(f"/proc/{pid}/stat") as file:
            return file.read().rpartition(")")[2].split()[0]
    except FileNotFoundError:
        return "X"


def test_lines_are_collected_as_they_came(tmp_path: Path) -> None:
    lines = [b"a\t1", b"b", b"a\t2", b"", b"b\t", b"a\t1", b"c\td\te"] * 300
    for text in (lines, sorted(lines)):  # the second has repetitions that are counted
        into = Groups(1, 1 << 20, str(tmp_path))
        map_with_command(Command("cat"), [b"\n".join(text)], into)
        expected: dict[bytes, list[bytes | None]] = {}
        for line in text:
            key, tab, value = line.partition(b"\t")
            expected.setdefault(key, []).append(value if tab else None)
        assert into.items == expected


def test_repetitions_are_counted_only_where_no_order_is_lost() -> None:
    assert sorted(repeated([b"a\t1"] * 3 + [b"b"] * 2) or []) == [(b"a", b"1", 3), (b"b", None, 2)]
    assert repeated([b"a\t1", b"a\t2", b"a\t1", b"a\t2", b"a\t1"]) is None
    assert repeated([b"a", b"b", b"c"]) is None


def test_keys_of_a_command_are_counted(tmp_path: Path) -> None:
    into = Counts(1, 1 << 20, str(tmp_path))
    map_with_command(Command(["cat"]), [b"a\t5\na\nb"], into)
    assert into.items == collections.Counter({b"a": 2, b"b": 1})


def test_a_combiner_gets_sorted_lines() -> None:
    items: dict[bytes, list[bytes | None]] = {b"b": [b"1", b"2"], b"a": [None, b"3"]}
    assert combined_by_command(Command("cat"), dict(items)) == items
    assert combined_by_command(Command("tr '\\n' ,"), dict(items)) == {b"a,a": [b"3,b\t1,b\t2,"]}


SPACES = [chr(code) for code in range(0x3100) if chr(code).isspace()]
TEXTS = st.lists(st.sampled_from([*SPACES, "word", "é", "“x”", "a", "日本", "\ud800", "\udcff", "\n", " "])).map(
    "".join
)


@given(st.lists(TEXTS, max_size=4))
def test_words_are_those_of_python_with_and_without_pyarrow(tmp_path_factory: Any, texts: list[str]) -> None:
    pytest.importorskip("pyarrow")
    blocks = [text.encode("utf-8", "surrogatepass") for text in texts]
    for is_text in (True, False):
        into = Counts(1, 1 << 20, str(tmp_path_factory.getbasetemp()))
        before, mapping.WORTH_IMPORT = mapping.WORTH_IMPORT, 1
        try:
            mapping.count_words(blocks, is_text, into)
        finally:
            mapping.WORTH_IMPORT = before
        assert into.items == collections.Counter(
            word
            for block in blocks
            for word in (block.decode("utf-8", "surrogateescape").split() if is_text else block.split())
        )


@pytest.mark.parametrize("space", SPACES)
def test_each_space_that_python_knows_is_seen(space: str) -> None:
    known = space in " \t\n\r\v\f"
    assert mapping.has_rare_spaces(f"a{space}b".encode()) == (not known)
    assert not mapping.has_rare_spaces("“é” — Ā日\u2010".encode())


def test_what_cannot_be_summed_is_said() -> None:
    with pytest.raises(mapping.BadJob, match="a line has none: mappers write key TAB number"):
        mapping.number(b"")
    with pytest.raises(mapping.BadJob, match="'seven ü' is no number"):
        mapping.number("seven ü".encode())
