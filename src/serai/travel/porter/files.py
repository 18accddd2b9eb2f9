"""What can be asked about files.

Paths travel as text in which bytes that are no UTF-8 are surrogates, and are bytes here, whatever the locale is. A path
that begins with ``~/`` is below the login's home directory.
"""

from __future__ import annotations

import hashlib
import json
import os
import stat

from .calls import Pulse
from .drafts import BLOCK, Draft, copy, encoded, move, native, put_in_place, remove, stamp, text, write_at
from .surroundings import addresses, mounts

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping
    from typing import Any, Optional

    from .calls import Call

    Answer = Optional["tuple[Mapping[str, Any], bytes]"]

INLINE = 1 << 20  # bytes that are answered at once; more are a stream
ROWS = 500  # of a listing, sent together


# ---- looking


def kind_of(mode: int) -> str:
    """In the words of fsspec."""
    return "directory" if stat.S_ISDIR(mode) else "file" if stat.S_ISREG(mode) else "other"


def info(raw: bytes, *, follow: bool = True) -> dict[str, Any]:
    """What is known of a path; of a link, what it leads to, unless that is not asked."""
    found = os.lstat(raw)
    facts: dict[str, Any] = {"islink": stat.S_ISLNK(found.st_mode)}
    if facts["islink"]:
        facts["destination"] = text(os.readlink(raw))
        if follow:
            found = os.stat(raw)
    facts.update(_facts(found))
    return facts


def _facts(found: os.stat_result) -> dict[str, Any]:
    return {
        "type": kind_of(found.st_mode),
        "size": found.st_size,
        "mode": found.st_mode,
        "uid": found.st_uid,
        "gid": found.st_gid,
        "ino": found.st_ino,
        "nlink": found.st_nlink,
        "mtime_ns": found.st_mtime_ns,
        "ctime_ns": found.st_ctime_ns,
    }


def rows(raw: bytes, depth: int | None, *, detail: bool = True) -> Iterator[dict[str, Any]]:
    """Everything below a directory, each with its name relative to it; directories that cannot be read are empty.

    Links are not followed: one to a file is told as that file with "islink", one to a directory is of type "other".

    Args:
        raw: the directory.
        depth: how many levels; None for all.
        detail: whether more than name and type is told.

    Raises:
        OSError: the directory itself cannot be read.
    """
    todo = [(raw, b"", 1)]
    first = True
    while todo:
        here, prefix, level = todo.pop()
        try:
            entries = list(os.scandir(here))
        except OSError:
            if first:
                raise
            continue
        first = False
        for entry in entries:
            try:
                row = _row(entry, detail)
            except FileNotFoundError:  # removed meanwhile
                continue
            except OSError:
                row = {"type": "other", "size": 0, "islink": False}
            name = prefix + entry.name
            row["name"] = text(name)
            yield row
            if row["type"] == "directory" and (depth is None or level < depth):
                todo.append((entry.path, name + b"/", level + 1))


def _row(entry: os.DirEntry[bytes], detail: bool) -> dict[str, Any]:
    link = entry.is_symlink()
    if not detail and not link:
        here = "directory" if entry.is_dir(follow_symlinks=False) else "file" if entry.is_file() else "other"
        return {"type": here}
    if not link:
        return dict(_facts(entry.stat(follow_symlinks=False)), islink=False)
    try:
        found = entry.stat()
    except OSError:  # it leads nowhere, or in a circle
        found = None
    facts = _facts(entry.stat(follow_symlinks=False) if found is None else found)
    if found is None:
        facts["size"] = 0
    if facts["type"] != "file":
        facts["type"] = "other"  # who walks would walk in circles
    return dict(facts, islink=True, destination=text(os.readlink(entry.path)))


def do_stat(call: Call) -> Answer:
    """{"path", "follow"?} -> see `info`."""
    path = call.head["path"]
    return dict(info(native(path), follow=call.head.get("follow", True)), name=path), b""


def do_list(call: Call) -> Answer:
    """{"path", "depth"?, "detail"?} -> lines of JSON, see `rows`, and its own facts as the answer."""
    raw = native(call.head["path"])
    own = info(raw)
    if own["type"] == "directory":
        batch: list[str] = []
        for row in rows(raw, call.head.get("depth"), detail=call.head.get("detail", True)):
            batch.append(json.dumps(row, separators=(",", ":")))
            if len(batch) >= ROWS:
                call.write("".join(line + "\n" for line in batch).encode("ascii"))
                batch = []
        call.write("".join(line + "\n" for line in batch).encode("ascii"))
    return own, b""


# ---- reading


def blocks(raw: bytes, start: int, stop: int | None) -> Iterator[bytes]:
    """The bytes of a file; negative offsets count from its end."""
    with open(raw, "rb", buffering=0) as file:
        size = os.fstat(file.fileno()).st_size
        start = max(0, size + start) if start < 0 else start
        if stop is not None and stop < 0:
            stop = max(0, size + stop)
        if start:
            file.seek(start)
        left = None if stop is None else max(0, stop - start)
        while left is None or left > 0:
            piece = file.read(BLOCK if left is None else min(left, BLOCK))
            if not piece:
                return
            yield piece
            if left is not None:
                left -= len(piece)


def do_read(call: Call) -> Answer:
    """{"path", "start"?, "stop"?} -> the bytes, as the answer's body if these are few, else as pieces."""
    start, stop = call.head.get("start", 0), call.head.get("stop")
    held: bytes | None = b""
    for piece in blocks(native(call.head["path"]), start, stop):
        if held == b"":
            held = piece
            continue
        if held is not None:
            call.write(held)
            held = None
        call.write(piece)
    if held is not None and len(held) <= INLINE:
        return {}, held
    return {}, b""


