"""Reads traces of workflows: WfCommons instances, in the format's versions 1.4 to 1.6.

The format is described at https://github.com/wfcommons/WfFormat. Only what a replay needs is read: tasks, who waits for
whom, files and their sizes, run times and cores; anything else may be there.
"""

from __future__ import annotations

import json
import math
from collections import deque
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

from serai.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

__all__ = ["Trace", "TraceTask", "read_trace"]

VERSIONS = ("1.4", "1.5", "1.6")
MOST_TASKS = 1_000_000


@dataclass(frozen=True, slots=True)
class TraceTask:
    """One task of a trace.

    Attributes:
        id: in the trace.
        runtime_s: how long it ran.
        cores: that it took.
        inputs: files that it reads.
        outputs: files that it writes.
        parents: positions of tasks that must have ended before.
    """

    id: str
    runtime_s: float
    cores: int = 1
    inputs: tuple[str, ...] = ()
    outputs: tuple[str, ...] = ()
    parents: tuple[int, ...] = ()


@dataclass(frozen=True, slots=True)
class Trace:
    """A workflow that has run.

    Attributes:
        name: of the instance.
        tasks: in the order of the file.
        sizes: of files, in bytes.
        makespan_s: how long it took where it was recorded; None when that is not said.
    """

    name: str
    tasks: tuple[TraceTask, ...]
    sizes: Mapping[str, int] = field(default_factory=dict)
    makespan_s: float | None = None


def read_trace(text: str, where: str) -> Trace:
    """Reads an instance.

    Args:
        text: JSON.
        where: the file's name, for errors.

    Raises:
        UsageError: it is no instance of a known version; the sentence names the file and the key.
    """
    try:
        whole = json.loads(text)
    except ValueError as error:
        raise UsageError(f"{where} is not JSON: {error}") from error
    top = _At(where, "", whole)
    version = top.text("schemaVersion")
    if version not in VERSIONS:
        raise top.wrong("schemaVersion", f"{version!r} is not one of {', '.join(VERSIONS)}")
    workflow = top.at("workflow")
    name = top.text("name")
    if version == "1.4":
        made = [_old_task(task) for task in workflow.items("tasks")]
        sizes: dict[str, int] = {}
        for _, _, of_task in made:
            sizes.update(of_task)
        found = [(task, parents) for task, parents, _ in made]
        makespan = workflow.seconds_or_none("makespanInSeconds")
    else:
        specification = workflow.at("specification")
        sizes = {one.text("id"): one.size("sizeInBytes") for one in specification.items("files", optional=True)}
        execution = workflow.at("execution")
        ran = {one.text("id"): one for one in execution.items("tasks")}
        found = [_task(task, ran, sizes) for task in specification.items("tasks")]
        makespan = execution.seconds_or_none("makespanInSeconds")
    if not found:
        raise top.wrong("workflow.tasks", "there is none")
    if len(found) > MOST_TASKS:
        raise top.wrong("workflow.tasks", f"{len(found)} tasks are more than {MOST_TASKS}")
    return Trace(name, _linked(found, top), sizes, makespan)


