"""What each worker did and when, as a picture and as a table, from a run's events. Pure."""

from __future__ import annotations

import html
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from serai.quantity import format_seconds

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

Event = dict[str, Any]

STEPS = {"map": ("read", "map", "sort"), "reduce": ("fetch", "reduce", "write")}
KINDS = ("start", "read", "map", "sort", "fetch", "reduce", "write", "other", "idle")
COLOURS = {
    "start": "#c9c4bb",
    "read": "#9ecae1",
    "map": "#3182bd",
    "sort": "#08519c",
    "fetch": "#fdae6b",
    "reduce": "#31a354",
    "write": "#006d2c",
    "other": "#8c8c8c",
    "idle": "#f2efe9",
}
WASTED = "#d62728"
_ROW, _LEFT, _WIDTH, _TOP = 18, 150, 900, 54


@dataclass(slots=True)
class Bar:
    """One attempt of a worker.

    Attributes:
        kind: "map" or "reduce".
        number: of its task.
        attempt: at it.
        began: seconds since the run's begin.
        ended: the same.
        outcome: "done", "failed", "cancelled", "lost", or "" for one that the end of the run cut short.
        times: seconds by step, as the worker measured them.
        again: it was a second attempt beside a slow one.
    """

    kind: str
    number: int
    attempt: int
    began: float
    ended: float = 0.0
    outcome: str = ""
    times: dict[str, float] = field(default_factory=dict)
    again: bool = False


@dataclass(slots=True)
class Row:
    """One worker.

    Attributes:
        worker: its id.
        host: where it ran.
        started: when its start began.
        joined: when it registered; None if it never did.
        lost: when, and why, it was lost.
        bars: what it did.
    """

    worker: str
    host: str
    started: float
    joined: float | None = None
    lost: list[tuple[float, str]] = field(default_factory=list)
    bars: list[Bar] = field(default_factory=list)

    def seconds(self, end: float) -> dict[str, float]:
        """How long it did what, until ``end``."""
        spent = dict.fromkeys(KINDS, 0.0)
        spent["start"] = (end if self.joined is None else self.joined) - self.started
        for bar in self.bars:
            inside = {step: bar.times.get(step, 0.0) for step in STEPS[bar.kind]}
            took = bar.ended - bar.began
            scale = min(1.0, took / max(sum(inside.values()), 1e-9))
            for step, value in inside.items():
                spent[step] += value * scale
            spent["other"] += max(0.0, took - sum(inside.values()) * scale)
        last = self.lost[-1][0] if self.lost and not any(bar.began > self.lost[-1][0] for bar in self.bars) else end
        busy = sum(bar.ended - bar.began for bar in self.bars)
        spent["idle"] = max(0.0, last - self.started - spent["start"] - busy)
        return spent


@dataclass(frozen=True, slots=True)
class Timeline:
    """A run's workers over time.

    Attributes:
        rows: one for each worker.
        end: seconds from the run's begin to its end.
        title: what was run.
    """

    rows: tuple[Row, ...]
    end: float
    title: str = ""

    def totals(self) -> dict[str, float]:
        """Seconds of all workers by what they were spent on."""
        each = [row.seconds(self.end) for row in self.rows]
        return {kind: sum(one[kind] for one in each) for kind in KINDS}

    def table(self) -> str:
        """Where the time went, as text."""
        totals = self.totals()
        whole = sum(totals.values()) or 1.0
        shown = [kind for kind in KINDS if totals[kind] / whole >= 0.0005]
        lines = [f"{'':>8}  {'seconds':>9}  {'share':>6}"]
        lines += [f"{kind:>8}  {totals[kind]:9.2f}  {totals[kind] / whole:6.1%}" for kind in shown]
        return "\n".join(lines)

    def svg(self) -> str:
        """The picture."""
        return _picture(self)


def timeline_of(events: Iterable[Event]) -> Timeline:
    """Reads a run's events."""
    reading = _Reading()
    for event in events:
        reading.take(event)
        if event["what"] == "ended":
            break
    return reading.timeline()


