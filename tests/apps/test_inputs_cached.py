"""Larger inputs of commands on nodes that are not this machine: catalogued, brought once, kept, and never wrong."""

from __future__ import annotations

import os
import time
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from fsspec.implementations.memory import MemoryFileSystem

import serai
from serai.apps.bag import Bag
from serai.apps.cargo import Packer
from serai.apps.frontends.pool import Options
from serai.apps.plan import Plan
from serai.describe.poolfile import site_from_url
from serai.describe.task import Cause, State
from serai.dispatch.carrier import Timing
from serai.dispatch.engines.local import LocalEngine
from serai.dispatch.history.archive import Archive
from serai.dispatch.ports import PRICES, Place
from serai.dispatch.run import Settings
from serai.dispatch.schedule import events as ev
from serai.errors import UsageError
from serai.match.movement import Move, Way
from serai.travel.executor import wire

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from serai.dispatch.ports import NodeSpec

SIZE = 400_000
COUNT = "sh -c 'cat \"$1\" | wc -c' sh {in}"
SUM = "sh -c 'cksum < \"$1\"' sh {in}"


@pytest.fixture(autouse=True)
def _elsewhere(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Executors of this machine are taken for such of others, which do not see its files."""
    nodes = LocalEngine.nodes

    def elsewhere(self: LocalEngine, site: Any) -> list[NodeSpec]:
        return [replace(spec, in_place=False, by_reference=False) for spec in nodes(self, site)]

    monkeypatch.setattr(LocalEngine, "nodes", elsewhere)
    monkeypatch.setenv("SERAI_STATE", str(tmp_path / "state"))


@pytest.fixture
def pool(tmp_path: Path) -> Iterator[Callable[..., serai.Pool]]:
    settings = Settings(timing=Timing(beat_s=0.2, silence_s=5.0))
    pools: list[serai.Pool] = []

    def make(*names: str, slots: int = 2, **options: Any) -> serai.Pool:
        sites = [f"local://{name}?slots={slots}&scratch={tmp_path / name}" for name in names or ("one",)]
        pools.append(serai.Pool(*sites, options=Options(runs=tmp_path / "runs", settings=settings, **options)))
        return pools[-1]

    yield make
    for one in pools:
        one.shutdown()


@pytest.fixture
def files(tmp_path: Path) -> list[str]:
    (tmp_path / "d").mkdir()
    paths = [tmp_path / "d" / f"f{n}" for n in range(3)]
    for path in paths:
        path.write_bytes(os.urandom(SIZE))
        os.utime(path, (1e9, 1e9 + 0.5))
    return [str(path) for path in paths]


def all_up(pool: serai.Pool) -> bool:
    """Whether every node has checked in: what is said to one that has not is lost, and others do its work."""
    nodes = pool._core.run.dispatcher.nodes_now
    return bool(nodes) and all(node.slots for node in nodes)


def notes(tmp_path: Path, name: str, task: int) -> list[str]:
    with Archive(tmp_path / "runs").open(name, time.time()) as history:
        return [note.text for note in history.task(task).notes if not note.text.startswith(PRICES)]


def asked(pool: serai.Pool, node: str, monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The files that a node asks the front end for from now on."""
    found: list[int] = []
    carrier = pool._core.run.roster.carrier(node)
    assert carrier is not None
    ask = carrier._filler.ask

    def noted(number: int, attempt: int) -> None:
        found.append(number)
        ask(number, attempt)

    monkeypatch.setattr(carrier._filler, "ask", noted)
    return found


def test_each_file_is_asked_for_once_and_the_journal_says_how_it_came(
    pool: Callable[..., serai.Pool], files: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    one = pool()
    list(one.run("true", [1]))
    numbers = asked(one, "one", monkeypatch)
    done = list(one.run(COUNT, files * 4))
    assert {outcome.stdout.strip() for outcome in done} == {b"%d" % SIZE}
    assert sorted(numbers) == [1, 2, 3]
    again = list(one.run(COUNT, files))
    assert sorted(numbers) == [1, 2, 3]
    for outcome in again:
        assert notes(tmp_path, one.name, outcome.task) == [f"inputs: {outcome.item.inputs[0]} cached"]
    small, program = tmp_path / "small", tmp_path / "program"
    small.write_bytes(b"x" * 1000)
    program.write_bytes(b"#!/bin/sh\necho ran\n" + b"#" * SIZE)
    program.chmod(0o755)
    (outcome,) = one.run('sh -c \'wc -c < "$1"; "./$2"\' sh {in}', [serai.Item((str(small), str(program)))])
    assert outcome.stdout.split() == [b"1000", b"ran"], outcome.error
    assert sorted(numbers) == [1, 2, 3]


def test_a_later_run_finds_what_the_cache_has(
    pool: Callable[..., serai.Pool], files: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("serai.data.digests.YOUNG_S", 0.0)  # they may have been written less than 0.1 s ago
    first = pool()
    sums = [outcome.stdout for outcome in first.run(SUM, files)]
    first.shutdown()
    second = pool()
    list(second.run("true", [1]))
    numbers = asked(second, "one", monkeypatch)
    assert sorted(outcome.stdout for outcome in second.run(SUM, files)) == sorted(sums)
    assert numbers == []
    Path(files[0]).write_bytes(b"y" * SIZE)  # it is another file now, and nobody takes the old one for it
    assert {outcome.stdout for outcome in second.run(SUM, files)} != set(sums)
    assert len(numbers) == 1


def test_a_file_that_cannot_be_read_fails_its_tasks_at_once_and_no_others(
    pool: Callable[..., serai.Pool], files: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    two = pool("one", "two")
    run = two._core.run
    pieces = "serai.dispatch.files.filling._read"
    read: list[str] = []

    def broken(path: str) -> Iterator[bytes]:
        read.append(path)
        if path == files[0]:
            raise PermissionError(13, "Permission denied", path)
        with open(path, "rb") as stream:
            yield stream.read()

    monkeypatch.setattr(pieces, broken)
    done = {outcome.item.inputs[0]: outcome for outcome in two.run(COUNT, files)}
    bad = done.pop(files[0])
    assert bad.cause is Cause.INPUT
    assert f"cannot read its input {files[0]}: Permission denied" in bad.detail
    assert all(outcome.ok for outcome in done.values())
    assert read.count(files[0]) == 1  # another node would not help
    assert run.dispatcher.failure is None


def test_a_file_that_changes_while_it_is_sent_is_not_half_the_one_and_half_the_other(
    pool: Callable[..., serai.Pool], files: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    two = pool("one", "two")

    def changing(path: str) -> Iterator[bytes]:
        data = Path(path).read_bytes()
        Path(path).write_bytes(data[:-1])
        yield data[:1000]
        yield data[1000:]

    with monkeypatch.context() as patch:
        patch.setattr("serai.dispatch.files.filling._read", changing)
        (outcome,) = two.run(COUNT, [files[0]])
    assert outcome.cause is Cause.INPUT
    assert "it has changed since the run looked at it" in outcome.detail


def test_nodes_give_each_other_what_the_front_end_has_lost(
    pool: Callable[..., serai.Pool], files: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    two = pool("one", "two")
    run = two._core.run
    until(lambda: all_up(two), "both are up")
    (first,) = two.run(SUM, [files[0]])
    other = "two" if first.node == "one" else "one"
    until(lambda: run.catalogue._who.peers[first.node].port, "it listens for its peers")
    number = run.catalogue.number(files[0])
    assert number is not None

    def gone(path: str) -> Iterator[bytes]:
        raise FileNotFoundError(2, "No such file or directory", path)

    monkeypatch.setattr("serai.dispatch.files.filling._read", gone)
    run.roster.copy(ev.Copy(number, other, ""))
    until(lambda: run.catalogue.file(number).holders == {"one", "two"}, "it has come to the other")


def test_nodes_that_cannot_reach_each_other_give_by_way_of_the_front_end(
    pool: Callable[..., serai.Pool], files: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("serai.dispatch.carrier.Carrier.meet", lambda _self: None)
    Path(files[0]).write_bytes(os.urandom(3_000_001))
    two = pool("one", "two")
    run = two._core.run
    until(lambda: all_up(two), "both are up")
    (first,) = two.run(SUM, [files[0]])
    other = "two" if first.node == "one" else "one"
    number = run.catalogue.number(files[0])
    assert number is not None
    until(lambda: run.catalogue.file(number).holders == {first.node}, "it is known who has it")
    os.unlink(files[0])
    run.roster.copy(ev.Copy(number, other, first.node))
    until(lambda: run.catalogue.file(number).holders == {"one", "two"}, "it has come to the other")
    assert not run.catalogue._who.peers["one"].port


def test_inputs_by_url_are_read_once(
    pool: Callable[..., serai.Pool], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    memory = MemoryFileSystem()
    memory.pipe_file("/big", os.urandom(SIZE))
    opened: list[str] = []
    open_ = MemoryFileSystem._open

    def counted(self: MemoryFileSystem, path: str, *more: Any, **others: Any) -> Any:
        opened.append(path)
        return open_(self, path, *more, **others)

    monkeypatch.setattr(MemoryFileSystem, "_open", counted)
    one = pool()
    done = list(one.run(COUNT, ["memory://big"] * 6))
    assert {outcome.stdout.strip() for outcome in done} == {b"%d" % SIZE}
    assert opened == ["/big"]
    assert notes(tmp_path, one.name, done[0].task)[0].startswith("inputs: memory://big ")
    memory.store.clear()


def test_a_cache_may_hold_so_much_and_no_more(
    pool: Callable[..., serai.Pool], files: list[str], tmp_path: Path
) -> None:
    one = pool(cache="1MB")
    done = list(one.run(COUNT, files * 3))
    assert all(outcome.ok for outcome in done), [outcome.error for outcome in done]
    there = list((tmp_path / "one" / f"serai-{os.getuid()}-cache").glob("objects/*/*"))
    assert len(there) == 2
    assert site_from_url("ssh://lab1?cache=20GB").cache_bytes == 20_000_000_000


def test_what_is_read_from_afar_is_said_to_the_lane_and_not_brought(
    pool: Callable[..., serai.Pool], files: list[str]
) -> None:
    one = pool()
    list(one.run("true", [1]))
    run = one._core.run
    spec = run.roster.specs["one"]
    bag = Bag(run, Plan(COUNT, os.getcwd()))
    first = run.reserve(1)
    bag._catalogue([serai.Item((files[0],))])
    number = run.catalogue.number(files[0])
    assert number is not None
    packer = Packer(bag.plan, bag.work, lambda _task: serai.Item((files[0],)), run.landing, bag._fetcher, run.catalogue)
    place = Place(spec, run.roster.ad("one"), set(), way_back="gateway")
    assign = ev.Assign(7, "one", 0, bag.work, [first], [Move(number, Way.READ)])
    frames = [wire.unpack(frame) for frame in packer.frames(assign, place)]
    assert [frame[0] for frame in frames] == [wire.WORK, wire.RUN]
    head = frames[1][3]
    ((name, said),) = head["reads"][0]
    assert said == number
    assert head["argv"][0][-1].endswith(name)
    source = head["sources"][str(number)]
    assert (source["kind"], source["url"], source["address"]) == ("gateway", str(number), "gateway")
    assert place.looks == {first: {number: (files[0], "")}}
    place.way_back = ""  # there is none: it is brought
    frames = [wire.unpack(frame) for frame in packer.frames(assign, place)]
    assert [frame[0] for frame in frames] == [wire.NEEDS, wire.RUN]
    assert not place.looks


@pytest.mark.parametrize("options", [{"policy": "nearest"}, {"access": "walk"}, {"cache": "much"}])
def test_mistakes_are_said(pool: Callable[..., serai.Pool], options: dict[str, str]) -> None:
    with pytest.raises(UsageError):
        pool(**options)


@pytest.mark.parametrize("policy", ["first-available", "max-cache-hit", "good-cache-compute", "auto"])
def test_all_policies_end(pool: Callable[..., serai.Pool], files: list[str], policy: str) -> None:
    done = list(pool("one", "two", policy=policy).run(COUNT, files * 3))
    assert [outcome.error for outcome in done] == [None] * 9


def until(holds: Callable[[], object], what: str, within_s: float = 40.0) -> None:
    end = time.monotonic() + within_s
    while not holds():
        assert time.monotonic() < end, f"not within {within_s:g} s: {what}"
        time.sleep(0.01)


def test_two_spellings_of_an_input_are_one(pool: Callable[..., serai.Pool], files: list[str], tmp_path: Path) -> None:
    small = tmp_path / "small"
    small.write_bytes(b"x" * 1000)
    for path in (files[0], str(small)):
        name = f"{Path(path).parent}/./{Path(path).name}"
        (outcome,) = pool("one").run("cmp {in:1} {in:2}", [serai.Item((path, name))])
        assert outcome.error is None


def test_what_the_command_names_may_be_sent_as_well(pool: Callable[..., serai.Pool], tmp_path: Path) -> None:
    (tmp_path / "d").mkdir()
    (tmp_path / "d" / "x").write_bytes(b"x")
    sends = [str(tmp_path / "d" / "x"), str(tmp_path / "d"), f"{tmp_path}/./d/x"]
    (outcome,) = pool("one").run("sh -c 'cat inputs/*/d/x'", [1], send=sends)
    assert (outcome.error, outcome.stdout) == (None, b"x")


def test_a_named_pipe_is_no_input_and_holds_nobody_up(pool: Callable[..., serai.Pool], tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    (outcome,) = pool("one").run("cat {in}", [serai.Item((str(tmp_path / "pipe"),))])
    assert outcome.state == State.FAILED
    assert "not a file that can be sent" in str(outcome.error)


def test_a_file_whose_time_was_set_back_is_another(pool: Callable[..., serai.Pool], files: list[str]) -> None:
    one = pool()
    (first,) = one.run(SUM, files[:1])
    found = os.stat(files[0])
    Path(files[0]).write_bytes(os.urandom(SIZE))
    os.utime(files[0], ns=(found.st_atime_ns, found.st_mtime_ns))
    (second,) = one.run(SUM, files[:1])
    assert second.stdout != first.stdout


def test_names_that_are_no_text_are_names(pool: Callable[..., serai.Pool], tmp_path: Path) -> None:
    path = os.fsdecode(os.fsencode(tmp_path) + b"/\xff\xfe")
    Path(path).write_bytes(b"x" * SIZE)
    none = f"{path}none"
    one = pool()
    done = {outcome.item.inputs[0]: outcome for outcome in one.run(COUNT, [path, none])}
    assert (done[path].error, done[path].stdout.strip()) == (None, b"%d" % SIZE)
    assert done[none].state == State.FAILED
    assert notes(tmp_path, one.name, done[path].task) == [f"inputs: {tmp_path}/\\udcff\\udcfe sent"]
