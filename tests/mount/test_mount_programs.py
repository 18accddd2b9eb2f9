"""Unmodified programs read remote files; whoever they are run by, and whatever interpreter the node has."""

from __future__ import annotations

import hashlib
import os
import random
import shutil
import signal
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest
from tests.mount.mounting import NOBODY, as_nobody, until

if TYPE_CHECKING:
    from pathlib import Path

    from tests.mount.mounting import Room

DATA = random.Random(1).randbytes(5_000_000)  # noqa: S311 - the same each time
C_PROGRAM = r"""
#include <fcntl.h>
#include <stdio.h>
#include <sys/mman.h>
#include <unistd.h>
int main(int argc, char **argv) {
    int fd = open(argv[1], O_RDONLY);
    unsigned long sum = 0;
    unsigned char buffer[1000];
    if (fd < 0) return 2;
    if (pread(fd, buffer, 1000, 4000000) != 1000) return 3;
    for (int i = 0; i < 1000; i++) sum += buffer[i];
    unsigned char *all = mmap(0, 5000000, PROT_READ, MAP_SHARED, fd, 0);
    if (all == MAP_FAILED) return 4;
    for (int i = 0; i < 5000000; i += 4096) sum += all[i];
    printf("%lu\n", sum);
    return 0;
}
"""


def test_every_python_of_a_node_serves_a_mount(room: Room, python: str) -> None:
    (room.source / "a").write_bytes(DATA)
    done = room.run("sh", "-c", "md5sum < mount/a; exit 7", python=python)
    assert done.stdout.split()[0] == hashlib.md5(DATA, usedforsecurity=False).hexdigest(), done.stderr
    assert (done.returncode, done.stderr) == (7, "")


def test_a_static_c_program_reads_and_maps(room: Room) -> None:
    if shutil.which("gcc") is None:
        pytest.skip("there is no gcc")
    (room.base / "p.c").write_text(C_PROGRAM)
    subprocess.run(["gcc", "-static", "-o", "p", "p.c"], cwd=room.base, check=True)
    (room.source / "a").write_bytes(DATA)
    done = room.run("./p", "mount/a")
    assert done.returncode == 0, done
    assert int(done.stdout) == sum(DATA[4_000_000:4_001_000]) + sum(DATA[::4096])


def test_files_of_a_task_are_seen_under_its_own_names(room: Room) -> None:
    (room.source / "x").write_text("one\ntwo\n")
    (room.source / "y").write_bytes(DATA)
    files = {
        name: {"kind": "directory", "path": str(room.source), "file": f"/{file}", "url": f"ssh://far/{file}"}
        for name, file in (("first input", "x"), ("b", "y"))
    }
    links = {"in.txt": "first input", "in.dat": "b"}
    done = room.run("sh", "-c", "grep -c o in.txt; dd if=in.dat bs=100k count=2 status=none | wc -c; ls mount; "
                    "echo no > mount/b", files=files, links=links, scratch=None)  # fmt: skip
    assert done.stdout.split("\n")[:4] == ["2", "204800", "b", "first input"], done.stderr
    assert "Read-only" in done.stderr
    found = room.record()
    assert found["x"]["read_bytes"] == 8
    assert found["y"]["url"] == "ssh://far/y"
    assert 204_800 <= found["y"]["read_bytes"] <= 600_000
    assert found["y"]["size"] == len(DATA)
    assert found["y"]["ranges"][0][0] == 0


def test_without_any_privilege_and_nothing_is_left(room: Room) -> None:
    (room.source / "a").write_bytes(DATA)
    for one in (room.base, *room.base.parents):
        if one.owner() == "root" and one.name:
            one.chmod(one.stat().st_mode | 0o011)
    shutil.chown(room.scratch, NOBODY, NOBODY)
    shutil.chown(room.mount, NOBODY, NOBODY)
    own = room.base / "own"
    own.mkdir()
    shutil.chown(own, NOBODY, NOBODY)
    room.program.chmod(0o644)
    python = "/usr/bin/python3"
    words = as_nobody(room.base / "fuse")
    changes = {"cache": [str(own / "cache"), 1 << 30], "record": str(own / "record")}
    code = "id -u; md5sum < mount/a; stat -c '%u %g' mount/a; ls -ld /proc/self/fd | wc -l; umount mount || echo kept"
    done = room.run("sh", "-c", code, python=python, before=words, **changes)
    lines = done.stdout.split("\n")
    assert lines[0] == str(NOBODY), done
    assert lines[1].split()[0] == hashlib.md5(DATA, usedforsecurity=False).hexdigest()
    assert lines[2] == f"{NOBODY} {NOBODY}"
    assert lines[4] == "kept"
    assert not os.listdir(room.mount)
    shut = room.base / "shut"
    os.mknod(shut, 0o020600, os.makedev(10, 229))
    refused = room.run("true", python=python, before=as_nobody(shut), **changes)
    assert refused.returncode == 125
    assert "/dev/fuse cannot be opened: Permission denied" in refused.stderr
    assert "chmod 666" in refused.stderr


