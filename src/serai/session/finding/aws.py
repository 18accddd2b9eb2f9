"""Finding credentials for AWS and clouds that speak as it does (EC2 of Eucalyptus, Nimbus, OpenStack).

Looked at in the order in which AWS's own programs look: the environment, a web identity, the profiles of
``~/.aws/credentials`` and ``~/.aws/config``, a container's service, and the instance's role (asked only when allowed).
Nobody is asked whether the keys are accepted: *usable* means complete, and not known to have expired.
"""

from __future__ import annotations

import shlex
from typing import TYPE_CHECKING

from serai.session.context import Context
from serai.session.finding.aws_profiles import Keys, Profiles, expiry_of_token, instant, read_profiles
from serai.session.finding.report import Finding, Secret, State

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from serai.session.finding.report import Surroundings

# The variables of AWS, and those that Eucalyptus's and OpenStack's rc files set for the same.
_VARIABLES = (
    ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", ("AWS_ENDPOINT_URL_EC2", "AWS_ENDPOINT_URL")),
    ("EC2_ACCESS_KEY", "EC2_SECRET_KEY", ("EC2_URL",)),
)
_MOST_PROFILES = 200


def find_aws(context: Context, around: Surroundings) -> list[Finding]:
    """The credentials that AWS's programs would find here.

    Args:
        context: names a profile, or nothing: then all are said.
        around: where to look; ``ask_instance`` says whether the instance's metadata service may be asked.
    """
    profiles = read_profiles(around)
    found = [] if context.profile else [*_of_environment(context, around), *_web_identity(context, around)]
    found += [
        Finding("aws", around.short(path), "file", State.UNUSABLE, (why,), "AWS's programs cannot read it either")
        for path, why in profiles.troubles
    ]
    names = list(profiles.by_name)
    chosen = context.profile or around.environment.get("AWS_PROFILE") or around.environment.get("AWS_DEFAULT_PROFILE")
    if chosen and chosen not in names:
        why = f"no profile of this name is in {' or '.join(around.short(path) for path in profiles.paths)}"
        known = f"there are: {', '.join(names[:10])}" if names else None
        source = "context" if context.profile else "AWS_PROFILE"
        found.append(Finding("aws", chosen, source, State.UNUSABLE, (why,), known, context=context))
    for name in names[:_MOST_PROFILES]:
        if context.profile in {None, name} and (one := _of_profile(name, profiles, context, around)) is not None:
            found.append(one)
    if not context.profile:
        found += _container(context, around)
        if around.ask_instance and around.environment.get("AWS_EC2_METADATA_DISABLED", "").lower() != "true":
            from serai.session.finding.aws_instance import find_role  # noqa: PLC0415 - seldom

            found += find_role(context, around)
    return found


def keys_of(context: Context, around: Surroundings) -> Keys | None:
    """The keys that a context of type ``aws`` or ``s3`` names, for the one who signs with them.

    Args:
        context: names a profile; without one the environment is looked at first, then the profile in force.
        around: where to look.

    Returns:
        None where keys are not simply written down: roles, single sign-on, programs, instances.
    """
    environment = around.environment
    if context.profile is None:
        for first, second, _ in _VARIABLES:
            if environment.get(first) and environment.get(second):
                token = environment.get("AWS_SESSION_TOKEN") if first.startswith("AWS") else None
                return Keys(environment[first], Secret(environment[second]), Secret(token) if token else None)
    name = context.profile or environment.get("AWS_PROFILE") or environment.get("AWS_DEFAULT_PROFILE") or "default"
    profile = read_profiles(around).by_name.get(name, {})
    key_id, secret, token = (
        profile.get(key) for key in ("aws_access_key_id", "aws_secret_access_key", "aws_session_token")
    )
    return Keys(key_id, Secret(secret), Secret(token) if token else None) if key_id and secret else None


def judge_keys(
    key_id: str | None, *, secret: bool, token: bool, expires: float | None, now: float
) -> tuple[State, tuple[str, ...], str | None]:
    """Judges keys by what is there of them; the id is no secret, whether the others are there is all that is asked."""
    if not key_id or not secret:
        missing = "the access key's id" if not key_id else "the secret access key"
        return State.UNUSABLE, (f"{missing} is missing",), "set both, or neither"
    if key_id.startswith("ASIA") and not token:
        return State.UNUSABLE, ("keys that begin with ASIA are temporary, and the session token is missing",), None
    if expires is not None and now >= expires:
        return State.UNUSABLE, ("they have expired",), "get new ones, as you got these"
    return State.USABLE, (("temporary",) if token else ()), None


def _of_environment(context: Context, around: Surroundings) -> Iterator[Finding]:
    environment = around.environment
    for first, second, endpoints in _VARIABLES:
        if not environment.get(first) and not environment.get(second):
            continue
        ours = first.startswith("AWS")
        expires = instant(environment.get("AWS_CREDENTIAL_EXPIRATION")) if ours else None
        token = ours and bool(environment.get("AWS_SESSION_TOKEN"))
        state, reasons, hint = judge_keys(
            environment.get(first), secret=bool(environment.get(second)), token=token, expires=expires, now=around.now
        )
        endpoint = next((environment[name] for name in endpoints if environment.get(name)), None)
        used = _context(context, around, endpoint=endpoint)
        yield Finding("aws", first, "environment", state, reasons, hint, expires, used)


