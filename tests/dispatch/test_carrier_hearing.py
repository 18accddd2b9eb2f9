"""What a carrier makes of frames of its node that nobody should have sent."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, cast

import pytest

from serai.clock import SystemClock
from serai.data.landing import Landing
from serai.dispatch.carrier import Carrier, Gone, Timing
from serai.dispatch.files.catalogue import Catalogue
from serai.dispatch.files.origins import Found
from serai.dispatch.ports import NodeSpec, Place
from serai.dispatch.schedule import events as ev
from serai.travel.executor import wire

if TYPE_CHECKING:
    from pathlib import Path

    from serai.dispatch.ports import Engine

FINE = [1, 5, 5, 0.5, "", {}]


@pytest.mark.parametrize(
    "head",
    [
        {"ok": True, "w": 1, "files": [[1, 5, 5, float("nan"), "", {}]]},
        {"ok": True, "w": 1, "files": [[1, 5, 10**400, 1.0, "", {}]]},
        {"ok": True, "w": 1, "files": [[1, -5, 5, 1.0, "", {}]]},
        {"ok": True, "w": 1, "files": [[1, "much", 5, 1.0, "", {}]]},
        {"ok": True, "w": 1, "files": [[1, 5, 5, "long", "", {}]]},
        {"ok": True, "w": 1, "files": [[1, 5]]},
        {"ok": True, "w": [1], "files": [FINE]},
        {"ok": True, "w": 1, "files": [[*FINE[:5], ["store far"]]]},
        {"ok": True, "w": 1, "files": [FINE]},
    ],
)
def test_of_what_a_task_has_read_nothing_reaches_the_schedule_that_cannot_be(
    head: dict[str, Any], tmp_path: Path
) -> None:
    """The dispatcher serves all nodes: what fails there ends the run."""
    told: list[Any] = []
    catalogue = Catalogue(lambda _event: None)
    catalogue.add([Found("/a", 9, ("9",))])
    spec = NodeSpec("n1", "n1", "local://")
    carrier = Carrier(
        spec,
        cast("Engine", None),
        {},
        lambda _, event: told.append(event),
        Landing("r", tmp_path),
        SystemClock(),
        Timing(),
        catalogue,
    )
    carrier._place = Place(spec, {}, set(), looks={7: {1: "a"}})
    carrier._deliver(wire.pack(wire.SEEN, 0, 7, head))
    moved = [one for one in told if isinstance(one, ev.Moved)]
    gone = [one for one in told if isinstance(one, Gone)]
    if head["files"] == [FINE] and head["w"] == 1:
        assert (moved, gone) == ([ev.Moved("n1", 1, "", 5, 0.5, 5, 1)], [])
    else:
        assert moved == []
        assert "cannot be read" in gone[0].error.what
