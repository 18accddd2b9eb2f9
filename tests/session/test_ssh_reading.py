"""What OpenSSH's tools print, as they really do, and what is read out of it."""

from __future__ import annotations

import base64

import pytest
from hypothesis import given
from hypothesis import strategies as st

from serai.session.finding.report import State
from serai.session.finding.ssh_judging import judge_certificate, judge_key
from serai.session.finding.ssh_reading import (
    expanded,
    read_certificates,
    read_client_config,
    read_config_lines,
    read_fingerprint,
    read_public_keys,
    why_no_key,
)

CERTIFICATE = """a-cert.pub:
        Type: ssh-ed25519-cert-v01@openssh.com user certificate
        Public key: ED25519-CERT SHA256:OJ7ZoWWAwDS1zr1BoYIBo/35Ulb/719dHzy82VT9/jo
        Signing CA: ED25519 SHA256:gnk9v9AbOFYGpo1b0mEcDEjl0q2YN+Y+rX/OOYSBQgw (using ssh-ed25519)
        Key ID: "id one"
        Serial: 0
        Valid: from 2020-01-01T00:00:00 to 2020-01-02T00:00:00
        Principals: 
                root
                me
        Critical Options: 
                force-command /bin/x
                source-address 10.0.0.0/8
        Extensions: 
                permit-pty
(stdin):2:
        Type: ssh-ed25519-cert-v01@openssh.com host certificate
        Public key: ED25519-CERT SHA256:OJ7ZoWWAwDS1zr1BoYIBo/35Ulb/719dHzy82VT9/jo
        Signing CA: ED25519 SHA256:gnk9v9AbOFYGpo1b0mEcDEjl0q2YN+Y+rX/OOYSBQgw (using ssh-ed25519)
        Key ID: "forever"
        Serial: 0
        Valid: VALID
        Principals: (none)
        Critical Options: (none)
        Extensions: (none)
"""  # noqa: W291 - ssh-keygen leaves these blanks
AGENT = (
    "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIMldpmaYRmQVZPFXnUCt93wWlHwbFyyM0i7Yy3tyITr1 a key of mine\n"
    "ssh-ed25519-cert-v01@openssh.com AAAAIHNzaC1lZDI1NTE5LWNlcnQtdjAxQG9wZW5zc2guY29t a\n"
    "The agent has no identities.\n"
)
YEAR_2020, DAY_S = 1577836800.0, 86400.0


def test_an_agents_keys_are_read() -> None:
    plain, certificate = read_public_keys(AGENT)
    assert plain.fingerprint == "SHA256:OJ7ZoWWAwDS1zr1BoYIBo/35Ulb/719dHzy82VT9/jo"
    assert (plain.kind, plain.comment, plain.is_certificate, plain.is_fido) == (
        "ssh-ed25519", "a key of mine", False, False
    )  # fmt: skip
    assert certificate.is_certificate
    assert plain.line + "\n" == AGENT.splitlines(keepends=True)[0]


@given(st.text(max_size=300))
def test_any_text_can_be_read_for_keys(text: str) -> None:
    for key in read_public_keys(text):
        assert key.fingerprint.startswith("SHA256:")
    read_certificates(text)
    read_client_config(text)
    read_config_lines(text)


@given(st.binary(min_size=16, max_size=80), st.text(st.characters(categories=["L", "N"]), max_size=20))
def test_what_is_written_is_read(blob: bytes, comment: str) -> None:
    line = f"sk-ssh-ed25519@openssh.com {base64.b64encode(blob).decode()} {comment}".rstrip()
    [key] = read_public_keys(line + "\n")
    assert (key.line, key.is_fido) == (line, True)


def test_fingerprints_are_read() -> None:
    said = "256 SHA256:OJ7ZoWWAwDS1zr1BoYIBo/35Ulb/719dHzy82VT9/jo a (ED25519)\n"
    assert read_fingerprint(said) == "SHA256:OJ7ZoWWAwDS1zr1BoYIBo/35Ulb/719dHzy82VT9/jo"
    assert read_fingerprint("pem is not a key file.\n") is None


