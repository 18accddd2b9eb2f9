"""However a file is cut, each of its lines belongs to one split."""

from __future__ import annotations

import bz2
import gzip
import itertools
import lzma
import os
from typing import TYPE_CHECKING, Any

import pytest
import zstandard
from hypothesis import given
from hypothesis import strategies as st

from serai.travel.mapreduce import splits
from serai.travel.mapreduce.splits import InputBroken, blocks_of, byte_lines, clipped, lines_of, text_lines, unpacked

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

CONTENTS = st.lists(st.sampled_from([b"\n", b"\n", b"a", b"bc", b"\r\n", b"\xff", b"long" * 9])).map(b"".join)


def no_relay(start: int, length: int) -> bytes:
    raise AssertionError((start, length))


def chunked(data: bytes, begin: int, size: int) -> Iterator[bytes]:
    return (data[at : at + size] for at in range(begin, len(data), size))


@given(CONTENTS, st.lists(st.integers(0, 120)), st.integers(1, 40))
def test_any_cut_of_any_file_gives_each_line_once(data: bytes, cuts: list[int], size: int) -> None:
    bounds = [0, *sorted(min(cut, len(data)) for cut in cuts), len(data)]
    pieces = []
    for start, stop in itertools.pairwise(bounds):
        blocks = list(lines_of(clipped(chunked(data, max(0, start - 1), size), start, stop)))
        assert all(block.endswith(b"\n") for block in blocks[:-1])
        piece = b"".join(blocks)
        begins = {0, *(at + 1 for at, byte in enumerate(data) if byte == 10)} - {len(data)}
        assert piece.count(b"\n") + (not piece.endswith(b"\n") and piece != b"") == len(
            [at for at in begins if start <= at < stop]
        )
        pieces.append(piece)
    assert b"".join(pieces) == data


@given(CONTENTS, st.lists(st.integers(0, 120)), st.integers(1, 7), st.integers(1, 7))
def test_relayed_reads_give_the_same(data: bytes, cuts: list[int], relay: int, tail: int) -> None:
    bounds = [0, *sorted(min(cut, len(data)) for cut in cuts), len(data)]
    relay_before, tail_before = splits.RELAY, splits.TAIL
    try:
        splits.RELAY, splits.TAIL = relay, tail
        got = [
            b"".join(
                blocks_of(
                    {"url": "u", "start": start, "stop": stop, "size": size},
                    lambda at, length: data[at : at + length],
                )
            )
            for size in (len(data), None)
            for start, stop in itertools.pairwise(bounds)
        ]
        assert b"".join(got) == data * 2
    finally:
        splits.RELAY, splits.TAIL = relay_before, tail_before


@given(CONTENTS)
def test_lines_are_those_that_were_written(data: bytes) -> None:
    expected = data.split(b"\n")
    if not expected[-1]:
        expected.pop()
    expected = [line[:-1] if line.endswith(b"\r") else line for line in expected]
    assert byte_lines(data) == expected if data else True
    if data:
        assert [line.encode("utf-8", "surrogateescape") for line in text_lines(data)] == expected


@pytest.mark.parametrize(("kind", "compress"), [("gzip", gzip.compress), ("bz2", bz2.compress), ("xz", lzma.compress)])
@pytest.mark.parametrize("relayed", [False, True])
def test_what_is_compressed_is_read_whole_member_after_member(
    tmp_path: Path, kind: str, compress: Any, relayed: bool
) -> None:
    lines = b"".join(b"line %d\n" % number for number in range(90_000))
    data: bytes = compress(lines[:500_001]) + compress(lines[500_001:])
    path = tmp_path / "in"
    path.write_bytes(data)
    order = {"url": "u", "path": None if relayed else str(path), "start": 0, "stop": None, "size": len(data)}

    def read(start: int, length: int) -> bytes:
        return data[start : start + length]

    blocks = list(blocks_of({**order, "compression": kind}, read if relayed else no_relay))
    assert all(block.endswith(b"\n") for block in blocks)
    assert b"".join(blocks) == lines


