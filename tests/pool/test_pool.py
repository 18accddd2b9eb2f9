"""`serai.Pool` as an executor of functions, on this machine."""

from __future__ import annotations

import functools
import importlib.util
import itertools
import os
import signal
import sys
import threading
import time
from concurrent.futures import CancelledError, wait
from concurrent.futures import TimeoutError as FutureTimeout
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

import serai
from serai.errors import NodeLost, TaskFailed, TimeLimitExceeded, UsageError

if TYPE_CHECKING:
    from collections.abc import Iterator

SOON_S = 40.0


@pytest.fixture(scope="module")
def pool(tmp_path_factory: pytest.TempPathFactory) -> Iterator[serai.Pool]:
    runs = tmp_path_factory.mktemp("runs")
    with serai.Pool(max_workers=2, options=serai.Options(runs=runs)) as pool:
        yield pool


def until(what: Any, deadline_s: float = SOON_S) -> None:
    end = time.monotonic() + deadline_s
    while not what():
        assert time.monotonic() < end, "it did not come about in time"
        time.sleep(0.01)


class Counter:
    def __init__(self, start: int) -> None:
        self.start = start

    def plus(self, value: int) -> int:
        return self.start + value


class Stubborn(Exception):
    """Pickles, and does not unpickle."""

    def __init__(self, one: int, two: int) -> None:
        super().__init__("stubborn")
        self.sum = one + two


def fail(words: str) -> None:
    raise ValueError(words)


def fail_stubbornly() -> None:
    raise Stubborn(1, 2)


def fail_with_a_lock() -> None:
    error = RuntimeError("with a lock")
    error.lock = threading.Lock()  # type: ignore[attr-defined]
    raise error


def count_and_die(path: str, signal_or_exit: int) -> None:
    with Path(path).open("ab") as file:
        file.write(b"x")
    if signal_or_exit < 0:
        os.kill(os.getpid(), -signal_or_exit)
    os._exit(signal_or_exit)


def die_once(path: str) -> str:
    if not Path(path).exists():
        Path(path).touch()
        os._exit(1)
    return "second"


def touch_and_sleep(path: str, sleep_s: float) -> None:
    Path(path).write_text(str(os.getpid()), encoding="ascii")
    time.sleep(sleep_s)


def bare() -> int:
    return 7


# ---- what can be called


def test_what_can_be_called(pool: serai.Pool) -> None:
    base = 10
    calls = [
        (pool.submit(pow, 2, 5), 32),
        (pool.submit(lambda: base + 1), 11),
        (pool.submit(lambda x, *, y: x - y, 5, y=3), 2),
        (pool.submit(functools.partial(pow, 3), 2), 9),
        (pool.submit(Counter(4).plus, 5), 9),
        (pool.submit("abc".upper), "ABC"),
        (pool.submit(Counter(4).plus, value=6), 10),
        (pool.submit(sum, [1, 2, 3]), 6),
        (pool.submit(bare), 7),
    ]
    assert [future.result(SOON_S) for future, _ in calls] == [expected for _, expected in calls]
    assert pool.submit(Counter, 3).result(SOON_S).start == 3
    assert all(future.node == "local" for future, _ in calls)


def test_closures_are_called_as_they_are_now(pool: serai.Pool) -> None:
    """A closure's cells may change between two calls."""
    seen = [pool.submit(lambda: number) for number in range(5)]  # noqa: B023 - that is the point
    assert [future.result(SOON_S) for future in seen] == [0, 1, 2, 3, 4]


def test_a_function_of_a_module_that_is_not_installed(
    pool: serai.Pool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "mine_only.py").write_text("FACTOR = 3\ndef times(x):\n    return FACTOR * x\n", encoding="ascii")
    monkeypatch.syspath_prepend(str(tmp_path))
    module = importlib.import_module("mine_only")
    assert pool.submit(module.times, 5).result(SOON_S) == 15


def test_many_functions(pool: serai.Pool) -> None:
    """More than are kept: further ones travel with each call."""
    futures = [pool.submit(eval(f"lambda x: x + {n}"), n) for n in range(300)]  # noqa: S307 - 300 different functions
    assert [future.result(SOON_S) for future in futures] == [2 * n for n in range(300)]


# ---- what goes wrong


def test_an_exception_comes_back_with_the_traceback_of_its_node(pool: serai.Pool) -> None:
    error = pool.submit(fail, "because").exception(SOON_S)
    assert isinstance(error, ValueError)
    assert error.args == ("because",)
    assert "in fail" in str(error.__cause__)
    assert "test_pool.py" in str(error.__cause__)


@pytest.mark.parametrize(("function", "words"), [(fail_stubbornly, "stubborn"), (fail_with_a_lock, "with a lock")])
def test_exceptions_that_do_not_travel_are_told_in_words(pool: serai.Pool, function: Any, words: str) -> None:
    error = pool.submit(function).exception(SOON_S)
    assert isinstance(error, TaskFailed)
    assert words in str(error)
    assert "local" in str(error)


def test_exit_in_a_function_is_an_exception_like_others(pool: serai.Pool) -> None:
    assert isinstance(pool.submit(sys.exit, 3).exception(SOON_S), SystemExit)
    assert pool.submit(bare).result(SOON_S) == 7


def test_arguments_and_results_that_do_not_pickle(pool: serai.Pool) -> None:
    with pytest.raises(TypeError, match="pickle"):
        pool.submit(id, threading.Lock())
    error = pool.submit(threading.Lock).exception(SOON_S)
    assert isinstance(error, TypeError)
    assert "pickle" in str(error)
    assert pool.submit(bare).result(SOON_S) == 7


