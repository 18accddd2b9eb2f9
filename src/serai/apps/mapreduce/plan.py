"""How inputs become splits, and how many outputs there are. Pure.

A split is a range of bytes of one input; its worker begins after the first end of a line at or behind its start, and
ends with the line that its stop falls into, so that every line belongs to one split. What is compressed is one split.
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

TARGET_BYTES = 64 << 20
SMALLEST_BYTES = 1 << 20  # below this a split's start costs more than its work
SPLITS_PER_WORKER = 3  # so that workers of different speed end together
MOST_SPLITS = 10_000  # every reduce is told where each one's output is
MOST_KEPT = 100_000  # splits of a pool that are remembered to be in nodes' caches
SETTLED_S = 2.0  # whoever changes a file twice within a second leaves the same time on it
MOST_PARTITIONS = 256  # that are chosen when none are asked for

COMPRESSIONS = {".gz": "gzip", ".bz2": "bz2", ".xz": "xz", ".lzma": "xz", ".zst": "zstd"}


@dataclass(frozen=True, slots=True)
class Input:
    """A file that is mapped.

    Attributes:
        url: how the front end reads it.
        size: in bytes; None when nobody knows it, then it is not split.
        host: where it lies: "" for this machine, a host's name as the sites have it, None for none of them.
        path: its path there.
        compression: as `COMPRESSIONS` names it; None for none.
        mtime: when it was changed last, in whole seconds since 1970; None when nobody knows.
        inode: its number there.
    """

    url: str
    size: int | None
    host: str | None = ""
    path: str | None = None
    compression: str | None = None
    mtime: int | None = None
    inode: int | None = None


@dataclass(frozen=True, slots=True)
class Split:
    """What one map task reads.

    Attributes:
        input: the number of its input.
        start: the first byte.
        stop: behind the last byte; None for the input's end.
        host: as of its input.
        name: what it is, for people.
    """

    input: int
    start: int
    stop: int | None
    host: str | None = None
    name: str = ""


class Kept:
    """What nodes have kept of splits, so that a later run over the same inputs reads it there; of one pool, bounded.

    Attributes:
        pieces: by what a split is: the digest of its lines, and a host that has them.
    """

    def __init__(self) -> None:
        self.pieces: dict[tuple[object, ...], tuple[str, str]] = {}

    @staticmethod
    def _what(one: Input, split: Split) -> tuple[object, ...] | None:
        """What a split is: None where it may change without being seen to."""
        if one.mtime is None or one.size is None:
            return None
        return (one.url, one.size, one.mtime, one.inode, split.start, split.stop)

    def find(self, one: Input, split: Split) -> tuple[str, str] | None:
        """The digest of a split's lines and a host that has them."""
        what = self._what(one, split)
        return None if what is None else self.pieces.get(what)

    def note(self, one: Input, split: Split, digest: str, host: str, seen: float) -> None:
        """A host has kept the lines of a split.

        Args:
            one: the input; of one that was changed just before it was looked at nothing is remembered, since a further
                change may not show in its time.
            split: of it.
            digest: of the lines.
            host: that has them.
            seen: when the input was looked at, in seconds since 1970.
        """
        what = self._what(one, split)
        if one.mtime is not None and seen - one.mtime < SETTLED_S:
            return
        if what is not None and (what in self.pieces or len(self.pieces) < MOST_KEPT):
            self.pieces[what] = (digest, host)


def compression_of(name: str) -> str | None:
    """How a file is compressed, by its name."""
    return next((kind for suffix, kind in COMPRESSIONS.items() if name.lower().endswith(suffix)), None)


def split_bytes(total: int, workers: int) -> int:
    """How large a split should be: a third of a worker's share, within limits.

    Args:
        total: bytes of all inputs.
        workers: how many are expected, at least 1.
    """
    share = -(-total // (max(1, workers) * SPLITS_PER_WORKER))
    return max(min(TARGET_BYTES, max(SMALLEST_BYTES, share)), -(-total // MOST_SPLITS))


def splits_of(inputs: Sequence[Input], workers: int, target: int | None = None) -> list[Split]:
    """Cuts inputs into splits: in their order, together every byte once. Inputs without bytes have none.

    Args:
        inputs: all of them.
        workers: how many are expected.
        target: bytes of a split; None to choose.
    """
    target = target or split_bytes(sum(one.size or 0 for one in inputs), workers)
    splits: list[Split] = []
    for number, one in enumerate(inputs):
        if one.size is None or (one.compression is not None and one.size):
            splits.append(Split(number, 0, None, one.host, one.url))
            continue
        pieces = -(-one.size // target)
        bounds = [one.size * piece // pieces for piece in range(pieces + 1)] if pieces else []
        splits += [
            Split(number, start, stop, one.host, f"{one.url}, bytes {start:,} to {stop:,}")
            for start, stop in itertools.pairwise(bounds)
        ]
    return splits


def partitions_for(asked: int | None, workers: int) -> int:
    """How many outputs: what was asked for, or one for each worker that is."""
    return asked if asked is not None else max(1, min(workers, MOST_PARTITIONS))
