"""The life of a run's credential: made, written down, taken to nodes, tried, and removed."""

from __future__ import annotations

import contextlib
import getpass
import glob
import hashlib
import os
import re
import shlex
import subprocess
import tempfile
import threading
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Self

from serai.access.home_calling.keys import AuthorizedKeys, Mode, Records, comment_of, line_for, with_line, without_lines
from serai.access.home_calling.node import WayHome, config_text, known_hosts_text, making, read_made
from serai.errors import AccessError, SeraiError, UsageError
from serai.session.finding import Secret

if TYPE_CHECKING:
    from types import TracebackType

    from serai.access.openssh import Connection
    from serai.clock import Clock

LIFETIME_S = 86400.0
_LOOPBACK = "127.0.0.1"
_DEADLINE_S = 20.0  # for each step on a node
_END_S = 3.0  # for a node to remove what it has
_AT_ONCE = 16
_PRIVILEGED = 1024  # below it, only root can listen: who answers there is this machine's sshd
_NAME = re.compile(r"[\w:.][\w:.@+-]*")
_HOST_KEYS = "/etc/ssh/ssh_host_*_key.pub"


@dataclass(frozen=True, slots=True)
class Front:
    """The front end's machine, as nodes log in to it.

    Attributes:
        address: a name or an address that nodes reach; it is tried first. None: only through the connection.
        port: of its sshd.
        user: None for the one who runs this.
        authorized_keys: None for ``~/.ssh/authorized_keys``.
        host_keys: its public host keys, as lines of ``.pub`` files; empty for those of ``/etc/ssh``.
    """

    address: str | None = None
    port: int = 22
    user: str | None = None
    authorized_keys: Path | None = None
    host_keys: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        for value in (self.address, self.user):
            if value is not None and not _NAME.fullmatch(value):
                raise UsageError(f"{value!r} is not the name of a host or a user")


class HomeCalling:
    """Lets tasks of one run call home. A context manager; `prepare` may be called from several threads.

    Args:
        run: its name; letters, digits, ``-`` and ``_``.
        mode: what a task may do at home.
        state: where Serai keeps its state; ours is a directory in it.
        clock: what tells the time.
        front: how the front end's machine is reached and which file its sshd reads.
        lifetime_s: the line in ``authorized_keys`` is void after it, whatever happens.

    Raises:
        AccessError: this machine has no sshd whose host keys can be known, or no ssh-keygen.
        OSError: ``authorized_keys`` cannot be written.
    """

    def __init__(
        self,
        run: str,
        mode: Mode | str,
        *,
        state: Path,
        clock: Clock,
        front: Front | None = None,
        lifetime_s: float = LIFETIME_S,
    ) -> None:
        try:
            self._mode = Mode(mode)
        except ValueError:
            raise UsageError(f"{mode!r} is no way of home-calling", hint="files or shell") from None
        self._run, self._front, self._clock = run, front or Front(), clock
        self._name = comment_of(run)
        self._lifetime_s = lifetime_s
        self._records = Records(state / "home-calling")
        path = self._front.authorized_keys or Path("~/.ssh/authorized_keys").expanduser()
        self._authorized = AuthorizedKeys(path, state / "home-calling")
        self._key: Secret | None = None
        self._host_keys: tuple[str, ...] = ()
        self._lock = threading.Condition()
        self._preparing = 0
        self._nodes: list[tuple[Connection, str, bool]] = []  # connection, directory, whether a socket leads home

    def __enter__(self) -> Self:
        self.open()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def open(self) -> None:
        """Sweeps what dead runs left, makes the credential, and allows it."""
        now = self._clock.wall()
        self._records.sweep(now)
        self._host_keys = self._front.host_keys or host_keys(self._front.port)
        private, public = make_key(self._name)
        expires = now + self._lifetime_s
        line = line_for(public, self._run, self._mode, expires=expires, by_loopback=self._front.address is None)
        self._records.add(self._run, self._authorized.path.absolute(), expires)
        try:
            self._authorized.change(lambda text: with_line(without_lines(text, self._run, now), line))
        except BaseException:
            self._records.remove(self._run)
            raise
        self._key = private

    def prepare(self, connection: Connection, python: str = "python3") -> dict[str, str]:
        """Makes a node able to call home, and tries it.

        Args:
            connection: to the node; open. It must stay open, unless the node reaches the front's address.
            python: the node's interpreter, as text for its shell.

        Returns:
            What the environment of tasks there is to have: ``PATH``, with a directory before it in which ``ssh``,
            ``scp`` and ``sftp`` know the host ``home``; and ``SERAI_HOME``, which is ``ssh://home``.

        Raises:
            AccessError: neither way home works; the error says what was tried.
        """
        with self._lock:
            self._preparing += 1
        try:
            return self._prepare(connection, python)
        finally:
            with self._lock:
                self._preparing -= 1
                self._lock.notify_all()

    def _prepare(self, connection: Connection, python: str) -> dict[str, str]:
        ways = [WayHome(self._user(), self._front.address, self._front.port)] if self._front.address else []
        ways.append(WayHome(self._user(), None, self._front.port))
        tried: list[str] = []
        for way in ways:
            try:
                directory, path = self._make(connection, way, python)
                self._try(connection, directory)
            except AccessError as error:
                tried.append(f"{way.host or 'through the connection'}: {error.what}")
                self.release(connection)
                continue
            return {"PATH": f"{directory}/bin:{path}", "SERAI_HOME": "ssh://home"}
        raise AccessError(
            "it cannot call home",
            host=connection.target.host,
            tried=tuple(tried),
            hint="is there an sshd on this machine, and an ssh client on the node?",
        )

    def release(self, connection: Connection) -> None:
        """Removes what is on a node, if it can be reached; the credential is worth nothing afterwards in any case."""
        with self._lock:
            mine = [one for one in self._nodes if one[0] is connection]
            self._nodes = [one for one in self._nodes if one[0] is not connection]
        for _, directory, through in mine:
            with contextlib.suppress(SeraiError, OSError):
                if not connection.alive():
                    return
                if through:
                    connection.end_forward_back(f"{directory}/s", f"{_LOOPBACK}:{self._front.port}")
                connection.run(["rm", "-rf", "--", directory], deadline_s=_END_S)

    def close(self) -> None:
        """Forbids the credential, then removes it from every node that can be reached, all at the same time."""
        if self._key is None:
            return
        self._key = None
        try:
            self._authorized.change(lambda text: without_lines(text, self._run, self._clock.wall()))
        finally:
            with self._lock:
                # A node that is just being prepared finds no credential any more, and is released by who prepares it.
                self._lock.wait_for(lambda: not self._preparing, _END_S)
                connections = list({id(one[0]): one[0] for one in self._nodes}.values())
            if connections:
                with ThreadPoolExecutor(min(_AT_ONCE, len(connections)), "home-end") as threads:
                    list(threads.map(self.release, connections))
        self._records.remove(self._run)

    def _user(self) -> str:
        return self._front.user or getpass.getuser()

    def _make(self, connection: Connection, way: WayHome, python: str) -> tuple[str, str]:
        key = self._key
        if key is None:
            raise AccessError("home-calling has not begun, or has ended", host=connection.target.host)
        host = connection.target.host
        tag = hashlib.sha256(repr(connection.target).encode()).hexdigest()[:6]
        script = making(
            f"{self._name}-{tag}",
            config_text(way, python),
            known_hosts_text(self._host_keys),
            key.reveal(),
            [comment_of(run) for run in self._records.dead()],
        )
        done = connection.run(["sh", "-s"], deadline_s=_DEADLINE_S, stdin=script.encode())
        directory, path = read_made(done.stdout.decode("utf-8", "surrogateescape"), host)
        with self._lock:
            self._nodes.append((connection, directory, way.host is None))
        if self._key is None:
            raise AccessError("home-calling has ended", host=host)
        if way.host is None:
            connection.forward_back(f"{directory}/s", f"{_LOOPBACK}:{way.port}")
        return directory, path

    @staticmethod
    def _try(connection: Connection, directory: str) -> None:
        """Has the node log in, and ask for nothing but an SFTP server that ends at once."""
        words = [f"{directory}/bin/ssh", "-o", f"ConnectTimeout={int(_DEADLINE_S / 2)}", "-s", "home", "sftp"]
        done = connection.run(words, deadline_s=_DEADLINE_S)
        if done.returncode:
            said = done.stderr.decode("utf-8", "replace").strip().splitlines()
            raise AccessError(said[-1] if said else f"ssh ended with {done.returncode}", host=connection.target.host)