def digest(raw: bytes, start: int, stop: int | None, kind: str, pulse: Pulse) -> str:
    """The digest of a file's bytes, in hexadecimal."""
    made = hashlib.new(kind)
    for piece in blocks(raw, start, stop):
        made.update(piece)
        pulse.beat()
    return made.hexdigest()


def do_digest(call: Call) -> Answer:
    """{"paths", "start"?, "stop"?, "kind"} -> {"digests"} in their order."""
    head, pulse = call.head, Pulse(call)
    start, stop = head.get("start", 0), head.get("stop")
    return {"digests": [digest(native(path), start, stop, head["kind"], pulse) for path in head["paths"]]}, b""


# ---- writing


def do_put(call: Call) -> Answer:
    """{"path", "how", "parents"?}, body: the whole file."""
    _fill(Draft(native(call.head["path"]), call.head["how"], parents=call.head.get("parents", False)), [call.body])
    return None


def _fill(draft: Draft, pieces: Iterable[bytes]) -> None:
    try:
        for piece in pieces:
            draft.write(piece)
        draft.commit()
    finally:
        draft.discard()


def do_write(call: Call) -> Answer:
    """{"path", "how", "parents"?, "keep"?}: a piece says that it can begin -> {"temporary"} if it is to be kept."""
    draft = Draft(native(call.head["path"]), call.head["how"], parents=call.head.get("parents", False))
    try:
        call.write(b"+")
        for piece in call.pieces():
            draft.write(piece)
        if call.head.get("keep"):
            place = draft.place
            return {"temporary": text(draft.keep()), "place": text(place)}, b""
        draft.commit()
    finally:
        draft.discard()
    return None


def do_commit(call: Call) -> Answer:
    """{"temporary", "place", "exclusive"?}: what `do_write` kept goes to its place."""
    if call.head["temporary"]:
        put_in_place(
            native(call.head["temporary"]), native(call.head["place"]), exclusive=call.head.get("exclusive", False)
        )
    return None


def do_write_at(call: Call) -> Answer:
    """{"path", "start"} and pieces -> {"size"}."""
    return {"size": write_at(native(call.head["path"]), call.pieces(), call.head["start"])}, b""


# ---- changing


def do_copy(call: Call) -> Answer:
    """{"source", "target", "keep_times"?, "parents"?}."""
    head = call.head
    copy(
        native(head["source"]),
        native(head["target"]),
        Pulse(call),
        keep_times=head.get("keep_times", False),
        parents=head.get("parents", False),
    )
    return None


def do_move(call: Call) -> Answer:
    """{"source", "target", "parents"?}."""
    target = native(call.head["target"])
    if call.head.get("parents"):
        os.makedirs(os.path.dirname(target) or b".", exist_ok=True)
    move(native(call.head["source"]), target)
    return None


def do_replace(call: Call) -> Answer:
    """{"source", "target"}: a rename and nothing else."""
    os.replace(native(call.head["source"]), native(call.head["target"]))
    return None


def do_remove(call: Call) -> Answer:
    """{"paths", "recursive"?}."""
    pulse = Pulse(call)
    for path in call.head["paths"]:
        remove(native(path), recursive=call.head.get("recursive", False))
        pulse.beat()
    return None


def do_mkdir(call: Call) -> Answer:
    """{"path", "parents"?, "exist_ok"?}."""
    raw = native(call.head["path"])
    if call.head.get("parents"):
        os.makedirs(raw, exist_ok=call.head.get("exist_ok", False))
    else:
        os.mkdir(raw)
    return None


def do_rmdir(call: Call) -> Answer:
    """{"path"}."""
    os.rmdir(native(call.head["path"]))
    return None


def do_touch(call: Call) -> Answer:
    """{"path", "truncate"?, "parents"?}."""
    raw = native(call.head["path"])
    if call.head.get("parents"):
        os.makedirs(os.path.dirname(raw) or b".", exist_ok=True)
    os.close(os.open(raw, os.O_WRONLY | os.O_CREAT | (os.O_TRUNC if call.head.get("truncate") else 0), 0o666))
    os.utime(raw)
    return None


def do_stamp(call: Call) -> Answer:
    """{"path", "mode"?, "mtime_ns"?}."""
    stamp(native(call.head["path"]), call.head.get("mode"), call.head.get("mtime_ns"))
    return None


def do_link(call: Call) -> Answer:
    """{"destination", "path", "hard"?}."""
    destination = call.head["destination"]
    if call.head.get("hard"):
        os.link(native(destination), native(call.head["path"]))
    else:
        os.symlink(encoded(destination), native(call.head["path"]))
    return None


def do_surroundings(_call: Call) -> Answer:
    """{} -> {"mounts": [[point, kind, source, root], …], "addresses": […]}."""
    return {"mounts": mounts(), "addresses": addresses()}, b""


HANDLERS = {
    "files.stat": do_stat,
    "files.list": do_list,
    "files.read": do_read,
    "files.digest": do_digest,
    "files.put": do_put,
    "files.write": do_write,
    "files.commit": do_commit,
    "files.write_at": do_write_at,
    "files.copy": do_copy,
    "files.move": do_move,
    "files.replace": do_replace,
    "files.remove": do_remove,
    "files.mkdir": do_mkdir,
    "files.rmdir": do_rmdir,
    "files.touch": do_touch,
    "files.stamp": do_stamp,
    "files.link": do_link,
    "files.surroundings": do_surroundings,
}
