"""A lane as its agent sees it: a process, two pipes and what waits to be written."""

from __future__ import annotations

import collections
import json
import os
import signal
import subprocess
import sys

from ..processes import signal_group, with_cores
from . import wire

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import Any

LANE_BOOT = (
    "import os,sys,json\n"
    "i=os.dup(0);o=os.dup(1);n=os.open(os.devnull,os.O_RDWR);os.dup2(n,0);os.dup2(2,1)\n"
    "def r(k):\n b=b''\n while len(b)<k:\n  c=os.read(i,k-len(b))\n  if not c:sys.exit()\n  b+=c\n return b\n"
    "p=json.loads(r(int(r(12))))\n"
    "exec(p['loader'])\n"
    "load(p['sources'],'executor.lane')"
    ".main(p['number'],i,o,p['setup'])\n"
)
END_GRACE_S = 3.0  # lanes have so long to end, and to end what only they can find


class LaneProcess:
    """A lane's process.

    Args:
        number: the lane's number on its node.
        sources: the text of its modules, with "loader".
        setup: what `lane.Lane` wants to know.
    """

    def __init__(self, number: int, sources: Mapping[str, str], setup: Mapping[str, Any]) -> None:
        self.number = number
        self._log = os.path.join(setup["base"], "lane-%d.log" % number)
        with open(self._log, "wb") as errors, with_cores():  # functions run in it
            self.process = subprocess.Popen(
                [sys.executable, "-u", "-c", LANE_BOOT],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=errors,
                start_new_session=True,
                bufsize=0,
            )
        assert self.process.stdin is not None  # noqa: S101 - for the reader of types: both were asked for
        assert self.process.stdout is not None  # noqa: S101
        self._ends = (self.process.stdin, self.process.stdout)
        self.fd = self.process.stdout.fileno()
        self.fd_in = self.process.stdin.fileno()
        os.set_blocking(self.fd, False)
        os.set_blocking(self.fd_in, False)
        self.reader = wire.Reader(self.fd)
        self.waiting: collections.deque[memoryview] = collections.deque()  # frames it has not taken yet
        self.now: tuple[int, float] | None = None  # (task, seconds), as it said last
        self.cancelled_at: float | None = None
        self.said_bye = False
        self.bundles: dict[int, None] = {}  # that it was given and is not through with
        parts = {"loader": sources["loader"], "sources": sources, "number": number, "setup": setup}
        parcel = json.dumps(parts).encode("ascii")
        self.waiting.append(memoryview(b"%12d" % len(parcel) + parcel))

    def push(self) -> bool:
        """Write what it will take now; returns whether something is left."""
        while self.waiting:
            view = self.waiting[0]
            try:
                done = os.write(self.fd_in, view)
            except BlockingIOError:
                return True
            except OSError:
                self.waiting.clear()  # it has died; the end of its output says so
                return False
            if done == len(view):
                self.waiting.popleft()
            else:
                self.waiting[0] = view[done:]
        return False

    def kill(self) -> None:
        """End its process, and what its functions started in the same group."""
        if self.process.poll() is None:
            signal_group(self.process.pid, signal.SIGKILL)

    def close(self) -> int | None:
        """End it and let go of it; returns its exit code, None when that is unknown."""
        self.waiting.clear()
        for end in self._ends:
            end.close()
        self.kill()
        try:
            return self.process.wait(timeout=END_GRACE_S)
        except subprocess.TimeoutExpired:
            return None

    def hang_up(self) -> None:
        """Let it see that its agent is gone, so that it ends what it runs and itself."""
        self._ends[0].close()

    def tail(self, limit: int = 2000) -> str:
        """The last bytes of what the lane itself said, not its tasks."""
        try:
            with open(self._log, "rb") as file:
                file.seek(0, os.SEEK_END)
                file.seek(max(0, file.tell() - limit))
                return file.read().decode("utf-8", "replace")
        except OSError:
            return ""
