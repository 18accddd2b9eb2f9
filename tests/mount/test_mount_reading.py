"""What is read is what the source has, whatever is asked for in whatever order, and however little may be kept."""

from __future__ import annotations

import errno
import json
import os
import random
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from tests.mount.mounting import Room

SIZE = 30_000_001
READS = """
import os, random, sys, hashlib, mmap, threading
path, seed, size = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
def work(seed):
    source, fd = random.Random(seed), os.open(path, os.O_RDONLY)
    truth = os.open(sys.argv[4], os.O_RDONLY)
    for _ in range(120):
        start = source.randrange(size + 1000)
        length = source.choice((1, 4096, 65536, 131072, 1 << 20, source.randrange(1 << 18)))
        if os.pread(fd, length, start) != os.pread(truth, length, start):
            print("WRONG", seed, start, length)
            os._exit(1)
threads = [threading.Thread(target=work, args=(seed + n,)) for n in range(4)]
for one in threads: one.start()
for one in threads: one.join()
print("right")
"""
NAMES = ["a b", "ü\u4e2d", "'\"$`", "-rf", "x\\ny", "*?[", "tab\there", "%41#?", ".hidden", "n" * 250]


@pytest.mark.parametrize("seed", [1, 2])
def test_random_reads_are_right(room: Room, seed: int) -> None:
    (room.source / "a").write_bytes(random.Random(seed).randbytes(SIZE))  # noqa: S311 - the same each time
    done = room.python(READS, "mount/a", str(seed), str(SIZE), str(room.source / "a"))
    assert done.stdout == "right\n", done


def test_random_reads_are_right_where_hardly_anything_is_kept(room: Room) -> None:
    (room.source / "a").write_bytes(random.Random(3).randbytes(120_000_000))  # noqa: S311 - the same each time
    words = ("mount/a", "3", "120000000", str(room.source / "a"))
    for cache in ([str(room.cache), 1], None):
        assert room.python(READS, *words, cache=cache).stdout == "right\n"
    kept = sum(facts.st_blocks * 512 for one in room.cache.rglob("*") if (facts := one.stat()) and one.is_file())
    assert kept <= (64 << 20) + (16 << 20)


def test_parts_that_are_read_are_told_and_little_else_is_moved(room: Room) -> None:
    """Twenty reads of a megabyte each, of a large file, as a program of the communities' experiment does them."""
    with (room.source / "a").open("wb") as file:
        file.truncate(300_000_000)
    source = random.Random(4)  # noqa: S311 - the same each time
    starts = [source.randrange(0, 299_000_000) for _ in range(20)]
    code = "import os, sys; fd = os.open('mount/a', 0); [os.pread(fd, 1000000, int(w)) for w in sys.argv[1:]]"
    room.python(code, *map(str, starts))
    found = room.record()["a"]
    wanted = set()
    for start in starts:
        wanted |= set(range(start // 1000, (start + 999_999) // 1000))
    told = {at for start, stop in found["ranges"] for at in range(start // 1000, -(-stop // 1000))}
    assert wanted <= told
    assert found["moved_bytes"] <= 1.3 * 20_000_000, found["moved_bytes"]


def test_names_are_bytes(room: Room) -> None:
    wild = os.fsencode(room.source) + b"/\xff\xfe"
    with open(wild, "wb") as file:
        file.write(b"wild")
    for number, name in enumerate(NAMES):
        (room.source / name).write_text(str(number))
    code = """
import json, os
names = os.listdir(b"mount")
print(json.dumps({name.hex(): open(b"mount/" + name).read() for name in names}))
"""
    found = json.loads(room.python(code).stdout)
    assert found == {name.encode().hex(): str(number) for number, name in enumerate(NAMES)} | {"fffe": "wild"}


def test_a_large_directory_is_listed_whole(room: Room) -> None:
    (room.source / "many").mkdir()
    for number in range(5000):
        (room.source / f"many/file-{number:05}").touch()
    done = room.run("sh", "-c", "ls mount/many | md5sum; ls mount/many | wc -l; ls -l mount/many | wc -l")
    assert done.stdout.split()[2:] == ["5000", "5001"]


def test_what_is_not_there_and_what_is_no_directory(room: Room) -> None:
    (room.source / "a").write_text("x")
    code = """
import os
for path in ("no", "a/b", "a", "no/way"):
    for do in (os.stat, os.listdir, os.rmdir):
        try:
            do("mount/" + path)
        except OSError as error:
            print(path, do.__name__, type(error).__name__)
"""
    found = set(room.python(code).stdout.splitlines())
    for kind in ("no stat FileNotFoundError", "a/b stat NotADirectoryError", "a listdir NotADirectoryError",
                 "a rmdir NotADirectoryError", "no/way listdir FileNotFoundError"):  # fmt: skip
        assert kind in found, found


def test_a_file_that_changes_is_read_anew_when_it_is_opened(room: Room) -> None:
    (room.source / "a").write_text("first")
    code = f"""
import os, time
print(open("mount/a").read())
with open({str(room.source / "new")!r}, "w") as file: file.write("second, and longer")
os.rename({str(room.source / "new")!r}, {str(room.source / "a")!r})
end = time.monotonic() + 40
while (found := open("mount/a").read()) == "first" and time.monotonic() < end: time.sleep(0.05)
print(found)
"""
    assert room.python(code).stdout == "first\nsecond, and longer\n"


def test_a_file_that_is_open_is_never_two_versions(room: Room) -> None:
    """What was not read yet of a version that is gone is an error, and nothing of the next one."""
    (room.source / "a").write_bytes(b"1" * 8_000_000)
    (room.source / "b").write_bytes(b"2" * 8_000_000)
    code = f"""
import os
fd = os.open("mount/a", os.O_RDONLY)
print(os.pread(fd, 1, 0))
os.rename({str(room.source / "b")!r}, {str(room.source / "a")!r})
try: print(os.pread(fd, 1, 7_000_000))
except OSError as error: print(error.errno)
print(os.pread(fd, 1, 10))
"""
    assert room.python(code).stdout.split() == ["b'1'", str(errno.ESTALE), "b'1'"]
