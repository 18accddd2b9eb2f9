"""Certificates that a server makes for itself, told apart by fingerprints as ssh's host keys are."""

from __future__ import annotations

import datetime as dt
import hashlib
import ipaddress
import os
import ssl
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

    from cryptography import x509

__all__ = ["ensure_certificate", "fingerprint_of_file", "normal_fingerprint", "pinned_certificate", "server_context"]

YEARS = 5
_HEX_DIGITS = 64


def ensure_certificate(directory: str, names: Sequence[str], now: dt.datetime) -> tuple[str, str]:
    """The paths of a certificate and its key in a directory; made (the key mode 0600) where there is none.

    Args:
        directory: for nobody else to read.
        names: names and addresses that it is for.
        now: in UTC.
    """
    cert, key = os.path.join(directory, "cert.pem"), os.path.join(directory, "key.pem")
    if not (os.path.exists(cert) and os.path.exists(key)):
        _make(cert, key, names, now)
    return cert, key


def _make(cert: str, key: str, names: Sequence[str], now: dt.datetime) -> None:
    from cryptography import x509  # noqa: PLC0415 - slow to import, and only the first start needs it
    from cryptography.hazmat.primitives import hashes, serialization  # noqa: PLC0415 - the same
    from cryptography.hazmat.primitives.asymmetric import ec  # noqa: PLC0415 - the same
    from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID  # noqa: PLC0415 - the same

    private = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, names[0][:64])])
    usage = x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH])
    made = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(subject)
        .public_key(private.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - dt.timedelta(days=1))
        .not_valid_after(now + dt.timedelta(days=365 * YEARS))
        .add_extension(x509.SubjectAlternativeName([_general_name(name) for name in names]), critical=False)
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(usage, critical=False)
        .sign(private, hashes.SHA256())
    )
    secret = private.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    for path, data in ((key, secret), (cert, made.public_bytes(serialization.Encoding.PEM))):
        fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
        with os.fdopen(fd, "wb") as file:
            file.write(data)


def _general_name(name: str) -> x509.GeneralName:
    from cryptography import x509  # noqa: PLC0415 - see `_make`

    try:
        return x509.IPAddress(ipaddress.ip_address(name))
    except ValueError:
        return x509.DNSName(name)


def pinned_certificate(name: str, wall: float) -> dict[str, str]:
    """A certificate that all who talk to each other show, and compare: whoever has its key is one of them.

    Args:
        name: for people.
        wall: seconds since the epoch.

    Returns:
        ``cert`` and ``key`` in PEM; they are not written anywhere.
    """
    from cryptography import x509  # noqa: PLC0415 - see `_make`
    from cryptography.hazmat.primitives import hashes, serialization  # noqa: PLC0415 - the same
    from cryptography.hazmat.primitives.asymmetric import ec  # noqa: PLC0415 - the same

    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, name[:64])])
    now, day = dt.datetime.fromtimestamp(wall, dt.UTC), dt.timedelta(days=1)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - 30 * day)  # clocks of nodes may be wrong; it dies with the run anyway
        .not_valid_after(now + 365 * day)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .sign(key, hashes.SHA256())
    )
    pem, plain = serialization.Encoding.PEM, serialization.NoEncryption()
    return {
        "cert": certificate.public_bytes(pem).decode(),
        "key": key.private_bytes(pem, serialization.PrivateFormat.PKCS8, plain).decode(),
    }


def server_context(cert: str, key: str) -> ssl.SSLContext:
    """What a server talks TLS with: 1.2 at least."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.load_cert_chain(cert, key)
    return context


def fingerprint_of_file(cert: str) -> str:
    """The SHA-256 of the first certificate in a PEM file, in hexadecimal."""
    with open(cert, encoding="ascii") as file:
        text = file.read()
    end = "-----END CERTIFICATE-----"
    first = text[text.index("-----BEGIN CERTIFICATE-----") : text.index(end) + len(end)]
    return hashlib.sha256(ssl.PEM_cert_to_DER_cert(first)).hexdigest()


def normal_fingerprint(text: str) -> str:
    """A fingerprint as it is compared: 64 hexadecimal digits; written with ``sha256:`` and colons too.

    Raises:
        ValueError: it is none.
    """
    found = text.strip().lower().removeprefix("sha256:").replace(":", "")
    if len(found) != _HEX_DIGITS or not set(found) <= set("0123456789abcdef"):
        raise ValueError("a fingerprint has 64 hexadecimal digits")
    return found
