"""Looking at a run: what its journal says, while it runs and after it ended, however it ended.

Nothing here writes, and no writer waits for a reader. A `History` is one moment of one run: open it, ask, close it. The
journal cannot shrink its log while one is open, so whoever watches opens one for each look.
"""

from __future__ import annotations

import json
import platform
import re
import shlex
import sqlite3
import zlib
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

from serai.describe.task import State
from serai.dispatch.front_end import (
    ARGV,
    BEGAN,
    COMPLETE,
    ENDED,
    HOST,
    KIND,
    NEAREST,
    ON,
    PID,
    SITES,
    STORES,
    TASK,
    TOTAL,
    process_started,
)
from serai.dispatch.history.liveness import state_of
from serai.dispatch.history.moment import (
    Attempt,
    Counts,
    Failure,
    Held,
    NodeSeen,
    Note,
    Pace,
    Result,
    RunNow,
    RunState,
    Stream,
    TaskNow,
    gist,
)
from serai.dispatch.journal import FORMAT
from serai.dispatch.ports import WAY
from serai.errors import JournalError, UsageError
from serai.pool.members import Standing

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from types import TracebackType

BUSY_S = 5.0
MOST_BY_NODE = 300_000  # results of a living run that are counted by node: sorting more takes a second
MOST_FAILED = 5_000  # failed tasks whose messages are looked at
MOST_TAILS = 200  # of them, those whose standard error is in a file of its own
EXAMPLES = 5
WINDOWS_S = (60.0, 600.0)
ENOUGH = 10  # ends in a window that make a rate

# Tasks that are on some lane: in a bundle, without a result, and not given up by this very attempt.
# A view of this connection's own: the file stays as it is.
HELD = """
CREATE TEMP VIEW held AS
SELECT b.id AS bundle, b.node, b.lane, b.at, j.value AS task, j.key AS place, json_array_length(b.tasks) AS size
FROM main.bundle b, json_each(b.tasks) j
WHERE NOT EXISTS (SELECT 1 FROM main.result r WHERE r.task = j.value)
  AND NOT EXISTS (SELECT 1 FROM main.attempt a WHERE a.task = j.value AND a.node = b.node AND a.at >= b.at)
"""


