"""Places for threads are given in turn."""

from __future__ import annotations

import signal
import threading
import time

import pytest

from serai.adverts.turns import Turns


def test_who_lets_go_and_asks_again_comes_after_those_who_wait() -> None:
    turns = Turns(1)
    assert turns.acquire(0.0)
    got: list[int] = []

    def wait(number: int) -> None:
        if turns.acquire(60.0):
            got.append(number)

    threads = []
    for number in range(3):
        threads.append(threading.Thread(target=wait, args=(number,)))
        threads[-1].start()
        end = time.monotonic() + 40
        while turns.waiting <= number:
            assert time.monotonic() < end, "it does not wait"
            time.sleep(0.001)
    for number, thread in enumerate(threads):
        turns.release()
        assert not turns.acquire(0.0)
        thread.join(40)
        assert got == list(range(number + 1))
    turns.release()
    assert turns.acquire(0.0)


def test_who_has_gone_is_not_given_a_place() -> None:
    turns = Turns(2)
    assert turns.acquire(0.0)
    assert turns.acquire(0.0)
    assert not turns.acquire(0.01)
    assert turns.waiting == 0
    turns.release()
    assert turns.acquire(0.0)
    assert not turns.acquire(0.0)


def test_whoever_is_interrupted_while_waiting_holds_no_turn() -> None:
    turns = Turns(1)
    assert turns.acquire(0.0)

    def interrupt(_number: int, _frame: object) -> None:
        raise KeyboardInterrupt

    former = signal.signal(signal.SIGUSR1, interrupt)
    try:
        threading.Thread(target=lambda: _when_waiting(turns)).start()
        with pytest.raises(KeyboardInterrupt):
            turns.acquire(20.0)
    finally:
        signal.signal(signal.SIGUSR1, former)
    assert turns.waiting == 0
    turns.release()
    assert turns.acquire(0.0), "what was let go of is there for the next"


def _when_waiting(turns: Turns) -> None:
    deadline = time.monotonic() + 20
    while not turns.waiting and time.monotonic() < deadline:
        time.sleep(0.01)
    signal.pthread_kill(threading.main_thread().ident or 0, signal.SIGUSR1)