@pytest.mark.parametrize(
    ("valid", "begins", "ends"),
    [
        ("forever", None, None),
        ("before 2020-01-01T00:00:00", None, YEAR_2020),
        ("after 2020-01-01T00:00:00", YEAR_2020, None),
        ("from 2020-01-01T00:00:00 to 2020-01-02T00:00:00", YEAR_2020, YEAR_2020 + DAY_S),
    ],
)
def test_certificates_are_read(valid: str, begins: float | None, ends: float | None) -> None:
    user, host = read_certificates(CERTIFICATE.replace("VALID", valid))
    assert (user.for_user, user.name, user.principals) == (True, "id one", ("root", "me"))
    assert user.critical == ("force-command /bin/x", "source-address 10.0.0.0/8")
    assert user.key_fingerprint == "SHA256:OJ7ZoWWAwDS1zr1BoYIBo/35Ulb/719dHzy82VT9/jo"
    assert (host.for_user, host.principals, host.critical) == (False, (), ())
    assert (host.valid_from, host.valid_to) == (begins, ends)


@pytest.mark.parametrize(
    ("now", "user", "key", "state", "said"),
    [
        (YEAR_2020 + 1, "root", State.USABLE, State.USABLE, "force-command"),
        (YEAR_2020 - 1, "root", State.USABLE, State.UNUSABLE, "not valid before 2020-01-01 00:00 UTC"),
        (YEAR_2020 + DAY_S, "root", State.USABLE, State.UNUSABLE, "expired 2020-01-02 00:00 UTC"),
        (YEAR_2020 + 1, "you", State.USABLE, State.UNKNOWN, "for root, me, not for you"),
        (YEAR_2020 + 1, None, None, State.UNUSABLE, "private key was not found"),
        (YEAR_2020 + 1, None, State.UNUSABLE, State.UNUSABLE, "private key cannot be used"),
        (YEAR_2020 + 1, None, State.UNKNOWN, State.UNKNOWN, "force-command"),
    ],
)
def test_certificates_are_judged(now: float, user: str | None, key: State | None, state: State, said: str) -> None:
    certificate = read_certificates(CERTIFICATE)[0]
    judged = judge_certificate(certificate, now=now, user=user, key=key)
    assert judged[0] is state
    assert said in " ".join(judged[1])


@pytest.mark.parametrize(
    ("said", "why"),
    [
        ('Load key "enc": incorrect passphrase supplied to decrypt private key\n', "passphrase"),
        ("Permissions 0644 for 'open' are too open.\nLoad key \"open\": bad permissions\n", "permissions"),
        ('Load key "junk": error in libcrypto\n', "format"),
        ('Load key "junk": invalid format\n', "format"),
    ],
)
def test_why_a_file_gives_no_key(said: str, why: str) -> None:
    assert why_no_key(said) == why


def test_a_security_key_must_be_touched() -> None:
    assert judge_key("k", None, "", held=False, agent=False, fido=True)[0] is State.UNKNOWN
    assert judge_key("k", None, "", held=True, agent=True, fido=True)[0] is State.UNKNOWN


def test_what_ssh_says_about_a_host_is_read() -> None:
    text = (
        "user me\nhostname 10.0.0.1\nidentitiesonly yes\nidentityfile ~/.ssh/a b\nidentityfile /c\n"
        "identityagent $MY_SOCK\ncertificatefile /d\n"
    )
    config = read_client_config(text)
    assert (config.user, config.host_name, config.identities_only) == ("me", "10.0.0.1", True)
    assert (config.identity_files, config.certificate_files) == (("~/.ssh/a b", "/c"), ("/d",))
    assert config.identity_agent == "$MY_SOCK"


def test_lines_of_a_config_are_read_whatever_host_they_are_for() -> None:
    text = (
        'Include ~/.ssh/*.conf /etc/x\n IdentityFile=/a # mine\nhost lab *.lab\n\tidentityfile "/b c"\n'
        "Match user me\n  CertificateFile /d\n# IdentityFile /no\nUser me\n"
    )
    found = [(line.keyword, line.value, line.block) for line in read_config_lines(text)]
    assert found == [
        ("include", "~/.ssh/*.conf", ""),
        ("include", "/etc/x", ""),
        ("identityfile", "/a", ""),
        ("identityfile", "/b c", "Host lab *.lab"),
        ("certificatefile", "/d", "Match user me"),
    ]


@pytest.mark.parametrize(
    ("path", "whole"),
    [("~/x", "~/x"), ("%d/%%/%h", "/home/me/%/lab"), ("${X}/k", "x/k"), ("%z", None), ("${NO}", None), ("50%", "50%")],
)
def test_tokens_are_filled_in(path: str, whole: str | None) -> None:
    assert expanded(path, {"d": "/home/me", "h": "lab", "%": "%"}, {"X": "x"}.get) == whole