class History:
    """A run's journal at one moment, for reading.

    Args:
        path: of the journal.
        now: seconds since the epoch.

    Raises:
        JournalError: it cannot be read, or is not a journal, or is only just being made.
    """

    def __init__(self, path: Path, now: float) -> None:
        self.path = path
        self.now = now
        # Without its log the journal was closed well and nobody writes it. Read like that, no file is made beside it.
        closed = not Path(f"{path}-wal").exists()
        uri = f"{path.absolute().as_uri()}?mode=ro" + ("&immutable=1" if closed else "")
        try:
            self._db = sqlite3.connect(uri, uri=True, timeout=BUSY_S, isolation_level=None)
        except sqlite3.Error as error:
            raise self._trouble(error) from error
        try:
            self._read(HELD)
            self._read("BEGIN")
            self._check_format()
        except BaseException:
            self._db.close()
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Let go of the file."""
        self._db.close()

    def _check_format(self) -> None:
        found = self._read("PRAGMA user_version")[0][0]
        if found != FORMAT:
            word = f"has format {found}, and this Serai reads {FORMAT}" if found else "is empty"
            raise JournalError(f"the journal {self.path} {word}", hint=None if found else "is it just being made?")

    def _trouble(self, error: sqlite3.Error) -> JournalError:
        closed = "unable to open" in str(error) or "readonly" in str(error)
        hint = "is it yours, and its directory writable for you?" if closed else None
        return JournalError(f"cannot read the journal {self.path}: {error}", hint=hint)

    def _read(self, statement: str, parameters: Sequence[Any] = ()) -> list[tuple[Any, ...]]:
        try:
            return self._db.execute(statement, parameters).fetchall()
        except sqlite3.Error as error:
            raise self._trouble(error) from error

    # ---- the run

    @cached_property
    def run(self) -> RunNow:
        """The run."""
        facts = {key: json.loads(value) for key, value in self._read("SELECT key, value FROM run")}
        heard_at = max(_written_at(self.path), _written_at(Path(f"{self.path}-wal")))
        return RunNow(
            name=self.path.parent.name,
            directory=self.path.parent,
            state=state_of(facts, heard_at=heard_at, now=self.now, here=platform.node(), start_of=process_started),
            kind=str(facts.get(KIND, "run")),
            command=_command_line(facts),
            began=float(facts.get(BEGAN) or heard_at),
            ended=facts.get(ENDED),
            heard_at=heard_at,
            pid=facts.get(PID),
            host=facts.get(HOST),
            sites=tuple(map(str, facts.get(ON) or facts.get(SITES) or ())),
            total=facts.get(TOTAL),
            complete=facts.get(COMPLETE) is not False,
        )

    @cached_property
    def works(self) -> dict[int, tuple[str, dict[str, Any]]]:
        """(kind, description) of what many tasks share, by number."""
        return {work: (kind, json.loads(text)) for work, kind, text in self._read("SELECT * FROM work")}

    @cached_property
    def discovered(self) -> dict[str, Any]:
        """What matching went by beside nodes' ads; see `serai.dispatch.discovery`."""
        found: dict[str, Any] = {STORES: {}, NEAREST: {}, TASK: {}}
        rows = self._read("SELECT key, value FROM run WHERE key IN (?, ?, ?)", tuple(found))
        return found | {key: json.loads(value) for key, value in rows}

    @cached_property
    def counts(self) -> Counts:
        """Tasks by state."""
        ended = self._read("SELECT count(*) FROM result")[0][0]
        failed, cancelled = (
            self._read("SELECT count(*) FROM result WHERE state = ?", (int(state),))[0][0]
            for state in (State.FAILED, State.CANCELLED)
        )
        held, lanes = self._read(
            "SELECT count(DISTINCT task), count(DISTINCT node || ' ' || lane) FROM held"
        )[0]  # fmt: skip
        total, seen = self._extent
        running = min(held, lanes) if self.run.alive else 0
        assigned = held - running if self.run.alive else 0
        return Counts(
            total=total,
            seen=seen,
            done=ended - failed - cancelled,
            failed=failed,
            cancelled=cancelled,
            running=running,
            assigned=assigned,
            queued=max(0, seen - ended - running - assigned),
        )

    @cached_property
    def _extent(self) -> tuple[int | None, int]:
        """(total, seen), as in `Counts`."""
        noted, last = self._read("SELECT coalesce(sum(count), 0), coalesce(max(first + count - 1), 0) FROM items")[0]
        run = self.run
        if self.has_functions:
            # Tasks are numbered from 1 without gaps, and nothing is noted of a function before it is sent.
            seen = max(last, self.last_seen)
            return (seen if run.state is RunState.FINISHED else None), seen
        seen = max(noted, run.total or 0)
        return (seen if run.complete or run.total is not None else None), seen

    @cached_property
    def has_functions(self) -> bool:
        """Whether a program hands over functions, or may yet."""
        return self.run.kind == "pool" or any(kind == "function" for kind, _ in self.works.values())

    @cached_property
    def last_seen(self) -> int:
        """The highest number of a task that was ever sent or ended."""
        ended = self._read("SELECT coalesce(max(task), 0) FROM result")[0][0]
        sent = self._read("SELECT coalesce(max(j.value), 0) FROM bundle b, json_each(b.tasks) j")[0][0]
        tried = self._read("SELECT coalesce(max(task), 0) FROM attempt")[0][0]
        return int(max(ended, sent, tried))

    @cached_property
    def pace(self) -> Pace:
        """How fast tasks end: lately while it runs, over all its time afterwards. Nodes' clocks are trusted."""
        age = max(1e-3, self.run.until(self.now) - self.run.began)
        if self.run.alive:
            for window in WINDOWS_S:
                if window >= age:
                    break
                since_us = int((self.now - window) * 1e6)
                ends = self._read("SELECT count(*) FROM result WHERE started_us + took_us >= ?", (since_us,))[0][0]
                if ends >= ENOUGH:
                    return Pace(ends / window, window)
        return Pace(self.counts.ended / age, age)

    def notes(self, most: int = 10) -> list[Note]:
        """The last notes, oldest first; how inputs came is told of each task, not of the run."""
        wanted = "SELECT at, node, task, text FROM note WHERE substr(text, 1, ?) != ? ORDER BY id DESC LIMIT ?"
        rows = self._read(wanted, (len(WAY), WAY, most))
        return [Note(at, node or "", task or 0, text) for at, node, task, text in reversed(rows)]

    # ---- nodes

    @cached_property
    def nodes(self) -> list[NodeSeen]:
        """The nodes, by name."""
        held = {
            node: (lanes, tasks)
            for node, lanes, tasks in self._read(
                "SELECT node, count(DISTINCT lane), count(DISTINCT task) FROM held GROUP BY node"
            )
            if self.run.alive
        }
        counted = not self.run.alive or self.counts.ended <= MOST_BY_NODE
        by_node = {
            (node, state): count
            for node, state, count in self._read("SELECT node, state, count(*) FROM result GROUP BY node, state")
        } if counted else None  # fmt: skip
        rows = self._read("SELECT name, url, state, since, ad, beat, beat_at, why FROM node ORDER BY name")
        return [self._node(row, held.get(row[0], (0, 0)), by_node) for row in rows]

    def _node(
        self, row: tuple[Any, ...], held: tuple[int, int], by_node: Mapping[tuple[str, int], int] | None
    ) -> NodeSeen:
        name, url, state, since, ad_text, beat_text, beat_at, why = row
        ad = json.loads(ad_text) if ad_text else {}
        beat = json.loads(beat_text) if beat_text else {}
        there = self.run.alive and state == Standing.UP
        lanes = [(int(lane), int(now[0]), float(now[1])) for lane, now in beat.get("lanes", {}).items() if there]
        ended = self.ended_of([task for _, task, _ in lanes])
        slots = ad.get("slots") or _slots_in(url) or ad.get("cores") or 0
        return NodeSeen(
            name=name,
            url=url,
            state=state,
            since=since,
            why=why or "",
            ad=ad,
            slots=int(slots),
            memory_bytes=int(ad.get("memory_bytes") or 0),
            beat_at=beat_at,
            load=beat.get("load"),
            memory_free_bytes=beat.get("memory_free_bytes"),
            disk_free_bytes=beat.get("disk_free_bytes"),
            doing=tuple(sorted(one for one in lanes if one[1] not in ended)),
            busy=held[0],
            held=held[1],
            done=None if by_node is None else by_node.get((name, int(State.DONE)), 0),
            failed=None if by_node is None else by_node.get((name, int(State.FAILED)), 0),
        )

    def ended_of(self, tasks: Sequence[int]) -> set[int]:
        """Those of some tasks that have ended."""
        marks = json.dumps(list(tasks))
        rows = self._read("SELECT task FROM result WHERE task IN (SELECT value FROM json_each(?))", (marks,))
        return {task for (task,) in rows}

    # ---- failures

    @cached_property
    def failures(self) -> list[Failure]:
        """Failed tasks by cause and message, most frequent first. The first `MOST_FAILED` of them are looked at."""
        rows = self._read(
            """
            SELECT r.task, r.cause, r.exit, d.text, substr(s.data, -2000), s.path
            FROM result r LEFT JOIN detail d ON d.task = r.task LEFT JOIN stream s ON s.task = r.task AND s.which = 1
            WHERE r.state = ? ORDER BY r.task LIMIT ?""",
            (int(State.FAILED), MOST_FAILED),
        )
        groups: dict[tuple[int, str], tuple[str, list[int]]] = {}
        tails = 0
        for task, cause, code, detail, data, path in rows:
            tail = data or b""
            if path and tails < MOST_TAILS:
                tails += 1
                tail = Stream(1, b"", self._stream_path(path)).tail()
            words = gist(cause, code, detail or "", tail)
            groups.setdefault((cause, re.sub(r"[0-9]+", "#", words)), (words, []))[1].append(task)
        found = [
            Failure(cause, words, len(tasks), tuple(tasks[:EXAMPLES])) for (cause, _), (words, tasks) in groups.items()
        ]
        return sorted(found, key=lambda one: (-one.count, one.tasks))

    def failed_tasks(self) -> list[int]:
        """Every failed task, in order."""
        return [
            task
            for (task,) in self._read("SELECT task FROM result WHERE state = ? ORDER BY task", (int(State.FAILED),))
        ]

    # ---- one task

    def task(self, number: int) -> TaskNow:
        """One task.

        Raises:
            UsageError: there is none of this number.
        """
        result = self._result(number)
        places = self._places(number) if result is None and self.run.alive else ()
        attempts = tuple(
            Attempt(at, node or "", cause, text or "")
            for at, node, cause, text in self._read(
                "SELECT at, node, cause, text FROM attempt WHERE task = ? ORDER BY id", (number,)
            )
        )
        found = self._item(number)
        if found is None and result is None and not places and not 0 < number <= self.counts.seen:
            raise self._no_task(number)
        work, item = found or (None, None)
        if work is None and len(self.works) == 1:
            work = next(iter(self.works))
        description = self.works[work][1] if work in self.works else {}
        state = result.state if result else State.QUEUED
        if places:
            seen_running = any(task == number for node in self.nodes for _, task, _ in node.doing)
            state = State.RUNNING if seen_running else State.ASSIGNED
        detail = self._read("SELECT text FROM detail WHERE task = ?", (number,))
        notes = self._read("SELECT at, node, task, text FROM note WHERE task = ? ORDER BY id LIMIT 50", (number,))
        return TaskNow(
            number=number,
            state=state,
            what=str(description.get("command") or description.get("name") or ""),
            description=description,
            item=item,
            result=result,
            detail=detail[0][0] if detail else "",
            attempts=attempts,
            places=places,
            before=self._queued_before(number) if state is State.QUEUED else 0,
            notes=tuple(Note(at, node or "", task, text) for at, node, task, text in notes),
            streams=self.streams(number),
        )

    def _no_task(self, number: int) -> UsageError:
        first, last = self._read("SELECT min(first), max(first + count - 1) FROM items")[0]
        counts = self.counts
        if counts.total is None:
            known = f"tasks 1 to {counts.seen} are known of" if counts.seen else "none is known of"
            why = "; functions are noted when they are sent" if self.has_functions else ""
            hint = known + why + (", so it may come after those" if self.run.alive else "")
        elif not counts.total:
            hint = "it has no tasks"
        else:
            first, last = (first, last) if last is not None else (1, counts.seen)
            hint = (
                f"it has {counts.total} tasks: {first} to {last}" if counts.total > 1 else f"it has one task: {first}"
            )
        return UsageError(f"run {self.run.name} has no task {number}", hint=hint)

    def _result(self, number: int) -> Result | None:
        rows = self._read(
            "SELECT state, cause, exit, node, lane, started_us, took_us, rss_kb FROM result WHERE task = ?", (number,)
        )
        if not rows:
            return None
        state, cause, code, node, lane, started_us, took_us, rss_kb = rows[0]
        started, took_s, peak_bytes = (started_us or 0) / 1e6, (took_us or 0) / 1e6, (rss_kb or 0) * 1024
        return Result(State(state), cause, code, node or "", lane, started, took_s, peak_bytes)

    def _places(self, number: int) -> tuple[Held, ...]:
        rows = self._read(
            """
            SELECT h.node, h.lane, h.at, h.place, h.size,
                   (SELECT count(*) FROM held o WHERE o.bundle = h.bundle AND o.place < h.place)
            FROM held h WHERE h.task = ?""",
            (number,),
        )  # fmt: skip
        return tuple(Held(node, lane, at, place + 1, size, ahead) for node, lane, at, place, size, ahead in rows)

    def _item(self, number: int) -> tuple[int, Any] | None:
        rows = self._read(
            "SELECT first, work, count, data FROM items WHERE first <= ? ORDER BY first DESC LIMIT 1", (number,)
        )
        if not rows or number >= rows[0][0] + rows[0][2]:
            return None
        first, work, _, data = rows[0]
        return work, None if data is None else json.loads(zlib.decompress(data))[number - first]

    def _queued_before(self, number: int) -> int:
        noted = self._read(
            "SELECT coalesce(sum(min(count, ?1 - first)), 0), count(*) FROM items WHERE first < ?1", (number,)
        )[0]
        known = noted[0] if noted[1] else number - 1
        ended = self._read("SELECT count(*) FROM result WHERE task < ?", (number,))[0][0]
        held = self._read("SELECT count(DISTINCT task) FROM held WHERE task < ?", (number,))[0][0]
        return int(max(0, known - ended - held))

    def streams(self, number: int) -> tuple[Stream, ...]:
        """What a task printed; only tasks that ended have it, and only those that printed anything."""
        rows = self._read("SELECT which, data, path FROM stream WHERE task = ? ORDER BY which", (number,))
        return tuple(
            Stream(which, data or b"", self._stream_path(path) if path else None) for which, data, path in rows
        )

    def _stream_path(self, path: str) -> Path:
        """Where a long stream is, also after the run's directory was moved."""
        there = Path(path)
        return there if there.exists() else self.path.parent / "streams" / there.name


def _command_line(facts: Mapping[str, Any]) -> str:
    """For people: what was typed."""
    argv = [str(word) for word in facts.get(ARGV) or ()]
    if facts.get(KIND) == "command":  # of `serai run` the words after the program's name are kept
        return shlex.join(["serai", *argv]) if argv else str(facts.get("command", ""))
    return shlex.join([Path(argv[0]).name, *argv[1:]]) if argv else ""


def _written_at(path: Path) -> float:
    try:
        return path.stat().st_mtime
    except OSError:
        return 0.0


def _slots_in(url: str) -> int | None:
    match = re.search(r"[?&]slots=([0-9]+)", url)
    return int(match[1]) if match else None
