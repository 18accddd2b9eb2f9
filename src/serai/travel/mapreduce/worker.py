"""A MapReduce worker: asks the front end for orders through the gateway, one at a time, and leaves nothing behind.

What it is told is in its environment: ``SERAI_GATEWAY`` and ``SERAI_GATEWAY_TOKEN_FILE`` (the way to the front end),
``SERAI_WORKER`` (its id), ``SERAI_RUN`` (the run's name, for its advert) and ``SERAI_ROOM`` (the run's directory here,
beside which the node's cache lies). It ends when it is told to stop, when it
is signalled, or when the front end cannot be reached for `PATIENCE_S` (or ``SERAI_GATEWAY_PATIENCE_S``).
"""

from __future__ import annotations

import contextlib
import gc
import json
import os
import platform
import re
import shutil
import signal
import socket
import sys
import tempfile
import threading
import time
import traceback

from ..gateway import GatewayError
from ..peers import Peers, Server, listening_sockets, own_addresses
from ..processes import adopt_orphans, end_descendants
from .commands import CommandFailed
from .fetching import Missing
from .gathering import GivesNoPairs
from .keys import KeyRefused
from .link import GAVE_UP, PATIENCE_S, Link
from .mapping import BadJob
from .splits import InputBroken
from .tasks import Job, Tasks, remove

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import Any

    from ..caching.pieces import Pieces

TTL_S = 15.0
RENEW_S = 3.0
LENIENT = 4.0  # an ad lives longer by so many times what renewals have been late
BEAT_S = 1.0
ASK_S = 60.0  # for an answer to work.next, which comes after 20 s even when there is none
LONGEST_SAID = 4000  # characters of a failure
PLAIN = (BadJob, CommandFailed, GivesNoPairs, InputBroken, KeyRefused, Missing)  # what they say is enough


class Stopped(BaseException):
    """The worker is to end."""


class Cancelled(BaseException):
    """The order is not wanted any more."""