def test_the_end_of_a_program_is_passed_on(room: Room) -> None:
    assert room.run("sh", "-c", "kill -SEGV $$").returncode == -signal.SIGSEGV
    assert room.run("sh", "-c", "kill -KILL $$").returncode == -signal.SIGKILL
    assert room.run("sh", "-c", "yes | head -1").returncode == 0  # SIGPIPE is as programs expect it
    missing = room.run("/no/such/program")
    assert missing.returncode == 127
    assert "/no/such/program" in missing.stderr


def test_a_killed_mount_takes_its_program_along(room: Room) -> None:
    process = room.start("sh", "-c", "echo $$; exec sleep 50")
    assert process.stdout is not None
    pid = int(process.stdout.readline())
    process.kill()
    process.communicate()
    until(lambda: not os.path.exists(f"/proc/{pid}/cwd"), "the program is gone")


def test_a_second_program_reads_what_the_first_one_fetched(room: Room) -> None:
    (room.source / "a").write_bytes(DATA)
    for _ in range(2):
        assert room.run("cmp", "mount/a", str(room.source / "a")).returncode == 0
    *_, last = room.log.read_text().splitlines()
    assert '"moved_bytes": 0' in last
    (room.source / "a").write_bytes(DATA[:-1])
    assert room.run("cmp", "mount/a", str(room.source / "a")).returncode == 0
    assert room.record()["a"]["moved_bytes"] == len(DATA) - 1


def test_many_readers_at_once(room: Room) -> None:
    (room.source / "a").write_bytes(DATA)
    code = "for i in 1 2 3 4 5 6 7 8; do md5sum < mount/a & done; wait"
    done = room.run("sh", "-c", code)
    assert set(done.stdout.split()) == {hashlib.md5(DATA, usedforsecurity=False).hexdigest(), "-"}
    assert len(done.stdout.splitlines()) == 8
    assert room.record()["a"]["moved_bytes"] == len(DATA)


@pytest.mark.usefixtures("room")  # where there can be none, it says so
def test_a_child_that_goes_on_keeps_its_mount(tmp_path: Path) -> None:
    (tmp_path / "s").mkdir()
    (tmp_path / "m").mkdir()
    (tmp_path / "s/a").write_text("hello")
    words = [sys.executable, "-m", "serai", "mount", "s", "m", "--cache", "100MB", "--"]
    environment = os.environ | {"SERAI_CACHE": str(tmp_path / "cache")}
    code = "(until [ -e go ]; do sleep 0.02; done; cat m/a > late) & exit 3"
    process = subprocess.Popen([*words, "sh", "-c", code], cwd=tmp_path, env=environment)
    until(lambda: not os.path.exists(f"/proc/{process.pid}") or (tmp_path / "cache").exists(), "it has begun")
    (tmp_path / "go").touch()
    assert process.wait(90) == 3
    assert (tmp_path / "late").read_text() == "hello"


def test_the_memory_of_what_serves_a_program_is_left_on_no_disk(room: Room) -> None:
    code = """if True:
    import os, resource
    print(resource.getrlimit(resource.RLIMIT_CORE)[0])
    lines = open(f"/proc/{os.getppid()}/limits").read().splitlines()
    print(next(line.split()[4] for line in lines if line.startswith("Max core file size")))
    os.abort()
    """
    before = ["prlimit", "--core=4096:", "--"]
    done = room.run(sys.executable, "-c", code, before=before)
    assert done.stdout.split() == ["4096", "0"], done.stderr
    assert done.returncode == -signal.SIGABRT
