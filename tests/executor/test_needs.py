"""Bundles that read catalogued files wait for them in the agent."""

from __future__ import annotations

import hashlib
import os
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from serai.access.stores.certificates import pinned_certificate
from serai.travel.executor import wire

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.executor.conftest import AgentHarness, Outcome

OK, CANCELLED, INPUT = 0, 4, 7
DATA = os.urandom(600_000)


def digest_of(data: bytes) -> str:
    return hashlib.blake2b(data, digest_size=32).hexdigest()


@pytest.fixture
def agent(start: Callable[..., AgentHarness]) -> AgentHarness:
    one = start()
    one.hello(cache={"limit": 5_000_000, "rule": "lru"})
    return one


def need(agent: AgentHarness, *numbers: int, data: bytes = DATA, digest: str = "", lane: int = 0, **more: Any) -> int:
    """Send a bundle of one task that prints its inputs' digests; returns the bundle."""
    bundle = agent.number()
    head = [[number, len(data), digest, 0, []] for number in numbers]
    agent.send(wire.NEEDS, 0, bundle, {"files": head})
    names = [f"in/{number}" for number in numbers]
    work = agent.work(*(more.pop("argv", None) or ["b2sum", "-l", "256", *names]))
    inputs = [[{"file": number}, name] for number, name in zip(numbers, names, strict=True)]
    ids = more.pop("ids", None) or [agent.number()]
    agent.send(wire.RUN, lane, bundle, {"w": work, "ids": ids, "in": [inputs] * len(ids), **more})
    return bundle


def give(agent: AgentHarness, data: bytes = DATA, **last: Any) -> int:
    """Be the front end that is asked for a file; returns its number."""
    asked = agent.wait(wire.NEED)
    for at in range(0, len(data), wire.CHUNK):
        agent.send(wire.PIECE, asked.lane, asked.ident, {}, data[at : at + wire.CHUNK])
    agent.send(wire.PIECE, asked.lane, asked.ident, last or {"end": 1})
    return asked.ident


def words(outcome: Outcome) -> list[str]:
    (ended,) = outcome.ended.values()
    assert ended.cause == OK, ended.detail
    return [line.split()[0] for line in ended.out.decode().splitlines()]


def cache_of(agent: AgentHarness) -> Path:
    return agent.scratch / f"serai-{os.getuid()}-cache"


def test_a_file_is_asked_for_once_and_both_bundles_start_when_it_is_there(agent: AgentHarness) -> None:
    one, other = need(agent, 1), need(agent, 1, lane=1)
    assert give(agent) == 1
    assert words(agent.outcome(one)) == words(agent.outcome(other)) == [digest_of(DATA)]
    assert not agent.has(wire.NEED)
    came = agent.wait(wire.CAME)
    assert (came.ident, came.head["digest"], came.head["way"]) == (1, digest_of(DATA), "sent")
    assert agent.wait(wire.READY, lambda frame: frame.ident == one).head == {"ways": {"1": "sent"}}
    assert agent.wait(wire.HOLDS, lambda frame: frame.head["has"]).head["has"] == [digest_of(DATA)]
    assert agent.base is not None
    agent.until(lambda: not os.listdir(Path(str(agent.base)) / "held"), "nothing is held that nobody uses")
    again = need(agent, 9, digest=digest_of(DATA))
    assert words(agent.outcome(again)) == [digest_of(DATA)]
    assert agent.wait(wire.READY, lambda frame: frame.ident == again).head == {"ways": {"9": "cached"}}


def test_a_bundle_without_files_goes_by_one_that_waits(agent: AgentHarness) -> None:
    waits = need(agent, 1, 2)
    assert agent.shell("echo first").out == b"first\n"
    give(agent)
    give(agent)
    assert words(agent.outcome(waits)) == [digest_of(DATA)] * 2


