"""Keys, agents and certificates of real OpenSSH, good and bad, and what is said of each."""

from __future__ import annotations

import os
import shutil
import socket
import stat
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from serai.errors import AccessError
from serai.session.context import Context
from serai.session.finding import Finding, State, Surroundings, find

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.session.conftest import Agent

    Make = Callable[..., Path]
    Around = Callable[..., Surroundings]

PHRASE = "hunter2 hunter2"


@pytest.fixture
def config(home: Path) -> Callable[..., list[Finding]]:
    """Looks, with an ssh_config of these lines."""

    def look(lines: str, around: Surroundings, host: str | None = None) -> list[Finding]:
        path = home / ".ssh/config"
        path.write_text(lines)
        return find([Context("ssh")], around, host=host, ssh_words=("-F", str(path)))

    return look


def one(findings: list[Finding]) -> Finding:
    assert len(findings) == 1, findings
    return findings[0]


def test_a_key_that_can_be_used(around: Around, keygen: Make, config: Callable[..., list[Finding]]) -> None:
    key = keygen()
    found = one(config(f"IdentityFile {key}\n", around()))
    assert (found.name, found.source, found.state) == ("~/.ssh/id_ed25519", "ssh_config", State.USABLE)
    assert found.context == Context("ssh", key=str(key))
    assert found.public == Path(f"{key}.pub").read_text().strip()
    assert found.fingerprint is not None
    assert found.fingerprint.startswith("SHA256:")
    os.unlink(f"{key}.pub")
    found = one(config(f"IdentityFile {key}\n", around()))
    assert found.state is State.USABLE
    assert ".pub file is missing" in found.reasons[0]


def test_a_key_that_others_may_read(around: Around, keygen: Make, config: Callable[..., list[Finding]]) -> None:
    key = keygen()
    key.chmod(0o644)
    found = one(config(f"IdentityFile {key}\n", around()))
    assert found.state is State.UNUSABLE
    assert "mode 0644" in found.reasons[0]
    assert found.hint == "chmod 600 ~/.ssh/id_ed25519"


@pytest.mark.parametrize("pem", [False, True])
def test_a_passphrase_needs_an_agent(
    around: Around, keygen: Make, config: Callable[..., list[Finding]], agent: Agent, pem: bool
) -> None:
    words = ("-t", "rsa", "-b", "2048", "-m", "PEM") if pem else ()
    key = keygen("locked", *words, passphrase=PHRASE)
    lines = f"IdentityFile {key}\n"
    found = one(config(lines, around()))
    assert found.state is State.UNUSABLE
    assert "passphrase" in found.reasons[0]
    assert found.hint == 'eval "$(ssh-agent)" && ssh-add ~/.ssh/locked'
    with_agent = around(SSH_AUTH_SOCK=agent.socket)
    assert one(config(lines, with_agent)).hint == "ssh-add ~/.ssh/locked"
    agent.add(key, PHRASE)
    found = one(config(lines, with_agent))
    assert (found.state, found.agent, found.source) == (State.USABLE, True, "ssh_config, agent")
    os.unlink(f"{key}.pub")  # the newer format has the public half in the clear, PEM has not
    first = config(lines, with_agent)[0]
    assert first.state is (State.UNKNOWN if pem else State.USABLE)
    assert ("nobody can say whether the agent holds it" in " ".join(first.reasons)) is pem


def test_files_that_are_no_keys(around: Around, home: Path, config: Callable[..., list[Finding]]) -> None:
    junk = home / ".ssh/junk"
    junk.write_text("hunter2")
    junk.chmod(0o600)
    os.mkfifo(home / ".ssh/pipe")
    found = config(f"IdentityFile {junk}\nIdentityFile {home}/.ssh/pipe\nIdentityFile ~/.ssh/none-such\n", around())
    assert [item.state for item in found] == [State.UNUSABLE] * 3
    assert "no private key" in found[0].reasons[0]
    assert "no file" in found[1].reasons[0]
    assert found[2].reasons == ("the file does not exist",)
    assert "hunter2" not in repr(found)


def test_a_public_half_of_another_key(around: Around, keygen: Make, config: Callable[..., list[Finding]]) -> None:
    key, other = keygen("one"), keygen("two")
    shutil.copy(f"{other}.pub", f"{key}.pub")
    found = one(config(f"IdentityFile {key}\n", around()))
    assert found.state is State.UNUSABLE
    assert found.reasons == ("~/.ssh/one.pub is of another key",)


def test_a_public_key_stands_for_the_agents(
    around: Around, keygen: Make, config: Callable[..., list[Finding]], agent: Agent
) -> None:
    key = keygen()
    agent.add(key)
    key.unlink()
    lines = f"IdentityFile {key}\nIdentitiesOnly yes\n"
    assert one(config(lines, around())).state is State.UNUSABLE
    assert one(config(lines, around(SSH_AUTH_SOCK=agent.socket))).state is State.USABLE
    assert one(config(f"IdentityFile {key}.pub\n", around(SSH_AUTH_SOCK=agent.socket))).state is State.USABLE


