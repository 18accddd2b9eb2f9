"""Finding credentials for stores that speak S3: AWS's with the store's endpoint, s3cmd's, and the names of rclone's."""

from __future__ import annotations

import os
from dataclasses import replace
from typing import TYPE_CHECKING

from serai.session.context import Context
from serai.session.finding.aws import find_aws, judge_keys
from serai.session.finding.aws_profiles import read_sections
from serai.session.finding.report import Finding, State

if TYPE_CHECKING:
    from collections.abc import Iterator

    from serai.session.finding.report import Surroundings


def find_s3(context: Context, around: Surroundings, *, only_own: bool = False) -> list[Finding]:
    """The credentials for S3.

    Args:
        context: names a profile or an endpoint, or nothing.
        around: where to look.
        only_own: leave AWS's out, unless an endpoint is said for S3 alone.
    """
    endpoint = context.endpoint or around.environment.get("AWS_ENDPOINT_URL_S3") or None
    of_aws = [] if only_own and endpoint is None else find_aws(replace(context, endpoint=endpoint), around)
    found = [replace(one, type="s3") for one in of_aws]
    return found if context.profile else [*found, *_of_s3cmd(around), *_of_rclone(around)]


def _of_s3cmd(around: Surroundings) -> Iterator[Finding]:
    path = around.at_home(around.environment.get("S3CMD_CONFIG") or "~/.s3cfg")
    sections, why = read_sections(path)
    name = around.short(path)
    if why:
        yield Finding("s3", name, "s3cmd", State.UNUSABLE, (why,))
    for said in list(sections.values())[:1]:
        state, reasons, hint = judge_keys(
            said.get("access_key"),
            secret=bool(said.get("secret_key")),
            token=bool(said.get("access_token")),
            expires=None,
            now=around.now,
        )
        mode = os.stat(path).st_mode & 0o777
        if mode & 0o077:
            reasons, hint = (*reasons, f"others may read it (mode {mode:04o})"), hint or f"chmod 600 {name}"
        host = said.get("host_base")
        scheme = "http" if said.get("use_https", "").lower() == "false" else "https"
        place = f"{scheme}://{host}" if host and "@" not in host else None
        yield Finding("s3", name, "s3cmd", state, reasons, hint, context=Context("s3", endpoint=place))


def _of_rclone(around: Surroundings) -> Iterator[Finding]:
    path = around.at_home(around.environment.get("RCLONE_CONFIG") or "~/.config/rclone/rclone.conf")
    sections, why = read_sections(path)
    if why:
        hint = "where it is encrypted, rclone alone can read it"
        yield Finding("s3", around.short(path), "rclone", State.UNKNOWN, (why,), hint)
    for name, said in sections.items():
        if said.get("type") == "s3":
            yield Finding("s3", name, around.short(path), State.UNKNOWN, ("a remote of rclone, which alone uses it",))
