"""`serai contexts`, as a command."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

import serai
from serai.cli.contexts import table, until
from serai.session.finding import Finding, State

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture
def home(tmp_path: Path) -> Path:
    words = ["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(tmp_path / "key")]
    subprocess.run(words, check=True, timeout=20)
    (tmp_path / "config").write_text(
        f"IdentityFile {tmp_path}/key\nHostName 127.0.0.1\nPort 1\nUserKnownHostsFile none\n"
    )
    return tmp_path


def contexts(home: Path, *words: str) -> subprocess.CompletedProcess[str]:
    environment = {
        "PATH": os.environ["PATH"],
        "HOME": str(home),
        "PYTHONPATH": os.path.dirname(os.path.dirname(serai.__file__)),
        "AWS_ACCESS_KEY_ID": "AKIA1",
        "AWS_SECRET_ACCESS_KEY": "hunter2",
        "X509_USER_PROXY": str(home / "none"),
        "PYTHONUTF8": "1",
    }
    command = [sys.executable, "-m", "serai", "contexts", "-F", str(home / "config"), *words]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=30, check=False)
    assert "hunter2" not in done.stdout + done.stderr
    return done


def test_a_table_of_what_is_found(home: Path) -> None:
    done = contexts(home)
    assert done.returncode == 0
    lines = done.stdout.splitlines()
    assert all(len(line) <= 100 for line in lines)
    for mark, kind, word in (("✓", "ssh", "usable"), ("✓", "aws", "usable"), ("✗", "x509", "unusable")):
        assert any(line.startswith(mark) and kind in line and word in line for line in lines), done.stdout


def test_objects_for_programs(home: Path) -> None:
    found = json.loads(contexts(home, "--json").stdout)
    assert {(one["type"], one["state"]) for one in found} == {
        ("ssh", "usable"), ("aws", "usable"), ("x509", "unusable")
    }  # fmt: skip
    assert set(found[0]) == {"type", "name", "source", "state", "reasons", "hint", "expires", "fingerprint"}


def test_a_host_that_nothing_works_for(home: Path) -> None:
    done = contexts(home, "lab")
    assert done.returncode == 1
    assert "127.0.0.1 refuses connections on port 1" in done.stdout
    assert "aws" not in done.stdout


@pytest.mark.parametrize("host", ["local:", "ssh://me:hunter2@lab", "ssh://", "-oProxyCommand=x"])
def test_what_is_no_host_is_refused(home: Path, host: str) -> None:
    assert contexts(home, "--", host).returncode == 2


def test_nothing_at_all_is_said(home: Path) -> None:
    (home / "config").write_text("IdentityFile none\n")
    done = contexts(home, "lab")
    assert (done.returncode, done.stdout) == (1, "")
    assert "no credentials were found" in done.stderr


def test_what_others_wrote_cannot_move_the_cursor() -> None:
    finding = Finding("ssh", "a\x1b[2J\nb", "agent\x07", State.UNUSABLE, ("no\x1b]0;x\x07",), "x" * 500, 1e9)
    lines = table([finding], 0.0, 60)
    assert not [line for line in lines if "\x07" in line or "\x1b[2J" in line or "\x1b]" in line]


@pytest.mark.parametrize(("left_s", "shown"), [(5.0, "in 5s"), (86400.0 * 30, "1970-01-31"), (-5.0, "1969-12-31")])
def test_how_long_something_is_valid(left_s: float, shown: str) -> None:
    now = 0.0
    assert until(now + left_s, now) == shown
