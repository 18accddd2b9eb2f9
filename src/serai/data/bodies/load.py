"""How much an appliance has to do: its ad says it, so that communities follow the load. Pure but for its clock."""

from __future__ import annotations

import contextlib
import math
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

__all__ = ["Load", "is_news"]

WEIGHT = 0.1  # of the last transfer in what is known of how long they take
SMOOTH_S = 5.0  # a load that comes, or goes, counts by two thirds after so long
NEWS_S = 2.0  # a smaller difference is told when the ad is renewed


class Load:
    """Transfers under way, and how long a new one would wait.

    A store serves so many transfers at a time, ``at_once``, without one being held up by another. When ``n`` are under
    way (those that wait for their turn among them), a new one waits for ``(n - at_once) / at_once`` rounds of others,
    each of which takes as long as transfers were seen to take: a moving mean of those that ended, or the mean age of
    those under way where that is more, as it is when none comes to its end any more. The product, smoothed in time so
    that a burst alone moves nobody, is `waiting_s`.

    Not safe for threads: it belongs to the appliance's loop.

    Args:
        now: tells the time, in seconds.
        at_once: see above.
    """

    def __init__(self, now: Callable[[], float], at_once: int) -> None:
        self._now = now
        self._at_once = max(1, at_once)
        self._begun: dict[int, float] = {}
        self._count = 0
        self._took_s = 0.0
        self._waiting_s = 0.0
        self._seen_at = now()

    @contextlib.contextmanager
    def transfer(self) -> Iterator[None]:
        """A transfer is under way, or waits for its turn, in this context."""
        self._count += 1
        number, began = self._count, self._now()
        self._begun[number] = began
        try:
            yield
        finally:
            del self._begun[number]
            took_s = self._now() - began
            self._took_s += (took_s - self._took_s) * (WEIGHT if self._took_s else 1.0)

    @property
    def under_way(self) -> int:
        """How many transfers there are now."""
        return len(self._begun)

    def waiting_s(self) -> float:
        """How long a new transfer would wait, smoothed; to be asked every few seconds at the least."""
        now, many = self._now(), len(self._begun)
        wait_s = 0.0
        if many > self._at_once:
            age_s = now - sum(self._begun.values()) / many
            wait_s = (many - self._at_once) / self._at_once * max(self._took_s, age_s)
        self._waiting_s += (wait_s - self._waiting_s) * -math.expm1((self._seen_at - now) / SMOOTH_S)
        self._seen_at = now
        return self._waiting_s


def is_news(told_s: float, now_s: float) -> bool:
    """Whether a wait is so much another than the one that was told that others should hear of it before long."""
    return abs(now_s - told_s) >= max(NEWS_S, told_s / 2)
