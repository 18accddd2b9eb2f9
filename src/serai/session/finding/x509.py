"""Finding X.509 proxies and certificates, as Globus and grid programs use them (RFC 3820)."""

from __future__ import annotations

import itertools
import os
import shlex
import stat
from typing import TYPE_CHECKING

from serai.session.context import Context
from serai.session.finding.report import Finding, State

if TYPE_CHECKING:
    from cryptography.x509 import Certificate

    from serai.session.finding.report import Surroundings

_PROXY_INFO = "1.3.6.1.5.5.7.1.14"  # the extension that makes a certificate a proxy, RFC 3820 section 3.8
_AUTHORITIES = "/etc/grid-security/certificates"
_LARGEST_BYTES = 1_000_000
_NEW_PROXY = "make a new one: grid-proxy-init, voms-proxy-init or myproxy-logon"
_LOCKED = "its key has a passphrase, so it needs a terminal"
_NO_LIBRARY = "the library that reads certificates is not installed"


def find_x509(context: Context, around: Surroundings) -> list[Finding]:
    """The proxy (``$X509_USER_PROXY``, ``/tmp/x509up_u<uid>``) and the certificate (``~/.globus``) of the user.

    Args:
        context: names a proxy, or a certificate and its key, or nothing: then both are looked for.
        around: where to look.
    """
    environment, home = around.environment, os.path.join(around.environment.get("HOME") or around.home, ".globus")
    named = context.proxy or environment.get("X509_USER_PROXY")
    found = []
    if context.proxy or context.cert is None:
        path = around.at_home(named or f"/tmp/x509up_u{around.uid}")  # noqa: S108 - where RFC 3820's programs put it
        source = "context" if context.proxy else "X509_USER_PROXY" if named else "default"
        if named or os.path.lexists(path):
            found.append(_look(context, around, path, None, source))
    if context.proxy is None:
        given = context.cert or environment.get("X509_USER_CERT")
        cert = around.at_home(given or os.path.join(home, "usercert.pem"))
        key = around.at_home(context.key or environment.get("X509_USER_KEY") or os.path.join(home, "userkey.pem"))
        source = "context" if context.cert else "X509_USER_CERT" if given else "default"
        if given or os.path.exists(cert):
            found.append(_look(context, around, cert, key, source))
    return found


def _look(context: Context, around: Surroundings, path: str, key_path: str | None, source: str) -> Finding:
    """Looks at a certificate; a proxy's file holds its key too (``key_path`` is None then)."""
    secret = key_path or path
    name = around.short(path)
    ca = context.ca or around.environment.get("X509_CERT_DIR") or _AUTHORITIES
    used = Context(
        "x509",
        proxy=None if key_path else path,
        cert=path if key_path else None,
        key=key_path,
        ca=ca if os.path.isdir(around.at_home(ca)) else None,
    )

    state, reasons, hint, expires = _judge_files(path, secret, around, is_proxy_file=key_path is None)
    if state is State.USABLE and used.ca is None:
        reasons = (*reasons, f"no directory of authorities ({around.short(ca)}), so no server can be checked")
    return Finding("x509", name, source, state, reasons, hint, expires, used)


def _judge_files(
    path: str, secret: str, around: Surroundings, *, is_proxy_file: bool
) -> tuple[State, tuple[str, ...], str | None, float | None]:
    trouble = _trouble_of_file(secret, around)
    if trouble is not None:
        return State.UNUSABLE, (trouble[0],), trouble[1], None
    again = _NEW_PROXY if is_proxy_file else "have it renewed by who signed it"
    try:
        with open(path, "rb") as file:
            chain = read_chain(file.read(_LARGEST_BYTES))
        with open(secret, "rb") as file:
            locked = key_fits(file.read(_LARGEST_BYTES), chain[0])
    except OSError as error:
        return State.UNUSABLE, (f"{around.short(path)} cannot be read: {error.strerror}",), None, None
    except ImportError:
        return State.UNKNOWN, (_NO_LIBRARY,), "pip install cryptography", None
    except ValueError:
        return State.UNUSABLE, ("there is no certificate in it",), again, None
    expires = min(one.not_valid_after_utc.timestamp() for one in chain)
    why = judge_chain(chain, around.now) or locked
    if why is not None:
        return State.UNUSABLE, (why,), _NEW_PROXY if why == _LOCKED else again, expires
    depth = sum(is_proxy(one) for one in chain)
    return State.USABLE, (identity(chain), *([f"proxy of depth {depth}"] if depth else [])), None, expires


