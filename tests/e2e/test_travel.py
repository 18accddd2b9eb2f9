"""Files: inputs travel, outputs come home whole or not at all, and what goes wrong is told with host and file."""

from __future__ import annotations

import hashlib
import json
import os
import signal
import stat
import threading
import time
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    import subprocess
    from pathlib import Path

    from tests.e2e.conftest import Front

pytestmark = pytest.mark.lab

NAMES = [
    "a b.txt", "it's.txt", 'say "hi".txt', "new\nline.txt", "-dash.txt", "naïve-ñ.txt", "$HOME.txt", "semi;colon.txt",
    "star*.txt", "back\\slash.txt", "tab\t.txt", "percent%s.txt", "{braces}.txt", " lead", "sub dir/x y.txt",
]  # fmt: skip


def tasks_of(done: subprocess.CompletedProcess[str]) -> list[dict[str, Any]]:
    """What --json said of tasks."""
    lines = [json.loads(line) for line in done.stdout.splitlines() if line.startswith("{")]
    return [line for line in lines if line["event"] == "task"]


def test_inputs_of_any_name_travel_and_their_outputs_come_home(front: Front) -> None:
    for number, name in enumerate(NAMES):
        path = front.home / name
        path.parent.mkdir(exist_ok=True)
        path.write_text(f"{number}\n")
    done = front.run("run", "cat {in} > {out}; cat {in}", "--out", "o", *front.on(), "--", *NAMES)
    assert done.returncode == 0, done.stderr
    assert sorted(map(int, done.stdout.split())) == list(range(len(NAMES)))
    got = {name: (front.home / "o" / os.path.basename(name)).read_text() for name in NAMES}
    assert got == {name: f"{number}\n" for number, name in enumerate(NAMES)}
    assert sorted(os.listdir(front.home / "o")) == sorted(os.path.basename(name) for name in NAMES)


def test_a_name_that_is_not_utf8_travels(front: Front) -> None:
    name = os.fsdecode(b"latin-\xe9.txt")
    (front.home / name).write_text("x")
    done = front.run("run", "cat {in} > {out}", name, "--out", "o", *front.on("lab1"))
    assert done.returncode == 0, done.stderr
    assert (front.home / "o" / name).read_text() == "x"


def test_directories_empty_files_and_modes_travel_both_ways(front: Front) -> None:
    top = front.home / "tree"
    (top / "deep/er").mkdir(parents=True)
    (top / "hollow").mkdir()
    (top / "empty").touch()
    (top / "deep/er/run me").write_text("#!/bin/sh\necho ran\n")
    (top / "deep/er/run me").chmod(0o755)
    (top / "secret").write_text("s")
    (top / "secret").chmod(0o600)
    command = "cp -a {in} {out} && {in}/'deep/er/run me' && test -d {in}/hollow && test ! -s {in}/empty"
    done = front.run("run", command, "tree", "--out", "o", *front.on("lab2"))
    assert done.returncode == 0, done.stderr
    assert done.stdout == "ran\n"
    back = front.home / "o/tree"
    assert sorted(str(path.relative_to(back)) for path in back.rglob("*")) == sorted(
        str(path.relative_to(top)) for path in top.rglob("*")
    )
    assert stat.S_IMODE((back / "deep/er/run me").stat().st_mode) == 0o755
    assert stat.S_IMODE((back / "secret").stat().st_mode) == 0o600
    assert (back / "empty").stat().st_size == 0


def test_scripts_travel_by_themselves_and_with_send(front: Front) -> None:
    (front.home / "count.py").write_text(
        "import sys, table\nopen(sys.argv[3], 'w').write(table.WORDS + str(len(open(sys.argv[1]).read().split())))\n"
    )
    (front.home / "table.py").write_text("WORDS = 'words: '\n")
    for number in range(6):
        (front.home / f"{number}.txt").write_text("word " * number)
    files = [f"{number}.txt" for number in range(6)]
    command = "python3 count.py {in} -o {out:.n}"
    done = front.run("run", command, *files, "--send", "table.py", "--out", "o", *front.on())
    assert done.returncode == 0, done.stderr
    assert [(front.home / f"o/{n}.n").read_text() for n in range(6)] == [f"words: {n}" for n in range(6)]
    assert "count.py" in done.stderr  # what travels is told


def test_a_hundred_megabytes_arrive_intact_both_ways(front: Front) -> None:
    digest = hashlib.sha256()
    with (front.home / "big").open("wb") as file:
        for _ in range(100):
            block = os.urandom(1 << 20)
            digest.update(block)
            file.write(block)
    done = front.run("run", "sha256sum < {in}; mv {in} {out}", "big", "--out", "o", *front.on("lab1"))
    assert done.returncode == 0, done.stderr
    assert done.stdout.split()[0] == digest.hexdigest()
    with (front.home / "o/big").open("rb") as file:
        assert hashlib.file_digest(file, "sha256").hexdigest() == digest.hexdigest()