class Worker:
    """A worker of a run.

    Args:
        environment: see the module.
        link: the way to the front end.
        scratch: a directory of its own, mode 0700.

    Attributes:
        why: it gave up, if it did for a bad reason.
    """

    def __init__(self, environment: Mapping[str, str], link: Link, scratch: str) -> None:
        self._name = environment["SERAI_WORKER"]
        self._base = environment.get("SERAI_ROOM", "")
        self._run = environment.get("SERAI_RUN", "")
        self._link = link
        self._scratch = scratch
        self._sockets = _sockets()
        self._server: Server | None = None
        self._peers: Peers | None = None
        self._tasks: Tasks | None = None
        self._outputs: set[str] = set()
        self._over = threading.Event()
        self._main = threading.get_ident()
        self._order: tuple[str, int, int] | None = None  # under way
        self._withdrawn: tuple[str, int, int] | None = None
        self._failed: str | None = None  # why the job cannot be done here
        self.why = ""

    # ---- its life

    def work(self) -> None:
        """Register, and carry out orders until there are no more.

        Raises:
            GatewayError: the front end cannot be reached, or does not want this worker.
        """
        if self._run:
            self._advertise()
        head, body = self._link.call("work.job", {"worker": self._name})
        if not self._run:
            self._run = str(head["run"])
            self._advertise()
        self._prepare(head, body)
        for target, name in ((self._renew, "renew"), (self._beat, "beat")):
            threading.Thread(target=target, name=name, daemon=True).start()
        while True:
            answer, body = self._link.call("work.next", {"worker": self._name}, deadline_s=ASK_S)
            order = answer.get("order")
            if order is None:
                continue
            if order["kind"] == "stop":
                return
            if order["kind"] == "drop":
                self._drop(order["paths"])
            else:
                if body:  # of a reduce: where very many maps are does not fit into a head
                    order["maps"] = json.loads(body)
                self._carry_out(order)

    def close(self) -> None:
        """End its threads, connections and commands."""
        self._over.set()
        if self._server is not None:
            self._server.close()
        if self._peers is not None:
            self._peers.close()
        for one in self._sockets:
            one.close()
        with contextlib.suppress(GatewayError):
            if self._run:
                self._link.last_call("advert.remove", {"path": self._advert})
        self._link.close()
        end_descendants(os.getpid())

    # ---- the run

    @property
    def _advert(self) -> str:
        return "/mapreduce/%s/workers/%s" % (self._run, self._name)

    def _advertise(self) -> None:
        port = int(self._sockets[0].getsockname()[1]) if self._sockets else None
        attributes = dict(facts(), shuffle_port=port, scratch=self._scratch)
        self._link.call("advert.put", {"path": self._advert, "attributes": attributes, "ttl_s": TTL_S})

    def _prepare(self, head: Mapping[str, Any], body: bytes) -> None:
        shuffle = head.get("shuffle")
        if shuffle and self._sockets:
            self._server = Server(self._sockets, shuffle["cert"], shuffle["key"], self._scratch)
            self._peers = Peers(shuffle["cert"], shuffle["key"], self._scratch)
        try:
            job = Job(head, body)
        except Exception as error:  # noqa: BLE001 - whatever a module does when it is imported
            self._failed = "what is to be run cannot be loaded on this node: %s" % told(error)
        else:
            self._tasks = Tasks(job, self._link.call, self._peers, self._scratch, self._name, self._cache)

    def _cache(self) -> Pieces:
        """Open the node's cache."""
        from ..caching.pieces import Pieces  # noqa: PLC0415 - compiled where something is kept

        return Pieces(self._base or self._scratch, self._scratch)

    # ---- orders

    def _carry_out(self, order: Mapping[str, Any]) -> None:
        kind = str(order["kind"])
        which = "task" if kind == "map" else "partition"
        head: dict[str, Any] = {
            "worker": self._name,
            "kind": kind,
            which: order[which],
            "attempt": order["attempt"],
        }
        do = "work.failed"
        try:
            with self._interruptible((kind, int(order[which]), int(order["attempt"]))):
                facts_of_it = self._done(kind, order)
            do, head = "work.done", dict(head, **facts_of_it)
        except Cancelled:
            head.update(what="it was withdrawn", missing=[], transient=True)
        except SystemExit as error:  # of the user's function: it ends neither worker nor run
            head.update(what="sys.exit(%r) was called\n%s" % (error.code, told(error)), missing=[], transient=False)
        except Exception as error:  # noqa: BLE001 - whatever the user's functions raise is told
            head.update(what=told(error), missing=getattr(error, "tasks", []), transient=is_transient(error))
        finally:
            end_descendants(os.getpid())
        self._link.call(do, head)

    def _done(self, kind: str, order: Mapping[str, Any]) -> dict[str, Any]:
        if self._tasks is None:
            raise BadJob(self._failed or "there is no job")
        if kind == "reduce":
            return self._tasks.reduce(order)
        done = self._tasks.map(order)
        path, index = done["outputs"]["path"], done["outputs"]["index"]
        self._outputs.add(path)
        if self._server is not None:
            self._server.register(path, sum(size for _, size in index))
        return done

    def _drop(self, paths: list[str]) -> None:
        """Remove map outputs that nobody needs; only such as were made here."""
        for path in self._outputs.intersection(paths):
            self._outputs.discard(path)
            if self._server is not None:
                self._server.forget(path)
            remove(path)

    # ---- meanwhile

    @contextlib.contextmanager
    def _interruptible(self, order: tuple[str, int, int]) -> Any:
        """While this goes on, `_withdraw` may end it."""
        try:
            self._order = order
            yield
        finally:
            self._order = None

    def _withdraw(self, order: tuple[str, int, int]) -> None:
        """End an order from another thread; whether it is still under way, the main thread sees for itself."""
        if self._withdrawn != order:
            self._withdrawn = order
            signal.pthread_kill(self._main, signal.SIGINT)

    def interrupted(self, *_: object) -> None:
        """The main thread's handler of the signal; also of a Ctrl-C that was meant for somebody else.

        Raises:
            Cancelled: the order was withdrawn.
        """
        if self._order is not None and self._order == self._withdrawn:
            self._order = None
            raise Cancelled

    def _renew(self) -> None:
        """Renew the ad. On a slow link that is full of input an answer takes seconds: that must not look like death."""
        late_s, at = 0.0, time.monotonic()
        while not self._over.wait(RENEW_S):
            now = time.monotonic()
            late_s, at = max(now - at - RENEW_S, 0.9 * late_s), now
            try:
                self._link.call("advert.renew", {"path": self._advert, "ttl_s": TTL_S + LENIENT * late_s})
            except GatewayError as error:
                if error.kind == "not_found":  # it was away for so long that it was forgotten
                    with contextlib.suppress(GatewayError):
                        self._advertise()
                elif error.transient or error.kind == "refused":
                    self._give_up("the front end: %s" % error)

    def _beat(self) -> None:
        while not self._over.wait(BEAT_S):
            order, tasks = self._order, self._tasks
            if order is None or tasks is None:
                continue
            head = {
                "worker": self._name,
                "order": {"kind": order[0], "number": order[1], "attempt": order[2]},
                "done_fraction": round(tasks.done_fraction, 4),
            }
            try:
                answer, _ = self._link.call("work.beat", head)
            except GatewayError as error:
                if error.kind == "usage":  # this worker is not wanted any more
                    self._give_up("the front end: %s" % error)
                continue
            if answer.get("stop"):
                self._give_up("")
            elif answer.get("cancel"):
                self._withdraw(order)

    def _give_up(self, why: str) -> None:
        """End the worker, from another thread."""
        if not self._over.is_set():
            self._over.set()
            self.why = why
            signal.pthread_kill(self._main, signal.SIGTERM)


