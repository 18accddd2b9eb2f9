"""Outputs come home whole or not at all."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest

from serai.data.landing import Landing, sweep


@pytest.fixture
def landing(tmp_path: Path) -> Landing:
    return Landing("r1", tmp_path / "streams")


def send(landing: Landing, data: bytes, **head: Any) -> None:
    landing.piece(7, {"bundle": 1, "output": 0, "at": 0, "mode": 0o644} | head, data)


def left(directory: Path) -> list[str]:
    return sorted(name for name in os.listdir(directory) if name.startswith(".serai-"))


def test_an_output_is_seen_when_it_is_accepted_and_not_before(landing: Landing, tmp_path: Path) -> None:
    final = tmp_path / "out" / "a.txt"
    landing.expect(1, 7, [str(final)])
    send(landing, b"abc")
    send(landing, b"def", at=3)
    assert not final.exists()
    assert landing.check(1, 7, [6]) is None
    assert landing.accept(1, 7) == {}
    assert final.read_bytes() == b"abcdef"
    assert left(final.parent) == []


def test_what_was_there_stays_until_the_new_one_is_whole(landing: Landing, tmp_path: Path) -> None:
    final = tmp_path / "a"
    final.write_bytes(b"old")
    landing.expect(1, 7, [str(final)])
    send(landing, b"ne")
    assert "2 B of 3 B of its output a came" in str(landing.check(1, 7, [3]))
    landing.discard(1, 7)
    assert final.read_bytes() == b"old"
    assert left(tmp_path) == []


def test_an_output_that_never_came_is_missed(landing: Landing, tmp_path: Path) -> None:
    landing.expect(1, 7, [str(tmp_path / "a"), str(tmp_path / "b")])
    send(landing, b"abc")
    assert "b did not come" in str(landing.check(1, 7, [3, 3]))


@pytest.mark.parametrize("under", ["../../evil", "..", "/etc/evil", "a/../../../evil"])
def test_a_piece_cannot_leave_its_directory(landing: Landing, tmp_path: Path, under: str) -> None:
    landing.expect(1, 7, [str(tmp_path / "sub" / "d")])
    send(landing, b"x", under=under)
    assert "would leave its directory" in str(landing.check(1, 7, [-1]))
    landing.discard(1, 7)
    assert [path for path in tmp_path.rglob("*") if path.is_file()] == []


@pytest.mark.parametrize("head", [{"output": 5}, {"output": "x"}, {"at": -1}])
def test_a_piece_that_makes_no_sense_fails_the_attempt_only(
    landing: Landing, tmp_path: Path, head: dict[str, Any]
) -> None:
    landing.expect(1, 7, [str(tmp_path / "a")])
    send(landing, b"x", **head)
    assert "cannot be stored here" in str(landing.check(1, 7, [1]))
    landing.discard_all()
    assert left(tmp_path) == []


def test_directories_come_whole_and_replace_directories(landing: Landing, tmp_path: Path) -> None:
    finals = [tmp_path / "d", tmp_path / "e"]
    for final in finals:
        final.mkdir()
        (final / "old").write_text("old")
    landing.expect(1, 7, [str(final) for final in finals])
    for output in (0, 1):
        send(landing, b"", output=output, under=".", directory=1)
        send(landing, b"new", output=output, under="deep/new")
    assert landing.check(1, 7, [-1, -1]) is None
    landing.accept(1, 7)
    for final in finals:
        assert [str(path.relative_to(final)) for path in sorted(final.rglob("*"))] == ["deep", "deep/new"]
    assert left(tmp_path) == []


def test_an_empty_directory_is_an_output(landing: Landing, tmp_path: Path) -> None:
    landing.expect(1, 7, [str(tmp_path / "d")])
    send(landing, b"", under=".", directory=1)
    assert landing.check(1, 7, [-1]) is None
    landing.accept(1, 7)
    assert (tmp_path / "d").is_dir()


def test_a_file_does_not_replace_a_directory(landing: Landing, tmp_path: Path) -> None:
    final = tmp_path / "d"
    final.mkdir()
    (final / "precious").write_text("old")
    landing.expect(1, 7, [str(final)])
    send(landing, b"new")
    with pytest.raises(OSError, match="d"):
        landing.accept(1, 7)
    assert (final / "precious").read_text() == "old"
    assert left(tmp_path) == []


def test_attempts_do_not_meet(landing: Landing, tmp_path: Path) -> None:
    final = tmp_path / "a"
    landing.expect(1, 7, [str(final)])
    landing.expect(2, 7, [str(final)])
    send(landing, b"one")
    send(landing, b"two", bundle=2)
    landing.accept(2, 7)
    landing.discard(1, 7)
    assert final.read_bytes() == b"two"
    send(landing, b"late")  # of an attempt that was thrown away
    assert left(tmp_path) == []


def test_long_streams_are_kept_where_they_are_wanted(landing: Landing, tmp_path: Path) -> None:
    for task, keep in ((7, True), (8, False)):
        landing.piece(task, {"bundle": 1, "stream": 1, "at": 0}, b"abc")
        landing.piece(task, {"bundle": 1, "stream": 1, "at": 3}, b"def")
        paths = landing.discard(1, task, keep_streams=keep)
        assert [Path(path).read_bytes() for path in paths.values()] == ([b"abcdef"] if keep else [])
    landing.piece(9, {"bundle": 1, "stream": 0, "at": 0}, b"\xff")
    assert Path(landing.accept(1, 9)[0]).read_bytes() == b"\xff"
    assert len(list((tmp_path / "streams").iterdir())) == 2


def test_sweeping_removes_what_this_run_left_and_nothing_else(tmp_path: Path) -> None:
    for name in (".serai-r1-1-7", ".serai-r1-2-8", ".serai-r2-1-7", "mine"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "a").write_text("a")
    assert sweep("r1", [str(tmp_path), str(tmp_path / "never")]) == 2
    assert sorted(path.name for path in tmp_path.iterdir()) == [".serai-r2-1-7", "mine"]
