"""Finding programs, and ending processes with everything they started."""

import errno
import os
import signal
import sys
import time

LINUX = sys.platform.startswith("linux")
_PR_SET_CHILD_SUBREAPER = 36


def adopt_orphans():
    """Have descendants whose parent ended become children of this process, so that they can be found and ended.

    Linux only; elsewhere a process that leaves its group outlives its task.
    """
    if LINUX:
        try:
            import ctypes  # noqa: PLC0415 - slow to import, and some small interpreters lack it

            ctypes.CDLL(None).prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
        except (ImportError, OSError, AttributeError):
            pass


def children_of(pid):
    """Return the processes whose parent is ``pid``."""
    found = []
    try:
        for thread in os.listdir("/proc/%d/task" % pid):
            with open("/proc/%d/task/%s/children" % (pid, thread)) as file:
                found += [int(word) for word in file.read().split()]
    except OSError:
        return _children_by_scan(pid) if not found else found
    return found


def _children_by_scan(pid):
    """The same where the kernel does not list children."""
    found = []
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


def end_descendants(me, group=0, spare=(), deadline_s=5.0):
    """End every descendant of ``me`` (this process) and reap it; costs one system call when there is none.

    Args:
        me: this process.
        group: a process group to end as well where orphans cannot be adopted.
        spare: children to leave alone.
        deadline_s: what cannot be ended by then (a process in the kernel's hands) is left.
    """
    if group and not LINUX:
        try:
            os.killpg(group, signal.SIGKILL)
        except OSError:
            pass
    until = time.monotonic() + deadline_s
    pause = 0.0005
    while True:
        if not spare:
            try:
                done, _ = os.waitpid(-1, os.WNOHANG)
            except ChildProcessError:
                return
            if done:
                continue
        living = [pid for pid in children_of(me) if pid not in spare]
        if spare and not living:
            return
        for pid in living:
            _end_tree(pid)
            if spare:
                _reap(pid)
        if time.monotonic() > until or not living:
            return
        time.sleep(pause)  # the kernel needs a moment between the signal and the zombie
        pause = min(0.05, pause * 2)


def _end_tree(pid):
    """End a process and what is below it. Stopped first, so that it starts nothing while its children are listed."""
    try:
        os.kill(pid, signal.SIGSTOP)
        for child in children_of(pid):
            _end_tree(child)
        os.kill(pid, signal.SIGKILL)
    except OSError:
        pass


def _reap(pid):
    try:
        os.waitpid(pid, os.WNOHANG)
    except OSError:
        pass


def find_program(name, path):
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
