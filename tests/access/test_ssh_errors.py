"""What ssh says and what it means. The first half asks a real ssh; the second holds what needs networks to happen."""

from __future__ import annotations

import re
import socket
import subprocess
from typing import TYPE_CHECKING

import pytest

from serai.access.ssh_errors import FAILED, explain, is_carrier
from serai.errors import AccessError, HostKeyRefused, HostUnknown, HostUnreachable, LoginRefused, NoPython

if TYPE_CHECKING:
    from pathlib import Path

    from tests.access.conftest import Sshd


def said(config: object, *words: str, host: str = "lab", command: str = "true") -> AccessError:
    """What a real ssh's failure is explained as."""
    argv = ["ssh", "-F", str(config), "-o", "BatchMode=yes", *words, host, command]
    done = subprocess.run(
        argv, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=60, check=False, start_new_session=True
    )
    assert done.returncode != 0
    error = explain(host, done.stderr, done.returncode, " ".join(argv))
    assert (error.host, error.command) == (host, " ".join(argv))
    assert error.hint
    return error


def test_a_name_that_cannot_be_resolved(lab: Sshd) -> None:
    error = said(lab.config, host="a..b")
    assert isinstance(error, HostUnknown)
    assert not error.transient
    assert error.what.startswith("the name a..b is not known: ")


def test_a_refused_port(lab: Sshd) -> None:
    port = lab.free_port()
    error = said(lab.config_with("", (f"Port {lab.port}", f"Port {port}")))
    assert isinstance(error, HostUnreachable)
    assert error.what == f"127.0.0.1 refuses connections on port {port}"


def test_a_host_behind_a_jump_that_is_down(lab: Sshd, tmp_path: Path) -> None:
    config = tmp_path / "config"
    config.write_text(lab.host("jump") + f"Host lab\n HostName 127.0.0.1\n Port {lab.free_port()}\n ProxyJump jump\n")
    error = said(config)
    assert isinstance(error, HostUnreachable)
    assert error.what == "the jump host cannot reach it: connect failed: Connection refused"


def test_a_jump_host_whose_key_is_not_known(lab: Sshd, tmp_path: Path) -> None:
    jump = lab.host("jump").replace(str(lab.known_hosts), str(tmp_path / "nobody"))
    (tmp_path / "config").write_text(jump + lab.host("lab", "  ProxyJump jump\n"))
    error = said(tmp_path / "config")
    assert isinstance(error, HostKeyRefused)
    assert "jump host" in error.what


def test_a_proxy_command_that_is_missing(lab: Sshd) -> None:
    error = said(lab.config, "-o", "ProxyCommand=no-such-program")
    assert isinstance(error, HostUnreachable)
    assert error.what == "the connection is gone"


def test_a_port_that_takes_connections_and_says_nothing(lab: Sshd) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        port = silent.getsockname()[1]
        error = said(lab.config_with("  ConnectTimeout 1\n", (f"Port {lab.port}", f"Port {port}")))
    assert isinstance(error, HostUnreachable)
    assert "did not answer" in error.what


def test_a_port_that_is_no_ssh_server_and_hangs_up(lab: Sshd) -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        config = lab.config_with("", (f"Port {lab.port}", f"Port {other.getsockname()[1]}"))
        argv = ["ssh", "-F", config, "-o", "BatchMode=yes", "lab", "true"]
        with subprocess.Popen(argv, stdin=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True) as ssh:
            other.accept()[0].close()
            _, stderr = ssh.communicate(timeout=60)
    error = explain("lab", stderr, ssh.returncode, "ssh lab")
    assert isinstance(error, HostUnreachable)
    assert error.what.startswith("the host closed the connection: ")


def test_a_revoked_host_key(lab: Sshd) -> None:
    error = said(lab.config, "-o", f"RevokedHostKeys={lab.host_key}.pub")
    assert isinstance(error, HostKeyRefused)
    assert "revoked" in error.what


def test_a_key_that_is_not_accepted(lab: Sshd, tmp_path: Path) -> None:
    error = said(lab.config_with("", (lab.key, lab.new_key(tmp_path / "other"))))
    assert isinstance(error, LoginRefused)
    assert re.fullmatch(r"no credential was accepted for \S+@127\.0\.0\.1; the host takes publickey", error.what)
    assert error.tried == ()


def test_a_private_key_that_others_can_read_is_named(lab: Sshd, tmp_path: Path) -> None:
    open_key = tmp_path / "open"
    open_key.write_text(lab.key.read_text())
    open_key.chmod(0o644)
    error = said(lab.config_with("", (lab.key, open_key)))
    assert isinstance(error, LoginRefused)
    assert f'Load key "{open_key}": bad permissions' in error.tried


def test_too_many_keys(second: Sshd, tmp_path: Path) -> None:
    keys = [second.new_key(tmp_path / f"k{number}") for number in range(3)]
    config = second.config_with(
        "".join(f"  IdentityFile {key}\n" for key in keys), (f"  IdentityFile {second.key}\n", "")
    )
    error = said(config)
    assert isinstance(error, LoginRefused)
    assert "IdentitiesOnly" in str(error.hint)


