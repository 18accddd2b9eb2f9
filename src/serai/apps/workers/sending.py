"""What travels to a host's room: the user's executables and files, each with its permissions."""

from __future__ import annotations

import os
import shlex
import stat
from dataclasses import dataclass

from serai.describe.mapreduce import Binaries, Commands
from serai.errors import UsageError

LARGEST_SENT = 512 << 20  # bytes of executables and files that travel to a room


@dataclass(frozen=True, slots=True)
class Sent:
    """A file that travels to a room.

    Attributes:
        name: in the room.
        data: what it holds.
        mode: its permissions for its owner.
    """

    name: str
    data: bytes
    mode: int = 0o600


def sent_files(program: Commands | Binaries) -> list[Sent]:
    """The user's files that belong into a room: executables as ``bin/0`` …, files of commands below ``files``.

    Raises:
        UsageError: one cannot be read, or they are too large.
    """
    sent: list[Sent] = []
    try:
        if isinstance(program, Binaries):
            missing = [image.path for image in program.images if not os.path.isfile(image.path)]
            if missing:
                raise UsageError("\n".join(f"the image {path} is no file" for path in missing))
            for number, image in enumerate(program.images):
                sent.append(_sent(f"bin/{number}", image.path, 0o700))
        else:
            for path in program.send:
                sent += _tree(path)
            sent += named_files(program, {one.name for one in sent})
    except OSError as error:
        raise UsageError(f"{error.filename} cannot be sent to workers: {error.strerror}") from error
    total = sum(len(one.data) for one in sent)
    if total > LARGEST_SENT:
        raise UsageError(f"{total} bytes are too much to send to every host", hint="name large data as inputs")
    return sent


def named_files(program: Commands, known: set[str]) -> list[Sent]:
    """The files that commands name by themselves, such as ``./count.awk``; they are put where the commands find them.

    Args:
        program: the commands.
        known: names in the room that are taken.
    """
    found: dict[str, Sent] = {}
    for command in (program.mapper, program.combiner, program.reducer):
        try:
            words = shlex.split(command or "")
        except ValueError:
            continue  # the shell may still take it
        for word in words:
            name = os.path.normpath(f"files/{word}")
            path = os.path.join(program.home, word)
            if not word.startswith("/") and name.startswith("files/") and name not in known and os.path.isfile(path):
                found[name] = _sent(name, path)
    return list(found.values())


def _tree(path: str) -> list[Sent]:
    name = os.path.basename(os.path.normpath(path))
    if not os.path.isdir(path):
        return [_sent(f"files/{name}", path)]
    found = []
    for directory, _, names in os.walk(path):
        below = os.path.relpath(directory, path)
        found += [_sent(os.path.normpath(f"files/{name}/{below}/{one}"), os.path.join(directory, one)) for one in names]
    return found


def _sent(name: str, path: str, mode: int | None = None) -> Sent:
    fd = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)  # a pipe's other end is not waited for
    with os.fdopen(fd, "rb") as file:
        facts = os.fstat(fd)
        if not stat.S_ISREG(facts.st_mode):
            raise UsageError(f"{path} is no regular file, and cannot be sent to workers")
        return Sent(name, file.read(LARGEST_SENT + 1), (facts.st_mode & 0o700) if mode is None else mode)
