"""How many tasks to send together: so many that no message shows, so few that every lane has its share."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(slots=True)
class Estimate:
    """How long the tasks of a work take, as observed.

    Attributes:
        mean_s: running mean, where late tasks weigh more; negative when nothing was seen.
        seen: tasks behind it.
    """

    mean_s: float = -1.0
    seen: int = 0

    def learn(self, total_s: float, tasks: int) -> None:
        """Take in tasks that ended."""
        if tasks <= 0:
            return
        mean = total_s / tasks
        if self.mean_s < 0:
            self.mean_s = mean
        else:
            weight = min(0.5, tasks / (tasks + min(self.seen, 1000)))
            self.mean_s += weight * (mean - self.mean_s)
        self.seen += tasks


def bundle_size(estimate: Estimate, queued: int, lanes: int, *, target_s: float, most: int) -> int:
    """Return the size of the next bundle, at least 1.

    Args:
        estimate: of the work.
        queued: tasks of it that wait.
        lanes: lanes that could take them.
        target_s: how long a bundle should take.
        most: the largest size.
    """
    if estimate.mean_s < 0:
        return 1
    # Doubles with what was seen: one quick task is no reason to send a thousand that may be slow.
    trusted = max(1, 2 * estimate.seen // max(1, lanes))
    by_time = int(target_s / max(estimate.mean_s, 1e-6))
    share = -(-queued // (2 * max(1, lanes)))
    return max(1, min(trusted, by_time, share, most))
