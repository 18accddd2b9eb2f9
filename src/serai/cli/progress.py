"""How a run is shown while it goes on: live on a terminal, lines in a log, JSON for programs."""

from __future__ import annotations

import collections
import json
import sys
from typing import TYPE_CHECKING, Any, Self

from serai.describe.task import State
from serai.pool.members import Standing
from serai.quantity import format_seconds

if TYPE_CHECKING:
    from collections.abc import Iterator
    from types import TracebackType

    from serai.apps.bag import Outcome
    from serai.apps.command_run import CommandRun

LINE_EVERY_S = 10.0
PIECE = 1 << 20  # bytes of a long stream that are shown at a time
MOST_FAILURES = 10  # named in the summary


class View:
    """Shows a run. `ended` is called on the dispatcher's thread, everything else on the main one.

    Args:
        running: the run.
        sends: files that travel with every task, to be told.
    """

    period_s = 0.1

    def __init__(self, running: CommandRun, sends: tuple[str, ...]) -> None:
        self.running = running
        self.sends = sends if not running.run.in_place else ()
        self.began = running.run.clock.now()
        self.arrived: collections.deque[list[Outcome]] = collections.deque()
        self.failures: list[Outcome] = []
        self.failed = 0
        self._warned = 0

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        return None

    def ended(self, outcomes: list[Outcome]) -> None:
        """Tasks have ended."""
        self.arrived.append(outcomes)

    def refresh(self) -> None:
        """Show what is new."""
        for words in self.running.run.discovery.warnings[self._warned :]:
            self._warned += 1
            self.warn(words)
        while self.arrived:
            for outcome in self.arrived.popleft():
                self.one(outcome)
                if outcome.state is State.FAILED:
                    self.failed += 1
                    if len(self.failures) < MOST_FAILURES:
                        self.failures.append(outcome)
        sys.stdout.flush()

    def warn(self, words: str) -> None:
        """Say what the user should hear of."""
        say(f"serai: {words}")

    def one(self, outcome: Outcome) -> None:
        """Show what a task printed: its own bytes to the same streams here."""
        for which, stream in enumerate((sys.stdout, sys.stderr)):
            for data in pieces(outcome, which):
                stream.buffer.write(data)
            stream.flush()

    # ---- facts that views share

    @property
    def elapsed_s(self) -> float:
        """Seconds since the run began, or began again."""
        return self.running.run.clock.now() - self.began

    def facts(self) -> dict[str, Any]:
        """Numbers of the run."""
        bag = self.running.bag
        total = bag.total if bag.complete else None
        done, failed, cancelled = (bag.counts[state] for state in (State.DONE, State.FAILED, State.CANCELLED))
        return {
            "run": self.running.run.name,
            "total": total,
            "known": bag.total,
            "done": done,
            "failed": failed,
            "cancelled": cancelled,
            "seconds": round(self.elapsed_s, 3),
        }

    def nodes(self) -> list[dict[str, Any]]:
        """What each node does."""
        return [
            {"name": node.name, "state": node.standing, "slots": node.slots, "busy": node.busy, "why": node.why}
            for node in self.running.run.dispatcher.nodes_now
        ]

    def summary(self, *, interrupted: bool) -> None:
        """The last words: what failed, and why."""
        facts = self.facts()
        for outcome in self.failures:
            say(f"failed: {describe_failure(outcome)}")
        if self.failed > len(self.failures):
            say(f"… and {self.failed - len(self.failures)} more: serai logs --failed")
        words = f"{facts['done']} done"
        if facts["failed"]:
            words += f", {facts['failed']} failed"
        if facts["cancelled"]:
            words += f", {facts['cancelled']} cancelled"
        left = facts["known"] - facts["done"] - facts["failed"] - facts["cancelled"]
        if left > 0:
            words += f", {left} not run"
        elapsed = self.elapsed_s
        here = facts["done"] + facts["failed"] + facts["cancelled"] - self.running.bag.ended_before
        rate = here / elapsed if elapsed > 0 else 0.0
        words += f" in {format_seconds(round(elapsed, 1))}"
        if here >= 10:
            words += f" ({rate:.0f}/s)" if rate >= 10 else f" ({rate:.1f}/s)"
        say(f"{self.running.run.name}: {words}")
        failure = self.running.failure
        said_again = failure is not None and "resume" in (failure.hint or "")
        if (interrupted or left > 0) and not said_again:
            say(f"nothing is lost: serai resume {self.running.run.name}")


