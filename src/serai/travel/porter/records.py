"""A job's directory: what is written down of it, so that any later porter can go on.

``jobs/<host>/<id>`` below ``$SERAI_STATE``, else below ``~/.local/state/serai``; mode 0700. $XDG_STATE_HOME is passed
over on purpose: it differs between logins of one user, and they must find the same jobs. <host> is there because a home
directory may be shared by many hosts.

job      what is run, without the environment (that may hold a secret)
alive    a FIFO that the keeper holds open until the job has ended: whoever reads it sees the end, also that of a keeper
         that was killed
keeper   made by the keeper that got the job: there is never a second one
started  process, and when it began (so that another one with the same number is never taken for it)
ended    exit code or what went wrong
canceled it is wanted that it ends
in, out, err   its streams, where they are not files of the user's
"""

from __future__ import annotations

import contextlib
import json
import os
import platform
import re
import time

from .calls import Trouble
from .lineage import boot, is_stopped, look

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

_ID = re.compile(r"[A-Za-z0-9_-]{1,64}")
START_S = 60.0  # from the making of its directory to a keeper


def base() -> str:
    """The directory of this host's jobs."""
    state = os.environ.get("SERAI_STATE") or os.path.expanduser("~/.local/state/serai")
    return os.path.join(state, "jobs", platform.node().replace("/", "_") or "host")


def room_of(job: Any) -> str:
    """The directory of a job, whether there is one or not."""
    if not isinstance(job, str) or not _ID.fullmatch(job):
        raise Trouble("usage", "%r is not the identifier of a job" % (job,))
    return os.path.join(base(), job)


def write(room: str, name: str, facts: Any) -> None:
    """Write a record; it is there whole or not at all."""
    path = os.path.join(room, name)
    fd = os.open(path + "~", os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
    try:
        os.write(fd, json.dumps(facts).encode("ascii"))
    finally:
        os.close(fd)
    os.rename(path + "~", path)


def read(room: str, name: str) -> dict[str, Any] | None:
    """Read a record; None when there is none."""
    try:
        with open(os.path.join(room, name), "rb") as file:
            facts: dict[str, Any] = json.loads(file.read())
            return facts
    except (FileNotFoundError, ValueError):
        return None


def watch(room: str) -> int | None:
    """Open what ends with the keeper: a descriptor that is ready to be read when it has. None when it has already."""
    try:
        fd = os.open(os.path.join(room, "alive"), os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    except FileNotFoundError:
        return None
    try:
        os.read(fd, 1)  # nothing is ever written to it
    except BlockingIOError:
        return fd
    except OSError:
        pass
    os.close(fd)
    return None


def is_kept(room: str) -> bool:
    """Whether a keeper has the job and it has not ended."""
    fd = watch(room)
    if fd is not None:
        os.close(fd)
    return fd is not None


def status(job: str) -> dict[str, Any]:
    """What is known of a job.

    Raises:
        Trouble: there is no such job.
    """
    room = room_of(job)
    made = read(room, "job")
    if made is None:
        raise Trouble(
            "usage", "there is no job %s here, or it was removed; `serai job list` shows those that are" % job
        )
    facts = {key: made.get(key) for key in ("id", "argv", "cwd", "created")}
    facts["output"], facts["error_file"] = made.get("output"), made.get("error")
    started = read(room, "started") or {}
    facts.update(pid=started.get("pid"), started=started.get("time"))
    facts.update(_ended(room) or _under_way(room, made, started))
    return facts


def _ended(room: str) -> dict[str, Any] | None:
    ended = read(room, "ended")
    if ended is None:
        return None
    good = ended["code"] == 0 and not ended["error"]
    state = "CANCELED" if ended["canceled"] else "DONE" if good else "FAILED"
    return {"state": state, "code": ended["code"], "error": ended["error"], "ended": ended["time"]}


def _under_way(room: str, made: dict[str, Any], started: dict[str, Any]) -> dict[str, Any]:
    if made["boot"] != boot():
        return {"state": "FAILED", "error": "the host was started again while it ran"}
    seen = look(started["pid"]) if started else None
    if seen is not None and started and seen.start == started["start"] and seen.state not in "ZX":
        return {"state": "SUSPENDED" if is_stopped(started["pid"], seen) else "RUNNING"}
    if is_kept(room):
        return {"state": "RUNNING" if started else "NEW"}
    return _ended(room) or _unkept(room, made, started)  # its end may have come in the meantime


def _unkept(room: str, made: dict[str, Any], started: dict[str, Any]) -> dict[str, Any]:
    if started:
        canceled = os.path.exists(os.path.join(room, "canceled"))
        what = "its keeper was ended from outside: nobody knows its exit code"
        return {"state": "CANCELED" if canceled else "FAILED", "error": what}
    if os.path.exists(os.path.join(room, "keeper")) or time.time() > made["created"] + START_S:
        return {"state": "FAILED", "error": "its keeper was ended from outside before it was started"}
    return {"state": "NEW"}


def names() -> list[str]:
    """Every job of this host."""
    with contextlib.suppress(OSError):
        return sorted(name for name in os.listdir(base()) if _ID.fullmatch(name))
    return []
