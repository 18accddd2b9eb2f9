"""What OpenSSH's tools print, read by pure functions: ``ssh -G``, ``ssh-add -L``, ``ssh-keygen -L`` and ``-y``."""

from __future__ import annotations

import base64
import binascii
import hashlib
import re
import shlex
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

_KEY_LINE = re.compile(r"((?:ssh|ecdsa|sk-ssh|sk-ecdsa|webauthn)-[\w@.-]+) ([A-Za-z0-9+/]{16,}={0,2})(?: (.*))?")
_CERTIFICATE = re.compile(r"-cert-v\d\d@openssh\.com$")
_FIELD = re.compile(r"^ {8}([A-Z][A-Za-z ]+): ?(.*)$")
_VALID = re.compile(r"(?:from|after) (\S+)|(?:to|before) (\S+)")
# "IdentityFile ~/.ssh/x", 'IdentityFile="~/my key"': one keyword, an equals sign or blanks, its value.
_CONFIG_LINE = re.compile(r"^\s*([A-Za-z][A-Za-z0-9]*)(?:\s*=\s*|\s+)(.*?)\s*$")


@dataclass(frozen=True, slots=True)
class PublicKey:
    """A public key or a certificate, of an agent or a file.

    Attributes:
        kind: such as ``ssh-ed25519``.
        blob: in base64.
        comment: what its maker wrote beside it.
    """

    kind: str
    blob: str
    comment: str

    @property
    def line(self) -> str:
        """As a file has it."""
        return f"{self.kind} {self.blob} {self.comment}".rstrip()

    @property
    def is_certificate(self) -> bool:
        """Whether a certificate is around the key."""
        return _CERTIFICATE.search(self.kind) is not None

    @property
    def is_fido(self) -> bool:
        """Whether a security key signs."""
        return self.kind.startswith("sk-")

    @property
    def fingerprint(self) -> str:
        """As ``ssh-keygen -l`` prints it for a plain key."""
        digest = hashlib.sha256(base64.b64decode(self.blob)).digest()
        return "SHA256:" + base64.b64encode(digest).decode().rstrip("=")


def read_public_keys(text: str) -> list[PublicKey]:
    """The keys of ``ssh-add -L``, of ``ssh-keygen -y`` or of a ``.pub`` file; other lines are passed over."""
    keys = []
    for line in text.splitlines():
        match = _KEY_LINE.fullmatch(line.strip())
        if match:
            try:
                base64.b64decode(match[2], validate=True)
            except binascii.Error:
                continue
            keys.append(PublicKey(match[1], match[2], (match[3] or "").strip()))
    return keys


def read_fingerprint(text: str) -> str | None:
    """The fingerprint in a line of ``ssh-keygen -l``."""
    match = re.search(r"^\d+ (SHA256:\S+) ", text, re.MULTILINE)
    return match[1] if match else None


@dataclass(frozen=True, slots=True)
class Certificate:
    """What ``ssh-keygen -L`` says of a certificate.

    Attributes:
        for_user: and not for a host.
        key_fingerprint: of the key it is about.
        name: its key id.
        valid_from: seconds since the epoch; None from ever.
        valid_to: the same; None for ever.
        principals: whom it may log in as.
        critical: options that the host must obey, such as ``force-command /bin/x``.
    """

    for_user: bool
    key_fingerprint: str
    name: str
    valid_from: float | None
    valid_to: float | None
    principals: tuple[str, ...]
    critical: tuple[str, ...]


def read_certificates(text: str) -> list[Certificate]:
    """The certificates that ``TZ=UTC ssh-keygen -L`` prints."""
    found: list[dict[str, list[str]]] = []
    values: list[str] = []
    for line in text.splitlines():
        match = _FIELD.match(line)
        if match:
            if match[1] == "Type":
                found.append({})
            values = [match[2].strip()] if match[2].strip() else []
            if found:
                found[-1][match[1]] = values
        elif line.startswith(" " * 16):
            values.append(line.strip())
    return [_certificate(one) for one in found]