class Lines(View):
    """Now and then a line, for logs."""

    def __init__(self, running: CommandRun, sends: tuple[str, ...]) -> None:
        super().__init__(running, sends)
        self._said_at = 0.0
        self._told: dict[str, tuple[str, bool]] = {}

    def __enter__(self) -> Self:
        if self.sends:
            say(f"travels along: {', '.join(self.sends)}")
        return self

    def refresh(self) -> None:
        """See `View.refresh`."""
        super().refresh()
        for node in self.running.run.dispatcher.nodes_now:
            news = (node.why, node.standing == Standing.GIVEN_UP)  # and not each time that it is tried again
            if node.why and self._told.get(node.name) != news and not self.running.bag.through():
                say(f"{node.standing}: {node.name}: {node.why.strip()}")
            self._told[node.name] = news
        if self.elapsed_s - self._said_at >= LINE_EVERY_S:
            self._said_at = self.elapsed_s
            facts = self.facts()
            of = f" of {facts['total']}" if facts["total"] is not None else ""
            up = sum(node.standing == "up" for node in self.running.run.dispatcher.nodes_now)
            say(
                f"{facts['done']}{of} done, {facts['failed']} failed, {up} nodes,"
                f" {format_seconds(round(self.elapsed_s))}"
            )


class Json(View):
    """A JSON object per line on standard output: tasks as they end, then a summary."""

    def one(self, outcome: Outcome) -> None:
        """See `View.one`."""
        print(
            json.dumps(
                {
                    "event": "task",
                    "task": outcome.task,
                    "state": outcome.state.name.lower(),
                    "cause": outcome.cause.name.lower(),
                    "inputs": list(outcome.item.inputs),
                    "line": outcome.item.line,
                    "node": outcome.node,
                    "exit_code": outcome.exit_code,
                    "stdout": outcome.stdout.decode("utf-8", "backslashreplace"),
                    "stderr": outcome.stderr.decode("utf-8", "backslashreplace"),
                    "files": {("stdout", "stderr")[which]: path for which, path in outcome.stream_paths.items()},
                    "started": outcome.started,
                    "seconds": outcome.took_s,
                    "detail": outcome.detail,
                }
            )
        )

    def summary(self, *, interrupted: bool) -> None:
        """See `View.summary`."""
        print(json.dumps({"event": "summary", **self.facts(), "interrupted": interrupted, "nodes": self.nodes()}))
        sys.stdout.flush()


class Nothing(View):
    """Only what tasks print, and what failed."""

    def summary(self, *, interrupted: bool) -> None:
        """See `View.summary`."""
        if self.failed or interrupted:
            super().summary(interrupted=interrupted)


def pieces(outcome: Outcome, which: int) -> Iterator[bytes]:
    """What a task printed to a stream (0 or 1), of any length; pieces of a long one end with a line where they can."""
    data = (outcome.stdout, outcome.stderr)[which]
    if data:
        yield data
    path = outcome.stream_paths.get(which)
    if path is not None:
        with open(path, "rb") as file:
            while data := file.read(PIECE):
                yield data + (b"" if data.endswith(b"\n") else file.readline(PIECE))


def describe_failure(outcome: Outcome) -> str:
    """One line about a task that failed."""
    error = outcome.error
    words = " ".join(str(error).splitlines()[0].split()) if error is not None else ""
    what = " ".join(outcome.item.inputs) or outcome.item.line or ""
    tail = outcome.stderr.decode("utf-8", "replace").strip().splitlines()
    parts = [words]
    if what and what not in words:
        parts.append(f"[{what[:60]}]")
    if tail and not outcome.detail:
        parts.append(f"— {tail[-1][:120]}")
    return " ".join(parts)


def say(line: str) -> None:
    """A line for people: on standard error, so that results can be piped."""
    sys.stdout.flush()
    print(line, file=sys.stderr, flush=True)
