"""What is written is at the source when the file is closed, whole; what goes wrong is told at the close."""

from __future__ import annotations

import hashlib
import os
import random
from typing import TYPE_CHECKING

import pytest
from tests.mount.mounting import until

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.mount.mounting import Room
    from tests.store.conftest import Store

SCRIPT = """
import hashlib, mmap, os, random, sys
data = random.Random(7).randbytes(3_000_000)
def at(name): return "mount/" + name
with open(at("new"), "wb") as file:
    file.write(data)
assert open(at("new"), "rb").read() == data
with open(at("new"), "ab") as file:
    file.write(b"more")
assert os.path.getsize(at("new")) == 3_000_004
with open(at("new"), "r+b") as file:
    file.seek(1_000_000); file.write(b"middle"); file.flush()
    file.seek(0); assert file.read() == data[:1_000_000] + b"middle" + data[1_000_006:] + b"more"
os.truncate(at("new"), 2_000_000)
assert os.path.getsize(at("new")) == 2_000_000
os.rename(at("new"), at("renamed"))
assert not os.path.exists(at("new"))
with open(at("empty"), "w"): pass
os.mkdir(at("d")); os.mkdir(at("d/e"))
with open(at("d/e/f"), "w") as file: file.write("deep"); print(sorted(os.listdir(at("d/e"))))
os.rename(at("d"), at("moved"))
print(open(at("moved/e/f")).read())
with open(at("gone"), "w") as file:
    file.write("x"); os.unlink(at("gone")); file.write("y")
assert not os.path.exists(at("gone"))
try: os.rmdir(at("moved"))
except OSError as error: print(type(error).__name__, error.errno)
with open(at("renamed"), "w") as file: file.write("short")
assert open(at("renamed")).read() == "short"
with open(at("mapped"), "wb") as file: file.write(bytes(100_000))
with open(at("mapped"), "r+b") as file, mmap.mmap(file.fileno(), 0) as view:
    view[5:10] = b"hello"; view.flush()
os.chmod(at("mapped"), 0o640)
os.utime(at("mapped"), (5, 1_000_000_005))
print(oct(os.stat(at("mapped")).st_mode & 0o777), int(os.stat(at("mapped")).st_mtime))
with open(at("big"), "wb") as file:
    for _ in range(20): file.write(data)
print(hashlib.md5(open(at("big"), "rb").read()).hexdigest())
"""


def seen(top: str, names: list[str]) -> dict[str, bytes]:
    found = {}
    for name in names:
        with open(os.path.join(top, name), "rb") as file:
            found[name] = file.read()
    return found


def check_what_was_written(top: str, printed: str) -> None:
    big = random.Random(7).randbytes(3_000_000) * 20  # noqa: S311 - the same each time
    lines = printed.splitlines()
    assert lines[:2] == ["['f']", "deep"]
    assert lines[2].startswith("OSError")
    assert lines[3:] == ["0o640 1000000005", hashlib.md5(big, usedforsecurity=False).hexdigest()]
    assert sorted({*os.listdir(top)} - {".serai"}) == ["big", "empty", "mapped", "moved", "renamed"]
    mapped = bytes(5) + b"hello" + bytes(99_990)
    names = ["big", "empty", "mapped", "moved/e/f", "renamed"]
    assert seen(top, names) == dict(zip(names, (big, b"", mapped, b"deep", b"short"), strict=True))


def test_files_are_written_as_programs_do(room: Room) -> None:
    done = room.python(SCRIPT)
    assert (done.returncode, done.stderr) == (0, "")
    check_what_was_written(str(room.source), done.stdout)
    assert not os.listdir(room.scratch)


@pytest.mark.parametrize("words", [(), ("--tls",)])
def test_files_are_written_to_an_appliance(room: Room, start_store: Callable[..., Store], words: tuple[str]) -> None:
    store = start_store(*words)
    source = {"kind": "store", "host": "127.0.0.1", "port": store.port, "token_file": str(store.token_file),
              "fingerprint": store.fingerprint, "path": "/"}  # fmt: skip
    done = room.python(SCRIPT, source=source)
    assert (done.returncode, done.stderr) == (0, "")
    check_what_was_written(str(store.room), done.stdout)


def test_nothing_is_seen_at_the_source_before_the_close(room: Room) -> None:
    (room.source / "a").write_text("old")
    code = """
import sys
file = open('mount/a', 'w')
file.write('new' * 10000)
file.flush()
print(1, flush=True)
sys.stdin.read()
"""
    process = room.start("python3", "-c", code)
    assert process.stdout is not None
    assert process.stdin is not None
    assert process.stdout.readline() == "1\n"
    assert (room.source / "a").read_text() == "old"
    assert os.listdir(room.source) == ["a"]
    process.stdin.close()
    process.wait(60)
    process.stdout.close()
    assert (room.source / "a").read_text() == "new" * 10000
    assert process.stderr is not None
    process.stderr.close()


def test_a_close_says_what_went_wrong(room: Room, start_store: Callable[..., Store]) -> None:
    store = start_store("--size", "1MB")
    source = {"kind": "store", "host": "127.0.0.1", "port": store.port, "token_file": str(store.token_file)}
    code = """
import os, time
fd = os.open("mount/a", os.O_WRONLY | os.O_CREAT)
os.write(fd, bytes(3_000_000))
try: os.close(fd)
except OSError as error: print(error.errno)
end = time.monotonic() + 40
while os.listdir("mount") and time.monotonic() < end: time.sleep(0.01)
print(os.listdir("mount"))
"""
    done = room.python(code, source=source)
    assert done.stdout == "28\n[]\n", done


SMALL = ["unshare", "-m", "sh", "-c", 'mount -t tmpfs -o size=20m tmpfs scratch && exec "$@"', "sh"]


def test_what_a_full_disk_cut_short_takes_nobodys_place(room: Room) -> None:
    (room.source / "a").write_text("precious")
    code = """
import os
try:
    with open("mount/a", "wb", buffering=0) as file:
        while True: file.write(bytes(1_000_000))
except OSError as error: print(error.errno)
print(open("mount/a").read())
with open("mount/a", "wb") as file: file.write(b"new")
"""
    done = room.python(code, before=SMALL)
    assert done.stdout == "28\nprecious\n", done.stderr
    assert f"No space left on device: in {room.scratch}, where it is kept until it is whole" in done.stderr
    assert (room.source / "a").read_text() == "new"


def test_what_is_kept_of_what_is_read_never_fills_the_disk(room: Room) -> None:
    (room.source / "a").write_bytes(bytes(40_000_000))
    code = """
import os
print(len(open("mount/a", "rb").read()))
disk = os.statvfs("scratch")
print(disk.f_bavail * 20 // disk.f_blocks)
"""
    done = room.python(code, before=SMALL, cache=[str(room.scratch / "cache"), 1 << 30])
    assert done.stdout in {"40000000\n1\n", "40000000\n2\n"}, done


def test_what_is_read_only_stays_as_it_is(room: Room) -> None:
    (room.source / "a").write_text("old")
    done = room.run("sh", "-c", "echo x > mount/a; rm mount/a; mkdir mount/d; touch mount/a; cat mount/a", scratch=None)
    assert done.stderr.count("Read-only file system") == 4, done.stderr
    assert done.stdout == "old"
    until(lambda: os.listdir(room.source) == ["a"], "nothing changed")
