"""Who may come in: users, access lists and tokens, in a file (mode 0600) that commands change beside the server.

Of a token only a digest is kept. A token is 32 random bytes, so that a plain digest cannot be searched.
"""

from __future__ import annotations

import base64
import binascii
import contextlib
import fcntl
import hashlib
import hmac
import json
import os
import re
import secrets
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from serai.data.appliance.paths import RESERVED, Parts, parts_of_text, text_of
from serai.data.appliance.rights import ANYBODY, Grant, Identity, letters, parse_rights
from serai.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

__all__ = ["Keys", "Token", "drafts_directory", "keys_of", "state_of", "write_secret"]

MOST = 10_000  # tokens, and grants
DRAFTS = "drafts"
_PREFIX = "sst_"
_TOKEN = re.compile(r"sst_([0-9a-f]{12})_([A-Za-z0-9_-]{43})", re.ASCII)
_USER = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.@-]{0,63}", re.ASCII)


@dataclass(frozen=True, slots=True)
class Token:
    """What is kept of a token.

    Attributes:
        name: an identifier that is no secret.
        user: whose.
        path: where it holds, with all below.
        rights: as `letters` writes them.
        expires: seconds since the epoch.
        digest: of the secret half, in hexadecimal.
    """

    name: str
    user: str
    path: str
    rights: str
    expires: float
    digest: str


