"""The runs that are kept: found by name, listed, and thrown away when they are old."""

from __future__ import annotations

import difflib
import os
import re
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from serai.dispatch.history.moment import RunState
from serai.dispatch.history.reading import History
from serai.errors import JournalError, UsageError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from serai.dispatch.history.moment import Counts, RunNow

JOURNAL = "journal.db"
GONE = ".gone-"  # runs that are being thrown away
SLACK_S = 60.0  # between the making of a journal and what it calls its beginning


@dataclass(frozen=True, slots=True)
class Pruned:
    """What was thrown away.

    Attributes:
        names: of runs.
        size: of their files, in bytes.
        kept: interrupted runs as old as those, which are kept because they can go on.
    """

    names: tuple[str, ...]
    size: int
    kept: tuple[str, ...]


class Archive:
    """A directory of runs.

    Args:
        directory: of runs, one directory each; it need not be there.
    """

    def __init__(self, directory: Path) -> None:
        self.directory = directory

    def names(self) -> list[str]:
        """Of all runs, in no order."""
        try:
            entries = list(os.scandir(self.directory))
        except FileNotFoundError:
            return []
        return [
            entry.name
            for entry in entries
            if not entry.name.startswith(".") and Path(entry.path, JOURNAL).is_file() and not entry.is_symlink()
        ]

    def open(self, name: str | None, now: float) -> History:
        """Open a run; the newest when none is named.

        Args:
            name: of the run, or how it begins.
            now: seconds since the epoch.

        Raises:
            UsageError: there is no such run, or several begin like that.
            JournalError: its journal cannot be read.
        """
        return self._newest(now) if name is None else History(self.directory / self._full(name) / JOURNAL, now)

    def _full(self, name: str) -> str:
        names = self.names()
        if name in names:
            return name
        found = sorted(one for one in names if one.startswith(name)) if name else []
        if len(found) == 1:
            return found[0]
        if found:
            shown = ", ".join(found[:5]) + (" …" if len(found) > 5 else "")
            raise UsageError(f"{len(found)} runs begin with {name!r}", hint=f"which one? {shown}")
        near = difflib.get_close_matches(name, names, n=1)
        hint = f"did you mean {near[0]}?" if near else "serai runs lists them" if names else "there are none yet"
        raise UsageError(f"there is no run {name!r}", hint=hint)

    def _newest(self, now: float) -> History:
        # A journal was written after its run began, so that most need not be opened.
        paths = [self.directory / name / JOURNAL for name in self.names()]
        written = sorted(((_written_at(path), path) for path in paths), reverse=True)
        best: History | None = None
        trouble: JournalError | None = None
        for at, path in written:
            if best is not None and at + SLACK_S < best.run.began:
                break
            try:
                history = History(path, now)
            except JournalError as error:
                trouble = trouble or error
                continue
            worse: History | None = history
            if best is None or history.run.began > best.run.began:
                best, worse = history, best
            if worse is not None:
                worse.close()
        if best is not None:
            return best
        if trouble is not None:
            raise trouble
        raise UsageError("there are no runs yet", hint=f"they would be in {self.directory}")

    def listing(self, now: float, most: int | None = None) -> tuple[list[tuple[RunNow, Counts]], list[JournalError]]:
        """The runs, newest first, and what is wrong with those that cannot be read.

        Args:
            now: seconds since the epoch.
            most: how many to count the tasks of; all when None.
        """
        runs, troubles = self._facts(now)
        listed = []
        for run in runs[:most]:
            try:
                with History(run.directory / JOURNAL, now) as history:
                    listed.append((history.run, history.counts))
            except JournalError as error:
                troubles.append(error)
        return listed, troubles

    def _facts(self, now: float) -> tuple[list[RunNow], list[JournalError]]:
        runs, troubles = [], []
        for name in self.names():
            try:
                with History(self.directory / name / JOURNAL, now) as history:
                    runs.append(history.run)
            except JournalError as error:
                troubles.append(error)
        return sorted(runs, key=lambda run: (run.began, run.name), reverse=True), troubles

    def prune(self, older_s: float, now: float) -> Pruned:
        """Throw away finished runs that ended longer ago than ``older_s`` seconds."""
        sweep(self.directory)
        names, kept, size = [], [], 0
        for run in self._facts(now)[0]:
            if run.alive or now - run.until(now) <= older_s:
                continue
            if run.state is RunState.INTERRUPTED:
                kept.append(run.name)
                continue
            size += throw_away(run.directory)
            names.append(run.name)
        return Pruned(tuple(names), size, tuple(kept))


def throw_away(directory: Path) -> int:
    """Remove a run's directory; returns the size of its files, in bytes."""
    # Renamed first: nobody finds half a run, and what is left of it when this is cut short is found again.
    gone = directory.with_name(f"{GONE}{directory.name}")
    directory.rename(gone)
    size = sum(path.lstat().st_size for path in _files(gone))
    shutil.rmtree(gone)
    return size


def sweep(runs: Path) -> None:
    """Remove what is left of runs whose throwing away was cut short."""
    for path in runs.glob(f"{GONE}*"):
        shutil.rmtree(path, ignore_errors=True)


def find_run(runs: Path, name: str | None) -> Path:
    """The directory of a run, by its name or how that begins; of the newest when none is named.

    Raises:
        UsageError: there is no such run, or several begin like that.
    """
    with Archive(runs).open(name, 0.0) as history:  # the time does not matter: how it stands is not asked
        return history.path.parent


def parse_task(text: str) -> tuple[str | None, int]:
    """Read ``NUMBER`` or ``RUN:NUMBER``; returns (run or None, number).

    Raises:
        UsageError: it is neither.
    """
    match = re.fullmatch(r"(?:([^:]+):)?#?([0-9]{1,18})", text.strip(), re.ASCII)
    if not match:
        raise UsageError(f"{text!r} is not a task", hint="name a task by its number, 17, or with its run, RUN:17")
    return match[1], int(match[2])


def _files(directory: Path) -> Iterator[Path]:
    return (Path(where, name) for where, _, names in os.walk(directory) for name in names)


def _written_at(path: Path) -> float:
    try:
        return path.stat().st_mtime
    except OSError:
        return 0.0
