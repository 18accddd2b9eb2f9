"""Word count by PySpark, local[2]: variant `rdd`, in Python workers, or `dataframe`, which no Python sees."""

from __future__ import annotations

import argparse
import os
from operator import add
from pathlib import Path

from pyspark.sql import SparkSession
from pyspark.sql import functions as F  # noqa: N812 - as everybody writes it


def main() -> None:
    """Count, sort, write a few files."""
    parser = argparse.ArgumentParser()
    parser.add_argument("variant", choices=["rdd", "dataframe"])
    parser.add_argument("out", type=Path)
    parser.add_argument("scratch")
    parser.add_argument("files", nargs="+")
    asked = parser.parse_args()
    os.environ["SPARK_LOCAL_IP"] = "127.0.0.1"
    spark = (
        SparkSession.builder.master("local[2]")
        .config("spark.driver.memory", "4g")
        .config("spark.driver.host", "127.0.0.1")
        .config("spark.driver.bindAddress", "127.0.0.1")
        .config("spark.ui.enabled", "false")
        .config("spark.local.dir", asked.scratch)
        .config("spark.sql.shuffle.partitions", "4")
        .getOrCreate()
    )
    out = f"file://{asked.out.resolve()}/counts"
    files = [f"file://{Path(name).resolve()}" for name in asked.files]
    if asked.variant == "rdd":
        lines = spark.sparkContext.textFile(",".join(files))
        counts = lines.flatMap(str.split).map(lambda word: (word, 1)).reduceByKey(add, 4).sortByKey(numPartitions=4)
        counts.map(lambda pair: f"{pair[0]}\t{pair[1]}").saveAsTextFile(out)
    else:
        words = spark.read.text(files).select(F.explode(F.split("value", r"\s+")).alias("word"))
        counts = words.where("word != ''").groupBy("word").count().sort("word")
        counts.select(F.concat_ws("\t", "word", "count")).write.text(out)
    spark.stop()


if __name__ == "__main__":
    main()
