"""Whether ssh could use an identity: pure, from what was seen of it. The words are for the person who must mend it."""

from __future__ import annotations

import shlex
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from serai.session.finding.report import State

if TYPE_CHECKING:
    from serai.session.finding.ssh_reading import Certificate

Judgement = tuple[State, tuple[str, ...], str | None]

_TOUCH = "its security key must be plugged in, and perhaps touched, at every login"


def judge_key(name: str, trouble: str | None, detail: str, *, held: bool, agent: bool, fido: bool) -> Judgement:
    """Judges a private key.

    Args:
        name: the path, as people read it.
        trouble: as of `serai.session.finding.ssh.KeyFile`.
        detail: more about it.
        held: whether the agent can sign with it; then its file is not needed.
        agent: whether there is an agent.
        fido: whether a security key signs.

    Returns:
        The state, reasons and a hint.
    """
    file = name.replace("~/", "$HOME/", 1) if name.startswith("~/") and " " in name else name
    file = file if file.startswith("~/") else shlex.quote(file)
    add = f"ssh-add {file}" if agent else f'eval "$(ssh-agent)" && ssh-add {file}'
    reasons: dict[str, tuple[str, str | None]] = {
        "missing": ("the file does not exist", "mend the path, or take the IdentityFile out of ssh_config"),
        "unreadable": (f"it cannot be read: {detail}", None),
        "permissions": (f"others may read it (mode {detail}), so ssh refuses it", f"chmod 600 {file}"),
        "format": (f"it is no private key: {detail}", "is it a PuTTY key, or was the file damaged?"),
        "passphrase": ("it has a passphrase and is not in the agent, so it needs a terminal", add),
        "public only": ("only its public half is here, and the agent does not have it", "add the key to the agent"),
        "other public": (f"{name}.pub is of another key", f"ssh-keygen -y -f {file} > {file}.pub"),
    }
    if held:
        state = State.UNKNOWN if fido else State.USABLE
        notes = [_TOUCH] if fido else []
        if trouble in {"permissions", "unreadable", "format"}:
            notes.append(f"by the agent; of the file: {reasons[trouble][0]}")
        return state, tuple(notes), None
    if trouble == "passphrase, unseen":
        why = "it has a passphrase, and without its .pub file nobody can say whether the agent holds it"
        return State.UNKNOWN, (why,), f"ssh-keygen -y -f {file} > {file}.pub"
    if trouble is not None:
        why, hint = reasons[trouble]
        return State.UNUSABLE, (why,), hint
    return (State.UNKNOWN, (_TOUCH,), None) if fido else (State.USABLE, (), None)


def judge_certificate(certificate: Certificate, *, now: float, user: str | None, key: State | None) -> Judgement:
    """Judges a certificate.

    Args:
        certificate: what ssh-keygen says of it.
        now: seconds since the epoch.
        user: whom one would log in as; None when that is not known.
        key: the state of its private key; None when that was not found.

    Returns:
        The state, reasons and a hint.
    """
    why: tuple[str, str | None] | None = None
    if not certificate.for_user:
        why = ("it is a host's certificate, not a user's", None)
    elif certificate.valid_to is not None and now >= certificate.valid_to:
        why = (f"it expired {_instant(certificate.valid_to)}", "have it signed anew")
    elif certificate.valid_from is not None and now < certificate.valid_from:
        why = (f"it is not valid before {_instant(certificate.valid_from)}", "wait, or look at this machine's clock")
    elif key is None:
        why = ("its private key was not found", "name the key as IdentityFile, or add it to the agent")
    elif key is State.UNUSABLE:
        why = ("its private key cannot be used", None)
    if why is not None or key is None:
        return State.UNUSABLE, (why[0],) if why else (), why[1] if why else None
    return _for_user(certificate, user, key)


def _for_user(certificate: Certificate, user: str | None, key: State) -> Judgement:
    notes = [f"the host is told: {one}" for one in certificate.critical]
    if not certificate.principals:
        return State.UNKNOWN, ("it names no principals, which most hosts refuse", *notes), "have it signed with -n USER"
    if user is not None and user not in certificate.principals:
        names = ", ".join(certificate.principals[:5])
        return State.UNKNOWN, (f"it is for {names}, not for {user}; some hosts map such names", *notes), None
    return key, tuple(notes), None


def _instant(at: float) -> str:
    return datetime.fromtimestamp(at, UTC).strftime("%Y-%m-%d %H:%M UTC")
