"""Where workers call: the master's decisions behind one lock, and a place for each answer until its worker takes it."""

from __future__ import annotations

import contextlib
import json
import os
import re
import threading
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

from serai.apps.mapreduce import events as ev
from serai.apps.mapreduce.master import Master
from serai.apps.mapreduce.record import part_facts
from serai.errors import SeraiError, UsageError

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from serai.apps.mapreduce.files import Outputs
    from serai.apps.mapreduce.plan import Input, Kept, Split
    from serai.apps.mapreduce.record import Record
    from serai.apps.mapreduce.tasks import Rules
    from serai.apps.workers.locality import Locality
    from serai.apps.workers.stewards import Place
    from serai.clock import Clock

ASK_S = 20.0  # a worker's question is answered within this, if only by "nothing"
LONGEST_WHY = 4000  # characters of what a worker says of a failure
DIGEST = re.compile("[0-9a-f]{64}").fullmatch  # of an object in a node's cache
MOST_IN_HEAD = 500  # maps that a reduce's order names; of more of them its body does


@dataclass(frozen=True, slots=True)
class Work:
    """What there is to do.

    Attributes:
        inputs: the files that are mapped.
        locality: where workers' hosts have them.
        splits: of them, one for each map.
        partitions: how many reduces.
        kept: what nodes have of splits; None where they keep nothing.
        seen: when the inputs were looked at, in seconds since 1970.
        parts: outputs that a former run has made, by their numbers; see `record.part_facts`.
    """

    inputs: Sequence[Input]
    locality: Locality
    splits: Sequence[Split]
    partitions: int
    kept: Kept | None = None
    seen: float = 0.0
    parts: Mapping[int, Mapping[str, Any]] = field(default_factory=dict)


@dataclass(slots=True)
class Known:
    """A worker that registered.

    Attributes:
        ad: what it said of itself.
        place: where it was started; None when somebody else started it.
        asks: how often it asked: only its last question is answered.
        order: what it was given and has not taken yet.
        drops: outputs that it may remove.
        cancelled: what it does is not needed.
        fraction: of its order that is done, 0 to 1.
    """

    ad: dict[str, Any]
    place: Place | None
    asks: int = 0
    order: ev.Order | None = None
    drops: list[str] | None = None
    cancelled: bool = False
    fraction: float = 0.0

    def take(self) -> ev.Order | None:
        """What it was given, which it has from now on."""
        order, self.order = self.order, None
        return order


