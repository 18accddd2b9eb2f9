"""How commands and their files are made ready to travel: the frames of a bundle."""

from __future__ import annotations

import contextlib
import itertools
import os
import stat
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from serai.describe.places import path_here
from serai.describe.task import Cause
from serai.describe.template import Values
from serai.dispatch.ports import CargoRefused
from serai.dispatch.reading.telling import joined
from serai.errors import TransferFailed, UsageError
from serai.match.movement import Way
from serai.travel.executor import wire

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Iterable, Iterator, Mapping

    from serai.apps.fetching import Ahead, Fetcher
    from serai.apps.plan import Plan
    from serai.data.landing import Landing
    from serai.describe.task import Item
    from serai.dispatch.files.catalogue import Catalogue
    from serai.dispatch.ports import Place
    from serai.dispatch.schedule.events import Assign
    from serai.match.movement import Move

MOST_LOOKS = 100_000  # tasks of one node that read from afar and have not ended


@dataclass(slots=True)
class _Load:
    """A bundle in the making: parallel lists."""

    tasks: list[int] = field(default_factory=list)
    argv: list[tuple[str, ...]] = field(default_factory=list)
    inputs: list[list[list[Any]]] = field(default_factory=list)
    outputs: list[list[str]] = field(default_factory=list)
    landing: list[list[list[str]]] = field(default_factory=list)
    files: dict[int, None] = field(default_factory=dict)  # catalogued ones, each once
    afar: dict[int, Move] = field(default_factory=dict)  # those that are read from afar, where they may be
    reads: list[list[list[Any]]] = field(default_factory=list)
    sources: dict[int, dict[str, Any]] = field(default_factory=dict)
    ahead: Ahead | None = None  # inputs by URL that are opened before their turn


