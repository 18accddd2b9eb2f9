"""Getting one partition of each map output: by its path on the same host, from the peer, or through the front end."""

from __future__ import annotations

import os
import socket
from concurrent.futures import ThreadPoolExecutor

from ..gateway import GatewayError
from ..peers import Gone, Unreachable
from .runs import RunBroken, read_piece

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence
    from typing import Any, BinaryIO

    from ..peers import Peers
    from .runs import Block

AT_ONCE = 4
RELAY = 1 << 22  # bytes of one relayed read


class Missing(Exception):
    """Map outputs that cannot be had.

    Attributes:
        tasks: the numbers of their map tasks.
    """

    def __init__(self, tasks: list[int], what: str) -> None:
        super().__init__(what)
        self.tasks = tasks


class Part:
    """A part of a map output that is on this node now.

    Args:
        task: the number of the map task.
        path: the file.
        start: where the part begins.
        size: its bytes.
    """

    def __init__(self, task: int, path: str, start: int, size: int) -> None:
        self.task = task
        self.path = path
        self.start = start
        self.size = size

    def __call__(self) -> Iterator[Block]:
        """Read its blocks.

        Raises:
            Missing: it is not there any more, or damaged.
        """
        try:
            yield from read_piece(self.path, self.start, self.size)
        except (OSError, RunBroken) as error:
            raise Missing([self.task], "the output of map %d: %s" % (self.task, error)) from error


class Fetcher:
    """Fetches parts.

    Args:
        call: of the gateway: ``call(do, head)``.
        peers: reads from other workers; None where there is no way.
        scratch: a directory of this order's own.
    """

    def __init__(self, call: Callable[..., Any], peers: Peers | None, scratch: str) -> None:
        self._call = call
        self._peers = peers
        self._scratch = scratch

    def fetch(self, maps: Sequence[Mapping[str, Any]], came: Callable[[int], None]) -> list[Part]:
        """Get the parts of all maps that have some.

        Args:
            maps: as the order has them.
            came: told the bytes of each part that is there.

        Raises:
            Missing: some cannot be had.
            GatewayError: the front end cannot be reached.
        """
        wanted = [one for one in maps if one["size"]]
        parts: list[Part] = []
        missing: list[int] = []
        why: list[str] = []
        with ThreadPoolExecutor(AT_ONCE, thread_name_prefix="fetch") as threads:
            futures = [(one, threads.submit(self._one, one)) for one in wanted]
            try:
                for one, future in futures:
                    try:
                        parts.append(future.result())
                        came(int(one["size"]))
                    except Missing as error:
                        missing += error.tasks
                        why.append(str(error))
            finally:
                for _, future in futures:
                    future.cancel()
        if missing:
            raise Missing(missing, "; ".join(why[:3]))
        return parts

    def _one(self, one: Mapping[str, Any]) -> Part:
        task, path, start, size = int(one["task"]), str(one["path"]), int(one["start"]), int(one["size"])
        if one.get("host") in (None, socket.gethostname()) and is_here(path, start + size):
            return Part(task, path, start, size)
        aside = os.path.join(self._scratch, "map-%d" % task)
        tried = []
        with open(aside, "wb") as file:
            if self._peers is not None and one.get("port"):
                wanted = {"path": path, "start": start, "size": size}
                try:
                    self._peers.fetch(one.get("addresses") or (), int(one["port"]), wanted, file)
                except Gone as error:
                    raise Missing([task], "the output of map %d: %s" % (task, error)) from error
                except Unreachable as error:
                    tried.append(str(error))
                else:
                    return Part(task, aside, 0, size)
            try:
                self._relay(one, file)
            except GatewayError as error:
                if error.transient:
                    raise
                tried.append(str(error))
                what = "the output of map %d (worker %s): %s" % (task, one.get("worker"), "; ".join(tried))
                raise Missing([task], what) from error
        return Part(task, aside, 0, size)

    def _relay(self, one: Mapping[str, Any], file: BinaryIO) -> None:
        file.seek(0)
        file.truncate()
        at, stop = int(one["start"]), int(one["start"]) + int(one["size"])
        while at < stop:
            head = {"worker": one["worker"], "path": one["path"], "start": at, "length": min(RELAY, stop - at)}
            _, data = self._call("peer.read", head)
            if not data:
                raise GatewayError("not_found", "%s ends at byte %d" % (one["path"], at))
            file.write(data)
            at += len(data)


def is_here(path: str, least: int) -> bool:
    """Whether a map output lies on this host: its name is the run's and the worker's own, and it is this user's."""
    try:
        facts = os.stat(path)
    except OSError:
        return False
    return facts.st_uid == os.getuid() and facts.st_size >= least and os.access(path, os.R_OK)
