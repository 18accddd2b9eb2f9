"""Inputs on a web server: what is seen of them before a run."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import pytest
from tests.reading.origin_server import OriginServer

from serai.apps.fetching import Fetcher
from serai.clock import SystemClock

if TYPE_CHECKING:
    from collections.abc import Iterator

DATA = os.urandom(300_000)


@pytest.fixture
def server() -> Iterator[OriginServer]:
    one = OriginServer(DATA)
    yield one
    one.close()


def test_each_of_many_is_seen_with_its_size_and_version(server: OriginServer) -> None:
    urls = [f"{server.url}/d/x{n}.bin" for n in range(7)]
    found = list(Fetcher({}, SystemClock()).look(urls))
    assert [one.origin for one in found] == urls
    assert {one.size for one in found} == {len(DATA)}
    assert {one.version for one in found} == {('"v1"', "")}
    asked = sorted(path for path, _ in server.requests)  # several at a time
    assert asked == [f"/d/x{n}.bin" for n in range(7)]  # and no page of what there is
