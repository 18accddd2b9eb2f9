"""The agent itself: its check-in, its heartbeats, its directory."""

from __future__ import annotations

import os
import pickle
import resource
import sys
import threading
import time
from typing import TYPE_CHECKING

from tests.executor.conftest import DEADLINE_S, until

from serai.travel.executor import facts, store, wire
from serai.travel.executor.agent import Agent

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    import pytest
    from tests.executor.conftest import AgentHarness


def test_the_ad(agent: AgentHarness) -> None:
    ad = agent.ad
    assert ad["protocol"] == wire.PROTOCOL
    assert ad["pid"] == agent.process.pid
    assert ad["base"].startswith(str(agent.scratch / f"serai-{os.getuid()}-{agent.run}-"))
    assert ad["disk_free_bytes"] > 0
    assert ad["modules"] == ["cloudpickle"]


def test_no_place_for_its_directory(start: Callable[..., AgentHarness], tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    agent = start()
    head = {"run": "r", "node": "here", "beat": 1.0, "silence": 9.0, "keep": 1, "scratch": str(tmp_path / "file")}
    agent.send(wire.HELLO, head=head)
    assert "cannot make a directory of its own" in agent.wait(wire.TROUBLE).head["fatal"]
    assert agent.gone() == 0


def test_heartbeats_say_what_runs(agent: AgentHarness) -> None:
    task = agent.number()
    agent.bundle(agent.work("sleep", "1000"), [task], lane=1)
    agent.running(task)
    agent.seen.clear()
    first = agent.wait(wire.BEAT).head
    second = agent.wait(wire.BEAT).head
    assert first["lanes"]["1"][0] == second["lanes"]["1"][0] == task
    assert 0 < first["lanes"]["1"][1] < second["lanes"]["1"][1] < 20
    assert list(first["lanes"]) == ["1"]
    assert first["memory_free_bytes"] > 0
    assert first["disk_free_bytes"] > 0
    assert first["load"] >= 0


def test_its_memory_is_left_on_no_disk_and_tasks_have_what_their_user_has(start: Callable[..., AgentHarness]) -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_CORE)
    mine = 4096 if hard == resource.RLIM_INFINITY else min(hard, 4096)
    assert mine, "no process here may leave a core, so that nothing is seen"
    resource.setrlimit(resource.RLIMIT_CORE, (mine, hard))
    try:
        agent = start()
    finally:
        resource.setrlimit(resource.RLIMIT_CORE, (soft, hard))
    agent.hello()
    assert resource.prlimit(agent.process.pid, resource.RLIMIT_CORE) == (0, hard)
    task = agent.number()
    asks = "import resource; print(*resource.getrlimit(resource.RLIMIT_CORE))"
    done = agent.outcome(agent.bundle(agent.work(sys.executable, "-c", asks), [task]))
    assert done.ended[task].out.split() == [b"%d" % mine, b"%d" % hard]
    bundle, (call,) = agent.calls(agent.function(lambda: resource.getrlimit(resource.RLIMIT_CORE)), [()])
    assert pickle.loads(agent.outcome(bundle).ended[call].result) == (mine, hard)


def test_a_ping_is_answered(agent: AgentHarness) -> None:
    agent.send(wire.PING, head={"t": 12.5})
    assert agent.wait(wire.BEAT, lambda one: "echo" in one.head).head == {"echo": 12.5}


def test_probing_for_programs(agent: AgentHarness) -> None:
    agent.send(wire.PROBE, head={"software": ["sh", "no-such-program", "/bin/sh"]})
    found = agent.wait(wire.PROBED).head["software"]
    assert found == {"sh": True, "no-such-program": False, "/bin/sh": True}


def test_directories_of_dead_executors_are_swept(start: Callable[..., AgentHarness], scratch: Path) -> None:
    dead, living = start(), start()
    for one in (dead, living):
        one.hello()
        one.shell("echo > file")
    dead.process.kill()
    dead.gone()
    assert dead.base is not None
    assert living.base is not None
    mine = f"serai-{os.getuid()}-"
    unlocked = scratch / f"{mine}just-being-made"
    unlocked.mkdir()
    (scratch / f"{mine}file").write_text("")
    (scratch / f"{mine}link").symlink_to("/tmp")
    before = time.time() - 60
    for path in (dead.base, living.base):
        os.utime(path, (before, before))
    start().hello()
    assert not dead.base.exists()
    assert living.base.exists()
    assert unlocked.exists()
    assert (scratch / f"{mine}file").exists()
    assert (scratch / f"{mine}link").exists()
    assert living.shell("echo fine").out == b"fine\n"


def test_one_that_is_just_being_made_is_not_swept(start: Callable[..., AgentHarness]) -> None:
    dead = start()
    dead.hello()
    dead.process.kill()
    dead.gone()
    assert dead.base is not None
    soon = time.time() + 60  # ten seconds count as a moment, and starting the next may take as long on a busy machine
    os.utime(dead.base, (soon, soon))
    start().hello()
    assert dead.base.exists()


def test_inputs_that_come_quicker_than_they_are_written_do_not_stop_heartbeats(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The inbox never runs empty here, and every write takes its time."""
    monkeypatch.setattr(store.Store, "write", lambda *_: time.sleep(0.002))
    monkeypatch.setattr("serai.travel.executor.agent.adopt_orphans", lambda: True)
    monkeypatch.setattr("serai.travel.executor.agent.end_descendants", lambda *_, **__: None)
    waiting: list[int] = []  # how much had come and was not looked at, at each heartbeat

    def sent(frame: bytes) -> None:
        if wire.peek(frame)[0] == wire.BEAT:
            waiting.append(len(agent._inbox))

    agent = Agent(sent, {})
    thread = threading.Thread(target=agent.run)
    thread.start()
    head = {"run": "r", "node": "here", "beat": 0.1, "silence": 30.0, "keep": 1, "scratch": str(tmp_path)}
    agent.feed(wire.pack(wire.HELLO, head=head))
    piece = wire.pack(wire.FILE, 0, 1, {"at": 0})
    for _ in range(1000):
        agent.feed(piece)
    until(lambda: sum(count > 100 for count in waiting) >= 3, "three heartbeats come in between")
    agent.feed(None)
    agent._inbox.clear()
    agent.feed(None)
    thread.join(DEADLINE_S)
    assert not thread.is_alive()


def test_cores_are_cut_by_the_quota(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "max").write_text("150000 100000\n")
    assert facts._quota_v2(str(tmp_path / "max")) == 1.5
    (tmp_path / "max").write_text("max 100000\n")
    assert facts._quota_v2(str(tmp_path / "max")) == 0
    (tmp_path / "cfs_quota").write_text("-1\n")
    assert facts._quota_v1(str(tmp_path / "cfs_quota")) == 0
    (tmp_path / "cfs_quota").write_text("200000\n")
    (tmp_path / "cfs_period").write_text("100000\n")
    assert facts._quota_v1(str(tmp_path / "cfs_quota")) == 2
    monkeypatch.delattr(os, "sched_getaffinity", raising=False)  # as on macOS
    assert facts.cores() >= 1
