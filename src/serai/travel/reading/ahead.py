"""How far to read ahead: learnt from how a program has read so far. Pure: no time, no files.

A program reads in runs: it jumps somewhere and goes on from there. A run that goes on is read ahead by half as
far as it has come already. A run that begins is expected to be as long as the shortest of the last ones was, and is
fetched so far at once, and no further until it proves longer. So a file that is read from its beginning to its end
comes in large pieces, and of one that is read in parts as good as nothing else comes.
"""

from __future__ import annotations

import collections

FIRST = 1 << 17  # bytes ahead of a run of which nothing is known
MOST = 8 << 20  # bytes ahead
SLACK = 1 << 19  # the kernel's own reading ahead does not come in order
REMEMBERED = 6  # runs
MOST_EXPECTED = 4 << 20  # bytes of a run that has only begun


class _Run:
    def __init__(self, start: int, end: int, expected: int) -> None:
        self.start, self.end, self.expected = start, end, expected

    @property
    def length(self) -> int:
        return self.end - self.start


class Habits:
    """How one program reads; files it reads alike may share one."""

    def __init__(self) -> None:
        self._runs: collections.deque[_Run] = collections.deque(maxlen=REMEMBERED)

    def ahead(self, start: int, size: int, whole: int) -> int:
        """Note a read, and say how many bytes behind it will be wanted soon.

        Args:
            start: of the first byte read.
            size: how many were read.
            whole: the size of the file.
        """
        end = min(start + size, whole)
        for run in reversed(self._runs):
            if run.start <= start <= run.end + SLACK:
                run.end = max(run.end, end)
                return self._further(run, end, whole)
        run = _Run(start, end, self._expected())
        self._runs.append(run)
        return self._further(run, end, whole)

    def _expected(self) -> int:
        """How long a new run will be, at least; 0 where nothing is known."""
        if not self._runs:
            return 0
        return min(MOST_EXPECTED, *(run.length for run in list(self._runs)[-4:]))

    @staticmethod
    def _further(run: _Run, end: int, whole: int) -> int:
        left = whole - end
        if run.expected and run.length <= run.expected:
            return max(0, min(run.start + run.expected - end, left))
        if run.expected:  # it has proved longer
            return min(max(FIRST, run.length - run.expected), MOST, left)
        if run.start and run.length <= FIRST:
            return min(FIRST // 2, left)
        return min(max(FIRST, run.length // 2), MOST, left)