class Packer:
    """Packs the bundles of a plan.

    Args:
        plan: what its tasks share.
        work: its number.
        item: gives a task's item, None when the task was withdrawn.
        landing: where outputs will come home.
        fetcher: gives what brings inputs by URL; asked only if there are any.
        catalogue: knows the files that are brought to a node once.
    """

    def __init__(
        self,
        plan: Plan,
        work: int,
        item: Callable[[int], Item | None],
        landing: Landing,
        fetcher: Callable[[], Fetcher],
        catalogue: Catalogue,
    ) -> None:
        self._catalogue = catalogue
        self._plan = plan
        self._work = work
        self._item = item
        self._landing = landing
        self._fetcher = fetcher
        self._template = plan.template()
        self._places = plan.places()
        self._shared = [self._places.node_path(path) for path in plan.shared]
        self._keys = itertools.count(1)
        # One command for all tasks travels once, with what they share.
        self._same = None if self._template.placeholders else list(self._template.render(Values()))
        self._bare = self._same is not None

    def finals(self, item: Item, task: int) -> tuple[str, ...]:
        """Where a task's outputs end, as absolute paths: those of placeholders, then those the item names itself.

        Raises:
            UsageError: there is no such place.
        """
        places = self._places
        found = [places.output_path(item, one, task) for one in self._template.outputs]
        found += [places.named_output(item, name) for name in item.outputs]
        return tuple(found)

    def frames(self, assign: Assign, place: Place) -> Iterator[bytes]:
        """See `Owner.cargo`."""
        if self._work not in place.holds:
            yield from self._work_frames(place)
            place.holds.add(self._work)
        load = _Load(afar=_afar(assign, place))
        refused: dict[int, tuple[int, str]] = {}
        try:
            for task in assign.tasks:
                try:
                    yield from self._pack(load, task, assign, place)
                except UsageError as error:
                    refused[task] = (int(Cause.NO_COMMAND), str(error))
                except TransferFailed as error:
                    refused[task] = (int(Cause.INPUT), error.what)
                except OSError as error:
                    refused[task] = (int(Cause.INPUT), f"cannot read its input {error.filename}: {error.strerror}")
        finally:
            if load.ahead is not None:
                load.ahead.close()
        if load.tasks or not refused:
            yield from self._run_frames(load, assign, place)
        if refused:
            for task in refused:
                self._landing.discard(assign.bundle, task)
            raise CargoRefused(refused)

    def _run_frames(self, load: _Load, assign: Assign, place: Place) -> Iterator[bytes]:
        if load.files:
            head = self._catalogue.needs(place.spec.name, load.files, assign.moves)
            yield wire.pack(wire.NEEDS, 0, assign.bundle, head)
        yield wire.pack(wire.RUN, assign.lane, assign.bundle, self._head(load))

    def _pack(self, load: _Load, task: int, assign: Assign, place: Place) -> Iterator[bytes]:
        item = self._item(task)
        if item is None:
            return
        if self._bare and not item.inputs and not item.outputs:
            load.tasks.append(task)
        elif place.spec.in_place:
            yield from self._pack_in_place(load, task, item, assign, place)
        else:
            yield from self._pack_remote(load, task, item, assign, place)

    def _head(self, load: _Load) -> dict[str, Any]:
        lists = {"argv": load.argv, "in": load.inputs, "out": load.outputs, "land": load.landing}
        if any(load.reads):
            lists["reads"] = load.reads
            lists["sources"] = load.sources
        found = {name: values for name, values in lists.items() if values}
        if not any(load.inputs):
            found.pop("in", None)
        if any(load.reads):
            found["reads"] = load.reads
        return {"w": self._work, "ids": load.tasks} | found

    # ---- on this machine

    def _pack_in_place(self, load: _Load, task: int, item: Item, assign: Assign, place: Place) -> Iterator[bytes]:
        plan = self._plan
        columns = {name: item.columns[name] for name in self._template.input_columns}
        names: dict[str, str] = {}
        elsewhere: dict[str, str] = {}
        for path in (*item.inputs, *columns.values()):
            here = path_here(path)
            if here is None:
                elsewhere[path] = self._places.node_path(path)
                names[path] = f"{place.ad['base']}/task-{assign.lane}/{elsewhere[path]}"
                continue
            whole = os.path.join(plan.cwd, here)
            if not os.access(whole, os.R_OK):
                os.stat(whole)  # says what is wrong, where something is
                raise PermissionError(13, "permission denied", path)
            names[path] = here if plan.workdir is None else whole
        laid: list[list[Any]] = []
        if elsewhere:
            yield from self._bring(load, elsewhere, task, assign, place, laid)
        inputs = tuple(names[path] for path in item.inputs)
        columns = {name: names[path] for name, path in columns.items()}
        finals = self.finals(item, task)
        count = len(self._template.outputs)
        pairs = self._landing.expect(assign.bundle, task, finals[:count]) if finals else []
        # What the item names itself is written where it belongs: nobody tells the program another name.
        pairs += [[os.path.dirname(final), final] for final in finals[count:]]
        outputs = {one: pairs[n][1] for n, one in enumerate(self._template.outputs)}
        values = Values(inputs, outputs, item.line, item.columns, columns, task)
        argv = self._template.render(values) if self._same is None else tuple(self._same)
        load.tasks.append(task)
        load.argv.append(argv)
        load.inputs.append(laid)
        load.landing.append(pairs)

    # ---- elsewhere

    def _pack_remote(self, load: _Load, task: int, item: Item, assign: Assign, place: Place) -> Iterator[bytes]:
        plan, places = self._plan, self._places
        prefix = "" if plan.workdir is None else f"{place.ad['base']}/task-{assign.lane}/"
        names = {path: places.node_path(path) for path in item.inputs}
        columns = {name: item.columns[name] for name in self._template.input_columns}
        names |= {path: places.node_path(path) for path in columns.values()}
        laid: list[list[Any]] = []
        elsewhere: dict[str, str] = {}
        files: dict[int, str] = {}
        reads: dict[int, str] = {}
        for name, path in {name: path for path, name in names.items()}.items():  # "x" and "./x" are one
            here = path_here(path)
            if self._is_shared(name):
                continue  # it is there already, as a file that every task needs
            number = self._number(path, here, place)
            if number is not None and number in load.afar:
                reads[number] = path
                continue
            if number is not None:
                files[number] = path
                laid.append([{"file": number}, name])
                continue
            if here is None:
                elsewhere[path] = name
                continue
            key = self._key(next(self._keys))
            yield from file_frames(os.path.join(plan.cwd, here), path, assign.lane, key)
            laid.append([key, name])
        if elsewhere:
            yield from self._bring(load, elsewhere, task, assign, place, laid)
        finals = self.finals(item, task)
        there = [places.node_path(final) for final in finals]
        if finals:
            self._landing.expect(assign.bundle, task, finals)
        outputs = {one: prefix + there[n] for n, one in enumerate(self._template.outputs)}
        values = Values(
            tuple(prefix + names[path] for path in item.inputs),
            outputs,
            item.line,
            item.columns,
            {name: prefix + names[path] for name, path in columns.items()},
            task,
        )
        argv = self._template.render(values) if self._same is None else tuple(self._same)
        load.tasks.append(task)
        load.argv.append(argv)
        load.inputs.append(laid)
        load.outputs.append(there)
        load.reads.append(self._reads(load, task, reads, names, place))
        if files:
            load.files |= dict.fromkeys(files)
            place.reads.setdefault(assign.bundle, []).append((task, files))

    def _reads(
        self, load: _Load, task: int, reads: Mapping[int, str], names: Mapping[str, str], place: Place
    ) -> list[list[Any]]:
        """What a task reads from afar, as its lane wants it: [name, number] of each."""
        gate = self._catalogue.gate
        if not reads or gate is None:
            place.looks.pop(task, None)  # of a former attempt
            return []
        load.sources |= gate.sources(reads.keys() - load.sources.keys(), load.afar, place)
        if len(place.looks) >= MOST_LOOKS:
            place.looks.clear()  # of tasks that were lost
        place.looks[task] = {number: (path, load.afar[number].source) for number, path in reads.items()}
        return [[names[path], number] for number, path in reads.items()]

    def _number(self, path: str, here: str | None, place: Place) -> int | None:
        """The number of an input that comes by the cache of a node; None for one that does not."""
        if here is not None:
            return self._catalogue.number_now(os.path.join(self._plan.cwd, here))
        number = self._catalogue.number(path)
        if number is not None and place.spec.name in self._catalogue.file(number).lies:
            return None  # it is used there
        return number

    # ---- by URL

    def _bring(
        self, load: _Load, urls: Mapping[str, str], task: int, assign: Assign, place: Place, laid: list[list[Any]]
    ) -> Iterator[bytes]:
        """Bring inputs that are neither here nor among what every task needs.

        Args:
            load: of which bundle.
            urls: {URL: its name in the task's directory}.
            task: whose.
            assign: in which.
            place: where.
            laid: what the executor lays down; they are added.

        Raises:
            TransferFailed: one of them cannot be read; what came of them is dropped on the node.
        """
        fetcher = self._fetcher()
        if load.ahead is None:
            load.ahead = fetcher.ahead(self._urls_of(assign.tasks), place)
        keys: list[int] = []
        ways: list[str] = []
        try:
            for url, name in urls.items():
                keys.append(self._key(next(self._keys)))
                source, way = yield from _url_frames(fetcher.bring(url, place, load.ahead), assign.lane, keys[-1])
                laid.append([source, name])
                ways.append(f"{url} {way}")
        except TransferFailed:
            yield wire.pack(wire.DROP, head={"keys": keys})
            raise
        place.ways.append((task, joined(ways)))

    def _urls_of(self, tasks: Iterable[int]) -> Iterator[str]:
        """The inputs by URL of tasks, in their order."""
        for task in tasks:
            with contextlib.suppress(UsageError):  # said in its turn
                item = self._item(task)
                if item is not None:
                    columns = (item.columns.get(name, "") for name in self._template.input_columns)
                    yield from (path for path in (*item.inputs, *columns) if path_here(path) is None)

    def _is_shared(self, name: str) -> bool:
        return any(name == one or name.startswith(one + "/") for one in self._shared)

    def _key(self, number: int) -> int:
        return (self._work << 40) | number

    def _work_frames(self, place: Place) -> Iterator[bytes]:
        plan = self._plan
        shared: list[list[Any]] = []
        head: dict[str, Any] = {"kind": "command", "env": dict(plan.env), "cwd": plan.workdir}
        if plan.time_limit_s:
            head["limit"] = plan.time_limit_s
        if place.spec.in_place:
            head["cwd"] = plan.workdir or plan.cwd
        else:
            for number, path in enumerate(plan.shared):
                key = (self._work << 40) | (1 << 39) | number
                try:
                    yield from file_frames(os.path.join(plan.cwd, path), path, wire.EVERY_LANE, key)
                except OSError as error:
                    # Every task will say so: they share it.
                    yield wire.pack(wire.FILE, wire.EVERY_LANE, key, {"bad": f"cannot read {path}: {error.strerror}"})
                shared.append([key, self._places.node_path(path)])
            head["shared"] = shared
        if self._same is not None:
            head["argv"] = self._same
        yield wire.pack(wire.WORK, wire.EVERY_LANE, self._work, head)


