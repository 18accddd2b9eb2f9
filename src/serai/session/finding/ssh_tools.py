"""The user's OpenSSH tools, asked with a deadline, in English and UTC, and never able to ask anybody for anything."""

from __future__ import annotations

import subprocess
from typing import TYPE_CHECKING

from serai.errors import AccessError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

DEADLINE_S = 5.0  # for a tool that reads a file, or asks an agent on this machine
TOOK_TOO_LONG = -1000
_MOST_CHARACTERS = 1_000_000


class Tools:
    """The tools, with an environment.

    Args:
        environment: the user's variables; PATH says where the tools are.
        deadline_s: how long each may take.
    """

    def __init__(self, environment: Mapping[str, str], deadline_s: float = DEADLINE_S) -> None:
        never = {"LC_ALL": "C", "TZ": "UTC", "SSH_ASKPASS_REQUIRE": "never"}
        self._environment = {
            name: value for name, value in environment.items() if name not in {"SSH_ASKPASS", "DISPLAY"}
        }
        self._environment |= never
        self._deadline_s = deadline_s

    def ask(self, words: Sequence[str], *, stdin: str = "", agent: str | None = None) -> tuple[int, str, str]:
        """Run a tool.

        Args:
            words: its name and arguments.
            stdin: what it reads.
            agent: the agent's socket; as the environment says if None.

        Returns:
            Its exit status (`TOOK_TOO_LONG` after the deadline), standard output and standard error.

        Raises:
            AccessError: it is not installed.
        """
        environment = self._environment if agent is None else self._environment | {"SSH_AUTH_SOCK": agent}
        try:
            done = subprocess.run(
                words,
                input=stdin.encode("utf-8", "surrogateescape"),
                capture_output=True,
                env=environment,
                timeout=self._deadline_s,
                check=False,
                start_new_session=True,  # without a terminal nothing can be asked on it
            )
        except subprocess.TimeoutExpired:
            return TOOK_TOO_LONG, "", f"{words[0]} did not end within {self._deadline_s:g} s"
        except FileNotFoundError:
            raise AccessError(f"there is no {words[0]} on this machine", hint="install OpenSSH's client") from None
        out, err = (stream.decode("utf-8", "replace")[:_MOST_CHARACTERS] for stream in (done.stdout, done.stderr))
        return done.returncode, out, err
