"""Where the time went: told from a run's events."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any
from xml.etree import ElementTree as ET

import pytest

from serai.apps.mapreduce.record import Record, read_events
from serai.apps.mapreduce.timeline import KINDS, timeline_of

if TYPE_CHECKING:
    from pathlib import Path


def order(kind: str, number: int, attempt: int = 1) -> dict[str, Any]:
    return {"kind": kind, "number": number, "attempt": attempt}


EVENTS: list[dict[str, Any]] = [
    {"t": 0.0, "what": "began", "session": "words <&>", "splits": 2, "partitions": 1},
    {"t": 0.5, "what": "host", "host": "lab1", "workers": ["w1", "w2"]},
    {"t": 1.0, "what": "joined", "worker": "w1", "host": "lab1"},
    {"t": 1.0, "what": "given", "worker": "w1", **order("map", 0)},
    {"t": 2.0, "what": "joined", "worker": "w2", "host": "lab1"},
    {"t": 2.0, "what": "given", "worker": "w2", **order("map", 1)},
    {"t": 3.0, "what": "done", "worker": "w1", **order("map", 0), "times": {"read": 0.5, "map": 1.0, "total": 2.0}},
    {"t": 4.0, "what": "given", "worker": "w1", **order("map", 1, 2), "again": True},
    {"t": 5.0, "what": "lost", "worker": "w2", "why": "it died & is gone"},
    {"t": 6.0, "what": "done", "worker": "w1", **order("map", 1, 2), "times": {"map": 2.0}},
    {"t": 6.0, "what": "given", "worker": "w1", **order("reduce", 0)},
    {"t": 8.0, "what": "done", "worker": "w1", **order("reduce", 0), "times": {"fetch": 1.0, "reduce": 1.0}},
    {"t": 8.0, "what": "ended", "failed": None},
    {"t": 9.0, "what": "lost", "worker": "w1", "why": "after the end"},
]


def test_every_second_of_every_worker_is_accounted_for() -> None:
    timeline = timeline_of(EVENTS)
    totals = timeline.totals()
    assert sum(totals.values()) == pytest.approx(8.0 + 5.0), "w1 until the end, w2 until it was lost"
    assert totals["start"] == pytest.approx(1.0 + 2.0)
    assert totals["map"] == pytest.approx(1.0 + 2.0)
    assert totals["read"] == pytest.approx(0.5)
    assert totals["other"] == pytest.approx(0.5 + 3.0), "what w2 did was lost with it"
    assert totals["idle"] == pytest.approx(1.0)


def test_what_became_of_each_attempt() -> None:
    first, second = timeline_of(EVENTS).rows
    assert [(bar.kind, bar.outcome, bar.again) for bar in first.bars] == [
        ("map", "done", False),
        ("map", "done", True),
        ("reduce", "done", False),
    ]
    assert [(bar.ended, bar.outcome) for bar in second.bars] == [(5.0, "lost")]
    assert second.lost == [(5.0, "it died & is gone")]
    assert first.lost == []


def test_the_picture_is_well_formed_and_names_everything() -> None:
    picture = timeline_of(EVENTS).svg()
    root = ET.fromstring(picture)  # noqa: S314 - we made it
    texts = [element.text or "" for element in root.iter() if element.text]
    assert any("words <&>" in text for text in texts)
    assert any("it died & is gone" in text for text in texts)
    assert any("lab1/w2" in text for text in texts)
    assert ET.fromstring(timeline_of([]).svg()) is not None  # noqa: S314 - as above


def test_the_table_has_shares() -> None:
    lines = timeline_of(EVENTS).table().splitlines()
    assert [line.split()[0] for line in lines[1:]] == [kind for kind in KINDS if kind not in {"sort", "write"}]
    assert sum(float(line.split()[2].rstrip("%")) for line in lines[1:]) == pytest.approx(100, abs=0.5)


class Clock:
    """A clock that goes on by a second when it is asked."""

    def __init__(self) -> None:
        self.time = 0.0

    def now(self) -> float:
        self.time += 1.0
        return self.time

    def wall(self) -> float:
        return self.time


def test_a_record_is_read_again_without_a_line_that_was_cut_off(tmp_path: Path) -> None:
    record = Record(tmp_path / "events.jsonl", Clock())
    record.note("joined", worker="w1")
    record.note("lost", worker="w1")
    record.close()
    record.note("ended")  # nobody writes it any more
    with (tmp_path / "events.jsonl").open("a") as file:
        file.write('{"t": 3, "wh')
    assert read_events(tmp_path / "events.jsonl") == record.events[:2]
    assert [event["t"] for event in record.events] == [1.0, 2.0, 3.0]
