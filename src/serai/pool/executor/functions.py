"""Calling the user's functions in a lane."""

import os
import pickle
import sys
import traceback
import types

EXCEPTION, EXECUTOR, UNPICKLE = 2, 10, 11


def install(sources):
    """Make modules of source text importable where the node lacks them: {name: source}."""
    for name in sorted(sources, key=len):
        if name in sys.modules:
            continue
        try:
            __import__(name)
            continue
        except ImportError:
            pass
        module = types.ModuleType(name)
        module.__file__ = "<sent with the executor>/%s.py" % name
        if any(other.startswith(name + ".") for other in sources):
            module.__path__ = []
        module.__package__ = name if hasattr(module, "__path__") else name.rpartition(".")[0]
        sys.modules[name] = module
        _waiting.append((name, sources[name]))
    # Packages import their parts, so parts are run first.
    for name, source in sorted(_waiting, key=lambda pair: -pair[0].count(".")):
        module = sys.modules[name]
        exec(compile(source, module.__file__, "exec"), module.__dict__)  # noqa: S102 - this is what was sent for
        parent, _, leaf = name.rpartition(".")
        if parent:
            setattr(sys.modules[parent], leaf, module)
    del _waiting[:]


_waiting = []


class Functions:
    """The functions a lane has, by the work they belong to."""

    def __init__(self, capture):
        capture.become_own()
        sys.stdout = os.fdopen(1, "w", encoding="utf-8", errors="backslashreplace", closefd=False)
        sys.stderr = os.fdopen(2, "w", encoding="utf-8", errors="backslashreplace", closefd=False)
        self._functions = {}
        self._initialised = {}

    def prepare(self, work, head, body):
        """Return (function, failure): the function of a work and None, or None and the facts that every task gets."""
        if work not in self._functions:
            self._functions[work] = self._load(head, body)
        return self._functions[work]

    def _load(self, head, body):
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

    def _initialise(self, body):
        if body not in self._initialised:
            failure = None
            try:
                initializer, arguments = pickle.loads(body)  # noqa: S301 - as above
                initializer(*arguments)
            except BaseException as error:  # noqa: BLE001 - the pool is told whatever it was
                failure = (
                    EXECUTOR,
                    "initializer: " + "".join(traceback.format_exception(type(error), error, error.__traceback__)),
                    b"",
                )
            self._initialised[body] = failure
        return self._initialised[body]

    def call(self, function, payload):
        """Call a function on its pickled (args, kwargs); returns (cause, detail, pickled result)."""
        try:
            args, kwargs = pickle.loads(payload)  # noqa: S301 - as above
        except BaseException as error:  # noqa: BLE001 - as above
            return _unpickle_failure("the arguments", error)
        try:
            result = function(*args, **kwargs)
            answer = 0, None, dumps(result)
        except BaseException as error:  # noqa: BLE001 - the future raises whatever it was
            answer = _raised(error)
        sys.stdout.flush()
        sys.stderr.flush()
        return answer


def _raised(error):
    text = "".join(traceback.format_exception(type(error), error, error.__traceback__))
    error.__traceback__ = None
    try:
        data = dumps(error)
        pickle.loads(data)  # noqa: S301 - exceptions that pickle and do not unpickle are common
    except Exception:  # noqa: BLE001 - the text is kept in any case
        data = b""
    return EXCEPTION, text, data


def _unpickle_failure(what, error):
    text = "%s cannot be loaded on this node: %s: %s" % (what, type(error).__name__, error)
    return UNPICKLE, text, b""


def dumps(value):
    """Pickle a value, by value where it must be."""
    try:
        data = pickle.dumps(value, protocol=4)
    except Exception:  # noqa: BLE001 - pickle raises many kinds
        return _by_value(value)
    return _by_value(value) if b"__main__" in data else data


def _by_value(value):
    try:
        import cloudpickle  # noqa: PLC0415 - absent on most nodes, sent where functions need it
    except ImportError:
        return pickle.dumps(value, protocol=4)
    return cloudpickle.dumps(value, protocol=4)