def test_what_cannot_be_had_fails_its_task_and_is_asked_for_again(agent: AgentHarness) -> None:
    bundle = need(agent, 1)
    give(agent, b"", bad="cannot read its input /x: Permission denied")
    (ended,) = agent.outcome(bundle).ended.values()
    assert ended.cause == INPUT
    assert ended.detail is not None
    assert "the input in/1 did not arrive whole: cannot read its input /x: Permission denied" in ended.detail
    assert "why" in agent.wait(wire.CAME).head
    said = {"1": "did not come: cannot read its input /x: Permission denied"}
    assert agent.wait(wire.READY).head == {"ways": said}, "it is not said to have been there"
    again = need(agent, 1)
    give(agent)
    assert words(agent.outcome(again)) == [digest_of(DATA)]


def test_a_bundle_that_waits_is_given_back(agent: AgentHarness) -> None:
    bundle = need(agent, 1, ids=[101, 102])
    agent.wait(wire.NEED)
    agent.send(wire.RECALL, 0, bundle)
    outcome = agent.outcome(bundle)
    assert (outcome.returned, outcome.ended) == ([101, 102], {})


def test_tasks_of_a_bundle_that_waits_are_cancelled(agent: AgentHarness) -> None:
    bundle = need(agent, 1, ids=[101, 102], argv=["echo", "ran"])
    other = need(agent, 2, ids=[103])
    agent.send(wire.CANCEL, 0, 0, {"ids": [101, 103]})
    assert {task: ended.cause for task, ended in agent.outcome(other).ended.items()} == {103: CANCELLED}
    while give(agent) != 1:
        pass  # it is the other bundle's, which was asked for first, or is asked for in vain
    ended = agent.outcome(bundle).ended
    assert ended[102].cause == OK
    agent.send(wire.CANCEL, 0, 0, {"ids": [102]})


def test_an_input_that_a_task_wrote_to_is_not_used_again(agent: AgentHarness) -> None:
    script = 'chmod u+w "$0"; printf altered >> "$0"; b2sum -l 256 "$0"'
    bundle = need(agent, 1, ids=[201, 202], argv=["sh", "-c", script, "in/1"])
    give(agent)
    outcome = agent.outcome(bundle)
    assert list(outcome.ended) == [201]
    assert outcome.returned == [202]  # it comes again, with the file as it was
    agent.wait(wire.HOLDS, lambda frame: digest_of(DATA) in frame.head.get("gone", ()))
    again = need(agent, 1, digest=digest_of(DATA))
    give(agent)
    assert words(agent.outcome(again)) == [digest_of(DATA)]


def test_the_cache_survives_the_executor_and_says_what_it_has(start: Callable[..., AgentHarness]) -> None:
    first = start()
    first.hello(cache={"limit": None, "rule": "lru"})
    bundle = need(first, 1)
    give(first)
    first.outcome(bundle)
    first.close()
    second = start()
    second.hello(cache={"limit": None, "rule": "lru"})
    assert second.wait(wire.HOLDS).head["has"] == [digest_of(DATA)]
    bundle = need(second, 5, digest=digest_of(DATA))
    assert words(second.outcome(bundle)) == [digest_of(DATA)]
    assert not second.has(wire.NEED)


def test_a_damaged_object_is_fetched_again(start: Callable[..., AgentHarness]) -> None:
    first = start()
    first.hello(cache={"limit": None, "rule": "lru"})
    bundle = need(first, 1)
    give(first)
    first.outcome(bundle)
    first.close()
    (there,) = cache_of(first).glob("objects/*/*")
    info = there.stat()
    there.chmod(0o600)
    there.write_bytes(bytes(len(DATA)))
    os.utime(there, ns=(info.st_mtime_ns, info.st_mtime_ns))
    second = start()
    second.hello(cache={"limit": None, "rule": "lru"})
    bundle = need(second, 1, digest=digest_of(DATA))
    give(second)
    assert words(second.outcome(bundle)) == [digest_of(DATA)]


