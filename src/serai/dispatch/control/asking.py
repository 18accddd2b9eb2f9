"""The end of the channel that is elsewhere: which runs go on, and how one is asked."""

from __future__ import annotations

import contextlib
import json
import os
import socket
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from serai.dispatch.control.channel import SOCKET, reach
from serai.errors import DeadlineExceeded, SeraiError, UsageError

if TYPE_CHECKING:
    from collections.abc import Generator, Mapping, Sequence
    from pathlib import Path

__all__ = ["Living", "ask", "choose", "living"]

SILENT_S = 15.0  # a run says something at least every few seconds while it is asked
LOOK_S = 5.0  # the same, when it is only looked for
LONGEST = 1 << 20


@dataclass(frozen=True, slots=True)
class Living:
    """A run that goes on.

    Attributes:
        name: of the run.
        directory: its own.
        about: what it says of itself; ``silent`` is true where it did not answer in time.
    """

    name: str
    directory: Path
    about: Mapping[str, Any]

    @property
    def words(self) -> str:
        """The run in a line, for people."""
        what = "it does not answer" if self.about.get("silent") else str(self.about.get("command") or "")
        return f"{self.name} ({what[:60]})" if what else self.name


def ask(
    directory: Path, what: str, words: Mapping[str, object] | None = None, silent_s: float = SILENT_S
) -> Generator[dict[str, Any]]:
    """Ask a run; yields its news as they come, ``over`` for the last when it ends before it has answered.

    Args:
        directory: of the run.
        what: the order.
        words: of the order.
        silent_s: it is given up when it says nothing for so long.

    Raises:
        FileNotFoundError, ConnectionRefusedError: no process is there to answer.
        UsageError: it does not do that; it says why.
        SeraiError: it went wrong there.
        DeadlineExceeded: it said nothing for too long.
    """
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as sock:
        sock.settimeout(silent_s)
        try:
            with reach(directory, SOCKET) as path:
                sock.connect(path)
            sock.sendall(json.dumps({**(words or {}), "do": what}).encode() + b"\n")
            with sock.makefile("rb") as stream:
                while line := stream.readline(LONGEST):
                    said = json.loads(line)
                    if "end" in said:
                        return
                    if "refused" in said:
                        raise _error(said["refused"])
                    yield said["news"]
        except TimeoutError as error:
            raise DeadlineExceeded(
                f"run {directory.name} did not answer within {silent_s:g} s", hint="its process may be stopped, or busy"
            ) from error
        except (BrokenPipeError, ConnectionResetError):
            pass
    yield {"over": True}


def _error(said: Mapping[str, Any]) -> SeraiError:
    kind = UsageError if said.get("usage") else SeraiError
    return kind(str(said.get("what")), hint=said.get("hint"))


def living(rooms: Sequence[Path]) -> list[Living]:
    """The runs of this user and machine that go on, by name. What dead ones left of their channels is removed.

    Args:
        rooms: directories of runs, which need not be there.
    """
    found = []
    for room in rooms:
        for path in sorted(room.glob(f"*/{SOCKET}")):
            directory = path.parent
            try:
                seen = path.lstat()
                if seen.st_uid != os.geteuid():
                    continue
                about: Mapping[str, Any] = next(ask(directory, "about", silent_s=LOOK_S), {"over": True})
            except ConnectionRefusedError:  # its process is gone, and had no time to take it away
                with contextlib.suppress(OSError):
                    now = path.lstat()
                    if (now.st_ino, now.st_ctime_ns) == (seen.st_ino, seen.st_ctime_ns):  # else it is resumed just now
                        path.unlink()
                continue
            except DeadlineExceeded:
                about = {"silent": True}
            except (OSError, SeraiError):  # it ended just now
                continue
            if not about.get("over"):
                found.append(Living(directory.name, directory, about))
    return sorted(found, key=lambda one: one.name)


def choose(runs: Sequence[Living], name: str | None) -> Living:
    """The one that is meant.

    Args:
        runs: those that go on.
        name: of the run, or how that begins; None where there can be no doubt.

    Raises:
        UsageError: there is none, or more than one; it names them.
    """
    meant = [one for one in runs if name is None or one.name == name] or [
        one for one in runs if name and one.name.startswith(name)
    ]
    if len(meant) == 1:
        return meant[0]
    listed = "; ".join(one.words for one in meant or runs)
    if meant:
        begin = f"{len(meant)} runs go on" if name is None else f"{len(meant)} runs begin with {name!r}"
        raise UsageError(f"{begin}: which one?", hint=f"--run NAME: {listed}")
    if name is not None:
        raise UsageError(
            f"no run {name!r} goes on here", hint=f"there are {listed}" if runs else "serai runs lists all"
        )
    raise UsageError("no run goes on here", hint="serai runs lists those that there were")
