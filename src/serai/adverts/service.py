"""The advert service: a small directory where nodes, stores, replicas and workers are found.

Terms are those of SAGA (OGF GFD.90) and its advert package: directories, entries, attributes. An entry may
expire; it may be *claimed* by one owner at a time, for a limited time; and who watches a directory is told what changes
below it.

Times are those of the service: of this machine for SQLite, which only processes of one machine share, and of the
database for PostgreSQL, whose front ends' clocks may differ. Lives are given in seconds from now, so that a node's
clock never matters.
"""

from __future__ import annotations

import asyncio
import os
from abc import ABC, abstractmethod
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from importlib import import_module
from typing import TYPE_CHECKING, Literal, Self

from serai.adverts import where as wheres
from serai.errors import QueueFull, UsageError

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Iterator, Mapping, Sequence
    from types import TracebackType

    from serai.adverts.attributes import Value

__all__ = ["Adverts", "Change", "Entry", "Watched", "open_adverts"]

PAGE = 1000  # entries read at once
MOST_LISTED = 100_000  # entries in one list
LONGEST_LIFE_S = 366 * 86400.0
SLICE_S = 1.0  # how long an abandoned `changes` may still wait

Kind = Literal["added", "changed", "removed", "expired", "reset"]


@dataclass(frozen=True, slots=True)
class Entry:
    """An entry, as it was when it was read.

    Attributes:
        path: where it is.
        attributes: JSON's scalars, or lists of these, by name.
        expires: when it will be gone, in seconds since the epoch by the service's clock; None for never.
        version: of its last change. Versions grow over the whole service; to be renewed is no change.
        owner: who has claimed it, None for nobody.
        owned_until: when the claim ends.
    """

    path: str
    attributes: dict[str, Value]
    expires: float | None
    version: int
    owner: str | None = None
    owned_until: float | None = None


@dataclass(frozen=True, slots=True)
class Change:
    """What became of a path. Several changes between two looks are told as one.

    Attributes:
        kind: ``added`` (a path that was there before may be added again), ``changed`` (attributes, or who owns it),
            ``removed``, ``expired``; ``reset``: it is not known any more what went away since then, so forget
            everything: what is there follows as ``added``.
        path: whose it is.
        version: of the change.
        entry: as it is now; None when it is gone.
    """

    kind: Kind
    path: str
    version: int
    entry: Entry | None = None


@dataclass(frozen=True, slots=True)
class Watched:
    """What a watch saw: changes in the order of their versions, none when the deadline passed; and where to go on."""

    changes: tuple[Change, ...]
    version: int


