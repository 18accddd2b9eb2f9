"""Functions: results, exceptions, and what they do to their lane."""

from __future__ import annotations

import os
import pickle
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import cloudpickle
import pytest

from serai.travel.executor import functions, wire

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.executor.conftest import AgentHarness

cloudpickle.register_pickle_by_value(sys.modules[__name__])

OK, EXCEPTION, NO_COMMAND, EXECUTOR, UNPICKLE = 0, 2, 5, 10, 11
KEEP = 4096


@pytest.fixture
def agent(lasting: AgentHarness) -> AgentHarness:
    lasting.seen.clear()
    return lasting


class Peculiar(Exception):
    """It pickles, but cannot be made again from its arguments."""

    def __init__(self, one: int, two: int) -> None:
        super().__init__("peculiar")
        self.both = one, two


def fail(what: str) -> None:
    if what == "value":
        raise ValueError("the reason")
    if what == "peculiar":
        raise Peculiar(1, 2)
    if what == "holds a lock":
        raise RuntimeError(threading.Lock())
    if what == "exit":
        sys.exit("left")
    if what == "interrupt":
        raise KeyboardInterrupt
    if what == "deep":
        fail(what)


def speak(text: str, count: int = 1) -> str:
    os.write(1, b"raw ")
    sys.stdout.write(text * count + "\n")
    sys.stderr.write("aside\n")
    return text


@pytest.mark.parametrize("value", [None, 0, "é", {"a": [1, (2,)]}, b"x" * 3_000_000, "__main__"])
def test_results(agent: AgentHarness, value: object) -> None:
    ended = agent.call(lambda one: one, value)
    assert (ended.cause, ended.detail) == (OK, None)
    assert pickle.loads(ended.result) == value


def test_exceptions_come_with_their_traceback(agent: AgentHarness) -> None:
    ended = agent.call(fail, "value")
    assert ended.cause == EXCEPTION
    assert isinstance(pickle.loads(ended.result), ValueError)
    assert ended.detail is not None
    assert 'raise ValueError("the reason")' in ended.detail or "ValueError: the reason" in ended.detail
    assert "in fail" in ended.detail


@pytest.mark.parametrize(
    ("what", "words"), [("peculiar", "Peculiar: peculiar"), ("holds a lock", "RuntimeError: <unlocked")]
)
def test_exceptions_that_cannot_travel_are_told(agent: AgentHarness, what: str, words: str) -> None:
    ended = agent.call(fail, what)
    assert (ended.cause, ended.result) == (EXCEPTION, b"")
    assert words in (ended.detail or "")


@pytest.mark.parametrize(
    ("what", "kind"), [("exit", SystemExit), ("interrupt", KeyboardInterrupt), ("deep", RecursionError)]
)
def test_functions_that_would_leave(agent: AgentHarness, what: str, kind: type[BaseException]) -> None:
    ended = agent.call(fail, what)
    assert ended.cause == EXCEPTION
    assert isinstance(pickle.loads(ended.result), kind)
    assert agent.call(abs, -1).cause == OK
    assert not agent.has(wire.LANE_DIED)


def test_results_that_cannot_travel_are_told(agent: AgentHarness) -> None:
    ended = agent.call(threading.Lock)
    assert ended.cause == EXCEPTION
    assert "cannot pickle '_thread.lock' object" in (ended.detail or "")


def test_a_result_longer_than_a_frame_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(wire, "LONGEST", 100)
    cause, detail, data = functions.Functions.call(bytes, pickle.dumps(((200,), {})))
    assert cause == EXCEPTION
    assert "pickled; 100 can travel" in (detail or "")
    assert isinstance(pickle.loads(data), OverflowError)


def test_what_they_print_is_kept(agent: AgentHarness) -> None:
    work = agent.function(speak)
    bundle, ids = agent.calls(work, [("one",), ("two é",), ("x", 10_000), ("four",)])
    ended = agent.outcome(bundle).ended
    assert [ended[task].out for task in ids] == [b"raw one\n", "raw two é\n".encode(), b"", b"raw four\n"]
    assert {one.err for one in ended.values()} == {b"aside\n"}
    pieces = [one for one in agent.seen if one.op == wire.OUTPUT]
    assert b"".join(one.body for one in pieces) == b"raw " + b"x" * 10_000 + b"\n"
    assert {(one.ident, one.head["bundle"]) for one in pieces} == {(ids[2], bundle)}


