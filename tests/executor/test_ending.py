"""Ending: tasks by their limits and by cancellation, lanes and agents by force."""

from __future__ import annotations

import contextlib
import fcntl
import os
import signal
import subprocess
import sys
import termios
import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING

import cloudpickle
import pytest
from tests.executor.conftest import DEADLINE_S, until

from serai.travel.boot import EXECUTOR
from serai.travel.executor import wire

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.executor.conftest import AgentHarness

cloudpickle.register_pickle_by_value(sys.modules[__name__])

OK, TIME_LIMIT, CANCELLED = 0, 3, 4
LINUX = sys.platform.startswith("linux")
TREE = "(setsid sleep 1001 &); (sleep 1002 &); (setsid sh -c 'setsid sleep 1003 & sleep 1004' &); sleep 1005"
STUBBORN = f"trap '' TERM; {TREE}; sleep 1006"
GROUP_ONLY = "(sleep 1002 &); (sh -c 'sleep 1003 & sleep 1004' &); sleep 1005"

needs_proc = pytest.mark.skipif(not LINUX, reason="looks into /proc")
pytestmark = needs_proc


def wait_long(path: str = "", leaves: str = "setsid") -> None:
    import subprocess  # noqa: PLC0415 - on the node

    subprocess.Popen([leaves, "sleep", "1007"])
    Path(path or os.devnull).write_text(str(os.getpid()), encoding="ascii")
    time.sleep(1000)


def without_adoption() -> str:
    """The program, as it is where orphans cannot be adopted: macOS, or no /proc."""
    sources = dict(EXECUTOR.sources())
    sources["processes"] = sources["processes"].replace('LINUX = sys.platform.startswith("linux")', "LINUX = False")
    sources["processes"] = sources["processes"].replace('"/proc', '"/no-proc')
    assert sources["processes"] != EXECUTOR.sources()["processes"]
    return "# no-proc\n" + EXECUTOR.pipe_source(sources)  # `tree_for` sees which it is


@pytest.fixture(params=["adopts", "cannot adopt"])
def either(request: pytest.FixtureRequest, start: Callable[..., AgentHarness]) -> AgentHarness:
    one = start(source=without_adoption() if request.param == "cannot adopt" else None)
    one.hello()
    return one


def tree_for(agent: AgentHarness) -> str:
    return TREE if "no-proc" not in "".join(map(str, agent.process.args)) else GROUP_ONLY  # type: ignore[arg-type]


# ---- tasks


def test_nothing_a_command_started_outlives_it(agent: AgentHarness) -> None:
    ended = agent.shell(TREE.replace("; sleep 1005", ""))
    assert (ended.cause, ended.code) == (0, 0)
    agent.until(lambda: not agent.tasks(), "no process is left of a task that ended")


def test_the_limit_ends_a_command_with_all_it_started(agent: AgentHarness) -> None:
    ended = agent.shell(f"echo begun; {TREE}", limit=1.0)
    assert (ended.cause, ended.code, ended.out) == (TIME_LIMIT, -15, b"begun\n")
    assert ended.detail == "it ran longer than its limit of 1 s"
    assert 1_000_000 <= ended.took_us < 20_000_000  # else it ran until this test's patience ended, or for ever
    agent.until(lambda: not agent.tasks(), "no process is left of a task that was ended")


def test_the_limit_of_one_task_is_not_that_of_the_next(agent: AgentHarness) -> None:
    limited = agent.work("sh", "-c", "exit 0", limit=3.0)
    unlimited = agent.work("sleep", "3.5")
    bundles = [agent.bundle(work, [agent.number()]) for work in (limited, unlimited)]
    assert [one.cause for bundle in bundles for one in agent.outcome(bundle).ended.values()] == [0, 0]


def test_a_command_that_does_not_heed_is_made_to_end(agent: AgentHarness) -> None:
    task = agent.number()
    bundle = agent.bundle(agent.work("sh", "-c", STUBBORN), [task])
    agent.running(task)
    over = threading.Event()

    def ask() -> None:
        agent.send(wire.CANCEL, 0, 0, {"ids": [task]})
        while not over.wait(0.4):
            agent.send(wire.CANCEL, 0, 0, {"ids": [task]})

    asking = threading.Thread(target=ask)
    asking.start()
    try:
        ended = agent.outcome(bundle).ended[task]  # while it is asked again and again: that gives no more time
    finally:
        over.set()
        asking.join()
    assert (ended.cause, ended.code) == (CANCELLED, -9)
    agent.until(lambda: not agent.tasks(), "no process is left of a task that was ended")


