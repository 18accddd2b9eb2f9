"""URLs of sites: ``local:``, ``ssh://me@lab1:2222/scratch?slots=4``, ``dask+tls://head:8786?ca=ca.pem``.

Parsed here and not with ``urllib.parse`` because that one drops control characters silently, lower-cases hosts that are
aliases of the user's OpenSSH configuration, and lets passwords through.
"""

from __future__ import annotations

import difflib
import re
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Self
from urllib.parse import quote, unquote

from serai.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Mapping

_SCHEME = re.compile(r"([A-Za-z][A-Za-z0-9+.-]*):", re.ASCII)
_HOST = re.compile(r"\w[\w.+-]*")  # never a leading dash: ssh would take it for an option
_IPV6 = re.compile(r"[0-9A-Fa-f:.]*:[0-9A-Fa-f:.]*(%[\w.-]+)?")
_UNPRINTABLE = re.compile(r"[\x00-\x20\x7f]")
_BROKEN_PERCENT = re.compile(r"%(?![0-9A-Fa-f]{2})")
_SECRET_KEYS = frozenset({"password", "passwd", "passphrase", "pwd"})
_USE_A_KEY = "take the password out; use a key, an agent or your ssh configuration (for ssh: ssh-copy-id HOST)"
_USE_PGPASS = "take the password out, and write HOST:5432:DATABASE:USER:PASSWORD into ~/.pgpass (mode 0600)"
_LAST_PORT = 65535


@dataclass(frozen=True, slots=True)
class Url:
    """A way to a resource.

    Attributes:
        scheme: in lower case.
        user: decoded; None when the URL names none.
        host: a name, an ssh alias or an address, as written; IPv6 without its brackets.
        port: 1 to 65535.
        path: decoded; empty, or starting with ``/`` when there is a host.
        query: decoded keys and values, in the order they were written.
    """

    scheme: str
    user: str | None = None
    host: str | None = None
    port: int | None = None
    path: str = ""
    query: Mapping[str, str] = field(default_factory=dict, hash=False)

    @classmethod
    def parse(cls, text: str) -> Self:
        """Reads a URL.

        Raises:
            UsageError: it is no URL, or it holds a password (which the message does not repeat).
        """
        match = _SCHEME.match(text)
        if not match:
            raise UsageError(f"{_shown(text)} has no scheme", hint="write ssh://HOST, local: or dask://HOST:PORT")
        rest = text[match.end() :]
        if _UNPRINTABLE.search(rest) or "#" in rest or _BROKEN_PERCENT.search(rest):
            raise UsageError(
                f"{_shown(text)} has a character that a URL cannot hold",
                hint="write blanks, control characters, # and % as %20, %0A, %23 and %25",
            )
        rest, _, query_text = rest.partition("?")
        user, host, port, path = None, None, None, rest
        if rest.startswith("//"):
            authority, slash, below = rest[2:].partition("/")
            path = slash + below
            user, host, port = _authority(authority, text)
        return cls(match[1].lower(), user, host, port, _decoded(path), _query(query_text, text))

    def __str__(self) -> str:
        path = quote(self.path, safe="/:@!$&'()*+,;=~", errors="surrogateescape")
        if self.host is None:
            head = f"{self.scheme}:" + ("//" if path.startswith("//") else "")
        else:
            user = "" if self.user is None else quote(self.user, safe="", errors="surrogateescape") + "@"
            host = f"[{quote(self.host, safe=':')}]" if ":" in self.host else quote(self.host, safe="")
            head = f"{self.scheme}://{user}{host}" + ("" if self.port is None else f":{self.port}")
        pairs = "&".join(f"{_quoted(key)}={_quoted(value)}" for key, value in self.query.items())
        return head + path + (f"?{pairs}" if pairs else "")

    def options(self, allowed: frozenset[str]) -> dict[str, str]:
        """Gives the query when each of its keys is one of ``allowed``.

        Raises:
            UsageError: a key is unknown; the hint names the nearest right one.
        """
        for key in self.query:
            if key not in allowed:
                near = difflib.get_close_matches(key, sorted(allowed), n=1)
                known = "known: " + ", ".join(sorted(allowed)) if allowed else f"{self.scheme}: takes none"
                raise UsageError(
                    f"unknown option {key!r} in {self}", hint=f"did you mean {near[0]!r}?" if near else known
                )
        return dict(self.query)


def _authority(authority: str, text: str) -> tuple[str | None, str | None, int | None]:
    """Splits ``user@host:port``."""
    before, at, place = authority.rpartition("@")
    user = _decoded(before) if at else None
    if user is not None:
        if ":" in user:
            hint = _USE_PGPASS if text.lower().startswith("postgres") else _USE_A_KEY
            raise UsageError(f"a URL holds no password: {_shown(text)}", hint=hint)
        if not user or user.startswith("-") or _UNPRINTABLE.search(user):
            raise UsageError(f"{_shown(text)} names a user that cannot be one")
    if place.startswith("["):
        inside, bracket, after = place[1:].partition("]")
        host = _decoded(inside)
        good = bool(bracket) and _IPV6.fullmatch(host) is not None and (not after or after.startswith(":"))
        colon, port_text = after[:1], after[1:]
    else:
        host_text, colon, port_text = place.partition(":")
        host = _decoded(host_text)
        good = _HOST.fullmatch(host) is not None or not (host or user or colon)
    if not good:
        raise UsageError(
            f"{_shown(text)} names a host that cannot be one", hint="write IPv6 addresses in brackets: ssh://[fe80::1]"
        )
    if not colon:
        return user, host or None, None
    if not (port_text.isascii() and port_text.isdecimal() and len(port_text) <= 5 and 0 < int(port_text) <= _LAST_PORT):
        raise UsageError(
            f"{_shown(text)} has a port that cannot be one", hint=f"a port is a number from 1 to {_LAST_PORT}"
        )
    return user, host, int(port_text)


def _query(query_text: str, text: str) -> dict[str, str]:
    pairs: dict[str, str] = {}
    for pair in query_text.split("&") if query_text else ():
        key_text, equals, value = pair.partition("=")
        key = _decoded(key_text)
        if key.lower() in _SECRET_KEYS:
            raise UsageError(f"a URL holds no password: {_shown(text.partition('?')[0])}?…", hint=_USE_A_KEY)
        if not key or not equals:
            raise UsageError(f"{_shown(text)}: {key!r} has no value", hint="write options as ?key=value&key=value")
        if key in pairs:
            raise UsageError(f"{_shown(text)} gives {key!r} twice")
        pairs[key] = _decoded(value)
    return pairs


def _decoded(text: str) -> str:
    return unquote(text, errors="surrogateescape")


def _quoted(text: str) -> str:
    return quote(text, safe="/:@,~", errors="surrogateescape")


def _shown(text: str) -> str:
    """Shows a URL in a message, with all that may be a password cut: from its user's first colon to the last @."""
    head, slashes, rest = text.partition("//")
    before, at, after = rest.rpartition("@")
    for colon in (":", "%3a", "%3A"):
        if at and colon in before:
            before = before.partition(colon)[0] + ":…"
    # What follows a password-like key is cut as well: the mistake that is reported may stand before it.
    shown = head + slashes + before + at + after
    return repr(re.sub(r"(?i)((?:passw(?:or)?d|passphrase|pwd)=)[^&]*", r"\1…", shown))
