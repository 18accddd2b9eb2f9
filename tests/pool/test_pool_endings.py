"""How pools begin and end: in scripts, in threads, in forks; and what they leave, which is nothing."""

from __future__ import annotations

import contextlib
import functools
import os
import signal
import subprocess
import sys
import textwrap
import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

import serai
from serai.apps.frontends.functions import BrokenPool
from serai.errors import SeraiError

if TYPE_CHECKING:
    from collections.abc import Callable

SOON_S = 40.0


def until(what: Callable[[], Any], deadline_s: float = SOON_S) -> None:
    end = time.monotonic() + deadline_s
    while not what():
        assert time.monotonic() < end, "it did not come about in time"
        time.sleep(0.01)


def script(directory: Path, text: str, **more: Any) -> subprocess.CompletedProcess[str]:
    path = directory / "script.py"
    path.write_text(textwrap.dedent(text), encoding="utf-8")
    return subprocess.run(
        [sys.executable, str(path)], capture_output=True, text=True, timeout=120, cwd=directory, check=False, **more
    )


def children() -> set[int]:
    found: set[int] = set()
    for thread in Path("/proc/self/task").iterdir():
        with contextlib.suppress(OSError):  # the thread has ended since
            found |= {int(word) for word in (thread / "children").read_text(encoding="ascii").split()}
    return found


def slow(value: int) -> int:
    time.sleep(0.05)
    return value


def test_shutdown_leaves_no_thread_no_process_and_no_file(tmp_path: Path) -> None:
    scratch = tmp_path / "scratch"
    threads, before = set(threading.enumerate()), children()
    with serai.Pool(f"local:?slots=2&scratch={scratch}") as pool:
        assert list(pool.map(abs, range(10))) == list(range(10))
        assert children() - before
    until(lambda: set(threading.enumerate()) <= threads)
    until(lambda: children() <= before)
    assert list(scratch.iterdir()) == []


def test_shutdown_serves_what_waits_and_refuses_what_comes() -> None:
    pool = serai.Pool(max_workers=1)
    futures = [pool.submit(slow, n) for n in range(10)]
    pool.shutdown(wait=False)
    with pytest.raises(RuntimeError, match="after shutdown"):
        pool.submit(slow, 1)
    with pytest.raises(RuntimeError, match="after shutdown"):
        pool.run("true")
    assert [future.result(SOON_S) for future in futures] == list(range(10))
    pool.shutdown()
    pool.shutdown()


def test_shutdown_can_cancel_what_waits() -> None:
    pool = serai.Pool(max_workers=1)
    futures = [pool.submit(slow, n) for n in range(200)]
    pool.shutdown(cancel_futures=True)
    assert all(future.done() for future in futures)
    assert sum(future.cancelled() for future in futures) > 100


def test_shutdown_in_a_callback_does_not_wait_for_itself() -> None:
    pool = serai.Pool(max_workers=1)
    called = threading.Event()

    def end(_future: Any) -> None:
        pool.shutdown()
        called.set()

    first = pool.submit(slow, 1)
    others = [pool.submit(slow, n) for n in range(5)]
    first.add_done_callback(end)
    assert called.wait(SOON_S)
    assert [future.result(SOON_S) for future in others] == list(range(5))
    pool.shutdown()


def test_a_pool_that_nobody_holds_ends_after_its_last_future() -> None:
    before = children()
    pool = serai.Pool(max_workers=1)
    futures = [pool.submit(slow, n) for n in range(5)]
    del pool
    assert [future.result(SOON_S) for future in futures] == list(range(5))
    until(lambda: children() <= before)


def test_a_script_may_end_without_shutdown(tmp_path: Path) -> None:
    done = script(
        tmp_path,
        """
        import serai, time
        def work(n):
            time.sleep(0.05)
            print("printed", n)
            return n
        if __name__ == "__main__":
            pool = serai.Pool(max_workers=2)
            for n in range(5):
                pool.submit(work, n).add_done_callback(lambda f: print("result", f.result()))
            print("end")
        """,
    )
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    lines = done.stdout.split("\n")
    assert lines[0] == "end"
    assert sorted(lines[1:-1]) == sorted(f"{what} {n}" for n in range(5) for what in ("printed", "result"))


def test_what_functions_print_is_shown_however_long_and_wherever(tmp_path: Path) -> None:
    text = """
        import os, sys, serai
        def work():
            print("long " * 100_000)
            os.system("echo from a child")
            print("\\u263a", file=sys.stderr)
        if __name__ == "__main__":
            with serai.Pool(max_workers=1) as pool:
                assert pool.submit(work).exception() is None
        """
    done = script(tmp_path, text, env=os.environ | {"PYTHONIOENCODING": "ascii:strict"})
    assert done.returncode == 0, done.stderr
    assert len(done.stdout) == 500_000 + 1 + len("from a child\n")
    assert done.stderr == "\\u263a\n"


def test_pools_in_pools(tmp_path: Path) -> None:
    done = script(
        tmp_path,
        """
        import serai
        def inner(n):
            return n + 1
        def outer(n):
            with serai.Pool(max_workers=1) as pool:
                return sum(pool.map(inner, range(n)))
        if __name__ == "__main__":
            with serai.Pool(max_workers=2) as pool:
                print(list(pool.map(outer, [2, 3])))
        """,
    )
    assert (done.stdout, done.stderr) == ("[3, 6]\n", "")


