"""`serai.Pool`: a `concurrent.futures.Executor` over everything, which also runs commands over files."""

from __future__ import annotations

import contextlib
import itertools
import os
import sys
import threading
import time
import weakref
from collections import deque
from concurrent.futures import Executor
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING, Any, TextIO

from serai.apps.frontends.functions import Functions, Future
from serai.describe.poolfile import sites_from, with_home_calling
from serai.describe.task import Item, Needs
from serai.dispatch.front_end import front_end_facts
from serai.dispatch.run import Run, Settings, moving, new_name, token
from serai.dispatch.schedule.events import Retry
from serai.errors import NoNodeLeft, SeraiError
from serai.session.home import runs_directory

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
    from pathlib import Path

    from serai.apps.bag import Bag, Outcome
    from serai.apps.frontends.mapreduce import MapReduceResult
    from serai.apps.mapreduce.plan import Kept
    from serai.dispatch.ports import Ended
    from serai.dispatch.schedule.events import Statistics


class PoolClosed(SeraiError):
    """The pool was shut down while commands ran in it."""


class PoolCancelled(SeraiError):
    """Commands of the pool were cancelled by another process."""


_living: weakref.WeakSet[_Core] = weakref.WeakSet()


@dataclass(frozen=True, slots=True)
class Options:
    """What a pool may be told beside its sites.

    Attributes:
        retries: how often a call or command that ended badly is tried again.
        time_limit_s: for each call; 0 for none.
        echo: show what functions print, here.
        runs: where runs are kept; None for the user's state directory.
        settings: how nodes are treated.
        home_calling: what tasks on ssh sites that say nothing about it may do at this machine: ``files`` (SFTP, scp),
            ``shell`` (commands too), or None for nothing.
        needs: of the nodes that functions run on; their version of Python is seen to.
        policy: how the place of data counts: a name of `serai.match.movement.Policy`.
        access: whether files are copied or read from afar: ``auto``, ``stage`` or ``mount``.
        cache: what each node's cache may hold: ``20GB``; half of what is free there when None.
    """

    retries: int = 0
    time_limit_s: float = 0.0
    echo: bool = True
    runs: Path | None = None
    settings: Settings = field(default_factory=Settings)
    home_calling: str | None = None
    needs: Needs = field(default_factory=Needs)
    policy: str | None = None
    access: str | None = None
    cache: str | None = None


class _Core:
    """What outlives the pool object until the last future has ended."""

    def __init__(self, sites: tuple[str, ...], initializer: Any, initargs: tuple[Any, ...], options: Options) -> None:
        options.needs.check()
        runs = options.runs or runs_directory(os.environ)
        self.sites = with_home_calling(sites_from(sites or ("local:",)), options.home_calling)
        settings = moving(options.settings, options.policy, options.access, options.cache)
        self.run = Run(self.sites, runs / new_name(time.time(), token()), settings=settings)
        facts = {"kind": "pool", "began": self.run.clock.wall(), "sites": list(sites), "argv": sys.argv[:1]}
        self.run.journal.set_run(facts | front_end_facts())
        self.functions = Functions(self.run, initializer, initargs, options.time_limit_s, Retry(options.retries))
        if options.echo:
            self.functions.on_output = _echo
        self.options = options
        self.bags: list[Bag] = []
        self.closed = False
        self.broken_by: NoNodeLeft | None = None
        self._closing = threading.Lock()
        self._done = threading.Event()
        self.run.dispatcher.when_hopeless(self._hopeless)
        self.run.on_cancel = self._cancelled
        try:
            self.run.start()
        except BaseException:
            self.run.close()
            raise
        _living.add(self)

    def _hopeless(self, why: str) -> None:
        self.broken_by = NoNodeLeft("no node of the pool is left", tried=tuple(why.splitlines()))
        self.functions.broken(self.broken_by)
        self._end_bags(self.broken_by)

    def _cancelled(self) -> None:
        """`serai cancel RUN` ends what there is; what is submitted later runs."""
        self._end_bags(PoolCancelled("its commands were cancelled from elsewhere: serai cancel"))
        self.run.dispatcher.cancel_all()

    def _end_bags(self, error: SeraiError) -> None:
        for bag in list(self.bags):
            bag.broken(error)

    def close(self) -> None:
        """End the run when all futures have ended; waits for it, unless a future's own callback asks for it."""
        if self.run.dispatcher.is_this_thread:
            self.close_later()
            return
        self.functions.wait_idle()
        with self._closing:
            if not self._done.is_set():
                self._end_bags(PoolClosed("the pool was shut down while its commands ran"))
                self.run.close(finished=True)
                self._done.set()

    def close_later(self) -> None:
        """The same without waiting."""
        self.closed = True
        try:
            threading.Thread(target=self.close, name="close-pool", daemon=True).start()
        except RuntimeError:  # the interpreter is ending: `_at_exit` does it
            return


