"""Single situations of the schedule in a few lines: for tests and for trying things out.

>>> case().node("a", slots=2).work().tasks(3).decide()
['a/0 <- 1', 'a/1 <- 2', 'a/0 <- 3']
"""

from __future__ import annotations

import random
from typing import TYPE_CHECKING, Self

from serai.describe.task import Cause, Needs
from serai.dispatch.schedule import events as ev
from serai.dispatch.schedule.machine import Schedule
from serai.sim.checks import sanity

if TYPE_CHECKING:
    from serai.dispatch.schedule.records import Bundle

VERDICTS = {ev.Verdict.DONE: "done", ev.Verdict.FAILED: "failed", ev.Verdict.AGAIN: "again", ev.Verdict.LATE: "late"}


class Case:
    """A schedule and a clock that only moves when told.

    Lanes are written ``node/lane``. What is decided is read as short lines, in order; notes are left out.

    Args:
        limits: of the schedule.
    """

    def __init__(self, limits: ev.Limits | None = None) -> None:
        self.now = 0.0
        self.schedule = Schedule(limits or ev.Limits(), random.Random(0))  # noqa: S311 - a case is always the same
        self._work = 0
        self._last_task = 0
        self._last_file = 0

    # ---- events

    def tell(self, event: ev.Event) -> Self:
        """Tell the schedule anything."""
        self.schedule.tell(event, self.now)
        return self

    def node(
        self, name: str, *, slots: int = 1, site: str = "", memory_bytes: int = 0, rtt_s: float = 0.001, **has: bool
    ) -> Self:
        """A node checks in; its site has its name by default, and ``has`` says what is known about programs."""
        ad = {"python": (3, 12), "software": has}
        return self.tell(ev.NodeUp(name, site or name, slots, memory_bytes, ad, rtt_s))

    def work(self, *, times: int = 0, **needs: object) -> Self:
        """A work is known, with so many retries."""
        self._work += 1
        return self.tell(ev.WorkAdded(self._work, Needs(**needs), ev.Retry(times)))  # type: ignore[arg-type]  # passed on

    def tasks(self, count: int) -> Self:
        """Tasks of the last work are there; their numbers go on from 1."""
        first = self._last_task + 1
        self._last_task += count
        return self.tell(ev.TasksAdded(self._work, range(first, first + count)))

    def files(self, *sizes: int) -> Self:
        """Files are known; their numbers go on from 1, sizes are in bytes."""
        first = self._last_file + 1
        self._last_file += len(sizes)
        return self.tell(ev.FilesAdded(range(first, first + len(sizes)), sizes))

    def read(self, *inputs: tuple[int, ...]) -> Self:
        """Tasks of the last work are there that read these files each; their numbers go on from 1."""
        first = self._last_task + 1
        self._last_task += len(inputs)
        return self.tell(ev.TasksAdded(self._work, range(first, first + len(inputs)), inputs=inputs))

    def down(self, name: str) -> Self:
        """A node is given up, or a lane (``a/0``) dies of what it ran."""
        node, _, lane = name.partition("/")
        return self.tell(ev.LaneDown(node, int(lane), "it died", blame=True) if lane else ev.NodeDown(node, "it died"))

    def after(self, seconds: float) -> Self:
        """Time passes, and the schedule is told so."""
        self.now += seconds
        return self.tell(ev.Tick())

    def runs(self, lane: str, task: int, for_s: float = 0.5) -> Self:
        """A heartbeat says that a lane runs a task."""
        node, _, number = lane.partition("/")
        return self.tell(ev.Heard(node, {int(number): (task, for_s)}))

    def ends(self, lane: str, *tasks: int, cause: Cause = Cause.OK, took_s: float = 1.0, final: bool = False) -> Self:
        """Tasks of the first bundle of a lane end (all of them by default); the bundle ends with the last of them."""
        bundle = self.bundle(lane)
        ended = list(tasks or bundle.left)
        last = not bundle.left.keys() - set(ended)
        return self.report(bundle, ended, cause=cause, took_s=took_s, last=last, final=final)

    def report(
        self,
        bundle: Bundle,
        tasks: list[int],
        *,
        cause: Cause = Cause.OK,
        took_s: float = 1.0,
        returned: tuple[int, ...] = (),
        last: bool = False,
        final: bool = False,
    ) -> Self:
        """A report of a bundle, which may have been given up."""
        causes = None if cause == Cause.OK else [int(cause)] * len(tasks)
        took = [int(took_s * 1e6)] * len(tasks)
        node = bundle.node.name
        return self.tell(ev.Report(node, bundle.lane, bundle.id, tasks, causes, took, returned, last=last, final=final))

    # ---- looking

    def bundle(self, lane: str, position: int = 0) -> Bundle:
        """A bundle of a lane."""
        node, _, number = lane.partition("/")
        return self.schedule.nodes[node].lanes[int(number)][position]

    def decide(self) -> list[str]:
        """Let the schedule decide; everything it remembers is checked on the way."""
        actions = self.schedule.decide(self.now)
        sanity(self.schedule, self.now)
        return [line for line in map(say, actions) if line]


def case(limits: ev.Limits | None = None) -> Case:
    """Begin a case."""
    return Case(limits)


def say(action: ev.Action) -> str:  # noqa: PLR0911 - one line for each kind
    """Write an action as a short line; empty for a note."""
    match action:
        case ev.Assign():
            return f"{action.node}/{action.lane} <- {_list(action.tasks)}"
        case ev.Copy():
            return f"{action.node} <- file {action.file}"
        case ev.Recall():
            return f"{action.node}/{action.lane} recall {action.bundle}"
        case ev.Kill():
            return f"{action.node}/{action.lane} kill {_list(action.tasks)}"
        case ev.Probe():
            return f"{action.node} has {' '.join(action.software)}?"
        case ev.Settle():
            verdicts = action.verdicts or [ev.Verdict.DONE] * len(action.report.tasks)
            return ", ".join(
                f"{task} {VERDICTS[verdict]}" for task, verdict in zip(action.report.tasks, verdicts, strict=True)
            )
        case ev.GiveUp():
            return f"{action.task} given up"
        case ev.Stopped():
            return f"{_list(action.tasks)} stopped"
        case ev.Note() | ev.Closed():
            return ""


def _list(tasks: list[int]) -> str:
    return " ".join(map(str, tasks))
