"""Carries a plan out: directories, links, small files in lots, large ones alone, stamps at the end."""

from __future__ import annotations

import contextlib
import errno
import threading
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import dataclass, field
from itertools import chain
from typing import TYPE_CHECKING, Any

from serai.data.copy_plan import CopyPlan, Destination, Job, Source, Wishes, quoted, shown_below
from serai.data.copying.tally import Stopped
from serai.data.copying.ways import Direct, SourceFailed, Through, Way, forget, is_to_be_tried, way_between
from serai.errors import SeraiError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence
    from concurrent.futures import Future

    from serai.data.copying.ends import End
    from serai.data.copying.tally import Tally

    _Tasks = tuple[list[Callable[[], None]], list[Callable[[], None]]]  # lots, and large files

__all__ = ["Outcome", "carry"]

LOT_FILES = 4000  # small files in one call
LOT_BYTES = 64 << 20
FIRST_LOTS = 16  # times smaller is the first one; each is twice as large as the one before
STREAMS = 3  # at a time between two ends: the next is opened while another ends
GRACE_S = 3.0  # after an interrupt, for streams to end by themselves
_WRITING = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EIO, errno.EFBIG})
_CUT_OFF = frozenset({errno.ECONNRESET, errno.ETIMEDOUT, errno.EPIPE})


@dataclass(slots=True)
class Outcome:
    """What became of a copy.

    Attributes:
        files: that were copied, links among them.
        size: their bytes.
        kept: files that stayed as they were.
        complaints: what was not copied and why, in sentences.
        made: pairs of source and destination as the user would write them, where they were asked for.
    """

    files: int = 0
    size: int = 0
    kept: int = 0
    complaints: list[str] = field(default_factory=list)
    made: list[tuple[str, str]] = field(default_factory=list)

    @property
    def ok(self) -> bool:
        """Whether everything was done."""
        return not self.complaints


def carry(
    plan: CopyPlan, sources: Sequence[tuple[End, Source]], target: tuple[End, Destination], wishes: Wishes, tally: Tally
) -> Outcome:
    """Do what a plan says. What fails is complained of, and the others go on.

    Args:
        plan: what to do.
        sources: by their numbers in the plan.
        target: where to.
        wishes: how.
        tally: counts, and can stop it.

    Raises:
        KeyboardInterrupt: as it came, when every stream has ended; what is partial stays.
    """
    return _Carrier(sources, target, wishes, tally).carry(plan)


