"""A run of commands from its beginning to its end, also over the death of the front end.

What `serai run` and `serai resume` do, without a terminal.
"""

from __future__ import annotations

import fcntl
import itertools
import os
import threading
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

from serai.apps.bag import Bag
from serai.apps.plan import Plan, decode
from serai.data.landing import sweep
from serai.describe.poolfile import read_pool_file, sites_from, with_home_calling
from serai.describe.sources import JsonLines, source_from
from serai.describe.task import State
from serai.dispatch.carrier import Timing
from serai.dispatch.front_end import front_end_facts
from serai.dispatch.journal import Journal
from serai.dispatch.run import JOURNAL, Run, Settings, moving, new_name, token
from serai.errors import JournalError, NoNodeLeft, SeraiError, UsageError
from serai.session.url import Url

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from serai.apps.bag import Outcome
    from serai.clock import Clock
    from serai.describe.sources import Source
    from serai.describe.task import Item

CLOSE_S = 15.0
FEED_S = 1.0


@dataclass(frozen=True, slots=True)
class Request:
    """What a user asked for.

    Attributes:
        plan: the command and what its tasks share.
        source: where its items come from.
        on: URLs and pool files.
        argv: the words of the command line, for people.
        home_calling: what tasks on ssh sites that say nothing about it may do at this machine: ``files``, ``shell``.
        home_address: ``[USER@]HOST[:PORT]`` by which nodes reach this machine; None through their connections.
        policy, access, cache: how tasks and their files come together; see `serai.dispatch.run.moving`.
    """

    plan: Plan
    source: Source
    on: tuple[str, ...]
    argv: tuple[str, ...] = ()
    home_calling: str | None = None
    home_address: str | None = None
    policy: str | None = None
    access: str | None = None
    cache: str | None = None


class CommandRun:
    """A bag and the run it is in.

    Args:
        run: not started.
        bag: of the run.
        source: what is still to be recorded; None when the journal has it all.
        skip: items of the source that are recorded.
        lock: held as long as this process may write the journal.
    """

    def __init__(self, run: Run, bag: Bag, source: Source | None, skip: int, lock: int) -> None:
        self.run = run
        self.bag = bag
        self.failure: SeraiError | None = None
        self._source = source
        self._skip = skip
        self._half_written: set[str] = set()
        self._lock = lock
        self._feeder = threading.Thread(target=self._feed, name="feed", daemon=True)
        run.dispatcher.when_hopeless(self._hopeless)
        run.on_cancel = bag.cancel

    @classmethod
    def fresh(cls, request: Request, runs: Path, clock: Clock) -> Self:
        """Begin a run.

        Raises:
            UsageError: the request is wrong somewhere; nothing was started.
        """
        sites = with_home_calling(sites_from(request.on), request.home_calling)
        directory = runs / new_name(clock.wall(), token())
        settings = with_address(settings_from(request.on), request.home_address)
        settings = moving(settings, request.policy, request.access, request.cache)
        run = Run(sites, directory, settings=settings, clock=clock)
        lock = _take(directory)
        facts = {
            "kind": "command",
            "on": [_absolute(word) for word in request.on],
            "argv": list(request.argv),
            "command": request.plan.command,
            "cwd": request.plan.cwd,
            "source": request.source.describe(),
            "fingerprint": request.source.fingerprint(),
            "total": request.source.length,
            "began": clock.wall(),
            "complete": False,
            "home_calling": request.home_calling,
            "home_address": request.home_address,
            "moving": [request.policy, request.access, request.cache],
        }
        run.journal.set_run(facts | front_end_facts())
        return cls(run, Bag(run, request.plan), request.source, 0, lock)

    @classmethod
    def again(cls, directory: Path, on: Sequence[str], clock: Clock, *, failed_too: bool) -> Self:
        """Take up a run where it was left.

        Args:
            directory: of the run.
            on: other sites; the same as before when empty.
            clock: tells the time.
            failed_too: whether tasks that failed run again.

        Raises:
            JournalError: it is not there, another process is at it, or it is not of commands.
            UsageError: the source of its items is not what it was.
        """
        lock = _take(directory)
        try:
            return cls._again(directory, on, clock, lock, failed_too=failed_too)
        except BaseException:
            os.close(lock)
            raise

    @classmethod
    def _again(cls, directory: Path, on: Sequence[str], clock: Clock, lock: int, *, failed_too: bool) -> Self:
        journal = Journal(directory / JOURNAL, fresh=False)
        facts, works, chunks = journal.run(), journal.works(), journal.chunks()
        if facts.get("kind") != "command" or not works:
            raise JournalError(f"{directory.name} is not a run of commands: it cannot be taken up again")
        work, _, description = works[0]
        plan = Plan.from_description(description)
        words = tuple(on) or tuple(facts["on"])
        sites = with_home_calling(sites_from(words), facts.get("home_calling"))
        half_written = _half_written(journal, plan, work)
        if not any(site.linger_s for site in sites):  # else executors may still write there
            sweep(directory.name, half_written)
        journal.reopen([State.CANCELLED, State.FAILED] if failed_too else [State.CANCELLED])
        were_on = journal.on_nodes()
        journal.forget_bundles()
        journal.close()
        settings = with_address(settings_from(words), facts.get("home_address"))
        settings = moving(settings, *facts.get("moving", (None, None, None)))
        run = Run(sites, directory, settings=settings, clock=clock, fresh=False)
        run.journal.set_run(front_end_facts() | {"on": [_absolute(word) for word in words]})
        run.number_from(max((first + count for first, _, count in chunks), default=1))
        run.skip_works(work)
        bag = Bag(run, plan, work=work)
        lingers = {name: spec.linger_s for name, spec in run.roster.specs.items() if spec.linger_s}
        held = {name: were_on.get(name, []) for name in lingers}
        bag.is_resumed(held, max(lingers.values(), default=0.0))
        recorded = sum(count for _, _, count in chunks)
        source = None if facts["complete"] else _same_source(facts, directory.name)
        found = cls(run, bag, source, recorded, lock)
        found._half_written = half_written
        return found

    def start(self, on_ended: Callable[[list[Outcome]], None]) -> None:
        """Connect, and feed; ``on_ended`` is called with outcomes on another thread."""
        self.bag.on_ended = on_ended
        self.run.start()
        self._feeder.start()

    def _feed(self) -> None:
        try:
            if self._skip:
                self.bag.resume()
            if self._source is None:
                self.bag.finish_feeding()
                return
            self.bag.feed(self._items(itertools.islice(iter(self._source), self._skip, None)))
            if self.bag.complete:
                self.run.journal.set_run({"complete": True, "total": self.bag.total})
        except SeraiError as error:
            self.failure = error
            self.bag.broken(error)
        except BaseException as error:  # noqa: BLE001 - said at the end, whatever it was
            self.failure = SeraiError(f"the items could not be read: {error!r}")
            self.bag.broken(self.failure)

    def _items(self, items: Iterator[Item]) -> Iterator[Item]:
        """Items of a source that may name files by patterns of URLs, with the files themselves."""
        if not isinstance(self._source, JsonLines):
            return items
        from serai.apps.inputs import expanded, ssh_configs  # noqa: PLC0415 - most runs do without

        return expanded(items, ssh_configs(self.run.roster.specs.values()))

    def _hopeless(self, why: str) -> None:
        tried: list[str] = []
        for line in filter(str.strip, why.splitlines()):
            if tried and line.startswith(" "):  # more about the same node
                tried[-1] += f"\n    {line}"
            else:
                tried.append(line)
        self.failure = NoNodeLeft(
            "no node of the pool is left, or expected",
            tried=tuple(tried),
            hint=f"nothing is lost: serai resume {self.run.name}  (with --on for other nodes)",
        )
        self.bag.broken(self.failure)

    def wait(self, timeout_s: float) -> bool:
        """Wait until every task has ended or nothing more can be done; returns whether that is so."""
        return self.bag.wait(timeout_s)

    def close(self, *, finished: bool) -> None:
        """End everything anywhere; says in the journal whether the run is finished."""
        self.bag.stop()
        if self._feeder.is_alive():
            self._feeder.join(FEED_S)  # it may be reading a stream that says nothing; what it reads now is dropped
        self.run.close(CLOSE_S, finished=finished)
        sweep(self.run.name, self._half_written)
        os.close(self._lock)