class Adverts(ABC):
    """The port. Its methods may be called from several threads.

    Every method raises UsageError for a path, an attribute or a time that cannot be one, HostUnreachable when the
    service does not answer, and DeadlineExceeded when it is too busy to.
    """

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    @abstractmethod
    def close(self) -> None:
        """Let go of the service; watches that wait end."""

    @abstractmethod
    def now(self) -> float:
        """The time by the service's clock, in seconds since the epoch."""

    @abstractmethod
    def put(
        self, path: str, attributes: Mapping[str, Value], ttl_s: float | None = None, *, exclusive: bool = False
    ) -> int:
        """Make an entry, or give the one that is there other attributes and another life; a claim on it stays.

        Args:
            path: where.
            attributes: all that it has from now on.
            ttl_s: seconds that it lives unless it is renewed; None for ever.
            exclusive: it must not be there yet.

        Returns:
            Its version.

        Raises:
            FileExistsError: it is there, and must not be.
        """

    @abstractmethod
    def update(self, path: str, attributes: Mapping[str, Value]) -> int:
        """Give an entry further or other attributes; those not named stay. Returns its version.

        Raises:
            FileNotFoundError: there is none.
        """

    @abstractmethod
    def get(self, path: str) -> Entry | None:
        """The entry, or None."""

    @abstractmethod
    def page(self, directory: str, *, recursive: bool = False, after: str = "", most: int = PAGE) -> list[Entry]:
        """Some entries in a directory, or all the way below it, by their paths.

        Args:
            directory: which.
            recursive: also those in the directories below.
            after: only those whose paths come after this one.
            most: how many at most, up to 1000. It may be fewer though more follow; none follow an empty page.
        """

    @abstractmethod
    def directories(self, directory: str = "/") -> list[str]:
        """The paths of the directories directly in one: of those that have an entry somewhere below."""

    @abstractmethod
    def renew(self, path: str, ttl_s: float | None) -> None:
        """Let an entry live for so many seconds from now.

        Raises:
            FileNotFoundError: there is none; it expired, perhaps.
        """

    @abstractmethod
    def remove(self, path: str, *, recursive: bool = False) -> int:
        """Remove an entry, or with `recursive` all that is at this path and below. Returns how many.

        Raises:
            FileNotFoundError: there is nothing to remove.
        """

    @abstractmethod
    def claim(self, path: str, owner: str, for_s: float) -> bool:
        """Claim an entry for so many seconds: one of those who ask at the same time gets it.

        Its owner may claim it again, and has it for so many seconds from then.

        Returns:
            Whether `owner` owns it now.

        Raises:
            FileNotFoundError: there is no such entry.
        """

    @abstractmethod
    def release(self, path: str, owner: str) -> None:
        """Give up a claim; none that is there any more is no error.

        Raises:
            FileNotFoundError: there is no such entry.
            PermissionError: somebody else has claimed it.
        """

    @abstractmethod
    def watch(self, directory: str, since: int | None = None, deadline_s: float = 20.0) -> Watched:
        """Wait until something changes at this path or below it.

        To be told everything: begin with 0, and then go on from the version that each watch returned.

        Args:
            directory: which.
            since: changes after this version; 0 tells first what there is; None begins now.
            deadline_s: how long to wait.
        """

    def each(
        self, directory: str = "/", where: str | Sequence[str] | None = None, *, recursive: bool = False
    ) -> Iterator[Entry]:
        """The entries in a directory, or all the way below it, by their paths, read in pages.

        Args:
            directory: which.
            where: conditions that must hold of all: ``os=linux``, ``host=lab*``, ``cores>4``.
            recursive: also those in the directories below.
        """
        conditions, after = wheres.conditions(where), ""
        while True:
            entries = self.page(directory, recursive=recursive, after=after, most=PAGE)
            yield from (one for one in entries if all(condition.holds(one.attributes) for condition in conditions))
            if not entries:
                return
            after = entries[-1].path

    def list(
        self, directory: str = "/", where: str | Sequence[str] | None = None, *, recursive: bool = False
    ) -> list[Entry]:
        """The same as `each`, at once.

        Raises:
            QueueFull: there are more than 100,000.
        """
        found: list[Entry] = []
        for entry in self.each(directory, where, recursive=recursive):
            if len(found) == MOST_LISTED:
                raise QueueFull(f"more than {MOST_LISTED} entries are in {directory}", hint="take them with each()")
            found.append(entry)
        return found

    async def changes(self, directory: str, since: int | None = 0) -> AsyncGenerator[Change, None]:
        """What there is below a path, and then every change, in order, for as long as one asks."""
        loop = asyncio.get_running_loop()
        waiting = ThreadPoolExecutor(1, thread_name_prefix="adverts")  # the loop's own has few threads, for short work
        try:
            while True:
                watched = await loop.run_in_executor(waiting, partial(self.watch, directory, since, SLICE_S))
                since = watched.version
                for change in watched.changes:
                    yield change
        finally:
            waiting.shutdown(wait=False)


# scheme: (module, name of a function that takes the URL)
_SCHEMES = {
    "gateway": ("serai.adverts.far", "from_url"),
    "postgresql": ("serai.adverts.postgresql", "from_url"),
    "sqlite": ("serai.adverts.sqlite", "from_url"),
}


def open_adverts(url: str | None = None, environment: Mapping[str, str] = os.environ) -> Adverts:
    """Open the advert service.

    Args:
        url: ``sqlite:///path``; ``postgresql://user@host/database`` (the password is in ``~/.pgpass``);
            ``gateway:``, on a node of a run. None is ``$SERAI_ADVERTS``, else SQLite below the state directory.
        environment: where variables are looked up.

    Raises:
        UsageError: no such URL, or it holds a password.
        HostUnreachable: nobody answers there.
    """
    url = url or environment.get("SERAI_ADVERTS") or "sqlite:"
    scheme = url.partition(":")[0].lower()
    if scheme not in _SCHEMES:
        raise UsageError(
            f"adverts cannot be kept by {scheme!r}", hint="sqlite:///PATH or postgresql://USER@HOST/DATABASE"
        )
    module, name = _SCHEMES[scheme]
    adverts: Adverts = getattr(import_module(module), name)(url, environment)
    return adverts
