"""MapReduce: splits, workers that come and go, and one set of sorted files."""
