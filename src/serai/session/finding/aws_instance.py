"""The role of the machine itself, from its cloud's metadata service (IMDSv2: a token first), with short deadlines."""

from __future__ import annotations

import http.client
import json
from typing import TYPE_CHECKING
from urllib.parse import quote, urlsplit

from serai.session.context import Context
from serai.session.finding.aws_profiles import instant
from serai.session.finding.report import Finding, State

if TYPE_CHECKING:
    from serai.session.finding.report import Surroundings

SERVICE = "http://169.254.169.254"  # link-local: never beyond the machine's own host
DEADLINE_S = 1.0  # for each answer; elsewhere than in a cloud, nobody answers
_ROLES = "/latest/meta-data/iam/security-credentials/"
_LARGEST_BYTES = 64_000


def find_role(context: Context, around: Surroundings, *, deadline_s: float = DEADLINE_S) -> list[Finding]:
    """The instance's role, if this machine is an instance that has one. The keys themselves are not kept.

    Args:
        context: of type aws or s3.
        around: ``AWS_EC2_METADATA_SERVICE_ENDPOINT`` may name another service.
        deadline_s: for each of three answers.
    """
    place = urlsplit(around.environment.get("AWS_EC2_METADATA_SERVICE_ENDPOINT") or SERVICE)
    connection = http.client.HTTPConnection(place.hostname or "", place.port or 80, timeout=deadline_s)
    try:
        code, token = _ask(connection, "PUT", "/latest/api/token", {"X-aws-ec2-metadata-token-ttl-seconds": "60"})
        if code != http.HTTPStatus.OK:
            return []
        headers = {"X-aws-ec2-metadata-token": token.strip()}
        code, names = _ask(connection, "GET", _ROLES, headers)
        role = names.strip().partition("\n")[0]
        if code != http.HTTPStatus.OK or not role:
            return []
        code, text = _ask(connection, "GET", _ROLES + quote(role, safe=""), headers)
        said = json.loads(text) if code == http.HTTPStatus.OK else {}
    except (OSError, http.client.HTTPException, ValueError):
        return []
    finally:
        connection.close()
    said = said if isinstance(said, dict) else {}
    expires = instant(said.get("Expiration"))
    used = Context(context.type, region=context.region, endpoint=context.endpoint)
    if said.get("Code") != "Success" or (expires is not None and around.now >= expires):
        why = f"the instance's service gives no keys for it: {str(said.get('Code') or code)[:60]}"
        return [Finding("aws", role, "instance role", State.UNUSABLE, (why,), None, expires, used)]
    return [Finding("aws", role, "instance role", State.USABLE, ("temporary",), None, expires, used)]


def _ask(connection: http.client.HTTPConnection, method: str, path: str, headers: dict[str, str]) -> tuple[int, str]:
    connection.request(method, path, headers=headers)
    answer = connection.getresponse()
    text = answer.read(_LARGEST_BYTES)
    answer.read()
    return answer.status, text.decode("utf-8", "replace")