def make_key(comment: str) -> tuple[Secret, str]:
    """A new key pair: the private key, and the public one as a line. Its file is gone when this returns.

    Raises:
        AccessError: ssh-keygen is missing, or fails.
    """
    with tempfile.TemporaryDirectory(prefix="serai-key-") as room:
        path = os.path.join(room, "key")
        words = ["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", comment, "-f", path]
        try:
            done = subprocess.run(
                words, stdin=subprocess.DEVNULL, capture_output=True, timeout=_DEADLINE_S, check=False
            )
        except (FileNotFoundError, subprocess.TimeoutExpired) as error:
            raise AccessError(f"no key could be made: {error}", command=shlex.join(words)) from error
        if done.returncode:
            said = done.stderr.decode("utf-8", "replace").strip()
            raise AccessError(f"no key could be made: {said}", command=shlex.join(words))
        return Secret(Path(path).read_text(encoding="ascii")), Path(f"{path}.pub").read_text(encoding="ascii").strip()


def host_keys(port: int) -> tuple[str, ...]:
    """The host keys of this machine's sshd: from their files, else from sshd itself where only root can listen.

    Raises:
        AccessError: they are not known.
    """
    found = []
    for path in sorted(glob.glob(_HOST_KEYS)):
        with contextlib.suppress(OSError):
            found.append(Path(path).read_text(encoding="utf-8").strip())
    if not found and port < _PRIVILEGED:
        words = ["ssh-keyscan", "-T", "5", "-p", str(port), _LOOPBACK]
        with contextlib.suppress(OSError, subprocess.TimeoutExpired):
            done = subprocess.run(words, capture_output=True, text=True, timeout=_DEADLINE_S, check=False)
            found = [line.partition(" ")[2] for line in done.stdout.splitlines() if not line.startswith("#")]
    if not found:
        raise AccessError(
            "the host keys of this machine's sshd are not known, so no node could tell that it reached home",
            hint="home-calling needs an sshd on this machine",
        )
    return tuple(found)
