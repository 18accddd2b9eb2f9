"""Files that come to a node's cache from their origin, and from the front end where they cannot."""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from tests.caching.test_fetches import DEADLINE_S, Node
from tests.reading.origin_server import OriginServer

from serai.access.stores.certificates import pinned_certificate
from serai.travel.caching import fetches, recalled
from serai.travel.caching.fetches import CACHED, FROM, SENT, Origin, Wanted
from serai.travel.caching.objects import digest_of

if TYPE_CHECKING:
    from collections.abc import Iterator

DATA = os.urandom(3_000_000)
NAME = "https far"


@pytest.fixture
def server(tmp_path: Path) -> Iterator[OriginServer]:
    one = OriginServer(DATA, tmp_path / "server.pem")
    yield one
    one.close()


@pytest.fixture
def node(tmp_path: Path) -> Iterator[Node]:
    one = Node(tmp_path / "node", pinned_certificate("test", time.time()))
    yield one
    one.fetches.close()
    one.server.close()
    assert not list((one.place / "cache/coming").iterdir())


def origin(server: OriginServer, **more: Any) -> Origin:
    facts = {"url": f"{server.url}/x", "fingerprint": server.fingerprint, "etag": '"v1"', "name": NAME}
    return Origin({**facts, **more})


def test_it_comes_from_its_origin_and_the_front_end_is_not_asked(node: Node, server: OriginServer) -> None:
    node.fetches.want(Wanted(7, len(DATA), "", [origin(server)]))
    found = node.end()
    assert (found.way, found.source, found.moved, found.kept, found.why) == (FROM, NAME, len(DATA), True, "")
    assert found.digest == digest_of(node.fetches.path(7))
    assert node.held(7) == DATA
    assert node.asked.empty()
    assert len(server.requests) == 1


def test_what_was_read_at_its_origin_is_found_again_by_its_version(node: Node, server: OriginServer) -> None:
    key, other = "a" * 40, "b" * 40
    node.fetches.want(Wanted(7, len(DATA), "", [origin(server, key=key)]))
    first = node.end()
    again = node.fetches.want(Wanted(8, len(DATA), "", [origin(server, key=key)]))
    assert again is not None
    assert (again.way, again.digest, again.moved, node.held(8)) == (CACHED, first.digest, 0, DATA)
    assert len(server.requests) == 1
    node.fetches.let_go(7)
    node.fetches.let_go(8)
    node.cache.drop(first.digest)
    node.fetches.want(Wanted(9, len(DATA), "", [origin(server, key=key)]))  # it has left the cache since
    assert (node.end().way, len(server.requests)) == (FROM, 2)
    node.fetches.want(Wanted(10, len(DATA), "", [origin(server, key=other)]))  # another version
    assert (node.end().way, len(server.requests)) == (FROM, 3)
    assert sorted(os.listdir(node.place / "cache/origins")) == [key, other]


