"""The score of a site, as Swift had it: trust grows with success, shrinks with failure, and decides how much is sent.

Source: Swift on EC2 with Falkon (2007): jobs allowed at a site = 2 + 4 x score; a score starts at 1 and moves in
(0.1, 100); a bad site waits 2^(-100 x balance) seconds, the balance being the small sum of its latest faults.
"""

from __future__ import annotations

from dataclasses import dataclass

LOW, HIGH = 0.1, 100.0
GAIN = 0.1  # for a task that ended well
LOSS = 0.5  # for a fault of the site
FAULT = 0.01  # of the balance, for a fault
WAIT_MOST_S = 60.0


@dataclass(slots=True)
class Score:
    """How far a site is trusted.

    Attributes:
        value: in (0.1, 100).
        balance: 0 or negative: faults since the last success.
        closed_until: nothing is sent before.
    """

    value: float = 1.0
    balance: float = 0.0
    closed_until: float = 0.0

    def allowed(self) -> int:
        """Lanes of the site that may be in use."""
        return int(2 + 4 * self.value)

    def is_open(self, now: float) -> bool:
        """Whether anything may be sent now."""
        return now >= self.closed_until

    def success(self, tasks: int = 1) -> None:
        """Tasks ended well."""
        self.value = min(HIGH, self.value + GAIN * tasks)
        self.balance = 0.0

    def fault(self, now: float) -> None:
        """The site failed a task that was not to blame."""
        self.value = max(LOW, self.value - LOSS)
        self.balance -= FAULT
        wait_s = 2.0 ** min(10.0, -100.0 * self.balance) / 2.0  # held below an overflow: a site may fail very often
        self.closed_until = max(self.closed_until, now + min(WAIT_MOST_S, wait_s))
