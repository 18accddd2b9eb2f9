"""What a run does when another process asks for it: tell what it is, let go of nodes, cancel tasks."""

from __future__ import annotations

import difflib
from typing import TYPE_CHECKING, Any

from serai.errors import UsageError
from serai.pool.members import Standing

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from serai.dispatch.control.channel import Order
    from serai.dispatch.dispatcher import Dispatcher

MOST_TASKS = 100_000  # of a request


class Orders:
    """The orders of a run.

    Args:
        about: what the run says of itself.
        dispatcher: of the run.
        cancel_all: ends everything that has not ended.
        warn: tells the run's user what was done.
    """

    def __init__(
        self,
        about: Callable[[], Mapping[str, Any]],
        dispatcher: Dispatcher,
        cancel_all: Callable[[], object],
        warn: Callable[[str], object],
    ) -> None:
        self._about = about
        self._dispatcher = dispatcher
        self._cancel_all = cancel_all
        self._warn = warn

    def table(self) -> dict[str, Order]:
        """By name."""
        return {"about": self.about, "release": self.release, "cancel": self.cancel}

    def about(self, _asked: Mapping[str, Any]) -> Iterator[Mapping[str, Any] | None]:
        """What the run is."""
        yield {**self._about(), "nodes": list(self._dispatcher.roster.specs)}

    # ---- nodes

    def release(self, asked: Mapping[str, Any]) -> Iterator[Mapping[str, Any] | None]:
        """``nodes``: let go of them; ``last``: also of the last one. News: what each has still to do.

        Raises:
            UsageError: there is no such node, or none would be left.
        """
        nodes = list(dict.fromkeys(map(str, _listed(asked.get("nodes")))))
        self._check(nodes, last=bool(asked.get("last")))
        for name in nodes:
            self._dispatcher.release(name)
        self._warn(f"serai release: {', '.join(nodes)} will be let go of")
        last: dict[str, dict[str, Any]] = {}
        while True:
            news = {name: self._node(name) for name in nodes}
            yield from (now for name, now in news.items() if now != last.get(name))
            if all(now["standing"] == Standing.RELEASED for now in news.values()):
                return
            last = news
            yield None

    def _check(self, nodes: list[str], *, last: bool) -> None:
        known = self._dispatcher.roster.members
        for name in nodes:
            if name not in known:
                near = difflib.get_close_matches(name, known, n=1)
                hint = f"did you mean {near[0]}?" if near else f"there are {', '.join(known)}"
                raise UsageError(f"no node is called {name}", hint=hint)
        if not nodes:
            raise UsageError("of which node?")
        leaving = self._dispatcher.leaving
        stay = [one for one in known.values() if not one.hopeless and one.name not in nodes and one.name not in leaving]
        if not stay and not last:
            raise UsageError(
                f"no node would be left but {', '.join(nodes)}, and tasks that wait could not run",
                hint="--last lets go all the same; serai cancel ends the run",
            )

    def _node(self, name: str) -> dict[str, Any]:
        standing = str(self._dispatcher.roster.members[name].standing)
        now = next((one for one in self._dispatcher.nodes_now if one.name == name), None)
        tasks, files = (0, None) if now is None else (now.held, now.leaving)
        return {"node": name, "standing": standing, "tasks": tasks, "files": files}

    # ---- tasks

    def cancel(self, asked: Mapping[str, Any]) -> Iterator[Mapping[str, Any] | None]:
        """``tasks``: their numbers; without, all that have not ended. News: how many; it ends when they have ended.

        Raises:
            UsageError: one of them is not here: it has ended, or has not come yet.
        """
        if asked.get("tasks") is None:
            wanted = self._dispatcher.unended()
            self._warn("serai cancel ended everything")
            self._cancel_all()
        else:
            wanted = self._tasks(asked["tasks"])
            self._dispatcher.cancel(wanted)
        yield {"cancelled": len(wanted)}
        while self._dispatcher.unended(wanted):
            yield None

    def _tasks(self, numbers: Any) -> list[int]:
        tasks = [int(one) for one in _listed(numbers)]
        if len(tasks) > MOST_TASKS:
            raise UsageError(f"{len(tasks)} tasks are more than are cancelled at once", hint=f"{MOST_TASKS} at a time")
        absent = sorted(set(tasks) - set(self._dispatcher.unended(tasks)))
        if absent:
            some = ", ".join(map(str, absent[:5])) + (" …" if len(absent) > 5 else "")
            raise UsageError(
                f"nothing is cancelled: task {some} has ended, is not there, or is not handed over yet",
                hint="serai explain TASK says more; serai cancel RUN ends all",
            )
        return tasks


def _listed(value: Any) -> list[Any]:
    return value if isinstance(value, list) else []
