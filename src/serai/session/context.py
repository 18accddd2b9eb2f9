"""Contexts and sessions: which credentials are used, after SAGA (OGF GFD.90), in the shape of Python.

A `Context` names a credential and never holds one: the path of a key, the name of a profile. A `Session` is the set of
contexts that access points may use. What they name is looked at when it is asked for, and said of each is whether it
can be used (`Finding`)::

    with serai.Session() as session:            # what is found here
        for finding in session.findings():
            print(finding.name, finding.state, *finding.reasons)
    serai.Session([serai.Context("ssh", key="~/.ssh/project", user="me")])   # this one only
"""

from __future__ import annotations

import os
import re
from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, Self

from serai.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence
    from types import TracebackType

    from serai.session.finding.report import Finding, Surroundings

# What a context of each type may say.
TYPES: dict[str, frozenset[str]] = {
    "ssh": frozenset({"user", "key", "cert"}),
    "aws": frozenset({"profile", "region", "endpoint"}),
    "x509": frozenset({"proxy", "key", "cert", "ca"}),
    "s3": frozenset({"profile", "region", "endpoint"}),
}
# The attributes of GFD.90, section 3.6, and what they are called here.
SAGA_NAMES = {
    "UserID": "user",
    "UserKey": "key",
    "UserCert": "cert",
    "UserProxy": "proxy",
    "CertRepository": "ca",
}
_REFUSED = frozenset({"UserPass", "password", "passphrase"})
_NO_PASSWORDS = "use a key, and an agent (ssh-add) where it has a passphrase; for clouds, a profile"
_PATHS = frozenset({"key", "cert", "proxy", "ca"})
_MOST_CHARACTERS = 4096  # of a value: PATH_MAX
_MOST_CONTEXTS = 1000
_KEY_TEXT = re.compile(r"-----BEGIN |PRIVATE KEY|[\x00-\x1f\x7f]")
_PASSWORD_IN_URL = re.compile(r"//[^/]*:[^/]*@")


@dataclass(frozen=True, slots=True)
class Context:
    """Which credential is used, by name; None leaves it to what is found.

    Attributes:
        type: ``ssh``, ``aws`` (EC2 and what speaks as it does), ``x509`` (proxies and certificates) or ``s3``.
        user: the name to log in with (SAGA's UserID).
        key: the path of a private key, or of a public one whose private half an agent holds (UserKey).
        cert: the path of a certificate (UserCert).
        proxy: the path of an X.509 proxy (UserProxy).
        ca: the directory of the certificate authorities that are trusted (CertRepository).
        profile: the name of a profile in the AWS files.
        region: of the cloud.
        endpoint: the URL of the cloud's or the store's service.

    Raises:
        UsageError: the type is unknown, a value does not belong to it, or it is a secret (which the message does not
            repeat).
    """

    type: str
    user: str | None = None
    key: str | None = None
    cert: str | None = None
    proxy: str | None = None
    ca: str | None = None
    profile: str | None = None
    region: str | None = None
    endpoint: str | None = None

    def __post_init__(self) -> None:
        if self.type not in TYPES:
            raise UsageError(f"{self.type!r} is not a type of context", hint=f"known: {', '.join(sorted(TYPES))}")
        for name, value in self._values():
            if name not in TYPES[self.type]:
                known = ", ".join(sorted(TYPES[self.type]))
                raise UsageError(f"a context of type {self.type} has no {name}", hint=f"it may say: {known}")
            object.__setattr__(self, name, _checked(name, value))

    def __repr__(self) -> str:
        said = "".join(f", {name}={value!r}" for name, value in self._values())
        return f"Context({self.type!r}{said})"

    @classmethod
    def from_saga(cls, attributes: Mapping[str, str]) -> Self:
        """Reads SAGA's attributes, such as ``{"Type": "ssh", "UserID": "me", "UserKey": "~/.ssh/id_rsa"}``.

        Raises:
            UsageError: ``Type`` is missing, an attribute is unknown here, or it is ``UserPass``: a context holds no
                passwords.
        """
        values: dict[str, str] = {}
        for name, value in attributes.items():
            if name in _REFUSED:
                raise UsageError(f"a context holds no {name}", hint=_NO_PASSWORDS)
            if name != "Type" and name not in SAGA_NAMES:
                known = ", ".join(["Type", *SAGA_NAMES])
                raise UsageError(f"{name!r} is no attribute of a context", hint=f"known: {known}")
            values["type" if name == "Type" else SAGA_NAMES[name]] = value
        if "type" not in values:
            raise UsageError("the context has no Type", hint=f"known: {', '.join(sorted(TYPES))}")
        return cls(**values)

    def to_saga(self) -> dict[str, str]:
        """The same under SAGA's names; without what SAGA has no name for."""
        ours = dict(self._values())
        return {"Type": self.type} | {saga: ours[name] for saga, name in SAGA_NAMES.items() if name in ours}

    def ssh_options(self) -> tuple[str, ...]:
        """What this adds to ssh's options (``ssh -o …`` each). Keys that ssh_config names for the host come after it.

        Raises:
            UsageError: it is not a context of type ssh.
        """
        if self.type != "ssh":
            raise UsageError(f"a context of type {self.type} is none for ssh", hint='use Context("ssh", …)')
        said = []
        if self.key is not None:
            said += [f"IdentityFile={config_word(self.key)}", "IdentitiesOnly=yes"]
        if self.cert is not None:
            said.append(f"CertificateFile={config_word(self.cert)}")
        return tuple(said)

    def findings(
        self, host: str | None = None, *, around: Surroundings | None = None, ssh_words: Sequence[str] = ()
    ) -> list[Finding]:
        """Looks at what this context names, or finds what is there, and says of each whether it can be used.

        Nothing is asked of any other machine. (`serai.access.ssh_credentials.try_all` asks a host.)

        Args:
            host: for ssh: what the user's ssh_config says for this host.
            around: the environment, home and time; those of this process if None.
            ssh_words: further arguments of ssh, such as ``("-F", "ssh_config")``.
        """
        from serai.session.finding import find  # noqa: PLC0415 - what looks at files is loaded when asked for

        return find([self], around, host=host, ssh_words=ssh_words)

    def _values(self) -> Iterator[tuple[str, str]]:
        for field in fields(self)[1:]:
            value = getattr(self, field.name)
            if value is not None:
                yield field.name, value


