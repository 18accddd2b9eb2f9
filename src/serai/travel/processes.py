"""Finding and starting programs, and ending processes with everything they started."""

from __future__ import annotations

import contextlib
import errno
import functools
import os
import signal
import sys
import time

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
    from typing import Any

LINUX = sys.platform.startswith("linux")
PLAIN_SIGNALS = [getattr(signal, name) for name in ("SIGPIPE", "SIGXFSZ", "SIGINT") if hasattr(signal, name)]
_PR_SET_CHILD_SUBREAPER = 36
_cores = []  # type: list[tuple[int, int]]  # the limit of core files that this process began with
_beyond: set[int] = set()  # children that could not be ended in time: another user's, or in the kernel's hands


def adopt_orphans() -> bool:
    """Have descendants whose parent ended become children of this process, so that they can be found and ended.

    Returns whether that holds. It does on Linux with /proc; elsewhere a process that leaves its group outlives its
    task.
    """
    prctl = find_prctl()
    return prctl is not None and prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0) == 0


def leave_no_core() -> None:
    """Have nothing of this process's memory on the disk when a signal ends it: there are keys and users' data in it.

    What it starts inherits that, but for what is started within `with_cores`.
    """
    with contextlib.suppress(ImportError, OSError, ValueError):
        import resource  # noqa: PLC0415 - Unix only

        soft, hard = resource.getrlimit(resource.RLIMIT_CORE)
        resource.setrlimit(resource.RLIMIT_CORE, (0, hard))
        _cores.append((soft, hard))


