"""The members of a pool: when to try a node again that could not be reached, or was lost. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum


class Standing(StrEnum):
    """Where a member stands; the words are shown to people and stored in journals."""

    CONNECTING = "connecting"
    UP = "up"
    WAITING = "waiting"  # to be tried again
    GIVEN_UP = "given up"
    ENDED = "ended"
    RELEASED = "released"  # its user wanted it no longer


@dataclass(frozen=True, slots=True)
class Patience:
    """How long a pool goes on trying a node: the n-th wait is ``first_s * 2**(n-1)``, at most ``most_s``."""

    first_s: float = 1.0
    most_s: float = 60.0
    tries: int = 8


@dataclass(slots=True)
class Member:
    """A node of a pool.

    Attributes:
        tries: starts in a row that did not lead to a check-in.
        retry_at: when it is tried again, while it waits.
        why: what was wrong last, without the node's name before it: whoever shows it shows that.
    """

    name: str
    standing: Standing = Standing.CONNECTING
    tries: int = 0
    retry_at: float = 0.0
    why: str = ""
    since: float = 0.0

    def came(self, now: float) -> None:
        """It checked in."""
        self.standing = Standing.UP
        self.tries = 0
        self.why = ""
        self.since = now

    def lost(self, why: str, now: float, *, transient: bool, patience: Patience) -> None:
        """It could not be reached, or is gone."""
        self.tries += 1
        self.why = why.removeprefix(f"{self.name}: ")  # the text of an error begins so
        self.since = now
        if not transient or self.tries > patience.tries:
            self.standing = Standing.GIVEN_UP
        else:
            self.standing = Standing.WAITING
            self.retry_at = now + min(patience.most_s, patience.first_s * 2.0 ** (self.tries - 1))

    def released(self, now: float) -> None:
        """It is not wanted any more, and has handed over what only it had."""
        self.standing = Standing.RELEASED
        self.why = "its user let go of it"
        self.since = now

    def due(self, now: float) -> bool:
        """Whether it is to be tried again now."""
        return self.standing is Standing.WAITING and now >= self.retry_at

    def connecting(self, now: float) -> None:
        """It is being tried."""
        self.standing = Standing.CONNECTING
        self.since = now

    @property
    def hopeless(self) -> bool:
        """Whether nothing more is expected of it."""
        return self.standing in {Standing.GIVEN_UP, Standing.ENDED, Standing.RELEASED}
