"""Real worker processes against a front end of the test's own."""

from __future__ import annotations

import collections
import io
import itertools
import os
import pickle
import random
import signal
import socket
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import cloudpickle
import pytest

from serai.travel.mapreduce.link import GAVE_UP
from serai.travel.processes import children_of

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from tests.mapreduce.mrfront import RUN, Front, Plan, command, function, splits_of
else:
    from mrfront import RUN, Front, Plan, command, function, splits_of


def words(path: Path, count: int = 20_000) -> collections.Counter[str]:
    rnd = random.Random(7)  # noqa: S311 - the same words each time
    vocabulary = [f"w{number}" for number in range(500)] + ["é", "日本", "x" * 100]
    chosen = rnd.choices(vocabulary, k=count)
    lines = [" ".join(chosen[at : at + 9]) for at in range(0, count, 9)]
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return collections.Counter(chosen)


def counts_of(text: bytes) -> dict[str, int]:
    pairs = [line.split("\t") for line in text.decode().splitlines()]
    assert len({key for key, _ in pairs}) == len(pairs)
    return {key: int(value) for key, value in pairs}


@pytest.mark.parametrize("relayed", [False, True], ids=["by path", "relayed"])
def test_counts_words_with_several_workers(front: Callable[[Plan], Front], tmp_path: Path, relayed: bool) -> None:
    expected = words(tmp_path / "in")
    plan = Plan(
        **function(mapper=str.split, combiner="count"),
        splits=splits_of(tmp_path / "in", 5, relayed=relayed),
        partitions=3,
        output=None if relayed else tmp_path,
    )
    run = front(plan)
    for name in ("a", "b"):
        run.start(name)
    text = run.finish()
    assert counts_of(text) == expected
    for number in range(3):
        lines = run.part(number).decode().splitlines()
        assert [line.split("\t")[0] for line in lines] == sorted(line.split("\t")[0] for line in lines)
    assert (run.read != []) == relayed
    assert set(run.committed) == (set(run.written) if relayed else set())
    for process in run.processes.values():
        assert process.wait(10) == 0
    assert not list((tmp_path / "a").iterdir()) and not list((tmp_path / "b").iterdir())  # noqa: PT018 - one fact
    assert not run.adverts.list("/mapreduce/run1/workers")


def interpreters() -> list[str]:
    """The oldest and the newest that lie beside this one; at least this one."""
    beside = [
        path
        for version in ("3.8", "3.9", "3.13", "3.14")
        for path in sorted(Path(sys.base_prefix).parent.glob(f"{version}.*/bin/python"))
    ]
    return [str(path) for path in beside] or [sys.executable]


@pytest.mark.parametrize("python", interpreters())
def test_any_python_can_be_a_worker(front: Callable[[Plan], Front], tmp_path: Path, python: str) -> None:
    """Two of them and this one's, which reduce what each other mapped, over TLS."""
    expected = words(tmp_path / "in")
    plan = Plan(**function(mapper=str.split, combiner="count"), splits=splits_of(tmp_path / "in", 4), partitions=4)
    plan.located = _elsewhere
    run = front(plan)
    run.start("a", python)
    run.until(lambda: run.maps, 20)
    run.start("b")
    assert counts_of(run.finish()) == expected
    assert not any("map-" in path for path in run.read)


def test_commands_stream(front: Callable[[Plan], Front], tmp_path: Path) -> None:
    expected = words(tmp_path / "in")
    plan = Plan(
        **command(
            mapper="tr -s ' ' '\\n' | sed 's/$/\\t1/'",
            combiner="awk -F'\\t' '$1 != k { if (NR > 1) print k \"\\t\" n; k = $1; n = 0 } { n += $2 } "
            'END { print k "\\t" n }\'',
            reducer="awk -F'\\t' '$1 != k { if (NR > 1) print k \"\\t\" n; k = $1; n = 0 } { n += $2 } "
            'END { if (NR) print k "\\t" n }\'',
        ),
        splits=splits_of(tmp_path / "in", 3),
        output=tmp_path,
    )
    run = front(plan)
    run.start("a")
    assert counts_of(run.finish()) == expected


