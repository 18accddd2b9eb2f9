"""Word count by Ray Data with two CPUs: read_text, map_batches that counts each batch, groupby and sum, sort.

Variant `arrow` counts a batch by pyarrow's kernels, `counter` by collections.Counter, and `flat_map` makes a row of
every word, as Ray's own examples do.
"""

from __future__ import annotations

import argparse
import os
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Any

os.environ |= {"RAY_USAGE_STATS_ENABLED": "0", "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0"}

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv
import ray

if TYPE_CHECKING:
    import numpy as np

STORE_BYTES = 2 << 30


def count_arrow(batch: pa.Table) -> pa.Table:
    """Return each distinct word of a batch with its count."""
    words = pc.list_flatten(pc.ascii_split_whitespace(batch["text"]))
    words = words.filter(pc.not_equal(words, ""))
    counted = words.value_counts()
    return pa.table({"word": counted.field("values"), "count": counted.field("counts")})


def count_python(batch: dict[str, np.ndarray]) -> dict[str, Any]:
    """Do the same in Python."""
    counts: Counter[str] = Counter()
    for line in batch["text"]:
        counts.update(line.split())
    return {"word": list(counts), "count": list(counts.values())}


def words_of(row: dict[str, str]) -> list[dict[str, str]]:
    """Return a row for each word of a line."""
    return [{"word": word} for word in row["text"].split()]


def plain() -> dict[str, Any]:
    """Return how a table is written."""
    return {"write_options": pyarrow.csv.WriteOptions(include_header=False, delimiter="\t", quoting_style="none")}


def main() -> None:
    """Count, sort, write a few files."""
    parser = argparse.ArgumentParser()
    parser.add_argument("variant", choices=["arrow", "counter", "flat_map"])
    parser.add_argument("out")
    parser.add_argument("scratch")
    parser.add_argument("files", nargs="+")
    asked = parser.parse_args()
    ray.init(
        num_cpus=2,
        include_dashboard=False,
        object_store_memory=STORE_BYTES,
        _node_ip_address="127.0.0.1",
        _temp_dir=asked.scratch,
    )
    ray.data.DataContext.get_current().enable_progress_bars = False
    lines = ray.data.read_text(asked.files)
    if asked.variant == "flat_map":
        counts = lines.flat_map(words_of).groupby("word").count().rename_columns({"count()": "count"})
    else:
        options = {
            "arrow": {"fn": count_arrow, "batch_format": "pyarrow"},
            "counter": {"fn": count_python, "batch_format": "numpy"},
        }[asked.variant]
        # Without a batch size a batch is a block, and the counts of a block are a fraction of its lines.
        counted = lines.map_batches(**options, batch_size=None)
        counts = counted.groupby("word").sum("count").rename_columns({"sum(count)": "count"})
    counts.select_columns(["word", "count"]).sort("word").write_csv(
        f"local://{Path(asked.out).resolve()}", arrow_csv_args_fn=plain
    )
    ray.shutdown()


if __name__ == "__main__":
    main()
