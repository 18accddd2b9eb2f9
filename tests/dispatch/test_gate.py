"""What nodes are told of inputs that they read from afar."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

from serai.dispatch.files.catalogue import Catalogue
from serai.dispatch.files.origins import Found
from serai.dispatch.ports import NodeSpec, Place
from serai.dispatch.reading.gate import Gate
from serai.match.movement import Move, Way

if TYPE_CHECKING:
    from pathlib import Path

URL = "https://me:sesame@data.example.org/x?key=sesame"


def test_a_url_that_holds_a_password_is_told_to_no_node(tmp_path: Path) -> None:
    catalogue = Catalogue(lambda _event: None)
    numbers = catalogue.add([Found(f"{URL}{n}", 9, ("9", "None")) for n in range(3)])
    gate = Gate(catalogue, tmp_path, None)
    place = Place(NodeSpec("n1", "n1", "ssh://n1"), {}, set(), way_back="gateway")
    told = gate.sources(numbers, {number: Move(number, Way.READ) for number in numbers}, place)
    assert "sesame" not in json.dumps(told)
    assert len({one["identity"] for one in told.values()}) == 3  # they are told apart all the same