class _Reading:
    """What is known of a run after some of its events."""

    def __init__(self) -> None:
        self._rows: dict[str, Row] = {}
        self._open: dict[str, Bar] = {}
        self._end = 0.0
        self._title = ""

    def take(self, event: Event) -> None:
        self._end = max(self._end, float(event["t"]))
        handler = getattr(self, f"_on_{event['what']}", None)
        if handler is not None:
            handler(event, float(event["t"]), str(event.get("worker", "")))

    def timeline(self) -> Timeline:
        for bar in self._open.values():
            _end(bar, self._end, bar.outcome)
        return Timeline(tuple(self._rows.values()), self._end, self._title)

    def _on_began(self, event: Event, _at: float, _worker: str) -> None:
        self._title = f"{event['session']}: {event['splits']} maps, {event['partitions']} reduces"

    def _on_host(self, event: Event, _at: float, _worker: str) -> None:
        for name in event["workers"]:
            self._rows[name] = Row(name, event["host"], 0.0)

    def _on_joined(self, event: Event, at: float, worker: str) -> None:
        self._rows.setdefault(worker, Row(worker, event["host"], at)).joined = at

    def _on_given(self, event: Event, at: float, worker: str) -> None:
        _end(self._open.pop(worker, None), at, "")
        bar = Bar(event["kind"], event["number"], event["attempt"], at, again=bool(event.get("again")))
        self._open[worker] = bar
        self._rows[worker].bars.append(bar)

    def _on_done(self, event: Event, at: float, worker: str) -> None:
        self._ended(event, at, worker, "done" if event.get("accepted", True) else "cancelled")

    def _on_failed(self, event: Event, at: float, worker: str) -> None:
        self._ended(event, at, worker, "failed")

    def _ended(self, event: Event, at: float, worker: str, outcome: str) -> None:
        bar = self._open.get(worker)
        if bar is not None and _same(bar, event):
            _end(self._open.pop(worker), at, outcome)
            bar.times = event.get("times") or {}

    def _on_cancelled(self, event: Event, _at: float, worker: str) -> None:
        if worker in self._open and _same(self._open[worker], event):
            self._open[worker].outcome = "cancelled"

    def _on_lost(self, event: Event, at: float, worker: str) -> None:
        if worker in self._rows:
            self._rows[worker].lost.append((at, str(event["why"])))
            _end(self._open.pop(worker, None), at, "lost")


def _same(bar: Bar, event: Event) -> bool:
    return (bar.kind, bar.number, bar.attempt) == (event["kind"], event["number"], event["attempt"])


def _end(bar: Bar | None, at: float, outcome: str) -> None:
    if bar is not None:
        bar.ended = at
        bar.outcome = bar.outcome or outcome


# ---- the picture


def _picture(timeline: Timeline) -> str:
    scale = _WIDTH / max(timeline.end, 1e-6)
    height = _TOP + _ROW * len(timeline.rows) + 60
    width = _LEFT + _WIDTH + 30
    size = f'width="{width}" height="{height}"'
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" {size} font-family="sans-serif" font-size="11">',
        f'<rect width="{width}" height="{height}" fill="white"/>',
        f'<text x="{_LEFT}" y="18" font-size="13">{_text(timeline.title)}, {_text(_seconds(timeline.end))}</text>',
        *_legend(timeline),
    ]
    for number, row in enumerate(timeline.rows):
        parts += _row(row, _TOP + number * _ROW, timeline.end, scale)
    parts += _axis(timeline.end, scale, _TOP + _ROW * len(timeline.rows))
    return "\n".join([*parts, "</svg>\n"])


def _legend(timeline: Timeline) -> list[str]:
    totals = timeline.totals()
    parts: list[str] = []
    x = float(_LEFT)
    for kind in KINDS:
        if totals[kind] >= 0.005:
            words = f"{kind} {_seconds(totals[kind])}"
            parts.append(_rect(x, 28, 10, 10, COLOURS[kind]))
            parts.append(f'<text x="{x + 14}" y="37">{_text(words)}</text>')
            x += 26 + 7 * len(words)
    return parts


