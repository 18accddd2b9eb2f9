"""Calling the user's functions in a lane."""

from __future__ import annotations

import os
import pickle
import sys
import traceback
import types

from . import wire

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping
    from typing import Any

    from .capture import Capture

    Answer = tuple[int, str | None, bytes]  # cause, detail, pickled result or exception
    Loaded = tuple[Callable[..., Any] | None, Answer | None]

EXCEPTION, EXECUTOR, UNPICKLE = 2, 10, 11


def install(sources: Mapping[str, str]) -> None:
    """Make modules of source text importable where the node lacks them: {name: source}."""
    waiting = []
    for name in sorted(sources, key=len):
        if name in sys.modules:
            continue
        try:
            __import__(name)
        except Exception:  # noqa: BLE001 - a broken copy is as good as none
            module = types.ModuleType(name)
            module.__file__ = "<sent with the executor>/%s.py" % name
            if any(other.startswith(name + ".") for other in sources):
                module.__path__ = []
            module.__package__ = name if hasattr(module, "__path__") else name.rpartition(".")[0]
            sys.modules[name] = module
            waiting.append(name)
    # Packages import their parts, so parts are run first.
    for name in sorted(waiting, key=lambda one: -one.count(".")):
        module = sys.modules[name]
        code = compile(sources[name], module.__file__ or name, "exec")
        exec(code, module.__dict__)  # noqa: S102 - this is what was sent for
        parent, _, leaf = name.rpartition(".")
        if parent:
            setattr(sys.modules[parent], leaf, module)


class Functions:
    """The functions a lane has, by the work they belong to."""

    def __init__(self, capture: Capture) -> None:
        capture.become_own()
        sys.stdout = os.fdopen(1, "w", encoding="utf-8", errors="backslashreplace", closefd=False)
        sys.stderr = os.fdopen(2, "w", encoding="utf-8", errors="backslashreplace", closefd=False)
        self._functions: dict[int, Loaded] = {}
        self._initialised: dict[bytes, Answer | None] = {}

    def prepare(self, work: int, head: Mapping[str, Any], body: bytes) -> Loaded:
        """Return (function, failure): the function of a work and None, or None and the facts that every task gets."""
        if work not in self._functions:
            self._functions[work] = self._load(head, body)
        return self._functions[work]

    def forget(self, works: Iterable[int]) -> None:
        """Let go of functions that will not be called again."""
        for work in works:
            self._functions.pop(work, None)

    def _load(self, head: Mapping[str, Any], body: bytes) -> Loaded:
        for place in reversed(head.get("path") or ()):
            if place not in sys.path:
                sys.path.insert(0, place)
        if head.get("environ"):
            os.environ.update(head["environ"])
        cut = head.get("init") or 0
        if cut:
            failure = self._initialise(body[:cut])
            if failure:
                return None, failure
        try:
            return pickle.loads(body[cut:]), None  # noqa: S301 - running the user's own function is the purpose
        except BaseException as error:  # noqa: BLE001 - whatever a module does when it is imported
            return None, _unpickle_failure("the function", error)

    def _initialise(self, body: bytes) -> Answer | None:
        if body not in self._initialised:
            failure: Answer | None = None
            try:
                initializer, arguments = pickle.loads(body)  # noqa: S301 - as above
                initializer(*arguments)
            except BaseException as error:  # noqa: BLE001 - the pool is told whatever it was
                failure = EXECUTOR, "initializer: " + _text(error), b""
            self._initialised[body] = failure
        return self._initialised[body]

    @staticmethod
    def call(function: Callable[..., Any], payload: bytes) -> Answer:
        """Call a function on its pickled (args, kwargs); returns (cause, detail, pickled result)."""
        try:
            args, kwargs = pickle.loads(payload)  # noqa: S301 - as above
        except BaseException as error:  # noqa: BLE001 - as above
            return _unpickle_failure("the arguments", error)
        answer: Answer
        try:
            data = dumps(function(*args, **kwargs))
            answer = (0, None, data) if len(data) <= wire.LONGEST else _raised(_too_long(data))
        except BaseException as error:  # noqa: BLE001 - the future raises whatever it was
            answer = _raised(error)
        try:
            sys.stdout.flush()
            sys.stderr.flush()
        except Exception:  # noqa: BLE001, S110 - the function may have closed or replaced them, or the disk is full
            pass
        return answer


def _too_long(data: bytes) -> OverflowError:
    return OverflowError("the result has %d bytes pickled; %d can travel" % (len(data), wire.LONGEST))


def _text(error: BaseException) -> str:
    return "".join(traceback.format_exception(type(error), error, error.__traceback__))


def _raised(error: BaseException) -> Answer:
    text = _text(error)
    error.__traceback__ = None
    try:
        data = dumps(error)
        pickle.loads(data)  # noqa: S301 - exceptions that pickle and do not unpickle are common
    except BaseException:  # noqa: BLE001 - the text is kept in any case
        data = b""
    return EXCEPTION, text, data


def _unpickle_failure(what: str, error: BaseException) -> Answer:
    text = "%s cannot be loaded on this node: %s: %s" % (what, type(error).__name__, error)
    return UNPICKLE, text, b""


def dumps(value: Any) -> bytes:
    """Pickle a value, by value where it must be."""
    try:
        data = pickle.dumps(value, protocol=4)
    except Exception:  # noqa: BLE001 - pickle raises many kinds
        return _by_value(value)
    return _by_value(value) if b"__main__" in data else data


def _by_value(value: Any) -> bytes:
    try:
        import cloudpickle  # noqa: PLC0415 - absent on most nodes, sent where functions need it
    except ImportError:
        return pickle.dumps(value, protocol=4)
    return bytes(cloudpickle.dumps(value, protocol=4))
