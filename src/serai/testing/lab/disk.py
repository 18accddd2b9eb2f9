"""What is on the disk of a host: the machine's own programs, and nothing else that is the machine's.

A host's root is an overlay. Its lower layer is the machine's `/`; its upper layer, which is made here, hides what a
bare host would not have (an opaque directory shows nothing of the one below it, a whiteout hides a name) and adds the
accounts, the names of the other hosts, and sshd's files.
"""

from __future__ import annotations

import os
import stat
from dataclasses import dataclass
from pathlib import Path

PROGRAM_DIRECTORIES = frozenset({"bin", "sbin", "lib", "lib32", "lib64", "libx32", "usr", "etc"})
EMPTY_DIRECTORIES = {
    "boot": 0o755,
    "dev": 0o755,
    "home": 0o755,
    "media": 0o755,
    "mnt": 0o755,
    "opt": 0o755,
    "proc": 0o555,
    "root": 0o700,
    "run": 0o755,
    "srv": 0o755,
    "sys": 0o555,
    "tmp": 0o1777,
    "usr/local": 0o755,
    "var": 0o755,
    "etc/ssh": 0o755,
    "etc/profile.d": 0o755,
    "etc/ssl/private": 0o700,
}
NEW_DIRECTORIES = {
    "dev/pts": 0o755,
    "dev/shm": 0o1777,
    "root/.ssh": 0o700,
    "usr/local/bin": 0o755,
    "usr/local/lib": 0o755,
    "usr/local/share": 0o755,
    "var/cache": 0o755,
    "var/lib": 0o755,
    "var/log": 0o755,
    "var/spool": 0o755,
    "var/tmp": 0o1777,
}
# A user's /dev/fuse is often closed on the machine; tasks mount without privilege, so a host's is open.
DEVICES = {
    "null": (1, 3),
    "zero": (1, 5),
    "full": (1, 7),
    "random": (1, 8),
    "urandom": (1, 9),
    "tty": (5, 0),
    "fuse": (10, 229),
}
DEVICE_LINKS = {
    "ptmx": "pts/ptmx",
    "fd": "/proc/self/fd",
    "stdin": "/proc/self/fd/0",
    "stdout": "/proc/self/fd/1",
    "stderr": "/proc/self/fd/2",
}
USER = "user"
USER_ID = 1000
FIRST_PERSON_ID = 1000
NOBODY_ID = 65534
PYTHON_AT = "opt/python"


@dataclass(frozen=True, slots=True)
class Contents:
    """What a host's disk has of its own.

    Attributes:
        name: the host's name.
        names: the lines of /etc/hosts.
        sshd_config: the text of sshd's configuration.
        host_key: the file with sshd's private key; its public half stands beside it as `.pub`.
        authorized_key: the line of the public key that may log in.
        python: the directory of an interpreter that is bound in as /opt/python, if there is one.
    """

    name: str
    names: str
    sshd_config: str
    host_key: Path
    authorized_key: str
    python: Path | None


def furnish(upper: Path, lower: Path, contents: Contents) -> None:
    """Fill an empty upper layer over the lower directory `lower`."""
    _bare(upper, lower)
    _devices(upper / "dev")
    _accounts(upper / "etc", lower / "etc")
    _put(upper / "etc/hostname", f"{contents.name}\n")
    _put(upper / "etc/hosts", contents.names)
    _put(upper / "etc/resolv.conf", "")
    _put(upper / "etc/environment", "")
    _put(upper / "etc/ssh/sshd_config", contents.sshd_config)
    _put(upper / "etc/ssh/ssh_host_ed25519_key", contents.host_key.read_text(encoding="ascii"), 0o600)
    public_key = Path(f"{contents.host_key}.pub").read_text(encoding="ascii")
    _put(upper / "etc/ssh/ssh_host_ed25519_key.pub", public_key)
    home = upper / "home" / USER
    for directory in (home, home / ".ssh"):
        _directory(directory, 0o700)
    for owner, ssh_directory in ((0, upper / "root/.ssh"), (USER_ID, home / ".ssh")):
        _put(ssh_directory / "authorized_keys", contents.authorized_key, 0o600)
        for path in (ssh_directory, ssh_directory / "authorized_keys"):
            os.chown(path, owner, owner)
    os.chown(home, USER_ID, USER_ID)
    if contents.python is not None:
        _python(upper, lower, contents.python)


def _bare(upper: Path, lower: Path) -> None:
    for parent in ("", "etc", "etc/ssl", "usr"):
        _directory(upper / parent, 0o755)
    for name in os.listdir(lower):
        if name not in PROGRAM_DIRECTORIES and name not in EMPTY_DIRECTORIES:
            os.mknod(upper / name, stat.S_IFCHR, os.makedev(0, 0))
    for name, mode in EMPTY_DIRECTORIES.items():
        _directory(upper / name, mode)
        os.setxattr(upper / name, "trusted.overlay.opaque", b"y")
    for name, mode in NEW_DIRECTORIES.items():
        _directory(upper / name, mode)
    for link, target in (("var/run", "/run"), ("var/lock", "/run/lock")):
        (upper / link).symlink_to(target)


def _devices(directory: Path) -> None:
    for name, numbers in DEVICES.items():
        os.mknod(directory / name, stat.S_IFCHR, os.makedev(*numbers))
        (directory / name).chmod(0o666)
    for name, target in DEVICE_LINKS.items():
        (directory / name).symlink_to(target)


def _accounts(etc: Path, lower: Path) -> None:
    # sshd without PAM refuses an account whose password is `!` (locked); `*` only means that no password fits.
    passwd = _without_people(lower / "passwd")
    passwd.append(f"{USER}:x:{USER_ID}:{USER_ID}:A user:/home/{USER}:/bin/bash")
    _put(etc / "passwd", "".join(f"{line}\n" for line in passwd))
    _put(etc / "group", "".join(f"{line}\n" for line in [*_without_people(lower / "group"), f"{USER}:x:{USER_ID}:"]))
    _put(etc / "shadow", "".join(f"{line.split(':')[0]}:*:19000:0:99999:7:::\n" for line in passwd), 0o600)
    _put(etc / "gshadow", "", 0o600)


def _without_people(path: Path) -> list[str]:
    lines = path.read_text(encoding="utf-8").splitlines()
    entries = [line for line in lines if line.count(":") >= 3 and line.split(":")[0] != USER]
    ids = [int(line.split(":")[2]) for line in entries]
    return [line for line, number in zip(entries, ids, strict=True) if number < FIRST_PERSON_ID or number == NOBODY_ID]


def _python(upper: Path, lower: Path, python: Path) -> None:
    _directory(upper / PYTHON_AT, 0o755)
    # An interpreter built with a shared library looks for it where it was installed, which a host does not have; so it
    # is put where the loader looks by default, also in place of the machine's own of that name.
    for library in (python / "lib").glob("libpython*.so*"):
        places = [path.parent.relative_to(lower) for path in lower.glob(f"usr/lib/*/{library.name}")]
        for place in (Path("usr/lib"), *places):
            _directory(upper / "usr/lib", 0o755)
            _directory(upper / place, 0o755)
            (upper / place / library.name).symlink_to(f"/{PYTHON_AT}/lib/{library.name}")


def _directory(path: Path, mode: int) -> None:
    path.mkdir(exist_ok=True)
    path.chmod(mode)  # whatever the caller's umask is


def _put(path: Path, text: str, mode: int = 0o644) -> None:
    path.write_text(text, encoding="utf-8")
    path.chmod(mode)
