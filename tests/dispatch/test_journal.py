"""The journal: what is written is there, and what cannot be written is said."""

from __future__ import annotations

import sqlite3
from typing import TYPE_CHECKING

import pytest

from serai.describe.task import State
from serai.dispatch.journal import Batch, Journal
from serai.errors import JournalError

if TYPE_CHECKING:
    from pathlib import Path


def results(*tasks: tuple[int, State]) -> Batch:
    batch = Batch()
    rows = [(task, state.value, 0, 0, 1_000_000, 5, 7) for task, state in tasks]
    batch.results.append((rows, "local", 0))
    return batch


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "journal.db"


def test_what_was_written_is_read_after_reopening(path: Path) -> None:
    journal = Journal(path, fresh=True)
    journal.set_run({"kind": "command", "on": ["local:"]})
    journal.set_run({"kind": "other"})
    journal.add_work(1, "command", {"command": "é"})
    journal.add_items(1, 1, ["a", None, ["b"]], 3)
    journal.add_items(1, 4, None, 2)
    journal.write(results((1, State.DONE), (3, State.FAILED)))
    journal.close()
    journal = Journal(path, fresh=False)
    assert journal.run() == {"kind": "other", "on": ["local:"]}
    assert journal.works() == [(1, "command", {"command": "é"})]
    assert journal.chunks() == [(1, 1, 3), (4, 1, 2)]
    assert journal.items(1) == ["a", None, ["b"]]
    assert journal.items(4) is None
    assert journal.ended(1, 3) == {1: State.DONE, 3: State.FAILED}
    assert journal.ended(4, 2) == {}
    journal.close()


def test_it_survives_a_writer_that_was_killed(path: Path) -> None:
    """Another connection sees what was written, without the writer having closed."""
    writer = Journal(path, fresh=True)
    writer.write(results((1, State.DONE)))
    other = Journal(path, fresh=False)
    assert other.ended(1, 1) == {1: State.DONE}
    other.close()
    writer.close()


def test_a_batch_is_written_whole_or_not_at_all(path: Path) -> None:
    journal = Journal(path, fresh=True)
    batch = results((1, State.DONE))
    batch.attempts.append((1, None, "local", 1, "why"))  # type: ignore[arg-type] # what the table refuses
    with pytest.raises(JournalError):
        journal.write(batch)
    assert journal.ended(1, 1) == {}
    journal.write(results((1, State.DONE)))  # and it can be used afterwards
    assert journal.ended(1, 1) == {1: State.DONE}
    journal.close()


def test_tasks_are_reopened_by_state_and_open_ones_known_by_bundle(path: Path) -> None:
    journal = Journal(path, fresh=True)
    batch = results((1, State.DONE), (2, State.FAILED), (3, State.CANCELLED))
    batch.opened += [(10, "local", 0, 0.0, "[4, 5]"), (11, "local", 1, 0.0, "[5, 600]")]
    journal.write(batch)
    assert sorted(journal.open_tasks(1, 500)) == [4, 5]
    closing = Batch()
    closing.closed.append(10)
    journal.write(closing)
    assert journal.open_tasks(1, 500) == [5]
    assert journal.reopen([State.CANCELLED]) == 1
    assert journal.ended(1, 9) == {1: State.DONE, 2: State.FAILED}
    journal.forget_bundles()
    assert journal.open_tasks(1, 999) == []
    journal.close()


def test_it_says_when_the_disk_is_full(path: Path) -> None:
    journal = Journal(path, fresh=True)
    pages = journal._db.execute("PRAGMA page_count").fetchone()[0]
    journal._db.execute(f"PRAGMA max_page_count = {pages}")
    with pytest.raises(JournalError, match="full") as caught:
        journal.add_items(1, 1, [str(n) * 50 for n in range(5000)], 5000)
    assert str(path) in str(caught.value)
    assert caught.value.hint is not None
    journal.close()


@pytest.mark.parametrize("content", [b"", b"not a journal at all" * 100])
def test_other_files_are_refused(path: Path, content: bytes) -> None:
    path.write_bytes(content)
    with pytest.raises(JournalError):
        Journal(path, fresh=False)


def test_journals_of_another_format_are_refused(path: Path) -> None:
    Journal(path, fresh=True).close()
    db = sqlite3.connect(path)
    db.execute("PRAGMA user_version = 99")
    db.close()
    with pytest.raises(JournalError, match="format 99"):
        Journal(path, fresh=False)


def test_a_journal_that_is_not_there_and_one_that_is_closed(path: Path) -> None:
    with pytest.raises(JournalError, match="no journal"):
        Journal(path, fresh=False)
    journal = Journal(path, fresh=True)
    journal.close()
    with pytest.raises(JournalError):
        journal.ended(1, 1)
    with pytest.raises(JournalError):
        journal.set_run({"a": 1})
