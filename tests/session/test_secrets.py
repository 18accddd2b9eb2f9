"""Secrets are shown by nothing: not by a print, a log, an error, a pickle or a table."""

from __future__ import annotations

import copy
import json
import logging
import pickle
import traceback
from typing import TYPE_CHECKING

import pytest

from serai.cli.contexts import as_object, table
from serai.session.context import Context, Session
from serai.session.finding import Secret, Surroundings, find
from serai.session.finding.aws import keys_of
from serai.session.finding.aws_profiles import read_profiles

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

HIDDEN = "hunter2hunter2"


@pytest.fixture
def full(home: Path, around: Callable[..., Surroundings], keygen: Callable[..., Path]) -> Surroundings:
    """A home with a secret in every place where there can be one."""
    key = keygen("locked", passphrase=HIDDEN)
    (home / ".ssh/id_ed25519").write_text(HIDDEN)
    (home / ".ssh/id_ed25519").chmod(0o600)
    (home / ".aws").mkdir()
    (home / ".aws/credentials").write_text(
        f"[default]\naws_access_key_id=AKIA1\naws_secret_access_key={HIDDEN}\naws_session_token={HIDDEN}\n"
    )
    (home / ".aws/config").write_text(f"{HIDDEN}\n[profile x]\nendpoint_url=https://me:{HIDDEN}@cloud.example\n")
    (home / ".s3cfg").write_text(f"[default]\naccess_key=a\nsecret_key={HIDDEN}\nhost_base=me:{HIDDEN}@store\n")
    (home / ".config/rclone").mkdir(parents=True)
    (home / ".config/rclone/rclone.conf").write_text(f"[r]\ntype=s3\nsecret_access_key={HIDDEN}\n")
    (home / "proxy").write_text(f"-----BEGIN CERTIFICATE-----\n{HIDDEN}\n-----END CERTIFICATE-----\n")
    (home / "proxy").chmod(0o600)
    (home / "token").write_text(f"a.{HIDDEN}.b")
    return around(
        AWS_ACCESS_KEY_ID="ASIA1",
        AWS_SECRET_ACCESS_KEY=HIDDEN,
        AWS_SESSION_TOKEN=HIDDEN,
        AWS_ENDPOINT_URL=f"https://me:{HIDDEN}@cloud.example",
        AWS_ENDPOINT_URL_S3="https://store.example",
        AWS_CONTAINER_CREDENTIALS_FULL_URI=f"http://localhost/{HIDDEN}",
        AWS_WEB_IDENTITY_TOKEN_FILE=str(home / "token"),
        EC2_ACCESS_KEY="a",
        EC2_SECRET_KEY=HIDDEN,
        X509_USER_PROXY=str(home / "proxy"),
        SOME_KEY=str(key),
    )


def test_whatever_is_said_of_credentials_says_no_secret(full: Surroundings, home: Path) -> None:
    lines = ("-F", str(home / "config"))
    (home / "config").write_text(f"IdentityFile {home}/.ssh/locked\nIdentityFile ~/.ssh/id_ed25519\n")
    found = find(None, full, ssh_words=lines)
    assert {one.type for one in found} == {"ssh", "aws", "x509", "s3"}
    session = Session(around=full)
    said = [
        repr(found),
        str(found),
        json.dumps([as_object(one) for one in found]),
        "\n".join(table(found, full.now)),
        repr(pickle.dumps(found)),
        repr(full),
        repr(session),
        repr(session.list_contexts()),
        repr(read_profiles(full)),
        repr(keys_of(Context("aws"), full)),
    ]
    for one in said:
        assert HIDDEN not in one


def test_a_secret_shows_itself_to_the_one_who_asks_and_to_nobody_else(caplog: pytest.LogCaptureFixture) -> None:
    secret = Secret(HIDDEN)
    assert secret.reveal() == HIDDEN
    logging.getLogger("x").warning("%s %r %s", secret, {"a": secret}, f"{secret:>40}")
    assert HIDDEN not in caplog.text
    assert copy.deepcopy([secret])[0] is copy.copy(secret) is secret
    for protocol in range(pickle.HIGHEST_PROTOCOL + 1):
        with pytest.raises(TypeError) as refused:
            pickle.dumps({"keys": secret}, protocol)
        assert HIDDEN not in "".join(traceback.format_exception(refused.value))
    with pytest.raises(TypeError):
        json.dumps(secret)
    assert not hasattr(secret, "__dict__")
