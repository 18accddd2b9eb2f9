"""The appliance's own addresses, below ``/.serai/``: its status, lots, and what WebDAV has no word for.

``GET status``; ``GET`` and ``POST lots``, ``POST`` and ``DELETE lots/NAME``; ``POST files`` with ``{"do": …}``;
``POST put`` and ``POST get``: many files in one, see `serai.data.bodies.many`; ``POST tokens`` with ``{"paths": […],
"life_s"}`` narrows the token that it is asked with, ``POST`` and ``DELETE tokens/NAME`` renew and end what came of it.
"""

from __future__ import annotations

import errno
import itertools
import json
import os
import re
import secrets
from typing import TYPE_CHECKING, Any

from aiohttp import web

from serai.data.appliance.keys import MOST_PATHS, Keys
from serai.data.appliance.paths import parts_of_text, text_of
from serai.data.appliance.rights import ADMIN, READ, WRITE, letters
from serai.data.appliance.uploads import Upload, copy_file
from serai.data.bodies.many import MOST_BODY, get_many, put_many
from serai.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from serai.clock import Clock
    from serai.data.appliance.lots import Lot
    from serai.data.appliance.paths import Parts
    from serai.data.appliance.rights import Identity
    from serai.data.appliance.transfers import Transfers
    from serai.data.appliance.webdav import Answers

__all__ = ["Control", "store_ad"]

MOST_SAID = 1 << 20  # bytes
MOST_ASKED = 1000  # paths in one request
MOST_DATASETS = 64


