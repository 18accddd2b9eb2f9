"""What is said of a credential, what holds one, and where credentials are looked for."""

from __future__ import annotations

import os
import pwd
from dataclasses import dataclass, field
from enum import StrEnum
from typing import TYPE_CHECKING, Any, NoReturn, Self

if TYPE_CHECKING:
    from collections.abc import Mapping

    from serai.clock import Clock
    from serai.session.context import Context


class State(StrEnum):
    """Whether a credential can be used.

    USABLE: nothing that can be seen from here stands against it; UNUSABLE: something does; UNKNOWN: only its use tells.
    """

    USABLE = "usable"
    UNUSABLE = "unusable"
    UNKNOWN = "unknown"


@dataclass(frozen=True, slots=True)
class Finding:
    """One credential, and whether it can be used. It holds nothing secret.

    Attributes:
        type: as of a `Context`.
        name: the path, the name in the agent, the profile.
        source: where it was found.
        state: whether it can be used.
        reasons: why, or what is to be known about it; not of a usable one only.
        hint: what the reader can do.
        expires: when it ends, in seconds since the epoch; None when it does not, or nobody says.
        context: what uses it; None where nothing can be named.
        fingerprint: of an ssh key: ``SHA256:…``; of a certificate that of its key.
        public: an ssh key's public half, or a certificate, as a line of text.
        agent: an agent signs with it, and not a file.
    """

    type: str
    name: str
    source: str
    state: State
    reasons: tuple[str, ...] = ()
    hint: str | None = None
    expires: float | None = None
    context: Context | None = None
    fingerprint: str | None = None
    public: str | None = field(default=None, repr=False)
    agent: bool = False


class Secret:
    """A text that no print, log or pickle shows; `reveal` gives it to the one who signs with it."""

    __slots__ = ("_text",)

    def __init__(self, text: str) -> None:
        self._text = text

    def reveal(self) -> str:
        """The secret itself."""
        return self._text

    def __repr__(self) -> str:
        return "Secret(…)"

    def __format__(self, _spec: str) -> str:
        return repr(self)

    def __copy__(self) -> Self:
        return self

    def __deepcopy__(self, _memo: Mapping[int, Any]) -> Self:
        return self

    def __reduce__(self) -> NoReturn:
        raise TypeError("a secret does not travel: name its profile or its file instead")


@dataclass(frozen=True, slots=True)
class Surroundings:
    """Where credentials are looked for: parameters, so that looking is the same everywhere.

    Attributes:
        environment: variables; never shown.
        home: of the user; for OpenSSH it is the one of the user database, whatever ``$HOME`` says.
        uid: of the user.
        now: seconds since the epoch.
        ask_instance: whether a cloud's metadata service may be asked, which takes a second where there is none.
    """

    environment: Mapping[str, str] = field(repr=False)
    home: str
    uid: int
    now: float
    ask_instance: bool = False

    @classmethod
    def here(cls, clock: Clock, *, ask_instance: bool = False) -> Self:
        """Those of this process."""
        uid = os.getuid()
        try:
            home = pwd.getpwuid(uid).pw_dir
        except KeyError:
            home = os.path.expanduser("~")
        return cls(dict(os.environ), home, uid, clock.wall(), ask_instance)

    def at_home(self, path: str) -> str:
        """A path with its leading ``~/`` expanded."""
        return os.path.join(self.home, path[2:]) if path.startswith("~/") else path

    def short(self, path: str) -> str:
        """A path with the home written as ``~``, for people."""
        inside = path.startswith(self.home.rstrip("/") + "/") and self.home != "/"
        return "~" + path[len(self.home.rstrip("/")) :] if inside else path
