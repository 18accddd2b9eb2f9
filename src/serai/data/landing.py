"""How outputs come home: written under a temporary name, renamed when whole, never half visible.

An attempt lands in a directory of its own beside the final place, under the final name (programs look at suffixes), so
that two attempts at one task never meet and a rename is all it takes to accept one.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import threading
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from serai.describe.places import landing_path
from serai.quantity import format_bytes

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

PREFIX = ".serai-"


@dataclass(slots=True)
class _Attempt:
    finals: tuple[str, ...]
    directories: list[str]
    paths: list[str]
    got: dict[int, int] = field(default_factory=dict)  # output: bytes that came
    streams: dict[int, str] = field(default_factory=dict)  # 0 or 1: where a long stream lies
    trouble: str | None = None


class Landing:
    """Where outputs of a run arrive.

    Args:
        run: the run's name, which marks its temporary directories.
        streams: the directory for standard streams that are too long for the journal.
    """

    def __init__(self, run: str, streams: Path) -> None:
        self._run = run
        self._streams = streams
        self._attempts: dict[tuple[int, int], _Attempt] = {}
        self.finals_of: Callable[[int], Sequence[str]] | None = None  # for attempts of the run's earlier life
        self._lock = threading.Lock()

    def expect(self, bundle: int, task: int, finals: Sequence[str]) -> list[list[str]]:
        """Prepare for the outputs of an attempt; returns [temporary directory, path in it] for each."""
        pairs = [landing_path(os.path.abspath(final), f"{self._run}-{bundle}-{task}") for final in finals]
        directories, paths = [directory for directory, _ in pairs], [path for _, path in pairs]
        with self._lock:
            self._attempts[bundle, task] = _Attempt(tuple(map(os.path.abspath, finals)), directories, paths)
        return [list(pair) for pair in pairs]

    def piece(self, task: int, head: dict[str, Any], body: bytes) -> None:
        """Take in a piece of an output or of a long stream. Trouble is kept until `check` is asked."""
        key = (int(head["bundle"]), task)
        with self._lock:
            attempt = self._attempts.get(key)
        if attempt is None:
            attempt = self._former(*key)
        with self._lock:
            if attempt is None:
                if "stream" not in head:
                    return  # of an attempt that was thrown away
                attempt = self._attempts[key] = _Attempt((), [], [])
        if attempt.trouble:
            return
        try:
            if "stream" in head:
                self._stream_piece(attempt, key, head, body)
            else:
                self._output_piece(attempt, head, body)
        except (OSError, IndexError, ValueError) as error:
            attempt.trouble = f"it cannot be stored here: {error}"

    def _former(self, bundle: int, task: int) -> _Attempt | None:
        """An attempt of the run's earlier life, where its outputs are still wanted."""
        finals = self.finals_of(task) if self.finals_of is not None else ()
        if not finals:
            return None
        self.expect(bundle, task, finals)
        with self._lock:
            return self._attempts.get((bundle, task))

    def _stream_piece(self, attempt: _Attempt, key: tuple[int, int], head: dict[str, Any], body: bytes) -> None:
        which = 1 if head["stream"] else 0
        path = self._streams / f"{key[1]}.{key[0]}.{('out', 'err')[which]}"
        if which not in attempt.streams:
            self._streams.mkdir(parents=True, exist_ok=True)
            attempt.streams[which] = str(path)
        with path.open("r+b" if head["at"] else "wb") as file:
            file.seek(head["at"])
            file.write(body)

    def _output_piece(self, attempt: _Attempt, head: dict[str, Any], body: bytes) -> None:
        index = int(head["output"])
        path = attempt.paths[index]
        under = head.get("under")
        if under is not None:
            top, path = path, os.path.normpath(os.path.join(path, under))
            if path != top and not path.startswith(top + os.sep):
                raise ValueError(f"{under!r} would leave its directory")
        if head.get("directory"):
            os.makedirs(path, exist_ok=True)
            attempt.got.setdefault(index, 0)
            return
        if head["at"] == 0:
            os.makedirs(os.path.dirname(path), exist_ok=True)
        flags = os.O_WRONLY | os.O_CREAT | (os.O_TRUNC if head["at"] == 0 else 0)
        fd = os.open(path, flags, int(head.get("mode", 0o644)) & 0o777 | 0o600)
        with os.fdopen(fd, "wb") as file:
            file.seek(head["at"])
            file.write(body)
        attempt.got[index] = attempt.got.get(index, 0) + len(body)

    def check(self, bundle: int, task: int, sizes: Iterable[int]) -> str | None:
        """Say what is wrong with the outputs of an attempt, or None when they are whole.

        Args:
            bundle: of the attempt.
            task: of the attempt.
            sizes: what the node says, in bytes; -1 for a directory.
        """
        with self._lock:
            attempt = self._attempts.get((bundle, task))
        if attempt is None:
            attempt = self._former(bundle, task)
        if attempt is None:
            return None
        if attempt.trouble:
            return attempt.trouble
        for index, size in enumerate(sizes):
            got = attempt.got.get(index)
            if got is not None and size >= 0 and got != size:
                name = os.path.basename(attempt.finals[index])
                return f"{format_bytes(got)} of {format_bytes(size)} of its output {name} came"
            if not os.path.exists(attempt.paths[index]):
                return f"its output {attempt.finals[index]} did not come"
        return None

    def stream_trouble(self, bundle: int, task: int) -> str | None:
        """Why a long stream of an attempt could not be kept, if so."""
        if not self._attempts:
            return None
        with self._lock:
            attempt = self._attempts.get((bundle, task))
        return None if attempt is None or not attempt.streams else attempt.trouble

    def accept(self, bundle: int, task: int) -> dict[int, str]:
        """Make the outputs of an attempt visible, all at their final names; returns where long streams are.

        Raises:
            OSError: a final place does not take them.
        """
        if not self._attempts:  # most runs declare no outputs, and have very many tasks
            return {}
        with self._lock:
            attempt = self._attempts.pop((bundle, task), None)
        if attempt is None:
            return {}
        try:
            for number, (path, final) in enumerate(zip(attempt.paths, attempt.finals, strict=True)):
                if os.path.isdir(path) and os.path.isdir(final) and not os.path.islink(final):
                    _replace_directory(path, final, os.path.join(attempt.directories[number], f".old-{number}"))
                else:
                    os.replace(path, final)
        finally:
            self._clear(attempt)
        return attempt.streams

    def discard(self, bundle: int, task: int, *, keep_streams: bool = False) -> dict[int, str]:
        """Throw the outputs of an attempt away, and its long streams unless they are kept; returns where those are."""
        with self._lock:
            attempt = self._attempts.pop((bundle, task), None)
        if attempt is None:
            return {}
        self._clear(attempt)
        if keep_streams:
            return attempt.streams
        for path in attempt.streams.values():
            with contextlib.suppress(OSError):
                os.unlink(path)
        return {}

    def discard_all(self) -> None:
        """Throw away every attempt that was not accepted."""
        for bundle, task in list(self._attempts):
            self.discard(bundle, task)

    @staticmethod
    def _clear(attempt: _Attempt) -> None:
        for directory in set(attempt.directories):
            shutil.rmtree(directory, ignore_errors=True)


def _replace_directory(path: str, final: str, aside: str) -> None:
    os.rename(final, aside)
    try:
        os.rename(path, final)
    except OSError:
        os.rename(aside, final)
        raise


def sweep(run: str, directories: Iterable[str]) -> int:
    """Remove what a front end that was killed left beside final places; returns how many directories."""
    count = 0
    for directory in directories:
        for path in Path(directory).glob(f"{PREFIX}{run}-*"):
            shutil.rmtree(path, ignore_errors=True)
            count += 1
    return count