def test_the_output_is_the_same_whoever_made_it(tmp_path: Path) -> None:
    """Values keep the order (map task, position), over the wire, through the front end or by path."""
    words(tmp_path / "in")
    outputs = []
    for number, located in enumerate([None, _elsewhere, _unreachable]):
        room = tmp_path / str(number)
        room.mkdir()
        plan = Plan(
            **command(mapper='awk \'{ for (i = 1; i <= NF; i++) print $i "\\t" NR ":" i }\''),
            splits=splits_of(tmp_path / "in", 4),
            output=room,
            located=located or (lambda one: one),
        )
        with Front(room, plan) as run:
            for name in ("a", "b") if number else ("a",):
                run.start(name)
            outputs.append(run.finish())
            assert any("map-" in path for path in run.read) == (number == 2)
    assert outputs[0].count(b"\n") == 20_000
    assert outputs[0] == outputs[1] == outputs[2]


def _elsewhere(one: dict[str, Any]) -> dict[str, Any]:
    return {**one, "host": "another"}


def _unreachable(one: dict[str, Any]) -> dict[str, Any]:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return {**one, "host": "another", "port": free.getsockname()[1]}


def test_a_reducer_gets_values_and_gives_one_or_several(front: Callable[[Plan], Front], tmp_path: Path) -> None:
    (tmp_path / "in").write_text("b 1\na 2\nb 3\n")
    parts = {"mapper": split_pair, "reducer": twice}
    run = front(Plan(**by_value(**parts), splits=splits_of(tmp_path / "in", 3), partitions=1))
    run.plan.head["form"] = "pickle"
    run.start("a")
    data = io.BytesIO(run.finish())
    assert pickle.load(data) == [("a", ["2"]), ("a", 1), ("b", ["1", "3"]), ("b", 2)]
    assert not data.read()
    assert run.reports[-1]["outputs"]["records"] == 4
    times = [report["times"] for report in run.reports]
    assert {"read", "map", "sort", "total", "began"} <= set(times[0])
    assert {"fetch", "reduce", "write", "total", "began"} <= set(times[-1])


def split_pair(line: str) -> Iterator[tuple[str, str]]:
    key, value = line.split()
    yield key, value


def twice(_: str, values: Iterator[str]) -> Iterator[object]:
    found = list(values)
    yield found
    yield len(found)


def refuse(line: str) -> Iterator[tuple[str, int]]:
    raise LookupError(f"no use for {line!r}")


def forever(_: str) -> Iterator[tuple[str, int]]:
    for number in itertools.count():
        time.sleep(0.01)
        if number < 0:
            yield "never", number


def by_value(**parts: object) -> dict[str, Any]:
    """Functions that travel by their code, and the module that unpacks them."""
    module = sys.modules[__name__]
    cloudpickle.register_pickle_by_value(module)
    try:
        body = cloudpickle.dumps(parts)
    finally:
        cloudpickle.unregister_pickle_by_value(module)
    return {"head": function(**parts)["head"], "body": body}


def test_what_a_mapper_raises_is_told_with_its_line(front: Callable[[Plan], Front], tmp_path: Path) -> None:
    (tmp_path / "in").write_text("something\n")
    run = front(Plan(**by_value(mapper=refuse), splits=splits_of(tmp_path / "in", 1)))
    run.start("a")
    run.until(lambda: run.failures)
    (failure,) = run.failures
    assert failure["kind"] == "map"
    assert (failure["task"], failure["attempt"], failure["transient"], failure["missing"]) == (0, 1, False, [])
    assert "LookupError: no use for 'something'" in failure["what"]
    assert "test_worker.py" in failure["what"]
    assert "serai_travel" not in failure["what"]


def test_functions_that_cannot_be_loaded_are_told(front: Callable[[Plan], Front], tmp_path: Path) -> None:
    (tmp_path / "in").write_text("something\n")
    plan = Plan({"mapper": {"kind": "function"}}, splits_of(tmp_path / "in", 1), body=b"cno_such_module\nf\n.")
    run = front(plan)
    run.start("a")
    run.until(lambda: run.failures)
    assert "cannot be loaded on this node" in run.failures[0]["what"]
    assert "no_such_module" in run.failures[0]["what"]