def _afar(assign: Assign, place: Place) -> dict[int, Move]:
    """The files that are read from afar, by number."""
    return {move.file: move for move in assign.moves if move.way == Way.READ} if place.way_back else {}


def _url_frames(events: Iterator[Any], lane: int, key: int) -> Generator[bytes, None, tuple[int | str, str]]:
    """The frames that bring a file from elsewhere; returns its key, or its path where the node has it, and how.

    Args:
        events: what `Fetcher.bring` yields.
        lane: which will use it.
        key: its own.
    """
    from serai.apps.fetching import Linked, Opened  # noqa: PLC0415 - inputs by URL are seldom

    at, mode, way = 0, 0o600, "sent"
    for event in events:
        if event is None:
            yield wire.pack(wire.PING)  # an executor that hears nothing gives the front end up
        elif isinstance(event, Linked):
            return event.path, "in place"
        elif isinstance(event, Opened):
            mode = event.mode
            way += f", because it cannot be used in place ({event.why})" if event.why else ""
        else:
            yield wire.pack(wire.FILE, lane, key, {"at": at, "mode": mode}, event)
            at += len(event)
    if at == 0:
        yield wire.pack(wire.FILE, lane, key, {"at": 0, "mode": mode})
    return key, way


def file_frames(path: str, shown: str, lane: int, key: int) -> Iterator[bytes]:
    """The frames that bring a file, or a directory with all that is in it, to a node.

    Raises:
        OSError: it cannot be read; ``filename`` is as the user knows it.
    """
    try:
        if stat.S_ISDIR(os.stat(path).st_mode):
            yield from _directory_frames(path, lane, key)
        else:
            yield from _one_file(path, lane, key, {})
    except OSError as error:
        error.filename = shown
        raise


