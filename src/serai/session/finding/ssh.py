"""Finding ssh credentials: those of an agent, of ssh_config, and the default keys; and whether ssh could use them.

ssh itself passes over a key that it cannot use and says little about it, so each reason is looked for here: a file that
others may read, one that is no key, a passphrase that nobody could type, a certificate out of its time. Whether a host
takes a key is not known from here (`serai.access.ssh_credentials`).
"""

from __future__ import annotations

import glob
import os
import pwd
import shlex
import stat
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from serai.errors import AccessError
from serai.session.context import Context
from serai.session.finding.report import Finding, State, Surroundings
from serai.session.finding.ssh_judging import judge_certificate, judge_key
from serai.session.finding.ssh_reading import (
    ClientConfig,
    ConfigLine,
    PublicKey,
    expanded,
    read_certificates,
    read_client_config,
    read_config_lines,
    read_fingerprint,
    read_public_keys,
    why_no_key,
)
from serai.session.finding.ssh_tools import Tools

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

_NO_HOST = "no-host"  # matches what ssh_config says for all hosts
_MOST_CONFIGS = 64  # files that include each other
_DEEPEST = 16  # ssh's own limit of Include in Include
_MOST_IDENTITIES = 200
_LARGEST_BYTES = 1_000_000  # of a config or a key


@dataclass(frozen=True, slots=True)
class Agent:
    """What an agent said.

    Attributes:
        socket: its socket; None where there is no agent.
        keys: what it holds.
        trouble: why it does not answer.
    """

    socket: str | None = None
    keys: tuple[PublicKey, ...] = ()
    trouble: str | None = None

    @property
    def answers(self) -> bool:
        """Whether there is one that can be asked."""
        return self.socket is not None and self.trouble is None

    def holds(self, fingerprint: str | None) -> bool:
        """Whether it can sign with the key."""
        return fingerprint is not None and any(key.fingerprint == fingerprint for key in self.keys)


@dataclass(frozen=True, slots=True)
class KeyFile:
    """What was seen of a private key's file.

    Attributes:
        path: where it is.
        trouble: what is wrong: None, ``missing``, ``permissions``, ``unreadable``, ``format``, ``passphrase``,
            ``passphrase, unseen`` (its public half is not here, so it may be the agent's), ``public only``, or
            ``other public`` (the .pub beside it is of another key).
        detail: more about it.
        public: the public half, if it could be had.
        fingerprint: known also where the public half was not read.
    """

    path: str
    trouble: str | None
    detail: str = ""
    public: PublicKey | None = None
    fingerprint: str | None = None


def find_ssh(
    context: Context, around: Surroundings, *, host: str | None = None, words: Sequence[str] = ()
) -> list[Finding]:
    """The identities that ssh would have, one `Finding` each.

    Args:
        context: names one key or certificate, or none: then all that is found.
        around: where to look.
        host: what ssh_config says for this host; without one, all keys it names for whatever host.
        words: further arguments of ssh, such as ``("-F", "ssh_config")``.

    Raises:
        AccessError: OpenSSH is not installed, or does not accept its configuration.
    """
    return _Search(context, around, host, words).findings()