class Desk:
    """Takes what workers say and answers them.

    Args:
        work: what there is to do.
        rules: of the master.
        outputs: where reduces' outputs land.
        record: what happened.
        clock: tells the time.
        heed: is told of workers that get nothing more and of splits that are left out; in sentences.

    Attributes:
        master: the decisions.
        known: workers that registered, by id.
        banished: workers that nobody wants any more.
        finals: the path of each output that is there.
        records: in each of them.
        end: how it ended, None while it goes on.
    """

    def __init__(
        self,
        work: Work,
        rules: Rules,
        outputs: Outputs,
        record: Record,
        clock: Clock,
        heed: Callable[[ev.Bar | ev.Skip], None],
    ) -> None:
        self.work = work
        self.master = Master(work.splits, work.partitions, rules, work.parts)
        self.record = record
        self.changed = threading.Condition(threading.RLock())
        self.known: dict[str, Known] = {}
        self.banished: set[str] = set()
        self.finals: dict[int, str] = {number: str(one["path"]) for number, one in work.parts.items()}
        self.records: dict[int, int] = {number: int(one["records"]) for number, one in work.parts.items()}
        self.end: ev.Finish | ev.Fail | None = None
        self._outputs = outputs
        self._clock = clock
        self._heed = heed
        self._closed = False

    @property
    def over(self) -> bool:
        """Whether nothing more is given."""
        return self.end is not None or self._closed

    def close(self) -> None:
        """Have every worker told to stop."""
        with self.changed:
            self._closed = True
            self.changed.notify_all()

    def handlers(self) -> dict[str, Any]:
        """What workers call, by name."""
        return {
            "work.next": self.on_next,
            "work.done": self.on_done,
            "work.failed": self.on_failed,
            "work.beat": self.on_beat,
        }

    # ---- events in, actions out

    def tell(self, event: ev.Event) -> None:
        """Have the master decide, and do what it says."""
        with self.changed:
            if self.over:
                return
            event = self._note(event)
            for action in self.master.decide(event, self._clock.now()):
                self._act(action)

    def _note(self, event: ev.Event) -> ev.Event:
        if isinstance(event, ev.Gone) and event.worker in self.known:
            if self.known[event.worker].take() is not None:
                event = replace(event, by_itself=False)  # it never had what it was given
            self.record.note("lost", worker=event.worker, why=event.why)
        elif isinstance(event, ev.Failed):
            facts = {"why": event.what, "missing": len(event.missing), "transient": event.transient}
            self.record.note("failed", worker=event.worker, **_of(event.order), **facts)
        return event

    def _act(self, action: ev.Action) -> None:
        match action:
            case ev.Give():
                self.known[action.worker].order = action.order
                self.record.note("given", worker=action.worker, **_of(action.order), again=action.again)
            case ev.Cancel():
                self.known[action.worker].cancelled = True
                self.record.note("cancelled", worker=action.worker, **_of(action.order))
            case ev.Discard():
                self._discard(action)
            case ev.Reopen():
                self.record.note("reopened", number=action.number, why=action.why)
            case ev.Bar():
                self.record.note("barred", worker=action.worker, why=action.why)
                self._heed(action)
            case ev.Skip():
                self.record.note("skipped", number=action.number, why=action.why)
                self._heed(action)
            case ev.Finish() | ev.Fail():
                self.end = action
                self.record.note("ended", failed=action.what if isinstance(action, ev.Fail) else None)
            case ev.Accept():
                return
        self.changed.notify_all()

    def _discard(self, action: ev.Discard) -> None:
        if action.order.kind == ev.MAP:
            known = self.known[action.worker]
            known.drops = [*(known.drops or ()), str(action.output.get("path"))]
        else:
            with contextlib.suppress(OSError, UsageError):
                os.unlink(self._outputs.path_of(part_name(action.order.number), action.order.attempt))

    # ---- what workers call

    def join(self, worker: str, ad: dict[str, Any], place: Place | None) -> None:
        """A worker registered, perhaps once more."""
        with self.changed:
            if worker not in self.known:
                python = ".".join(str(part) for part in listed(ad.get("python")))
                self.known[worker] = Known(ad, place)
                self.record.note(
                    "joined", worker=worker, host=place.name if place else str(ad.get("host")), python=python
                )
            self.known[worker].ad = ad
            key = place.key if place is not None else f"?{worker}"
            self.tell(ev.Joined(worker, key, self.work.locality.near(place)))

    def _worker(self, head: dict[str, Any]) -> tuple[str, Known]:
        name = str(head.get("worker"))
        if name in self.banished:
            raise UsageError(f"worker {name} is not wanted any more")
        if name not in self.known:
            raise UsageError(f"worker {name} has not asked for the job")
        return name, self.known[name]

    def on_next(self, head: dict[str, Any], _body: bytes) -> tuple[dict[str, Any], bytes]:
        """``work.next``: {worker} -> {order}, None when there is nothing for a while."""
        with self.changed:
            name, worker = self._worker(head)
            worker.asks += 1
            number = worker.asks
            worker.order, worker.cancelled, worker.fraction = None, False, 0.0
            drops, worker.drops = worker.drops, None
            if drops:
                return {"order": {"kind": "drop", "paths": drops}}, b""
            self.tell(ev.Asked(name))
            self.changed.wait_for(lambda: self.over or worker.order is not None or worker.asks != number, ASK_S)
            if worker.asks != number:
                return {"order": None}, b""  # a later question is the one that counts
            if self.over or name in self.banished:
                return {"order": {"kind": "stop"}}, b""
            order = worker.take()
            if order is None:
                self.tell(ev.Waited(name))
                return {"order": None}, b""
            return self._answer(self._order(worker, order))

    def on_done(self, head: dict[str, Any], _body: bytes) -> tuple[dict[str, Any], bytes]:
        """``work.done``: {worker, kind, task or partition, attempt, outputs, records, times}."""
        order, output = _order_of(head), head.get("outputs")
        with self.changed:
            name, worker = self._worker(head)
            task = self.master.task(order)
            if self.over or task is None:
                return {}, b""
            output = _output(order, output, self.work.partitions)
            news = not task.done
            worker.fraction = 0.0
            if news and order.kind == ev.REDUCE:
                part = part_name(order.number)
                try:
                    self.finals[order.number] = self._outputs.accept(part, order.attempt, output.get("size"))
                except (OSError, SeraiError) as error:
                    self.tell(ev.Failed(name, order, f"its output is not there: {error}", transient=True))
                    return {}, b""
                self.records[order.number] = int(head.get("records") or output.get("records") or 0)
            facts = {"records": head.get("records"), "times": _times(head)}
            if news and order.kind == ev.REDUCE:
                facts["part"] = part_facts(self.finals[order.number], self.records[order.number])
            self.record.note("done", worker=name, **_of(order), accepted=news, **facts)
            self.tell(ev.Done(name, order, output))
            kept = str(head.get("kept") or "")
            if self.work.kept is not None and order.kind == ev.MAP and worker.place is not None and DIGEST(kept):
                split = self.work.splits[order.number]
                self.work.kept.note(self.work.inputs[split.input], split, kept, worker.place.key, self.work.seen)
        return {}, b""

    def on_failed(self, head: dict[str, Any], _body: bytes) -> tuple[dict[str, Any], bytes]:
        """``work.failed``: {worker, kind, task or partition, attempt, what, missing, transient}."""
        order = _order_of(head)
        missing = tuple(one for one in head.get("missing") or () if isinstance(one, int))
        with self.changed:
            name, worker = self._worker(head)
            worker.fraction = 0.0
            what = str(head.get("what") or "it failed")[:LONGEST_WHY]
            self.tell(ev.Failed(name, order, what, missing, bool(head.get("transient"))))
        return {}, b""

    def on_beat(self, head: dict[str, Any], _body: bytes) -> tuple[dict[str, Any], bytes]:
        """``work.beat``: {worker, done_fraction} -> {cancel}: whether what it does is still needed."""
        with self.changed:
            _, worker = self._worker(head)
            fraction = head.get("done_fraction")
            if isinstance(fraction, int | float):
                worker.fraction = max(0.0, min(1.0, float(fraction)))
            return {"cancel": worker.cancelled or self.over, "stop": self.over}, b""

    def holder_of(self, worker: str, path: str) -> str | None:
        """The host of a worker that has a map's output at a path; None when there is no such output."""
        with self.changed:
            known, record = self.known.get(worker), self.master.workers.get(worker)
            if known is None or known.place is None or record is None:
                return None
            held = ((self.master.maps[number].output or {}).get("path") for number in record.outputs)
            return known.place.key if path in held else None

    # ---- orders

    @staticmethod
    def _answer(order: dict[str, Any]) -> tuple[dict[str, Any], bytes]:
        maps = order.get("maps", ())
        if len(maps) <= MOST_IN_HEAD:
            return {"order": order}, b""
        return {"order": {**order, "maps": []}}, json.dumps(maps, separators=(",", ":")).encode()

    def _order(self, worker: Known, order: ev.Order) -> dict[str, Any]:
        facts = {"kind": order.kind, "attempt": order.attempt}
        place = worker.place
        if order.kind == ev.MAP:
            split = self.work.splits[order.number]
            one = self.work.inputs[split.input]
            local = self.work.locality.path(split.input, place)
            source: dict[str, Any] = {"url": one.url, "path": None if local is None else local.path}
            source |= {"start": split.start, "stop": split.stop, "compression": one.compression, "size": one.size}
            if local is not None and local.sure:
                source["mtime"] = one.mtime
            if local is not None and not local.sure:
                source["same"] = {"mtime": one.mtime, "inode": one.inode if local.inode else None}
            if local is None and self.work.kept is not None:
                source |= {"keep": True, "digest": (self.work.kept.find(one, split) or ("",))[0]}
            return {**facts, "task": order.number, "input": source}
        name = part_name(order.number)
        path = self._outputs.path_of(name, order.attempt) if place is not None and not place.key else None
        maps = [self._located(number, order.number) for number, one in enumerate(self.master.maps) if not one.skipped]
        return {**facts, "partition": order.number, "maps": maps, "output": {"name": name, "path": path}}

    def _located(self, number: int, partition: int) -> dict[str, Any]:
        """Where a reduce finds its part of a map's output."""
        task = self.master.maps[number]
        output = task.output or {}
        start, size = output["index"][partition]
        ad = self.known[task.worker].ad
        where = {"host": ad.get("host"), "addresses": listed(ad.get("addresses")), "port": ad.get("shuffle_port")}
        return {
            "task": number,
            "worker": task.worker,
            **where,
            "path": output["path"],
            "start": start,
            "size": size,
        }


