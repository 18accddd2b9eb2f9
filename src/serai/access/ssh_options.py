"""What ssh is told, over what the user's config says: pure, from what ``ssh -G`` prints.

Options are added only where the user's config (``ssh -G``) leaves a gap or would break an 8-bit clean session:

* Host keys are always checked. ``StrictHostKeyChecking no`` (or ``off``) becomes ``yes``; ``accept-new`` is the user's
  choice and stays, as does ``ask``, which without a terminal means ``yes``. The keys of a jump host are checked by the
  user's config alone: ssh hands no options on to it; the host behind it is checked by us all the same.
* ``BatchMode=yes`` wherever nobody can answer.
* Of OpenSSH's own list of ciphers, those with AES in hardware come first: both ends then need a third less time for
  the same bytes (measured). A list of the user's stays as it is.
* Nothing is said about compression: ``-C`` on a session changes nothing, the master decides, and by default does not.
"""

from __future__ import annotations

import math
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

from serai.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from serai.session.context import Context

# Settings of a user's config that would break a session, the values that do not, and what is said against the others.
# Only then is the option named: an ssh too old to know it does not print it either.
_IN_THE_WAY: tuple[tuple[str, frozenset[str], str], ...] = (
    ("remotecommand", frozenset({"none"}), "RemoteCommand=none"),
    ("stdinnull", frozenset({"no"}), "StdinNull=no"),
    ("forkafterauthentication", frozenset({"no"}), "ForkAfterAuthentication=no"),
    ("sessiontype", frozenset({"default"}), "SessionType=default"),
    ("localforward", frozenset(), "ClearAllForwardings=yes"),
    ("remoteforward", frozenset(), "ClearAllForwardings=yes"),
    ("dynamicforward", frozenset(), "ClearAllForwardings=yes"),
)
# What OpenSSH offers when nobody chose; releases differ in the order alone.
_OWN_CIPHERS = frozenset(
    {
        "chacha20-poly1305@openssh.com",
        "aes128-ctr",
        "aes192-ctr",
        "aes256-ctr",
        "aes128-gcm@openssh.com",
        "aes256-gcm@openssh.com",
    }
)
_FAST_CIPHERS = ("aes128-gcm@openssh.com", "aes256-gcm@openssh.com")
_SILENT = frozenset({"silent", "quiet", "fatal"})
_UNCHECKED = frozenset({"no", "off", "false"})


@dataclass(frozen=True, slots=True)
class Target:
    """A host as the user's ssh knows it.

    Attributes:
        host: a name of ssh_config or of the network, or an address.
        user: overrides the config's user.
        port: overrides the config's port.
        config: a file to read instead of the user's ssh_config (``ssh -F``).
        context: of type ssh: the key and the certificate to use, and whom to log in as where ``user`` says nothing.
    """

    host: str
    user: str | None = None
    port: int | None = None
    config: str | None = None
    context: Context | None = None

    def __post_init__(self) -> None:
        if not self.host or self.host.startswith("-") or re.search(r"[\s\x00-\x1f]", self.host):
            raise UsageError(f"{self.host!r} is not the name of a host")
        if self.user is not None and (not self.user or self.user.startswith("-")):
            raise UsageError(f"{self.user!r} is not the name of a user", host=self.host)
        if self.context is not None:
            self.context.ssh_options()  # says so now when it is of another type

    def words(self) -> list[str]:
        """The arguments of ssh that stand before the host."""
        words = ["-F", self.config] if self.config is not None else []
        user = self.user if self.user is not None or self.context is None else self.context.user
        words += ["-l", user] if user is not None else []
        words += ["-p", str(self.port)] if self.port is not None else []
        options = () if self.context is None else self.context.ssh_options()
        return words + [word for option in options for word in ("-o", option)]


def read_settings(text: str) -> dict[str, str]:
    """The settings that ``ssh -G`` prints, by lower-case name; of repeated ones the first."""
    settings: dict[str, str] = {}
    for line in text.splitlines():
        name, _, value = line.partition(" ")
        settings.setdefault(name.lower(), value.strip())
    return settings


def session_options(settings: Mapping[str, str]) -> list[str]:
    """What is said against settings that would break a session which carries bytes."""
    said = [option for name, fine, option in _IN_THE_WAY if name in settings and settings[name] not in fine]
    if settings.get("loglevel", "").lower() in _SILENT:
        said.append("LogLevel=ERROR")  # else no failure could be explained
    return [word for option in dict.fromkeys(said) for word in ("-o", option)]


def master_options(
    settings: Mapping[str, str], *, interactive: bool, connect_deadline_s: float, fast_aes: bool = False
) -> list[str]:
    """What our own master is told, over what the user's config says.

    Args:
        settings: what ``ssh -G`` prints.
        interactive: whether somebody can answer.
        connect_deadline_s: for the connection.
        fast_aes: whether this machine has AES in hardware.
    """
    said = ["ControlPersist=no"]
    ciphers = settings.get("ciphers", "").split(",")
    if fast_aes and ciphers[0] == "chacha20-poly1305@openssh.com" and set(ciphers) == _OWN_CIPHERS:
        rest = [one for one in ciphers if one not in _FAST_CIPHERS]
        said.append(f"Ciphers={','.join([*_FAST_CIPHERS, *rest])}")
    if not interactive:
        said.append("BatchMode=yes")
    if settings.get("stricthostkeychecking") in _UNCHECKED:
        said.append("StrictHostKeyChecking=yes")
    if settings.get("serveraliveinterval", "0") == "0":
        said += ["ServerAliveInterval=5", "ServerAliveCountMax=3"]
    theirs = settings.get("connecttimeout", "none")
    if not theirs.isdigit() or not 0 < int(theirs) <= connect_deadline_s:
        said.append(f"ConnectTimeout={math.ceil(connect_deadline_s)}")
    return session_options(settings) + [word for option in said for word in ("-o", option)]
