"""What the ads of a run's tasks say beside their needs: whose they are."""

from __future__ import annotations

import contextlib
import getpass
import platform
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from serai.match.matching import Matching

if TYPE_CHECKING:
    from collections.abc import Mapping

    from serai.clock import Clock


def task_facts(run: str) -> dict[str, Any]:
    """``Owner``, ``User`` and ``Run``, by which nodes may take tasks or leave them."""
    owner = ""
    with contextlib.suppress(OSError, KeyError):  # a user without a name
        owner = getpass.getuser()
    return {"Owner": owner, "User": f"{owner}@{platform.node()}", "Run": run}


def matching_of(run: str, stores: Mapping[str, Mapping[str, Any]], clock: Clock) -> Matching:
    """The matching of a run; the hours of policies are those of this machine's clock."""

    def moment(now: float) -> datetime:
        return datetime.fromtimestamp(clock.wall() + now - clock.now(), UTC).astimezone()

    return Matching(task_facts(run), stores, moment)
