"""Pieces of inputs in the node's cache."""

from __future__ import annotations

import os
import resource
from typing import TYPE_CHECKING

import pytest

from serai.travel.caching.pieces import Pieces

if TYPE_CHECKING:
    from pathlib import Path

BLOCKS = [b"a b\n", b"c\n" * 100_000, b"the last"]


@pytest.fixture
def pieces(tmp_path: Path) -> Pieces:
    own = tmp_path / "room" / "own"
    own.mkdir(parents=True)
    return Pieces(str(tmp_path / "room"), str(own))


def test_what_went_through_is_found_again(pieces: Pieces, tmp_path: Path) -> None:
    assert list(pieces.through(BLOCKS)) == BLOCKS
    digest = pieces.keep()
    assert digest
    other = tmp_path / "room" / "other"
    other.mkdir()
    for one in (pieces, Pieces(str(tmp_path / "room"), str(other))):
        path = one.find(digest)
        assert path
        with open(path, "rb") as file:
            assert file.read() == b"".join(BLOCKS)
    assert pieces.find("0" * 64) is None
    assert pieces.find("../../etc/passwd") is None
    assert os.listdir(tmp_path / "room" / "own") == [], "nothing is pinned or aside"


def test_a_damaged_piece_is_not_given(pieces: Pieces, tmp_path: Path) -> None:
    list(pieces.through(BLOCKS))
    digest = pieces.keep()
    assert digest
    (found,) = tmp_path.glob(f"*/objects/*/{digest}")
    found.chmod(0o600)
    found.write_bytes(b"other")
    other = tmp_path / "room" / "other"
    other.mkdir()
    assert Pieces(str(tmp_path / "room"), str(other)).find(digest) is None


def test_a_reader_that_stops_leaves_nothing(pieces: Pieces, tmp_path: Path) -> None:
    blocks = pieces.through(BLOCKS)
    next(blocks)
    del blocks
    pieces.forget()
    assert os.listdir(tmp_path / "room" / "own") == []
    assert pieces.keep() is None


def test_what_cannot_be_written_aside_is_read_all_the_same(pieces: Pieces, tmp_path: Path) -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1000, hard))  # Python ignores SIGXFSZ: writing fails, as on a full disk
    try:
        assert list(pieces.through(BLOCKS)) == BLOCKS
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert pieces.keep() is None
    assert os.listdir(tmp_path / "room" / "own") == []


def test_where_there_is_no_room_nothing_is_kept(tmp_path: Path) -> None:
    pieces = Pieces(str(tmp_path / "room"), str(tmp_path / "nonesuch"))
    assert list(pieces.through(BLOCKS)) == BLOCKS
    assert pieces.keep() is None
