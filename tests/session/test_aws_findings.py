"""Credentials for AWS and its kin: in the environment, in files, of roles, and of an instance's service."""

from __future__ import annotations

import base64
import hashlib
import http.server
import json
import threading
from typing import TYPE_CHECKING, ClassVar

import pytest

from serai.session.context import Context
from serai.session.finding import Finding, State, Surroundings, find
from serai.session.finding.aws import keys_of

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    Around = Callable[..., Surroundings]

LATER, EARLIER = "2027-01-15T09:00:00Z", "2027-01-15T07:00:00+00:00"  # the tests' now is between them
HIDDEN = "hunter2"
KEYS = "aws_access_key_id = AKIA1\naws_secret_access_key = hunter2\n"


@pytest.fixture
def files(home: Path) -> Callable[..., None]:
    def write(credentials: str = "", config: str = "", mode: int = 0o600) -> None:
        (home / ".aws").mkdir(exist_ok=True)
        for name, text in (("credentials", credentials), ("config", config)):
            (home / ".aws" / name).write_text(text)
            (home / ".aws" / name).chmod(mode)

    return write


def by_name(around: Surroundings, kind: str = "aws") -> dict[str, Finding]:
    return {one.name: one for one in find([Context(kind)], around)}


@pytest.mark.parametrize(
    ("variables", "state", "said"),
    [
        ({"AWS_ACCESS_KEY_ID": "AKIA1", "AWS_SECRET_ACCESS_KEY": "hunter2"}, State.USABLE, ""),
        ({"AWS_ACCESS_KEY_ID": "AKIA1"}, State.UNUSABLE, "secret access key is missing"),
        ({"AWS_SECRET_ACCESS_KEY": "hunter2"}, State.UNUSABLE, "id is missing"),
        ({"AWS_ACCESS_KEY_ID": "ASIA1", "AWS_SECRET_ACCESS_KEY": "hunter2"}, State.UNUSABLE, "token is missing"),
        (
            {"AWS_ACCESS_KEY_ID": "ASIA1", "AWS_SECRET_ACCESS_KEY": "h", "AWS_SESSION_TOKEN": "hunter2",
             "AWS_CREDENTIAL_EXPIRATION": LATER}, State.USABLE, "temporary",
        ),
        (
            {"AWS_ACCESS_KEY_ID": "ASIA1", "AWS_SECRET_ACCESS_KEY": "h", "AWS_SESSION_TOKEN": "hunter2",
             "AWS_CREDENTIAL_EXPIRATION": EARLIER}, State.UNUSABLE, "expired",
        ),
    ],
)  # fmt: skip
def test_the_environment(around: Around, variables: dict[str, str], state: State, said: str) -> None:
    [found] = find([Context("aws")], around(**variables))
    assert (found.name, found.source, found.state) == ("AWS_ACCESS_KEY_ID", "environment", state)
    assert said in " ".join(found.reasons)
    assert (found.expires is not None) == ("AWS_CREDENTIAL_EXPIRATION" in variables)
    assert "hunter2" not in repr(found)


def test_other_clouds_of_the_same_kind(around: Around) -> None:
    [found] = find(
        [Context("aws")],
        around(EC2_ACCESS_KEY="a", EC2_SECRET_KEY=HIDDEN, EC2_URL="https://cloud.example:8773/services/Cloud"),
    )
    assert found.context == Context("aws", endpoint="https://cloud.example:8773/services/Cloud")


