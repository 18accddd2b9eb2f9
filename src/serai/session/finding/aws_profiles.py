"""The files of AWS's programs: profiles, and when the keys that they name end."""

from __future__ import annotations

import base64
import binascii
import configparser
import hashlib
import json
import os
import stat
from dataclasses import dataclass, field
from datetime import datetime
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping

    from serai.session.finding.report import Secret, Surroundings

_LARGEST_BYTES = 4_000_000


@dataclass(frozen=True, slots=True)
class Keys:
    """Keys to sign requests with. Printing them shows nothing secret.

    Attributes:
        key_id: is no secret; the requests carry it.
        secret: what signs.
        token: of temporary keys, None of others.
    """

    key_id: str
    secret: Secret
    token: Secret | None = None


@dataclass(frozen=True, slots=True)
class Profiles:
    """What the two files say; its values hold secrets, so it is not for keeping or showing.

    Attributes:
        paths: the files, whether they are there or not: credentials, config.
        by_name: the profiles, those of the credentials file first; what that one says wins.
        path_of: the file of a profile's keys.
        troubles: files that cannot be read, and why.
        sso_sessions: the ``sso-session`` sections.
        cache: where AWS's programs keep the tokens of single sign-on.
    """

    paths: tuple[str, str]
    by_name: Mapping[str, Mapping[str, str]] = field(repr=False)
    path_of: Mapping[str, str]
    troubles: tuple[tuple[str, str], ...]
    sso_sessions: Mapping[str, Mapping[str, str]] = field(repr=False)
    cache: str

    def open_to_others(self, name: str) -> str:
        """The mode of a profile's file when others may read it, else nothing."""
        mode = stat.S_IMODE(os.stat(self.path_of[name]).st_mode)
        return f"{mode:04o}" if mode & 0o077 else ""

    def sso_expiry(self, profile: Mapping[str, str]) -> float | None:
        """When the token of a profile's single sign-on ends; None where there is no token."""
        session = profile.get("sso_session")
        name = session or profile.get("sso_start_url", "")
        # The name of the file is AWS's choice; nothing is kept secret by it.
        cached = os.path.join(self.cache, hashlib.sha1(name.encode(), usedforsecurity=False).hexdigest() + ".json")
        try:
            with open(cached, "rb") as file:
                said = json.loads(file.read(_LARGEST_BYTES))
        except (OSError, ValueError):
            return None
        return instant(said.get("expiresAt")) if isinstance(said, dict) else None


def read_profiles(around: Surroundings) -> Profiles:
    """Reads the credentials file and the config file."""
    directory = os.path.join(around.environment.get("HOME") or around.home, ".aws")
    credentials, config = (
        around.at_home(around.environment.get(variable) or os.path.join(directory, name))
        for variable, name in (("AWS_SHARED_CREDENTIALS_FILE", "credentials"), ("AWS_CONFIG_FILE", "config"))
    )
    by_name: dict[str, dict[str, str]] = {}
    path_of: dict[str, str] = {}
    sessions: dict[str, Mapping[str, str]] = {}
    troubles = []
    for path, is_config in ((credentials, False), (config, True)):
        sections, why = read_sections(path)
        if why:
            troubles.append((path, why))
        for title, values in sections.items():
            kind, _, rest = title.partition(" ")
            if is_config and kind == "sso-session":
                sessions[rest.strip()] = values
            if is_config and kind != "profile" and title != "default":
                continue
            name = rest.strip().strip('"') if is_config and kind == "profile" else title
            by_name[name] = dict(values) | by_name.get(name, {})
            path_of.setdefault(name, path)
    return Profiles(
        (credentials, config), by_name, path_of, tuple(troubles), sessions, os.path.join(directory, "sso/cache")
    )


def read_sections(path: str) -> tuple[dict[str, dict[str, str]], str | None]:
    """The sections of an INI file, and why it cannot be read; nothing and None where there is no file.

    The reason never repeats a line of the file, since that may be a secret.
    """
    parser = configparser.RawConfigParser(strict=False, default_section="\0", allow_no_value=True)
    try:
        with open(path, encoding="utf-8", errors="replace") as file:
            parser.read_string(file.read(_LARGEST_BYTES))
    except FileNotFoundError:
        return {}, None
    except OSError as error:
        return {}, f"it cannot be read: {error.strerror}"
    except configparser.Error as error:
        line = getattr(error, "lineno", None) or next(iter(getattr(error, "errors", ())), (None,))[0]
        return {}, f"line {line} is not one of an INI file" if line else "it is not an INI file"
    return {title: {k: v for k, v in parser.items(title) if v is not None} for title in parser.sections()}, None


def instant(text: object) -> float | None:
    """Seconds since the epoch of a time such as ``2026-01-02T03:04:05Z``; None where it is none."""
    if not isinstance(text, str) or not text:
        return None
    try:
        at = datetime.fromisoformat(text.strip().replace("UTC", "Z"))
    except ValueError:
        return None
    return at.timestamp() if at.tzinfo else None


def expiry_of_token(path: str) -> float | None:
    """When the JSON web token in a file ends (RFC 7519, ``exp``); None where it does not say.

    Raises:
        OSError: the file cannot be read.
    """
    with open(path, encoding="utf-8", errors="replace") as file:
        parts = file.read(_LARGEST_BYTES).strip().split(".")
    if len(parts) != 3:
        return None
    try:
        claims = json.loads(base64.urlsafe_b64decode(parts[1] + "=" * (-len(parts[1]) % 4)))
    except (ValueError, binascii.Error):
        return None
    ends = claims.get("exp") if isinstance(claims, dict) else None
    return float(ends) if isinstance(ends, int | float) else None
