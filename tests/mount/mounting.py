"""Running programs under mounts, as a node's executor does: by the program that travels."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from typing import TYPE_CHECKING, Any

from serai.travel import boot

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

NOBODY = 54321


def until(condition: Callable[[], Any], what: str, deadline_s: float = 40.0) -> Any:
    end = time.monotonic() + deadline_s
    while not (found := condition()):
        assert time.monotonic() < end, f"not within {deadline_s} s: {what}"
        time.sleep(0.01)
    return found


class Room:
    """A directory with a source, a place for the mount, a cache and a record."""

    def __init__(self, base: Path) -> None:
        self.base = base
        self.source, self.mount = base / "source", base / "mount"
        self.cache, self.scratch, self.log = base / "cache", base / "scratch", base / "record"
        for one in (self.source, self.mount, self.scratch):
            one.mkdir()
        self.program = base / "program.py"
        self.program.write_text(boot.script("mount.wrap"))
        self._count = 0

    def setup(self, argv: Sequence[str], **changes: Any) -> Path:
        """The file that says what is run; by default the source directory is seen, and can be written."""
        said: dict[str, Any] = {
            "argv": list(argv),
            "directory": str(self.mount),
            "source": {"kind": "directory", "path": str(self.source), "url": "file:///source"},
            "record": str(self.log),
            "cache": [str(self.cache), 1 << 30],
            "scratch": str(self.scratch),
            "deadline_s": 20.0,
        } | changes
        if "files" in changes:
            del said["source"]
        self._count += 1
        path = self.base / f"setup-{self._count}.json"
        path.write_text(json.dumps({key: value for key, value in said.items() if value is not None}))
        return path

    def words(self, argv: Sequence[str], python: str = sys.executable, **changes: Any) -> list[str]:
        return [python, "-IS", str(self.program), str(self.setup(argv, **changes))]

    def run(
        self, *argv: str, python: str = sys.executable, before: Sequence[str] = (), **changes: Any
    ) -> subprocess.CompletedProcess[str]:
        """Run a program to its end where the source is seen in the working directory's ``mount``."""
        words = [*before, *self.words(argv, python, **changes)]
        return subprocess.run(words, cwd=self.base, capture_output=True, text=True, timeout=120, check=False)

    def start(self, *argv: str, **changes: Any) -> subprocess.Popen[str]:
        """The same, without waiting."""
        words = self.words(argv, **changes)
        return subprocess.Popen(
            words, cwd=self.base, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        )

    def python(self, code: str, *words: str, **changes: Any) -> subprocess.CompletedProcess[str]:
        """Run a few lines of Python there."""
        return self.run(sys.executable, "-c", code, *words, **changes)

    def record(self) -> dict[str, dict[str, Any]]:
        """What was read, by the last part of each URL."""
        lines = [json.loads(line) for line in self.log.read_text().splitlines()]
        return {line["url"].rpartition("/")[2]: line for line in lines}


def as_nobody(device: Path) -> list[str]:
    """Words before a command that let it run without any privilege, with a device that everybody may open."""
    if not device.exists():
        os.mknod(device, 0o020666, os.makedev(10, 229))
        device.chmod(0o666)
    drop = f"setpriv --reuid={NOBODY} --regid={NOBODY} --clear-groups --no-new-privs"
    return ["unshare", "-m", "sh", "-c", f'mount --bind {device} /dev/fuse && exec {drop} "$@"', "sh"]