def _row(row: Row, y: float, end: float, scale: float) -> list[str]:
    name = f"{row.host}/{row.worker}"
    parts = [f'<text x="{_LEFT - 6}" y="{y + 12}" text-anchor="end">{_text(name[-24:])}</text>']
    last = row.lost[-1][0] if row.lost else end
    joined = end if row.joined is None else row.joined
    parts.append(_rect(_LEFT + row.started * scale, y + 2, (joined - row.started) * scale, _ROW - 4, COLOURS["start"]))
    parts.append(_rect(_LEFT + joined * scale, y + 2, max(0.0, last - joined) * scale, _ROW - 4, COLOURS["idle"]))
    for bar in row.bars:
        parts += _bar(bar, y, scale)
    for at, why in row.lost:
        x = _LEFT + at * scale
        cross = f"M{x - 4:.1f} {y + 4:.1f}l8 10m0 -10l-8 10"
        parts.append(f'<path d="{cross}" stroke="{WASTED}" stroke-width="2"><title>{_text(why)}</title></path>')
    return parts


def _bar(bar: Bar, y: float, scale: float) -> list[str]:
    """One attempt: its steps one after another, and a red edge where nothing came of it."""
    x, width = _LEFT + bar.began * scale, max(0.5, (bar.ended - bar.began) * scale)
    words = f"{bar.kind} {bar.number}, attempt {bar.attempt}: {_seconds(bar.ended - bar.began)} {bar.outcome}"
    steps = [(step, bar.times.get(step, 0.0)) for step in STEPS[bar.kind]]
    whole = max(sum(value for _, value in steps), bar.ended - bar.began, 1e-9)
    parts = [f"<g><title>{_text(words)}</title>", _rect(x, y + 2, width, _ROW - 4, COLOURS["other"])]
    if not any(value for _, value in steps):
        parts.append(_rect(x, y + 2, width, _ROW - 4, COLOURS[bar.kind]))
    at = x
    for step, value in steps:
        parts.append(_rect(at, y + 2, width * value / whole, _ROW - 4, COLOURS[step]))
        at += width * value / whole
    edge = "white" if bar.outcome == "done" else WASTED
    dashes = ' stroke-dasharray="3 2"' if bar.again and bar.outcome != "done" else ""
    parts.append(
        f'<rect x="{x:.1f}" y="{y + 2:.1f}" width="{width:.1f}" height="{_ROW - 4}" fill="none" stroke="{edge}"'
        f' stroke-width="{0.5 if edge == "white" else 1.5}"{dashes}/></g>'
    )
    return parts


def _axis(end: float, scale: float, y: float) -> list[str]:
    step = next((one for one in _steps() if end / one <= 10), end)
    parts = [f'<line x1="{_LEFT}" y1="{y + 4}" x2="{_LEFT + _WIDTH}" y2="{y + 4}" stroke="#666"/>']
    for number in range(int(end / step) + 1 if step else 1):
        x = _LEFT + number * step * scale
        parts.append(f'<line x1="{x:.1f}" y1="{y + 4}" x2="{x:.1f}" y2="{y + 8}" stroke="#666"/>')
        parts.append(f'<text x="{x:.1f}" y="{y + 20}" text-anchor="middle">{_text(_seconds(number * step))}</text>')
    return parts


def _steps() -> Sequence[float]:
    return [digit * 10.0**power for power in range(-3, 6) for digit in (1, 2, 5)]


def _rect(x: float, y: float, width: float, height: float, colour: str) -> str:
    return f'<rect x="{x:.1f}" y="{y:.1f}" width="{width:.1f}" height="{height:.1f}" fill="{colour}"/>'


def _seconds(value: float) -> str:
    return format_seconds(round(value, 3))


def _text(words: str) -> str:
    return html.escape(words)