def close_streams() -> int:
    sys.stdout.close()
    sys.stderr = None
    return 5


def test_a_function_that_closes_its_streams(agent: AgentHarness) -> None:
    ended = agent.call(close_streams, lane=9)
    assert (ended.cause, pickle.loads(ended.result)) == (OK, 5)
    assert agent.call(abs, -2, lane=9).cause == OK
    assert agent.shell("echo fine", lane=9).out == b"fine\n"


@pytest.mark.parametrize("code", [0, 3])
def test_a_function_that_ends_its_process(agent: AgentHarness, code: int) -> None:
    agent.calls(agent.function(os._exit), [(code,)])
    died = agent.wait(wire.LANE_DIED)
    assert died.head["exit"] == (code or None)  # 0 is for lanes that ended a function as they were told to
    assert died.head["log"] or code
    assert agent.call(abs, -1).cause == OK


def crash() -> None:
    os.kill(os.getpid(), signal.SIGSEGV)


def test_a_function_that_crashes(agent: AgentHarness) -> None:
    agent.calls(agent.function(crash), [()])
    assert agent.wait(wire.LANE_DIED).head["exit"] == -11
    assert agent.call(abs, -1).cause == OK


def from_environment(name: str) -> str | None:
    return os.environ.get(name)


def prepare(value: str) -> None:
    os.environ["PREPARED"] = os.environ.get("PREPARED", "") + value


def test_initializers_run_once_per_lane(agent: AgentHarness) -> None:
    init = cloudpickle.dumps((prepare, ("x",)))
    for _ in range(2):
        ended = agent.call(from_environment, "PREPARED", lane=1, init=init)
        assert pickle.loads(ended.result) == "x"


def test_an_initializer_that_fails(agent: AgentHarness) -> None:
    init = cloudpickle.dumps((fail, ("value",)))
    work = agent.function(abs, init=init)
    bundle, ids = agent.calls(work, [(-1,), (-2,)])
    ended = agent.outcome(bundle).ended
    for task in ids:
        assert ended[task].cause == EXECUTOR
        assert (ended[task].detail or "").startswith("initializer: Traceback")
        assert "ValueError: the reason" in (ended[task].detail or "")


def test_what_cannot_be_unpickled(agent: AgentHarness) -> None:
    missing = b"cno_such_module\nf\n."
    ended = agent.call(missing, 1)
    assert ended.cause == UNPICKLE
    assert (
        ended.detail
        == "the function cannot be loaded on this node: ModuleNotFoundError: No module named 'no_such_module'"
    )
    bundle, ids = agent.calls(agent.function(abs), [missing, (-1,)])
    ended_both = agent.outcome(bundle).ended
    assert [ended_both[task].cause for task in ids] == [UNPICKLE, OK]
    assert (ended_both[ids[0]].detail or "").startswith("the arguments cannot be loaded on this node: ModuleNotFound")


def go(place: str) -> str:
    here = str(Path.cwd())
    os.chdir(place)
    Path(here, "left").write_text("", encoding="ascii")
    return here


def test_directories(agent: AgentHarness, tmp_path: Path) -> None:
    """A function that goes elsewhere, or leaves files, does so for its own bundle only, or not to commands."""
    assert pickle.loads(agent.call(os.getcwd, cwd=str(tmp_path)).result) == str(tmp_path)
    own = pickle.loads(agent.call(go, "/").result)
    assert agent.base is not None
    assert own == str(agent.base / "task-0")
    assert pickle.loads(agent.call(os.getcwd).result) == own
    ended = agent.shell("pwd; ls")
    assert ended.out == os.fsencode(own) + b"\n"
    ended = agent.call(os.getcwd, cwd=str(tmp_path / "none"))
    assert ended.cause == NO_COMMAND
    assert ended.detail == f"cannot run it in {tmp_path / 'none'}: No such file or directory"


def test_environment_and_path(agent: AgentHarness, tmp_path: Path) -> None:
    (tmp_path / "only_here.py").write_text("def f(): return __file__\n")
    function = b"conly_here\nf\n."
    ended = agent.call(function, path=[str(tmp_path)], environ={"MINE": "1"})
    assert pickle.loads(ended.result) == str(tmp_path / "only_here.py")
    assert pickle.loads(agent.call(from_environment, "MINE").result) == "1"
    assert pickle.loads(agent.call(from_environment, "SERAI_NODE").result) == "here"


