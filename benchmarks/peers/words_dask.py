"""Word count by Dask bag in two processes, as its documentation writes it: read_text, str.split, flatten, frequencies.

Variant `processes` is the bag's own default scheduler; `distributed` is a LocalCluster of two workers.
"""

from __future__ import annotations

import argparse
from contextlib import nullcontext
from pathlib import Path
from typing import TYPE_CHECKING

import dask
import dask.bag

if TYPE_CHECKING:
    from contextlib import AbstractContextManager


def cluster(variant: str) -> AbstractContextManager[object]:
    """Return what must be open while the bag is computed."""
    if variant == "processes":
        return nullcontext()
    import distributed  # noqa: PLC0415 - half a second that the other variant does not need

    return distributed.Client(
        n_workers=2, threads_per_worker=1, host="127.0.0.1", dashboard_address=None, worker_dashboard_address=None
    )


def main() -> None:
    """Count, sort, write one file."""
    parser = argparse.ArgumentParser()
    parser.add_argument("variant", choices=["processes", "distributed"])
    parser.add_argument("out", type=Path)
    parser.add_argument("scratch")
    parser.add_argument("files", nargs="+")
    asked = parser.parse_args()
    dask.config.set({"temporary_directory": asked.scratch, "num_workers": 2})
    with cluster(asked.variant):
        counts = dask.bag.read_text(asked.files).str.split().flatten().frequencies().compute()
    counts.sort()
    with (asked.out / "part-00000").open("w", encoding="utf-8") as out:
        out.writelines(f"{word}\t{count}\n" for word, count in counts)


if __name__ == "__main__":
    main()