def _certificate(said: Mapping[str, list[str]]) -> Certificate:
    def first(name: str) -> str:
        return (said.get(name) or [""])[0]

    def several(name: str) -> tuple[str, ...]:
        return tuple(one for one in said.get(name, []) if one != "(none)")

    valid_from = valid_to = None
    for began, ended in _VALID.findall(first("Valid")):
        valid_from = _instant(began) if began else valid_from
        valid_to = _instant(ended) if ended else valid_to
    fingerprint = re.search(r"SHA256:\S+", first("Public key"))
    return Certificate(
        for_user="host certificate" not in first("Type"),
        key_fingerprint=fingerprint[0] if fingerprint else "",
        name=first("Key ID").strip('"'),
        valid_from=valid_from,
        valid_to=valid_to,
        principals=several("Principals"),
        critical=several("Critical Options"),
    )


def _instant(text: str) -> float | None:
    try:
        return datetime.fromisoformat(text).replace(tzinfo=UTC).timestamp()
    except ValueError:
        return None


def why_no_key(stderr: str) -> str:
    """What ``ssh-keygen -y -P ''`` says of a file that gives no key: ``passphrase``, ``permissions``, or ``format``."""
    if "incorrect passphrase" in stderr:
        return "passphrase"
    if "bad permissions" in stderr or "UNPROTECTED" in stderr:
        return "permissions"
    return "format"


@dataclass(frozen=True, slots=True)
class ClientConfig:
    """What ``ssh -G`` says about credentials for a host.

    Attributes:
        user: the name at the host.
        host_name: what is connected to.
        identity_files: as written, ``~`` and ``%`` not expanded.
        certificate_files: the same.
        identities_only: whether an agent's other keys are left out.
        identity_agent: a path, ``none``, a variable's name (``SSH_AUTH_SOCK`` or ``$NAME``); None when not said.
    """

    user: str
    host_name: str
    identity_files: tuple[str, ...]
    certificate_files: tuple[str, ...]
    identities_only: bool
    identity_agent: str | None


def read_client_config(text: str) -> ClientConfig:
    """Reads what ``ssh -G`` prints."""
    several: dict[str, list[str]] = {}
    for line in text.splitlines():
        name, _, value = line.partition(" ")
        several.setdefault(name.lower(), []).append(value.strip())

    def first(name: str) -> str | None:
        return several[name][0] if name in several else None

    return ClientConfig(
        user=first("user") or "",
        host_name=first("hostname") or "",
        identity_files=tuple(several.get("identityfile", ())),
        certificate_files=tuple(several.get("certificatefile", ())),
        identities_only=first("identitiesonly") == "yes",
        identity_agent=first("identityagent"),
    )


@dataclass(frozen=True, slots=True)
class ConfigLine:
    """A line of an ssh_config that names a file.

    Attributes:
        keyword: ``identityfile``, ``certificatefile`` or ``include``.
        value: as written, without quotes.
        block: the ``Host`` or ``Match`` line above it; empty at the top.
    """

    keyword: str
    value: str
    block: str


def read_config_lines(text: str) -> list[ConfigLine]:
    """The lines of an ssh_config that name keys, certificates and further files, whatever host they are for."""
    found, block = [], ""
    for line in text.splitlines():
        match = _CONFIG_LINE.match(line)
        if not match:
            continue
        keyword = match[1].lower()
        if keyword in {"host", "match"}:
            block = f"{match[1].capitalize()} {match[2]}"
        elif keyword in {"identityfile", "certificatefile", "include"}:
            try:
                values = shlex.split(match[2], comments=True)
            except ValueError:
                continue  # ssh says so itself
            found += [ConfigLine(keyword, value, block) for value in values]
    return found


def expanded(path: str, tokens: Mapping[str, str], variable: Callable[[str], str | None]) -> str | None:
    """A path of ssh_config with its ``%`` tokens and ``${VARIABLES}``; None where one of them is not known here.

    Args:
        path: as written.
        tokens: what ``%h`` and the like stand for, by letter.
        variable: what an environment variable says.
    """
    whole = True

    def fill(match: re.Match[str]) -> str:
        nonlocal whole
        value = variable(match[2]) if match[2] else tokens.get(match[1])
        whole = whole and value is not None
        return value or ""

    result = re.sub(r"%(.)|\$\{(\w+)\}", fill, path)
    return result if whole else None