def facts() -> dict[str, Any]:
    """What a worker's advert says of its node."""
    return {
        "host": socket.gethostname(),
        "boot": _first_line("/proc/sys/kernel/random/boot_id"),
        "user": os.getuid(),
        "pid": os.getpid(),
        "cores": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1,
        "memory_bytes": _memory_bytes(),
        "python": list(sys.version_info[:3]),
        "os": platform.system().lower(),
        "arch": platform.machine(),
        "addresses": own_addresses(),
    }


def _first_line(path: str) -> str:
    try:
        with open(path) as file:
            return file.readline().strip()
    except OSError:
        return ""


def _memory_bytes() -> int:
    try:
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (ValueError, OSError, AttributeError):
        return 0


def _sockets() -> list[socket.socket]:
    try:
        return listening_sockets()
    except OSError:
        return []  # the front end relays


def told(error: BaseException) -> str:
    """What is said of a failure: its sentence where it is ours, else the user's own frames with it."""
    if isinstance(error, PLAIN):
        text = str(error)
    elif isinstance(error, (GatewayError, OSError)):
        text = "%s: %s" % (type(error).__name__, error)
    else:
        frames = traceback.format_exception(type(error), error, error.__traceback__)
        text = "".join(one for one in frames if "<serai_travel>" not in one).strip()
    return text if len(text) <= LONGEST_SAID else "…" + text[-LONGEST_SAID:]


def is_transient(error: BaseException) -> bool:
    """Whether the same may go well elsewhere or later: the node's trouble, not the job's."""
    if isinstance(error, GatewayError) and error.kind in ("usage", "not_found"):  # an input is gone, or has changed
        return False
    return isinstance(error, (GatewayError, OSError, MemoryError)) and not isinstance(error, FileNotFoundError)


def main(environment: Mapping[str, str]) -> int:
    """Work for a run; returns the exit status."""
    gc.set_threshold(100_000, 50, 1000)  # what is collected by key is many small lists without circles
    adopt_orphans()
    name = re.sub(r"[^\w.-]", "_", "%s-%s" % (environment.get("SERAI_RUN", "run"), environment.get("SERAI_WORKER", "")))
    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, _stop)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    scratch, worker = "", None
    try:
        scratch = tempfile.mkdtemp(prefix="serai-mr-%s-" % name)
        patience_s = float(environment.get("SERAI_GATEWAY_PATIENCE_S") or PATIENCE_S)
        worker = Worker(environment, Link(environment, patience_s), scratch)
        signal.signal(signal.SIGINT, worker.interrupted)
        worker.work()
    except Stopped:
        if worker is not None and worker.why:
            sys.stderr.write(worker.why + "\n")
            return GAVE_UP
        return 0
    except GatewayError as error:
        sys.stderr.write("the front end: %s\n" % error)
        return GAVE_UP
    finally:
        for number in (signal.SIGTERM, signal.SIGHUP, signal.SIGINT):
            signal.signal(number, signal.SIG_IGN)
        if worker is not None:
            worker.close()
        shutil.rmtree(scratch, ignore_errors=True)
    return 0


def _stop(*_: object) -> None:
    raise Stopped


def serve_pipes(fd_in: int, fd_out: int, _sources: Mapping[str, str]) -> None:
    """Start as every program that travels: what is behind the pipes is not used, the gateway is.

    Args:
        fd_in: where the program came from.
        fd_out: where its sign of life went.
        _sources: the text of its modules.
    """
    os.close(fd_in)
    os.close(fd_out)
    code = main(os.environ)
    sys.stderr.flush()
    os._exit(code)
