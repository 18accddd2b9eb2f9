"""What ssh says, told as one of Serai's errors.

`explain` is pure: it is given what ssh left on its standard error and its exit status. ssh itself fails with 255; 126
and 127 come from the shell on the host and mean that the interpreter could not be started.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from serai.errors import AccessError, HostKeyRefused, HostUnknown, HostUnreachable, LoginRefused, NoPython

FAILED = 255  # ssh's own exit status, as opposed to that of the command on the host
_NOT_STARTED = frozenset({126, 127})
_MOST_EVIDENCE = 12  # lines


@dataclass(frozen=True, slots=True)
class _Rule:
    """A message of ssh and what it means.

    Attributes:
        pattern: found anywhere in the standard error; its groups fill the sentence and the hint.
        kind: the error it is.
        what: the sentence; ``{0}`` is the matched text, ``{1}`` … its groups, ``{host}`` the host.
        hint: what the reader can do, filled in the same way.
    """

    pattern: re.Pattern[str]
    kind: type[AccessError]
    what: str
    hint: str


def _rule(pattern: str, kind: type[AccessError], what: str, hint: str) -> _Rule:
    return _Rule(re.compile(pattern, re.MULTILINE), kind, what, hint)


_BY_HAND = (
    "run `ssh {host}` once by hand and compare the fingerprint with one from a source you trust "
    "(`ssh-keyscan HOST | ssh-keygen -lf -` shows what the host offers)"
)
_CHANGED = (
    "if the machine was installed anew, compare the fingerprint with one from a source you trust, "
    "remove the old key with `ssh-keygen -R HOST`, and run `ssh {host}` once by hand"
)
_NAME = "look at the name; `ssh -G {host}` shows what your ssh_config makes of it"
_CONFIG = "`ssh -G {host}` says the same; mend the file it names"
_BUSY = "see whether `ssh {host} true` works; a host limits logins at the same time (MaxStartups in its sshd_config)"

# The first rule that matches wins. What is specific stands before what merely follows from it: a closed connection is
# the last line of many stories.
_RULES = (
    _rule(
        r"REVOKED HOST KEY|^Host key .* revoked by file", HostKeyRefused, "its host key is marked as revoked", _CHANGED
    ),
    _rule(r"HOST IDENTIFICATION HAS CHANGED", HostKeyRefused, "its host key is not the one that is known", _CHANGED),
    _rule(
        r"No (\S+) host key is known for (\S+) and",
        HostKeyRefused,
        "no {1} host key is known for {2}",
        _BY_HAND,
    ),
    _rule(
        r"Host key verification failed\.(?:.*\n)+.*UNKNOWN port 65535",
        HostKeyRefused,
        "the host key of a jump host is not known",
        _BY_HAND,
    ),
    _rule(r"Host key verification failed", HostKeyRefused, "its host key is not known", _BY_HAND),
    _rule(
        r"Too many authentication failures",
        LoginRefused,
        "the host stopped listening after too many keys",
        "name the key in ssh_config: IdentityFile …, with IdentitiesOnly yes",
    ),
    _rule(
        r"^(?:(\S+): )?Permission denied \(([^)]*)\)",
        LoginRefused,
        "no credential was accepted for {1}; the host takes {2}",
        "`ssh -v {host}` shows which keys are offered; `ssh-add -l` which the agent holds",
    ),
    _rule(
        r"^(?:This account is currently not available|.*(?:account|password) has expired).*$",
        LoginRefused,
        "the account cannot be used: {0}",
        "ask the host's administrator",
    ),
    _rule(
        r"Could not resolve hostname (\S+): (Name or service not known|nodename nor servname provided.*)$",
        HostUnknown,
        "the name {1} is not known: {2}",
        _NAME,
    ),
    _rule(r"Could not resolve hostname (\S+): (.*)$", HostUnreachable, "the name {1} is not known: {2}", _NAME),
    _rule(
        r"connect to host (\S+) port (\d+): Connection refused",
        HostUnreachable,
        "{1} refuses connections on port {2}",
        "is sshd running there, and on this port?",
    ),
    _rule(
        r"connect to host (\S+) port (\d+): (.*)$",
        HostUnreachable,
        "{1} port {2} cannot be reached: {3}",
        "is the host up, and is a VPN or a jump host (ProxyJump) needed from here?",
    ),
    _rule(
        r"(?:channel 0: open failed: (.*)\n(?:.*\n)*?)?.*stdio forwarding failed",
        HostUnreachable,
        "the jump host cannot reach it: {1}",
        "look at ProxyJump in ssh_config, and whether the host is up",
    ),
    _rule(
        r"Timeout, server (\S+) not responding",
        HostUnreachable,
        "it stopped answering",
        "the network or the host went away; ServerAliveInterval and ServerAliveCountMax say how soon that is noticed",
    ),
    _rule(
        r"Connection timed out during banner exchange|Connection to \S+ port \d+ timed out",
        HostUnreachable,
        "it took the connection and then did not answer",
        "the host may be overloaded; see whether `ssh {host} true` works",
    ),
    _rule(
        r"Session open refused by peer",
        AccessError,
        "it allows no further session over this connection",
        "MaxSessions in its sshd_config limits them (10 unless set); Serai needs one, and one more for each transfer",
    ),
    _rule(
        r"Unable to negotiate with .*: (no matching .*)$",
        AccessError,
        "ssh and the host have no algorithm in common: {1}",
        "set the algorithm for this host in ssh_config, as ssh_config(5) describes",
    ),
    _rule(
        r"^.*(?:Bad configuration option|bad configuration options|Bad owner or permissions on|"
        r"Can't open user config file|extra arguments at end of line|Unsupported option|[Mm]issing argument|"
        r"no argument after keyword|line \d+: Bad ).*$",
        AccessError,
        "ssh does not accept its configuration: {0}",
        _CONFIG,
    ),
    _rule(
        r"UNKNOWN port 65535",
        HostUnreachable,
        "the connection is gone",
        "see whether `ssh {host} true` works; with a ProxyCommand or ProxyJump, whether that does",
    ),
    _rule(
        r"^.*(?:Connection (?:closed|reset) by|closed by remote host|kex_exchange_identification|banner exchange|"
        r"ssh_dispatch_run_fatal|Broken pipe|[Cc]onnection to \S+ closed|to master closed).*$",
        HostUnreachable,
        "the host closed the connection: {0}",
        _BUSY,
    ),
)

# Lines that say what was tried on the way. Offered keys are visible only if the user's config sets LogLevel DEBUG.
_EVIDENCE = re.compile(
    r"Offering public key|Offending .* key in|Load key |sign_and_send_pubkey|no such identity|"
    r"UNPROTECTED PRIVATE KEY|Certificate invalid|refused operation|Server accepts key"
)
_DEBUG = re.compile(r"^debug\d: ")
_GONE = re.compile(r"^(?:mux_client_.*|.*UNKNOWN port 65535|Control socket connect.*)\s*\Z", re.MULTILINE)


def explain(host: str, stderr: str, returncode: int, command: str) -> AccessError:
    """The error that ssh's end means.

    Args:
        host: the host as the user names it.
        stderr: what ssh (and the shell on the host) said.
        returncode: the exit status; negative for a signal, as in ``subprocess``.
        command: the command that was run, without secrets.

    Returns:
        The error, not raised. Where nothing fits it is an `AccessError` with ssh's last line.
    """
    lines = [line.strip() for line in stderr.splitlines() if line.strip()]
    tried = tuple(_DEBUG.sub("", line) for line in lines if _EVIDENCE.search(line))[-_MOST_EVIDENCE:]
    spoken = [line for line in lines if not _DEBUG.match(line)]
    last = spoken[-1] if spoken else "it said nothing"
    if returncode in _NOT_STARTED:
        return NoPython(
            f"the interpreter could not be started: {last}",
            host=host,
            command=command,
            tried=tried,
            hint="name the interpreter in the host's URL: ?python=/path/to/python3",
        )
    text = "\n".join(spoken)
    for rule in _RULES:
        found = rule.pattern.search(text)
        if found:
            parts = [part or "no reason given" for part in (found[0], *found.groups())]
            parts = [part.strip().removesuffix(".") for part in parts]
            what, hint = (form.format(*parts, host=host) for form in (rule.what, rule.hint))
            return rule.kind(what, host=host, command=command, tried=tried, hint=hint)
    ended = f"signal {-returncode} ended ssh" if returncode < 0 else f"ssh ended with {returncode}"
    return AccessError(
        f"{ended}: {last}", host=host, command=command, tried=tried, hint=f"`ssh -v {host}` tells the whole story"
    )


def is_carrier(stderr: str) -> bool:
    """Whether the last line is that of an ssh whose master is gone or refuses, and not the command's own."""
    return _GONE.search(stderr) is not None
