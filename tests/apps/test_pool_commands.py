"""`Pool.run`: commands over items, lazily."""

from __future__ import annotations

import itertools
import os
import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

import serai
from serai.describe.task import Cause, State
from serai.errors import MissingOutput, NeedsUnmet, SeraiError, TimeLimitExceeded, TransferFailed, UsageError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

SOON_S = 40.0


@pytest.fixture(scope="module")
def pool(tmp_path_factory: pytest.TempPathFactory) -> Iterator[serai.Pool]:
    runs = tmp_path_factory.mktemp("runs")
    with serai.Pool(max_workers=2, options=serai.Options(runs=runs)) as pool:
        yield pool


def until(what: Callable[[], Any], deadline_s: float = SOON_S) -> None:
    end = time.monotonic() + deadline_s
    while not what():
        assert time.monotonic() < end, "it did not come about in time"
        time.sleep(0.01)


def lines(count: int) -> list[serai.Item]:
    return [serai.Item(line=str(n)) for n in range(count)]


def test_commands_over_files_with_outputs(pool: serai.Pool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("a b.txt", "-n.txt", "$HOME;.txt", "ü'\".txt"):
        Path(name).write_text(name, encoding="utf-8")
    done = list(pool.run("cp -- {in} {out}", serai.files("*.txt"), out="o"))
    assert [outcome.error for outcome in done] == [None] * 4
    assert {path.name: path.read_text(encoding="utf-8") for path in Path("o").iterdir()} == {
        name: name for name in ("a b.txt", "-n.txt", "$HOME;.txt", "ü'\".txt")
    }
    assert {outcome.item.inputs for outcome in done} == {("a b.txt",), ("-n.txt",), ("$HOME;.txt",), ("ü'\".txt",)}


def test_lines_columns_and_environment(pool: serai.Pool) -> None:
    items = [serai.Item(line="l", columns={"one": "1 2", "two": "$x"})]
    (outcome,) = pool.run('sh -c \'echo "$V" "$@"\' sh {line} {n}', items, env={"V": "a b"})
    assert outcome.stdout == b"a b l %d\n" % outcome.task
    assert outcome.error is None
    assert (outcome.exit_code, outcome.node, outcome.state) == (0, "local", State.DONE)
    assert abs(outcome.started - time.time()) < 60


def test_one_command_without_items(pool: serai.Pool) -> None:
    (outcome,) = pool.run("pwd")
    assert outcome.stdout.decode().strip() == os.getcwd()


def test_what_goes_wrong_is_in_the_outcome(pool: serai.Pool, tmp_path: Path) -> None:
    def one(command: str, *items: Any, **more: Any) -> serai.Outcome:
        (outcome,) = pool.run(command, items or (serai.Item(),), **more)
        return outcome

    failed = one("sh -c 'echo why >&2; exit 7'")
    assert (failed.cause, failed.exit_code, failed.stderr) == (Cause.EXIT, 7, b"why\n")
    assert "exit code 7" in str(failed.error)
    killed = one("sh -c 'kill -9 $$'")
    assert killed.exit_code == -9
    assert "signal 9" in str(killed.error)
    assert one("no-such-program-anywhere").cause == Cause.NO_COMMAND
    limited = one("sleep 60", time_limit_s=0.3)
    assert isinstance(limited.error, TimeLimitExceeded)
    missing = one("true {out}", out=str(tmp_path / "o"))
    assert isinstance(missing.error, MissingOutput)
    absent = one("cat {in}", str(tmp_path / "nonesuch"))
    assert isinstance(absent.error, TransferFailed)
    assert "nonesuch" in str(absent.error)


@pytest.mark.parametrize(
    ("needs", "words"),
    [
        (serai.Needs(software=("nonesuch",)), "nonesuch, which this node does not have"),
        (serai.Needs(cores=1000), "1000 cores and this node has 2"),
        (serai.Needs(memory_bytes=10**15), "1 PB of memory"),
    ],
)
def test_needs_that_nobody_meets_fail_within_seconds(pool: serai.Pool, needs: serai.Needs, words: str) -> None:
    began = time.monotonic()
    done = list(pool.run("true {line}", lines(30), needs=needs))
    assert time.monotonic() - began < 40
    assert len(done) == 30
    for outcome in done:
        assert isinstance(outcome.error, NeedsUnmet)
        assert "local: " in str(outcome.error)
        assert words in str(outcome.error)


def test_needs_that_are_met(pool: serai.Pool) -> None:
    needs = serai.Needs(cores=2, memory_bytes=10**6, software=("sh", "true"))
    assert [outcome.ok for outcome in pool.run("true {line}", lines(3), needs=needs)] == [True] * 3


def test_items_are_taken_as_they_are_needed(pool: serai.Pool) -> None:
    taken = 0

    def endless() -> Iterator[serai.Item]:
        nonlocal taken
        for taken in itertools.count(1):
            yield serai.Item(line=str(taken))

    outcomes = pool.run("true {line}", endless())
    assert all(outcome.ok for outcome in itertools.islice(outcomes, 50))
    outcomes.close()  # type: ignore[attr-defined]
    assert taken < 20_000
    seen = taken
    until(lambda: pool.look().assigned == 0)
    assert taken - seen <= 500
    assert pool.look().queued == 0


def test_who_stops_early_ends_what_runs(pool: serai.Pool, tmp_path: Path) -> None:
    outcomes = pool.run(
        f'sh -c \'test "$1" = 0 || {{ echo $$ > "$2/$1"; exec sleep 60; }}\' sh {{line}} {tmp_path}', lines(5)
    )
    assert next(outcomes).ok
    until(lambda: [path for path in tmp_path.iterdir() if path.read_text(encoding="ascii").strip()])
    outcomes.close()  # type: ignore[attr-defined]
    pids = [path.read_text(encoding="ascii").strip() for path in tmp_path.iterdir()]
    until(lambda: not any(Path("/proc", pid).exists() for pid in pids if pid))
    until(lambda: pool.look().assigned == 0)


def test_items_that_raise_in_the_middle(pool: serai.Pool) -> None:
    def broken() -> Iterator[serai.Item]:
        yield from lines(20)
        raise ZeroDivisionError("in the middle")

    seen: list[bool] = []
    outcomes = pool.run("true {line}", broken())
    with pytest.raises(ZeroDivisionError, match="middle"):
        seen.extend(outcome.ok for outcome in outcomes)
    assert seen == [True] * len(seen)
    assert len(list(pool.run("true {line}", lines(5)))) == 5


def test_two_at_once(pool: serai.Pool) -> None:
    one, two = pool.run("echo one {line}", lines(200)), pool.run("echo two {line}", lines(200))
    mixed = [outcome.stdout for pair in zip(one, two, strict=True) for outcome in pair]
    assert sorted(mixed) == sorted(f"{name} {n}\n".encode() for n in range(200) for name in ("one", "two"))


def test_a_slow_source_does_not_hold_up_what_it_gave(pool: serai.Pool, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each item waits until the one before has ended somewhere else: nobody may gather them."""
    monkeypatch.setattr("serai.apps.bag.SLOW_S", 0.0)  # any source is slow
    go = threading.Semaphore(1)

    def asked() -> Iterator[serai.Item]:
        for item in lines(6):
            assert go.acquire(timeout=SOON_S)
            yield item

    count = 0
    for outcome in pool.run("true {line}", asked()):
        assert outcome.ok
        count += 1
        go.release()
    assert count == 6


def test_retries(pool: serai.Pool, tmp_path: Path) -> None:
    command = 'sh -c \'echo x >> "$1"; test $(wc -l < "$1") -ge 3\' sh {line}'
    items = [serai.Item(line=str(tmp_path / "tries"))]
    (outcome,) = pool.run(command, items, retries=2)
    assert outcome.ok
    (tmp_path / "tries").unlink()
    (outcome,) = pool.run(command, items, retries=1)
    assert not outcome.ok
    assert (tmp_path / "tries").read_text(encoding="ascii") == "x\nx\n"


def test_long_output_is_in_a_file(pool: serai.Pool) -> None:
    (outcome,) = pool.run("head -c 1000000 /dev/zero")
    assert outcome.stdout == b""
    assert Path(outcome.stream_paths[0]).read_bytes() == bytes(1_000_000)


def test_shutdown_ends_commands_and_whoever_waits_for_them() -> None:
    pool = serai.Pool(max_workers=1)
    outcomes = pool.run("sleep {line}", [serai.Item(line="0"), serai.Item(line="60")])
    assert next(outcomes).ok
    began = time.monotonic()
    threading.Timer(0.2, pool.shutdown).start()
    with pytest.raises(SeraiError, match="shut down"):
        next(outcomes)
    assert time.monotonic() - began < 40


def test_mistakes_are_said_at_once(pool: serai.Pool, tmp_path: Path) -> None:
    with pytest.raises(UsageError):
        pool.run("sh -c 'echo {line}'", lines(1))
    with pytest.raises(UsageError, match="no file matches"):
        serai.files(str(tmp_path / "*.txt"))


def test_items_may_depend_on_outcomes_of_items_before_them() -> None:
    """A search, say: the generator waits for what it gave before it gives more."""
    came = threading.Semaphore(0)

    def search() -> Iterator[serai.Item]:
        for number in range(6):
            yield serai.Item(line=str(number))
            if number % 2:
                assert came.acquire(timeout=SOON_S)
                assert came.acquire(timeout=SOON_S)

    with serai.Pool("local:?slots=2") as pool:
        seen = []
        for outcome in pool.run("echo {line}", search()):
            seen.append(int(outcome.stdout))
            came.release()
    assert sorted(seen) == list(range(6))