def test_what_only_an_agent_has(
    around: Around, keygen: Make, sign: Make, config: Callable[..., list[Finding]], agent: Agent
) -> None:
    key = keygen("elsewhere")
    sign(key, "-n", "me")
    agent.add(key)
    shutil.rmtree(key.parent)
    key.parent.mkdir()
    here = around(SSH_AUTH_SOCK=agent.socket)
    plain, certificate = config("IdentityFile none\n", here)
    assert (plain.name, plain.source, plain.state) == ("comment of elsewhere", "agent", State.USABLE)
    assert (certificate.name, certificate.state) == ("comment of elsewhere, certificate", State.USABLE)
    refused = config("IdentityFile none\nIdentitiesOnly yes\n", here)[0]
    assert refused.state is State.UNUSABLE
    assert "IdentitiesOnly" in refused.reasons[0]
    assert config("IdentityFile none\nIdentityAgent none\n", here) == []
    named = config("IdentityFile none\nIdentityAgent $OTHER\n", around(OTHER=agent.socket))
    assert named[0].state is State.USABLE
    named = config(f'IdentityFile none\nIdentityAgent "{agent.socket}"\n', around())
    assert named[0].state is State.USABLE


def test_an_agent_that_is_dead(around: Around, keygen: Make, home: Path, config: Callable[..., list[Finding]]) -> None:
    key = keygen(passphrase=PHRASE)
    dead = os.path.relpath(home / "dead")  # shorter than the whole path, which a socket's name cannot hold
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(dead)
    assert stat.S_ISSOCK(os.stat(dead).st_mode)
    trouble, locked = config(f"IdentityFile {key}\n", around(SSH_AUTH_SOCK=os.path.abspath(dead)))
    assert (trouble.source, trouble.state) == ("agent", State.UNUSABLE)
    assert "does not answer" in trouble.reasons[0]
    assert locked.hint is not None
    assert locked.hint.startswith("eval"), "what is dead takes no keys"


@pytest.mark.parametrize(
    ("words", "state", "said"),
    [
        (("-n", "me", "-V", "20200101:20380101"), State.USABLE, ""),
        (("-n", "me"), State.USABLE, ""),
        (("-n", "me", "-V", "20200101:20200102"), State.UNUSABLE, "expired 2020-01-02 00:00 UTC"),
        (("-n", "me", "-V", "20370101:20380101"), State.UNUSABLE, "not valid before 2037-01-01 00:00 UTC"),
        (("-h", "-n", "me"), State.UNUSABLE, "a host's certificate"),
        ((), State.UNKNOWN, "no principals"),
        (("-n", "you"), State.UNKNOWN, "for you, not for me"),
    ],
)
def test_certificates(
    around: Around, keygen: Make, sign: Make, config: Callable[..., list[Finding]], words: tuple[str, ...],
    state: State, said: str,
) -> None:  # fmt: skip
    key = keygen()
    path = sign(key, *words)
    plain, certificate = config(f"IdentityFile {key}\nUser me\n", around(), "lab")
    assert plain.state is State.USABLE
    assert (certificate.name, certificate.state) == ("~/.ssh/id_ed25519-cert.pub", state)
    assert said in " ".join(certificate.reasons)
    assert certificate.context == Context("ssh", key=str(key), cert=str(path))
    assert (certificate.expires is None) == ("-V" not in words)


def test_certificates_without_their_key(
    around: Around, keygen: Make, sign: Make, config: Callable[..., list[Finding]]
) -> None:
    path = sign(keygen("other"), "-n", "me")
    lines = f"IdentityFile none\nCertificateFile {path}\nCertificateFile /none-such\n"
    found, missing = config(lines, around())
    assert "private key was not found" in found.reasons[0]
    assert missing.reasons == ("it does not exist",)


def test_without_a_host_the_keys_of_all_hosts_are_looked_at(
    around: Around, keygen: Make, home: Path, config: Callable[..., list[Finding]]
) -> None:
    one_key, other, third = keygen("one"), keygen("other"), keygen("third")
    (home / ".ssh/more.conf").write_text(f"Host deep\n  IdentityFile {third}\n  IdentityFile ~/%h\n")
    lines = f"Include more.conf\nHost lab\n  IdentityFile {one_key}\nHost *.far\n  IdentityFile {other}\n"
    found = config(lines, around())
    assert {(item.name, item.source) for item in found} == {
        ("~/.ssh/third", "ssh_config Host deep"),
        ("~/.ssh/one", "ssh_config Host lab"),
        ("~/.ssh/other", "ssh_config Host *.far"),
    }
    assert [item.name for item in config(lines, around(), "x.far")] == ["~/.ssh/other"]


def test_a_context_names_one_key(around: Around, keygen: Make, agent: Agent) -> None:
    key = keygen()
    agent.add(keygen("other"))
    here = around(SSH_AUTH_SOCK=agent.socket)
    found = one(Context("ssh", key="~/.ssh/id_ed25519", user="me").findings(around=here, ssh_words=("-F", "none")))
    assert found.context == Context("ssh", key=str(key), user="me")
    assert one(Context("ssh", key="~/none").findings(around=here, ssh_words=("-F", "none"))).state is State.UNUSABLE


def test_a_config_that_ssh_refuses_is_told(around: Around, config: Callable[..., list[Finding]]) -> None:
    with pytest.raises(AccessError, match="nonsense"):
        config("nonsense here\n", around(), "lab")


def test_without_openssh_it_is_said(around: Around, home: Path) -> None:
    with pytest.raises(AccessError, match="no ssh on this machine"):
        find([Context("ssh")], around(PATH=str(home)))
