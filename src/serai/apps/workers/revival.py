"""When workers that were lost are started again, and where no more. Pure.

A host is judged by ends in a row: each makes the next pause longer, and work that was done since clears it. Workers
that ended are started again one at a time until one has done some work, so that a host whose memory does not suffice
for all of them finds out how many it can hold; a host that was lost is reached anew as a whole.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import Enum

from serai.pool.members import Member, Patience, Standing


@dataclass(frozen=True, slots=True)
class Again:
    """How far lost workers are started again.

    Attributes:
        patience: with a host that was reached once; its pauses, and the ends in a row that it may have.
        first_tries: with a host that was never reached: it may not be there at all.
        of_host: so often for each worker that a host was to have.
        in_all: so often in a run.
    """

    patience: Patience = field(default_factory=Patience)
    first_tries: int = 3
    of_host: int = 16
    in_all: int = 500


class What(Enum):
    """What is to be started."""

    HOST = "host"
    WORKER = "worker"


@dataclass(slots=True)
class Home:
    """A host that workers are started on.

    Attributes:
        member: its standing, and the ends in a row.
        again: the limits.
        wanted: workers that it is to have, once it has said how many.
        missing: of them, those that ended and have not been started again.
        coming: of them, those that were taken and are not started yet.
        down: it is being reached, or is to be.
        starts: of workers, beyond the first ones.
    """

    member: Member
    again: Again
    wanted: int = 0
    missing: int = 0
    coming: int = 0
    down: bool = True
    starts: int = 0

    @property
    def left_out(self) -> bool:
        """Whether nothing more is started there."""
        return self.member.hopeless

    @property
    def expecting(self) -> bool:
        """Whether workers may still come from there that are not being started yet."""
        return self.coming > 0 or (not self.left_out and (self.down or self.missing > 0))

    def up(self, workers: int) -> None:
        """It was reached, and so many workers are about to start."""
        if not self.left_out:
            self.member.standing = Standing.UP  # what is held against it, only work clears
        self.wanted, self.missing, self.coming, self.down = workers, 0, 0, False

    def started(self) -> None:
        """One of the workers that were taken is about to start."""
        self.coming = max(0, self.coming - 1)

    def did_well(self, now: float) -> None:
        """Work was done there by a worker that was started since, or what went wrong was not the host's fault."""
        if self.left_out:
            return
        self.member.tries = 0
        if self.member.standing is Standing.WAITING:
            self.member.retry_at = now

    def worker_lost(self, why: str, began: float, now: float, *, excused: bool = False) -> None:
        """A worker has ended.

        Args:
            why: for people.
            began: when it was started: with others that end at the same time, it is one fault.
            now: as of `did_well`.
            excused: what it did had ended another worker before, so that the host need not be the reason.
        """
        if self.down or self.left_out:
            return
        self.missing += 1
        if excused:
            self.member.tries = max(0, self.member.tries - 1)
        waiting = self.member.standing is Standing.WAITING
        if not (waiting and self.member.tries and began <= self.member.since):
            self._fault(why, now, transient=True)

    def lost(self, why: str, now: float, *, transient: bool) -> None:
        """It could not be reached, or the way to it is gone and its workers with it."""
        if self.left_out or (self.down and self.member.standing is Standing.WAITING):
            return  # this is known
        self.down, self.missing, self.coming = True, 0, 0
        self._fault(why, now, transient=transient)

    def _fault(self, why: str, now: float, *, transient: bool) -> None:
        patience = self.again.patience
        if not self.wanted:
            patience = Patience(patience.first_s, patience.most_s, self.again.first_tries - 1)
        self.member.lost(why, now, transient=transient, patience=patience)
        most = self.again.of_host * max(1, self.wanted)
        if self.starts >= most:
            self.give_up(f"{why}; it was the {self.starts}. worker that was started again there")

    def give_up(self, why: str) -> None:
        """Start nothing more there."""
        self.member.standing, self.member.why = Standing.GIVEN_UP, why

    def take(self, now: float) -> What | None:
        """What is to be started now; it is taken as started."""
        if not self.member.due(now):
            return None
        if self.down:
            self.starts += self.wanted
            self.member.connecting(now)
            return What.HOST
        self.starts += 1
        self.missing -= 1
        self.coming += 1
        if self.missing > 0:
            tries, patience = self.member.tries, self.again.patience
            pause_s = min(patience.most_s, patience.first_s * 2.0 ** (tries - 1)) if tries else 0.0
            self.member.retry_at = now + pause_s
        else:
            self.member.standing = Standing.UP
        return What.WORKER

    def outlook(self, now: float) -> str:
        """What is done about the last loss, as the end of a sentence."""
        member = self.member
        if self.left_out:
            times = f" after {member.tries} in a row without any work done" if member.tries > 1 else ""
            return f"{member.name} is left out{times}"
        pause_s = max(0.0, member.retry_at - now)
        return f"{'it is tried again' if self.down else 'another is started'} in {pause_s:.0f} s"
