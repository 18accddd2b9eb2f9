"""Who may come in: users, access lists and tokens, in a file (mode 0600) that commands change beside the server.

Of a token only a digest is kept. A token is 32 random bytes, so that a plain digest cannot be searched.

A token may be narrowed: into one that lets some files be read and no more, for a while. It is for machines that work
for its owner and are not to have the owner's own. It ends with the token that it was made from, at the latest.
"""

from __future__ import annotations

import base64
import binascii
import contextlib
import errno
import fcntl
import hashlib
import hmac
import json
import os
import re
import secrets
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from serai.data.appliance.paths import RESERVED, Parts, parts_of_text, text_of
from serai.data.appliance.rights import ANYBODY, READ, Grant, Identity, letters, parse_rights
from serai.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

__all__ = ["Keys", "Token", "drafts_directory", "keys_of", "state_of", "write_secret"]

MOST = 10_000  # tokens, and grants
MOST_NARROWED = 1000  # tokens from one
MOST_PATHS = 2000  # of one token that was narrowed
MOST_NARROW_S = 86400.0  # its life, unless it is renewed
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
        parent: the name of the token that it was narrowed from; empty for a token of its own.
        paths: of one that was narrowed: the files that it is for.
    """

    name: str
    user: str
    path: str
    rights: str
    expires: float
    digest: str
    parent: str = ""
    paths: tuple[str, ...] = ()


class Keys:
    """The file of users, grants and tokens.

    One thread at a time looks; whoever changes it has another one of these, which any thread may use for that.

    Args:
        path: of the file.
        secret: makes the secret half of a token.
    """

    def __init__(self, path: str, secret: Callable[[], str] = lambda: secrets.token_urlsafe(32)) -> None:
        self.path, self._secret = path, secret
        self._seen: tuple[int, int, int] | None = None
        self.tokens: dict[str, Token] = {}
        self._paths: dict[str, frozenset[Parts]] = {}  # of tokens that were narrowed, by their names
        self.grants: list[Grant] = []
        self.quotas: dict[str, int] = {}
        self.refresh()

    # ---- looking

    def refresh(self) -> None:
        """Read the file again if it has changed."""
        try:
            found = os.stat(self.path)
        except FileNotFoundError:
            return
        seen = (found.st_mtime_ns, found.st_ino, found.st_size)
        if seen == self._seen:
            return
        with open(self.path, encoding="utf-8") as file:
            kept = json.load(file)
        self.tokens = {one["name"]: Token(**one | {"paths": tuple(one.get("paths", ()))}) for one in kept["tokens"]}
        self._paths.clear()
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
        return self._identity(token, now) if now < token.expires else None

    def _identity(self, token: Token, now: float) -> Identity | None:
        prefix = parts_of_text(token.path)
        if not token.parent:
            return Identity(token.user, prefix, parse_rights(token.rights), token=token.name)
        parent = self.tokens.get(token.parent)
        if parent is None or now >= parent.expires:
            return None
        paths = self._paths.get(token.name)
        if paths is None:
            paths = self._paths[token.name] = frozenset(map(parts_of_text, token.paths))
        rights = parse_rights(parent.rights) & {READ}
        return Identity(token.user, prefix, rights, paths, token.name)

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
            self._drop_expired(now)
            if len(self.tokens) >= MOST:
                raise UsageError(f"there are {MOST} tokens already", hint="revoke some: serai store revoke")
            self.tokens[token.name] = token
        return f"{_PREFIX}{token.name}_{secret}", token

    def narrow(self, who: Identity, paths: Iterable[Parts], expires: float, now: float) -> tuple[str, Token]:
        """A new token from the one that somebody showed, which lets files be read and no more: its text, and the token.

        Args:
            who: showed a token that was not narrowed itself; whether they may read the files, the caller has seen to.
            paths: of the files, `MOST_PATHS` at most.
            expires: seconds since the epoch; it ends with the other token, and within a day, all the same.
            now: the time.

        Raises:
            PermissionError: they showed no such token.
            UsageError: these are too many, or there are too many such tokens.
        """
        secret = self._secret()
        with self._changing():
            parent = self._parent(who)
            self._drop_expired(now)
            if len(self.tokens) >= MOST:
                raise UsageError(f"there are {MOST} tokens already", hint="revoke some: serai store revoke")
            if sum(one.parent == parent.name for one in self.tokens.values()) >= MOST_NARROWED:
                raise UsageError(f"a token is narrowed {MOST_NARROWED} times at most", hint="they end within a day")
            ends = min(expires, parent.expires, now + MOST_NARROW_S)
            texts = _texts(paths)
            made = Token(secrets.token_hex(6), parent.user, parent.path, "r", ends, _digest(secret), parent.name, texts)
            self.tokens[made.name] = made
        return f"{_PREFIX}{made.name}_{secret}", made

    def widen(self, who: Identity, name: str, paths: Iterable[Parts], expires: float, now: float) -> Token:
        """Let a token that was narrowed live longer, and be for further files.

        Raises:
            KeyError: there is none of that name that was made from theirs, or it has expired.
            PermissionError, UsageError: see `narrow`.
        """
        with self._changing():
            parent = self._parent(who)
            token = self.tokens.get(name)
            if token is None or token.parent != parent.name or now >= token.expires:
                raise KeyError(f"there is no token {name} that was made from this one")
            ends = min(max(token.expires, expires), parent.expires, now + MOST_NARROW_S)
            token = replace(token, expires=ends, paths=_texts(paths, token.paths))
            self.tokens[name] = token
        return token

    def _parent(self, who: Identity) -> Token:
        parent = self.tokens.get(who.token)
        if parent is None or parent.parent:
            raise PermissionError(errno.EACCES, "only a token that was not narrowed itself can be")
        return parent

    def _drop_expired(self, now: float) -> None:
        self.tokens = {name: one for name, one in self.tokens.items() if one.expires > now}

    def revoke(self, name: str) -> int:
        """End a token and those narrowed from it, or all tokens of a user; returns how many."""
        with self._changing():
            gone = {one.name for one in self.tokens.values() if name in {one.name, one.user}}
            gone |= {one.name for one in self.tokens.values() if one.parent in gone}
            for one in gone:
                del self.tokens[one]
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
        lock = os.open(f"{self.path}.lock", os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC, 0o600)
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
            write_secret(self.path, json.dumps(kept, indent=1))
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


def _texts(paths: Iterable[Parts], known: tuple[str, ...] = ()) -> tuple[str, ...]:
    texts = tuple(dict.fromkeys((*known, *map(text_of, paths))))
    if len(texts) > MOST_PATHS:
        raise UsageError(f"a token is narrowed to {MOST_PATHS} files at most")
    return texts


def _check_user(user: str) -> None:
    if not _USER.fullmatch(user):
        raise UsageError(f"{user!r} cannot be a user's name", hint="letters, digits, _ . @ and -")


def _parts(path: str) -> Parts:
    try:
        return parts_of_text(path)
    except ValueError as error:
        raise UsageError(f"{path!r} cannot be a path: {error}", hint="such as /cms") from error