def test_profiles(around: Around, files: Callable[..., None], home: Path) -> None:
    files(
        f"[default]\n{KEYS}[half]\naws_access_key_id=AKIA2\n"
        f"[old]\n{KEYS}aws_session_token=hunter2\naws_expiration={EARLIER}\n"
        f"[saml]\n{KEYS}aws_session_token=hunter2\nx_security_token_expires={LATER}\n",
        "[default]\nregion=eu-west-1\nendpoint_url=https://cloud.example\n[profile quiet]\nregion=x\n"
        "[profile role]\nrole_arn=arn:r\nsource_profile=default\nmfa_serial=arn:m\n"
        "[profile lost]\nrole_arn=arn:r\nsource_profile=none-such\n[profile bare]\nrole_arn=arn:r\n"
        "[profile program]\ncredential_process=/bin/false hunter2\n"
        "[profile sso]\nsso_session=mine\n[profile nobody]\nsso_start_url=https://x\n"
        "[sso-session mine]\nsso_region=x\n",
    )
    cache = home / ".aws/sso/cache"
    cache.mkdir(parents=True)
    (cache / (hashlib.sha1(b"mine", usedforsecurity=False).hexdigest() + ".json")).write_text(
        json.dumps({"expiresAt": LATER, "accessToken": "hunter2"})
    )
    found = by_name(around())
    assert {name: one.state.value for name, one in found.items()} == {
        "default": "usable", "half": "unusable", "old": "unusable", "saml": "usable", "role": "unknown",
        "lost": "unusable", "bare": "unusable", "program": "unknown", "sso": "usable", "nobody": "unusable",
    }  # fmt: skip
    assert found["default"].context == Context(
        "aws", profile="default", region="eu-west-1", endpoint="https://cloud.example"
    )
    assert found["sso"].expires == found["saml"].expires == 1_800_000_000 + 3600
    assert "mfa_serial" in " ".join(found["role"].reasons)
    assert found["nobody"].hint == "aws sso login --profile nobody"
    assert "none-such" in found["lost"].reasons[0]
    assert "hunter2" not in repr(found)


def test_a_file_that_others_may_read_is_told(around: Around, files: Callable[..., None]) -> None:
    files(f"[default]\n{KEYS}", mode=0o644)
    found = by_name(around())["default"]
    assert found.state is State.USABLE, "AWS's programs take it"
    assert "mode 0644" in found.reasons[0]
    assert found.hint == "chmod 600 ~/.aws/credentials"


def test_a_file_that_is_none_is_told_without_its_lines(around: Around, files: Callable[..., None]) -> None:
    files("aws_secret_access_key = hunter2\n", "[profile x\nhunter2\n")
    found = by_name(around())
    assert [one.state for one in found.values()] == [State.UNUSABLE] * 2
    assert "line 1" in found["~/.aws/credentials"].reasons[0]
    assert "hunter2" not in repr(found)


@pytest.mark.parametrize("context", [Context("aws", profile="none-such"), Context("aws")])
def test_a_profile_that_is_not_there(around: Around, files: Callable[..., None], context: Context) -> None:
    files(f"[here]\n{KEYS}")
    found = {one.name: one for one in find([context], around(AWS_PROFILE="none-such"))}
    assert found["none-such"].state is State.UNUSABLE
    assert found["none-such"].hint == "there are: here"
    assert ("here" in found) == (context.profile is None)


def token(ends: object) -> str:
    return f"e30.{base64.urlsafe_b64encode(json.dumps({'exp': ends}).encode()).decode().rstrip('=')}.hunter2"


@pytest.mark.parametrize(
    ("text", "role", "state"),
    [
        (token(1_800_000_001), "arn:r", State.UNKNOWN),
        (token(1_799_999_999), "arn:r", State.UNUSABLE),
        (token("never"), "arn:r", State.UNKNOWN),
        ("no token", "arn:r", State.UNKNOWN),
        (token(1_800_000_001), "", State.UNUSABLE),
        (None, "arn:r", State.UNUSABLE),
    ],
)
def test_a_web_identity(around: Around, home: Path, text: str | None, role: str, state: State) -> None:
    path = home / "token"
    if text is not None:
        path.write_text(text)
    [found] = find([Context("aws")], around(AWS_WEB_IDENTITY_TOKEN_FILE=str(path), AWS_ROLE_ARN=role))
    assert found.state is state
    assert "hunter2" not in repr(found)


def test_a_container(around: Around) -> None:
    [found] = find([Context("aws")], around(AWS_CONTAINER_CREDENTIALS_RELATIVE_URI="/v2/hunter2"))
    assert (found.source, found.state) == ("container", State.UNKNOWN)
    assert "hunter2" not in repr(found)