def config_word(path: str) -> str:
    """A path as ssh's configuration holds it: ssh expands ``%``, and quotes hold blanks."""
    word = path.replace("%", "%%")
    if '"' in word or "\\" in word:
        raise UsageError(f"ssh's configuration cannot hold the path {path!r}", hint="give the file another name")
    return f'"{word}"' if re.search(r"[\s#']", word) else word


class Session:
    """A set of contexts, after SAGA's session.

    ``with session:`` makes it the current one of this process: whoever logs in meanwhile (jobs, files, pools) uses the
    first of the contexts added to it that fits, and where none fits what ssh itself would use.

    Args:
        contexts: the ones to use; None for whatever is found on this machine, looked for when first asked for.
        around: the environment, home and time; those of this process if None.
    """

    def __init__(self, contexts: Iterable[Context] | None = None, *, around: Surroundings | None = None) -> None:
        self._around = around
        self._given = contexts is not None
        self._contexts: list[Context] = []
        self._found: list[Finding] | None = None
        for context in contexts or ():
            self.add_context(context)

    def add_context(self, context: Context) -> None:
        """Adds a context; one that is there already is not added again."""
        if context in self._contexts:
            return
        if len(self._contexts) >= _MOST_CONTEXTS:
            raise UsageError(f"a session holds {_MOST_CONTEXTS} contexts at most")
        self._contexts.append(context)

    def remove_context(self, context: Context) -> None:
        """Removes a context; of a default session, one that was found, too.

        Raises:
            KeyError: it is not there (SAGA's DoesNotExist).
        """
        if context not in self.list_contexts():
            raise KeyError(context)
        self._contexts = [one for one in self._contexts if one != context]
        if self._found is not None:
            self._found = [one for one in self._found if one.context != context]

    def list_contexts(self, kind: str | None = None) -> list[Context]:
        """The contexts, those that were added first; of a default session then those found and not known to be useless.

        Args:
            kind: only contexts of this type.
        """
        listed = list(self._contexts)
        for one in self._default():
            if one.context is not None and one.state != "unusable" and one.context not in listed:
                listed.append(one.context)
        return [one for one in listed if kind is None or one.type == kind]

    def findings(self) -> list[Finding]:
        """What is known of each credential: of those added, and in a default session of all that are found."""
        from serai.session.finding import find  # noqa: PLC0415 - what looks at files is loaded when asked for

        return [*(find(self._contexts, self._around) if self._contexts else ()), *self._default()]

    def close(self) -> None:
        """Forgets all contexts."""
        self._contexts, self._found, self._given = [], None, True

    def __iter__(self) -> Iterator[Context]:
        return iter(self.list_contexts())

    def __len__(self) -> int:
        return len(self.list_contexts())

    def __contains__(self, context: object) -> bool:
        return context in self.list_contexts()

    def __enter__(self) -> Self:
        _current.append(self)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        _current.remove(self)
        self.close()

    def __repr__(self) -> str:
        return f"Session({self._contexts!r})" if self._given else f"<Session of what is found, and {self._contexts!r}>"

    def added(self, kind: str) -> list[Context]:
        """The contexts of a type that were added, not those that were found."""
        return [one for one in self._contexts if one.type == kind]

    def _default(self) -> list[Finding]:
        if self._given:
            return []
        if self._found is None:
            from serai.session.finding import find  # noqa: PLC0415 - what looks at files is loaded when asked for

            self._found = find(None, self._around)
        return self._found


_current: list[Session] = []  # those that are entered, the latest last; for all threads, since logins have their own


def current_context(kind: str, user: str | None = None) -> Context | None:
    """The context that a login is to use: of the session entered last, the first that was added and fits.

    Args:
        kind: its type.
        user: the user who is named already; a context of another user does not fit.
    """
    added = _current[-1].added(kind) if _current else []
    return next((one for one in added if user is None or one.user in {None, user}), None)


def _checked(name: str, value: object) -> str:
    text = os.fspath(value) if name in _PATHS and isinstance(value, os.PathLike) else value
    if not isinstance(text, str) or not text:
        raise UsageError(f"the context's {name} is not a text")
    if _KEY_TEXT.search(text) or len(text) > _MOST_CHARACTERS:
        raise UsageError(f"the context's {name} is not a name or a path", hint="give the path of a key, not the key")
    if name == "endpoint" and _PASSWORD_IN_URL.search(text):
        raise UsageError("a context's endpoint holds no password", hint=_NO_PASSWORDS)
    if name == "user" and (text.startswith("-") or re.search(r"\s", text)):
        raise UsageError(f"{text!r} is not the name of a user")
    return text