def part_name(number: int) -> str:
    """The name of a partition's output."""
    return f"part-{number:05}"


def listed(value: Any) -> list[Any]:
    """A value of an ad as a list: an ad may hold one alone."""
    return value if isinstance(value, list) else [] if value is None else [value]


def _of(order: ev.Order) -> dict[str, Any]:
    return {"kind": order.kind, "number": order.number, "attempt": order.attempt}


def _times(head: dict[str, Any]) -> dict[str, float]:
    times = head.get("times")
    items = times.items() if isinstance(times, dict) else ()
    return {str(key): round(float(value), 4) for key, value in items if isinstance(value, int | float)}


def _output(order: ev.Order, output: Any, partitions: int) -> dict[str, Any]:
    """What a worker says of its output, checked.

    Raises:
        UsageError: a worker of another version says it.
    """
    if not isinstance(output, dict):
        raise UsageError("work.done says nothing of outputs")
    index = output.get("index")
    if order.kind == ev.MAP and not (
        isinstance(output.get("path"), str)
        and isinstance(index, list)
        and len(index) == partitions
        and all(isinstance(pair, list) and len(pair) == 2 for pair in index)
    ):
        raise UsageError(f"a map's output is a path and an index of {partitions} pairs")
    return output


def _order_of(head: dict[str, Any]) -> ev.Order:
    kind = head.get("kind")
    number = head.get("task" if kind == ev.MAP else "partition")
    attempt = head.get("attempt")
    if kind not in {ev.MAP, ev.REDUCE} or not isinstance(number, int) or not isinstance(attempt, int):
        raise UsageError("this is no order")
    return ev.Order(kind, number, attempt)
