"""Guaranteed space: pure accounting of lots, of what is used and of what is being written.

A *lot* is space that is guaranteed to a user until a time. A file is charged to one lot, or to none. When a lot ends
its files stay, but are best effort: they are removed, those of the lot that ended first, when space is needed. Files
that were never in a lot are never removed. After NeST's storage guarantees (Bent et al., HPDC 2002, section 5).
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

__all__ = ["Hold", "Ledger", "Lot", "NoRoom"]

NO_LOT = ""
MOST_LOTS = 10_000
LONGEST_S = 366 * 86400.0


class NoRoom(Exception):
    """There is not the space that was asked for."""


@dataclass(frozen=True, slots=True)
class Lot:
    """Space that is guaranteed.

    Attributes:
        name: an identifier.
        user: whose.
        size: in bytes.
        until: seconds since the epoch.
    """

    name: str
    user: str
    size: int
    until: float

    def live(self, now: float) -> bool:
        """Whether the guarantee still holds."""
        return now < self.until


@dataclass(frozen=True, slots=True)
class Hold:
    """Space for what is being written.

    Attributes:
        number: an identifier.
        user: who writes.
        lot: which it is charged to; empty for none.
        size: in bytes.
        evict: bytes of best-effort files that must go for it first.
    """

    number: int
    user: str
    lot: str
    size: int
    evict: int = 0


class Ledger:
    """What is used, guaranteed and held.

    Args:
        lots: those there are, also ended ones whose files are still there.
        used: bytes of files by (user, lot).
        quotas: the most that a user may have, in bytes.
        other: bytes of files that nobody wrote through the appliance.
    """

    def __init__(
        self,
        lots: Iterable[Lot] = (),
        used: Mapping[tuple[str, str], int] | None = None,
        quotas: Mapping[str, int] | None = None,
        other: int = 0,
    ) -> None:
        self.lots = {lot.name: lot for lot in lots}
        self.used: dict[tuple[str, str], int] = dict(used or {})
        self.quotas = dict(quotas or {})
        self.other = other
        self._holds: dict[int, Hold] = {}
        self._held: dict[tuple[str, str], int] = {}  # their sums by user and lot: there may be hundreds
        self._next = 1

    # ---- sums

    def stored(self) -> int:
        """Bytes of all files."""
        return self.other + sum(self.used.values())

    def best_effort(self, now: float) -> int:
        """Bytes of files whose lots have ended."""
        return sum(size for (_, lot), size in self.used.items() if lot and not self._live(lot, now))

    def reserved(self, now: float) -> int:
        """Bytes of all lots that hold."""
        return sum(lot.size for lot in self.lots.values() if lot.live(now))

    def in_lot(self, name: str) -> int:
        """Bytes that are used of a lot, and held in it."""
        used = sum(size for (_, lot), size in self.used.items() if lot == name)
        return used + sum(size for (_, lot), size in self._held.items() if lot == name)

    def taken(self, now: float) -> int:
        """Bytes that are spoken for: lots that hold, files outside of these, and what is being written there."""
        outside = sum(size for (_, lot), size in self.used.items() if not self._live(lot, now))
        held = sum(size for (_, lot), size in self._held.items() if not self._live(lot, now))
        return self.other + self.reserved(now) + outside + held

    def of_user(self, user: str, now: float) -> int:
        """Bytes that count against a user's quota: files, what is being written, and what lots have left."""
        files = sum(size for (owner, lot), size in self.used.items() if owner == user and not self._live(lot, now))
        held = sum(size for (owner, lot), size in self._held.items() if owner == user and not self._live(lot, now))
        return files + held + sum(lot.size for lot in self.lots.values() if lot.user == user and lot.live(now))

    def _live(self, name: str, now: float) -> bool:
        lot = self.lots.get(name)
        return lot is not None and lot.live(now)

    # ---- lots

    def reserve(self, name: str, user: str, size: int, until: float, capacity: int, now: float) -> tuple[Lot, int]:
        """Guarantee space.

        Args:
            name: a new identifier.
            user: for whom.
            size: in bytes.
            until: seconds since the epoch.
            capacity: bytes that all files may have.
            now: seconds since the epoch.

        Returns:
            The lot, and how many bytes of best-effort files must go for it.

        Raises:
            NoRoom: it cannot be had.
            ValueError: no such size or time.
        """
        if size <= 0 or not now < until <= now + LONGEST_S:
            raise ValueError("a lot has a size, and ends within a year")
        if len(self.lots) >= MOST_LOTS:
            raise NoRoom(f"there are {MOST_LOTS} lots already")
        evict = self._fit(user, size, capacity, now)
        lot = self.lots[name] = Lot(name, user, size, until)
        return lot, evict

    def renew(self, name: str, until: float, capacity: int, now: float) -> tuple[Lot, int]:
        """Guarantee a lot for longer; an ended one is taken up again with the files that are left.

        Raises:
            KeyError: there is no such lot.
            NoRoom: it had ended, and its space is gone.
        """
        lot = self.lots[name]
        if not now < until <= now + LONGEST_S:
            raise ValueError("a lot ends within a year")
        evict = 0
        if not lot.live(now):
            evict = self._fit(lot.user, max(0, lot.size - self.in_lot(name)), capacity, now, spare=name)
        lot = self.lots[name] = replace(lot, until=until)
        return lot, evict

    def release(self, name: str, now: float) -> Lot:
        """End a lot now; its files are best effort from here on."""
        lot = self.lots[name] = replace(self.lots[name], until=min(now, self.lots[name].until))
        return lot

    def prune(self, now: float) -> list[str]:
        """Forget lots that have ended and have no file left; returns their names."""
        gone = [name for name, lot in self.lots.items() if not lot.live(now) and not self.in_lot(name)]
        for name in gone:
            del self.lots[name]
        return gone

    # ---- files

    def hold(self, user: str, size: int, capacity: int, now: float, lot: str | None = None) -> Hold:
        """Take space for what is going to be written.

        Args:
            user: who writes.
            size: in bytes.
            capacity: bytes that all files may have.
            now: seconds since the epoch.
            lot: which; None: the one of the user's that ends last among those with room, or none.

        Raises:
            NoRoom: there is not so much.
            KeyError: it is no lot of the user's that holds.
        """
        if lot is None:
            able = [
                one
                for one in self.lots.values()
                if one.user == user and one.live(now) and self.in_lot(one.name) + size <= one.size
            ]
            lot = max(able, key=lambda one: (one.until, one.name)).name if able else NO_LOT
        evict = 0
        if lot:
            found = self.lots.get(lot)
            if found is None or found.user != user or not found.live(now):
                raise KeyError(f"there is no lot {lot} of {user} that holds")
            if self.in_lot(lot) + size > found.size:
                raise NoRoom(f"the lot {lot} has {found.size - self.in_lot(lot)} bytes left")
        else:
            evict = self._fit(user, size, capacity, now)
        hold = Hold(self._next, user, lot, size, evict)
        self._next += 1
        self._holds[hold.number] = hold
        _add(self._held, (user, lot), size)
        return hold

    def grow(self, hold: Hold, more: int, capacity: int, now: float) -> Hold:
        """Take more for the same.

        Raises:
            NoRoom: there is not so much; what was held stays held.
        """
        evict = 0
        if hold.lot:
            if self.in_lot(hold.lot) + more > self.lots[hold.lot].size:
                raise NoRoom(f"the lot {hold.lot} is full")
        else:
            evict = self._fit(hold.user, more, capacity, now)
        grown = self._holds[hold.number] = replace(hold, size=hold.size + more, evict=evict)
        _add(self._held, (hold.user, hold.lot), more)
        return grown

    def drop(self, hold: Hold) -> None:
        """Give up what was held; it may have been given up already."""
        held = self._holds.pop(hold.number, None)
        if held is not None:
            _add(self._held, (held.user, held.lot), -held.size)

    def settle(self, hold: Hold, size: int) -> None:
        """What was held has become a file."""
        self.drop(hold)
        self.charge(hold.user, hold.lot, size)

    def charge(self, user: str, lot: str, size: int) -> None:
        """A file has appeared, or (a negative size) gone."""
        _add(self.used, (user, lot), size)

    def _fit(self, user: str, size: int, capacity: int, now: float, spare: str = NO_LOT) -> int:
        """How many best-effort bytes must go for so many more."""
        quota = self.quotas.get(user)
        if quota is not None and self.of_user(user, now) + size > quota:
            raise NoRoom(f"the quota of {user} is {quota} bytes")
        missing = self.taken(now) + size - capacity
        if missing <= 0:
            return 0
        if missing > self.best_effort(now) - (self.in_lot(spare) if spare else 0):
            raise NoRoom(f"{max(0, capacity - self.taken(now))} bytes are free, {size} are needed")
        return missing


def _add(sums: dict[tuple[str, str], int], key: tuple[str, str], size: int) -> None:
    left = sums.get(key, 0) + size
    if left > 0:
        sums[key] = left
    else:
        sums.pop(key, None)
