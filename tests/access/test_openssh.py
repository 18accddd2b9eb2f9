"""Connections to a real sshd."""

from __future__ import annotations

import os
import select
import signal
import socket
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from serai.access.openssh import Connection, Target
from serai.clock import SystemClock
from serai.errors import AccessError, DeadlineExceeded, HostKeyRefused, HostUnreachable, LoginRefused, UsageError

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.access.conftest import Sshd

    Connect = Callable[..., Connection]

OWNER = """
import sys
from pathlib import Path
from serai.access.openssh import Connection, Target
from serai.clock import SystemClock
connection = Connection(
    Target("lab", config=sys.argv[1]), control_dir=Path(sys.argv[2]), clock=SystemClock(), interactive=False
)
connection.open()
print("open", flush=True)
connection.run(["sleep", "50"], deadline_s=50)
"""

AT_TERMINAL = """
import os, signal, sys
os.login_tty(int(sys.argv[3]))
signal.signal(signal.SIGINT, signal.default_int_handler)  # whoever runs the tests may ignore it
from pathlib import Path
from serai.access.openssh import Connection, Target
from serai.clock import SystemClock
with Connection(Target("lab", config=sys.argv[1]), control_dir=Path(sys.argv[2]), clock=SystemClock()) as connection:
    try:
        print("logged-in", flush=True)
        sys.stdin.readline()
    except KeyboardInterrupt:
        print("interrupted", connection.run(["echo", "but", "alive"], deadline_s=20).stdout.decode(), flush=True)
"""


def test_many_commands_share_one_tcp_connection(lab: Sshd, connect: Connect) -> None:
    before = lab.connections()
    connection = connect()
    with ThreadPoolExecutor(4) as threads:
        done = list(threads.map(lambda n: connection.run(["echo", str(n)], deadline_s=20), range(12)))
    assert [int(one.stdout) for one in done] == list(range(12))
    assert lab.connections() == before + 1
    assert connection.own


def test_open_twice_is_one_connection_and_close_ends_it(lab: Sshd, connect: Connect, control_dir: Path) -> None:
    before = lab.connections()
    connection = connect()
    connection.open()
    connection.open()
    assert (lab.connections(), connection.alive()) == (before + 1, True)
    port = lab.last()
    connection.run(["true"], deadline_s=20)  # a server that has just let us in tells no end of what goes at once
    assert not lab.has_ended(port)
    connection.close()
    assert not connection.alive()
    assert list(control_dir.iterdir()) == []
    lab.until(lambda: lab.has_ended(port), "the server sees the end")


@pytest.mark.parametrize(
    "odd",
    ["", " ", "a b", "$HOME", "`id`", "it's", '"', "\\", "a\nb", "*", "-n", "--", "~", "ü€", "#", "!x", "a;b|c&d>e"],
)
def test_odd_arguments_arrive_unharmed(connect: Connect, odd: str) -> None:
    done = connect().run(["printf", "[%s]", odd, "end"], deadline_s=20)
    assert (done.stdout.decode(), done.stderr, done.returncode) == (f"[{odd}][end]", b"", 0)


def test_a_remote_command_is_never_an_option_of_ssh(connect: Connect) -> None:
    connection = connect()
    connection.open()
    assert connection.argv(["-oProxyCommand=x"])[-3:] == ["lab", "--", "-oProxyCommand=x"]
    assert connection.argv("-N")[-3:] == ["lab", "--", "-N"]


def test_bytes_pass_both_ways_as_they_are(connect: Connect) -> None:
    everything = bytes(range(256)) * 4096
    assert connect().run(["cat"], stdin=everything, deadline_s=30).stdout == everything


def test_a_commands_own_255_is_its_result(connect: Connect) -> None:
    done = connect().run(["sh", "-c", "echo no >&2; exit 255"], deadline_s=20)
    assert (done.returncode, done.stderr) == (255, b"no\n")


def test_a_command_has_a_deadline_and_the_connection_survives_it(connect: Connect) -> None:
    connection = connect()
    with pytest.raises(DeadlineExceeded, match=r"within 0\.5 s"):
        connection.run(["sleep", "30"], deadline_s=0.5)
    assert connection.run(["echo", "on"], deadline_s=20).stdout == b"on\n"


