"""Functions as tasks: how they are pickled, sent, and how their futures are resolved."""

from __future__ import annotations

import importlib.util
import operator
import os
import pickle
import sys
import sysconfig
import threading
import types
from concurrent.futures import BrokenExecutor, CancelledError, InvalidStateError
from concurrent.futures import Future as BaseFuture
from dataclasses import asdict, replace
from typing import TYPE_CHECKING, Any

from serai.describe.task import Cause, Needs, State
from serai.dispatch.ports import CargoPostponed
from serai.errors import (
    NeedsUnmet,
    NodeLost,
    PythonMismatch,
    QueueFull,
    SeraiError,
    TaskFailed,
    TimeLimitExceeded,
    UsageError,
)
from serai.quantity import format_bytes
from serai.travel.executor import wire

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from serai.dispatch.ports import Ended, Place
    from serai.dispatch.run import Run
    from serai.dispatch.schedule.events import Assign, Retry

MOST_FUTURES = 1_000_000  # that have not ended: about a gigabyte
MOST_WORKS = 256  # functions that are pickled once; further ones travel with each of their tasks
MOST_BUNDLE = 64 << 20  # bytes of arguments that travel together; further calls go with the next bundle
MOST_PAYLOAD = wire.LIMIT - (1 << 20)  # bytes of one call's arguments
PROTOCOL = 4
PLAIN = frozenset({int, float, str, bytes, bool, type(None), complex})
SCRIPT = b"__main__"
ANY = Needs()


class BrokenPool(SeraiError, BrokenExecutor):
    """The pool cannot run functions any more."""


class RemoteTraceback(Exception):
    """The traceback of an exception on its node, as text; the cause of the exception here."""

    def __init__(self, text: str) -> None:
        super().__init__(text)
        self.text = text

    def __str__(self) -> str:
        return f"\n'''\n{self.text}'''"


class Future(BaseFuture[Any]):
    """A future that can also end what already runs.

    Attributes:
        task: the task's number in its run.
        node: where it ended; "" before.
    """

    def __init__(self, task: int, withdraw: Callable[[Sequence[int]], None]) -> None:
        super().__init__()
        self.task = task
        self.node = ""
        self.sent = False
        self._withdraw = withdraw

    def cancel(self) -> bool:
        """Cancel the call if it has not been sent to a lane."""
        if self.cancelled():
            return True
        done = super().cancel()
        if done:
            self._withdraw([self.task])
        return done

    def kill(self) -> None:
        """End the call, also while it runs: its process is ended, and the result is a `CancelledError`."""
        if not self.cancel() and not self.done():
            self._withdraw([self.task])