def _at_exit() -> None:
    for core in list(_living):
        core.closed = True
        core.close()


# Before the interpreter joins its threads, as concurrent.futures does: pending futures are still served.
getattr(threading, "_register_atexit")(_at_exit)  # noqa: B009 - not in the stubs


# A child made by fork has none of the threads, and must not end what is its parent's.
os.register_at_fork(after_in_child=_living.clear)


def _echo(ended: Ended) -> None:
    for which, stream in enumerate((sys.stdout, sys.stderr)):
        if stream is None:
            continue
        with contextlib.suppress(ValueError, OSError):  # the stream is closed, or nobody reads it any more
            data = (ended.stdout, ended.stderr)[which]
            if data:
                _write(stream, data.decode("utf-8", "replace"))
            if which in ended.stream_paths:
                with open(ended.stream_paths[which], encoding="utf-8", errors="replace", newline="") as file:
                    while text := file.read(1 << 20):
                        _write(stream, text)
            stream.flush()


def _write(stream: TextIO, text: str) -> None:
    try:
        stream.write(text)
    except UnicodeEncodeError:  # the terminal has no such letters
        encoding = stream.encoding or "ascii"
        stream.write(text.encode(encoding, "backslashreplace").decode(encoding))


@dataclass(frozen=True, slots=True)
class Needing:
    """A pool, for calls with needs of their own; `submit` and `map` are those of the pool."""

    submit: Callable[..., Future]
    map: Callable[..., Iterator[Any]]