def test_a_live_master_of_the_users_is_used_and_left_alone(lab: Sshd, connect: Connect, control_dir: Path) -> None:
    theirs = f"{control_dir}/at 100%%-%C"
    config = lab.config_with(f'  ControlPath "{theirs}"\n')
    words = ["ssh", "-F", config]
    master = subprocess.Popen([*words, "-M", "-N", "lab"], stdin=subprocess.DEVNULL, start_new_session=True)
    try:
        check = [*words, "-O", "check", "lab"]
        lab.until(lambda: subprocess.run(check, capture_output=True, check=False).returncode == 0, "their master is up")
        before = lab.connections()
        connection = connect(config=config)
        assert connection.run(["echo", "hi"], deadline_s=20).stdout == b"hi\n"
        assert (connection.own, lab.connections()) == (False, before)
        connection.close()
        assert subprocess.run(check, capture_output=True, check=False).returncode == 0
        connection.open()
        master.terminate()
        master.wait(10)
        with pytest.raises(HostUnreachable):
            connection.run(["true"], deadline_s=20)
        connection.open()
        assert connection.own
    finally:
        master.kill()
        master.wait(10)


def test_a_stale_socket_of_the_users_is_not_taken_for_a_master(lab: Sshd, connect: Connect, control_dir: Path) -> None:
    stale = control_dir / "stale"
    with socket.socket(socket.AF_UNIX) as one:
        one.bind(str(stale))
    connection = connect(config=lab.config_with(f"  ControlPath {stale}\n  ControlMaster auto\n  ControlPersist 60\n"))
    assert connection.run(["echo", "hi"], deadline_s=20).stdout == b"hi\n"
    assert connection.own


def test_include_and_match_are_honoured(lab: Sshd, connect: Connect) -> None:
    inner = lab.room / "inner"
    inner.write_text(lab.host("*"))
    outer = lab.room / "outer"
    outer.write_text(f'Match originalhost alias exec "test -e {inner}"\n  Include {inner}\n')
    assert connect("alias", config=str(outer)).run(["echo", "hi"], deadline_s=20).stdout == b"hi\n"


def test_a_jump_host_is_honoured(lab: Sshd, connect: Connect, start_sshd: Callable[[str], Sshd]) -> None:
    behind = start_sshd("")
    config = lab.room / "jump"
    config.write_text(lab.host("jump") + behind.host("behind", "  ProxyJump jump\n"))
    before = lab.connections(), behind.connections()
    connection = connect("behind", config=str(config))
    for _ in range(3):
        assert connection.run(["sh", "-c", "echo $SSH_CONNECTION"], deadline_s=20).stdout.endswith(
            f"{behind.port}\n".encode()
        )
    assert (lab.connections(), behind.connections()) == (before[0] + 1, before[1] + 1)


def test_settings_that_would_break_a_session_do_not(lab: Sshd, connect: Connect) -> None:
    config = lab.config_with(
        "  RemoteCommand echo broken\n  RequestTTY force\n  StdinNull yes\n  ForkAfterAuthentication yes\n"
        f"  SessionType none\n  LocalForward {lab.free_port()} localhost:1\n  ExitOnForwardFailure yes\n"
        "  LogLevel QUIET\n  PermitLocalCommand no\n  ControlMaster auto\n  ControlPersist yes\n"
    )
    connection = connect(config=config)
    for _ in range(2):
        assert connection.run(["cat"], stdin=b"a\r\n\x04\xff", deadline_s=20).stdout == b"a\r\n\x04\xff"


@pytest.mark.parametrize("setting", ["ask", "yes", "no", "off"])
def test_an_unknown_host_key_is_refused_whatever_the_config_says(lab: Sshd, connect: Connect, setting: str) -> None:
    config = lab.config_with(f"  StrictHostKeyChecking {setting}\n", (lab.known_hosts, lab.room / "nobody"))
    with pytest.raises(HostKeyRefused, match=r"host key is (not )?known") as caught:
        connect(config=config).open()
    assert "fingerprint" in str(caught.value)
    assert not (lab.room / "nobody").exists()