class Functions:
    """The owner of a pool's functions.

    Args:
        run: where they run.
        initializer: called once in each lane before its first function.
        initargs: its arguments.
        time_limit_s: for each call; 0 for none.
        retry: how often a call that raised is made again.
    """

    def __init__(
        self,
        run: Run,
        initializer: Callable[..., object] | None,
        initargs: tuple[Any, ...],
        time_limit_s: float,
        retry: Retry,
    ) -> None:
        self._run = run
        self._futures: dict[int, Future] = {}
        self._payloads: dict[int, bytes] = {}
        self._works: dict[tuple[int, Needs], tuple[Any, int]] = {}
        # by the function's identity and what it needs; holding it keeps that its own
        self._heads: dict[int, bytes] = {}
        self._lock = threading.RLock()  # whoever makes a work known is told at once when nothing runs any more
        self._idle = threading.Condition(self._lock)
        self._limit_s = time_limit_s
        self._retry = retry
        self._by_value: set[str] = set()
        self._site = tuple({sysconfig.get_path(name) for name in ("stdlib", "platstdlib", "purelib", "platlib")})
        self._init = b"" if initializer is None else self._dumps((initializer, initargs))
        self.broken_by: BaseException | None = None
        self.on_output: Callable[[Ended], None] | None = None

    # ---- submitting

    def submit(
        self, function: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any], needs: Needs = ANY
    ) -> Future:
        """Make a task of a call."""
        known = self._works.get((id(function), needs))
        if known is None:
            with self._lock:
                known = self._new_work(function if _may_be_kept(function) else operator.call, needs)
        work = known[1]
        if known[0] is not function:  # it travels with each of its calls
            args = (function, *args)
        payload = self._dumps_call(args, kwargs)
        if len(payload) > MOST_PAYLOAD:
            raise UsageError(
                f"the arguments of the call are {format_bytes(len(payload))} when pickled: no more than"
                f" {format_bytes(MOST_PAYLOAD)} travel with a call",
                hint="write them to a file and pass its name",
            )
        with self._lock:
            if self.broken_by is not None:
                raise BrokenPool(f"the pool cannot run functions any more: {self.broken_by}")
            if len(self._futures) >= MOST_FUTURES:
                raise QueueFull(
                    f"{MOST_FUTURES:,} calls have not ended",
                    hint="wait for results before more is submitted; map(..., buffersize=N) does that by itself",
                )
            task = self._run.reserve(1)
            future = Future(task, self._run.dispatcher.forget)
            self._futures[task] = future
            self._payloads[task] = payload
        self._run.dispatcher.submit(work, task)
        return future

    def _new_work(self, function: Callable[..., Any], needs: Needs) -> tuple[Any, int]:
        if (id(function), needs) in self._works:
            return self._works[id(function), needs]
        if len(self._works) >= MOST_WORKS:
            function = operator.call
            if (id(function), needs) in self._works:
                return self._works[id(function), needs]
        body = self._dumps(function)
        work = self._run.next_work()
        head: dict[str, Any] = {"kind": "function", "init": len(self._init)}
        if self._limit_s:
            head["limit"] = self._limit_s
        if self._run.by_reference:
            head["path"] = [os.path.abspath(place) for place in sys.path]
        if self._run.in_place:
            head["cwd"] = os.getcwd()
        self._heads[work] = wire.pack(wire.WORK, wire.EVERY_LANE, work, head, self._init + body)
        own, needs = needs, replace(needs, python=sys.version_info[:2])
        name = f"{getattr(function, '__module__', '?')}.{getattr(function, '__qualname__', repr(function))}"
        self._run.journal.add_work(
            work, "function", {"name": name, "needs": asdict(needs), "retry": asdict(self._retry)}
        )
        self._run.dispatcher.add_work(work, needs, self._retry, self)
        self._works[id(function), own] = (function, work)
        return function, work

    def _dumps_call(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> bytes:
        if not self._run.by_reference and not _plain(args, kwargs):
            return self._dumps((args, kwargs))
        try:
            data = pickle.dumps((args, kwargs), PROTOCOL)
        except Exception:  # noqa: BLE001 - pickle raises many kinds, and cloudpickle can do more
            return self._dumps((args, kwargs))
        return self._dumps((args, kwargs)) if SCRIPT in data else data

    def _dumps(self, value: Any) -> bytes:
        """Pickle a value: modules of the user's own by value where nodes do not have them."""
        if self._run.by_reference:
            try:
                data = pickle.dumps(value, PROTOCOL)
            except Exception:  # noqa: BLE001 - as above
                data = SCRIPT
            if SCRIPT not in data:
                return data
        import cloudpickle  # noqa: PLC0415 - slow to import, and many runs do without

        if not self._run.by_reference:
            for module in modules_of(value):
                self._send_by_value(module, cloudpickle)
        return bytes(cloudpickle.dumps(value, PROTOCOL))

    def _send_by_value(self, name: str, cloudpickle: Any) -> None:
        """Have cloudpickle send a module of the user's own along; what is installed is left to the node."""
        if name in self._by_value or name == "__main__":
            return
        self._by_value.add(name)
        module = sys.modules.get(name)
        file = getattr(module, "__file__", None)
        if module is not None and file and not file.startswith(self._site):
            cloudpickle.register_pickle_by_value(module)

    # ---- the owner's part

    def cargo(self, assign: Assign, place: Place) -> Iterator[bytes]:
        """See `Owner.cargo`."""
        if assign.work not in place.holds:
            place.holds.add(assign.work)
            if "cloudpickle" not in place.ad.get("modules", ()) and "cloudpickle" not in place.holds:
                place.holds.add("cloudpickle")
                yield wire.pack(wire.MODULES, wire.EVERY_LANE, 0, cloudpickle_sources())
            yield self._heads[assign.work]
        payloads = self._payloads
        tasks: list[int] = []
        bodies: list[bytes] = []
        postponed: list[int] = []
        size = 0
        for task in assign.tasks:
            body = payloads.get(task)
            if body is None:  # it was withdrawn since
                continue
            if bodies and size + len(body) > MOST_BUNDLE:
                postponed.append(task)
                continue
            size += len(body)
            tasks.append(task)
            bodies.append(body)
        head = {"w": assign.work, "ids": tasks, "len": [len(body) for body in bodies]}
        yield wire.pack(wire.RUN, assign.lane, assign.bundle, head, b"".join(bodies))
        if postponed:
            raise CargoPostponed(postponed)

    def assigned(self, tasks: Sequence[int]) -> list[int]:
        """See `Owner.assigned`."""
        withdrawn = []
        futures = self._futures
        for task in tasks:
            future = futures.get(task)
            if future is None:
                withdrawn.append(task)
            elif not future.sent:
                future.sent = True
                if not future.set_running_or_notify_cancel():
                    withdrawn.append(task)
        return withdrawn

    def ended(self, batch: Sequence[Ended]) -> None:
        """See `Owner.ended`."""
        futures, payloads = self._futures, self._payloads
        for ended in batch:
            payloads.pop(ended.task, None)
            future = futures.pop(ended.task, None)
            if (ended.stdout or ended.stderr or ended.stream_paths) and self.on_output is not None:
                self.on_output(ended)
            if future is None:
                continue
            future.node = ended.node
            self._resolve(future, ended)
        if not futures:
            with self._idle:
                self._idle.notify_all()

    def _resolve(self, future: Future, ended: Ended) -> None:
        try:
            if ended.state == State.DONE:
                try:
                    value = pickle.loads(ended.result)  # noqa: S301 - the result of the user's own function
                except Exception as error:  # noqa: BLE001 - whatever a class does
                    future.set_exception(error)
                else:
                    future.set_result(value)
            elif ended.state == State.CANCELLED:
                if future.sent:
                    future.set_exception(CancelledError())  # it ran: a future cannot be cancelled any more
                else:
                    future.cancel()
                    future.set_running_or_notify_cancel()
            else:
                future.set_exception(self._error(ended))
        except InvalidStateError:
            pass  # its user cancelled it at the same moment
        except Exception as error:  # noqa: BLE001 - a future that is never resolved would be worse
            future.set_exception(error)

    def _error(self, ended: Ended) -> BaseException:
        if ended.cause == Cause.EXCEPTION and ended.result:
            try:
                error = pickle.loads(ended.result)  # noqa: S301 - as above
            except Exception as failure:  # noqa: BLE001 - as above
                error = failure
            error.__cause__ = RemoteTraceback(ended.detail)
            return error  # type: ignore[no-any-return]
        if ended.cause == Cause.EXECUTOR and ended.detail.startswith("initializer"):
            self.broken_by = BrokenPool(f"the initializer failed on {ended.node}", hint=ended.detail)
            return self.broken_by
        kinds: dict[int, type[SeraiError]] = {
            Cause.TIME_LIMIT: TimeLimitExceeded,
            Cause.NODE_LOST: NodeLost,
            Cause.NEEDS: NeedsUnmet,
        }
        return kinds.get(int(ended.cause), TaskFailed)(ended.detail or "it failed", host=ended.node)

    def broken(self, error: BaseException) -> None:
        """See `Owner.broken`."""
        with self._lock:
            self.broken_by = error
            futures, self._futures = self._futures, {}
            self._payloads.clear()
        for future in futures.values():
            try:
                future.set_exception(error)
            except InvalidStateError:
                continue
        with self._idle:
            self._idle.notify_all()

    def pending(self) -> list[Future]:
        """Futures that have not ended."""
        with self._lock:
            return list(self._futures.values())

    def wait_idle(self, timeout_s: float | None = None) -> bool:
        """Wait until every future has ended."""
        with self._idle:
            return self._idle.wait_for(lambda: not self._futures, timeout_s)


def _may_be_kept(function: Callable[..., Any]) -> bool:
    """Whether a function can be kept, so that it is pickled once: what holds other objects alive is not kept."""
    if isinstance(function, types.FunctionType):
        return function.__closure__ is None
    if isinstance(function, types.BuiltinFunctionType):
        return isinstance(function.__self__, types.ModuleType)
    return isinstance(function, type)


def _plain(args: tuple[Any, ...], kwargs: dict[str, Any]) -> bool:
    return all(type(value) in PLAIN for value in args) and all(type(value) in PLAIN for value in kwargs.values())


def modules_of(value: Any) -> set[str]:
    """The modules of what is pickled, as far as a glance tells."""
    found: set[str] = set()
    stack, seen = [value], 0
    while stack and seen < 1000:
        seen += 1
        one = stack.pop()
        if isinstance(one, (tuple, list, set, frozenset)):
            stack.extend(one)
        elif isinstance(one, dict):
            stack.extend(one.values())
        else:
            name = getattr(one, "__module__", None) or type(one).__module__
            found.add(str(name))
            if callable(getattr(one, "func", None)):  # functools.partial
                stack.append(one.func)
    return found


def cloudpickle_sources() -> dict[str, str]:
    """The text of cloudpickle, for nodes that lack it."""
    sources = {}
    for name in ("cloudpickle", "cloudpickle.cloudpickle"):
        spec = importlib.util.find_spec(name)
        if spec is None or spec.origin is None:
            raise PythonMismatch("cloudpickle cannot be found", hint="pip install cloudpickle")
        with open(spec.origin, encoding="utf-8") as file:
            sources[name] = file.read()
    return sources