def test_an_interrupt_does_not_harm_what_runs(tmp_path: Path) -> None:
    """Ctrl-C goes to everything in the terminal's group."""
    done = script(
        tmp_path,
        """
        import os, signal, time, serai
        if __name__ == "__main__":
            with serai.Pool(max_workers=1) as pool:
                pool.submit(abs, 1).result()
                future = pool.submit(time.sleep, 1)
                try:
                    os.killpg(0, signal.SIGINT)
                    time.sleep(5)
                except KeyboardInterrupt:
                    print("interrupted", flush=True)
                future.result()
                print(pool._core.run.journal._read("SELECT * FROM note"))
        """,
        start_new_session=True,
    )
    assert (done.stdout, done.stderr) == ("interrupted\n[]\n", "")


def test_when_the_front_end_is_killed_nothing_is_left(tmp_path: Path) -> None:
    path = tmp_path / "script.py"
    path.write_text(
        textwrap.dedent(
            """
            import os, serai, time
            def work(n):
                print(os.getpid(), flush=True)
                open(f"pid{n}", "w").write(f"{os.getpid()} {os.getppid()}")
                time.sleep(60)
            if __name__ == "__main__":
                pool = serai.Pool("local:?slots=2&scratch=scratch")
                [pool.submit(work, n) for n in range(2)]
                time.sleep(60)
            """
        ),
        encoding="utf-8",
    )
    with subprocess.Popen([sys.executable, str(path)], cwd=tmp_path) as process:
        try:
            until(lambda: all((tmp_path / f"pid{n}").exists() for n in range(2)))
            until(lambda: all(len((tmp_path / f"pid{n}").read_text().split()) == 2 for n in range(2)))
        finally:
            process.send_signal(signal.SIGKILL)
    pids = {int(word) for n in range(2) for word in (tmp_path / f"pid{n}").read_text().split()}
    until(lambda: not any(Path("/proc", str(pid)).exists() for pid in pids))
    until(lambda: not list((tmp_path / "scratch").iterdir()))


def test_an_initializer_that_fails_breaks_the_pool_and_says_why() -> None:
    with serai.Pool(max_workers=1, initializer=int, initargs=("seven",)) as pool:
        error = pool.submit(slow, 1).exception(SOON_S)
        assert isinstance(error, BrokenPool)
        assert "seven" in str(error)
        with pytest.raises(BrokenPool):
            pool.submit(slow, 1)


def test_a_journal_that_cannot_be_written_breaks_the_pool_and_nobody_waits() -> None:
    with serai.Pool(max_workers=1) as pool:
        pool.submit(abs, 1).result(SOON_S)
        database = pool._core.run.journal._db
        database.execute("PRAGMA query_only = ON")  # as a disk that is full: every write fails
        with pytest.raises(SeraiError, match="journal"):
            pool.submit(abs, 1).result(SOON_S)
        with pytest.raises(SeraiError, match="journal"):
            pool.submit(abs, 2)
        with pytest.raises(SeraiError, match="journal"):
            list(pool.run("true"))
        database.execute("PRAGMA query_only = OFF")


@pytest.mark.parametrize(
    ("sites", "more", "error"),
    [
        (("nonesuch:",), {}, serai.errors.UsageError),
        (("local:", "local:"), {}, serai.errors.UsageError),
        (("local:",), {"max_workers": 1}, ValueError),
        ((), {"max_workers": 0}, ValueError),
        ((), {"initializer": 3}, TypeError),
    ],
)
def test_mistakes_are_said_before_anything_starts(sites: Any, more: Any, error: type[Exception]) -> None:
    threads = set(threading.enumerate())
    with pytest.raises(error):
        serai.Pool(*sites, **more)
    assert set(threading.enumerate()) <= threads


def in_time(what: Callable[[], Any]) -> Any:
    """Do something in a thread of its own, and fail when it does not come to its end."""
    found: list[Any] = []

    def do() -> None:
        try:
            found.append(what())
        except Exception as error:  # noqa: BLE001 - it is looked at
            found.append(error)

    thread = threading.Thread(target=do, daemon=True)
    thread.start()
    thread.join(SOON_S)
    assert found, "it did not come to its end"
    return found[0]


def test_a_function_that_is_new_while_the_dispatcher_looks_at_its_inbox(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its work is in the inbox, which was looked at before, and its first call in the queue, which is looked at now."""
    with serai.Pool(max_workers=1) as pool:
        pool.submit(abs, 1).result(SOON_S)
        dispatcher, futures = pool._core.run.dispatcher, list[Any]()
        look = dispatcher._drain_submitted

        def look_later(now: float) -> None:
            if not futures:
                futures.append(in_time(lambda: pool.submit(divmod, 7, 2)))
            look(now)

        monkeypatch.setattr(dispatcher, "_drain_submitted", look_later)
        until(lambda: futures)
        assert futures[0].result(SOON_S) == (3, 1)
        assert pool.submit(abs, -2).result(SOON_S) == 2


def test_when_the_dispatcher_has_failed_a_new_function_is_refused_like_a_known_one(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    with serai.Pool(max_workers=1) as pool:
        pool.submit(abs, 1).result(SOON_S)

        def fail(_now: float) -> None:
            raise RuntimeError("a mistake in the dispatcher")

        monkeypatch.setattr(pool._core.run.dispatcher, "_drain", fail)
        until(lambda: pool._core.functions.broken_by)
        for function in (abs, divmod):
            error = in_time(functools.partial(pool.submit, function, 7))
            assert isinstance(error, BrokenPool)
            assert "a mistake in the dispatcher" in str(error)