def test_accept_new_is_the_users_choice(lab: Sshd, connect: Connect) -> None:
    config = lab.config_with("  StrictHostKeyChecking accept-new\n", (lab.known_hosts, lab.room / "new"))
    connect(config=config).open()
    assert (lab.room / "new").read_text()


def test_a_changed_host_key_is_refused(lab: Sshd, connect: Connect) -> None:
    kind, blob = Path(f"{lab.key}.pub").read_text().split()[:2]
    (lab.room / "wrong").write_text(f"[127.0.0.1]:{lab.port} {kind} {blob}\n")
    config = lab.config_with("  StrictHostKeyChecking accept-new\n", (lab.known_hosts, lab.room / "wrong"))
    with pytest.raises(HostKeyRefused, match="not the one that is known") as caught:
        connect(config=config).open()
    assert any("wrong:1" in line for line in caught.value.tried)


def test_a_key_that_is_not_accepted(lab: Sshd, connect: Connect, control_dir: Path) -> None:
    other = lab.new_key(control_dir / "other")
    config = lab.config_with("  LogLevel DEBUG\n", (lab.key, other))
    with pytest.raises(LoginRefused, match="the host takes publickey") as caught:
        connect(config=config).open()
    assert any(line.startswith(f"Offering public key: {other}") for line in caught.value.tried)
    assert not caught.value.transient


def test_a_dead_port_is_known_long_before_the_deadline(lab: Sshd, connect: Connect) -> None:
    config = lab.config_with("", (f"Port {lab.port}", f"Port {lab.free_port()}"))
    start = time.monotonic()
    with pytest.raises(HostUnreachable, match="refuses connections") as caught:
        connect(config=config, deadline_s=60).open()
    assert time.monotonic() - start < 20
    assert caught.value.transient


def test_a_host_that_never_answers_meets_the_deadline(lab: Sshd, connect: Connect) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        config = lab.config_with("  ConnectTimeout 20\n", (f"Port {lab.port}", f"Port {silent.getsockname()[1]}"))
        start = time.monotonic()
        with pytest.raises(HostUnreachable):
            connect(config=config, deadline_s=1.0).open()
        assert time.monotonic() - start < 15  # ssh itself would wait for 20 s


@pytest.mark.parametrize("when", ["while it waits", "before it knows its process"])
def test_close_ends_an_open_that_is_under_way(
    lab: Sshd, connect: Connect, monkeypatch: pytest.MonkeyPatch, when: str
) -> None:
    popen = subprocess.Popen

    def late(words: list[str], **more: Any) -> Any:
        process = popen(words, **more)
        if when != "while it waits" and words[0] == "/bin/sh":
            lab.until(lambda: connection._closers, "it is being closed")
        return process

    monkeypatch.setattr(subprocess, "Popen", late)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        config = lab.config_with("", (f"Port {lab.port}", f"Port {silent.getsockname()[1]}"))
        connection = connect(config=config, deadline_s=60)
        caught: list[AccessError] = []

        def attempt() -> None:
            try:
                connection.open()
            except AccessError as error:
                caught.append(error)

        thread = threading.Thread(target=attempt)
        thread.start()
        lab.until(lambda: select.select([silent], [], [], 0)[0], "it connects")
        connection.close()
        thread.join(20)
        assert [str(one.what) for one in caught] == ["signal 15 ended ssh: it said nothing"]


def test_a_lost_master_is_not_replaced_by_a_second_connection(lab: Sshd, connect: Connect) -> None:
    connection = connect()
    connection.open()
    before = lab.connections()
    assert connection._master is not None
    os.kill(connection._master.pid, signal.SIGKILL)
    with pytest.raises(HostUnreachable, match="the connection is gone"):
        connection.run(["true"], deadline_s=20)
    assert (connection.alive(), lab.connections()) == (False, before)
    connection.open()
    assert connection.run(["echo", "again"], deadline_s=20).stdout == b"again\n"


def test_the_master_ends_with_its_owner_even_on_sigkill(lab: Sshd, control_dir: Path) -> None:
    words = [sys.executable, "-c", OWNER, str(lab.config), str(control_dir)]
    with subprocess.Popen(words, stdout=subprocess.PIPE) as owner:
        assert owner.stdout is not None
        assert owner.stdout.readline() == b"open\n"
        port = lab.last()
        lab.until(lambda: lab.has_begun(port), "a session that lasts")
        assert not lab.has_ended(port)
        owner.kill()
    lab.until(lambda: lab.has_ended(port), "the server sees the end")
    lab.until(lambda: not list(control_dir.iterdir()), "nothing is left")


