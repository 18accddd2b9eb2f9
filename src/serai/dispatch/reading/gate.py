"""What tasks read from afar comes through here, where no peer has it: the run's inputs, by number, and nothing else."""

from __future__ import annotations

import errno
import hashlib
import os
import platform
import ssl
import threading
import zlib
from typing import TYPE_CHECKING, Any

from serai.dispatch.files.origins import look
from serai.dispatch.ports import Leading
from serai.errors import AccessError, UsageError
from serai.travel import boot
from serai.travel.caching.needs import UNREACHED
from serai.travel.executor import wire
from serai.travel.mount.tasks import GATEWAY, TOKEN

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping
    from pathlib import Path

    from serai.adverts.gateway import Gateway, Handler
    from serai.dispatch.files.catalogue import Catalogue
    from serai.dispatch.files.origins import File
    from serai.dispatch.ports import Place
    from serai.match.movement import Move

PEER_TOKEN = "peer-token"  # noqa: S105 - the name of a file, which the node's server of peers has written
MOST_ADDRESSES = 2  # of one peer
CHANGED = "ESTALE: it has changed since the run looked at it"


class Gate:
    """The gateway of a run, opened when the first task reads from afar.

    Args:
        catalogue: knows the inputs.
        room: where the gateway's socket is made.
        cache_bytes: what the cache of a node may hold; None where nobody says.
    """

    def __init__(self, catalogue: Catalogue, room: Path, cache_bytes: int | None) -> None:
        self._catalogue = catalogue
        self._room = room
        self._cache_bytes = cache_bytes
        self._lock = threading.Lock()
        self._gateway: Gateway | None = None
        self._reach: dict[str, Handler] = {}
        self.ssh_config_of: Callable[[str], str | None] = lambda _url: None

    def lead(self, link: object, base: str) -> tuple[str, bytes]:
        """Let a node reach the gateway.

        Args:
            link: to the node.
            base: the executor's own directory there.

        Returns:
            The gateway's address on the node, and the frame that prepares it.

        Raises:
            AccessError: there is no way back.
        """
        if not isinstance(link, Leading):
            raise AccessError("its engine leads no way back")
        gateway = self._open()
        address = link.lead_back(f"{base}/{GATEWAY}", gateway.address)

        head = {"token": gateway.token, "limit": self._cache_bytes}
        return address, wire.pack(wire.AFAR, 0, 0, head, zlib.compress(boot.script("mount.wrap").encode()))

    def close(self) -> None:
        """Let nobody reach it any more."""
        with self._lock:
            if self._gateway is not None:
                self._gateway.close()

    def _open(self) -> Gateway:
        with self._lock:
            if self._gateway is None:
                from serai.adverts.gateway import Gateway  # noqa: PLC0415 - few runs read from afar
                from serai.data.afar import Reach  # noqa: PLC0415 - fsspec is slow to import

                self._reach = Reach(lambda _url: True, self.ssh_config_of).handlers()  # nodes give numbers, not URLs
                acts = {"file.stat": self._stat, "file.read": self._read, "file.grant": self._grant}
                self._gateway = Gateway(acts, self._room)
            return self._gateway

    def _stat(self, head: dict[str, Any], body: bytes) -> tuple[dict[str, Any], bytes]:
        return self._do("file.stat", head, body)

    def _read(self, head: dict[str, Any], body: bytes) -> tuple[dict[str, Any], bytes]:
        return self._do("file.read", head, body)

    def _grant(self, head: dict[str, Any], _body: bytes) -> tuple[dict[str, Any], bytes]:
        return self._catalogue.grant(self._file(head).number, anew=bool(head.get("anew"))), b""

    def _file(self, head: dict[str, Any]) -> File:
        """The input that a node names by its number."""
        number = str(head.get("url"))
        try:
            return self._catalogue.file(int(number))
        except (KeyError, ValueError):
            raise PermissionError(errno.EACCES, "it is no input of this run", number) from None

    def _do(self, what: str, head: dict[str, Any], body: bytes) -> tuple[dict[str, Any], bytes]:
        """Do as the node asks with an input, as long as that is what it was."""
        file = self._file(head)
        self._check(file)
        answer = self._reach[what]({**head, "url": file.origin}, body)
        self._check(file)
        if what == "file.stat" and answer[0]["size"] != file.size:
            raise UsageError(CHANGED)
        return answer

    @staticmethod
    def _check(file: File) -> None:
        if os.path.isabs(file.origin):
            try:
                same = look(file.origin) == (file.size, file.stamp)
            except OSError as error:
                code = errno.errorcode.get(error.errno or errno.EIO, "EIO")
                raise UsageError(f"{code}: {error.strerror}") from error
            if not same:
                raise UsageError(CHANGED)

    def sources(self, numbers: Iterable[int], moves: dict[int, Move], place: Place) -> dict[int, dict[str, Any]]:
        """Where a node finds files that its tasks read from afar, as `serai.travel.mount.wrap.make` takes it.

        Args:
            numbers: of the files.
            moves: by number, what the schedule advises.
            place: the node.
        """
        return {number: self._source(self._catalogue.file(number), moves[number], place) for number in numbers}

    def _source(self, file: File, move: Move, place: Place) -> dict[str, Any]:
        named = hashlib.sha256(file.origin.encode("utf-8", "surrogateescape")).hexdigest()
        gateway = {
            "kind": "gateway",
            "url": str(file.number),
            "address": place.way_back,
            "token_file": TOKEN,
            # Not by its URL, which may hold what nodes are not told.
            "identity": f"{platform.node()}:{os.getuid()}:{named}",
        }
        others = self._peers(file, place.spec.name, move.source)
        if file.place and move.source:
            others.append(_origin(file, gateway))
        if not others:
            return gateway
        # What is kept by the digest alone must be what has it: of files here that is seen to with each part.
        digest = file.digest if os.path.isabs(file.origin) else ""
        return {"kind": "first", "of": [*others, gateway], "digest": digest, "identity": gateway["identity"]}

    def _peers(self, file: File, node: str, first: str) -> list[dict[str, Any]]:
        """The node that the schedule says has a file, as a source of parts of it."""
        secrets = self._catalogue.secrets() if first else None
        if secrets is None:
            return []
        shown = hashlib.sha256(ssl.PEM_cert_to_DER_cert(secrets["cert"])).hexdigest()
        known = {"kind": "peer", "fingerprint": shown, "token_file": PEER_TOKEN, "size": file.size}
        return [
            {**known, "name": giver, "digest": file.digest, "host": address, "port": port, "object": name}
            for giver, addresses, port, name in self._catalogue.afar(node, file.number)["sources"]
            if giver == first
            for address in addresses[:MOST_ADDRESSES]
        ]


def _origin(file: File, gateway: Mapping[str, Any]) -> dict[str, Any]:
    """A file at its origin; what lets it be read there, whoever reads it asks for when it begins."""
    said = {"kind": "origin", "name": file.place, "size": file.size, "stamp": "|".join(file.stamp), "memory": UNREACHED}
    return {**gateway, **said}