def test_a_command_that_left_its_group_is_ended_too(agent: AgentHarness, scratch: Path) -> None:
    mark, task = scratch / "mark", agent.number()
    script = "import os, sys, time; os.setpgid(0, os.getpgid(os.getppid())); open(sys.argv[1], 'w'); time.sleep(1000)"
    bundle = agent.bundle(agent.work(sys.executable, "-S", "-c", script, str(mark)), [task])
    agent.until(mark.exists, "it has left its group")
    agent.send(wire.CANCEL, 0, 0, {"ids": [task]})
    ended = agent.outcome(bundle).ended[task]
    assert (ended.cause, ended.code) == (CANCELLED, -9)


def test_a_stopped_command_is_ended(agent: AgentHarness) -> None:
    ended = agent.shell("kill -STOP $$", limit=0.3)
    assert (ended.cause, ended.code) == (TIME_LIMIT, -15)


def test_cancelling_what_runs_and_what_waits(agent: AgentHarness) -> None:
    first, second, third = (agent.number() for _ in range(3))
    bundle = agent.bundle(agent.work("sh"), [first, second, third], argv=[["sleep", "1000"], ["true"], ["echo", "3"]])
    agent.running(first)
    agent.send(wire.CANCEL, 0, 0, {"ids": [second, first, 12345]})
    ended = agent.outcome(bundle).ended
    assert [ended[task].cause for task in (first, second, third)] == [CANCELLED, CANCELLED, OK]
    assert (ended[first].code, ended[second].code, ended[third].out) == (-15, None, b"3\n")
    again = agent.bundle(agent.work("true"), [second, 12345])  # a number that comes again is another attempt
    assert {one.cause for one in agent.outcome(again).ended.values()} == {OK}


def test_cancelling_between_tasks_loses_nothing(agent: AgentHarness) -> None:
    """Cancellations at any moment: each task ends exactly once, as done or as cancelled."""
    for _ in range(3):
        ids = [agent.number() for _ in range(150)]
        bundle = agent.bundle(agent.work("/bin/true"), ids)
        for task in ids[::3]:
            agent.send(wire.CANCEL, 0, 0, {"ids": [task]})
        ended = agent.outcome(bundle).ended
        assert sorted(ended) == ids
        assert {ended[task].cause for task in ids if task not in ids[::3]} == {OK}
    assert not agent.has(wire.LANE_DIED)


@pytest.mark.parametrize("how", ["limit", "cancel"])
def test_ending_a_function_ends_its_lane_and_loses_nothing(either: AgentHarness, how: str, scratch: Path) -> None:
    agent = either
    # All is said before the limit can be over: it begins with the function, which begins after its lane was started.
    work = agent.function(wait_long, limit=1.5 if how == "limit" else None)
    mark = scratch / "mark"
    leaves = "setsid" if tree_for(agent) == TREE else "env"  # what leaves its group is not found without /proc
    bundle, [first, second, third] = agent.calls(work, [(str(mark), leaves), (), ()])
    waiting, [fourth, fifth] = agent.calls(work, [(), ()])
    agent.send(wire.CANCEL, 0, 0, {"ids": [third, fifth]})
    agent.until(mark.exists, "the function runs")
    if how == "cancel":
        agent.running(first)
        agent.send(wire.CANCEL, 0, 0, {"ids": [first]})
    outcome = agent.outcome(bundle)
    assert outcome.ended[first].cause == (TIME_LIMIT if how == "limit" else CANCELLED)
    assert outcome.ended[third].cause == CANCELLED
    assert outcome.returned == [second]
    outcome = agent.outcome(waiting)
    assert outcome.ended[fifth].cause == CANCELLED
    assert outcome.returned == [fourth]
    assert agent.wait(wire.LANE_DIED).head["exit"] == 0
    assert agent.call(abs, -3).cause == OK


def test_a_function_is_cancelled_at_whatever_moment(agent: AgentHarness) -> None:
    """Also between its being taken and its being called."""
    work = agent.function(time.sleep)
    for lane in range(6):  # each its own: one that ends itself to end a function may lose what comes meanwhile
        bundle, ids = agent.calls(work, [(0.0,), (1000.0,)], lane)
        agent.send(wire.CANCEL, lane, 0, {"ids": [ids[1]]})
        ended = agent.outcome(bundle).ended
        assert [ended[task].cause for task in ids] == [OK, CANCELLED]