class _Carrier:
    """One copy."""

    def __init__(
        self,
        sources: Sequence[tuple[End, Source]],
        target: tuple[End, Destination],
        wishes: Wishes,
        tally: Tally,
    ) -> None:
        self._sources = sources
        self._end, self._destination = target
        self._wishes = wishes
        self._tally = tally
        self._lock = threading.Lock()
        self._outcome = Outcome()
        self._lost: set[str] = set()  # ends that are gone, each complained of once
        self._ways: dict[str, Way] = {}

    def carry(self, plan: CopyPlan) -> Outcome:
        self._outcome.kept = plan.kept
        self._outcome.complaints += [refusal.what for refusal in plan.refusals]
        self._tally.expect(plan.files, plan.size)
        failed = self._make(plan.directories)

        def still(jobs: Iterable[Job]) -> list[Job]:
            return [job for job in jobs if not failed or not job.target.startswith(failed)]

        self._link(still(plan.links))
        self._move(still(plan.small), still(plan.large))
        self._stamp(still(plan.directories))
        return self._outcome

    # ---- what is made in one call each

    def _make(self, jobs: Sequence[Job]) -> tuple[str, ...]:
        """Make directories; gives those that could not be, with a slash."""
        new = [job for job in jobs if not job.over]
        failed: list[str] = []
        for number, error in self._each("make", [[job.target, job.fact.mode] for job in new]):
            path = new[number].target
            if not path.startswith(tuple(failed)) or not failed:
                self._complain(f"cannot create directory {self._shown_target(new[number])}: {error.strerror}")
                failed.append(f"{path}/")
        return tuple(failed)

    def _link(self, jobs: Sequence[Job]) -> None:
        troubles = dict(self._each("link", [[job.target, job.fact.link] for job in jobs]))
        for number, job in enumerate(jobs):
            if number in troubles:
                why = troubles[number].strerror
                self._complain(f"cannot create symbolic link {self._shown_target(job)}: {why}")
            else:
                self._done([job])

    def _stamp(self, jobs: Sequence[Job]) -> None:
        rows = []
        for job in reversed(jobs):
            mode = job.fact.mode
            if self._wishes.times:
                rows.append([job.target, None if mode is None else mode & 0o777, job.fact.mtime_ns])
            elif not job.over and mode is not None and mode & 0o700 != 0o700:
                rows.append([job.target, mode & 0o777 & ~self._end.umask, None])
        for number, error in self._each("stamp", rows):
            self._complain(f"preserving permissions of {quoted(str(rows[number][0]))}: {error.strerror}")

    def _each(self, act: str, rows: Sequence[Any]) -> list[tuple[int, OSError]]:
        if not rows or self._end.store in self._lost:
            return []
        try:
            return self._end.each(act, rows)
        except SeraiError as error:
            self._lose(self._end, error)
            return []

    # ---- what is carried

    def _move(self, small: Sequence[Job], large: Sequence[Job]) -> None:
        tasks: dict[str, _Tasks] = {}
        stores: dict[str, End] = {}
        sizes: dict[str, int] = {}
        for job in (*small, *large):
            end, _ = self._sources[job.source]
            stores[end.store] = end
            sizes[end.store] = sizes.get(end.store, 0) + (job.fact.size or 0)
        if not stores or self._end.store in self._lost:
            return

        def prepare(store: str) -> None:
            self._ways[store] = way_between(stores[store], self._end, sizes[store], self._tally)

        for store, end in stores.items():
            mine = [job for job in small if self._sources[job.source][0].store == store]
            tasks[store] = (
                [lambda lot=lot, store=store: self._lot(store, lot) for lot in _lots(mine)],  # type: ignore[misc] # mypy does not see the defaults
                [
                    lambda job=job, store=store: self._large(store, job)  # type: ignore[misc] # the same
                    for job in large
                    if self._sources[job.source][0].store == store
                ],
            )
            if is_to_be_tried(end, self._end, sizes[store]):
                self._ways[store] = Through(end, self._end, self._tally)  # while the other way is tried
        self._run(tasks, prepare, [*stores.values(), self._end])

    def _run(self, tasks: dict[str, _Tasks], prepare: Callable[[str], None], ends: Sequence[End]) -> None:
        """Run the tasks of each source, a few at a time; all sources at once.

        Where there is a way already, the lots do not wait for `prepare`, which may find a better one.
        """
        pools = {store: ThreadPoolExecutor(STREAMS, thread_name_prefix="copy") for store in tasks}
        futures: list[Future[None]] = []
        try:
            early = set(self._ways)
            ready = {store: pool.submit(prepare, store) for store, pool in pools.items()}
            futures += [pools[store].submit(task) for store in tasks.keys() & early for task in tasks[store][0]]
            for store, future in ready.items():
                future.result()
                late = tasks[store][1] if store in early else chain(*tasks[store])
                futures += [pools[store].submit(task) for task in late]
            for future in as_completed(futures):
                future.result()
        except BaseException as error:
            self._tally.stop()
            for pool in pools.values():
                pool.shutdown(wait=False, cancel_futures=True)
            _wait_or_abandon(futures, ends)
            if not isinstance(error, Stopped):
                raise
        finally:
            for pool in pools.values():
                pool.shutdown()

    def _lot(self, store: str, jobs: Sequence[Job]) -> None:
        source = self._sources[jobs[0].source][0]
        wishes = self._row_wishes()
        done: dict[str, Any] = {}

        def act(way: Way) -> None:
            done.update(
                way.lots(
                    [job.origin for job in jobs], [_row(job) for job in jobs], follow=_followed(jobs), wishes=wishes
                )
            )

        if not self._attempt(source, store, jobs, act):
            return
        for number, code, why in done["lost"]:
            self._source_failed(jobs[number], OSError(code, why))
        for number, code, why in done["troubles"]:
            self._target_failed(jobs[number], OSError(code, why))
        self._done([jobs[number] for number in done["done"]], done["bytes"])

    def _large(self, store: str, job: Job) -> None:
        source = self._sources[job.source][0]
        size = 0

        def act(way: Way) -> None:
            nonlocal size
            start = self._start(source, job)
            self._tally.skip(start)
            sent, landed = way.large(job.origin, job.target, start, job.fact.size, follow=_followed([job]))
            if sent != landed:
                raise OSError(errno.EIO, "what was written has another digest than what was read")
            size = start + landed["size"]
            self._end.commit(_row(job), size, self._row_wishes())

        if self._attempt(source, store, [job], act):
            self._done([job], size)

    def _start(self, source: End, job: Job) -> int:
        """How much of a file is there already, the same bytes on both sides."""
        have, digest = self._end.offer(job.target)
        if not have or (job.fact.size is not None and have > job.fact.size):
            return 0
        try:
            same = source.prefix(job.origin, have) == digest
        except OSError as error:
            if isinstance(error, SeraiError):
                raise
            raise SourceFailed(error) from error
        shown = self._shown_target(job)
        if same:
            self._tally.note(f"{shown}: goes on after {have} bytes")
            return have
        self._tally.note(f"{shown}: begins anew, for the {have} bytes that are there are others")
        return 0

    def _attempt(self, source: End, store: str, jobs: Sequence[Job], act: Callable[[Way], None]) -> bool:
        """Do something; complain when it fails. A direct way that was lost is gone round once."""
        if {source.store, self._end.store} & self._lost:
            return False
        way = self._ways[store]
        try:
            try:
                act(way)
            except (OSError, SeraiError) as error:
                if not _is_the_ways_fault(way, error):
                    raise
                self._tally.note(f"through here from now on: {error}")
                forget(source, self._end, str(error))
                self._ways[store] = Through(source, self._end, self._tally)
                act(self._ways[store])
        except SourceFailed as failed:
            for job in jobs:
                self._source_failed(job, failed.error)
        except SeraiError as error:
            self._lose(source, error)
        except (OSError, ValueError) as error:
            for job in jobs:
                self._target_failed(job, error)
        else:
            return True
        return False

    # ---- what is said

    def _row_wishes(self) -> dict[str, Any]:
        return {"stamp": self._wishes.times, "force": self._wishes.force}

    def _done(self, jobs: Sequence[Job], size: int = 0) -> None:
        self._tally.finish(len(jobs))
        with self._lock:
            self._outcome.files += len(jobs)
            self._outcome.size += size
            if self._wishes.verbose:
                self._outcome.made += [(self._origin(job), self._target(job)) for job in jobs]

    def _source_failed(self, job: Job, error: OSError) -> None:
        verb = "reading" if error.errno == errno.EIO else "cannot open"
        tail = "" if error.errno == errno.EIO else " for reading"
        self._complain(f"{verb} {quoted(self._origin(job))}{tail}: {error.strerror or error}")

    def _target_failed(self, job: Job, error: OSError | ValueError) -> None:
        code = error.errno if isinstance(error, OSError) else None
        verb = "error writing" if code in _WRITING else "cannot create regular file"
        why = error.strerror if isinstance(error, OSError) else None
        tail = "; the same command goes on where it stopped" if code in _CUT_OFF else ""
        self._complain(f"{verb} {self._shown_target(job)}: {why or error}{tail}")

    def _lose(self, end: End, error: SeraiError) -> None:
        """A host is gone: said once, not for every file."""
        store = self._end.store if error.host == self._end.shown else end.store
        with self._lock:
            first = store not in self._lost
            self._lost.add(store)
        if first:
            self._complain(str(error))

    def _complain(self, what: str) -> None:
        with self._lock:
            self._outcome.complaints.append(what)

    def _origin(self, job: Job) -> str:
        source = self._sources[job.source][1]
        return shown_below(source.shown, job.origin[len(source.path) :].lstrip("/"))

    def _target(self, job: Job) -> str:
        base = self._destination
        return shown_below(base.shown, job.target[len(base.path) :].lstrip("/"))

    def _shown_target(self, job: Job) -> str:
        return quoted(self._target(job))