def test_two_executors_share_the_cache_and_tell_of_each_others_files(start: Callable[..., AgentHarness]) -> None:
    one, other = start(), start()
    for agent in (one, other):
        agent.hello(cache={"limit": 1_000_000, "rule": "lru"})
    first = need(one, 1)
    give(one)
    one.outcome(first)
    bundle = need(other, 1, digest=digest_of(DATA), argv=["sleep", "1000"])
    agent_task = other.wait(wire.READY, lambda frame: frame.ident == bundle)
    assert agent_task.head == {"ways": {"1": "cached"}}
    second = os.urandom(600_000)  # both are more than the cache may hold, and the first is in use elsewhere
    bundle = need(one, 2, data=second)
    give(one, second)
    assert words(one.outcome(bundle)) == [digest_of(second)]
    assert one.wait(wire.CAME, lambda frame: frame.ident == 2).head["kept"] is False
    assert len(list(cache_of(one).glob("objects/*/*"))) == 1


def test_a_cache_that_is_not_this_users_is_done_without(
    start: Callable[..., AgentHarness], scratch: Path, tmp_path: Path
) -> None:
    (tmp_path / "elsewhere").mkdir()
    (scratch / f"serai-{os.getuid()}-cache").symlink_to(tmp_path / "elsewhere")
    agent = start()
    agent.hello(cache={"limit": None, "rule": "lru"})
    bundle = need(agent, 1)
    give(agent)
    assert words(agent.outcome(bundle)) == [digest_of(DATA)]
    assert not os.listdir(tmp_path / "elsewhere")


def test_files_come_though_no_task_waits(agent: AgentHarness) -> None:
    agent.send(wire.NEEDS, 0, 0, {"files": [[3, len(DATA), "", 0, []]]})
    assert give(agent) == 3
    assert agent.wait(wire.CAME).head["kept"] is True
    agent.until(lambda: not os.listdir(Path(str(agent.base)) / "held"), "it is not held")
    assert [one.name for one in cache_of(agent).glob("objects/*/*")] == [digest_of(DATA)]


def test_tasks_that_come_to_a_file_that_was_spoiled_before_come_again(agent: AgentHarness, tmp_path: Path) -> None:
    flag, begun = tmp_path / "flag", tmp_path / "begun"
    script = f"touch {begun}; until test -e {flag}; do sleep 0.05; done"
    waits = need(agent, 1, ids=[301, 302], argv=["sh", "-c", script], lane=1)
    give(agent)
    agent.until(begun.exists, "the first task has its input")
    script = 'chmod u+w "$0"; printf altered >> "$0"'
    spoils = need(agent, 1, ids=[201, 202], argv=["sh", "-c", script, "in/1"])
    assert agent.outcome(spoils).returned == [202]
    agent.wait(wire.HOLDS, lambda frame: digest_of(DATA) in frame.head.get("gone", ()))
    flag.touch()
    outcome = agent.outcome(waits)
    assert {task: ended.cause for task, ended in outcome.ended.items()} == {301: OK}
    assert outcome.returned == [302]


def test_a_node_that_is_told_twice_to_speak_with_its_peers_says_twice_where(agent: AgentHarness) -> None:
    secrets = pinned_certificate("test", time.time()) | {"token": "word"}
    for _ in range(2):
        agent.send(wire.PEERS, 0, 0, secrets)
    agent.send(wire.NEEDS, 0, 0, {"files": [[3, len(DATA), "", 0, []]]})
    agent.wait(wire.NEED)
    first, second = (agent.wait(wire.SERVES).head for _ in range(2))
    assert first["port"] > 0
    assert second == first


def test_a_file_on_the_node_is_given_while_it_is_what_it_was(agent: AgentHarness, tmp_path: Path) -> None:
    path = tmp_path / "lying"
    path.write_bytes(DATA)
    agent.send(wire.SHARE, 0, 0, {"files": {7: [str(path), len(DATA), f"{path.stat().st_mtime_ns / 1e9:.3f}"]}})
    agent.send(wire.GIVE, 0, 1, {"name": "files/7", "at": 10, "length": 20})
    assert agent.wait(wire.GIVEN, lambda frame: frame.ident == 1).body == DATA[10:30]
    path.write_bytes(os.urandom(len(DATA)))
    agent.send(wire.GIVE, 0, 2, {"name": "files/7", "at": 10, "length": 20})
    given = agent.wait(wire.GIVEN, lambda frame: frame.ident == 2)
    assert (given.body, given.head["why"]) == (b"", "files/7: it has changed since the run looked at it")
