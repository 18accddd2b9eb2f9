"""Which of the found keys does a host accept? Each is tried alone, over the user's own ssh configuration.

ssh tries one key after the other, and a host stops listening after a few (MaxAuthTries): which of them it would have
taken is not said. So each key gets an attempt of its own, by a configuration in which everything about the way to the
host is as ``ssh -G`` says, and only the identity differs. **Each attempt is a login** in the host's log; no session is
opened, so no command (forced ones neither) is run there. Of a certificate only the host's word is had that it would
take it, before anything is signed.
"""

from __future__ import annotations

import contextlib
import os
import re
import shlex
import shutil
import signal
import subprocess
import tempfile
import threading
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from serai.access.ssh_errors import FAILED, explain
from serai.errors import AccessError, LoginRefused
from serai.session.context import config_word
from serai.session.finding import State
from serai.session.finding.ssh_tools import Tools

if TYPE_CHECKING:
    from collections.abc import Sequence

    from serai.access.ssh_options import Target
    from serai.session.finding import Finding, Surroundings

AT_ONCE = 4  # well under the 10 unauthenticated connections that sshd takes before it drops some (MaxStartups)
DEADLINE_S = 15.0
_END_S = 2.0  # for ssh to end when it has said its last word
_MOST_LINES = 5000
_MOST_TRIALS = 100
# What leads to a host and checks that it is the one; everything else of the user's configuration is left out.
_THE_WAY = frozenset({
    "addressfamily", "bindaddress", "bindinterface", "casignaturealgorithms", "checkhostip", "ciphers",
    "connectionattempts", "globalknownhostsfile", "hostkeyalgorithms", "hostkeyalias", "hostname", "identityagent",
    "ipqos", "kexalgorithms", "knownhostscommand", "macs", "nohostauthenticationforlocalhost", "port", "proxycommand",
    "proxyusefdpass", "rekeylimit", "requiredrsasize", "revokedhostkeys", "rsaminsize", "securitykeyprovider",
    "stricthostkeychecking", "tcpkeepalive", "user", "userknownhostsfile", "verifyhostkeydns",
})  # fmt: skip
_ALGORITHMS = ("pubkeyacceptedalgorithms", "pubkeyacceptedkeytypes")  # the second before OpenSSH 8.5
_OURS = (
    "BatchMode yes", "PreferredAuthentications publickey", "PubkeyAuthentication yes", "IdentitiesOnly yes",
    "ControlMaster no", "ControlPath none", "UpdateHostKeys no", "AddKeysToAgent no", "ForwardAgent no",
    "ForwardX11 no", "CanonicalizeHostname no", "PermitLocalCommand no",
)  # fmt: skip
_AUTHENTICATED = re.compile(r'^Authenticated to .* using "([^"]*)"', re.MULTILINE)
_PARTIAL = re.compile(r'^Authenticated using "publickey" with partial success', re.MULTILINE)
_GOES_ON = re.compile(r"^debug1: Authentications that can continue: (\S+)", re.MULTILINE)
_SIGNING = re.compile(r"^(?:sign_and_send_pubkey: )?(sign(?:ing)? failed.*)$", re.MULTILINE)


def try_all(
    target: Target, findings: Sequence[Finding], around: Surroundings, *, deadline_s: float = DEADLINE_S
) -> list[Finding]:
    """Asks a host about each key that could be used: one login each, four at the same time. Never asks a person.

    Args:
        target: the host; a context in it does not matter, since each key is tried.
        findings: as `serai.session.finding.find` gives them for this host. Those that are unusable stay as they are.
        around: the environment that ssh gets, which names the agent.
        deadline_s: for each attempt.

    Returns:
        The same findings with what the host said of them: *usable* is what it accepts, *unusable* what it refuses; and
        *unknown* where the host was not reached, is not the one that is known, or wants more than a key.

    Raises:
        AccessError: ssh does not accept its configuration, or is not installed.
    """
    trials = [one for one in findings if _worth_trying(one)][:_MOST_TRIALS]
    if not trials:
        return list(findings)
    words = ["ssh", *target.words(), "-G", "--", target.host]
    code, out, err = Tools(around.environment).ask(words)
    if code:
        raise explain(target.host, err, code, shlex.join(words))
    room = tempfile.mkdtemp(prefix="serai-keys-")
    try:
        host = _Host(target, out, room, dict(around.environment), deadline_s)
        with ThreadPoolExecutor(AT_ONCE, "ssh-key") as threads:
            tried = dict(zip(map(id, trials), threads.map(host.attempt, trials, range(len(trials))), strict=True))
    finally:
        shutil.rmtree(room, ignore_errors=True)
    return [tried.get(id(one), one) for one in findings]


