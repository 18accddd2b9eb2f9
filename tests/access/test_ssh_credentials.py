"""Each key tried alone at a real sshd: accepted, refused, held by an agent, with a certificate, or not to be tried."""

from __future__ import annotations

import getpass
import os
import shutil
import subprocess
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from serai.access.openssh import Connection
from serai.access.ssh_credentials import Said, config_for, judge_attempt, try_all
from serai.access.ssh_options import Target
from serai.clock import SystemClock
from serai.errors import LoginRefused
from serai.session.context import Context
from serai.session.finding import Finding, State, Surroundings, find
from serai.testing.jobs import until

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from tests.access.conftest import Sshd

NOW = 1_800_000_000.0
USER = getpass.getuser()


@pytest.fixture
def surroundings(tmp_path: Path) -> Surroundings:
    return Surroundings({"PATH": os.environ["PATH"], "HOME": str(tmp_path)}, str(tmp_path), os.getuid(), NOW)


@pytest.fixture
def agent() -> Iterator[Callable[[Path], str]]:
    """Adds a key to an agent, and gives the agent's socket."""
    room = tempfile.mkdtemp(prefix="sa-", dir="/tmp")  # short: pytest's own are too long for a socket
    process = subprocess.Popen(["ssh-agent", "-D", "-a", f"{room}/a"], stdout=subprocess.DEVNULL)

    def add(key: Path) -> str:
        until(lambda: os.path.exists(f"{room}/a"), "the agent listens")
        environment = os.environ | {"SSH_AUTH_SOCK": f"{room}/a"}
        subprocess.run(["ssh-add", "-q", str(key)], check=True, env=environment, timeout=20)
        return f"{room}/a"

    yield add
    process.terminate()
    process.wait(10)
    shutil.rmtree(room)


def asked(
    config: str, around: Surroundings, host: str = "lab", deadline_s: float = 60.0
) -> tuple[dict[str, Finding], list[Finding]]:
    """What is found for a host, and what the host says of it."""
    found = find([Context("ssh")], around, host=host, ssh_words=("-F", config))
    told = try_all(Target(host, config=config), found, around, deadline_s=deadline_s)
    assert [one.name for one in told] == [one.name for one in found]
    return {Path(one.name).name: one for one in told}, told


def test_each_key_is_tried_alone(lab: Sshd, tmp_path: Path, surroundings: Surroundings) -> None:
    """More keys than the host would listen to in one login, and the right one is the last."""
    keys = [lab.new_key(tmp_path / f"k{n}") for n in range(8)]
    locked = lab.new_key(tmp_path / "locked", "hunter2 hunter2")
    lines = "".join(f"  IdentityFile {key}\n" for key in [*keys, locked, lab.key])
    config = lab.config_with("", (f"  IdentityFile {lab.key}\n", lines))
    before, began = lab.connections(), time.monotonic()
    told, _ = asked(config, surroundings)
    assert time.monotonic() - began < 40  # of the 60 s that all of it may take
    assert lab.connections() - before == 9, "one login for each that could be used"
    assert {name: one.state.value for name, one in told.items()} == {
        "id": "usable", "locked": "unusable", **{f"k{n}": "unusable" for n in range(8)}
    }  # fmt: skip
    assert told["id"].reasons == ("lab accepts it",)
    assert told["k3"].reasons == ("lab does not accept it",)
    assert told["k3"].hint == f"ssh-copy-id -i {keys[3]} lab, or ask its owner"
    assert "passphrase" in told["locked"].reasons[0]


def test_no_command_is_run_at_the_host(lab: Sshd, tmp_path: Path, surroundings: Surroundings) -> None:
    key, ran = lab.new_key(tmp_path / "forced"), tmp_path / "ran"
    with lab.authorized.open("a") as file:
        file.write(f'command="touch {ran}" {Path(f"{key}.pub").read_text()}')
    config = lab.config_with("", (lab.key, key))
    before = lab.log.read_text().count("Starting session")
    told, _ = asked(config, surroundings)
    assert told["forced"].state is State.USABLE
    subprocess.run(["ssh", "-F", str(lab.config), "lab", "true"], check=True, timeout=20)  # what came before is logged
    assert lab.log.read_text().count("Starting session") == before + 1
    assert not ran.exists()