def test_an_input_that_every_task_needs_travels_once(front: Front) -> None:
    (front.home / "data").mkdir()
    for name in ("ref", "other", "data/x", "data/y"):
        (front.home / name).write_text(name)
    done = front.run("run", "cat ref {in}; echo", "ref", "other", "data/x", "data/y", "--send", "data", *front.on())
    assert done.returncode == 0, done.stderr
    assert sorted(done.stdout.split()) == ["refdata/x", "refdata/y", "refother", "refref"]


def test_a_missing_output_fails_its_task_and_names_it(front: Front) -> None:
    for name in ("good", "bad"):
        (front.home / name).write_text(name)
    done = front.run("run", "grep -q good {in} && cp {in} {out} || true", "good", "bad", "--out", "o", *front.on())
    assert done.returncode == 1
    assert "did not write its output" in done.stderr
    assert "bad" in done.stderr
    assert os.listdir(front.home / "o") == ["good"]


def test_an_input_that_cannot_be_read_fails_its_task_alone(front: Front) -> None:
    (front.home / "good").write_text("good")
    (front.home / "loop").symlink_to("loop")
    (front.home / "pipe").write_text("")
    done = front.run("run", "cat {in}", "good", "loop", "gone", *front.on("lab1"), "--json")
    assert done.returncode == 1, done.stderr
    tasks = {task["inputs"][0]: task for task in tasks_of(done)}
    assert tasks["good"]["state"] == "done"
    for name in ("loop", "gone"):
        assert tasks[name]["state"] == "failed"
        assert f"cannot read its input {name}" in tasks[name]["detail"]


def test_an_output_is_never_half_visible(front: Front) -> None:
    size = 3_000_000
    front.lab.host("lab1").slow(rate_bit_s=20e6)
    seen: set[int] = set()
    stop = threading.Event()

    def look() -> None:
        while not stop.is_set():
            for root, directories, names in os.walk(front.home / "o"):
                directories[:] = [name for name in directories if not name.startswith(".")]
                seen.update(os.path.getsize(os.path.join(root, name)) for name in names)
            time.sleep(0.002)

    watcher = threading.Thread(target=look)
    watcher.start()
    try:
        command = f"head -c {size} /dev/zero > {{out}}"
        done = front.run("run", command, "--each", "1..3", "--out", "o", *front.on("lab1"))
    finally:
        stop.set()
        watcher.join()
    assert done.returncode == 0, done.stderr
    assert seen == {size}


def test_a_full_disk_on_the_node_is_told_with_host_and_file(front: Front) -> None:
    (front.home / "big").write_bytes(os.urandom(3_000_000))
    (front.home / "small").write_text("small")
    host = front.lab.host("lab1")
    host.fill_disk(leave_bytes=1_000_000)
    try:
        done = front.run("run", "wc -c < {in}", "small", "big", *front.on("lab1"), "--json")
    finally:
        host.free_disk()
    assert done.returncode == 1, done.stderr
    tasks = {task["inputs"][0]: task for task in tasks_of(done)}
    assert tasks["small"]["state"] == "done", tasks
    assert tasks["big"]["state"] == "failed"
    assert "the input big did not arrive whole" in tasks["big"]["detail"]
    assert "No space left on device" in tasks["big"]["detail"]
    assert "lab1" in tasks["big"]["detail"]


def test_a_full_disk_of_one_node_moves_the_work_to_another(front: Front) -> None:
    for number in range(8):
        (front.home / f"{number}").write_bytes(os.urandom(2_000_000))
    host = front.lab.host("lab1")
    host.fill_disk(leave_bytes=1_000_000)
    try:
        done = front.run("run", "wc -c < {in}", *map(str, range(8)), *front.on("lab1", "lab2"))
    finally:
        host.free_disk()
    assert done.returncode == 0, done.stderr
    assert done.stdout.split() == ["2000000"] * 8


def test_a_full_disk_at_home_fails_the_task_and_leaves_nothing_half_done(front: Front, small_disk: Path) -> None:
    command = "head -c 3000000 /dev/zero > {out}"
    done = front.run("run", command, "--each", "1..1", "--out", str(small_disk / "o"), *front.on("lab1"), "--json")
    assert done.returncode == 1, done.stderr
    assert "cannot be stored here" in tasks_of(done)[0]["detail"]
    assert "No space left" in tasks_of(done)[0]["detail"]
    assert [name for _, _, names in os.walk(small_disk) for name in names] == []


def test_a_front_end_that_is_killed_leaves_half_an_output_only_where_resume_removes_it(front: Front) -> None:
    front.lab.host("lab1").slow(rate_bit_s=8e6)
    command = "head -c 4000000 /dev/zero > {out}"
    process = front.start("run", command, "--each", "1..1", "--out", "o", *front.on("lab1"))
    front.until(lambda: list((front.home / "o").glob(".serai-*/*")), "the output begins to come")
    os.kill(process.pid, signal.SIGKILL)
    front.lab.host("lab1").slow(None)
    process.wait(40)
    assert not (front.home / "o/1").exists()
    done = front.run("resume")
    assert done.returncode == 0, done.stderr
    assert os.listdir(front.home / "o") == ["1"]
    assert (front.home / "o/1").stat().st_size == 4_000_000