class Metadata(http.server.BaseHTTPRequestHandler):
    """An instance's service: a token first, then the role, then its keys."""

    answer: ClassVar[dict[str, str]] = {}
    asked: ClassVar[list[str]] = []

    def do_PUT(self) -> None:
        self.reply("hunter2" if "X-aws-ec2-metadata-token-ttl-seconds" in self.headers else "", 200)

    def do_GET(self) -> None:
        allowed = self.headers["X-aws-ec2-metadata-token"] == "hunter2"
        name = self.path.removeprefix("/latest/meta-data/iam/security-credentials/")
        self.reply(json.dumps(self.answer) if name else "my-role", 200 if allowed else 401)

    def reply(self, text: str, code: int) -> None:
        self.asked.append(self.path)
        self.send_response(code)
        self.send_header("Content-Length", str(len(text)))
        self.end_headers()
        self.wfile.write(text.encode())

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def service() -> Iterator[str]:
    Metadata.asked.clear()
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Metadata)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    server.server_close()
    thread.join()


def test_the_role_of_an_instance_is_asked_for_only_when_allowed(around: Around, service: str) -> None:
    Metadata.answer = {"Code": "Success", "Expiration": LATER, "SecretAccessKey": "hunter2"}
    assert find([Context("aws")], around(AWS_EC2_METADATA_SERVICE_ENDPOINT=service)) == []
    assert Metadata.asked == []
    asking = {"AWS_EC2_METADATA_SERVICE_ENDPOINT": service, "ask_instance": True}
    [found] = find([Context("aws")], around(**asking))
    assert (found.name, found.state, found.expires) == ("my-role", State.USABLE, 1_800_003_600)
    assert "hunter2" not in repr(found)
    assert find([Context("aws")], around(**asking, AWS_EC2_METADATA_DISABLED="true")) == []
    Metadata.answer = {"Code": "AssumeRoleUnauthorizedAccess"}
    [found] = find([Context("aws")], around(**asking))
    assert found.state is State.UNUSABLE


def test_where_no_service_is_nothing_is_found(around: Around) -> None:
    assert (
        find([Context("aws")], around(ask_instance=True, AWS_EC2_METADATA_SERVICE_ENDPOINT="http://127.0.0.1:9")) == []
    )


def test_keys_are_given_to_the_one_who_signs(around: Around, files: Callable[..., None]) -> None:
    files(f"[one]\n{KEYS}aws_session_token=tok\n[role]\nrole_arn=x\n")
    keys = keys_of(Context("aws", profile="one"), around())
    assert keys is not None
    assert keys.token is not None
    assert (keys.key_id, keys.secret.reveal(), keys.token.reveal()) == ("AKIA1", "hunter2", "tok")
    assert keys_of(Context("aws", profile="role"), around()) is None
    assert keys_of(Context("aws"), around()) is None
    keys = keys_of(Context("s3"), around(AWS_ACCESS_KEY_ID="a", AWS_SECRET_ACCESS_KEY=HIDDEN))
    assert keys is not None
    assert (keys.secret.reveal(), keys.token) == (HIDDEN, None)


def test_stores_that_speak_s3(around: Around, home: Path, files: Callable[..., None]) -> None:
    files(f"[default]\n{KEYS}")
    (home / ".s3cfg").write_text("[default]\naccess_key = a\nsecret_key = hunter2\nhost_base = store.example:9000\n")
    (home / ".config/rclone").mkdir(parents=True)
    (home / ".config/rclone/rclone.conf").write_text(
        "[mine]\ntype = s3\nsecret_access_key = hunter2\n[web]\ntype=dav\n"
    )
    found = by_name(around(AWS_ENDPOINT_URL_S3="http://127.0.0.1:9000"), "s3")
    assert {(name, one.state.value) for name, one in found.items()} == {
        ("default", "usable"), ("~/.s3cfg", "usable"), ("mine", "unknown"),
    }  # fmt: skip
    assert {one.type for one in found.values()} == {"s3"}
    assert found["default"].context == Context("s3", profile="default", endpoint="http://127.0.0.1:9000")
    assert found["~/.s3cfg"].context == Context("s3", endpoint="https://store.example:9000")
    assert found["~/.s3cfg"].hint == "chmod 600 ~/.s3cfg"
    assert "hunter2" not in repr(found)
    types = [one.type for one in find(None, around()) if one.name == "default"]
    assert types == ["aws"], "said once, where no endpoint is for S3 alone"