class Pool(Executor):
    """One queue over everything that is named.

    Args:
        sites: URLs (``local:``, ``ssh://lab1?slots=4``, ``dask://scheduler:8786``) or pool files; this machine when
            none is named.
        initializer: called once in each lane before its first function.
        initargs: its arguments.
        max_workers: slots of this machine when no site is named.
        options: everything else.

    Raises:
        UsageError: a site is named wrongly.
    """

    def __init__(
        self,
        *sites: str,
        initializer: Callable[..., object] | None = None,
        initargs: tuple[Any, ...] = (),
        max_workers: int | None = None,
        options: Options | None = None,
    ) -> None:
        if max_workers is not None:
            if max_workers <= 0:
                raise ValueError("max_workers must be greater than 0")
            if sites:
                raise ValueError("max_workers goes with no sites; say slots=N in a site's URL")
            sites = (f"local:?slots={max_workers}",)
        if initializer is not None and not callable(initializer):
            raise TypeError("initializer must be a callable")
        self._core = _Core(sites, initializer, initargs, options or Options())
        self._lock = threading.Lock()
        self._kept: Kept | None = None  # what nodes have kept of MapReduce's inputs
        self._finalizer = weakref.finalize(self, self._core.close_later)
        self._finalizer.atexit = False

    def submit(self, fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Future:
        """See `concurrent.futures.Executor.submit`."""
        return self._submit(self._core.options.needs, fn, *args, **kwargs)

    def _submit(self, needs: Needs, fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Future:
        with self._lock:
            if self._core.closed:
                raise RuntimeError("cannot schedule new futures after shutdown")
            return self._core.functions.submit(fn, args, kwargs, needs)

    def needing(self, needs: Needs) -> Needing:
        """This pool, for calls that need something of their nodes: ``pool.needing(serai.Needs(cores=4)).submit(f)``.

        Raises:
            UsageError: its ``requirements`` or ``rank`` is no ClassAd expression.
        """
        needs.check()
        return Needing(partial(self._submit, needs), partial(self.map, needs=needs))

    def map(
        self,
        fn: Callable[..., Any],
        *iterables: Iterable[Any],
        timeout: float | None = None,
        chunksize: int = 1,
        buffersize: int | None = None,
        needs: Needs | None = None,
    ) -> Iterator[Any]:
        """See `concurrent.futures.Executor.map`.

        Args:
            fn: the function.
            iterables: its arguments.
            timeout: seconds from now for each result to be there.
            chunksize: calls in a task.
            buffersize: results that are waited for at a time, so that iterables of any length can be given; None takes
                them whole at once.
            needs: of the nodes that these calls run on; those of the pool's options when None.
        """
        submit = self.submit if needs is None else self.needing(needs).submit
        if chunksize < 1:
            raise ValueError("chunksize must be >= 1.")
        if buffersize is not None and buffersize < 1:
            raise ValueError("buffersize must be None or > 0")
        end = None if timeout is None else time.monotonic() + timeout
        arguments = zip(*iterables, strict=False)
        if chunksize == 1:
            calls = (submit(fn, *args) for args in arguments)
        else:
            calls = (submit(_chunk, fn, chunk) for chunk in _batched(arguments, chunksize))
        waiting = deque(calls if buffersize is None else itertools.islice(calls, buffersize))
        return _in_order(waiting, calls, end, chunked=chunksize > 1)

    def run(
        self,
        command: str,
        items: Iterable[Item | str | os.PathLike[str] | int | float] = (Item(),),
        *,
        out: str | None = None,
        send: Sequence[str] = (),
        env: Mapping[str, str] | None = None,
        needs: Needs | None = None,
        time_limit_s: float = 0.0,
        retries: int | None = None,
    ) -> Iterator[Outcome]:
        """Run a command for each item; yields an `Outcome` as each ends, in that order.

        ``items`` may be of any length, an endless generator too: no more than some thousands are taken ahead.

        Args:
            command: with placeholders: ``"wc -w {in}"``.
            items: files (`serai.files`), paths, numbers (lines), or `serai.Item` for lines, columns and lists of files.
            out: the directory of outputs (``{out}``, ``{out:.png}``).
            send: files and directories that every task needs.
            env: variables added to the node's environment.
            needs: of a task's node.
            time_limit_s: 0 for none.
            retries: how often a task that ended badly is tried again; the pool's own number when None.

        Raises:
            TemplateError: the command's placeholders do not fit.
            NoNodeLeft: no node is there, or expected, to run what is left.
        """
        from serai.apps.frontends.commands import run_commands  # noqa: PLC0415 - pools of functions do without
        from serai.apps.plan import Plan  # noqa: PLC0415 - as above
        from serai.describe.places import Places  # noqa: PLC0415 - as above

        plan = Plan(
            command,
            os.getcwd(),
            tuple(getattr(items, "columns", ())),
            out,
            shared=Places(os.getcwd()).without_repeats(send),
            env=env or {},
            time_limit_s=time_limit_s,
            needs=needs or Needs(),
            retry=Retry(self._core.options.retries if retries is None else retries),
        )
        plan.needs.check()
        with self._lock:
            if self._core.closed:
                raise RuntimeError("cannot run commands after shutdown")
            if self._core.broken_by is not None:
                raise self._core.broken_by
        return run_commands(self._core.run, plan, items, self._core.bags)

    def release(self, node: str) -> None:
        """Let go of a node while the others go on: ``pool.release("lab1")``; returns at once.

        It gets no new tasks. What it runs ends there; what waits there goes to others, as do files that only its cache
        has. Then its executor ends, and `serai status` calls it released. Results are not touched by any of this;
        when no other node can run what waits, that fails as if the node had never been there.

        Args:
            node: its name: the host of ``ssh://lab1``, ``local`` for this machine.

        Raises:
            UsageError: there is no such node.
        """
        self._core.run.dispatcher.release(node)

    def mapreduce(  # noqa: PLR0913 - the words of MapReduce; all but three are named and have defaults
        self,
        mapper: Callable[..., Any] | str,
        reducer: Callable[..., Any] | str | None,
        inputs: Iterable[str | os.PathLike[str]] | str | os.PathLike[str],
        combiner: Callable[..., Any] | str | None = None,
        *,
        partitions: int | None = None,
        output: str | os.PathLike[str] | None = None,
        records: str = "lines",
        send: Sequence[str] = (),
        skip: int = 0,
    ) -> MapReduceResult:
        """Map files, and reduce what belongs together; returns when all is done.

        Workers are processes of their own on the pool's hosts, one to a slot. They may die at any moment: others are
        started, what they had is made again, and the outputs are the same byte for byte. Hosts keep what they were sent
        of inputs in their caches, so that the next call over the same inputs reads it there.

        Args:
            mapper: ``function(record) -> iterable of (key, value)``; or a command: lines in, ``key TAB value`` lines
                out.
            reducer: ``function(key, values) -> value``; a command, which gets lines sorted by key; ``"sum"`` or
                ``"count"``; None to leave values as they are.
            inputs: paths, directories, globs, or URLs of such.
            combiner: like the reducer, on each map's own output; ``"count"``: the mapper gives keys alone, which are
                counted; ``"sum"``: values are added.
            partitions: how many outputs; None for as many as there are workers.
            output: a directory for ``part-00000`` and so on, lines of text; None to have the pairs by `items`.
            records: what the mapper gets: ``"lines"`` as text, or as ``"bytes"``.
            send: files that commands need beside those that they name.
            skip: leave out up to so many splits that fail four times or end three workers; see the result's `skipped`.

        Raises:
            UsageError: the request is wrong; the pool has a site that is neither this machine nor an ssh host.
            TaskFailed: a map or a reduce failed again and again, or ended its workers; it is named.
            NoNodeLeft: no worker is left, or none could be started.
        """
        from serai.apps.frontends.mapreduce import Request, run_mapreduce  # noqa: PLC0415 - most pools do without
        from serai.apps.mapreduce.plan import Kept  # noqa: PLC0415 - as above

        with self._lock:
            if self._core.closed:
                raise RuntimeError("cannot run MapReduce after shutdown")
            if self._kept is None:
                self._kept = Kept()
        request = Request(mapper, reducer, inputs, combiner, partitions, output, records, tuple(send), skip)
        return run_mapreduce(request, self._core.sites, self._core.options.runs, self._kept)

    def look(self) -> Statistics:
        """What the pool does, as of now."""
        return self._core.run.dispatcher.look()

    @property
    def name(self) -> str:
        """The name of the pool's run, for `serai status` and the like."""
        return self._core.run.name

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:
        """See `concurrent.futures.Executor.shutdown`."""
        with self._lock:
            self._core.closed = True
        if cancel_futures:
            for future in self._core.functions.pending():
                future.cancel()
        if wait:
            self._core.close()
        else:
            self._core.close_later()


def _chunk(fn: Callable[..., Any], chunk: list[tuple[Any, ...]]) -> list[Any]:
    return [fn(*args) for args in chunk]


def _batched(values: Iterable[Any], size: int) -> Iterator[list[Any]]:
    iterator = iter(values)
    while batch := list(itertools.islice(iterator, size)):
        yield batch


def _in_order(waiting: deque[Future], more: Iterator[Future], end: float | None, *, chunked: bool) -> Iterator[Any]:
    """Yield results in order; when nobody wants more of them, the rest is cancelled. Keeps no result alive."""
    try:
        while waiting:
            if chunked:
                yield from _next_result(waiting, more, end)
            else:
                yield _next_result(waiting, more, end)
    finally:
        for future in waiting:
            future.cancel()


def _next_result(waiting: deque[Future], more: Iterator[Future], end: float | None) -> Any:
    future = waiting.popleft()
    try:
        try:
            return future.result(None if end is None else end - time.monotonic())
        finally:
            waiting.extend(itertools.islice(more, 1))
    finally:
        del future
