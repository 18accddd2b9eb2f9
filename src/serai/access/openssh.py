"""The way to a host through the user's own OpenSSH: one connection per host.

``ssh`` itself is run, so the user's ssh_config (Include, Match, ProxyJump), agents, certificates and two-factor logins
hold. One *master* carries everything to a host as sessions over one TCP connection:

* A live ControlMaster of the user's is used as it is, and never ended.
* Otherwise we start our own and it dies with us. Its standard input is a pipe whose other end only we hold, and a
  shell beside it ends it when that pipe breaks, which the kernel does even when we are killed with SIGKILL.
  ControlPersist would outlive us; PR_SET_PDEATHSIG follows the thread that started the child, not the process.
* The first login never asks. If it is refused and there is a terminal, a second one may ask on it (a passphrase, a
  second factor, an unknown host key), and hosts take turns.
* Sessions say ``ProxyCommand=false``: ssh without its master would silently make a second connection; so it fails.

A host allows ``MaxSessions`` (10 by default) at once over one connection. An executor takes one; each `Connection.run`
takes one while it lasts: callers keep their number small.
"""

from __future__ import annotations

import contextlib
import functools
import os
import re
import shlex
import shutil
import subprocess
import threading
from pathlib import Path
from typing import TYPE_CHECKING, Self

from serai.access.ssh_errors import FAILED, explain, is_carrier
from serai.access.ssh_master import Master, make_room
from serai.access.ssh_options import Target, master_options, read_settings, session_options
from serai.errors import (
    AccessError,
    DeadlineExceeded,
    HostKeyRefused,
    HostUnreachable,
    LoginRefused,
    NoPython,
    UsageError,
)

if TYPE_CHECKING:
    from collections.abc import Sequence
    from subprocess import CompletedProcess
    from types import TracebackType

    from serai.clock import Clock

__all__ = ["Connection", "Target", "has_terminal"]

_LOCAL_DEADLINE_S = 10.0  # for an ssh that only reads its config or asks a master on this machine
_PROMPT_S = 120.0  # sshd's LoginGraceTime: how long a person may take to answer
_LOST_S = 0.2  # a session may end this much before its master does
_LOG_TAIL_BYTES = 64 * 1024
_SHELL_FAILED = 126  # and more: what the shell says when it cannot start a program, and ssh's own

_TERMINAL = threading.Lock()  # one host asks at a time


def has_terminal() -> bool:
    """Whether there is a terminal whose foreground is ours, so that ssh can ask on it and be answered."""
    try:
        terminal = os.open("/dev/tty", os.O_RDWR | os.O_NOCTTY)
    except OSError:
        return False
    try:
        return os.tcgetpgrp(terminal) == os.getpgrp()
    except OSError:
        return False
    finally:
        os.close(terminal)


@functools.cache
def _has_aes() -> bool:
    """Whether this machine has AES in hardware, as Linux says; nearly all have, but small ones."""
    try:
        said = Path("/proc/cpuinfo").read_bytes()
    except OSError:
        return False
    return re.search(rb"^(flags|Features)\s*:.*\baes\b", said, re.MULTILINE) is not None