def _web_identity(context: Context, around: Surroundings) -> Iterator[Finding]:
    path, role = (around.environment.get(name) for name in ("AWS_WEB_IDENTITY_TOKEN_FILE", "AWS_ROLE_ARN"))
    if path:
        yield _token_file(role or "web identity", "environment", path, role, _context(context, around), around)


def _token_file(name: str, source: str, path: str, role: str | None, context: Context, around: Surroundings) -> Finding:
    path = around.at_home(path)
    expires = None
    try:
        expires = expiry_of_token(path)
    except OSError as error:
        reason = f"the token file {around.short(path)} cannot be read: {error.strerror}"
        return Finding("aws", name, source, State.UNUSABLE, (reason,), context=context)
    if not role:
        return Finding("aws", name, source, State.UNUSABLE, ("no role is named (AWS_ROLE_ARN)",), context=context)
    if expires is not None and around.now >= expires:
        return Finding("aws", name, source, State.UNUSABLE, ("the token has expired",), None, expires, context)
    return Finding(
        "aws",
        name,
        source,
        State.UNKNOWN,
        ("a token is exchanged for the role's keys when used",),
        None,
        expires,
        context,
    )


def _of_profile(name: str, profiles: Profiles, context: Context, around: Surroundings) -> Finding | None:
    """What a profile's own words say; None of one that only has settings, such as a region."""
    profile = profiles.by_name[name]
    used = _context(context, around, profile=name, said=profile)
    source = around.short(profiles.path_of[name])
    role = profile.get("role_arn")
    if profile.get("web_identity_token_file"):
        return _token_file(name, source, profile["web_identity_token_file"], role, used, around)
    if role:
        state, reasons, hint = _role(profile, profiles)
        return Finding("aws", name, source, state, reasons, hint, context=used)
    if profile.get("sso_session") or profile.get("sso_start_url"):
        return _single_sign_on(name, source, profiles.sso_expiry(profile), used, around)
    if profile.get("aws_access_key_id") or profile.get("aws_secret_access_key"):
        return _written_keys(name, source, profiles, used, around)
    if profile.get("credential_process"):
        why = "a program gives its keys (credential_process), which is run when they are used"
        return Finding("aws", name, source, State.UNKNOWN, (why,), context=used)
    return None


def _single_sign_on(name: str, source: str, expires: float | None, used: Context, around: Surroundings) -> Finding:
    if expires is None or around.now >= expires:
        why = "nobody has logged in by single sign-on" if expires is None else "the single sign-on has expired"
        login = f"aws sso login --profile {shlex.quote(name)}"
        return Finding("aws", name, source, State.UNUSABLE, (why,), login, expires, used)
    return Finding("aws", name, source, State.USABLE, ("by single sign-on",), None, expires, used)


def _written_keys(name: str, source: str, profiles: Profiles, used: Context, around: Surroundings) -> Finding:
    profile = profiles.by_name[name]
    expires = instant(profile.get("aws_expiration") or profile.get("x_security_token_expires"))
    state, reasons, hint = judge_keys(
        profile.get("aws_access_key_id"),
        secret=bool(profile.get("aws_secret_access_key")),
        token=bool(profile.get("aws_session_token") or profile.get("aws_security_token")),
        expires=expires,
        now=around.now,
    )
    open_to = profiles.open_to_others(name)
    if open_to:
        reasons, hint = (*reasons, f"others may read {source} (mode {open_to})"), hint or f"chmod 600 {source}"
    return Finding("aws", name, source, state, reasons, hint, expires, used)


def _role(profile: Mapping[str, str], profiles: Profiles) -> tuple[State, tuple[str, ...], str | None]:
    role, base, other = profile["role_arn"], profile.get("source_profile"), profile.get("credential_source")
    if base and base not in profiles.by_name:
        return State.UNUSABLE, (f"its source_profile {base} is not there",), "add it, or name another"
    if not base and not other:
        return State.UNUSABLE, ("it has a role_arn, and neither source_profile nor credential_source",), None
    reasons = [f"takes the role {role} by {base or other}"]
    if profile.get("mfa_serial"):
        reasons.append("asks for a code (mfa_serial), so it needs a person")
    return State.UNKNOWN, tuple(reasons), None


def _container(context: Context, around: Surroundings) -> Iterator[Finding]:
    for name in ("AWS_CONTAINER_CREDENTIALS_RELATIVE_URI", "AWS_CONTAINER_CREDENTIALS_FULL_URI"):
        if around.environment.get(name):
            why = "the container's service gives keys when they are used"
            yield Finding("aws", name, "container", State.UNKNOWN, (why,), context=_context(context, around))


def _context(
    context: Context,
    around: Surroundings,
    *,
    profile: str | None = None,
    endpoint: str | None = None,
    said: Mapping[str, str] | None = None,
) -> Context:
    """What is used: what the context says, else the profile, else the environment. A bad value is left out."""
    said = said or {}
    environment = around.environment
    region = (
        context.region or said.get("region") or environment.get("AWS_REGION") or environment.get("AWS_DEFAULT_REGION")
    )
    place = context.endpoint or endpoint or said.get("endpoint_url") or environment.get("AWS_ENDPOINT_URL")
    if place and "@" in place.partition("//")[2].partition("/")[0]:
        place = None  # it holds a password
    return Context(context.type, profile=profile, region=region or None, endpoint=place or None)