def test_a_map_output_that_is_gone_is_missing(front: Callable[[Plan], Front], tmp_path: Path) -> None:
    words(tmp_path / "in", 1000)
    plan = Plan(**function(mapper=str.split, combiner="count"), splits=splits_of(tmp_path / "in", 3), partitions=1)
    plan.located = lambda one: {**one, "path": one["path"] + "x"} if one["task"] == 1 else one
    run = front(plan)
    run.start("a")
    run.until(lambda: run.failures)
    assert run.failures[0]["missing"] == [1]
    assert run.failures[0]["kind"] == "reduce"


@pytest.mark.parametrize("kind", ["function", "command"])
def test_an_order_that_is_withdrawn_ends_with_its_children(
    front: Callable[[Plan], Front], tmp_path: Path, kind: str
) -> None:
    (tmp_path / "in").write_text("line\n")
    mapper = command(mapper="setsid sleep 1000 & sleep 1000") if kind == "command" else by_value(mapper=forever)
    run = front(Plan(**mapper, splits=splits_of(tmp_path / "in", 1)))
    process = run.start("a")
    run.until(lambda: run.beats)
    children = soon(lambda: below(process.pid), 2 * (kind == "command"))
    with run.changed:
        run.cancelled.add("a")
        run.queue.append({"kind": "drop", "paths": ["/etc/passwd"]})
        assert run.changed.wait_for(lambda: not run.queue, 40)
    assert run.failures[0]["what"] == "it was withdrawn"
    assert not [pid for pid in children if os.path.exists(f"/proc/{pid}")]
    assert process.poll() is None


def soon(what: Callable[[], list[int]], count: int) -> list[int]:
    """So many of something that is under way."""
    end = time.monotonic() + 40
    while len(found := what()) < count:
        assert time.monotonic() < end, found
        time.sleep(0.01)
    return found


def below(pid: int) -> list[int]:
    found = children_of(pid)
    return found + [other for child in found for other in below(child)]


@pytest.mark.parametrize("how", [signal.SIGTERM, signal.SIGHUP, "gateway"])
def test_a_worker_that_ends_leaves_nothing(front: Callable[[Plan], Front], tmp_path: Path, how: Any) -> None:
    (tmp_path / "in").write_text("line\n")
    run = front(Plan(**command(mapper="sleep 1000"), splits=splits_of(tmp_path / "in", 1)))
    process = run.start("a", SERAI_GATEWAY_PATIENCE_S="1")
    run.until(lambda: run.beats)
    children = soon(lambda: below(process.pid), 1)
    assert list((tmp_path / "a").iterdir())
    if how == "gateway":
        run.gateway.close()
    else:
        process.send_signal(how)
    assert process.wait(60) == (GAVE_UP if how == "gateway" else 0)
    assert not list((tmp_path / "a").iterdir())
    assert not [pid for pid in children if os.path.exists(f"/proc/{pid}")]


def test_map_outputs_are_dropped_when_told(front: Callable[[Plan], Front], tmp_path: Path) -> None:
    words(tmp_path / "in", 1000)
    plan = Plan(**function(mapper=str.split, combiner="count"), splits=splits_of(tmp_path / "in", 2))
    run = front(plan)
    run.stops = False
    run.start("a")
    run.finish()
    kept, dropped = (run.maps[number][1]["path"] for number in range(2))
    with run.changed:
        run.queue.append({"kind": "drop", "paths": [dropped, str(tmp_path / "in")]})
        assert run.changed.wait_for(lambda: not run.queue, 40)
    until = time.monotonic() + 40
    while os.path.exists(dropped):
        assert time.monotonic() < until
        time.sleep(0.01)
    assert os.path.exists(kept)
    assert (tmp_path / "in").exists()


def test_a_worker_forgotten_for_a_while_registers_again(front: Callable[[Plan], Front], tmp_path: Path) -> None:
    (tmp_path / "in").write_text("line\n")
    run = front(Plan(**command(mapper="sleep 1000"), splits=splits_of(tmp_path / "in", 1)))
    run.start("a")
    run.until(lambda: run.beats)
    path = f"/mapreduce/{RUN}/workers/a"
    entry = run.adverts.get(path)
    assert entry is not None
    assert entry.attributes["python"] == list(sys.version_info[:3])
    assert entry.attributes["shuffle_port"]
    run.adverts.remove(path)
    until = time.monotonic() + 40
    while run.adverts.get(path) is None:
        assert time.monotonic() < until
        time.sleep(0.05)