def test_no_algorithm_in_common(second: Sshd) -> None:
    error = said(second.config, "-o", "Ciphers=aes128-ctr")
    assert type(error) is AccessError
    assert "no matching cipher found" in error.what


@pytest.mark.parametrize("line", ["Foo bar", "Port", "Port abc", "Port 22 23", "ForwardAgent"])
def test_a_mistake_in_the_config(tmp_path: Path, line: str) -> None:
    (tmp_path / "config").write_text(f"Host *\n  {line}\n")
    error = said(tmp_path / "config")
    assert type(error) is AccessError
    assert error.what.startswith("ssh does not accept its configuration: ")
    assert "line 2" in error.what


def test_a_config_that_is_missing(tmp_path: Path) -> None:
    assert said(tmp_path / "none").what.startswith("ssh does not accept its configuration: Can't open")


@pytest.mark.parametrize("python", ["no-python -c 1", "/no/such/python3 -c 1", "/etc/passwd"])
def test_an_interpreter_that_cannot_be_started(lab: Sshd, python: str) -> None:
    error = said(lab.config, command=python)
    assert isinstance(error, NoPython)
    assert python.split(maxsplit=1)[0] in error.what
    assert "?python=" in str(error.hint)


HEARD = [
    ("ssh: connect to host lab port 22: Connection timed out", HostUnreachable, "lab port 22 cannot be reached"),
    ("ssh: connect to host 192.0.2.1 port 22: Network is unreachable", HostUnreachable, "Network is unreachable"),
    ("ssh: connect to host lab port 22: No route to host", HostUnreachable, "No route to host"),
    ("Timeout, server lab not responding.", HostUnreachable, "it stopped answering"),
    ("client_loop: send disconnect: Broken pipe", HostUnreachable, "Broken pipe"),
    ("Connection to lab closed by remote host.", HostUnreachable, "closed by remote host"),
    ("kex_exchange_identification: read: Connection reset by peer", HostUnreachable, "reset by peer"),
    ("Shared connection to lab closed.", HostUnreachable, "Shared connection to lab closed"),
    (
        "ssh: Could not resolve hostname lab: Temporary failure in name resolution",
        HostUnreachable,
        "Temporary failure in name resolution",
    ),
    (
        "me@lab: Permission denied (publickey,keyboard-interactive).",
        LoginRefused,
        "takes publickey,keyboard-interactive",
    ),
    ("This account is currently not available.", LoginRefused, "the account cannot be used"),
    ("No RSA host key is known for lab and you have requested strict checking.", HostKeyRefused, "no RSA host key"),
    (
        "mux_client_request_session: session request failed: Session open refused by peer",
        AccessError,
        "no further session",
    ),
    ("", AccessError, "ssh ended with 255: it said nothing"),
    ("what nobody has seen yet", AccessError, "ssh ended with 255: what nobody has seen yet"),
]


@pytest.mark.parametrize(("stderr", "kind", "what"), HEARD)
@pytest.mark.parametrize("end", ["", "\n", "\r\n"])
def test_what_was_heard_elsewhere(stderr: str, kind: type[AccessError], what: str, end: str) -> None:
    error = explain("lab", f"Warning: a banner{end or chr(10)}{stderr}{end}" if stderr else end, FAILED, "ssh lab")
    assert type(error) is kind
    assert what in error.what
    assert not error.what.endswith(".")
    assert error.transient == (kind is HostUnreachable)


def test_offered_keys_are_told_and_other_debugging_is_not_taken_for_the_cause() -> None:
    lines = [
        "debug1: connect to host lab port 22: Connection refused",
        "debug1: Offering public key: /k1 ED25519 SHA256:x",
        "me@lab: Permission denied (publickey).",
    ]
    error = explain("lab", "\n".join(lines), FAILED, "ssh lab")
    assert isinstance(error, LoginRefused)
    assert error.tried == ("Offering public key: /k1 ED25519 SHA256:x",)


def test_what_was_tried_has_a_limit() -> None:
    error = explain("lab", "Load key /k\n" * 1000, FAILED, "ssh lab")
    assert len(error.tried) == 12


def test_a_signal_is_named() -> None:
    assert explain("lab", "", -9, "ssh lab").what == "signal 9 ended ssh: it said nothing"


def test_braces_in_what_ssh_says_are_harmless() -> None:
    error = explain("{0}", "ssh: Could not resolve hostname {host}: {9}", FAILED, "{}")
    assert error.what == "the name {host} is not known: {9}"


@pytest.mark.parametrize(
    ("stderr", "carrier"),
    [
        ("Connection closed by UNKNOWN port 65535\r\n", True),
        ("out\nmux_client_hello_exchange: write packet: Broken pipe", True),
        ("mux_client_request_session: x\nthe command's own last line", False),
        ("", False),
    ],
)
def test_the_last_line_tells_whose_failure_it_is(stderr: str, carrier: bool) -> None:
    assert is_carrier(stderr) is carrier