class Control:
    """Answers what concerns the appliance itself.

    Args:
        transfers: with the files.
        clock: tells the time.
        facts: what the status says besides: name, access modes and so on.
    """

    def __init__(self, transfers: Transfers, clock: Clock, facts: Mapping[str, Any]) -> None:
        self._transfers, self._clock, self._facts = transfers, clock, dict(facts)
        self._files, self._book = transfers.files, transfers.files.book
        self._keys = Keys(self._files.keys.path)
        self.answers: Answers | None = None

    async def answer(self, request: web.BaseRequest, who: Identity, path: str) -> web.StreamResponse:
        """Answer a request for one of the addresses."""
        _, _, *names = path.split("/")
        if who.paths is not None:
            raise PermissionError(errno.EACCES, "this token lets some files be read, and no more")
        match request.method, names:
            case "GET", ["status"]:
                found: Any = await self._transfers.run(self.status, who)
            case "GET", ["lots"]:
                found = await self._transfers.run(self.lots, who)
            case "POST", ["lots"]:
                found = await self._reserve(await self._said(request), who)
            case (("POST" | "DELETE"), ["lots", name]):
                self._own(name, who)
                found = await self._change_lot(request, name)
            case (("POST" | "DELETE"), ["tokens", *rest]):
                found = await self._tokens(request, who, rest)
            case "POST", ["put"]:
                lot = request.headers.get("Serai-Lot")
                with self._transfers.load.transfer():
                    found = await self._transfers.whole(
                        request, MOST_BODY, lambda body: put_many(self._files, who, body, lot)
                    )
            case "POST", ["get"]:
                said = await self._said(request)
                with self._transfers.load.transfer():
                    return await self._transfers.give(request, lambda: get_many(self._files, who, said))
            case "POST", ["files"]:
                return await self._call(request, await self._said(request), who)
            case _:
                raise FileNotFoundError(errno.ENOENT, "there is no such address")
        return web.json_response(found)

    async def _said(self, request: web.BaseRequest) -> dict[str, Any]:
        body = b""
        while piece := await request.content.readany():
            body += piece
            if len(body) > MOST_SAID:
                raise ValueError("the request is too long")
        said = json.loads(body)
        if not isinstance(said, dict):
            raise ValueError("an object is wanted")  # noqa: TRY004 - it becomes 400
        return said

    # ---- status and lots

    def status(self, who: Identity) -> dict[str, Any]:
        """What may be known: sums, and one's own use; for administrators everybody's."""
        usage = self._book.usage()
        mine = {user: size for user, size in usage.items() if ADMIN in who.rights or user == who.user}
        own = {"user": who.user, "path": text_of(who.prefix), "rights": letters(who.rights)}
        return {**self._facts, **self._book.sums(), "usage": mine, "quotas": self._quotas(who), "you": own}

    def _quotas(self, who: Identity) -> dict[str, int]:
        return {u: size for u, size in self._files.keys.quotas.items() if ADMIN in who.rights or u == who.user}

    def lots(self, who: Identity) -> list[dict[str, Any]]:
        """One's own lots; for administrators all."""
        return [self._told(lot) for lot, _ in self._book.lots() if ADMIN in who.rights or lot.user == who.user]

    def _told(self, lot: Lot) -> dict[str, Any]:
        live, used = lot.live(self._clock.wall()), self._book.ledger.in_lot(lot.name)
        return {"name": lot.name, "user": lot.user, "size": lot.size, "until": lot.until, "used": used, "live": live}

    async def _reserve(self, said: Mapping[str, Any], who: Identity) -> dict[str, Any]:
        user = str(said.get("user") or who.user)
        if WRITE not in who.rights or (user != who.user and ADMIN not in who.rights):
            raise PermissionError(
                errno.EACCES, "no lot without the right to write, and for others only as administrator"
            )
        until = self._clock.wall() + _number(said, "life_s")
        name = secrets.token_hex(6)
        lot = await self._transfers.run(self._book.reserve, name, user, int(_number(said, "size")), until)
        return self._told(lot)

    async def _change_lot(self, request: web.BaseRequest, name: str) -> dict[str, Any]:
        if request.method == "DELETE":
            return self._told(await self._transfers.run(self._book.release, name))
        until = self._clock.wall() + _number(await self._said(request), "life_s")
        return self._told(await self._transfers.run(self._book.renew, name, until))

    def _own(self, name: str, who: Identity) -> None:
        lot = self._book.ledger.lots.get(name)
        if lot is None or (lot.user != who.user and ADMIN not in who.rights):
            raise KeyError(f"there is no lot {name} of yours")

    # ---- tokens for machines that work for whoever asks

    async def _tokens(self, request: web.BaseRequest, who: Identity, names: list[str]) -> dict[str, Any]:
        if request.method == "DELETE" and len(names) == 1:
            return await self._transfers.run(self._end_token, names[0], who)
        if request.method == "DELETE" or len(names) > 1:
            raise FileNotFoundError(errno.ENOENT, "there is no such address")
        return await self._transfers.run(self._narrow, await self._said(request), who, *names)

    def _narrow(self, said: Mapping[str, Any], who: Identity, name: str = "") -> dict[str, Any]:
        """Make a token that lets some files be read and no more, or let one be for more files and for longer."""
        keys, now = self._keys, self._clock.wall()
        asked = said.get("paths", [])
        if not isinstance(asked, list) or len(asked) > MOST_PATHS:
            raise ValueError(f"paths are a list of {MOST_PATHS} at most")
        paths = [one for path in asked for one in self._readable(who, str(path))]
        expires = now + _number(said, "life_s")
        text = ""
        try:
            if name:
                token = keys.widen(who, name, paths, expires, now)
            else:
                text, token = keys.narrow(who, paths, expires, now)
        except UsageError as error:
            raise ValueError(error.what) from error
        found = {"name": token.name, "life_s": token.expires - now, "files": len(token.paths)}
        return found | {"token": text} if text else found

    def _readable(self, who: Identity, path: str) -> set[Parts]:
        """A file that somebody may read: its path, and the one that it leads to."""
        parts = parts_of_text(path)
        os.close(self._files.open(who, parts).fd)
        with self._files.root.at(parts) as place:
            self._files.at(who, place, parts, READ)
            return {parts, place.parts}

    def _end_token(self, name: str, who: Identity) -> dict[str, Any]:
        token = Keys(self._keys.path).tokens.get(name)
        if token is None or not token.parent or (token.user != who.user and ADMIN not in who.rights):
            raise KeyError(f"there is no token {name} of yours that was narrowed")
        return {"ended": self._keys.revoke(name)}

    # ---- files

    async def _call(self, request: web.BaseRequest, said: dict[str, Any], who: Identity) -> web.StreamResponse:
        do = said.pop("do", None)
        if do == "rows":
            assert self.answers is not None  # noqa: S101 - set where both are made
            stream = web.StreamResponse(headers={"Content-Type": "application/json"})
            return await self.answers.stream(request, stream, self._rows(said, who))
        calls: dict[str, Callable[[dict[str, Any], Identity], Any]] = {
            "stat": self._stat,
            "check": self._check,
            "mkdir": self._mkdir,
            "remove": self._remove,
            "move": self._move,
            "copy": self._copy,
            "stamp": self._stamp,
            "link": self._link,
            "digest": self._digest,
        }
        if do not in calls:
            raise ValueError("it is not known what to do")
        try:
            found = await self._transfers.run(calls[do], said, who)
        except (KeyError, TypeError) as error:
            raise ValueError("the request is not complete") from error
        return web.json_response(found if found is not None else {})

    def _rows(self, said: Mapping[str, Any], who: Identity) -> Iterator[str]:
        parts, depth = parts_of_text(str(said["path"])), said.get("depth")
        own = self._files.info(who, parts)
        yield _line(own)
        if own["type"] == "directory":
            yield from map(_line, self._files.rows(who, parts, None if depth is None else int(depth)))

    def _stat(self, said: Mapping[str, Any], who: Identity) -> dict[str, Any]:
        return self._files.info(who, parts_of_text(said["path"]), follow=bool(said.get("follow", True)))

    def _check(self, said: Mapping[str, Any], who: Identity) -> None:
        """Whether a file could be written there now."""
        exclusive, parents = bool(said.get("exclusive")), bool(said.get("parents"))
        with Upload(self._files, who, parts_of_text(said["path"]), 0, exclusive=exclusive, parents=parents):
            pass

    def _mkdir(self, said: Mapping[str, Any], who: Identity) -> None:
        parents, exist_ok = bool(said.get("parents")), bool(said.get("exist_ok"))
        self._files.mkdir(who, parts_of_text(said["path"]), parents=parents, exist_ok=exist_ok)

    def _remove(self, said: Mapping[str, Any], who: Identity) -> None:
        recursive, directory = bool(said.get("recursive")), bool(said.get("directory"))
        for path in itertools.islice(said["paths"], MOST_ASKED):
            self._files.remove(who, parts_of_text(path), recursive=recursive, directory=directory)

    def _move(self, said: Mapping[str, Any], who: Identity) -> None:
        source, target = parts_of_text(said["source"]), parts_of_text(said["target"])
        if said.get("into"):  # as mv: into a directory that is there
            try:
                own = self._files.info(who, target)
            except FileNotFoundError:
                own = {"type": ""}
            if own["type"] == "directory" and target != source:
                target = (*target, source[-1])
        if said.get("parents") and len(target) > 1:
            self._files.mkdir(who, target[:-1], parents=True, exist_ok=True)
        self._files.move(who, source, target, replace=not said.get("exclusive"))

    def _copy(self, said: Mapping[str, Any], who: Identity) -> None:
        source, target = parts_of_text(said["source"]), parts_of_text(said["target"])
        if self._files.info(who, source)["type"] == "directory":
            self._files.mkdir(who, target, parents=True, exist_ok=True)
            return
        copy_file(self._files, who, source, target, parents=bool(said.get("parents")))
        if said.get("keep_times"):
            self._files.stamp(who, target, None, self._files.info(who, source)["mtime_ns"])

    def _stamp(self, said: Mapping[str, Any], who: Identity) -> None:
        mode, mtime_ns = said.get("mode"), said.get("mtime_ns")
        self._files.stamp(
            who,
            parts_of_text(said["path"]),
            None if mode is None else int(mode),
            None if mtime_ns is None else int(mtime_ns),
        )

    def _link(self, said: Mapping[str, Any], who: Identity) -> None:
        self._files.link(who, str(said["destination"]), parts_of_text(said["path"]))

    def _digest(self, said: Mapping[str, Any], who: Identity) -> dict[str, Any]:
        start, stop, kind = int(said.get("start", 0)), said.get("stop"), str(said.get("kind", "sha256"))
        wanted = list(itertools.islice(said["paths"], MOST_ASKED))
        return {"digests": [self._files.digest(who, parts_of_text(one), kind, start, stop) for one in wanted]}


