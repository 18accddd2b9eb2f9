"""What lies on a node while it may call home: pure texts, sent to a shell there on its standard input."""

from __future__ import annotations

import re
import shlex
from dataclasses import dataclass
from typing import TYPE_CHECKING

from serai.errors import AccessError

if TYPE_CHECKING:
    from collections.abc import Sequence

NAMES = "home front"  # what a task calls the front end's machine
PROGRAMS = ("ssh", "scp", "sftp")
HERE = "@HERE@"  # stands for the directory until it is made
_ROOM = "/tmp/"  # noqa: S108 - see `making`
_END = "SERAI-END-OF-FILE"
_MADE = re.compile(r"^serai-home-made (/[\w./+-]{1,70}) (.*)$", re.MULTILINE)

# Joins its standard streams to the socket that leads home; nothing but the standard library, as old as 3.6.
_JOIN = """import os, socket, sys, threading
s = socket.socket(socket.AF_UNIX)
s.connect(sys.argv[1])
def up():
    while True:
        data = os.read(0, 65536)
        if not data:
            break
        s.sendall(data)
    s.shutdown(socket.SHUT_WR)
t = threading.Thread(target=up)
t.daemon = True
t.start()
while True:
    data = s.recv(65536)
    if not data:
        break
    while data:
        data = data[os.write(1, data):]
"""

# The programs of that name that come next on PATH, told where our configuration is.
_SHIM = """#!/bin/sh
here=@HERE@
paths=
set -f; IFS=:
for one in $PATH; do [ "$one" = "$here/bin" ] || paths=$paths${paths:+:}$one; done
unset IFS; set +f
real=$(PATH=$paths command -v @NAME@) || { echo "@NAME@: not found" >&2; exit 127; }
exec "$real" -F "$here/config" "$@"
"""


@dataclass(frozen=True, slots=True)
class WayHome:
    """How a node reaches the front end's machine.

    Attributes:
        user: to log in as.
        host: an address that the node reaches; None for the way through the connection that is there already.
        port: of its sshd.
    """

    user: str
    host: str | None
    port: int


def config_text(way: WayHome, python: str) -> str:
    """The ssh configuration: home first, then whatever the user has on the node.

    Args:
        way: how home is reached.
        python: the interpreter that joins the way through the connection, as text for the node's shell.
    """
    proxy = "none" if way.host else f"{python.replace('%', '%%')} {HERE}/join {HERE}/s"
    lines = [
        f"Host {NAMES}",
        f"  HostName {way.host or 'localhost'}",
        f"  Port {way.port}",
        f"  User {way.user}",
        f"  ProxyCommand {proxy}",
        "  HostKeyAlias serai-home",
        f"  IdentityFile {HERE}/key",
        f"  UserKnownHostsFile {HERE}/known_hosts",
        "  GlobalKnownHostsFile /dev/null",
        "  IdentitiesOnly yes",
        "  IdentityAgent none",
        "  StrictHostKeyChecking yes",
        "  CheckHostIP no",
        "  UpdateHostKeys no",
        "  BatchMode yes",
        "  PreferredAuthentications publickey",
        "  ControlMaster no",
        "  ControlPath none",
        "  ForwardAgent no",
        "  ForwardX11 no",
        "  ClearAllForwardings yes",
        "  CanonicalizeHostname no",
        "Host *",
        "Include ~/.ssh/config",
        "Include /etc/ssh/ssh_config",
    ]
    return "".join(f"{line}\n" for line in lines)


def known_hosts_text(keys: Sequence[str]) -> str:
    """The host keys of the front end's machine, under the name that the configuration looks for."""
    return "".join(f"serai-home {' '.join(key.split()[:2])}\n" for key in keys)


def making(name: str, config: str, known_hosts: str, key: str, gone: Sequence[str]) -> str:
    """The shell script that makes the directory; it says where that is, and what PATH is there.

    Args:
        name: how the directory's name begins; others that begin so are removed first.
        config: as of `config_text`.
        known_hosts: as of `known_hosts_text`.
        key: the private key: it stands in the script, which goes over standard input only.
        gone: how the names of further directories begin, which are removed.
    """
    # Made by mktemp, with mode 0700; and not in $TMPDIR, because a socket's path must be short.
    old = " ".join(f"{_ROOM}{shlex.quote(one)}-*" for one in [name, *gone])
    template = shlex.quote(f"{_ROOM}{name}-XXXXXXXX")
    parts = [
        "umask 077",
        f"rm -rf -- {old} 2>/dev/null",
        f"d=$(mktemp -d {template}) || exit 1",
        'mkdir "$d/bin" || exit 1',
        _file("config", config),
        _file("known_hosts", known_hosts),
        _file("key", key),
        _file("join", _JOIN),
    ]
    parts += [_file(f"bin/{program}", _SHIM.replace("@NAME@", program)) for program in PROGRAMS]
    filled = " ".join(["config", *(f"bin/{program}" for program in PROGRAMS)])
    parts += [
        f'for f in {filled}; do sed "s|{HERE}|$d|g" "$d/$f" > "$d/t" && cat "$d/t" > "$d/$f" || exit 1; done',
        'rm "$d/t" && chmod 700 "$d/bin/"*',
        'printf "serai-home-made %s %s\\n" "$d" "$PATH"',
    ]
    return "\n".join(parts) + "\n"


def _file(name: str, text: str) -> str:
    return f"cat > \"$d/{name}\" <<'{_END}' || exit 1\n{text.removesuffix(chr(10))}\n{_END}"


def read_made(said: str, host: str) -> tuple[str, str]:
    """The directory and PATH that the script said.

    Raises:
        AccessError: it said neither, or a directory that is none of ours.
    """
    found = _MADE.search(said)
    if not found or not found[1].startswith(f"{_ROOM}serai-home-") or ".." in found[1]:
        raise AccessError("it could not make a directory for home-calling", host=host, hint="is /tmp writable there?")
    return found[1], found[2]