@pytest.mark.parametrize("how", [0, 3, -signal.SIGKILL])
def test_a_function_that_ends_its_process_is_given_up_and_others_are_not(
    pool: serai.Pool, tmp_path: Path, how: int
) -> None:
    others = [pool.submit(pow, 2, n) for n in range(50)]
    error = pool.submit(count_and_die, str(tmp_path / "tries"), how).exception(SOON_S)
    others += [pool.submit(pow, 2, n) for n in range(50)]
    assert isinstance(error, NodeLost)
    assert "3 executors ended" in str(error)
    assert (tmp_path / "tries").read_bytes() == b"xxx"
    assert [future.result(SOON_S) for future in others] == [2**n for n in range(50)] * 2


def test_a_lane_that_dies_once_is_tried_again(pool: serai.Pool, tmp_path: Path) -> None:
    assert pool.submit(die_once, str(tmp_path / "died")).result(SOON_S) == "second"


def test_a_callback_that_raises_harms_nobody(pool: serai.Pool, caplog: pytest.LogCaptureFixture) -> None:
    future = pool.submit(bare)
    future.add_done_callback(lambda _: fail("in a callback"))
    seen = threading.Event()
    future.add_done_callback(lambda _: seen.set())
    assert seen.wait(SOON_S)
    assert pool.submit(bare).result(SOON_S) == 7
    assert "in a callback" in caplog.text


# ---- ending calls


def test_cancelling_what_waits_and_killing_what_runs(pool: serai.Pool, tmp_path: Path) -> None:
    marks = [tmp_path / f"run{n}" for n in range(2)]
    running = [pool.submit(touch_and_sleep, str(mark), 60) for mark in marks]
    until(lambda: all(mark.exists() and mark.read_text(encoding="ascii") for mark in marks))
    queued = [pool.submit(touch_and_sleep, str(tmp_path / "never"), 0) for _ in range(10)]
    assert not running[0].cancel()
    assert queued[-1].cancel()
    assert queued[-1].cancelled()
    began = time.monotonic()
    for future in running:
        future.kill()
    for future in running:
        with pytest.raises(CancelledError):
            future.result(SOON_S)
    assert pool.submit(bare).result(SOON_S) == 7
    wait(queued, SOON_S)
    assert time.monotonic() - began < 40  # of the 60 s that they would sleep
    until(lambda: not any(Path("/proc", mark.read_text(encoding="ascii")).exists() for mark in marks))


def test_a_time_limit_ends_a_call(tmp_path: Path) -> None:
    with serai.Pool(max_workers=1, options=serai.Options(runs=tmp_path, time_limit_s=0.5)) as pool:
        slow, quick = pool.submit(time.sleep, 60), pool.submit(bare)
        error = slow.exception(SOON_S)
        assert isinstance(error, TimeLimitExceeded)
        assert quick.result(SOON_S) == 7


# ---- map


def test_map(pool: serai.Pool) -> None:
    assert list(pool.map(pow, range(10), [2] * 10)) == [n * n for n in range(10)]
    assert list(pool.map(pow, range(10), itertools.repeat(2), chunksize=3)) == [n * n for n in range(10)]
    assert list(pool.map(bare)) == []


def test_map_over_what_never_ends(pool: serai.Pool) -> None:
    taken = []

    def numbers() -> Iterator[int]:
        for number in itertools.count():
            taken.append(number)
            yield number

    results = pool.map(abs, numbers(), buffersize=8)
    assert list(itertools.islice(results, 100)) == list(range(100))
    results.close()  # type: ignore[attr-defined]
    assert len(taken) <= 110


def test_map_has_a_timeout_and_an_order(pool: serai.Pool) -> None:
    results = pool.map(time.sleep, [0, 60, 0], timeout=4.0)  # in which the first ends on a busy machine, too
    assert next(results) is None
    with pytest.raises((TimeoutError, FutureTimeout)):
        next(results)
    for future in pool._core.functions.pending():
        future.kill()


# ---- size and number


def test_large_arguments_and_results(pool: serai.Pool) -> None:
    data = os.urandom(1 << 20) * 50
    assert pool.submit(len, data).result(SOON_S) == 50 << 20
    assert pool.submit(bytes.upper, data).result(SOON_S) == data.upper()


def test_large_arguments_of_many_calls_do_not_add_up_to_a_frame_that_is_too_large(
    pool: serai.Pool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("serai.apps.frontends.functions.MOST_BUNDLE", 1000)
    blob = b"x" * 400
    assert list(pool.map(len, [blob] * 2000)) == [400] * 2000


def test_arguments_that_are_too_large_are_refused_at_once(pool: serai.Pool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("serai.apps.frontends.functions.MOST_PAYLOAD", 1000)
    with pytest.raises(UsageError, match="no more than") as caught:
        pool.submit(len, b"x" * 2000)
    assert "file" in str(caught.value.hint)


def test_very_many_quick_calls_from_many_threads(pool: serai.Pool) -> None:
    found: dict[int, int] = {}

    def use(number: int) -> None:
        found[number] = sum(pool.map(abs, range(2_500)))

    threads = [threading.Thread(target=use, args=(n,)) for n in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(100)
    assert found == dict.fromkeys(range(8), sum(range(2_500)))


# ---- modules that only a file has


def test_a_module_loaded_from_a_file_is_told_clearly(pool: serai.Pool, tmp_path: Path) -> None:
    """Nodes of this machine import what the front end can import; this one cannot be, and it is said so."""
    path = tmp_path / "by_file.py"
    path.write_text("def one():\n    return 1\n", encoding="ascii")
    spec = importlib.util.spec_from_file_location("by_file", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["by_file"] = module
    try:
        spec.loader.exec_module(module)
        error = pool.submit(module.one).exception(SOON_S)
    finally:
        del sys.modules["by_file"]
    assert isinstance(error, TaskFailed)
    assert "by_file" in str(error)