class _Search:
    """One search."""

    def __init__(self, context: Context, around: Surroundings, host: str | None, words: Sequence[str]) -> None:
        self._context = context
        self._around = around
        self._host = host
        self._words = [*words, *(["-l", context.user] if context.user else [])]
        self._tools = Tools(around.environment)
        self._config = self._read_config()
        self._agent = self._ask_agent()
        self._keys: dict[str, Finding] = {}  # by fingerprint
        self._certificates: set[str] = set()  # blobs of those that have their finding

    def findings(self) -> list[Finding]:
        found: list[Finding] = []
        if self._agent.trouble and self._context.key is None:
            found.append(
                Finding(
                    "ssh",
                    self._around.short(self._agent.socket or ""),
                    "agent",
                    State.UNUSABLE,
                    (self._agent.trouble,),
                    "start an agent (eval $(ssh-agent)) and add keys (ssh-add), or unset SSH_AUTH_SOCK",
                )
            )
        paths = []
        for path, source, silent in list(self._identities())[:_MOST_IDENTITIES]:
            key = self._look(path)
            if key.trouble != "missing" or not silent:
                found.append(self._key(key, source))
                paths.append((path, source))
        for path, source, silent in self._certificate_files(paths):
            public = _first_key(path)
            if public is not None and public.is_certificate:
                found.append(self._certificate(public, self._around.short(path), source, path))
            elif not silent:
                why = "it is not a certificate" if os.path.exists(path) else "it does not exist"
                hint = f"mend CertificateFile in {source}" if source != "context" else None
                found.append(Finding("ssh", self._around.short(path), source, State.UNUSABLE, (why,), hint))
        return found + (list(self._of_agent()) if self._context.key is self._context.cert is None else [])

    # ---- what there is

    def _read_config(self) -> ClientConfig:
        # Without a host, nothing is to be looked up for the name that stands in its place.
        still = ["-o", "CanonicalizeHostname=no"] if self._host is None else []
        words = ["ssh", *self._words, *still, "-G", "--", self._host or _NO_HOST]
        code, out, err = self._tools.ask(words)
        if code:
            raise AccessError(
                f"ssh does not accept its configuration: {'; '.join(err.split(chr(10))[:2]).strip('; ')}",
                host=self._host,
                command=shlex.join(words),
                hint="mend the file and the line it names",
            )
        return read_client_config(out)

    def _ask_agent(self) -> Agent:
        said = self._config.identity_agent
        if said == "none":
            return Agent()
        if said is None or said == "SSH_AUTH_SOCK":
            socket = self._around.environment.get("SSH_AUTH_SOCK")
        elif said.startswith("$") and not said.startswith("${"):
            socket = self._around.environment.get(said[1:])
        else:
            socket = self._path(said)
        if not socket:
            return Agent()
        code, out, err = self._tools.ask(["ssh-add", "-L"], agent=socket)
        if code in {0, 1}:  # 1: it holds nothing
            return Agent(socket, tuple(read_public_keys(out)))
        why = (err.strip().splitlines() or ["it said nothing"])[-1]
        return Agent(socket, (), f"the agent does not answer: {why}")

    def _identities(self) -> Iterator[tuple[str, str, bool]]:
        """Path, source, and whether it is passed over in silence when it is not there; each path once."""
        if self._context.key is not None:
            yield self._around.at_home(self._context.key), "context", False
            return
        if self._context.cert is not None:
            return
        named = {line.value: line for line in self._config_lines() if line.keyword == "identityfile"}
        written = [(one, one in named) for one in self._config.identity_files]
        if self._host is None:
            written += [(one, True) for one in named]
        done = set()
        for one, from_config in written:
            path = self._path(one)
            if one.lower() == "none" or path is None or path in done:
                continue  # a token such as %h has no meaning without its host
            done.add(path)
            if self._host is not None:
                source = f"ssh_config, for {self._host}" if from_config else "default"
            else:
                source = ("ssh_config " + named[one].block).strip() if from_config else "default"
            yield path, source, not from_config

    def _config_lines(self) -> list[ConfigLine]:
        chosen = [after for before, after in zip(self._words, self._words[1:], strict=False) if before == "-F"]
        paths = chosen or [os.path.join(self._around.home, ".ssh/config"), "/etc/ssh/ssh_config"]
        lines: list[ConfigLine] = []
        waiting = [(path, 0) for path in reversed(paths) if path != "none"]
        left = _MOST_CONFIGS
        while waiting and left:
            left -= 1
            path, depth = waiting.pop()
            base = "/etc/ssh" if path.startswith("/etc/ssh/") else os.path.join(self._around.home, ".ssh")
            for line in read_config_lines(_read(path)):
                lines.append(line)
                if line.keyword == "include" and depth < _DEEPEST:
                    pattern = os.path.join(base, self._path(line.value) or "")
                    waiting += [(one, depth + 1) for one in sorted(glob.glob(pattern), reverse=True)]
        return lines

    def _look(self, path: str) -> KeyFile:
        """What can be seen of a private key's file."""
        public = _first_key(f"{path}.pub")
        seen = KeyFile(path, None, public=public, fingerprint=public.fingerprint if public else None)
        try:
            status = os.stat(path)
            if not stat.S_ISREG(status.st_mode):
                return replace(seen, trouble="format", detail="it is no file")
            with open(path, "rb"):
                pass
        except (FileNotFoundError, NotADirectoryError):
            return replace(seen, trouble="public only" if public else "missing")
        except OSError as error:
            return replace(seen, trouble="unreadable", detail=error.strerror or str(error))
        own = _first_key(path)
        if own:  # IdentityFile may name a public key whose private half only an agent has
            return KeyFile(path, "public only", public=own, fingerprint=own.fingerprint)
        if status.st_uid == self._around.uid and stat.S_IMODE(status.st_mode) & 0o077:
            return replace(seen, trouble="permissions", detail=f"{stat.S_IMODE(status.st_mode):04o}")
        return self._load(path, seen)

    def _load(self, path: str, seen: KeyFile) -> KeyFile:
        """What ssh-keygen makes of it."""
        public = seen.public
        # An empty passphrase is no secret: with it, nothing is asked, and a key that has another one says so.
        code, out, err = self._tools.ask(["ssh-keygen", "-y", "-P", "", "-f", path])
        if code == 0 and (keys := read_public_keys(out)):
            other = public is not None and public.blob != keys[0].blob
            return KeyFile(path, "other public" if other else None, public=keys[0], fingerprint=keys[0].fingerprint)
        trouble = why_no_key(err)
        if trouble == "passphrase" and seen.fingerprint is None:
            _, out, _ = self._tools.ask(["ssh-keygen", "-l", "-f", path])  # the newer format has it in the clear
            seen = replace(seen, fingerprint=read_fingerprint(out))
            if seen.fingerprint is None and self._agent.keys:
                trouble = "passphrase, unseen"
        return replace(seen, trouble=trouble, detail=(err.strip().splitlines() or [""])[-1])

    def _certificate_files(self, keys: Sequence[tuple[str, str]]) -> Iterator[tuple[str, str, bool]]:
        """Path, source, and whether it is passed over in silence when it is not there."""
        if self._context.cert is not None:
            yield self._around.at_home(self._context.cert), "context", False
            return
        done = set()
        for path, source in keys:
            done.add(f"{path}-cert.pub")
            yield f"{path}-cert.pub", source, True
        if self._context.key is None:
            for name in self._config.certificate_files:
                path_or_none = self._path(name)
                if path_or_none is not None and name.lower() != "none" and path_or_none not in done:
                    yield path_or_none, "ssh_config", False

    def _path(self, written: str) -> str | None:
        """A path of ssh_config; None where it has no meaning without what is not known here."""
        user = self._user_here()
        tokens = {"%": "%", "d": self._around.home, "u": user, "i": str(self._around.uid)}
        if self._host is not None:
            tokens |= {"h": self._config.host_name, "n": self._host, "r": self._config.user}
        path = expanded(written, tokens, self._around.environment.get)
        return None if path is None else self._around.at_home(path)

    def _user_here(self) -> str:
        try:
            return pwd.getpwuid(self._around.uid).pw_name
        except KeyError:
            return str(self._around.uid)

    # ---- what is said of it

    def _key(self, key: KeyFile, source: str) -> Finding:
        held = self._agent.holds(key.fingerprint)
        fido = key.public is not None and key.public.is_fido
        name = self._around.short(key.path)
        state, reasons, hint = judge_key(name, key.trouble, key.detail, held=held, agent=self._agent.answers, fido=fido)
        if key.trouble is None and not os.path.exists(f"{key.path}.pub"):
            reasons = (*reasons, "its .pub file is missing, which ssh does without")
        finding = Finding(
            "ssh",
            name,
            f"{source}, agent" if held else source,
            state,
            reasons,
            hint,
            context=Context("ssh", user=self._context.user, key=key.path),
            fingerprint=key.fingerprint,
            public=key.public.line if key.public else None,
            agent=held,
        )
        if key.fingerprint:
            self._keys.setdefault(key.fingerprint, finding)
        return finding

    def _certificate(self, public: PublicKey, name: str, source: str, path: str | None) -> Finding:
        self._certificates.add(public.blob)
        _, out, err = self._tools.ask(["ssh-keygen", "-L", "-f", "-"], stdin=public.line + "\n")
        read = read_certificates(out)
        if not read:
            why = (err.strip().splitlines() or ["ssh-keygen cannot read it"])[-1]
            return Finding("ssh", name, source, State.UNUSABLE, (why,))
        certificate = read[0]
        key = self._keys.get(certificate.key_fingerprint)
        held = self._agent.holds(certificate.key_fingerprint) or any(
            one.blob == public.blob for one in self._agent.keys
        )
        state, reasons, hint = judge_certificate(
            certificate,
            now=self._around.now,
            user=self._config.user if self._host is not None else self._context.user,
            key=State.USABLE if held else key.state if key else None,
        )
        named = key.context.key if key and key.context else None
        return Finding(
            "ssh",
            name,
            source,
            state,
            reasons,
            hint,
            expires=certificate.valid_to,
            context=Context("ssh", user=self._context.user, key=named, cert=path),
            fingerprint=certificate.key_fingerprint,
            public=public.line,
            agent=held,
        )

    def _of_agent(self) -> Iterator[Finding]:
        """What only the agent has."""
        for key in self._agent.keys[:_MOST_IDENTITIES]:
            name = key.comment or key.fingerprint
            if key.is_certificate:
                if key.blob not in self._certificates:
                    yield self._certificate(key, f"{name}, certificate", "agent", None)
                continue
            if key.fingerprint in self._keys:
                continue
            state, reasons, hint = judge_key(name, None, "", held=True, agent=True, fido=key.is_fido)
            if self._config.identities_only:
                state, reasons = State.UNUSABLE, ("ssh_config says IdentitiesOnly, and no IdentityFile names it",)
                hint = "write its public half to a file and name that as IdentityFile"
            yield Finding(
                "ssh",
                name,
                "agent",
                state,
                reasons,
                hint,
                context=Context("ssh", user=self._context.user),
                fingerprint=key.fingerprint,
                public=key.line,
                agent=True,
            )


def _first_key(path: str) -> PublicKey | None:
    """The public key or certificate in a file."""
    keys = read_public_keys(_read(path))
    return keys[0] if keys else None


def _read(path: str) -> str:
    """The text of a file; empty where there is none that can be read."""
    try:
        if not stat.S_ISREG(os.stat(path).st_mode):
            return ""  # a pipe would be waited for
        with open(path, "rb") as file:
            return file.read(_LARGEST_BYTES).decode("utf-8", "surrogateescape")
    except (OSError, ValueError):
        return ""
