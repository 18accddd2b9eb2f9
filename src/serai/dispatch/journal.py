"""The journal: what a run is and what became of each task, in one SQLite file, written before anybody is told.

Writing is done in batches and a batch of results is a single statement (`json_each`): sqlite3 gives up the
interpreter's lock once per row otherwise, and getting it back beside a busy thread takes milliseconds. Items are kept
in chunks, so that two million tasks are a few thousand rows.
"""

from __future__ import annotations

import json
import sqlite3
import threading
import zlib
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from serai.errors import JournalError

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence
    from pathlib import Path

FORMAT = 1
CHUNK = 500  # items in a row
BUSY_S = 30.0

SCHEMA = """
CREATE TABLE run (key TEXT PRIMARY KEY, value TEXT NOT NULL) WITHOUT ROWID;
CREATE TABLE work (id INTEGER PRIMARY KEY, kind TEXT NOT NULL, description TEXT NOT NULL);
CREATE TABLE items (first INTEGER PRIMARY KEY, work INTEGER NOT NULL, count INTEGER NOT NULL, data BLOB);
CREATE TABLE result (
    task INTEGER PRIMARY KEY, state INTEGER NOT NULL, cause INTEGER NOT NULL, exit INTEGER, node TEXT, lane INTEGER,
    started_us INTEGER, took_us INTEGER, rss_kb INTEGER);
CREATE TABLE stream (
    task INTEGER NOT NULL, which INTEGER NOT NULL, data BLOB, path TEXT, PRIMARY KEY (task, which)) WITHOUT ROWID;
CREATE TABLE detail (task INTEGER PRIMARY KEY, text TEXT NOT NULL);
CREATE TABLE attempt (
    id INTEGER PRIMARY KEY, task INTEGER NOT NULL, at REAL NOT NULL, node TEXT, cause INTEGER NOT NULL, text TEXT);
CREATE INDEX attempt_of_task ON attempt (task);
CREATE TABLE bundle (
    id INTEGER PRIMARY KEY, node TEXT NOT NULL, lane INTEGER NOT NULL, at REAL NOT NULL, tasks TEXT NOT NULL);
CREATE TABLE node (
    name TEXT PRIMARY KEY, url TEXT NOT NULL, state TEXT NOT NULL, since REAL NOT NULL, ad TEXT, beat TEXT,
    beat_at REAL, why TEXT) WITHOUT ROWID;
CREATE TABLE note (id INTEGER PRIMARY KEY, at REAL NOT NULL, node TEXT, task INTEGER, text TEXT NOT NULL);
"""

RESULTS = """
INSERT OR REPLACE INTO result
SELECT json_extract(value, '$[0]'), json_extract(value, '$[1]'), json_extract(value, '$[2]'),
       json_extract(value, '$[3]'), ?2, ?3, json_extract(value, '$[4]'), json_extract(value, '$[5]'),
       json_extract(value, '$[6]')
FROM json_each(?1)
"""


def _readable(text: str) -> str:
    """A sentence as the database takes it: the names of files that it tells may be no UTF-8."""
    return text if text.isascii() else text.encode("utf-8", "backslashreplace").decode("utf-8")


def _sentences(rows: Sequence[tuple[Any, ...]]) -> list[tuple[Any, ...]]:
    """Rows whose last column is a sentence."""
    return [(*row[:-1], _readable(row[-1])) for row in rows]


@dataclass(slots=True)
class Batch:
    """What is to be written together.

    Attributes:
        results: (rows as (task, state, cause, exit, started_us, took_us, rss_kb), node, lane) triples.
        streams: (task, which, data, path) rows; one of data and path is None.
        details: (task, text) rows.
        attempts: (task, at, node, cause, text) rows.
        opened: (bundle, node, lane, at, tasks as JSON) rows.
        closed: bundles that ended.
        notes: (at, node, task, text) rows.
    """

    results: list[tuple[Sequence[Sequence[Any]], str, int]] = field(default_factory=list)
    streams: list[tuple[int, int, bytes | None, str | None]] = field(default_factory=list)
    details: list[tuple[int, str]] = field(default_factory=list)
    attempts: list[tuple[int, float, str, int, str]] = field(default_factory=list)
    opened: list[tuple[int, str, int, float, str]] = field(default_factory=list)
    closed: list[int] = field(default_factory=list)
    notes: list[tuple[float, str, int, str]] = field(default_factory=list)

    def __bool__(self) -> bool:
        return bool(
            self.results or self.streams or self.details or self.attempts or self.opened or self.closed or self.notes
        )


