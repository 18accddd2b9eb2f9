"""`serai contexts`: which credentials there are, whether they can be used, and whether a host accepts them."""

from __future__ import annotations

import json
import os
import shutil
import textwrap
import time
from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from collections.abc import Sequence

    from serai.session.finding import Finding, Surroundings

WIDTH = 100
MARKS = {"usable": ("✓", "green"), "unusable": ("✗", "red"), "unknown": ("?", "yellow")}
WIDEST_NAME = 48


@click.command()
@click.argument("host", required=False)
@click.option("-F", "--ssh-config", metavar="FILE", help="Read this instead of ~/.ssh/config.")
@click.option("--instance", is_flag=True, help="Ask the cloud's metadata service whether this machine has a role.")
@click.option("--json", "as_json", is_flag=True, help="Print a list of objects.")
def contexts(host: str | None, ssh_config: str | None, *, instance: bool, as_json: bool) -> int:
    """List your credentials, and say of each whether it can be used.

    With a HOST ([USER@]HOST or ssh://[USER@]HOST[:PORT]) only those for ssh, and each key that could be used is tried
    there alone: one login each. Nobody is asked for a passphrase.

    Exit code: 0 when something can be used, or no HOST is given; else 1.
    """
    from serai.clock import SystemClock  # noqa: PLC0415 - `serai --help` does without
    from serai.session.finding import State, Surroundings, find  # noqa: PLC0415 - the same

    around = Surroundings.here(SystemClock(), ask_instance=instance)
    config = ssh_config or os.environ.get("SERAI_SSH_CONFIG")
    words = ("-F", os.path.expanduser(config)) if config else ()
    found = find(None, around, ssh_words=words) if host is None else _for_host(host, words, around)
    if as_json:
        click.echo(json.dumps([as_object(one) for one in found], indent=2))
    elif found:
        width = max(40, min(WIDTH, shutil.get_terminal_size((WIDTH, 24)).columns))
        click.echo("\n".join(table(found, around.now, width)))
    else:
        click.echo("no credentials were found: ssh-keygen makes a key, ssh-copy-id HOST takes it to a host", err=True)
    return 0 if host is None or any(one.state is State.USABLE for one in found) else 1


def _for_host(host: str, words: Sequence[str], around: Surroundings) -> list[Finding]:
    from serai.access.ssh_credentials import try_all  # noqa: PLC0415 - `serai --help` does without
    from serai.access.ssh_options import Target  # noqa: PLC0415 - the same
    from serai.errors import UsageError  # noqa: PLC0415 - the same
    from serai.session.context import Context  # noqa: PLC0415 - the same
    from serai.session.finding import find  # noqa: PLC0415 - the same
    from serai.session.url import Url  # noqa: PLC0415 - the same

    url = Url.parse(host if "://" in host else f"ssh://{host}")
    if url.scheme != "ssh" or not url.host:
        raise UsageError(f"{url} is not an ssh host", hint="name one as ssh does: serai contexts [USER@]HOST")
    target = Target(url.host, url.user, url.port, words[1] if words else None)
    port = () if url.port is None else ("-p", str(url.port))
    found = find([Context("ssh", user=url.user)], around, host=url.host, ssh_words=(*words, *port))
    return try_all(target, found, around)


def as_object(finding: Finding) -> dict[str, Any]:
    """A finding for programs; times are seconds since the epoch."""
    return {
        "type": finding.type,
        "name": finding.name,
        "source": finding.source,
        "state": str(finding.state),
        "reasons": list(finding.reasons),
        "hint": finding.hint,
        "expires": finding.expires,
        "fingerprint": finding.fingerprint,
    }


def table(findings: Sequence[Finding], now: float, width: int = WIDTH) -> list[str]:
    """Findings as lines of at most ``width`` characters, with colours; what is to be said of one stands below it.

    Args:
        findings: in the order to show.
        now: seconds since the epoch.
        width: at least 40.
    """
    from serai.cli.sentences import clean, cut  # noqa: PLC0415 - `serai --help` does without
    from serai.cli.tables import aligned  # noqa: PLC0415 - the same

    rows = [
        (
            MARKS[one.state][0],
            one.type,
            cut(one.name, WIDEST_NAME),
            str(one.state),
            "" if one.expires is None else until(one.expires, now),
            cut(one.source, WIDEST_NAME),
        )
        for one in findings
    ]
    lines = aligned(("", "type", "what", "state", "expires", "from"), rows, right=set(), width=width)
    shown = [click.style(lines[0], bold=True)]
    for one, line in zip(findings, lines[1:], strict=True):
        shown.append(click.style(line[:1], fg=MARKS[one.state][1]) + line[1:])
        said = [*one.reasons, *([f"hint: {one.hint}"] if one.hint else [])]
        for text in said:
            shown += textwrap.wrap(
                clean(text).replace("\n", " "), width, initial_indent="     ", subsequent_indent="       "
            )
    return shown


def until(expires: float, now: float) -> str:
    """``in 3h 12min``, ``2025-11-02``: how long something is valid, or the day it ended or will."""
    from serai.quantity import format_seconds  # noqa: PLC0415 - `serai --help` does without

    left = expires - now
    if 0 < left < 2 * 86400:
        return f"in {format_seconds(round(left))}"
    return time.strftime("%Y-%m-%d", time.gmtime(expires))