class Held:
    """Says when it is let go of."""

    def __init__(self, path: str) -> None:
        self.path = path
        self.far = False

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.path, self.far = state["path"], True

    def __call__(self) -> None:
        pass

    def __del__(self) -> None:
        if self.far:
            Path(self.path).touch()


def test_works_that_are_forgotten_are_let_go(agent: AgentHarness, tmp_path: Path) -> None:
    mark = tmp_path / "mark"
    work = agent.function(Held(str(mark)))
    bundle, [task] = agent.calls(work, [()])
    assert agent.outcome(bundle).ended[task].cause == OK
    assert not mark.exists()
    agent.send(wire.FORGET, wire.EVERY_LANE, 0, {"works": [work]})
    agent.until(mark.exists, "the lane has let go of its function")


def sources_of_cloudpickle() -> dict[str, str]:
    top = Path(cloudpickle.__file__).parent
    names = {"__init__": "cloudpickle", "cloudpickle": "cloudpickle.cloudpickle"}
    names["cloudpickle_fast"] = "cloudpickle.cloudpickle_fast"
    return {names[one.stem]: one.read_text(encoding="utf-8") for one in top.glob("*.py") if one.stem in names}


@pytest.fixture(scope="module")
def bare(tmp_path_factory: pytest.TempPathFactory) -> str:
    """An interpreter of this version that has the standard library only."""
    place = tmp_path_factory.mktemp("bare") / "env"
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", str(place)], check=True, timeout=60)
    return str(place / "bin" / "python")


def by_value() -> bytes:
    class Local:
        number = 7

    import cloudpickle as own  # noqa: PLC0415 - on the node

    return bytes(own.dumps(Local)) + (getattr(own, "__file__", "") or "").encode()


def test_modules_are_sent_where_they_are_missing(bare: str, start: Callable[..., AgentHarness]) -> None:
    agent = start(bare)
    if agent.hello()["modules"]:
        pytest.skip("the bare interpreter has cloudpickle")
    ended = agent.call(by_value)
    assert ended.cause in {UNPICKLE, EXCEPTION}  # a function by value needs it to be loaded
    agent.send(wire.MODULES, wire.EVERY_LANE, 0, sources_of_cloudpickle())
    for lane in (0, 1):  # one that was there and one that is started later
        ended = agent.call(by_value, lane=lane)
        assert (ended.cause, ended.detail) == (OK, None)
        assert b"sent with the executor" in pickle.loads(ended.result)


def test_modules_that_cannot_run_are_told(start: Callable[..., AgentHarness]) -> None:
    agent = start()
    agent.hello()
    assert agent.call(abs, -1).cause == OK
    agent.send(wire.MODULES, wire.EVERY_LANE, 0, {"broken_module": "1 +"})
    assert "SyntaxError" in agent.wait(wire.TROUBLE).head["why"]
    assert agent.call(abs, -1).cause == OK


def test_many_quick_calls(agent: AgentHarness) -> None:
    work = agent.function(abs)
    body = pickle.dumps(((-3,), {}))
    sent = [agent.calls(work, [body] * 1000, lane) for lane in (0, 1) for _ in range(5)]
    for bundle, ids in sent:
        ended = agent.outcome(bundle).ended
        assert list(ended) == ids
        assert {one.result for one in ended.values()} == {pickle.dumps(3, 4)}


def test_large_arguments_and_results_pass_both_ways(agent: AgentHarness) -> None:
    work = agent.function(lambda one: one[::-1])
    data = bytes(range(250)) * 20_000  # 5 MB
    sent = [agent.calls(work, [(data,)] * 2, lane) for lane in (0, 1) for _ in range(2)]
    for bundle, ids in sent:
        ended = agent.outcome(bundle).ended
        assert [pickle.loads(ended[task].result) for task in ids] == [data[::-1]] * 2


def test_functions_may_use_processes(agent: AgentHarness) -> None:
    code = "import multiprocessing as m\nwith m.get_context('fork').Pool(2) as p: print(p.map(abs, [-1, -2]))"
    ended = agent.call(lambda: exec(code))  # noqa: S102
    assert (ended.cause, ended.out) == (OK, b"[1, 2]\n")
    assert time.monotonic() > 0
