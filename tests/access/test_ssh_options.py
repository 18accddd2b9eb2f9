"""What ssh is told, from what `ssh -G` prints."""

from __future__ import annotations

import pytest

from serai.access.ssh_options import Target, master_options, read_settings, session_options
from serai.errors import UsageError

BARE = {"serveraliveinterval": "0", "connecttimeout": "none", "stricthostkeychecking": "ask", "remotecommand": "none"}


def said(settings: dict[str, str], *, interactive: bool = False, connect_deadline_s: float = 30.0) -> set[str]:
    words = master_options(BARE | settings, interactive=interactive, connect_deadline_s=connect_deadline_s)
    assert set(words[::2]) == {"-o"}
    return set(words[1::2])


def test_a_config_with_gaps_has_them_filled() -> None:
    assert said({}) == {
        "ControlPersist=no", "BatchMode=yes", "ServerAliveInterval=5", "ServerAliveCountMax=3", "ConnectTimeout=30"
    }  # fmt: skip


def test_what_the_user_set_stays() -> None:
    mine = {"serveraliveinterval": "60", "connecttimeout": "7", "stricthostkeychecking": "accept-new"}
    assert said(mine, interactive=True) == {"ControlPersist=no"}


@pytest.mark.parametrize(
    ("theirs", "deadline_s", "expected"),
    [("none", 30.0, "30"), ("0", 30.0, "30"), ("31", 30.0, "30"), ("none", 0.2, "1"), ("90", 2.5, "3")],
)
def test_a_longer_timeout_than_the_deadline_is_pointless(theirs: str, deadline_s: float, expected: str) -> None:
    assert f"ConnectTimeout={expected}" in said({"connecttimeout": theirs}, connect_deadline_s=deadline_s)


FAST = "aes128-gcm@openssh.com,aes256-gcm@openssh.com,chacha20-poly1305@openssh.com,aes128-ctr,aes192-ctr,aes256-ctr"
OWN = "chacha20-poly1305@openssh.com,aes128-ctr,aes192-ctr,aes256-ctr,aes128-gcm@openssh.com,aes256-gcm@openssh.com"


@pytest.mark.parametrize(
    ("ciphers", "fast_aes", "expected"),
    [
        (OWN, True, {FAST}),
        (OWN, False, set()),
        ("aes256-ctr", True, set()),
        ("chacha20-poly1305@openssh.com", True, set()),
        ("", True, set()),
    ],
)  # fmt: skip
def test_fast_ciphers_come_first_where_nobody_chose(ciphers: str, fast_aes: bool, expected: set[str]) -> None:
    words = master_options(BARE | {"ciphers": ciphers}, interactive=True, connect_deadline_s=1, fast_aes=fast_aes)
    assert {word.partition("=")[2] for word in words if word.startswith("Ciphers=")} == expected


@pytest.mark.parametrize("word", ["no", "off", "false"])
def test_host_keys_are_always_checked(word: str) -> None:
    assert "StrictHostKeyChecking=yes" in said({"stricthostkeychecking": word})


@pytest.mark.parametrize(
    ("settings", "options"),
    [
        ({}, []),
        ({"remotecommand": "none", "sessiontype": "default", "stdinnull": "no", "loglevel": "INFO"}, []),
        ({"remotecommand": "tmux"}, ["RemoteCommand=none"]),
        ({"sessiontype": "none", "stdinnull": "yes"}, ["StdinNull=no", "SessionType=default"]),
        ({"localforward": "1 [a]:2", "dynamicforward": "3"}, ["ClearAllForwardings=yes"]),
        ({"loglevel": "SILENT"}, ["LogLevel=ERROR"]),
    ],
)
def test_only_what_is_in_the_way_is_overridden(settings: dict[str, str], options: list[str]) -> None:
    assert session_options(settings) == [word for option in options for word in ("-o", option)]


def test_settings_are_read_by_name_and_the_first_one_holds() -> None:
    text = "host lab\nLocalForward 1 [a]:2\nlocalforward 3 [b]:4\ncontrolpath /a b/c\nempty\n"
    assert read_settings(text) == {"host": "lab", "localforward": "1 [a]:2", "controlpath": "/a b/c", "empty": ""}


def test_a_target_becomes_arguments() -> None:
    assert Target("lab").words() == []
    assert Target("lab", user="me", port=2222, config="/c").words() == ["-F", "/c", "-l", "me", "-p", "2222"]


@pytest.mark.parametrize("host", ["", "-oProxyCommand=x", "a b", "a\nb", "a\0b"])
def test_what_is_no_host_is_refused(host: str) -> None:
    with pytest.raises(UsageError):
        Target(host)


@pytest.mark.parametrize("user", ["", "-x"])
def test_what_is_no_user_is_refused(user: str) -> None:
    with pytest.raises(UsageError):
        Target("lab", user=user)