def _line(value: Any) -> str:
    """JSON in ASCII: surrogates pass."""
    return json.dumps(value, separators=(",", ":")) + "\n"


def _number(said: Mapping[str, Any], name: str) -> float:
    value = said.get(name)
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 < value < 1 << 60:
        raise ValueError(f"{name} is a positive number")
    return value


def store_ad(facts: Mapping[str, Any], sums: Mapping[str, int], lots: int, waiting_s: float = 0.0) -> dict[str, Any]:
    """The ad of a store, with ClassAd's names: sizes in KiB, as ``Disk`` of a node is.

    Args:
        facts: of the status: name, host, modes (name and URL), datasets, fingerprint, attributes.
        sums: `Book.sums`.
        lots: how many hold.
        waiting_s: how long a new transfer would wait: see `serai.data.bodies.load.Load`.
    """
    datasets = list(facts["datasets"])[:MOST_DATASETS]
    ad: dict[str, Any] = {
        "MyType": "Storage",
        "Name": facts["name"],
        "Machine": facts["host"],
        "TotalDisk": sums["capacity"] // 1024,
        "Disk": sums["free"] // 1024,
        "Lots": lots,
        "ReservedDisk": sums["reserved"] // 1024,
        "WaitingSeconds": round(waiting_s, 1),
        "AccessModes": [mode for mode, _ in facts["modes"]],
        "AccessURLs": [url for _, url in facts["modes"]],
        "Datasets": datasets,
    }
    if facts.get("fingerprint"):
        ad["Fingerprint"] = facts["fingerprint"]
    for name in datasets:
        ad[f"Has{re.sub(r'[^A-Za-z0-9_]', '_', name)}Data"] = True  # ClassAds do not tell HascmsData from HasCMSData
    return ad | dict(facts.get("attributes", {}))