def _directory_frames(top: str, lane: int, key: int) -> Iterator[bytes]:
    for directory, _, names in os.walk(top):
        under = os.path.relpath(directory, top)
        yield wire.pack(wire.FILE, lane, key, {"under": under, "directory": 1})
        for name in names:
            head = {"under": os.path.normpath(os.path.join(under, name))}
            yield from _one_file(os.path.join(directory, name), lane, key, head)


def _one_file(path: str, lane: int, key: int, head: dict[str, Any]) -> Iterator[bytes]:
    with open(path, "rb", buffering=0, opener=_without_waiting) as file:
        info = os.fstat(file.fileno())
        if not stat.S_ISREG(info.st_mode):
            raise OSError(22, "not a file that can be sent", path)
        at = 0
        while True:
            data = file.read(wire.CHUNK)
            if data or at == 0:
                facts = {**head, "at": at, "mode": stat.S_IMODE(info.st_mode)}
                yield wire.pack(wire.FILE, lane, key, facts, data)
            at += len(data)
            if not data or at == info.st_size:
                break
        if at < info.st_size:
            raise OSError(5, "it became shorter while it was read", path)


def _without_waiting(path: str, flags: int) -> int:
    return os.open(path, flags | os.O_NONBLOCK)  # a named pipe would wait for its writer, and all nodes with it