class Keys:
    """The file of users, grants and tokens.

    Args:
        path: of the file.
        secret: makes the secret half of a token.
    """

    def __init__(self, path: str, secret: Callable[[], str] = lambda: secrets.token_urlsafe(32)) -> None:
        self._path, self._secret = path, secret
        self._seen: tuple[int, int, int] | None = None
        self.tokens: dict[str, Token] = {}
        self.grants: list[Grant] = []
        self.quotas: dict[str, int] = {}
        self.refresh()

    # ---- looking

    def refresh(self) -> None:
        """Read the file again if it has changed."""
        try:
            found = os.stat(self._path)
        except FileNotFoundError:
            return
        seen = (found.st_mtime_ns, found.st_ino, found.st_size)
        if seen == self._seen:
            return
        with open(self._path, encoding="utf-8") as file:
            kept = json.load(file)
        self.tokens = {one["name"]: Token(**one) for one in kept["tokens"]}
        self.grants = [
            Grant(one["user"], parts_of_text(one["path"]), parse_rights(one["rights"])) for one in kept["grants"]
        ]
        self.quotas = dict(kept["quotas"])
        self._seen = seen

    def identify(self, authorization: str | None, now: float) -> Identity | None:
        """Who a request is from, by its ``Authorization``: ``Bearer TOKEN``, or ``Basic`` with it as the password."""
        self.refresh()
        kind, _, value = (authorization or "").strip().partition(" ")
        if kind.lower() == "basic":
            try:
                value = base64.b64decode(value.strip(), validate=True).decode("ascii").partition(":")[2]
            except (binascii.Error, UnicodeDecodeError):
                return None
        elif kind.lower() != "bearer":
            return None
        match = _TOKEN.fullmatch(value.strip())
        token = self.tokens.get(match[1]) if match else None
        if match is None or token is None or not hmac.compare_digest(_digest(match[2]), token.digest):
            return None
        if now >= token.expires:
            return None
        return Identity(token.user, parts_of_text(token.path), parse_rights(token.rights))

    # ---- changing

    def make_token(self, user: str, path: str, rights: str, expires: float, now: float) -> tuple[str, Token]:
        """A new token: its text, which is kept nowhere, and what is kept of it.

        Raises:
            UsageError: the user, the path or the rights cannot be such.
        """
        _check_user(user)
        secret = self._secret()
        where = text_of(_parts(path))
        token = Token(secrets.token_hex(6), user, where, letters(parse_rights(rights)), expires, _digest(secret))
        with self._changing():
            self.tokens = {name: one for name, one in self.tokens.items() if one.expires > now}
            if len(self.tokens) >= MOST:
                raise UsageError(f"there are {MOST} tokens already", hint="revoke some: serai store revoke")
            self.tokens[token.name] = token
        return f"{_PREFIX}{token.name}_{secret}", token

    def revoke(self, name: str) -> int:
        """End a token, or all tokens of a user; returns how many."""
        with self._changing():
            gone = [one for one in self.tokens.values() if name in {one.name, one.user}]
            for one in gone:
                del self.tokens[one.name]
        return len(gone)

    def allow(self, user: str, path: str, rights: str) -> None:
        """Write a line of the access list, in place of the one for the same user and path; with no rights: none there.

        Raises:
            UsageError: the user, the path or the rights cannot be such.
        """
        if user != ANYBODY:
            _check_user(user)
        line = Grant(user, _parts(path), parse_rights(rights))
        with self._changing():
            self.grants = [one for one in self.grants if (one.user, one.prefix) != (line.user, line.prefix)] + [line]
            if len(self.grants) > MOST:
                raise UsageError(f"an access list has {MOST} lines at most")

    def limit(self, user: str, size: int | None) -> None:
        """Set a user's quota, in bytes; None for no limit."""
        _check_user(user)
        with self._changing():
            self.quotas.pop(user, None)
            if size is not None:
                self.quotas[user] = size

    @contextlib.contextmanager
    def _changing(self) -> Iterator[None]:
        """Change the file, one process at a time; it is replaced as a whole."""
        lock = os.open(f"{self._path}.lock", os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(lock, fcntl.LOCK_EX)
            self.refresh()
            yield
            kept: dict[str, Any] = {
                "tokens": [{name: getattr(one, name) for name in Token.__slots__} for one in self.tokens.values()],
                "grants": [
                    {"user": one.user, "path": text_of(one.prefix), "rights": letters(one.rights)}
                    for one in self.grants
                ],
                "quotas": self.quotas,
            }
            write_secret(self._path, json.dumps(kept, indent=1))
        except BaseException:
            self._seen = None
            raise
        finally:
            os.close(lock)


def drafts_directory(root: str) -> str:
    """Where files are written before they are whole."""
    return os.path.join(root, os.fsdecode(RESERVED), DRAFTS)


def state_of(directory: str) -> str:
    """The appliance's own directory in what it serves; made where there is none.

    Raises:
        UsageError: it cannot be.
    """
    state = os.path.join(directory, os.fsdecode(RESERVED))
    try:
        os.makedirs(drafts_directory(directory), mode=0o700, exist_ok=True)
        os.chmod(state, 0o700)
    except OSError as error:
        raise UsageError(f"{directory} cannot be served: {error}") from error
    return state


def keys_of(directory: str) -> Keys:
    """The users, access lists and tokens of what is served from a directory."""
    if not os.path.isdir(directory):
        raise UsageError(f"{directory} is no directory")
    return Keys(os.path.join(state_of(os.path.realpath(directory)), "access.json"))


def write_secret(path: str, text: str) -> None:
    """Write a file that only its owner may read, whole or not at all."""
    draft = f"{path}.{secrets.token_hex(6)}"
    fd = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    try:
        with os.fdopen(fd, "w", encoding="utf-8") as file:
            file.write(text)
        os.replace(draft, path)
    except BaseException:
        with contextlib.suppress(OSError):
            os.unlink(draft)
        raise


def _digest(secret: str) -> str:
    return hashlib.sha256(secret.encode("ascii")).hexdigest()


def _check_user(user: str) -> None:
    if not _USER.fullmatch(user):
        raise UsageError(f"{user!r} cannot be a user's name", hint="letters, digits, _ . @ and -")


def _parts(path: str) -> Parts:
    try:
        return parts_of_text(path)
    except ValueError as error:
        raise UsageError(f"{path!r} cannot be a path: {error}", hint="such as /cms") from error
