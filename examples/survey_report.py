"""Gather what `survey.py` wrote, and show it.

Usage: survey_report.py DIRECTORY
"""

from __future__ import annotations

import json
import sys
from collections import Counter
from pathlib import Path


def bars(title: str, rows: list[tuple[str, int]], width: int = 44) -> None:
    """Print a bar for each row."""
    print(f"\n{title}\n")
    most = max(value for _, value in rows)
    for name, value in rows:
        print(f"  {name:>30}  {'█' * max(1, round(width * value / most))} {value:,}")


if __name__ == "__main__":
    found = [json.loads(path.read_text(encoding="utf-8")) for path in sorted(Path(sys.argv[1]).rglob("*.json"))]
    lines = sum(one["lines"] for one in found)
    functions = sum(one["functions"] for one in found)
    print(f"\n{len(found):,} files, {lines:,} lines, {functions:,} functions")
    imported = Counter(name for one in found for name in one["imports"])
    bars("What Python's own library imports most, in files", imported.most_common(12))
    longest = sorted(found, key=lambda one: -one["longest"])[:8]
    bars(
        "Its longest functions, in lines",
        [(f"{one['file']}: {one['longest_name']}", one["longest"]) for one in longest],
    )
