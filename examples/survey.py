"""Survey one Python source file: its lines, its longest function, and what it imports.

Usage: survey.py SOURCE OUT.json
"""

from __future__ import annotations

import ast
import json
import sys
from pathlib import Path


def survey(path: Path) -> dict[str, object]:
    """What is in a source file."""
    text = path.read_text(encoding="utf-8", errors="replace")
    tree = ast.parse(text)
    functions = [
        (node.end_lineno - node.lineno + 1, node.name)
        for node in ast.walk(tree)
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and node.end_lineno is not None
    ]
    imports: list[str] = []
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            imports += [alias.name.partition(".")[0] for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            imports.append(node.module.partition(".")[0])
    longest = max(functions, default=(0, ""))
    return {
        "file": path.name,
        "lines": text.count("\n"),
        "functions": len(functions),
        "longest": longest[0],
        "longest_name": longest[1],
        "imports": sorted(set(imports)),
    }


if __name__ == "__main__":
    source, out = map(Path, sys.argv[1:3])
    out.write_text(json.dumps(survey(source)), encoding="utf-8")
