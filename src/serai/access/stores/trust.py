"""Which stores are known by their certificates' fingerprints, and the tokens for them: files of the user.

``~/.config/serai/known_stores`` has a line for each: ``HOST:PORT sha256:FINGERPRINT``. Tokens are in
``~/.config/serai/stores/HOST_PORT.token``, mode 0600.
"""

from __future__ import annotations

import contextlib
import os
import re
import stat
from typing import TYPE_CHECKING

from serai.access.stores.certificates import normal_fingerprint
from serai.errors import LoginRefused, UsageError

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["config_directory", "forget", "known_fingerprint", "read_token", "remember", "save_token", "token_path"]

LONGEST_TOKEN = 4096


def config_directory(environment: Mapping[str, str]) -> str:
    """The user's own settings: ``$SERAI_CONFIG``, else below ``$XDG_CONFIG_HOME``, else ``~/.config/serai``."""
    if environment.get("SERAI_CONFIG"):
        return environment["SERAI_CONFIG"]
    home = environment.get("HOME") or os.path.expanduser("~")
    return os.path.join(environment.get("XDG_CONFIG_HOME") or os.path.join(home, ".config"), "serai")


def _known(environment: Mapping[str, str]) -> str:
    return os.path.join(config_directory(environment), "known_stores")


def place(host: str, port: int) -> str:
    """A server as it is written: ``host:port``."""
    return f"[{host}]:{port}" if ":" in host else f"{host.lower()}:{port}"


def known_fingerprint(host: str, port: int, environment: Mapping[str, str]) -> str | None:
    """The fingerprint that is remembered for a server; None where there is none."""
    try:
        with open(_known(environment), encoding="utf-8") as file:
            lines = file.read().splitlines()
    except FileNotFoundError:
        return None
    for line in lines:
        words = line.split()
        if len(words) >= 2 and not line.startswith("#") and words[0] == place(host, port):
            try:
                return normal_fingerprint(words[1])
            except ValueError as error:
                raise UsageError(f"{_known(environment)} has a broken line for {words[0]}") from error
    return None


def remember(host: str, port: int, fingerprint: str, environment: Mapping[str, str]) -> None:
    """Write a server's fingerprint down, in place of the one that was there."""
    path = _known(environment)
    os.makedirs(os.path.dirname(path), mode=0o700, exist_ok=True)
    lines: list[str] = []
    with contextlib.suppress(FileNotFoundError), open(path, encoding="utf-8") as file:
        lines = file.read().splitlines()
    kept = [line for line in lines if line.split()[:1] != [place(host, port)]]
    _write(path, "\n".join([*kept, f"{place(host, port)} sha256:{normal_fingerprint(fingerprint)}"]) + "\n")


def forget(host: str, port: int, environment: Mapping[str, str]) -> None:
    """Remember no certificate of a server any more."""
    path = _known(environment)
    with contextlib.suppress(FileNotFoundError):
        with open(path, encoding="utf-8") as file:
            lines = file.read().splitlines()
        kept = [line for line in lines if line.split()[:1] != [place(host, port)]]
        if kept != lines:
            _write(path, "".join(f"{line}\n" for line in kept))


def token_path(host: str, port: int, environment: Mapping[str, str]) -> str:
    """Where the token for a server is."""
    name = re.sub(r"[^a-z0-9._-]", "_", host.lower())
    return os.path.join(config_directory(environment), "stores", f"{name}_{port}.token")


def save_token(path: str, token: str) -> None:
    """Write a token where nobody else reads it."""
    os.makedirs(os.path.dirname(os.path.abspath(path)), mode=0o700, exist_ok=True)
    _write(path, token + "\n")


def read_token(path: str) -> str | None:
    """A token from its file; None where there is no file.

    Raises:
        LoginRefused: others may read the file.
    """
    try:
        with open(path, encoding="ascii", errors="replace") as file:
            if stat.S_IMODE(os.fstat(file.fileno()).st_mode) & 0o077:
                raise LoginRefused(f"others may read the token in {path}", hint=f"chmod 600 {path}")
            token = file.read(LONGEST_TOKEN).strip()
    except FileNotFoundError:
        return None
    if not token.isprintable() or " " in token:
        raise LoginRefused(f"there is no token in {path}")
    return token or None


def _write(path: str, text: str) -> None:
    draft = f"{path}.{os.getpid()}"
    fd = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
    with os.fdopen(fd, "w", encoding="utf-8") as file:
        file.write(text)
    os.replace(draft, path)
