"""Finding credentials, and saying of each whether it can be used: one module per type."""

from __future__ import annotations

from typing import TYPE_CHECKING

from serai.session.finding.report import Finding, Secret, State, Surroundings

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from serai.session.context import Context

__all__ = ["Finding", "Secret", "State", "Surroundings", "find"]


def find(
    contexts: Iterable[Context] | None,
    around: Surroundings | None = None,
    *,
    host: str | None = None,
    ssh_words: Sequence[str] = (),
) -> list[Finding]:
    """Looks at what contexts name.

    Args:
        contexts: None for one of each type, and of each what is found.
        around: the environment, home and time; those of this process if None.
        host: for ssh: what the user's ssh_config says for this host.
        ssh_words: further arguments of ssh.

    Raises:
        AccessError: OpenSSH is not installed, or does not accept its configuration, and a context for it was given.
    """
    # A session is used by programs that need one type: the others are not loaded.
    from serai.clock import SystemClock  # noqa: PLC0415 - see above
    from serai.errors import AccessError  # noqa: PLC0415 - see above
    from serai.session.context import TYPES, Context  # noqa: PLC0415 - it loads this when asked for findings

    if around is None:
        around = Surroundings.here(SystemClock())
    everything = contexts is None
    if contexts is None:
        contexts = [Context(kind) for kind in TYPES]
    found: list[Finding] = []
    for context in contexts:
        if context.type == "ssh":
            from serai.session.finding.ssh import find_ssh  # noqa: PLC0415 - see above

            try:
                found += find_ssh(context, around, host=host, words=ssh_words)
            except AccessError as error:
                if not everything:
                    raise  # else the other types are to be heard of as well
                found.append(Finding("ssh", "ssh", "OpenSSH", State.UNUSABLE, (error.what,), error.hint))
        elif context.type == "aws":
            from serai.session.finding.aws import find_aws  # noqa: PLC0415 - see above

            found += find_aws(context, around)
        elif context.type == "x509":
            from serai.session.finding.x509 import find_x509  # noqa: PLC0415 - see above

            found += find_x509(context, around)
        else:
            from serai.session.finding.s3 import find_s3  # noqa: PLC0415 - see above

            found += find_s3(context, around, only_own=everything)
    return found
