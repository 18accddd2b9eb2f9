"""Bundles that wait for their files, in the agent and on its thread; loaded when the first of them comes.

A file is brought once, however many bundles want it, and stays under a name of its own below the executor's directory
as long as one of them is not through.
"""

from __future__ import annotations

import os
import threading

from ..executor import wire
from ..peers import Peers, Server, listening_sockets, own_addresses
from . import web
from .fetches import FROM, Fetched, Fetches, Origin, Source, Wanted
from .objects import Cache, directory_beside
from .sharing import Sharing

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from typing import Any

MOST_TOLD = 1000  # digests in one frame
SERVED_AT_ONCE = 4  # transfers to peers at a time
MOST_GIVEN = 1 << 20  # bytes in one answer to the front end
CANCELLED = 4
UNREACHED = "unreached"  # below the executor's directory: origins that this node cannot reach
TOKEN = "peer-token"  # noqa: S105 - the name of a file below the executor's directory: what mounts of this node show to servers of others


class _Bundle:
    """A bundle whose files are awaited, or that is on a lane."""

    def __init__(self, files: set[int]) -> None:
        self.files = files
        self.missing: set[int] = set()
        self.wanted: dict[int, Wanted] = {}
        self.lane = 0
        self.frame: bytes | None = None  # its RUN, while it waits
        self.after: list[bytes] = []  # what is to be said to the lane behind it
        self.cancelled: set[int] = set()
        self.on_lane = False
        self.ways: dict[str, str] = {}