@contextlib.contextmanager
def with_cores() -> Iterator[None]:
    """What is started meanwhile is the user's, and may leave what this process might when it began."""
    if not _cores:
        yield
        return
    import resource  # noqa: PLC0415 - Unix only

    soft, hard = _cores[0]
    resource.setrlimit(resource.RLIMIT_CORE, (soft, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_CORE, (0, hard))


@functools.lru_cache(maxsize=None)
def find_prctl() -> Callable[..., int] | None:
    """What sets attributes of a process, where orphans can be adopted and found; None elsewhere."""
    if not LINUX or not os.path.exists("/proc/self/stat"):
        return None
    try:
        import ctypes  # noqa: PLC0415 - slow to import, and some small interpreters lack it

        found: Callable[..., int] = ctypes.CDLL(None).prctl
    except (ImportError, OSError, AttributeError):
        return None
    return found


def children_of(pid: int) -> list[int]:
    """Return the processes whose parent is ``pid``."""
    found: list[int] = []
    try:
        for thread in os.listdir("/proc/%d/task" % pid):
            with open("/proc/%d/task/%s/children" % (pid, thread)) as file:
                found += [int(word) for word in file.read().split()]
    except OSError:
        return found or _children_by_scan(pid)
    return found


def _children_by_scan(pid: int) -> list[int]:
    """The same where the kernel does not list children."""
    found: list[int] = []
    try:
        names = os.listdir("/proc")
    except OSError:
        return found
    for name in names:
        if name.isdigit():
            try:
                with open("/proc/%s/stat" % name, "rb") as file:
                    parent = int(file.read().rpartition(b")")[2].split()[1])
            except (OSError, IndexError, ValueError):
                continue
            if parent == pid:
                found.append(int(name))
    return found


def end_descendants(me: int, group: int = 0, spare: Collection[int] = (), deadline_s: float = 5.0) -> None:
    """End every descendant of ``me`` (this process) and reap it; costs one system call when there is none.

    Args:
        me: this process.
        group: a process group to end as well, where orphans cannot be adopted.
        spare: children to leave alone.
        deadline_s: what cannot be ended by then (a process in the kernel's hands) is left, and not waited for again.
    """
    if group:
        signal_group(group, signal.SIGKILL)
    until = 0.0
    pause = 0.0005
    while True:
        if not spare:
            try:
                done, _ = os.waitpid(-1, os.WNOHANG)
            except ChildProcessError:
                return
            if done:
                _beyond.discard(done)
                continue
        living = [pid for pid in children_of(me) if pid not in spare and pid not in _beyond]
        if not living:
            return
        now = time.monotonic()
        until = until or now + deadline_s
        if now > until:
            _beyond.update(living)
            return
        for pid in living:
            kill_tree(pid)
            if spare:
                _reap(pid)
        time.sleep(pause)  # the kernel needs a moment between the signal and the zombie
        pause = min(0.05, pause * 2)


def kill_tree(pid: int) -> None:
    """End a process and what is below it. Stopped first, so that it starts nothing while its children are listed."""
    try:
        os.kill(pid, signal.SIGSTOP)
    except ProcessLookupError:
        return
    except OSError:
        pass  # another user's: what is below it may still be ours
    for child in children_of(pid):
        kill_tree(child)
    with contextlib.suppress(OSError):
        os.kill(pid, signal.SIGKILL)


def _reap(pid: int) -> None:
    with contextlib.suppress(OSError):
        os.waitpid(pid, os.WNOHANG)


def signal_group(pid: int, number: int) -> None:
    """Signal a process group, if it is there and ours."""
    with contextlib.suppress(OSError):
        os.killpg(pid, number)


def find_program(name: str, path: str | None) -> str:
    """Return the path of a program as a shell would find it.

    Raises:
        FileNotFoundError: there is none.
    """
    if "/" in name:
        return name
    for directory in (path or os.defpath).split(os.pathsep):
        candidate = os.path.join(directory or ".", name)
        if os.access(candidate, os.X_OK) and os.path.isfile(candidate):
            return candidate
    raise FileNotFoundError(errno.ENOENT, "not on PATH", name)


class Starter:
    """Starts commands, each in a process group of its own, and remembers where programs are.

    Args:
        actions: what to do with file descriptors, as ``os.posix_spawn`` wants it.
    """

    def __init__(self, actions: Sequence[tuple[Any, ...]]) -> None:
        self._actions = actions
        self._paths: dict[tuple[str, str | None], str] = {}

    def start(self, argv: list[str], environment: Mapping[str, str]) -> int:
        """Start a command in the current directory and return its process.

        Raises:
            OSError: the system cannot start it.
            ValueError: the words cannot be a command: none, or with a zero byte.
        """
        if not argv:
            raise ValueError("the command is empty")
        known = argv[0], environment.get("PATH")
        path = self._paths.get(known)
        if path is None:
            path = find_program(*known)
            if os.path.isabs(path):  # relative ones depend on the directory
                self._paths[known] = path
        try:
            return self._spawn(path, argv, environment)
        except OSError as error:
            self._paths.pop(known, None)
            if error.errno != errno.ENOEXEC:
                raise
        # A script without a first line that names its interpreter: what a shell does with it.
        return self._spawn("/bin/sh", ["/bin/sh", path, *argv[1:]], environment)

    def _spawn(self, path: str, argv: list[str], environment: Mapping[str, str]) -> int:
        return os.posix_spawn(path, argv, environment, file_actions=self._actions, setpgroup=0, setsigdef=PLAIN_SIGNALS)


def cannot_start(argv: Sequence[str], where: str, error: OSError | ValueError) -> str:
    """Return the sentence for a command that was not started."""
    if not isinstance(error, OSError):
        return "cannot start %s: %s" % (argv[0] if argv else "it", error)
    if error.errno in {errno.ENOENT, errno.ENOTDIR} and not os.path.isdir(where):
        return "there is no directory %s to run it in" % where
    if error.errno == errno.ENOENT and "/" in argv[0] and os.path.exists(os.path.join(where, argv[0])):
        return "cannot start %s: the interpreter that its first line names is not there" % argv[0]
    if error.errno == errno.ENOENT:
        return "there is no program %s" % argv[0]
    if error.errno == errno.E2BIG:
        return "its arguments are too long for this system (%d bytes)" % sum(len(word) for word in argv)
    return "cannot start %s: %s" % (argv[0], os.strerror(error.errno or 0))