class Journal:
    """The journal of one run, open for writing: any thread; one process at a time, which its caller sees to.

    Args:
        path: of the file.
        fresh: whether it is to be made.

    Raises:
        JournalError: it is not a journal, or one of another format.
    """

    def __init__(self, path: Path, *, fresh: bool) -> None:
        self.path = path
        self._lock = threading.Lock()
        if not fresh and not path.exists():
            raise JournalError(f"there is no journal at {path}")
        try:
            self._db = sqlite3.connect(path, timeout=BUSY_S, isolation_level=None, check_same_thread=False)
            found = self._db.execute("PRAGMA user_version").fetchone()[0]
            if not fresh and found != FORMAT:
                self._db.close()
                raise JournalError(f"{path} is a journal of format {found}: this Serai reads and writes {FORMAT}")
            self._db.execute("PRAGMA journal_mode = WAL")
            # A crash of this process loses nothing; one of the machine may lose the last moments, done again then.
            self._db.execute("PRAGMA synchronous = NORMAL")
            self._db.execute("PRAGMA wal_autocheckpoint = 4000")
            if fresh:
                self._db.executescript(SCHEMA)
            self._db.execute(f"PRAGMA user_version = {FORMAT}")
        except sqlite3.Error as error:
            hint = "is the disk full?" if isinstance(error, sqlite3.OperationalError) else None
            raise JournalError(f"cannot use the journal {path}: {error}", hint=hint) from error

    def close(self) -> None:
        """Write everything to the file proper, and let go of it."""
        with self._lock:
            self._db.close()

    def _transaction(self, statements: Iterable[tuple[str, Sequence[Any], bool]]) -> None:
        """Execute (statement, parameters, whether they are many rows) triples as one transaction."""
        try:
            with self._lock:
                self._db.execute("BEGIN IMMEDIATE")
                try:
                    for statement, parameters, many in statements:
                        if many:
                            self._db.executemany(statement, parameters)
                        else:
                            self._db.execute(statement, parameters)
                except BaseException:
                    self._db.execute("ROLLBACK")
                    raise
                self._db.execute("COMMIT")
        except sqlite3.Error as error:
            raise JournalError(f"cannot write the journal {self.path}: {error}", hint="is the disk full?") from error

    def set_run(self, facts: Mapping[str, Any]) -> None:
        """Set facts of the run; the values are anything JSON has."""
        rows = [(key, json.dumps(value)) for key, value in facts.items()]
        self._transaction([("INSERT OR REPLACE INTO run VALUES (?, ?)", rows, True)])

    def add_work(self, work: int, kind: str, description: Mapping[str, Any]) -> None:
        """Record what many tasks share."""
        row = (work, kind, json.dumps(description))
        self._transaction([("INSERT OR REPLACE INTO work VALUES (?, ?, ?)", row, False)])

    def add_items(self, work: int, first: int, items: Sequence[Any] | None, count: int) -> None:
        """Record the tasks ``first`` to ``first + count - 1``, with what is their own (JSON) if there is any."""
        data = None if items is None else zlib.compress(json.dumps(items).encode("ascii"), 1)
        self._transaction([("INSERT INTO items VALUES (?, ?, ?, ?)", (first, work, count, data), False)])

    def write(self, batch: Batch) -> None:
        """Write a batch as one transaction."""
        statements: list[tuple[str, Sequence[Any], bool]] = [
            (RESULTS, (json.dumps(rows), node, lane), False) for rows, node, lane in batch.results
        ]
        for table, rows in (
            ("stream VALUES (?, ?, ?, ?)", batch.streams),
            ("detail VALUES (?, ?)", _sentences(batch.details)),
            ("attempt (task, at, node, cause, text) VALUES (?, ?, ?, ?, ?)", _sentences(batch.attempts)),
            ("bundle VALUES (?, ?, ?, ?, ?)", batch.opened),
            ("note (at, node, task, text) VALUES (?, ?, ?, ?)", _sentences(batch.notes)),
        ):
            if rows:
                statements.append((f"INSERT OR REPLACE INTO {table}", rows, True))
        if batch.closed:
            statement = "DELETE FROM bundle WHERE id IN (SELECT value FROM json_each(?))"
            statements.append((statement, (json.dumps(batch.closed),), False))
        if statements:
            self._transaction(statements)

    def set_node(self, name: str, url: str, state: str, at: float, ad: Mapping[str, Any] | None, why: str = "") -> None:
        """Record a node's state."""
        row = (name, url, state, at, None if ad is None else json.dumps(ad), _readable(why))
        statement = """
            INSERT INTO node (name, url, state, since, ad, why) VALUES (?, ?, ?, ?, ?, ?)
            ON CONFLICT (name) DO UPDATE SET
                state = excluded.state, since = excluded.since, ad = coalesce(excluded.ad, ad), why = excluded.why"""
        self._transaction([(statement, row, False)])

    def set_beats(self, beats: Mapping[str, Any], at: float) -> None:
        """Record what nodes say they do."""
        rows = [(json.dumps(beat), at, name) for name, beat in beats.items()]
        self._transaction([("UPDATE node SET beat = ?, beat_at = ? WHERE name = ?", rows, True)])

    def forget_bundles(self) -> None:
        """No bundle is anywhere: a run begins again."""
        self._transaction([("DELETE FROM bundle", (), False), ("UPDATE node SET state = 'gone'", (), False)])

    # ---- what a run that begins again needs

    def run(self) -> dict[str, Any]:
        """The facts of the run."""
        return {key: json.loads(value) for key, value in self._read("SELECT key, value FROM run")}

    def works(self) -> list[tuple[int, str, dict[str, Any]]]:
        """(number, kind, description) of each work."""
        return [(work, kind, json.loads(text)) for work, kind, text in self._read("SELECT * FROM work ORDER BY id")]

    def chunks(self) -> list[tuple[int, int, int]]:
        """(first, work, count) of every row of items, in order."""
        return [(*row,) for row in self._read("SELECT first, work, count FROM items ORDER BY first")]

    def items(self, first: int) -> list[Any] | None:
        """The items of a row, None where tasks have nothing of their own."""
        rows = self._read("SELECT data FROM items WHERE first = ?", (first,))
        if not rows:
            raise JournalError(f"the journal {self.path} has no items from {first}")
        return None if rows[0][0] is None else json.loads(zlib.decompress(rows[0][0]))

    def ended(self, first: int, count: int) -> dict[int, int]:
        """Those of ``count`` tasks from ``first`` that ended, however: {task: state}."""
        return dict(self._read("SELECT task, state FROM result WHERE task >= ? AND task < ?", (first, first + count)))

    def open_tasks(self, first: int, count: int) -> list[int]:
        """Those of ``count`` tasks from ``first`` that were in a bundle when the journal was left."""
        rows = self._read(
            "SELECT DISTINCT value FROM bundle, json_each(bundle.tasks) WHERE value >= ? AND value < ?",
            (first, first + count),
        )
        return [task for (task,) in rows]

    def on_nodes(self) -> dict[str, list[int]]:
        """By node, the tasks that were in a bundle when the journal was left."""
        found: dict[str, list[int]] = {}
        for node, task in self._read("SELECT node, value FROM bundle, json_each(bundle.tasks)"):
            found.setdefault(node, []).append(task)
        return found

    def reopen(self, states: Sequence[int]) -> int:
        """Forget the results in some states, so that these tasks run again; returns how many there were."""
        marks = json.dumps(list(states))
        count = self._read("SELECT count(*) FROM result WHERE state IN (SELECT value FROM json_each(?))", (marks,))[0][
            0
        ]
        statement = "DELETE FROM result WHERE state IN (SELECT value FROM json_each(?))"
        self._transaction([(statement, (marks,), False)])
        return int(count)

    def _read(self, statement: str, parameters: Sequence[Any] = ()) -> list[tuple[Any, ...]]:
        try:
            with self._lock:
                return self._db.execute(statement, parameters).fetchall()
        except sqlite3.Error as error:
            raise JournalError(f"cannot read the journal {self.path}: {error}") from error