def test_what_an_agent_holds_is_tried(
    lab: Sshd, tmp_path: Path, surroundings: Surroundings, agent: Callable[[Path], str]
) -> None:
    other, mine = lab.new_key(tmp_path / "other"), tmp_path / "mine"
    shutil.copy(lab.key, mine)
    agent(other)
    socket = agent(mine)
    config = lab.config_with("", (f"  IdentityFile {lab.key}\n  IdentitiesOnly yes\n  IdentityAgent none\n", ""))
    around = Surroundings(dict(surroundings.environment) | {"SSH_AUTH_SOCK": socket}, str(tmp_path), os.getuid(), NOW)
    _, told = asked(config, around)
    assert [(one.source, one.state.value) for one in told] == [("agent", "unusable"), ("agent", "usable")]


@pytest.fixture(scope="module")
def trusting(lab: Sshd, tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Sshd, Path]]:
    """A host that takes certificates of an authority, and no plain key."""
    room = tmp_path_factory.mktemp("trusting")
    authority = lab.new_key(room / "ca")
    server = type(lab)(room / "host", extra=f"TrustedUserCAKeys {authority}.pub\n")
    server.authorized.write_text("")
    yield server, authority
    server.stop()


@pytest.mark.parametrize(
    ("words", "state", "said", "logins"),
    [
        ((), State.USABLE, "lab accepts it", 2),
        (("-V", "20200101:20200102"), State.UNUSABLE, "expired", 1),
        (("-V", "20370101:20380101"), State.UNUSABLE, "not valid before", 1),
        (("-n", "someone-else"), State.UNUSABLE, "lab does not accept it", 2),
    ],
)
def test_a_certificate_is_tried_without_its_key(
    trusting: tuple[Sshd, Path], tmp_path: Path, surroundings: Surroundings, words: tuple[str, ...], state: State,
    said: str, logins: int,
) -> None:  # fmt: skip
    server, authority = trusting
    key = server.new_key(tmp_path / "mine")
    signing = ["ssh-keygen", "-q", "-s", str(authority), "-I", "x", "-n", USER, *words, f"{key}.pub"]
    subprocess.run(signing, check=True, timeout=20, env=os.environ | {"TZ": "UTC"})
    before = server.connections()
    told, _ = asked(server.config_with("", (server.key, key)), surroundings)
    assert told["mine"].state is State.UNUSABLE
    assert told["mine-cert.pub"].state is state
    assert said in told["mine-cert.pub"].reasons[0]
    assert server.connections() - before == logins


def test_an_agents_certificate_is_tried(
    trusting: tuple[Sshd, Path], tmp_path: Path, surroundings: Surroundings, agent: Callable[[Path], str]
) -> None:
    server, authority = trusting
    key = server.new_key(tmp_path / "mine")
    subprocess.run(["ssh-keygen", "-q", "-s", str(authority), "-I", "x", "-n", USER, f"{key}.pub"], check=True)
    socket = agent(key)
    for path in tmp_path.glob("mine*"):
        path.unlink()
    config = server.config_with("", (f"  IdentityFile {server.key}\n  IdentitiesOnly yes\n  IdentityAgent none\n", ""))
    around = Surroundings(dict(surroundings.environment) | {"SSH_AUTH_SOCK": socket}, str(tmp_path), os.getuid(), NOW)
    _, (plain, certificate) = asked(config, around)
    assert (plain.state, certificate.state) == (State.UNUSABLE, State.USABLE)


def test_a_host_that_is_not_the_one_known_gets_no_key(lab: Sshd, tmp_path: Path, surroundings: Surroundings) -> None:
    empty = tmp_path / "nobody"
    empty.touch()
    keys = "".join(f"  IdentityFile {lab.new_key(tmp_path / str(n))}\n" for n in range(9))
    for extra in ("", "  StrictHostKeyChecking no\n"):
        before = lab.connections()
        told, _ = asked(lab.config_with(keys + extra, (lab.known_hosts, empty)), surroundings)
        assert {one.state for one in told.values()} == {State.UNKNOWN}
        assert all("host key" in one.reasons[0] for one in told.values())
        assert lab.connections() - before <= 8, "what is the same for all keys is not found out ten times"
    assert empty.read_text() == ""


def test_a_host_that_is_silent_is_given_up(lab: Sshd, surroundings: Surroundings) -> None:
    config = lab.config_with("  ProxyCommand sleep 60\n")
    began = time.monotonic()
    told, _ = asked(config, surroundings, deadline_s=0.5)
    assert time.monotonic() - began < 30  # its way there says nothing for 60 s
    assert told["id"].state is State.UNKNOWN
    assert "within 0.5 s" in told["id"].reasons[0]


def test_through_a_jump_host(lab: Sshd, second: Sshd, tmp_path: Path, surroundings: Surroundings) -> None:
    """The jump host has its own settings, which the attempt's own configuration does not hold."""
    config = tmp_path / "both"
    config.write_text(second.host("far", "  ProxyJump lab\n") + "  MACs hmac-sha2-256\n" + lab.host("lab"))
    before = lab.connections()
    told, _ = asked(str(config), surroundings, "far")
    assert told["id"].state is State.USABLE, told
    assert lab.connections() == before + 1