def judge_chain(chain: list[Certificate], now: float) -> str | None:
    """Why a chain cannot be used; None where nothing stands against it.

    Args:
        chain: as of `read_chain`.
        now: seconds since the epoch.
    """
    if now >= min(one.not_valid_after_utc.timestamp() for one in chain):
        return f"it has expired: {identity(chain)}"
    if now < max(one.not_valid_before_utc.timestamp() for one in chain):
        return "it is not valid yet"
    return _broken(chain)


def read_chain(text: bytes) -> list[Certificate]:
    """The certificates in a file, that of the user or the proxy first; keys among them are passed over.

    Raises:
        ValueError: there are none.
        ImportError: the library ``cryptography`` is missing.
    """
    from cryptography.x509 import load_pem_x509_certificates  # noqa: PLC0415 - heavy, and seldom needed

    return load_pem_x509_certificates(text)


def is_proxy(certificate: Certificate) -> bool:
    """Whether it is a proxy: by its extension, or by its name as in Globus's first ones."""
    if any(one.oid.dotted_string == _PROXY_INFO for one in certificate.extensions):
        return True
    last = list(certificate.subject)[-1:]
    return bool(last) and last[0].value in {"proxy", "limited proxy"} and certificate.issuer != certificate.subject


def identity(chain: list[Certificate]) -> str:
    """Whom the chain speaks for: the subject of the first certificate that is no proxy."""
    owner = next((one for one in chain if not is_proxy(one)), chain[-1])
    return owner.subject.rfc4514_string()


def key_fits(text: bytes, certificate: Certificate) -> str | None:
    """Why a private key cannot be used with a certificate; None where it can."""
    from cryptography.hazmat.primitives.serialization import load_pem_private_key  # noqa: PLC0415 - heavy

    try:
        key = load_pem_private_key(text[max(0, _key_at(text)) :], None)
    except TypeError:
        return _LOCKED
    except ValueError:
        return "there is no private key for it"
    return None if key.public_key() == certificate.public_key() else "the private key is not the certificate's"


def _key_at(text: bytes) -> int:
    """Where the private key begins in a file that holds certificates too."""
    end = text.find(b"PRIVATE KEY-----")
    return text.rfind(b"-----BEGIN ", 0, end) if end >= 0 else -1


def _broken(chain: list[Certificate]) -> str | None:
    """Where a certificate was not signed by the next one, as each proxy must be."""
    from cryptography.exceptions import InvalidSignature  # noqa: PLC0415 - heavy

    for one, by in itertools.pairwise(chain):
        if not is_proxy(one):
            return None  # what follows are the authorities, which a server has
        try:
            one.verify_directly_issued_by(by)
        except (ValueError, TypeError, InvalidSignature):
            return "the proxy was not signed by the certificate that follows it"
    return "the certificate that signed the proxy is missing" if is_proxy(chain[-1]) else None


def _trouble_of_file(path: str, around: Surroundings) -> tuple[str, str | None] | None:
    """What is wrong with the file that holds the key, and what to do; None where nothing is."""
    name = around.short(path)
    try:
        status = os.stat(path)
    except OSError as error:
        return f"{name}: {error.strerror}", None
    if not stat.S_ISREG(status.st_mode):
        return f"{name} is no file", None
    if status.st_uid != around.uid:
        return f"{name} belongs to another user", None
    if stat.S_IMODE(status.st_mode) & 0o077:
        return f"others may read {name} (mode {stat.S_IMODE(status.st_mode):04o})", f"chmod 600 {shlex.quote(path)}"
    return None