# ---- recall


def test_recall(agent: AgentHarness, scratch: Path) -> None:
    go = scratch / "go"
    work = agent.work("sh", "-c", 'until test -e "$0"; do sleep 0.02; done; echo ran', str(go))
    ids = [agent.number() for _ in range(6)]
    running, waiting = agent.bundle(work, ids[:3]), agent.bundle(work, ids[3:])
    agent.running(ids[0])
    agent.send(wire.CANCEL, 0, 0, {"ids": [ids[2], ids[5]]})
    agent.send(wire.RECALL, 0, 424242)  # nobody knows it: nobody answers
    agent.send(wire.RECALL, 0, waiting)
    agent.send(wire.RECALL, 0, running)
    agent.send(wire.FORGET, wire.EVERY_LANE, 0, {"works": [work]})
    answers = [agent.wait(wire.RESULT, lambda one: one.head.get("returned")) for _ in range(2)]
    agent.seen[:0] = answers
    go.touch()
    first, second = agent.outcome(running), agent.outcome(waiting)
    assert (first.returned, second.returned) == ([ids[1]], ids[3:5])
    assert (first.ended[ids[0]].out, first.ended[ids[2]].cause) == (b"ran\n", CANCELLED)
    assert list(second.ended) == [ids[5]] or not second.ended
    assert agent.shell("echo fine").out == b"fine\n"
    assert not agent.has(wire.LANE_DIED)


# ---- lanes


def test_a_lane_that_is_killed_is_reported_and_comes_back(agent: AgentHarness) -> None:
    pid, other = agent.lane_pid(0), agent.lane_pid(1)
    task, alive = agent.number(), agent.number()
    agent.bundle(agent.work("sh", "-c", f"touch left; {TREE}"), [task], lane=0)
    bundle = agent.bundle(agent.work("sleep", "1"), [alive], lane=1)
    agent.running(task)
    os.kill(pid, signal.SIGKILL)
    died = agent.wait(wire.LANE_DIED)
    assert (died.lane, died.head["exit"]) == (0, -9)
    agent.until(lambda: not [one for one in agent.tasks() if b"100" in _cmdline(one)], "no process of its task is left")
    assert agent.outcome(bundle).ended[alive].cause == OK  # the other one has noticed nothing
    assert agent.lane_pid(1) == other
    assert agent.lane_pid(0) != pid
    assert agent.shell("ls").out == b""


def _cmdline(pid: int) -> bytes:
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes()
    except OSError:
        return b""


def fork_and_wait(path: str) -> None:
    if not os.fork():
        time.sleep(1000)
    Path(path).write_text(str(os.getpid()), encoding="ascii")
    time.sleep(1000)


def test_a_lane_that_is_killed_while_a_child_holds_its_pipe(agent: AgentHarness, scratch: Path) -> None:
    mark = scratch / "mark"
    agent.calls(agent.function(fork_and_wait), [(str(mark),)])
    agent.until(lambda: mark.exists() and mark.read_text(), "the function runs")
    os.kill(int(mark.read_text()), signal.SIGKILL)
    assert agent.wait(wire.LANE_DIED).head["exit"] == -9


def test_a_lane_that_cannot_be_started_costs_nothing_else(agent: AgentHarness) -> None:
    assert agent.base is not None
    (agent.base / "lane-5.log").mkdir()
    agent.bundle(agent.work("true"), [agent.number()], lane=5)
    died = agent.wait(wire.LANE_DIED)
    assert died.lane == 5
    assert "cannot start a lane" in died.head["log"]
    assert agent.shell("echo fine").out == b"fine\n"
    (agent.base / "lane-5.log").rmdir()
    assert agent.shell("echo fine", lane=5).out == b"fine\n"


def test_a_lane_that_does_not_read_stops_neither_heartbeats_nor_others(agent: AgentHarness) -> None:
    pid = agent.lane_pid(0)
    os.kill(pid, signal.SIGSTOP)
    try:
        big = agent.work("true", env={"BIG": "x" * 100_000})
        for _ in range(20):
            agent.bundle(big, range(1000, 1100), argv=[["true", "y" * 1000]] * 100)
        agent.seen.clear()
        for _ in range(3):
            agent.wait(wire.BEAT)
        assert agent.shell("echo fine", lane=1).out == b"fine\n"
        os.kill(pid, signal.SIGKILL)
        assert agent.wait(wire.LANE_DIED).lane == 0
        assert agent.shell("echo fine", lane=0).out == b"fine\n"
    finally:
        agent.hang_up()


