"""What a peer's script measures with: wall time, CPU of its whole process tree, start-up, and who listens where.

A peer's script opens its engine and hands over an `Engine`; `main` warms it up, times it, checks the answers and prints
one JSON line per figure. Only the standard library is used, since it runs inside every peer's own environment.
"""

from __future__ import annotations

import time

BEGAN = time.perf_counter()  # before the engine's own imports, which are a part of its start-up

import argparse  # noqa: E402 - the clock starts first
import json  # noqa: E402 - the same
import os  # noqa: E402 - the same
from contextlib import contextmanager  # noqa: E402 - the same
from dataclasses import dataclass  # noqa: E402 - the same
from pathlib import Path  # noqa: E402 - the same
from typing import TYPE_CHECKING, Any  # noqa: E402 - the same

from proctree import adopt_orphans, exposed, machine_cpu_s, tree_cpu_s  # noqa: E402 - the same
from workload import PROBE, PROBED, TRUE  # noqa: E402 - the same

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence
    from contextlib import AbstractContextManager

WARM_UP = 64  # tasks: enough that each of two workers has had its first


@dataclass(frozen=True, slots=True)
class Asked:
    """What the driver asks of a peer.

    Attributes:
        study: `functions` or `commands`.
        count: how many tasks.
        scratch: an empty folder with a short path (unix sockets are made in it).
        variant: settings or pool, in the peer's own words; may be empty.
        turn: the number of the round, from 0.
    """

    study: str
    count: int
    scratch: Path
    variant: str
    turn: int


@dataclass(frozen=True, slots=True)
class Engine:
    """A started engine with two workers.

    Attributes:
        version: of the package or program.
        functions: runs `same` on 0, 1, … count-1, each submitted by itself; gives the results in any order.
        commands: runs one command count times; gives (exit code, stdout, stderr) of each, or its exit codes only.
        keeps: what is known of each command when it has ended.
        began: the `time.perf_counter()` from which the start-up counts.
        address: of its server, where others are to use it too.
    """

    version: str
    functions: Callable[[int], Iterable[int]] | None = None
    commands: Callable[[Sequence[str], int], Sequence[Any]] | None = None
    keeps: str = "exit code, stdout, stderr"
    began: float = BEGAN
    address: str = ""


def main(opener: Callable[[Asked], AbstractContextManager[Engine]]) -> None:
    """Measure one peer as its command line asks, and print the figure."""
    asked, say = begin()
    with opener(asked) as engine:
        say(measure(engine, asked))


def begin() -> tuple[Asked, Callable[[dict[str, Any]], None]]:
    """Read the command line and claim standard output for JSON lines, so that no engine's chatter gets among them."""
    parser = argparse.ArgumentParser()
    parser.add_argument("study")
    parser.add_argument("count", type=int)
    parser.add_argument("--scratch", type=Path, required=True)
    parser.add_argument("--variant", default="")
    parser.add_argument("--turn", type=int, default=0)
    asked = Asked(**vars(parser.parse_args()))
    adopt_orphans()
    lines = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)

    def say(figure: dict[str, Any]) -> None:
        lines.write(json.dumps(figure) + "\n")

    return asked, say


def measure(engine: Engine, asked: Asked, **more: Any) -> dict[str, Any]:
    """Warm an engine up, time it and check its answers.

    Returns:
        The figure: wall seconds, CPU seconds of the process tree and of everybody else, start-up seconds.

    Raises:
        RuntimeError: the engine has no such study, or its answers are wrong.
    """
    work = _work(engine, asked)
    work(WARM_UP)
    startup_s = time.perf_counter() - engine.began
    with stopwatch() as spent:
        work(asked.count)
    return {
        "study": asked.study,
        "tasks": asked.count,
        "startup_s": startup_s,
        "version": engine.version,
        "keeps": engine.keeps if asked.study == "commands" else "",
        "exposed": exposed(),
        **spent,
        **more,
    }


def _work(engine: Engine, asked: Asked) -> Callable[[int], None]:
    functions, commands = engine.functions, engine.commands
    if asked.study == "functions" and functions is not None:

        def call(count: int) -> None:
            results = list(functions(count))
            if len(results) != count or sum(results) != count * (count - 1) // 2:
                raise RuntimeError(f"{len(results)} results of {count}, or wrong ones")

        return call
    if asked.study == "commands" and commands is not None:
        complete = "stdout" in engine.keeps
        good = (0, b"", b"") if complete else 0
        if complete and [tuple(outcome) for outcome in commands(PROBE, 2)] != [PROBED, PROBED]:
            raise RuntimeError("exit code, stdout or stderr of a command was not kept")

        def run(count: int) -> None:
            outcomes = commands(TRUE, count)
            if len(outcomes) != count or any(outcome != good for outcome in outcomes):
                raise RuntimeError(f"{len(outcomes)} outcomes of {count}, or wrong ones")

        return run
    raise RuntimeError(f"this peer has no study {asked.study!r}")


@contextmanager
def stopwatch() -> Iterator[dict[str, float]]:
    """Time a block: `wall_s`, `cpu_s` of this process tree, `others_cpu_s` of the rest of the machine."""
    spent: dict[str, float] = {}
    busy_s, cpu_s, began = machine_cpu_s(), tree_cpu_s(), time.perf_counter()
    yield spent
    spent["wall_s"] = time.perf_counter() - began
    spent["cpu_s"] = tree_cpu_s() - cpu_s
    spent["others_cpu_s"] = max(0.0, machine_cpu_s() - busy_s - spent["cpu_s"])