def test_a_second_factor_is_told(lab: Sshd, tmp_path: Path, surroundings: Surroundings) -> None:
    server = type(lab)(tmp_path / "two", extra="AuthenticationMethods publickey,publickey\n")
    try:
        told, _ = asked(str(server.config), surroundings)
    finally:
        server.stop()
    assert told["id"].state is State.UNKNOWN
    assert told["id"].reasons[0] == "lab accepts it and asks for more: publickey"


def test_a_connection_uses_the_key_of_its_context(lab: Sshd, tmp_path: Path, control_dir: Path) -> None:
    config = lab.config_with("", (f"  IdentityFile {lab.key}\n", "  IdentityFile none\n"))
    for key, works in ((lab.key, True), (lab.new_key(tmp_path / "other"), False)):
        target = Target("lab", config=config, context=Context("ssh", key=str(key), user=USER))
        connection = Connection(target, control_dir=control_dir, clock=SystemClock(), interactive=False)
        if works:
            with connection:
                assert connection.run(["echo", "a b"], deadline_s=10).stdout == b"a b\n"
        else:
            with pytest.raises(LoginRefused):
                connection.open()


FOUND = Finding("ssh", "~/k", "default", State.USABLE, context=Context("ssh", key="/k"), public="ssh-ed25519 AAAA")
CONTINUE = "debug1: Authentications that can continue: publickey\n"
OFFERED = f"{CONTINUE}debug1: Offering public key: /k ED25519 SHA256:x\n"
DENIED = "me@lab: Permission denied (publickey).\n"


@pytest.mark.parametrize(
    ("text", "state", "said"),
    [
        (f"{OFFERED}{CONTINUE}{DENIED}", State.UNUSABLE, "lab does not accept it"),
        (f"{CONTINUE}{DENIED}", State.UNUSABLE, "did not offer it"),
        (f'{OFFERED}sign_and_send_pubkey: signing failed for ED25519 "/k": agent refused operation\n{DENIED}',
         State.UNUSABLE, "did not sign"),
        ('Authenticated to lab ([10.0.0.1]:22) using "none".\n', State.UNKNOWN, "lets everybody in"),
        ("ssh: connect to host lab port 22: Connection refused\n", State.UNKNOWN, "refuses connections"),
        ("kex_exchange_identification: Connection closed by remote host\n", State.UNKNOWN, "closed the connection"),
    ],
)  # fmt: skip
def test_what_ssh_said_is_judged(text: str, state: State, said: str) -> None:
    judged = judge_attempt(FOUND, Said(text, 255, late=False), "lab", 1.0)
    assert judged.state is state
    assert said in judged.reasons[0]


def test_a_security_key_is_not_asked_to_sign() -> None:
    fido = Finding("ssh", "k", "agent", State.UNKNOWN, ("touch it",), public="sk-ssh-ed25519@openssh.com AAAA")
    text = f"{OFFERED}debug1: Server accepts key: k ED25519-SK SHA256:x\n"
    judged = judge_attempt(fido, Said(text, None, late=False), "lab", 1.0)
    assert (judged.state, judged.reasons) == (State.UNKNOWN, ("lab accepts it", "touch it"))


def test_the_way_is_the_users_and_the_identity_is_not() -> None:
    settings = (
        "user me\nhostname 10.0.0.1\nport 2222\nidentityfile ~/.ssh/other\ncertificatefile /c\nlocalforward 1 [a]:2\n"
        "remotecommand rm -rf /\nstricthostkeychecking no\nproxyjump a,b@c:22\ncontrolpath /s\nforwardagent yes\n"
        "pubkeyacceptedalgorithms ssh-ed25519-cert-v01@openssh.com,ssh-ed25519\n"
    )
    lines = config_for(settings, ["IdentityFile /k"], "key", "/my config", 7.0).splitlines()
    assert lines[0] == "IdentityFile /k"
    said = {line.partition(" ")[0].lower(): line.partition(" ")[2] for line in lines}
    assert said["hostname"] == "10.0.0.1"
    assert said["stricthostkeychecking"] == "yes"
    assert said["pubkeyacceptedalgorithms"] == "ssh-ed25519"
    assert said["proxycommand"] == "ssh -F '/my config' -J a -o BatchMode=yes -W '[%h]:%p' ssh://b@c:22"
    assert not {"certificatefile", "localforward", "remotecommand"} & set(said)
    assert (said["controlpath"], said["forwardagent"]) == ("none", "no")