class _At:
    """A place in the file, which says what is wrong there."""

    def __init__(self, where: str, path: str, value: Any) -> None:
        self._where = where
        self._path = path
        if not isinstance(value, dict):
            raise UsageError(f"{where}: {path or 'the whole'} is no object", hint="a WfCommons instance is wanted")
        self._value: dict[str, Any] = value

    def wrong(self, key: str, what: str) -> UsageError:
        path = f"{self._path}.{key}" if self._path else key
        return UsageError(f"{self._where}: {path}: {what}", hint="see https://github.com/wfcommons/WfFormat")

    def has(self, key: str) -> bool:
        return key in self._value

    def _get(self, key: str) -> Any:
        if key not in self._value:
            raise self.wrong(key, "it is missing")
        return self._value[key]

    def at(self, key: str) -> _At:
        path = f"{self._path}.{key}" if self._path else key
        return _At(self._where, path, self._get(key))

    def items(self, key: str, *, optional: bool = False) -> Iterator[_At]:
        if optional and key not in self._value:
            return
        value = self._get(key)
        if not isinstance(value, list):
            raise self.wrong(key, "it is no list")
        path = f"{self._path}.{key}" if self._path else key
        for n, one in enumerate(value):
            yield _At(self._where, f"{path}[{n}]", one)

    def text(self, key: str) -> str:
        value = self._get(key)
        if not isinstance(value, str) or not value:
            raise self.wrong(key, "it is no text, or empty")
        return value

    def texts(self, key: str, *, optional: bool = False) -> tuple[str, ...]:
        if optional and key not in self._value:
            return ()
        value = self._get(key)
        if not isinstance(value, list) or not all(isinstance(one, str) for one in value):
            raise self.wrong(key, "it is no list of texts")
        return tuple(value)

    def number(self, key: str) -> float:
        value = self._get(key)
        if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value) or value < 0:
            raise self.wrong(key, f"{value!r} is no number from 0")
        return float(value)

    def size(self, key: str) -> int:
        value = self.number(key)
        if value != int(value):
            raise self.wrong(key, f"{value!r} is no whole number")
        return int(value)

    def seconds_or_none(self, key: str) -> float | None:
        return self.number(key) if key in self._value else None

    def cores(self, *keys: str) -> int:
        return next((max(1, math.ceil(self.number(key))) for key in keys if key in self._value), 1)


def _task(task: _At, ran: Mapping[str, _At], sizes: Mapping[str, int]) -> tuple[TraceTask, tuple[str, ...]]:
    number = task.text("id")
    if number not in ran:
        raise task.wrong("id", f"{number!r} is not among workflow.execution.tasks: it has no run time")
    for key in ("inputFiles", "outputFiles"):
        for name in task.texts(key, optional=True):
            if name not in sizes:
                raise task.wrong(key, f"{name!r} is not among workflow.specification.files")
    inputs, outputs = task.texts("inputFiles", optional=True), task.texts("outputFiles", optional=True)
    runtime_s, cores = ran[number].number("runtimeInSeconds"), ran[number].cores("coreCount")
    return TraceTask(number, runtime_s, cores, inputs, outputs), task.texts("parents")


def _old_task(task: _At) -> tuple[TraceTask, tuple[str, ...], dict[str, int]]:
    """A task of version 1.4, which has its files and its run time in itself."""
    names: dict[str, list[str]] = {"input": [], "output": []}
    sizes: dict[str, int] = {}
    for one in task.items("files", optional=True):
        name, link = one.text("name" if one.has("name") else "id"), one.text("link")
        if link not in names:
            raise one.wrong("link", f"{link!r} is neither input nor output")
        names[link].append(name)
        sizes[name] = one.size("sizeInBytes")
    number = task.text("id" if task.has("id") else "name")
    found = TraceTask(
        number,
        task.number("runtimeInSeconds"),
        task.cores("coreCount", "cores"),
        tuple(names["input"]),
        tuple(names["output"]),
    )
    return found, task.texts("parents"), sizes


def _linked(found: list[tuple[TraceTask, tuple[str, ...]]], top: _At) -> tuple[TraceTask, ...]:
    """Resolve who waits for whom; nobody may wait for himself in the end."""
    numbers = {task.id: n for n, (task, _) in enumerate(found)}
    if len(numbers) != len(found):
        raise top.wrong("workflow.tasks", "two tasks have one id")
    tasks, children = [], [[] for _ in found]  # type: list[TraceTask], list[list[int]]
    for n, (task, parents) in enumerate(found):
        strange = next((parent for parent in parents if parent not in numbers), None)
        if strange is not None:
            raise top.wrong("workflow.tasks", f"{task.id!r} has the parent {strange!r}, which is no task")
        linked = tuple(dict.fromkeys(numbers[parent] for parent in parents))
        tasks.append(replace(task, parents=linked))
        for parent in linked:
            children[parent].append(n)
    left = [len(task.parents) for task in tasks]
    ready = deque(n for n, count in enumerate(left) if not count)
    seen = 0
    while ready:
        seen += 1
        for child in children[ready.popleft()]:
            left[child] -= 1
            if not left[child]:
                ready.append(child)
    if seen != len(tasks):
        first = next(tasks[n].id for n, count in enumerate(left) if count)
        raise top.wrong("workflow.tasks", f"{first!r} waits for itself, by way of its parents")
    return tuple(tasks)