def test_of_many_versions_those_noted_first_are_forgotten(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(recalled, "MOST", 3)
    monkeypatch.setattr(recalled, "LOOK", 1)
    one = recalled.Recalled(str(tmp_path / "origins"))
    for n in range(5):
        one.note(f"{n:040x}", f"{n:064x}")
        os.utime(tmp_path / "origins" / f"{n:040x}", (n, n))
    assert [bool(one.digest(f"{n:040x}")) for n in range(5)] == [False, False, True, True, True]
    one.note("../x", "a" * 64)
    one.note("f" * 40, "no digest")
    assert not one.digest("f" * 40)
    assert not one.digest("../../etc/passwd")
    assert len(os.listdir(tmp_path)) == 1


def test_it_goes_on_where_it_broke_off(node: Node, server: OriginServer) -> None:
    server.answers = ["cut", "cut"]
    node.fetches.want(Wanted(7, len(DATA), "", [origin(server)]))
    found = node.end()
    assert (found.way, node.held(7)) == (FROM, DATA)
    assert next(headers.get("Range", "").partition("-")[0] for _, headers in server.requests) == ""
    starts = [int(headers["Range"][6:].partition("-")[0]) for _, headers in server.requests[1:]]
    assert 0 < starts[0] < starts[1] < len(DATA)
    assert not list((node.place / "unreached").glob("*"))


def test_where_no_version_is_told_it_begins_again_and_mixes_none(node: Node, server: OriginServer) -> None:
    server.answers = ["cut"]
    one = origin(server, etag="")
    node.fetches.want(Wanted(7, len(DATA), "", [one]))
    found = node.end()
    assert (found.way, node.held(7)) == (FROM, DATA)
    assert ["Range" in headers for _, headers in server.requests] == [False, False]


def test_a_token_that_has_expired_is_renewed_by_the_front_end_in_the_middle(node: Node, server: OriginServer) -> None:
    server.token = "new"  # noqa: S105 - of nobody
    server.answers = ["cut"]
    node.fetches.want(Wanted(7, len(DATA), "", [origin(server, token="old")]))  # noqa: S106 - the same
    assert node.asked.get(timeout=DEADLINE_S) == (7, 0)
    node.fetches.granted(8, {})  # for another file
    renewed = origin(server, token="new", life_s=1.0).grant  # noqa: S106 - of nobody
    node.fetches.granted(7, renewed)
    assert node.asked.get(timeout=DEADLINE_S) == (7, 0)  # before it goes on: it would expire too soon
    server.token = "newer"  # noqa: S105 - of nobody
    node.fetches.granted(7, {**renewed, "token": "newer", "life_s": 900.0})
    found = node.end()
    assert (found.way, found.source, node.held(7)) == (FROM, NAME, DATA)


@pytest.mark.parametrize("trouble", ["refused", "gone", "changed", "another certificate", "not reached"])
def test_the_front_end_sends_what_does_not_come_and_an_origin_is_let_alone(
    node: Node, server: OriginServer, trouble: str
) -> None:
    one = origin(server)
    if trouble == "refused":
        server.answers = [403, 403]
    elif trouble == "gone":
        server.answers = [404]
    elif trouble == "changed":
        server.etag = '"v2"'
    elif trouble == "another certificate":
        one = origin(server, fingerprint="0" * 64)
    else:
        one = origin(server, url="https://127.0.0.1:1/x")
    node.fetches.want(Wanted(7, len(DATA), "", [one]))
    if trouble == "refused":
        assert node.asked.get(timeout=DEADLINE_S) == (7, 0)
        node.fetches.granted(7, one.grant)
    node.answer(DATA)
    found = node.end()
    assert (found.way, found.source, node.held(7)) == (SENT, "", DATA)
    of_the_file = trouble in {"gone", "changed"}
    assert list(found.missed) == ([] if of_the_file else [NAME])
    before = len(server.requests)
    node.fetches.want(Wanted(8, len(DATA) - 1, "", [one]))
    if of_the_file:
        server.data = DATA[:-1]
        server.etag = '"v1"'
        found = node.end()
        assert (found.way, len(server.requests)) == (FROM, before + 1)
    else:
        node.answer(DATA[:-1])
        found = node.end()
        assert (found.way, found.missed, len(server.requests)) == (SENT, {}, before)


@pytest.mark.parametrize("grant", [{"url": ""}, {"life_s": "soon"}])
def test_a_grant_that_is_none_is_followed_by_the_front_end(
    node: Node, server: OriginServer, grant: dict[str, str]
) -> None:
    node.fetches.want(Wanted(7, len(DATA), "", [origin(server, **grant)]))
    node.answer(DATA)
    found = node.end()
    assert (found.way, node.held(7), server.requests) == (SENT, DATA, [])


def test_one_that_gives_a_byte_now_and_then_is_followed_by_the_next(
    node: Node, server: OriginServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(fetches, "SILENT_S", 1.0)
    server.answers = ["cut", "trickle"]  # what was cut goes on once, as it gave something
    node.fetches.want(Wanted(7, len(DATA), "", [origin(server)]))
    node.answer(DATA)
    found = node.end()
    assert (found.way, node.held(7), len(server.requests)) == (SENT, DATA, 2)
    assert "as good as nothing" in found.missed[NAME]
    node.fetches.want(Wanted(8, len(DATA) - 1, "", [origin(server)]))
    node.answer(DATA[:-1])
    assert (node.end().way, len(server.requests)) == (SENT, 2)  # it is let alone for a while


def test_what_comes_is_what_it_should_be_or_it_comes_from_elsewhere(node: Node, server: OriginServer) -> None:
    digest = node.keep(DATA)
    node.cache.drop(digest)
    server.data = bytes(len(DATA))
    node.fetches.want(Wanted(7, len(DATA), digest, [origin(server)]))
    node.answer(DATA)
    found = node.end()
    assert (found.way, node.held(7)) == (SENT, DATA)


def test_nobody_waits_for_a_front_end_that_is_gone(node: Node, server: OriginServer) -> None:
    server.token = "new"  # noqa: S105 - of nobody
    node.fetches.want(Wanted(7, len(DATA), "", [origin(server, token="old")]))  # noqa: S106 - the same
    assert node.asked.get(timeout=DEADLINE_S) == (7, 0)
    node.fetches.cut_off("the front end is gone")
    found = node.end()
    assert found.stamp is None
    assert "the front end is gone" in found.why
    assert not Path(node.place / "unreached").exists()  # it says nothing of the origin
