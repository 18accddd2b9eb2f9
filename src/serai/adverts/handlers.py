"""What nodes may do with adverts through the gateway: ``advert.put`` and so on.

Parameters are in the head; entries and changes come back as JSON in the body, because there may be many.
"""

from __future__ import annotations

import dataclasses
import json
from typing import TYPE_CHECKING, Any

from serai.adverts import paths
from serai.adverts.service import PAGE, Adverts, Change, Entry
from serai.adverts.where import conditions
from serai.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

    from serai.adverts.gateway import Handler

__all__ = ["LONGEST_WATCH_S", "advert_handlers"]

LONGEST_WATCH_S = 60.0
MOST_BYTES = 4 * 1024 * 1024  # of the entries in one answer

_TEXT, _NUMBER, _FLAG = (str,), (int, float), (bool,)
_Takes = dict[str, tuple[type, ...]]
_Answer = tuple[dict[str, Any], bytes]


def advert_handlers(adverts: Adverts, prefix: str = "/") -> dict[str, Handler]:
    """The gateway's handlers for adverts.

    ===================== =================================== ==================================
    name                  head                                answer
    ===================== =================================== ==================================
    ``advert.put``        path attributes [ttl_s exclusive]   version
    ``advert.update``     path attributes                     version
    ``advert.get``        path                                entry (null: there is none)
    ``advert.list``       directory [where recursive after]   after; body: entries. Ask again with
                                                              ``after`` until it is null
    ``advert.directories``  directory                         body: paths
    ``advert.renew``      path ttl_s
    ``advert.remove``     path [recursive]                    removed: how many
    ``advert.claim``      path owner for_s                    claimed: whether
    ``advert.release``    path owner
    ``advert.watch``      directory [since deadline_s]        version; body: changes
    ``advert.now``                                            now
    ===================== =================================== ==================================

    Args:
        adverts: the service.
        prefix: nodes may write at and below this path only; they may read everywhere.
    """
    desk = _Desk(adverts, paths.directory(prefix))
    path: _Takes = {"path": _TEXT}
    attributes: _Takes = {"attributes": (dict,)}
    directory: _Takes = {"directory": _TEXT}
    owner: _Takes = {**path, "owner": _TEXT}
    life = (*_NUMBER, type(None))
    return {
        "advert.put": _checked(desk.put, {**path, **attributes}, {"ttl_s": life, "exclusive": _FLAG}),
        "advert.update": _checked(desk.update, {**path, **attributes}),
        "advert.get": _checked(desk.get, path),
        "advert.list": _checked(desk.list, directory, {"where": (list,), "recursive": _FLAG, "after": _TEXT}),
        "advert.directories": _checked(desk.directories, directory),
        "advert.renew": _checked(desk.renew, {**path, "ttl_s": life}),
        "advert.remove": _checked(desk.remove, path, {"recursive": _FLAG}),
        "advert.claim": _checked(desk.claim, {**owner, "for_s": _NUMBER}),
        "advert.release": _checked(desk.release, owner),
        "advert.watch": _checked(desk.watch, directory, {"since": (int, type(None)), "deadline_s": _NUMBER}),
        "advert.now": _checked(desk.now, {}),
    }


class _Desk:
    """What the handlers do; heads were checked before."""

    def __init__(self, adverts: Adverts, prefix: str) -> None:
        self._adverts = adverts
        self._prefix = prefix

    def _own(self, path: str) -> str:
        if not paths.within(path, self._prefix):
            raise UsageError(f"{path} is not below {self._prefix}, where nodes of this run may write")
        return path

    def put(self, head: dict[str, Any]) -> _Answer:
        version = self._adverts.put(
            self._own(head["path"]), head["attributes"], head.get("ttl_s"), exclusive=head.get("exclusive", False)
        )
        return {"version": version}, b""

    def update(self, head: dict[str, Any]) -> _Answer:
        return {"version": self._adverts.update(self._own(head["path"]), head["attributes"])}, b""

    def get(self, head: dict[str, Any]) -> _Answer:
        entry = self._adverts.get(head["path"])
        return {"entry": None if entry is None else dataclasses.asdict(entry)}, b""

    def renew(self, head: dict[str, Any]) -> _Answer:
        self._adverts.renew(self._own(head["path"]), head["ttl_s"])
        return {}, b""

    def remove(self, head: dict[str, Any]) -> _Answer:
        return {"removed": self._adverts.remove(self._own(head["path"]), recursive=head.get("recursive", False))}, b""

    def claim(self, head: dict[str, Any]) -> _Answer:
        return {"claimed": self._adverts.claim(self._own(head["path"]), head["owner"], head["for_s"])}, b""

    def release(self, head: dict[str, Any]) -> _Answer:
        self._adverts.release(self._own(head["path"]), head["owner"])
        return {}, b""

    def watch(self, head: dict[str, Any]) -> _Answer:
        deadline_s = min(head.get("deadline_s", 20.0), LONGEST_WATCH_S)
        watched = self._adverts.watch(head["directory"], head.get("since"), deadline_s)
        return {"version": watched.version}, _packed(watched.changes)

    def directories(self, head: dict[str, Any]) -> _Answer:
        return {}, json.dumps(self._adverts.directories(head["directory"])).encode()

    def now(self, head: dict[str, Any]) -> _Answer:
        return {"now": self._adverts.now()}, b""

    def list(self, head: dict[str, Any]) -> _Answer:
        where = head.get("where", [])
        if not all(isinstance(one, str) for one in where):
            raise UsageError("where is a list of texts")
        wanted = conditions(where)
        entries = self._adverts.page(
            head["directory"], recursive=head.get("recursive", False), after=head.get("after", "")
        )
        taken: list[str] = []
        size, after = 0, None
        for entry in entries:
            if all(condition.holds(entry.attributes) for condition in wanted):
                text = json.dumps(dataclasses.asdict(entry), separators=(",", ":"))
                size += len(text)
                if taken and size > MOST_BYTES:
                    break
                taken.append(text)
            after = entry.path
        else:
            if len(entries) < PAGE:
                after = None
        return {"after": after}, f"[{','.join(taken)}]".encode()


def _checked(handle: Callable[[dict[str, Any]], _Answer], needs: _Takes, takes: _Takes | None = None) -> Handler:
    """A handler that looks at what a node says before it is used."""
    known = {**needs, **(takes or {})}

    def handler(head: dict[str, Any], _: bytes) -> _Answer:
        _check(head, needs, known)
        return handle(head)

    return handler


def _check(head: Mapping[str, Any], needs: _Takes, known: _Takes) -> None:
    missing, strange = needs.keys() - head.keys(), head.keys() - known.keys()
    if missing or strange:
        raise UsageError(f"{', '.join(sorted(missing | strange))}: missing, or unknown here")
    for name, value in head.items():
        if not isinstance(value, known[name]) or (isinstance(value, bool) and bool not in known[name]):
            raise UsageError(f"{name} cannot be {type(value).__name__}")


def _packed(items: Iterable[Entry | Change]) -> bytes:
    return json.dumps([dataclasses.asdict(item) for item in items], separators=(",", ":")).encode()