def settings_from(on: Sequence[str]) -> Settings:
    """What pool files say of a whole pool."""
    settings = Settings()
    for word in on:
        if "://" not in word and not word.endswith(":") and ":?" not in word and Path(word).is_file():
            beat = read_pool_file(word).heartbeat_s
            if beat is not None:
                settings = replace(settings, timing=replace(Timing(), beat_s=beat, silence_s=max(15.0, 5 * beat)))
    return settings


def with_address(settings: Settings, address: str | None) -> Settings:
    """The settings, with how nodes reach this machine.

    Raises:
        UsageError: it is no ``[USER@]HOST[:PORT]``.
    """
    if address is None:
        return settings
    from serai.access.home_calling import Front  # noqa: PLC0415 - most runs do without

    url = Url.parse(address if "://" in address else f"ssh://{address}")
    return replace(settings, front=Front(url.host, url.port or 22, url.user))


def _absolute(word: str) -> str:
    return str(Path(word).resolve()) if "://" not in word and Path(word).is_file() else word


def _take(directory: Path) -> int:
    try:
        lock = os.open(directory / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    except FileNotFoundError as error:
        raise JournalError(f"there is no run at {directory}", hint="serai runs lists them") from error
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
        os.close(lock)
        raise JournalError(f"{directory.name} is being run by another process", hint="serai status --watch") from error
    return lock


def _half_written(journal: Journal, plan: Plan, work: int) -> set[str]:
    """The directories in which a front end that was killed may have left half-written outputs."""
    places, template = plan.places(), plan.template()
    directories: set[str] = set()
    if not template.outputs:
        return directories
    for first, of_work, count in journal.chunks():
        items = journal.items(first) if of_work == work else None
        if items is None:
            continue
        for task in journal.open_tasks(first, count):
            for one in template.outputs:
                try:
                    final = places.output_path(decode(items[task - first]), one, task)
                except UsageError:
                    continue
                directories.add(os.path.dirname(final))
    return directories


def _same_source(facts: dict[str, Any], name: str) -> Source:
    source = source_from(facts["source"])
    if not source.resumable:
        raise UsageError(
            f"{name} was reading its items from a stream that is gone: only those it had recorded can be run",
            hint="start it again with a file",
        )
    if source.fingerprint() != facts["fingerprint"]:
        raise UsageError(f"the source of {name}'s items has changed since", hint=f"it was {facts['source']}")
    return source


def auto_send(plan: Plan) -> tuple[str, ...]:
    """Files named plainly in the command that are there: scripts and tables that every task needs."""
    found = []
    for word in plan.template().words_that_may_be_files():
        path = Path(plan.cwd, word)
        if path.is_file() and os.access(path, os.R_OK):
            found.append(word)
    return tuple(found)


__all__ = ["CommandRun", "Request", "auto_send", "settings_from"]
