"""Does a run still go on? How another process judges what its front end noted."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from serai.dispatch.front_end import ENDED, HOST, PID, PID_STARTED
from serai.dispatch.history.moment import RunState

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

SILENCE_S = 30.0  # a front end that cannot be looked at and has written nothing for so long is held to be gone


def state_of(
    facts: Mapping[str, Any], *, heard_at: float, now: float, here: str, start_of: Callable[[int], int | None]
) -> RunState:
    """How a run stands.

    Args:
        facts: of the run.
        heard_at: when its journal was last written.
        now: seconds since the epoch.
        here: this machine's name.
        start_of: see `process_started`.
    """
    if facts.get(ENDED) is not None:
        return RunState.FINISHED
    pid, host = facts.get(PID), facts.get(HOST)
    if pid is None or (host is not None and host != here):
        return RunState.RUNNING if now - heard_at < SILENCE_S else RunState.INTERRUPTED
    started, wanted = start_of(pid), facts.get(PID_STARTED)
    there = started is not None and (wanted is None or started == wanted)
    return RunState.RUNNING if there else RunState.INTERRUPTED