def _row(job: Job) -> list[Any]:
    return [job.target, job.fact.mode, job.over, job.fact.mtime_ns]


def _followed(jobs: Sequence[Job]) -> bool:
    """Whether a path may be a link: where one was seen as what it leads to."""
    return any(job.follow for job in jobs)


def _lots(jobs: Sequence[Job]) -> list[list[Job]]:
    """Bundle jobs, few at first: a lot goes the way it began, and a better one may be found meanwhile."""
    found: list[list[Job]] = []
    size, part = 0, FIRST_LOTS * 2
    for job in jobs:
        if not found or len(found[-1]) >= LOT_FILES // part or size >= LOT_BYTES // part:
            found.append([])
            size, part = 0, max(1, part // 2)
        found[-1].append(job)
        size += job.fact.size or 0
    return found


def _is_the_ways_fault(way: Way, error: BaseException) -> bool:
    if not isinstance(way, Direct) or way.peer is None:
        return False
    broken = {errno.ECONNRESET, errno.EPIPE, errno.ETIMEDOUT}
    return getattr(error, "errno", None) in broken or "no such peer" in str(error)


def _wait_or_abandon(futures: Sequence[Future[None]], ends: Sequence[End]) -> None:
    """Let streams end; those that wait for a host that says nothing are cut off."""
    from concurrent.futures import wait  # noqa: PLC0415 - only when it goes wrong

    _, late = wait(futures, GRACE_S)
    if late:
        for end in ends:
            with contextlib.suppress(OSError, SeraiError):
                end.abandon()