# ---- the agent


def begin_trees(agent: AgentHarness) -> None:
    for lane in (0, 1):
        task = agent.number()
        agent.bundle(agent.work("sh", "-c", f"trap '' TERM HUP; {tree_for(agent)}"), [task], lane=lane)
        agent.running(task)


def test_the_end_of_standard_input_ends_everything(either: AgentHarness) -> None:
    begin_trees(either)
    either.hang_up()
    assert either.gone() == 0
    assert either.base is not None
    assert not either.base.exists()
    assert not either.said()


@pytest.mark.parametrize("how", ["bye", "TERM", "HUP"])
def test_it_ends_when_it_is_told_to(agent: AgentHarness, how: str) -> None:
    begin_trees(agent)
    if how == "bye":
        agent.send(wire.BYE)
    else:
        agent.process.send_signal(getattr(signal, f"SIG{how}"))
    assert agent.gone() == 0
    assert agent.base is not None
    assert not agent.base.exists()


def test_killing_the_agent_leaves_no_process(either: AgentHarness) -> None:
    begin_trees(either)
    quick = either.work("sh", "-c", f"{tree_for(either).replace('; sleep 1005', '')}")
    either.bundle(quick, range(5000, 5400), lane=2)  # it is killed while some lane starts something
    either.wait(wire.RESULT)
    either.process.kill()
    assert either.gone() == -9


def test_a_silent_front_end_is_given_up(start: Callable[..., AgentHarness]) -> None:
    agent = start()
    agent.hello(beat=0.1, silence=2.5)
    silent = threading.Event()

    def ping() -> None:
        with contextlib.suppress(OSError):  # it is gone: the test will see that
            while not silent.wait(0.1):
                agent.send(wire.PING, head={"t": 0})

    pinging = threading.Thread(target=ping)
    pinging.start()
    try:
        begin_trees(agent)  # as long as it says something, it is there
        with pytest.raises(subprocess.TimeoutExpired):
            agent.process.wait(3.0)
    finally:
        silent.set()
        pinging.join()
    assert agent.gone() == 0
    assert agent.base is not None
    assert not agent.base.exists()


def test_a_front_end_that_neither_reads_nor_ends_is_given_up(scratch: Path) -> None:
    """The agent writes to a full pipe, so its own deadline cannot be seen to by the thread that writes.

    By hand, since the usual harness reads.
    """
    sources = dict(EXECUTOR.sources())
    agent = sources["executor.agent"].replace("STUCK_S = 5.0", "STUCK_S = 0.1")
    assert agent != sources["executor.agent"]
    source = EXECUTOR.pipe_source(sources | {"executor.agent": agent})
    run = f"stuck{os.getpid()}"
    with subprocess.Popen(
        [sys.executable, "-u", "-c", source], stdin=subprocess.PIPE, stdout=subprocess.PIPE, bufsize=0
    ) as process:
        assert process.stdin is not None
        head = {"run": run, "node": "here", "beat": 0.1, "silence": 1.0, "keep": 65536, "scratch": str(scratch)}
        for frame in (
            wire.pack(wire.HELLO, head=head),
            wire.pack(wire.WORK, wire.EVERY_LANE, 1, {"kind": "command", "argv": ["sh", "-c", "yes | head -c 60000"]}),
            wire.pack(wire.RUN, 0, 2, {"w": 1, "ids": list(range(1, 50))}),
        ):
            wire.write(process.stdin.fileno(), frame)
        assert process.stdout is not None

        def is_full() -> bool:
            """Whether less fits into its pipe than the next result is long. Until then the front end is not silent."""
            wire.write(process.stdin.fileno(), wire.pack(wire.PING, head={"t": 0}))  # type: ignore[union-attr]
            held = int.from_bytes(fcntl.ioctl(process.stdout, termios.FIONREAD, bytes(4)), sys.byteorder)  # type: ignore[arg-type]
            return held > fcntl.fcntl(process.stdout, fcntl.F_GETPIPE_SZ) - 60_000  # type: ignore[arg-type]

        until(is_full, "its pipe is full")
        assert process.wait(DEADLINE_S) == 1
    assert not list(scratch.iterdir())