def _worth_trying(finding: Finding) -> bool:
    named = finding.public is not None or (finding.context is not None and finding.context.key is not None)
    return finding.type == "ssh" and finding.state is not State.UNUSABLE and named


class _Host:
    """Attempts at one host. A failure that is not about a key ends those that have not begun."""

    def __init__(
        self, target: Target, settings: str, room: str, environment: dict[str, str], deadline_s: float
    ) -> None:
        self._target = target
        self._settings = settings
        self._room = room
        self._environment = environment | {"LC_ALL": "C"}
        self._deadline_s = deadline_s
        self._failed: Finding | None = None

    def attempt(self, finding: Finding, number: int) -> Finding:
        failed = self._failed
        if failed is not None:
            return replace(finding, state=State.UNKNOWN, reasons=failed.reasons, hint=failed.hint)
        identity = self._identity(finding, number)
        config = os.path.join(self._room, f"{number}.conf")
        algorithms = "certificate" if _is_certificate(finding) else "key"
        with open(config, "w", encoding="utf-8", errors="surrogateescape") as file:
            file.write(config_for(self._settings, identity, algorithms, self._target.config, self._deadline_s))
        # Whether the host knows a key is asked before anything is signed. A security key would have to be touched for
        # that; and for a certificate ssh takes its plain key, which is left out here because it would be offered first.
        asked_only = finding.public is not None and (finding.public.startswith("sk-") or _is_certificate(finding))
        words = ["ssh", "-F", config, "-v", "-N", "-T", "--", self._target.host]
        said = _said(words, self._environment, self._deadline_s, "Server accepts key: " if asked_only else "\0")
        judged = judge_attempt(finding, said, self._target.host, self._deadline_s)
        if judged.state is State.UNKNOWN and not said.about_the_key:
            self._failed = judged
        return judged

    def _identity(self, finding: Finding, number: int) -> list[str]:
        """The lines of configuration that name one identity."""
        context = finding.context
        key = context.key if context else None
        lines = []
        if finding.agent and finding.public is not None:
            public = os.path.join(self._room, f"{number}.pub")
            with open(public, "w", encoding="utf-8", errors="surrogateescape") as file:
                file.write(finding.public + "\n")
            if _is_certificate(finding):
                lines.append(f"CertificateFile {config_word(public)}")
            lines.append(f"IdentityFile {config_word(key if key and _is_certificate(finding) else public)}")
            return lines
        lines.append("IdentityAgent none")
        if key is not None:
            lines.append(f"IdentityFile {config_word(key)}")
        if context is not None and context.cert is not None:
            lines.append(f"CertificateFile {config_word(context.cert)}")
        return lines


def config_for(settings: str, identity: Sequence[str], algorithms: str, config: str | None, deadline_s: float) -> str:
    """A configuration for one identity: the way is the user's, the identity is named, and nobody is asked. Pure.

    Args:
        settings: what ``ssh -G`` printed.
        identity: lines that name the identity; they win over the user's.
        algorithms: ``certificate`` or ``key``: ssh would offer the other one as well.
        config: the file of ``ssh -F``, which a jump host needs.
        deadline_s: for the connection.
    """
    lines = [*identity, *_OURS, f"ConnectTimeout {max(1, round(deadline_s))}"]
    for line in settings.splitlines():
        name, _, value = line.partition(" ")
        if name == "proxyjump" and value != "none":
            lines.append(f"ProxyCommand {_jump(value, config)}")
        elif name in _ALGORITHMS:
            chosen = [one for one in value.split(",") if ("-cert-" in one) == (algorithms == "certificate")]
            lines.append(f"{name} {','.join(chosen)}")
        elif name == "stricthostkeychecking" and value in {"no", "off", "false"}:
            lines.append("StrictHostKeyChecking yes")
        elif name in _THE_WAY and value:
            lines.append(f"{name} {value}")
    return "".join(f"{line}\n" for line in lines)


def _jump(jumps: str, config: str | None) -> str:
    """What ssh makes of ProxyJump; by itself it would give the jump host the configuration of the attempt."""
    before, _, last = jumps.rpartition(",")
    words = ["ssh", *(["-F", config] if config else []), *(["-J", before] if before else []), "-o", "BatchMode=yes"]
    last = last if last.startswith("ssh://") else f"ssh://{last}"
    return shlex.join(words).replace("%", "%%") + f" -W '[%h]:%p' {shlex.quote(last).replace('%', '%%')}"


