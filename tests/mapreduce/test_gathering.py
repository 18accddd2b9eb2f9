"""Keys, sorted runs and what is collected within a limit of memory."""

from __future__ import annotations

import collections
import functools
import itertools
import operator
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from serai.travel.boot import sources
from serai.travel.mapreduce import runs
from serai.travel.mapreduce.gathering import Counts, GivesNoPairs, Groups, Sums, combined_by, weigh
from serai.travel.mapreduce.keys import KeyRefused, canonical, in_order, parted, partition_of
from serai.travel.mapreduce.reducing import Program, reduce_into
from serai.travel.mapreduce.runs import RunBroken, RunWriter, merged, narrowed, read_piece

if TYPE_CHECKING:
    from collections.abc import Iterator

KEYS = st.one_of(st.text(), st.binary(), st.integers(), st.floats(allow_nan=False), st.none(), st.booleans())
NESTED = st.one_of(KEYS, st.tuples(KEYS, KEYS))
PAIRS = st.lists(st.tuples(st.sampled_from(["a", "b", "bb", "", "é", "z"]), st.integers(0, 9)))


@given(NESTED, NESTED)
def test_equal_keys_and_only_they_have_one_encoding(one: Any, other: Any) -> None:
    assert (canonical(one) == canonical(other)) == (one == other)
    if one == other:
        assert partition_of(one, 7) == partition_of(other, 7)


def test_partitions_are_those_that_they_were() -> None:
    """A map of yesterday's version may meet a reduce of today's."""
    keys = ["word", "é", "\udcff", b"word", 5, 5.0, True, 0.5, -3, 10**30, None, ("a", 1)]
    assert [partition_of(key, 1000) for key in keys] == STABLE


STABLE = [265, 326, 495, 265, 354, 354, 147, 982, 404, 180, 146, 417]


def interpreters() -> list[str]:
    """Those of other versions that are there; at least this one."""
    found = {sys.executable}
    for version in ("3.8", "3.9", "3.10", "3.11", "3.12", "3.13", "3.14"):
        for path in (Path(sys.base_prefix).parent).glob(f"{version}.*/bin/python"):
            found.add(str(path))
    return sorted(found)


@pytest.mark.parametrize("python", interpreters())
def test_partitions_are_the_same_in_every_python(python: str) -> None:
    program = (
        f"parcel = {sources('mapreduce.keys')!r}\nexec(parcel['loader'])\n"
        "keys = load(parcel, 'mapreduce.keys')\n"
        "wanted = ['word', 'é', '\\udcff', b'word', 5, 5.0, True, 0.5, -3, 10**30, None, ('a', 1)]\n"
        "print([keys.partition_of(key, 1000) for key in wanted])"
    )
    done = subprocess.run([python, "-c", program], capture_output=True, text=True, timeout=60, check=False)
    assert done.stdout.strip() == str(STABLE), done.stderr


@pytest.mark.parametrize("key", [object(), [1], float("nan"), {1}, 1j, ("a", [1])])
def test_other_keys_are_refused(key: Any) -> None:
    with pytest.raises(KeyRefused):
        partition_of(key, 3)
    with pytest.raises(KeyRefused):
        parted([key], 1)


def test_keys_that_cannot_be_compared_are_refused() -> None:
    with pytest.raises(KeyRefused, match=r"'<' not supported"):
        in_order([1, "a"])


def written(path: Path, pairs: list[tuple[Any, Any]], block_bytes: int = 40) -> tuple[int, int]:
    writer = RunWriter(str(path), grouped=False, block_bytes=block_bytes)
    ordered = sorted(pairs, key=operator.itemgetter(0))
    for key, item in ordered:
        writer.write([key], [item])
    writer.end_partition()
    writer.close()
    start, size = writer.index[0]
    return start, size


@given(st.lists(PAIRS, max_size=7))
def test_merging_is_sorting_and_keeps_the_order_of_equals(tmp_path_factory: Any, many: list[Any]) -> None:
    room = tmp_path_factory.mktemp("runs")
    pieces = [(str(room / str(number)), *written(room / str(number), pairs)) for number, pairs in enumerate(many)]
    got = list(itertools.chain.from_iterable(merged(read_piece(*piece) for piece in pieces)))
    assert got == sorted(itertools.chain.from_iterable(many), key=operator.itemgetter(0))


