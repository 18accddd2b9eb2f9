"""Word count by Serai with two slots on this machine: variant `split`, the fast form, or `functions`, a user's own."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING

import serai

if TYPE_CHECKING:
    from collections.abc import Iterator


def mapper(record: str) -> Iterator[tuple[str, int]]:
    """Map a line to a one for each word."""
    for word in record.split():
        yield word, 1


def total(word: str, counts: Iterator[int]) -> Iterator[tuple[str, int]]:
    """Sum up: both the combiner and the reducer."""
    yield word, sum(counts)


def main() -> None:
    """Count into a few files."""
    parser = argparse.ArgumentParser()
    parser.add_argument("variant", choices=["split", "functions"])
    parser.add_argument("out")
    parser.add_argument("scratch")
    parser.add_argument("files", nargs="+")
    asked = parser.parse_args()
    with serai.Pool("local:?slots=2") as pool:
        if asked.variant == "split":
            pool.mapreduce(
                str.split, "count", asked.files, combiner="count", partitions=4, output=f"{asked.out}/counts"
            )
        else:
            pool.mapreduce(mapper, total, asked.files, combiner=total, partitions=4, output=f"{asked.out}/counts")


if __name__ == "__main__":
    main()