@dataclass(frozen=True, slots=True)
class Said:
    """What ssh said in an attempt.

    Attributes:
        text: its standard error, with the lines of ``-v``.
        code: its exit status; None when it was ended by us because enough was known, or the deadline came.
        late: the deadline came.
    """

    text: str
    code: int | None
    late: bool

    @property
    def about_the_key(self) -> bool:
        """Whether the host listened to keys at all: what failed before is the same for all of them."""
        return "Authentications that can continue" in self.text


def judge_attempt(finding: Finding, said: Said, host: str, deadline_s: float) -> Finding:
    """What an attempt says about a key: pure."""
    authenticated, partial = _AUTHENTICATED.search(said.text), _PARTIAL.search(said.text)
    signing, accepted = _SIGNING.search(said.text), "debug1: Server accepts key: " in said.text
    touched = finding.public is not None and finding.public.startswith("sk-")
    state, reason = State.UNUSABLE, f"{host} does not accept it"
    key = finding.context.key if finding.context and finding.context.key else "KEY"
    hint: str | None = f"ssh-copy-id -i {shlex.quote(key)} {host}, or ask its owner"
    if _is_certificate(finding):
        hint = "does the host trust who signed it (TrustedUserCAKeys), and map its principals to this user?"
    error = explain(host, said.text, FAILED if said.code is None else said.code, f"ssh {host}")
    if authenticated and authenticated[1] == "publickey":
        state, reason, hint = State.USABLE, f"{host} accepts it", None
    elif authenticated:
        state, reason, hint = State.UNKNOWN, f"{host} lets everybody in ({authenticated[1]})", None
    elif partial:
        more = _GOES_ON.findall(said.text)[-1:]
        state, reason = State.UNKNOWN, f"{host} accepts it and asks for more: {', '.join(more)}"
        hint = "it needs a terminal; an open ControlMaster is used as it is"
    elif signing:
        reason, hint = f"{host} would accept it, and it did not sign: {signing[1]}", "ssh-add -l: is it still there?"
    elif accepted and (touched or _is_certificate(finding)):
        state, reason, hint = State.UNKNOWN if touched else State.USABLE, f"{host} accepts it", finding.hint
    elif said.late:
        state, reason = State.UNKNOWN, f"{host} did not answer within {deadline_s:g} s"
        hint = f"`ssh -v {host}` shows how far it gets"
    elif not isinstance(error, LoginRefused) or not said.about_the_key:
        state, reason, hint = State.UNKNOWN, error.what, error.hint
    elif "debug1: Offering public key: " not in said.text:
        reason = "ssh did not offer it: the host and ssh share no algorithm for it, or it cannot be loaded"
        hint = f"`ssh -v -i {shlex.quote(key)} {host}` says more"
    return replace(finding, state=state, reasons=(reason, *finding.reasons), hint=hint)


def _is_certificate(finding: Finding) -> bool:
    return finding.public is not None and "-cert-v" in finding.public.partition(" ")[0]


def _said(words: Sequence[str], environment: dict[str, str], deadline_s: float, enough: str) -> Said:
    """Runs ssh until it has logged in, or `enough` shows in a line, or it ended, or the deadline came."""
    try:
        process = subprocess.Popen(
            words,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            env=environment,
            start_new_session=True,  # so that what ssh starts ends with it, and nothing is asked on a terminal
        )
    except FileNotFoundError:
        raise AccessError("there is no ssh on this machine", hint="install OpenSSH's client") from None
    late = threading.Event()

    def end() -> None:
        late.set()
        _end_group(process.pid)

    timer = threading.Timer(deadline_s, end)
    timer.start()
    lines: list[str] = []
    known = False  # that it ended by itself is not to be waited for
    for raw in process.stderr or ():
        line = raw.decode("utf-8", "replace").rstrip("\r\n")
        lines.append(line)
        known = line.startswith("Authenticated to ") or enough in line or len(lines) >= _MOST_LINES
        if known:
            break
    timer.cancel()
    try:
        code = None if known else process.wait(_END_S)
    except subprocess.TimeoutExpired:
        code = None
    if code is None:
        process.terminate()
        try:
            process.wait(_END_S)
        except subprocess.TimeoutExpired:
            _end_group(process.pid)
            process.wait()
    if process.stderr is not None:
        process.stderr.close()
    return Said("\n".join(lines), code, late.is_set())


def _end_group(pid: int) -> None:
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(pid, signal.SIGKILL)
