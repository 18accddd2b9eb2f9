"""Real worker processes against a front end of the test's own."""

from __future__ import annotations

import collections
import random
import socket
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from tests.mapreduce.mrfront import Front, Plan, command, function, splits_of
else:
    from mrfront import Front, Plan, command, function, splits_of


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