def test_on_a_terminal_ssh_asks_and_ctrl_c_leaves_the_master_alive(
    lab: Sshd, control_dir: Path, tmp_path: Path
) -> None:
    locked = lab.new_key(tmp_path / "locked", "open sesame")
    with lab.authorized.open("a") as keys:
        keys.write(Path(f"{locked}.pub").read_text())
    config = lab.config_with("", (lab.key, locked))
    ours, theirs = os.openpty()
    words = [sys.executable, "-c", AT_TERMINAL, config, str(control_dir), str(theirs)]
    shown = b""

    def shows(text: bytes) -> bool:
        nonlocal shown
        if select.select([ours], [], [], 0.05)[0]:
            shown += os.read(ours, 65536)
        return text in shown

    with subprocess.Popen(words, pass_fds=[theirs]) as process:
        try:
            lab.until(lambda: shows(b"Enter passphrase for key"), "it asks")
            os.write(ours, b"open sesame\n")
            lab.until(lambda: shows(b"logged-in"), "it logs in")
            os.write(ours, b"\x03")
            lab.until(lambda: shows(b"interrupted but alive"), "it lives on")
        finally:
            if process.poll() is None and b"but alive" not in shown:
                process.kill()
    os.close(ours)
    os.close(theirs)
    assert process.returncode == 0


def test_sessions_beyond_the_hosts_limit_are_refused_and_named(connect: Connect, second: Sshd) -> None:
    connection = connect(config=str(second.config))
    connection.open()
    with subprocess.Popen(connection.argv(["cat"]), stdin=subprocess.PIPE, stdout=subprocess.PIPE) as held:
        assert held.stdin is not None
        assert held.stdout is not None
        held.stdin.write(b"1\n")
        held.stdin.flush()
        assert held.stdout.readline() == b"1\n"
        with pytest.raises(AccessError, match="no further session") as caught:
            connection.run(["true"], deadline_s=20)
        assert "MaxSessions" in str(caught.value.hint)
        held.stdin.close()

    def is_free() -> bool:
        """A server counts a session until it has collected the process, a moment after we were told of its end."""
        try:
            return connection.run(["echo", "free"], deadline_s=20).stdout == b"free\n"
        except AccessError as error:
            assert "no further session" in str(error)  # noqa: PT017 - until it is free
            return False

    second.until(is_free, "the session that has ended is free again")


def test_a_control_dir_that_others_can_enter_is_refused(connect: Connect, control_dir: Path) -> None:
    control_dir.chmod(0o755)
    with pytest.raises(UsageError, match="nobody else can enter"):
        connect().open()


def test_a_control_dir_that_is_too_long_for_a_socket_is_not_used(lab: Sshd, control_dir: Path) -> None:
    long = control_dir / ("x" * 100)
    target = Target("lab", config=str(lab.config))
    with Connection(target, control_dir=long, clock=SystemClock(), interactive=False) as connection:
        room = connection._room
        assert room is not None
        assert room.parent == Path("/tmp")
        assert room.stat().st_mode & 0o777 == 0o700
        assert connection.run(["echo", "hi"], deadline_s=20).stdout == b"hi\n"
    assert not room.exists()


def test_before_open_there_is_nothing_to_run_over(connect: Connect) -> None:
    with pytest.raises(UsageError, match="not open"):
        connect().argv(["true"])
    assert not connect().alive()


def test_without_ssh_the_error_says_so(connect: Connect, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(AccessError, match="no ssh on this machine"):
        connect().open()


def test_options_may_follow_for_a_forward(lab: Sshd, connect: Connect) -> None:
    connection = connect()
    connection.open()
    port = lab.free_port()
    words = [*connection.argv(), "-O", "forward", "-L", f"{port}:127.0.0.1:{lab.port}"]
    subprocess.run(words, check=True, capture_output=True, timeout=20)
    with socket.create_connection(("127.0.0.1", port), timeout=10) as through:
        assert through.recv(4) == b"SSH-"