class Connection:
    """The one connection to a host. Its methods may be called from several threads.

    Args:
        target: the host.
        control_dir: where control sockets live: made with mode 0700, or ours and nobody else's already.
        clock: what tells the time.
        connect_deadline_s: for the connection and the login; with a terminal a person gets two minutes more.
        interactive: whether ssh may ask on the terminal; None looks whether there is one.
    """

    def __init__(
        self,
        target: Target,
        *,
        control_dir: Path,
        clock: Clock,
        connect_deadline_s: float = 30.0,
        interactive: bool | None = None,
    ) -> None:
        self.target = target
        self._control_dir = control_dir
        self._clock = clock
        self._connect_deadline_s = connect_deadline_s
        self._interactive = interactive
        self._lock = threading.RLock()
        self._settings: dict[str, str] = {}
        self._room: Path | None = None  # our directory below control_dir: the socket and what ssh says
        self._socket: str | None = None  # ours or the user's; None before `open`
        self._master: Master | None = None  # None when the user's master is used
        self._counting = threading.Lock()
        self._closers = 0  # calls of `close` that are under way

    def __enter__(self) -> Self:
        self.open()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    @property
    def own(self) -> bool:
        """Whether the master is one that we started."""
        return self._master is not None

    def open(self) -> None:
        """Connect, unless a master is alive: the user's is preferred, else our own is started.

        Raises:
            HostUnreachable: no answer before the deadline, or none at all.
            HostKeyRefused: the host's key is unknown or has changed.
            LoginRefused: no credential was accepted.
            AccessError: ssh is missing, or ended for another reason.
            UsageError: control_dir cannot be trusted.
        """
        with self._lock:
            if self._socket is not None:
                if self.alive():
                    return
                self.close()
            self._settings = self._read_config()
            self._room = make_room(self._control_dir, self.target)
            theirs = self._settings.get("controlpath", "none")
            try:
                if theirs != "none" and self._answers(theirs):
                    self._socket = theirs
                else:
                    self._log_in(self._room)
            except BaseException:
                self.close()
                raise

    def argv(self, remote: Sequence[str] | str | None = None) -> list[str]:
        """The ssh command that runs something on the host over the connection, and never over another one.

        Args:
            remote: a command's arguments, quoted for a POSIX shell; or text for the user's shell there as it is; or
                None: nothing follows the host, and ssh takes further options at the end (``-O forward -L …``).
        """
        if self._socket is None:
            raise UsageError("the connection is not open", host=self.target.host)
        words = ["ssh", *self._via(self._socket), "-T", "-o", "ControlMaster=no", "-o", "BatchMode=yes"]
        words += ["-o", "ProxyCommand=false", *session_options(self._settings), self.target.host]
        if remote is not None:
            words += ["--", remote if isinstance(remote, str) else shlex.join(remote)]
        return words

    def session(self, remote: str, stdio: int) -> subprocess.Popen[bytes]:
        """Start something on the host that reads from and writes to one descriptor; ask `session_error` why it ended.

        Args:
            remote: the command, as text for the shell on the host.
            stdio: a socket; may be closed after this.
        """
        with self._log("session").open("wb") as log:
            return subprocess.Popen(
                self.argv(remote),
                stdin=stdio,
                stdout=stdio,
                stderr=log,
                start_new_session=True,  # Ctrl-C is the front end's to act on
            )

    def session_error(self, python: str, returncode: int | None) -> AccessError:
        """Why the last session ended, from what ssh and the interpreter said.

        Args:
            python: the interpreter it was started with.
            returncode: the exit status of its process, None if not known.
        """
        said = self._said("session")
        if returncode == FAILED and not self.alive(grace_s=_LOST_S):
            said += self._said("master")
        if returncode is not None and 0 < returncode < _SHELL_FAILED:
            last = ([line.strip() for line in said.splitlines() if line.strip()] or ["it said nothing"])[-1]
            return NoPython(
                f"its interpreter cannot run the executor: {last}",
                host=self.target.host,
                command=self._shown(python),
                hint="Python 3.8 or newer is needed; name one in the host's URL: ?python=/path/to/python3",
            )
        return explain(self.target.host, said, FAILED if returncode is None else returncode, self._shown(python))

    def run(self, command: Sequence[str], *, deadline_s: float, stdin: bytes = b"") -> CompletedProcess[bytes]:
        """Run a command on the host and wait for it; opens the connection if it never was.

        Args:
            command: its arguments; they arrive as they are.
            deadline_s: how long it may take. After it the session is closed, but the command may go on until it
                next reads or writes.
            stdin: what it reads.

        Returns:
            Exit status and all output, held in memory.

        Raises:
            DeadlineExceeded: it took longer.
            AccessError: it could not be started, or the connection was lost.
        """
        if self._socket is None:
            self.open()
        shown = self._shown(shlex.join(command))
        try:
            done = subprocess.run(
                self.argv(command),
                input=stdin,
                capture_output=True,
                timeout=deadline_s,
                check=False,
                start_new_session=True,  # Ctrl-C is the front end's to act on
            )
        except subprocess.TimeoutExpired:
            raise DeadlineExceeded(
                f"the command did not end within {deadline_s:g} s", host=self.target.host, command=shown
            ) from None
        if done.returncode == FAILED:
            said = done.stderr.decode(errors="replace")
            alive = self.alive(grace_s=_LOST_S)
            if not alive or is_carrier(said):
                raise explain(self.target.host, said if alive else said + self._said("master"), FAILED, shown)
        return done

    def forward_back(self, there: str, here: str) -> None:
        """Let processes on the host reach this machine by a unix socket of theirs, as long as the connection lives.

        Args:
            there: the socket's path on the host; nothing may be there yet. It is the login's own (mode 0600).
            here: what it leads to: the path of a unix socket of this machine, or ``address:port`` as it is known here.

        Raises:
            AccessError: the host does not allow it, or the path cannot be used.
        """
        self._ask_master("forward", f"{there}:{here}")

    def end_forward_back(self, there: str, here: str) -> None:
        """End what `forward_back` began; no error if it ended already."""
        with contextlib.suppress(AccessError):
            self._ask_master("cancel", f"{there}:{here}")

    def _ask_master(self, what: str, forward: str) -> None:
        if self._socket is None:
            raise UsageError("the connection is not open", host=self.target.host)
        # Without the user's configuration: its own forwardings would be asked for as well.
        words = ["ssh", "-F", "none", "-S", self._socket.replace("%", "%%"), "-O", what, "-R", forward]
        done = self._local([*words, self.target.host])
        if done is None or done.returncode:
            said = "it took too long" if done is None else done.stderr.decode(errors="replace").strip()
            raise AccessError(
                f"no way back through the connection: {said or 'ssh said nothing'}",
                host=self.target.host,
                command=shlex.join([*words[:3], *words[5:], self.target.host]),
                hint="its sshd must allow AllowStreamLocalForwarding (the default)",
            )

    def alive(self, *, grace_s: float = 0.0) -> bool:
        """Whether the master lives. A network that fell silent shows after 15 s, or as the user's config says.

        Args:
            grace_s: how long to wait for the end of a master of ours whose session just ended.
        """
        master, socket = self._master, self._socket
        if socket is None:
            return False
        if master is None:
            return self._answers(socket)
        return not master.ended(grace_s) and Path(socket).exists()

    def begin_close(self) -> None:
        """Tell the master to end if it is ours; `close` waits for it. Many end sooner so than one after another."""
        master = self._master
        if master is not None:
            master.terminate()

    def close(self) -> None:
        """End the master if it is ours, with all its sessions or an `open` under way; the user's goes on."""
        with self._counting:
            self._closers += 1
        try:
            self.begin_close()
            with self._lock:
                master, self._master, self._socket = self._master, None, None
                if master is not None:
                    master.stop()
                room, self._room = self._room, None
                if room is not None:
                    shutil.rmtree(room, ignore_errors=True)
        finally:
            with self._counting:
                self._closers -= 1

    def _log_in(self, room: Path) -> None:
        try:
            self._start_master(room, interactive=False)
        except (LoginRefused, HostKeyRefused):
            if not (has_terminal() if self._interactive is None else self._interactive):
                raise
            with _TERMINAL:  # each holder has a deadline
                self._start_master(room, interactive=True)

    def _start_master(self, room: Path, *, interactive: bool) -> None:
        limit_s = self._connect_deadline_s
        options = master_options(
            self._settings, interactive=interactive, connect_deadline_s=limit_s, fast_aes=_has_aes()
        )
        limit_s += _PROMPT_S if interactive else 0.0
        socket = room / "s"
        ssh = ["ssh", *self._via(str(socket)), "-M", "-N", "-T", *options, self.target.host]
        master = self._master = Master(ssh, room, self._log("master"), asks=interactive)
        deadline, pause_s = self._clock.now() + limit_s, 0.002
        while not socket.exists():  # ssh puts the socket there once it is logged in and listens
            if self._closers:  # it may have come before there was a master that it could tell to end
                master.terminate()
            if master.ended(pause_s):
                raise explain(self.target.host, self._said("master"), master.stop(), self._shown())
            if self._clock.now() >= deadline:
                raise HostUnreachable(
                    f"no login within {limit_s:g} s",
                    host=self.target.host,
                    command=self._shown(),
                    tried=tuple(self._said("master").splitlines()[-3:]),
                    hint=f"`ssh -v {self.target.host}` shows how far it gets",
                )
            pause_s = min(0.01, pause_s * 1.5)
        self._socket = str(socket)

    def _read_config(self) -> dict[str, str]:
        words = ["ssh", *self.target.words(), "-G", self.target.host]
        done = self._local(words)
        if done is None:  # Match exec and CanonicalizeHostname run programs and ask name servers
            raise HostUnreachable("reading ssh_config took too long", host=self.target.host, command=shlex.join(words))
        if done.returncode != 0:
            raise explain(self.target.host, done.stderr.decode(errors="replace"), done.returncode, shlex.join(words))
        return read_settings(done.stdout.decode(errors="replace"))

    def _answers(self, socket: str) -> bool:
        done = self._local(["ssh", *self._via(socket), "-O", "check", self.target.host])
        return done is not None and done.returncode == 0

    def _local(self, words: list[str]) -> CompletedProcess[bytes] | None:
        try:
            return subprocess.run(
                words,
                stdin=subprocess.DEVNULL,
                capture_output=True,
                timeout=_LOCAL_DEADLINE_S,
                check=False,
                start_new_session=True,
            )
        except subprocess.TimeoutExpired:
            return None
        except FileNotFoundError:
            raise AccessError(
                "there is no ssh on this machine", host=self.target.host, hint="install OpenSSH's client"
            ) from None

    def _via(self, socket: str) -> list[str]:
        # ssh expands % in the path once more: what -G prints is expanded already
        return [*self.target.words(), "-S", socket.replace("%", "%%")]

    def _shown(self, remote: str = "") -> str:
        return " ".join(part for part in (shlex.join(["ssh", *self.target.words(), self.target.host]), remote) if part)

    def _log(self, name: str) -> Path:
        if self._room is None:
            raise UsageError("the connection is not open", host=self.target.host)
        return self._room / f"{name}.log"

    def _said(self, name: str) -> str:
        try:
            with self._log(name).open("rb") as log:
                log.seek(max(0, log.seek(0, os.SEEK_END) - _LOG_TAIL_BYTES))
                return log.read().decode(errors="replace")
        except (OSError, UsageError):
            return ""
