"""The contract of engines, as tests: whoever writes an engine subclasses `EngineContract` and gives three fixtures.

::

    class TestMyEngine(EngineContract):
        @pytest.fixture
        def site(self) -> SiteSpec:
            return site_from_url("my://cluster")

        @pytest.fixture
        def nowhere(self) -> SiteSpec:
            return site_from_url("my://nothing.is.here")

        @pytest.fixture
        def on_node(self) -> OnNode:
            return lambda command: subprocess.run(command, check=False).returncode

The suite speaks with the agent as a front end does, in frames, and looks at the node past the engine.
"""

# ruff: noqa: D102 - the name of a test says what it shows

from __future__ import annotations

import contextlib
import math
import pickle
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, Any

import pytest

import serai
from serai.describe.task import Cause
from serai.dispatch.engines.registry import engine_for
from serai.errors import AccessError
from serai.testing.front_end import TASK_S, FrontEnd
from serai.travel.executor import wire

if TYPE_CHECKING:
    from pathlib import Path

    from serai.describe.poolfile import SiteSpec
    from serai.dispatch.ports import Engine

OnNode = Callable[[Sequence[str]], int]  # runs a command on the node by another way; returns its exit code
Kill = Callable[[dict[str, Any]], None]  # ends the node of an ad as abruptly as can be

LOST_S = 40.0
CLOSE_S = 30.0
REFUSE_S = 45.0
MEGABYTE = 1_000_000
ALIVE = "s=$(ps -o stat= -p $0) && case $s in Z*) exit 1;; esac"


def _until(condition: Callable[[], bool], within_s: float, what: str) -> None:
    end = time.monotonic() + within_s
    while not condition():
        assert time.monotonic() < end, f"{what}: not within {within_s:g} s"
        threading.Event().wait(0.05)


