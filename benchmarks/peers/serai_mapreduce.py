"""Word count by Serai with two slots on this machine.

Variants: `split`, the fast form; `sum`, a mapper of the user's; `functions`, combiner and reducer as well.
"""

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


def total(_word: str, counts: Iterator[int]) -> int:
    """Sum up: both the combiner and the reducer."""
    return sum(counts)


def main() -> None:
    """Count into a few files."""
    parser = argparse.ArgumentParser()
    parser.add_argument("variant", choices=["split", "sum", "functions"])
    parser.add_argument("out")
    parser.add_argument("scratch")
    parser.add_argument("files", nargs="+")
    asked = parser.parse_args()
    options = {"partitions": 4, "output": f"{asked.out}/counts"}
    with serai.Pool("local:?slots=2") as pool:
        if asked.variant == "split":
            pool.mapreduce(str.split, "sum", asked.files, combiner="count", **options)
        elif asked.variant == "sum":
            pool.mapreduce(mapper, "sum", asked.files, combiner="sum", **options)
        else:
            pool.mapreduce(mapper, total, asked.files, combiner=total, **options)


if __name__ == "__main__":
    main()