class Needs:
    """The bundles of an executor that read catalogued files.

    Args:
        base: the executor's own directory.
        hello: what the run wants: "cache" is {"limit": bytes or None, "rule"}.
        send: takes (operation, lane, identifier, head, body) to the front end.
        post: has a function called on the agent's thread; any thread.
        to_lane: takes (lane, frame, bundle) to a lane.

    Raises:
        OSError: there can be no cache here.
    """

    def __init__(
        self,
        base: str,
        hello: Mapping[str, Any],
        send: Callable[..., object],
        post: Callable[[Callable[[], object]], object],
        to_lane: Callable[[int, bytes, int], object],
    ) -> None:
        cache = hello.get("cache") or {}
        self._base = base
        self._node = hello["node"]
        self._send = send
        self._post = post
        self._to_lane = to_lane
        settings = (cache.get("limit"), cache.get("rule") or "lru")
        try:
            self._cache = Cache(directory_beside(base), *settings)
        except OSError:  # not this user's own: one that lives as long as this executor
            self._cache = Cache(os.path.join(base, "cache"), *settings)
        self._fetches = Fetches(
            self._cache,
            os.path.join(base, "held"),
            lambda number, attempt: post(lambda: send(wire.NEED, attempt, number, None if attempt else {"origin": 1})),
            lambda found: post(lambda: self._came(found)),
            os.path.join(base, UNREACHED),
        )
        self._bundles: dict[int, _Bundle] = {}
        self._files: dict[int, Fetched] = {}  # that are held
        self._users: dict[int, set[int]] = {}  # bundles that read a file
        self._sharing = Sharing(self._cache)
        self._server: Server | None = None
        self._serves: dict[str, Any] = {}  # where
        self._tell_all()

    # ---- from the front end

    def needs(self, number: int, head: Mapping[str, Any]) -> None:
        """A bundle that is about to come reads files; 0: none does, and they are to be fetched all the same."""
        wanted = [_wanted(one) for one in head["files"]]
        bundle = _Bundle({one.number for one in wanted})
        if number:
            self._bundles[number] = bundle
        for one in wanted:
            if number:
                self._users.setdefault(one.number, set()).add(number)
                bundle.wanted[one.number] = one
            self._want(one, bundle)
        if not number:
            self._drop_unused(bundle.files)

    def _want(self, one: Wanted, bundle: _Bundle) -> None:
        """See to it that a file is held, now or later."""
        known = self._files.get(one.number)
        if known is None or known.stamp is None:
            known = self._fetches.want(one)
            if known is None:
                bundle.missing.add(one.number)
                return
            self._note(known)
        bundle.ways.setdefault(str(one.number), "cached")

    def hold(self, lane: int, number: int, frame: bytes) -> bool:
        """A bundle has come; returns whether it waits here, rather than going to its lane now."""
        bundle = self._bundles.get(number)
        if bundle is None:
            return False
        bundle.lane = lane
        if self._lacks(bundle):
            bundle.frame = frame
            return True
        self._announce(bundle)
        self._send(wire.READY, lane, number, {"ways": bundle.ways})
        return False

    def _lacks(self, bundle: _Bundle) -> bool:
        """Whether files of a bundle are not there; one that was spoiled since is fetched again."""
        for one in bundle.files - bundle.missing:
            if one not in self._files:
                self._want(bundle.wanted[one], bundle)
        return bool(bundle.missing)

    def recall(self, number: int) -> bool:
        """Give back a bundle that waits here; returns whether it did."""
        bundle = self._bundles.get(number)
        if bundle is None or bundle.frame is None:
            return False
        ids = wire.unpack(bundle.frame)[3]["ids"]
        self._end_here(number, bundle, [task for task in ids if task not in bundle.cancelled])
        return True

    def cancel(self, lane: int, frame: bytes) -> None:
        """End tasks of bundles that wait here."""
        gone = set(wire.unpack(frame)[3]["ids"])
        for number, bundle in list(self._bundles.items()):
            if bundle.frame is not None and bundle.lane == lane:
                ids = wire.unpack(bundle.frame)[3]["ids"]
                if gone.intersection(ids):
                    bundle.after.append(frame)
                    bundle.cancelled |= gone.intersection(ids)
                    if bundle.cancelled.issuperset(ids):
                        self._end_here(number, bundle, [])

    def _end_here(self, number: int, bundle: _Bundle, returned: list[int]) -> None:
        ids = sorted(bundle.cancelled)
        nothing = [0] * len(ids)
        head: dict[str, Any] = {"ids": ids, "at": nothing, "took": nothing, "returned": returned}
        if ids:
            head.update({"cause": [CANCELLED] * len(ids), "exit": [None] * len(ids)})
        self._send(wire.LAST, bundle.lane, number, head)
        self.ended(number)

    def piece(self, attempt: int, number: int, head: Mapping[str, Any], body: bytes) -> None:
        """A piece of a file from the front end."""
        self._fetches.piece(number, attempt, head, body)

    def granted(self, number: int, head: Mapping[str, Any]) -> None:
        """The front end lets this node read a file at its origin."""
        self._fetches.granted(number, head["grant"])

    def meet(self, head: Mapping[str, Any]) -> None:
        """Speak with peers from now on."""
        if self._server is None:
            try:
                self._fetches.peers = Peers(head["cert"], head["key"], self._base)
                sockets = listening_sockets()
                token = str(head["token"])
                keep_secret(os.path.join(self._base, TOKEN), token)
                self._server = Server(
                    sockets,
                    head["cert"],
                    head["key"],
                    self._base,
                    self._sharing.find,
                    SERVED_AT_ONCE,
                    lambda connection, stream, known: web.answer(connection, stream, token, self._sharing.find, known),
                )
                self._serves = {"addresses": own_addresses(), "port": self._server.port}
            except OSError:
                pass  # others come to the front end for what is here
        self._send(wire.SERVES, 0, 0, self._serves)  # the same, should it be told to twice

    def share(self, head: Mapping[str, Any]) -> None:
        """Files outside of the cache that peers may read."""
        self._sharing.share(head["files"])

    def give(self, request: int, head: Mapping[str, Any]) -> None:
        """Give the front end a part of a file, for a node that cannot reach this one."""

        def read() -> None:
            answer: dict[str, Any] = {}
            data = b""
            try:
                data = self._sharing.part(str(head["name"]), int(head["at"]), min(int(head["length"]), MOST_GIVEN))
            except (OSError, ValueError) as error:
                answer["why"] = "%s: %s" % (head["name"], getattr(error, "strerror", None) or error)
            self._post(lambda: self._send(wire.GIVEN, 0, request, answer, data))

        threading.Thread(target=read, name="give", daemon=True).start()

    # ---- from fetches and lanes

    def _came(self, found: Fetched) -> None:
        self._note(found)
        way = "from %s" % found.source if found.way == FROM else found.way
        if found.stamp is None:
            way = "did not come: %s" % found.why
        for number in list(self._users.get(found.number, ())):
            bundle = self._bundles[number]
            if found.number in bundle.missing:
                bundle.missing.discard(found.number)
                bundle.ways[str(found.number)] = way
                if bundle.frame is not None and not self._lacks(bundle):
                    self._release(number, bundle)
            elif bundle.frame is None and bundle.on_lane:
                self._announce(bundle)  # what it had of it was spoiled
        self._drop_unused([found.number])
        self.tell_changes()

    def _note(self, found: Fetched) -> None:
        """Remember a file that is held, and say how it came."""
        self._files[found.number] = found
        head: dict[str, Any] = {"took": round(found.took_s, 4)}
        if found.stamp is None:
            head["why"] = found.why
        else:
            head.update({"digest": found.digest, "way": found.way, "from": found.source})
            head.update({"bytes": found.moved, "kept": found.kept})
        if found.missed:
            head["missed"] = found.missed
        self._send(wire.CAME, 0, found.number, head)

    def _release(self, number: int, bundle: _Bundle) -> None:
        frame, bundle.frame = bundle.frame, None
        self._announce(bundle)
        self._send(wire.READY, bundle.lane, number, {"ways": bundle.ways})
        if frame is not None:
            self._to_lane(bundle.lane, frame, number)
        for after in bundle.after:
            self._to_lane(bundle.lane, after, 0)

    def _announce(self, bundle: _Bundle) -> None:
        """Tell a lane what it may take."""
        bundle.on_lane = True
        known = {one: self._files[one] for one in bundle.files if one in self._files}
        stamps = {str(one): found.stamp or "%s on %s" % (found.why, self._node) for one, found in known.items()}
        self._to_lane(bundle.lane, wire.pack(wire.HELD, bundle.lane, 0, {"files": stamps}), 0)

    def ended(self, number: int) -> None:
        """A bundle is through, or lost with its lane."""
        bundle = self._bundles.pop(number, None)
        if bundle is not None:
            for one in bundle.files:
                users = self._users.get(one)
                if users is not None:
                    users.discard(number)
            self._drop_unused(bundle.files)

    def _drop_unused(self, files: set[int] | list[int]) -> None:
        for one in files:
            if not self._users.get(one):
                self._users.pop(one, None)
                if self._files.pop(one, None) is not None:
                    self._fetches.let_go(one)

    def spoiled(self, number: int, head: Mapping[str, Any]) -> None:
        """A task has written to a file: what is left of it is of no use to anybody."""
        found = self._files.get(number)
        if found is not None and found.stamp is not None and list(found.stamp) == head["stamp"]:
            del self._files[number]
            self._fetches.let_go(number)
            if found.digest:
                self._cache.drop(found.digest)
            self.tell_changes()

    # ---- telling

    def _tell_all(self) -> None:
        digests = self._cache.digests()
        for at in range(0, max(1, len(digests)), MOST_TOLD):
            self._send(wire.HOLDS, 0, 0, {"has": digests[at : at + MOST_TOLD]})

    def tell_changes(self) -> None:
        """Tell what came into the cache and what left it, whoever did it."""
        has, gone = self._cache.changes()
        for at in range(0, max(len(has), len(gone)), MOST_TOLD):
            self._send(wire.HOLDS, 0, 0, {"has": has[at : at + MOST_TOLD], "gone": gone[at : at + MOST_TOLD]})

    @property
    def waits(self) -> bool:
        """Whether a bundle waits here."""
        return any(bundle.frame is not None for bundle in self._bundles.values())

    def cut_off(self) -> None:
        """The front end is gone: what waits for it is not waited for."""
        self._fetches.cut_off("the front end is gone")

    def close(self) -> None:
        """End what is under way."""
        self._fetches.close()
        if self._server is not None:
            self._server.close()


def keep_secret(path: str, text: str) -> None:
    """Write what nobody else may read."""
    fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
    with os.fdopen(fd, "w") as file:
        file.write(text)


def _wanted(one: list[Any]) -> Wanted:
    number, size, digest, front_first, sources = one
    found = [Origin(source) if isinstance(source, dict) else Source(*source) for source in sources]
    return Wanted(int(number), int(size), digest, found, front_first=bool(front_first))
