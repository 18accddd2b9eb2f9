"""Tasks that read from afar, on their node: what the agent prepares for all of them, and a lane for each.

All of it lies in the executor's own directory, and goes away with it; only blocks that were read stay, in the node's
cache.
"""

from __future__ import annotations

import contextlib
import json
import os
import sys
import zlib

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from typing import Any

GATEWAY, TOKEN = "gateway", "gateway-token"  # below the executor's directory: the way to the front end
PROGRAM, FACTS = "afar.py", "afar.json"
LIMIT = 1 << 30  # bytes of blocks, where nobody says how large the cache may be
CANNOT_MOUNT = 125  # as in `wrap`


def prepare(base: str, head: Mapping[str, Any], program: bytes) -> None:
    """Keep what tasks of this node need to read from afar.

    Args:
        base: the executor's own directory.
        head: "token" of the gateway, and "limit" of the cache.
        program: that they are started by, compressed.

    Raises:
        OSError: it cannot be written.
    """
    limit = int(head.get("limit") or LIMIT)
    facts = json.dumps({"limit": limit}).encode("ascii")
    for name, data in (
        (TOKEN, str(head["token"]).encode("ascii")),
        (PROGRAM, zlib.decompress(program)),
        (FACTS, facts),
    ):
        path = os.path.join(base, name)
        fd = os.open(path + "~", os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
        with open(fd, "wb") as file:
            file.write(data)
        os.replace(path + "~", path)


class Afar:
    """What one lane's tasks read from afar.

    Args:
        base: the executor's own directory.
        number: the lane's number.
    """

    def __init__(self, base: str, number: int) -> None:
        self._base = base
        stem = os.path.join(base, "afar-%d" % number)
        self._directory, self._setup = stem, stem + ".json"
        self._record, self._failed, self._trouble = stem + ".read", stem + ".failed", stem + ".trouble"

    def places(self, reads: Sequence[Sequence[Any]]) -> list[tuple[str, str]]:
        """Where the files that a task reads are seen: (path, the name that it was promised).

        Args:
            reads: [name, number] of each.
        """
        return [(os.path.join(self._directory, _flat(name, number)), name) for name, number in reads]

    def words(
        self, reads: Sequence[Sequence[Any]], sources: Mapping[str, Mapping[str, Any]], argv: Sequence[str]
    ) -> list[str]:
        """The words that a task is started with in place of its own.

        Args:
            reads: [name, number] of each file.
            sources: by number, what `wrap.make` takes; paths of token files and sockets are below the base.
            argv: its own.

        Raises:
            OSError: the setup cannot be written.
            KeyError: nobody said where a file is.
        """
        for path in (self._record, self._failed, self._trouble):
            with contextlib.suppress(FileNotFoundError):
                os.unlink(path)
        with open(os.path.join(self._base, FACTS), encoding="ascii") as file:
            limit = int(json.load(file)["limit"])
        cache = os.path.join(os.path.dirname(self._base), "serai-%d-cache" % os.getuid(), "blocks")
        setup = {
            "argv": list(argv),
            "directory": self._directory,
            "files": {_flat(name, number): self._placed(sources[str(number)], number) for name, number in reads},
            "record": self._record,
            "failed": self._failed,
            "trouble": self._trouble,
            "cache": [cache, limit],
        }
        fd = os.open(self._setup, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
        with open(fd, "w", encoding="ascii") as file:
            json.dump(setup, file)
        return [sys.executable, "-IS", os.path.join(self._base, PROGRAM), self._setup]

    def _placed(self, source: Mapping[str, Any], number: int) -> dict[str, Any]:
        """A source with the paths of this node; the front end and the record know it by the file's number."""
        placed = dict(source)
        placed["url"] = str(number)
        for key in ("address", "token_file", "memory"):
            if key in placed:
                placed[key] = os.path.join(self._base, placed[key])
        if "of" in placed:
            placed["of"] = [self._placed(one, number) for one in source["of"]]
        return placed

    def failed(self) -> str:
        """Why there was no mount for the last task; empty if there was one."""
        try:
            with open(self._failed, encoding="utf-8") as file:
                return file.read(1000) or "nobody knows why"
        except OSError:
            return ""

    def trouble(self) -> str:
        """Which of its files the last task could not read, and why; empty if it got all that it asked for."""
        with contextlib.suppress(OSError), open(self._trouble, encoding="utf-8", errors="replace") as file:
            return file.read(1000)
        return ""

    def seen(self, reads: Sequence[Sequence[Any]]) -> list[list[Any]]:
        """What the last task read: [number, bytes read, bytes moved, seconds, from, missed] of each of its files."""
        found: dict[str, Mapping[str, Any]] = {}
        with contextlib.suppress(OSError), open(self._record, encoding="ascii") as file:
            for line in file:
                with contextlib.suppress(ValueError):
                    said = json.loads(line)
                    found[said["url"]] = said
        rows: list[list[Any]] = []
        for _, number in reads:
            said = found.get(str(number), {})
            row = [number, said.get("read_bytes", 0), said.get("moved_bytes", 0), said.get("took_s", 0.0)]
            rows.append([*row, said.get("from", ""), said.get("missed", {})])
        return rows


def _flat(name: str, number: int) -> str:
    """One name in the directory that is mounted, for a path in the task's own."""
    return "%d-%s" % (number, os.path.basename(name)[-200:])
