"""Running a program where remote files can be read, and serving them for as long as it runs.

For a task: the lane starts this program (`program`) in place of the task's own, with a file that says in JSON what is
to be seen where:

    {"argv": [...],               the task's own words
     "directory": "...",          an empty directory of the task's; what is mounted is seen there
     "files": {"name": SOURCE},   or "source": SOURCE, for a whole tree
     "links": {"in/x.root": "name"},   in the working directory: symbolic links to files there, made before the start
     "record": "...",             a file that JSON lines are added to, see `record`
     "cache": ["DIRECTORY", BYTES],  blocks are kept there, shared with others; null: in memory only
     "scratch": "...",            a directory for what is written; absent: nothing can be
     "failed": "...",             a file that says why, where no mount could be made
     "trouble": "...",            a file that says what the task could not read, and why, if there was anything
     "deadline_s": 30.0}          how long a source may be silent before a program is told EIO

A SOURCE is what `make` takes: ``{"kind": "gateway", "url": "ssh://…", "stat": [size, mtime_ns, mode]}`` and so on.
The exit code is the task's, also where it was killed by a signal: then this process ends by the same one. Signals for
this process's group reach the task, which is in it, and are not heard here. Exit code 125: the mount could not be made,
and standard error says why in one line, as the file "failed" does: a task may have this exit code, too.
"""

from __future__ import annotations

import contextlib
import json
import os
import resource
import signal
import sys
import threading

from ..reading.blocks import Blocks
from ..reading.careful import Origin
from ..reading.contents import Fetcher
from ..reading.record import Record
from ..reading.sources import Directory, FirstOf, Gathered
from . import namespace
from .serving import Files
from .session import Session

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from typing import Any

    from ..reading.sources import Source

CANNOT_MOUNT = 125
DEADLINE_S = 30.0
PEER_SILENT_S = 5.0
LEAST_CACHE = 64 << 20
LAST_S = 15.0  # for what is under way when the program has ended


def make(said: Mapping[str, Any]) -> Source:
    """A source from its description.

    ``{"kind": "directory", "path"}`` · ``{"kind": "store", "host", "port", "fingerprint", "token_file", "path"}`` ·
    ``{"kind": "peer", "host", "port", "fingerprint", "token_file", "digest", "size"}``, with ``"object"``
    where it is not ``objects/<digest>`` ·
    ``{"kind": "origin", "name", "url", "size", "stamp", "memory"}``: where the front end lets this node read it ·
    ``{"kind": "gateway", "url"}``, with ``"address"`` and ``"token_file"`` or those of the environment ·
    ``{"kind": "first", "of": [SOURCE, …], "digest"}``: one after the other.

    Raises:
        ValueError: it is none.
    """
    kind = said.get("kind")
    if kind == "directory":
        return Directory(str(said["path"]))
    if kind == "first":
        *peers, last = said["of"]
        others = [dict({"silent_s": PEER_SILENT_S}, **one) for one in peers]  # while there is time for the next
        first = FirstOf(
            [(make(one), str(one.get("file", "/"))) for one in [*others, last]], str(said.get("digest", ""))
        )
        first.identity = first.identity or str(said.get("identity", ""))
        return first
    if kind in ("store", "peer"):
        from ..reading import web  # noqa: PLC0415 - ssl takes long to import

        return web.make(said)
    if kind in ("origin", "gateway"):
        from ..reading import relayed  # noqa: PLC0415 - the same

        return relayed.make_direct(said) if kind == "origin" else relayed.make(said)
    raise ValueError("%r is no kind of source" % (kind,))


def gathered(files: Mapping[str, Mapping[str, Any]]) -> Gathered:
    """Files under names of their own. Descriptions that differ in ``"file"`` alone, the path, share one source."""
    made: dict[str, Source] = {}
    places: dict[str, tuple[Source, str]] = {}
    for name, said in files.items():
        same = json.dumps({key: value for key, value in said.items() if key != "file"}, sort_keys=True)
        if same not in made:
            made[same] = make(said)
        places[name] = (made[same], str(said.get("file", "/")))
    return Gathered(places)


