"""Finding, listing and throwing away runs."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import pytest

from serai.dispatch.history import Archive, find_run, front_end_facts, parse_task
from serai.dispatch.history.liveness import ENDED, PID, PID_STARTED
from serai.dispatch.journal import Journal
from serai.errors import UsageError

if TYPE_CHECKING:
    from pathlib import Path

NOW = 1_700_000_000.0


@pytest.fixture
def runs(tmp_path: Path) -> Path:
    return tmp_path / "runs"


@pytest.fixture
def archive(runs: Path) -> Archive:
    """Three runs: an old one, one that was interrupted, and the newest; and what is none."""
    began = {"0101-1-aa": NOW - 1000, "0102-1-bb": NOW - 500, "0102-2-cc": NOW - 100}
    for name, at in began.items():
        (runs / name).mkdir(parents=True)
        journal = Journal(runs / name / "journal.db", fresh=True)
        facts = {"kind": "run", "began": at}
        journal.set_run(facts | ({PID: 2**22 + 7, PID_STARTED: 1} if "bb" in name else {ENDED: at + 10}))
        journal.close()
    # Written last, begun first: as a long run would be.
    os.utime(runs / "0101-1-aa" / "journal.db", (NOW, NOW))
    os.utime(runs / "0102-1-bb" / "journal.db", (NOW - 490, NOW - 490))
    os.utime(runs / "0102-2-cc" / "journal.db", (NOW - 90, NOW - 90))
    (runs / "empty").mkdir()
    (runs / "a file").touch()
    return Archive(runs)


@pytest.mark.parametrize(("name", "found"), [(None, "0102-2-cc"), ("0101", "0101-1-aa"), ("0102-1-bb", "0102-1-bb")])
def test_runs_are_found(archive: Archive, name: str | None, found: str) -> None:
    with archive.open(name, NOW) as history:
        assert history.run.name == found


@pytest.mark.parametrize(
    ("name", "hint"),
    [
        ("0102", "which one? 0102-1-bb, 0102-2-cc"),
        ("0102-1-ba", "did you mean 0102-1-bb?"),
        ("..", "serai runs lists them"),
        ("", "serai runs lists them"),
    ],
)
def test_runs_that_are_not_found(archive: Archive, name: str, hint: str) -> None:
    with pytest.raises(UsageError) as caught:
        archive.open(name, NOW)
    assert caught.value.hint == hint


def test_no_runs_at_all(tmp_path: Path) -> None:
    archive = Archive(tmp_path / "nowhere")
    assert archive.listing(NOW) == ([], [])
    assert archive.prune(0, NOW).names == ()
    with pytest.raises(UsageError, match="there are no runs yet"):
        archive.open(None, NOW)


def test_the_directory_of_a_run(archive: Archive, runs: Path) -> None:
    assert find_run(archive.directory, None) == runs / "0102-2-cc"
    assert find_run(archive.directory, "0101") == runs / "0101-1-aa"


def test_the_newest_run_is_one_that_can_be_read(archive: Archive, runs: Path) -> None:
    (runs / "broken").mkdir()
    (runs / "broken" / "journal.db").write_bytes(b"x" * 5000)
    with archive.open(None, NOW) as history:
        assert history.run.name == "0102-2-cc"
    found, troubles = archive.listing(NOW, 2)
    assert [run.name for run, _ in found] == ["0102-2-cc", "0102-1-bb"]
    assert len(troubles) == 1


def test_old_runs_are_thrown_away(archive: Archive, runs: Path) -> None:
    (runs / "living").mkdir()
    living = Journal(runs / "living" / "journal.db", fresh=True)
    living.set_run(front_end_facts() | {"kind": "command", "began": 1.0})
    (runs / "0101-1-aa" / "streams").mkdir()
    (runs / "0101-1-aa" / "streams" / "1.1.out").write_bytes(b"x" * 1234)
    size = 1234 + (runs / "0101-1-aa" / "journal.db").stat().st_size
    (runs / ".gone-earlier").mkdir()
    pruned = archive.prune(200, NOW)
    assert pruned.names == ("0101-1-aa",)
    assert pruned.size == size
    assert pruned.kept == ("0102-1-bb",), "interrupted ones can go on"
    assert sorted(path.name for path in runs.iterdir()) == ["0102-1-bb", "0102-2-cc", "a file", "empty", "living"]
    assert archive.prune(0, NOW + 10**6).names == ("0102-2-cc",), "the running one stays"
    assert living.path.exists()
    living.close()


@pytest.mark.parametrize(("text", "task"), [("17", (None, 17)), ("#17", (None, 17)), ("0102-1-bb:3", ("0102-1-bb", 3))])
def test_how_a_task_is_named(text: str, task: tuple[str | None, int]) -> None:
    assert parse_task(text) == task


@pytest.mark.parametrize("text", ["", "x", ":3", "run:", "run:x", "-1", "1.5", "٣", "9" * 30])
def test_what_names_no_task(text: str) -> None:
    with pytest.raises(UsageError):
        parse_task(text)
