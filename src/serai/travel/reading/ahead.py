"""How far to read ahead: learnt from how a program has read so far. Pure: no time, no files.

A program reads in runs: it jumps somewhere and goes on from there. A run that goes on is read ahead by half as far as
it has come already. A run that begins is expected to be as long as the last ones were, the shorter of them, and is
fetched so far at once, and no further until it proves longer. So a file that is read from its beginning to its end
comes in large pieces, and of one that is read in parts as good as nothing else comes.
"""

from __future__ import annotations

import collections

FIRST = 1 << 17  # bytes ahead of a run of which nothing is known
MOST = 8 << 20  # bytes ahead
SLACK = 1 << 18  # the kernel's own reading ahead does not come in order
REMEMBERED = 6  # runs
STEP = 1 << 20  # bytes that are asked for ahead at once, where there are so many
MOST_EXPECTED = 4 << 20  # bytes of a run that has only begun


class _Run:
    def __init__(self, start: int, end: int, expected: int) -> None:
        self.start, self.end, self.expected = start, end, expected
        self.asked = 0  # up to where it was asked ahead

    @property
    def length(self) -> int:
        return self.end - self.start


class Habits:
    """How one program reads; files it reads alike may share one."""

    def __init__(self) -> None:
        self._runs: collections.deque[_Run] = collections.deque(maxlen=REMEMBERED)

    def ahead(self, start: int, size: int, whole: int) -> tuple[int, int]:
        """Note a read, and say which bytes behind it will be wanted soon and were not asked for before.

        Args:
            start: of the first byte read.
            size: how many were read.
            whole: the size of the file.

        Returns:
            The first of them, and the end; both the same where there are none.
        """
        end = min(start + size, whole)
        run = next((one for one in reversed(self._runs) if one.start <= start <= one.end + SLACK), None)
        if run is None:
            run = _Run(start, end, self._expected())
            self._runs.append(run)
        else:
            run.end = max(run.end, end)
        far = min(run.end + self._further(run), whole)
        begin = max(end, run.asked)
        if far - begin < min(STEP, (far - run.end + 1) // 2) and far < whole:  # soon, and then more at once
            return end, end
        run.asked = max(run.asked, far)
        return begin, max(begin, far)

    def _expected(self) -> int:
        """How long a new run will be, at least; 0 where nothing is known."""
        if not self._runs:
            return 0
        lengths = sorted(run.length for run in self._runs)
        return min(MOST_EXPECTED, lengths[1 if len(lengths) > 2 else 0])  # one that broke off early is no sign

    @staticmethod
    def _further(run: _Run) -> int:
        if run.expected and run.length <= run.expected:
            return run.expected - run.length
        if run.expected:  # not much longer is no sign: the kernel itself reads ahead now more, now less
            further = run.length - run.expected
            return min(further, MOST) if further > run.expected // 2 else 0
        if run.start and run.length <= FIRST:
            return FIRST // 2
        return min(max(FIRST, run.length // 2), MOST)