class EngineContract:
    """What every engine does.

    A subclass gives the fixtures `site`, `nowhere` and `on_node`, and those below that are not right for it.
    """

    @pytest.fixture
    def site(self) -> SiteSpec:
        """A site with at least one node, on which nothing else of this user's Serai runs."""
        raise NotImplementedError

    @pytest.fixture
    def nowhere(self) -> SiteSpec:
        """A site where nothing answers."""
        raise NotImplementedError

    @pytest.fixture
    def on_node(self) -> OnNode:
        """Runs commands on the site's nodes."""
        raise NotImplementedError

    @pytest.fixture
    def kill(self, on_node: OnNode) -> Kill:
        """Ends a node; its agent where nothing else is said."""

        def end_agent(ad: dict[str, Any]) -> None:
            assert on_node(["kill", "-9", str(ad["pid"])]) == 0

        return end_agent

    @pytest.fixture
    def pool_sites(self, site: SiteSpec) -> tuple[str, ...]:
        """The site as `serai.Pool` is told of it."""
        return (str(site.url),)

    @pytest.fixture
    def engine(self, site: SiteSpec) -> Iterator[Engine]:
        """The engine, closed at the end."""
        engine = engine_for(site.url.scheme)
        yield engine
        engine.close()

    @pytest.fixture
    def front(self, engine: Engine, site: SiteSpec) -> Iterator[FrontEnd]:
        """A front end whose agent has been started."""
        with FrontEnd(engine, engine.nodes(site)[0]) as front:
            yield front
            front.link.close()
            front.wait_end(LOST_S)
        assert front.ends == 1, "the end was told more than once"
        assert front.overlaps == 0, "delivered by two threads at a time, or after the end"

    # ---- checking in

    def test_nodes_are_named_once_and_have_their_url(self, engine: Engine, site: SiteSpec) -> None:
        specs = engine.nodes(site)
        assert specs
        assert len({spec.name for spec in specs}) == len(specs)
        assert all(spec.site and spec.url == str(site.url) for spec in specs)

    def test_an_agent_checks_in_and_says_what_it_has(self, front: FrontEnd, on_node: OnNode) -> None:
        ad = front.check_in()
        assert ad["protocol"] == wire.PROTOCOL
        assert len(ad["python"]) == 3
        assert ad["cores"] >= 1
        assert ad["memory_bytes"] > 0
        assert ad["disk_free_bytes"] > 0
        assert isinstance(ad["software"], dict)
        assert ad["host"]
        assert on_node(["test", "-d", ad["base"]]) == 0
        assert on_node(["sh", "-c", ALIVE, str(ad["pid"])]) == 0

    def test_a_beat_answers_a_ping(self, front: FrontEnd) -> None:
        front.check_in()
        front.send(wire.PING, head={"t": 12.5})
        front.wait(
            lambda: any(frame[0] == wire.BEAT and frame[3].get("echo") == 12.5 for frame in front.frames),
            LOST_S,
            "the echo",
        )

    def test_nothing_answers_nowhere(self, nowhere: SiteSpec) -> None:
        engine = engine_for(nowhere.url.scheme)
        began = time.monotonic()
        try:
            with pytest.raises(AccessError) as caught:
                engine.connect(engine.nodes(nowhere)[0], lambda _: None)
        finally:
            engine.close()
        assert time.monotonic() - began < REFUSE_S
        assert caught.value.host
        assert caught.value.what
        assert caught.value.hint

    # ---- tasks

    def test_commands_end_with_their_code_and_what_they_said(self, front: FrontEnd) -> None:
        front.check_in()
        front.work(1)
        front.command(1, 1, ["sh", "-c", "echo out; echo err >&2; exit 3"])
        front.command(1, 2, ["true"])
        front.command(1, 3, ["/no/such/program"])
        front.command(1, 4, ["sh", "-c", "kill -9 $$"])
        one, two, three, four = (front.end_of(task) for task in (1, 2, 3, 4))
        assert (one["cause"], one["exit"], one["out"], one["err"]) == (Cause.EXIT, 3, b"out\n", b"err\n")
        assert (two["cause"], two["exit"]) == (Cause.OK, 0)
        assert three["cause"] == Cause.NO_COMMAND
        assert "/no/such/program" in three["detail"]
        assert four["exit"] == -9

    def test_functions_return_and_raise(self, front: FrontEnd) -> None:
        front.check_in()
        front.work(1, math.factorial)
        front.calls(1, [1, 2], [(20,), (-1,)])
        assert front.value_of(1) == math.factorial(20)
        raised = front.end_of(2)
        assert raised["cause"] == Cause.EXCEPTION
        assert "ValueError" in raised["detail"]

    def test_long_streams_come_whole(self, front: FrontEnd) -> None:
        front.check_in()
        front.work(1)
        front.command(1, 1, ["sh", "-c", "yes 0123456789 | head -c 1000000"])
        assert front.end_of(1)["exit"] == 0
        assert front.piece(1, stream=0) == (b"0123456789\n" * (MEGABYTE // 11 + 1))[:MEGABYTE]

    @pytest.mark.parametrize("size", [0, MEGABYTE, 30 * MEGABYTE])
    def test_inputs_travel_and_outputs_come_back(self, front: FrontEnd, size: int) -> None:
        data = bytes(range(251)) * (size // 251 + 1)
        data = data[:size]
        front.check_in()
        front.work(1)
        front.put(7, data)
        more: dict[str, Any] = {"in": [[[7, "deep/in put"]]], "out": [["some/where/out"]]}
        bundle = front.command(1, 1, ["sh", "-c", 'cp "deep/in put" some/where/out'], **more)
        end = front.end_of(1)
        assert (end["cause"], end["exit"], end["files"]) == (Cause.OK, 0, [size]), end
        assert front.piece(1, bundle=bundle, output=0) == data

    @pytest.mark.parametrize("size", [MEGABYTE, 30 * MEGABYTE])
    def test_large_bodies_go_both_ways(self, front: FrontEnd, size: int) -> None:
        data = bytes(range(253)) * (size // 253)
        front.check_in()
        front.work(1, bytes)
        front.calls(1, [1], [(data,)])
        assert front.value_of(1) == data

    def test_two_thousand_quick_tasks(self, front: FrontEnd) -> None:
        front.check_in()
        front.work(1, abs)
        for start in range(0, 2000, 50):
            tasks = range(start, start + 50)
            front.calls(1, [task + 1 for task in tasks], [(-task,) for task in tasks], lane=start // 50 % 2)
        front.wait(lambda: len(front.ended()) == 2000, TASK_S, "2,000 tasks")
        ended = front.ended()
        assert all(ended[task + 1]["result"] == pickle.dumps(task, 4) for task in range(2000))

    def test_a_pool_maps_over_it(self, pool_sites: tuple[str, ...], tmp_path: Path) -> None:
        with serai.Pool(*pool_sites, options=serai.Options(runs=tmp_path)) as pool:
            assert list(pool.map(abs, range(-1000, 0))) == list(range(1000, 0, -1))
            assert sum(pool.map(abs, range(1000), chunksize=50)) == 499500

    def test_cancel_ends_the_whole_group(self, front: FrontEnd, on_node: OnNode) -> None:
        front.check_in()
        front.work(1)
        front.command(1, 5, ["sh", "-c", "echo $$; sleep 300 & echo $!; (trap '' TERM; sleep 301) & echo $!; wait"])
        front.wait(lambda: self._running(front, 5), TASK_S, "the task runs")
        front.send(wire.CANCEL, head={"ids": [5]})
        end = front.end_of(5)
        assert end["cause"] == Cause.CANCELLED
        assert end["out"]
        for pid in end["out"].split():
            _until(lambda pid=pid: on_node(["sh", "-c", ALIVE, pid.decode()]) != 0, LOST_S, f"the end of {pid!r}")  # type: ignore[misc]
        front.command(1, 6, ["true"])
        assert front.end_of(6)["exit"] == 0

    @staticmethod
    def _running(front: FrontEnd, task: int) -> bool:
        beats = (frame[3].get("lanes") or {} for frame in front.frames if frame[0] == wire.BEAT)
        return any(now and now[0] == task and now[1] > 0.3 for lanes in beats for now in lanes.values())

    # ---- the end

    def test_close_leaves_no_process_and_no_directory(self, front: FrontEnd, on_node: OnNode) -> None:
        ad = front.check_in()
        front.work(1)
        front.command(1, 1, ["sh", "-c", "echo $$ $PPID"])
        lane = front.end_of(1)["out"].split()[1].decode()
        front.command(1, 2, ["sleep", "300"])
        front.wait(lambda: self._running(front, 2), TASK_S, "the task runs")
        began = time.monotonic()
        front.link.close()
        assert time.monotonic() - began < CLOSE_S
        front.link.close()
        front.wait_end(LOST_S)
        for pid in (str(ad["pid"]), lane):
            _until(lambda pid=pid: on_node(["sh", "-c", ALIVE, pid]) != 0, LOST_S, f"the end of {pid}")  # type: ignore[misc]
        _until(lambda: on_node(["test", "-e", ad["base"]]) != 0, LOST_S, "the scratch directory is gone")
        with pytest.raises(OSError):  # noqa: PT011 - which kind depends on the way
            front.send(wire.PING)

    def test_the_death_of_a_node_is_told(self, front: FrontEnd, kill: Kill) -> None:
        front.work(1)
        ad = front.check_in()
        front.command(1, 1, ["sleep", "300"])
        kill(ad)
        front.wait_end(LOST_S)
        with pytest.raises(OSError):  # noqa: PT011 - which kind depends on the way
            front.send(wire.PING)

    def test_the_death_of_an_agent_is_told(self, front: FrontEnd, on_node: OnNode) -> None:
        ad = front.check_in()
        front.work(1)
        front.command(1, 1, ["sh", "-c", "echo $PPID"])
        lane = front.end_of(1)["out"].strip().decode()
        assert on_node(["kill", "-9", str(ad["pid"])]) == 0
        front.wait_end(LOST_S)
        _until(lambda: on_node(["sh", "-c", ALIVE, lane]) != 0, LOST_S, "the end of its lane")
        with pytest.raises(OSError):  # noqa: PT011 - which kind depends on the way
            front.send(wire.PING)

    def test_an_agent_ends_when_its_front_end_is_silent(self, front: FrontEnd, on_node: OnNode) -> None:
        ad = front.check_in(silence_s=1.0)
        front.wait_end(LOST_S)
        _until(lambda: on_node(["test", "-e", ad["base"]]) != 0, LOST_S, "the scratch directory is gone")

    def test_close_while_another_thread_sends(self, front: FrontEnd) -> None:
        front.check_in()
        sent = threading.Semaphore(0)
        ended: list[BaseException] = []

        def pour() -> None:
            try:
                while True:
                    front.put(1, bytes(wire.CHUNK))
                    sent.release()
            except OSError as error:
                ended.append(error)

        thread = threading.Thread(target=pour, daemon=True)
        thread.start()
        for _ in range(40):
            assert sent.acquire(timeout=TASK_S)
        front.link.close()
        thread.join(LOST_S)
        assert not thread.is_alive()
        assert ended

    def test_two_links_at_once(self, engine: Engine, site: SiteSpec, on_node: OnNode) -> None:
        spec = engine.nodes(site)[0]
        with FrontEnd(engine, spec) as one, FrontEnd(engine, spec) as two:
            ads = [one.check_in(), two.check_in()]
            assert ads[0]["pid"] != ads[1]["pid"]
            assert ads[0]["base"] != ads[1]["base"]
            for front in (one, two):
                front.work(1, abs)
                front.calls(1, range(1, 101), [(-n,) for n in range(100)])
            for front in (one, two):
                assert front.value_of(100) == 99
            one.link.close()
            one.wait_end(LOST_S)
            two.calls(1, [200], [(-5,)])
            assert two.value_of(200) == 5
            assert on_node(["test", "-d", ads[1]["base"]]) == 0

    def test_the_engine_closes_twice(self, engine: Engine, site: SiteSpec) -> None:
        with contextlib.suppress(AccessError):
            engine.nodes(site)
        engine.close()
        engine.close()