class Mount:
    """A mount that is served by this process.

    Args:
        source: what is seen.
        names: the URL of a path, for the record.
        cache: a directory for blocks and its limit in bytes, or None.
        record: see `Record`.
        scratch: a directory for what is written, or None.
        deadline_s: how long the source may be silent.
    """

    def __init__(
        self,
        source: Source,
        names: Callable[[str], str],
        *,
        cache: tuple[str, int] | None = None,
        record: str | None = None,
        scratch: str | None = None,
        deadline_s: float = DEADLINE_S,
    ) -> None:
        self._source, self._deadline_s = source, deadline_s
        directory, limit = cache if cache is not None else (None, LEAST_CACHE)
        self._blocks = Blocks(directory, max(limit, LEAST_CACHE))
        self._fetcher = Fetcher(self._blocks, deadline_s)
        self.files = Files(Origin(source), self._fetcher, Record(record), names, scratch)
        self.session: Session | None = None

    def serve(self, device: int) -> Session:
        """Begin to serve at a descriptor of the device."""
        self.session = Session(device, self.files, self._deadline_s)
        self.files.tell = self.session.tell
        self.session.start()
        return self.session

    def close(self) -> None:
        """The mount is gone, or nobody needs it any more."""
        ending = threading.Thread(target=self._end, daemon=True)
        ending.start()
        ending.join(LAST_S)

    def _end(self) -> None:
        self.files.close()
        self._fetcher.close()
        self._source.close()


def run(setup: Mapping[str, Any]) -> int:
    """Run a task as its setup says; see the module. Returns its exit code, negative for a signal."""
    directory = os.path.abspath(setup["directory"])
    if "source" in setup:
        source, top = make(setup["source"]), str(setup["source"].get("url", ""))
        urls: dict[str, str] = {}
    else:
        source, top = gathered(setup["files"]), ""
        urls = {"/" + name: str(said.get("url", name)) for name, said in setup["files"].items()}
    cache = setup.get("cache")
    os.makedirs(directory, mode=0o700, exist_ok=True)
    for link, name in setup.get("links", {}).items():
        os.symlink(os.path.join(directory, name), link)
    scratch = setup.get("scratch")
    program = namespace.start(setup["argv"], directory, read_only=scratch is None, bound=not setup.get("linger"))
    mount = Mount(
        source,
        lambda path: urls.get(path, top + path),
        cache=(cache[0], int(cache[1])) if cache else None,
        record=setup.get("record"),
        scratch=scratch,
        deadline_s=float(setup.get("deadline_s", DEADLINE_S)),
    )
    mount.files.promised = frozenset(map(os.fsencode, setup.get("files", ())))
    code = follow(program, mount, linger=bool(setup.get("linger")))
    if setup.get("trouble") and mount.files.trouble:
        _write(setup["trouble"], mount.files.trouble)
    return code


def follow(program: namespace.Program, mount: Mount, *, linger: bool) -> int:
    """Serve a program that waits in its namespace until it ends; the same with all that it left there to `linger`."""
    with contextlib.suppress(OSError, ValueError):  # it may end by the signal that its program did: no core of it, too
        resource.setrlimit(resource.RLIMIT_CORE, (0, resource.getrlimit(resource.RLIMIT_CORE)[1]))
    session = mount.serve(program.device)
    for number in (signal.SIGINT, signal.SIGQUIT):
        signal.signal(number, lambda *_: None)  # the program decides: a terminal sends them to both
    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, lambda number, _: _pass_on(program.pid, number))
    try:
        program.go()
    except OSError as error:
        sys.stderr.write("mount: %s\n" % error.strerror)
    _, status = os.waitpid(program.pid, 0)
    if linger:
        session.ended.wait()
    mount.close()
    return -os.WTERMSIG(status) if os.WIFSIGNALED(status) else os.WEXITSTATUS(status)


def _pass_on(pid: int, number: int) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, number)


def end_as(code: int) -> None:
    """End this process as another one ended."""
    sys.stderr.flush()
    if code < 0:
        with contextlib.suppress(OSError):  # SIGKILL and SIGSTOP take no other way
            signal.signal(-code, signal.SIG_DFL)
        os.kill(os.getpid(), -code)
        threading.Event().wait(1.0)
        os._exit(128 - code)
    os._exit(code)


def main(path: str) -> None:
    """What `program` does: run what a file says."""
    setup: dict[str, Any] = {}
    try:
        with open(path, encoding="utf-8") as file:
            setup = json.load(file)
        code = run(setup)
    except namespace.CannotMount as error:
        code = _cannot(setup, str(error))
    except (OSError, ValueError, KeyError) as error:
        code = _cannot(setup, "%s: %s" % (type(error).__name__, error))
    end_as(code)


def _cannot(setup: Mapping[str, Any], why: str) -> int:
    sys.stderr.write("mount: %s\n" % why)
    if setup.get("failed"):
        _write(setup["failed"], why)
    return CANNOT_MOUNT


def _write(path: str, words: str) -> None:
    with contextlib.suppress(OSError), open(path, "w", encoding="utf-8", errors="replace") as file:
        file.write(words)