@pytest.mark.parametrize(("kind", "compress"), [("gzip", gzip.compress), ("bz2", bz2.compress), ("xz", lzma.compress)])
def test_what_is_cut_off_or_of_another_kind_is_said_to_be(tmp_path: Path, kind: str, compress: Any) -> None:
    path = tmp_path / "in"
    for data in (compress(b"line\n" * 9000)[:-9], b"no such thing\n" * 10):
        path.write_bytes(data)
        order = {"path": str(path), "compression": kind, "size": len(data)}
        with pytest.raises(InputBroken, match=str(path)):
            list(blocks_of(order, no_relay))
    with pytest.raises(InputBroken, match="lzo"):
        list(blocks_of({**order, "compression": "lzo"}, no_relay))


def test_a_line_without_an_end_in_sight_is_refused() -> None:
    chunks = itertools.repeat(b"x" * 1000)
    with pytest.raises(InputBroken, match="more than 5000 bytes: b'xxxx"):
        list(lines_of(chunks, longest=5000))


def test_a_file_that_is_not_what_it_was_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "in"
    path.write_bytes(b"a\nb\n")
    with pytest.raises(InputBroken, match="has 4 bytes, and had 6"):
        list(blocks_of({"path": str(path), "start": 0, "stop": 6, "size": 6}, no_relay))
    with pytest.raises(InputBroken, match="ends after 4 bytes"):
        list(blocks_of({"url": "u", "start": 0, "stop": 6, "size": 6}, lambda at, length: b"a\nb\n"[at : at + length]))


def test_a_path_that_is_not_the_same_file_is_not_read(tmp_path: Path) -> None:
    path = tmp_path / "x"
    path.write_bytes(b"here\n")
    facts = path.stat()
    same = {"mtime": int(facts.st_mtime), "inode": facts.st_ino}
    order = {"url": "u", "path": str(path), "start": 0, "stop": 5, "size": 5}

    def read(at: int, length: int) -> bytes:
        return b"afar\n"[at : at + length]

    assert list(blocks_of({**order, "same": same}, no_relay)) == [b"here\n"]
    assert list(blocks_of({**order, "same": {**same, "inode": None}}, no_relay)) == [b"here\n"]
    for other in ({**same, "inode": 1}, {**same, "mtime": 1}, {**same, "mtime": None}):
        assert list(blocks_of({**order, "same": other}, read)) == [b"afar\n"]
    assert list(blocks_of({**order, "path": "/nonesuch", "same": same}, read)) == [b"afar\n"]


def test_an_input_that_was_changed_after_it_was_split_is_not_read(tmp_path: Path) -> None:
    """It has as many bytes as before, so that a map that is made again would give something else unseen."""
    path = tmp_path / "text"
    path.write_bytes(b"a\nb\n")
    os.utime(path, (1000, 1000.5))
    order = {"path": str(path), "start": 0, "stop": 4, "size": 4, "mtime": 1000}
    assert list(blocks_of(order, no_relay)) == [b"a\nb\n"]
    os.utime(path, (1001, 1001))
    with pytest.raises(InputBroken, match="was changed after it was split"):
        list(blocks_of(order, no_relay))


def test_zstd_of_several_frames_is_unpacked_and_what_is_cut_off_or_damaged_is_refused() -> None:
    pack = zstandard.ZstdCompressor().compress
    text = os.urandom(300_000).hex().encode()
    both = pack(text) + pack(b"more\n")
    assert b"".join(unpacked(chunked(both, 0, 100_000), "zstd", "a.zst")) == text + b"more\n"
    assert b"".join(unpacked(iter([]), "zstd", "a.zst")) == b""
    for broken in (both[:-3], both[: len(both) // 2], both + b"junk", b"x" * 50):
        with pytest.raises(InputBroken, match=r"a\.zst: its zstd data are damaged"):
            list(unpacked(chunked(broken, 0, 100_000), "zstd", "a.zst"))
