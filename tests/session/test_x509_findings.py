"""X.509 proxies and certificates, made for the test and out of order in each way."""

from __future__ import annotations

import datetime as dt
import subprocess
from typing import TYPE_CHECKING

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from serai.session.context import Context
from serai.session.finding import Finding, State, Surroundings, find

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    Around = Callable[..., Surroundings]
    Key = ec.EllipticCurvePrivateKey

NOW = dt.datetime.fromtimestamp(1_800_000_000, dt.UTC)
HOUR = dt.timedelta(hours=1)
PROXY_INFO = x509.UnrecognizedExtension(x509.ObjectIdentifier("1.3.6.1.5.5.7.1.14"), b"0\x00")


def name(*common: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, one) for one in common])


def certificate(
    subject: x509.Name, key: Key, issuer: x509.Name, by: Key, *, proxy: bool = False, begins: int = -1, ends: int = 12
) -> x509.Certificate:
    builder = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(key.public_key())
        .serial_number(7)
        .not_valid_before(NOW + begins * HOUR)
        .not_valid_after(NOW + ends * HOUR)
    )
    if proxy:
        builder = builder.add_extension(PROXY_INFO, critical=True)
    return builder.sign(by, hashes.SHA256())


def pem(*parts: x509.Certificate | Key, passphrase: bytes = b"") -> bytes:
    text = b""
    for part in parts:
        if isinstance(part, x509.Certificate):
            text += part.public_bytes(serialization.Encoding.PEM)
        else:
            lock = serialization.BestAvailableEncryption(passphrase) if passphrase else serialization.NoEncryption()
            text += part.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.TraditionalOpenSSL, lock)
    return text


class World:
    """An authority's user with a proxy."""

    def __init__(self) -> None:
        self.user_key, self.proxy_key, ca_key = (ec.generate_private_key(ec.SECP256R1()) for _ in range(3))
        self.user = certificate(name("grid", "Ada"), self.user_key, name("CA"), ca_key, ends=1000)

    def proxy(self, **options: int) -> x509.Certificate:
        return certificate(
            name("grid", "Ada", "123"), self.proxy_key, self.user.subject, self.user_key, proxy=True, **options
        )


@pytest.fixture(scope="module")
def world() -> World:
    return World()


@pytest.fixture
def look(around: Around, home: Path) -> Callable[..., Finding]:
    def write(text: bytes, mode: int = 0o600) -> Finding:
        path = home / "proxy"
        path.write_bytes(text)
        path.chmod(mode)
        [found] = find([Context("x509")], around(X509_USER_PROXY=str(path), X509_CERT_DIR=str(home)))
        assert "PRIVATE" not in repr(found)
        return found

    return write


def test_a_proxy_that_can_be_used(world: World, look: Callable[..., Finding], home: Path) -> None:
    found = look(pem(world.proxy(), world.proxy_key, world.user))
    assert found.state is State.USABLE
    assert found.reasons == ("CN=Ada,CN=grid", "proxy of depth 1")
    assert found.expires == 1_800_000_000 + 12 * 3600
    assert found.context == Context("x509", proxy=str(home / "proxy"), ca=str(home))


def test_proxies_that_cannot_be_used(world: World, look: Callable[..., Finding]) -> None:
    key, user, good = world.proxy_key, world.user, world.proxy()
    for text, said in (
        (pem(world.proxy(ends=0), key, user), "it has expired: CN=Ada,CN=grid"),
        (pem(world.proxy(begins=1), key, user), "not valid yet"),
        (pem(good, world.user_key, user), "the private key is not the certificate's"),
        (pem(good, user), "there is no private key"),
        (pem(good, key), "certificate that signed the proxy is missing"),
        (pem(good, key, certificate(user.subject, key, name("CA"), key)), "was not signed by the certificate"),
        (b"nothing of the kind", "no certificate in it"),
    ):
        found = look(text)
        assert (found.state, said in found.reasons[0]) == (State.UNUSABLE, True), (said, found)
    found = look(pem(good, key, user), 0o640)
    assert found.state is State.UNUSABLE
    assert "mode 0640" in found.reasons[0]
    assert str(found.hint).startswith("chmod 600 ")


def test_a_proxy_that_is_not_there(around: Around) -> None:
    [found] = find([Context("x509")], around(X509_USER_PROXY="/none-such"))
    assert found.state is State.UNUSABLE
    assert "No such file" in found.reasons[0]


def test_a_users_certificate(world: World, around: Around, home: Path) -> None:
    (home / ".globus").mkdir()
    (home / ".globus/usercert.pem").write_bytes(pem(world.user))
    key = home / ".globus/userkey.pem"
    key.touch(0o600)
    here = around(X509_USER_PROXY="/none-such")
    for text, state, said in (
        (pem(world.user_key), State.USABLE, "CN=Ada,CN=grid"),
        (pem(world.user_key, passphrase=b"hunter2"), State.UNUSABLE, "passphrase"),
    ):
        key.write_bytes(text)
        found = find([Context("x509")], here)[1]
        assert (found.name, found.state) == ("~/.globus/usercert.pem", state)
        assert said in found.reasons[0]
        assert found.context is not None
        assert found.context.key == str(key)
    assert "no directory of authorities" not in repr(found)


def test_a_certificate_made_by_openssl(around: Around, home: Path) -> None:
    cert, key = home / "c.pem", home / "k.pem"
    words = ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes"]
    words += ["-days", "9999", "-subj", "/CN=me"]
    subprocess.run([*words, "-keyout", key, "-out", cert], check=True, capture_output=True, timeout=30)
    key.chmod(0o400)
    [found] = find([Context("x509", cert=str(cert), key=str(key))], around())
    assert (found.state, found.reasons[0]) == (State.USABLE, "CN=me")
