"""What one job of the live study does on its node. It is sent there with the mount's own program, and imports neither.

As ``job.py start FACTS-FILE NUMBER`` it mounts the store that the facts name for this host, and becomes
``job.py read FACTS-FILE NUMBER DB`` under the mount: reads of the database and computing (a sleep) take turns.
"""

from __future__ import annotations

import json
import os
import random
import socket
import sys
import time

CHUNKS = 4


def start(facts_file: str, number: str) -> None:
    """Mount, and read under the mount. Never returns."""
    with open(facts_file, encoding="utf-8") as file:
        facts = json.load(file)
    here = facts["hosts"][socket.gethostname()]
    source = dict(facts["stores"][here["store"]])
    token = os.path.abspath("token")
    with open(os.open(token, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w", encoding="ascii") as file:
        file.write(source.pop("token"))
    setup = {
        "argv": ["python3", os.path.abspath(__file__), "read", os.path.abspath(facts_file), number, "mounted/db"],
        "directory": os.path.abspath("mounted"),
        "source": dict(source, kind="store", token_file=token, path="/cms"),
        "deadline_s": 120.0,
    }
    with open("setup.json", "w", encoding="utf-8") as file:
        json.dump(setup, file)
    program = os.path.join(os.path.dirname(os.path.abspath(facts_file)), "program.py")
    os.execvp("python3", ["python3", "-IS", program, "setup.json"])  # noqa: S606 - the task becomes the mount


def read(facts_file: str, number: str, path: str) -> None:
    """Read and compute in turn; prints what happened, as JSON."""
    with open(facts_file, encoding="utf-8") as file:
        facts = json.load(file)
    here, began = facts["hosts"][socket.gethostname()], time.monotonic()
    while not (os.path.exists(path) and os.path.getsize(path) == facts["file_bytes"]):  # it is being staged
        if time.monotonic() > began + facts["wait_s"]:
            raise SystemExit("the database has not come")
        time.sleep(0.2)
    draw, size, got = random.Random(int(number)), facts["read_bytes"] // CHUNKS, 0  # noqa: S311 - the same every time
    with open(path, "rb", buffering=0) as file:
        for _ in range(CHUNKS):
            got += len(os.pread(file.fileno(), size, draw.randrange(facts["file_bytes"] - size)))
            time.sleep(here["compute_s"] / CHUNKS)
    took_s = time.monotonic() - began
    told = {"host": socket.gethostname(), "read": got, "compute_s": here["compute_s"], "took_s": took_s}
    sys.stdout.write(json.dumps(told) + "\n")


if __name__ == "__main__":
    if sys.argv[1] == "start":
        start(*sys.argv[2:])
    else:
        read(*sys.argv[2:])