def test_many_runs_are_merged_over_runs_between(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(runs, "FAN_IN", 3)
    many = [[("k", number), (f"k{number % 5}", number)] for number in range(40)]
    opened: list[Any] = []
    for number, pairs in enumerate(many):
        start, size = written(tmp_path / f"r{number}", pairs)
        opened.append(functools.partial(read_piece, str(tmp_path / f"r{number}"), start, size))
    few = narrowed(opened, str(tmp_path), None, is_grouped=False)
    assert len(few) <= 3
    got = list(itertools.chain.from_iterable(merged(source() for source in few)))
    assert got == sorted(itertools.chain.from_iterable(many), key=operator.itemgetter(0))


def test_a_damaged_run_is_noticed(tmp_path: Path) -> None:
    path = tmp_path / "run"
    start, size = written(path, [(f"k{number}", number) for number in range(50)])
    data = bytearray(path.read_bytes())
    data[-3] ^= 1
    path.write_bytes(data)
    with pytest.raises(RunBroken):
        list(read_piece(str(path), start, size))
    path.write_bytes(data[:-1])
    with pytest.raises(RunBroken):
        list(read_piece(str(path), start, size))


def collected(path: Path, index: list[list[int]], program: Program, memory: int = 1 << 20) -> list[list[Any]]:
    """What a reduce of each partition gets, as (key, list of values)."""
    found = []
    for start, size in index:
        source = functools.partial(read_piece, str(path), start, size)
        pairs = reduce_into([source], size, program, memory, str(path.parent))
        found.append([(key, list(values)) for key, values in pairs])
    return found


@pytest.mark.parametrize("memory", [1 << 12, 1 << 30], ids=["spilling", "in memory"])
@given(pairs=PAIRS)
def test_groups_keep_all_values_in_order(tmp_path_factory: Any, memory: int, pairs: list[tuple[str, int]]) -> None:
    room = tmp_path_factory.mktemp("groups")
    into = Groups(3, memory, str(room))
    into.add_pairs(iter(pairs * 40))
    index = into.finish(str(room / "out"))
    expected: dict[str, list[int]] = {}
    for key, value in pairs * 40:
        expected.setdefault(key, []).append(value)
    for held in (0, 1 << 30):
        parts = collected(room / "out", index, Program(None, None, is_text=False), held)
        assert all([key for key, _ in part] == sorted(key for key, _ in part) for part in parts)
        assert dict(itertools.chain.from_iterable(parts)) == expected
    assert [path.name for path in room.iterdir()] == ["out"]


@pytest.mark.parametrize("memory", [1 << 12, 1 << 30], ids=["spilling", "in memory"])
def test_counts_sums_and_combiners_agree(tmp_path: Path, memory: int) -> None:
    keys = [f"key {number * number % 997}" for number in range(5_000)]
    expected = collections.Counter(keys)
    outcomes = []
    for kind in ("count", "sum", "function"):
        into: Any = (
            Counts(4, memory, str(tmp_path))
            if kind == "count"
            else Sums(4, memory, str(tmp_path))
            if kind == "sum"
            else Groups(4, memory, str(tmp_path), combined_by(lambda _, values: sum(values)))
        )
        if kind == "count":
            into.add_keys(iter(keys))
        else:
            into.add_pairs((key, 1) for key in keys)
        index = into.finish(str(tmp_path / "out"))
        program = Program(kind, "sum", is_text=False)
        parts = collected(tmp_path / "out", index, program)
        outcomes.append({key: sum(values) for key, values in itertools.chain.from_iterable(parts)})
    assert outcomes == [expected] * 3


def test_what_is_no_pair_is_named(tmp_path: Path) -> None:
    for into in (Sums(1, 1 << 20, str(tmp_path)), Groups(1, 1 << 20, str(tmp_path))):
        with pytest.raises(GivesNoPairs, match="this one gave 'word'"):
            into.add_pairs(iter(["word"]))  # type: ignore[list-item]
        with pytest.raises(GivesNoPairs, match="unhashable"):
            into.add_pairs(iter([([], 1)]))
    with pytest.raises(GivesNoPairs, match="unhashable"):
        Counts(1, 1 << 20, str(tmp_path)).add_keys(iter([[]]))


def failing() -> Iterator[Any]:
    yield "key", 1
    raise TypeError("the user's own")


def test_what_the_mapper_raises_is_left_as_it_is(tmp_path: Path) -> None:
    for into in (Sums(1, 1 << 20, str(tmp_path)), Groups(1, 1 << 20, str(tmp_path)), Counts(1, 1 << 20, str(tmp_path))):
        with pytest.raises(TypeError, match="the user's own") as caught:
            into.add_keys(failing()) if isinstance(into, Counts) else into.add_pairs(failing())
        assert type(caught.value) is TypeError


def test_what_a_value_holds_is_weighed() -> None:
    assert weigh(["x" * 1000] * 1) > 1000
    assert weigh({"a": ("b", b"c" * 5000)}) > 5000


BOUND = """
import sys, os, itertools, resource
sys.path.insert(0, sys.argv[1])
from serai.travel.mapreduce.gathering import Groups
from serai.travel.mapreduce.reducing import Program, reduce_into
from serai.travel.mapreduce.runs import read_piece
room, values = sys.argv[2], 300_000
into = Groups(2, 2 << 20, room)
used = int(open("/proc/self/statm").read().split()[0]) * resource.getpagesize()
resource.setrlimit(resource.RLIMIT_AS, (used + (22 << 20), used + (22 << 20)))
into.add_pairs((b"%07d" % (number * 7919 % values), b"x" * 100) for number in range(values))
path = os.path.join(room, "out")
index = into.finish(path)
assert sum(size for _, size in index) > 30 << 20
seen = 0
for start, size in index:
    before = b""
    source = [lambda start=start, size=size: read_piece(path, start, size)]
    for key, found in reduce_into(source, size, Program(None, None, True), 2 << 20, room):
        assert key > before
        before = key
        seen += sum(1 for _ in found)
print(seen)
"""


def test_an_input_larger_than_the_memory_is_sorted(tmp_path: Path) -> None:
    """33 MB through a process that may have 22 MB more than it begins with."""
    root = str(Path(runs.__file__).parents[3])
    done = subprocess.run(
        [sys.executable, "-c", BOUND, root, str(tmp_path)], capture_output=True, text=True, timeout=200, check=False
    )
    assert done.stdout.strip() == "300000", done.stderr
