"""What must hold of files: a book of who has said to have what, and of the transfers that were ordered."""

from __future__ import annotations

from typing import TYPE_CHECKING

from serai.dispatch.schedule import events as ev
from serai.match.movement import Way

if TYPE_CHECKING:
    from collections.abc import Mapping

    from serai.match.movement import Move
    from serai.sim.models import NodeModel, Truth


class FileBook:
    """Kept from events and actions alone.

    Args:
        limits: of the schedule.
        models: of the nodes.
        truth: about tasks.
    """

    def __init__(self, limits: ev.Limits, models: Mapping[str, NodeModel], truth: Mapping[int, Truth]) -> None:
        self._limits = limits
        self._models = models
        self._truth = truth
        self._up: set[str] = set()
        self._said: dict[str, set[int]] = {}
        self._leaving: set[str] = set()
        self._under_way: dict[tuple[str, int], str] = {}  # (to, file): from
        self._of_bundle: dict[int, tuple[str, tuple[int, ...]]] = {}
        self._copies: set[tuple[str, int]] = set()
        self._origins: dict[int, str] = {}
        self.moved: dict[Way, int] = dict.fromkeys(Way, 0)
        self.sources: dict[str, int] = {}  # how often files were to come from each

    def told(self, event: ev.Event) -> None:
        """Take in what the schedule is about to be told."""
        if isinstance(event, ev.FilesAdded):
            self._origins.update(zip(event.files, event.origins, strict=False))
        elif isinstance(event, ev.NodeUp):
            self._up.add(event.node)
            self._said[event.node] = set()
        elif isinstance(event, ev.NodeDown):
            self._up.discard(event.node)
            self._leaving.discard(event.node)
            self._said.pop(event.node, None)
            self._copies = {copy for copy in self._copies if copy[0] != event.node}
            self._under_way = {
                to: "of its own choice" if source == event.node else source  # an executor goes on with another one
                for to, source in self._under_way.items()
                if to[0] != event.node
            }
        elif isinstance(event, ev.Leaving):
            self._leaving.add(event.node)
        elif isinstance(event, ev.Cached | ev.Moved | ev.Evicted) and event.node in self._up:
            self._news(event)

    def _news(self, event: ev.Cached | ev.Moved | ev.Evicted) -> None:
        if isinstance(event, ev.Cached):
            self._there(event.node, *event.files)
        elif isinstance(event, ev.Moved):
            if event.read_bytes is None:
                self._there(event.node, event.file)
        else:
            for file in event.files:
                if (event.node, file) not in self._under_way:
                    self._said[event.node].discard(file)

    def _there(self, node: str, *files: int) -> None:
        for file in files:
            self._said[node].add(file)
            self._under_way.pop((node, file), None)
            self._copies.discard((node, file))

    def decided(self, action: ev.Action) -> str:
        """Take in what the schedule decided; returns what is wrong with it."""
        if isinstance(action, ev.Assign):
            return self._assigned(action)
        if isinstance(action, ev.Copy):
            return self._copied(action)
        if isinstance(action, ev.Closed):
            self._closed(action.bundle)
        return ""

    def _closed(self, bundle: int) -> None:
        """A bundle is on no lane any more: what only it waited for does not count."""
        node, files = self._of_bundle.pop(bundle, ("", ()))
        if not files:
            return
        others = {file for other, kept in self._of_bundle.values() if other == node for file in kept}
        for file in files:
            if file not in others and (node, file) not in self._copies:
                self._under_way.pop((node, file), None)

    def _copied(self, copy: ev.Copy) -> str:
        """A file is brought to a node for nobody's task; returns what is wrong with it."""
        if copy.node not in self._up or copy.node in self._leaving:
            return "a copy for a node that is not there, or leaves:"
        if copy.file not in self._said.get(copy.source, ()):
            return "a copy from a node that has not got it:"
        self._copies.add((copy.node, copy.file))
        return self._ordered(copy.node, copy.file, copy.source)

    def _assigned(self, assign: ev.Assign) -> str:
        """Look at the moves of a bundle; returns what is wrong with them."""
        wanted = {file for task in assign.tasks for file in self._truth[task].reads}
        files = [move.file for move in assign.moves]
        if len(files) != len(set(files)) or set(files) != wanted:
            return "the files of a bundle, each once:"
        if assign.node in self._leaving:
            return "work for a node that leaves:"
        self._of_bundle[assign.bundle] = (
            assign.node,
            tuple(move.file for move in assign.moves if move.way == Way.STAGE),
        )
        return next(filter(None, (self._moved(assign.node, move) for move in assign.moves)), "")

    def _moved(self, node: str, move: Move) -> str:
        self.moved[move.way] += 1
        if move.way == Way.HERE and move.file not in self._said[node]:
            return "a file that is not here:"
        if move.way == Way.READ and not self._models[node].mounts:
            return "a node that cannot mount reads from afar:"
        if move.way != Way.HERE:
            self.sources[move.source] = self.sources.get(move.source, 0) + 1
        known = move.source == self._origins.get(move.file) or move.file in self._said.get(move.source, ())
        if move.source and not known:
            return "a source that has not got the file:"
        return self._ordered(node, move.file, move.source) if move.way == Way.STAGE else ""

    def _ordered(self, node: str, file: int, source: str) -> str:
        if source == node:
            return "a node is its own source:"
        if (node, file) in self._under_way:
            return ""
        self._under_way[node, file] = source
        busy = {to for (to, _), one in self._under_way.items() if one == source}
        return "too many transfers from one source:" if len(busy) > self._limits.transfers else ""
