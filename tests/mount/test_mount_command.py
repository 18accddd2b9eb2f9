"""`serai mount`: for one command, for everybody, and what is said when it cannot be."""

from __future__ import annotations

import functools
import http.server
import io
import os
import pty
import re
import shutil
import signal
import subprocess
import sys
import threading
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from tests.mount.mounting import NOBODY, as_nobody, until

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.mount.mounting import Room
    from tests.store.conftest import Store


def serai(room: Room, *words: str) -> subprocess.CompletedProcess[str]:
    env = os.environ | {"SERAI_CACHE": str(room.cache)}
    command = [sys.executable, "-m", "serai", "mount", *words]
    return subprocess.run(command, cwd=room.base, env=env, capture_output=True, text=True, timeout=120, check=False)


def mounts_at(path: Path) -> list[str]:
    with open("/proc/self/mounts", encoding="utf-8") as file:
        return [line.split()[2] for line in file if line.split()[1] == str(path)]


def test_a_command_sees_it_and_nobody_else(room: Room) -> None:
    (room.source / "a").write_text("hello")
    script = room.base / "script"
    script.write_text(f"cat mount/a; ls {room.mount}; echo new > mount/b; exit 4")
    done = serai(room, "source", "mount", "--record", "rec", "--", "sh", str(script))
    assert (done.stdout, done.returncode) == ("helloa\n", 4), done.stderr
    assert (room.source / "b").read_text() == "new\n"
    assert not mounts_at(room.mount)
    assert '"read_bytes": 5' in (room.base / "rec").read_text()


def test_a_store_is_mounted_by_its_url(room: Room, start_store: Callable[..., Store]) -> None:
    store = start_store("--tls")
    (store.room / "d").mkdir()
    (store.room / "d/a").write_text("hello")
    pinned = f"store://127.0.0.1:{store.port}/d?fingerprint=sha256:{store.fingerprint}"
    done = serai(room, pinned, "mount", "--", "sh", "-c", "cat mount/a; echo x > mount/new")
    assert done.stdout == "hello", done.stderr
    assert (store.room / "d/new").read_text() == "x\n"
    wrong = serai(room, pinned[:-4] + "0000", "mount", "--", "true")
    assert wrong.returncode == 3
    assert "certificate" in wrong.stderr


def test_a_source_that_is_lost_is_named(room: Room, start_store: Callable[..., Store]) -> None:
    store = start_store()
    (store.room / "a").write_bytes(bytes(5_000_000))
    url = f"store://127.0.0.1:{store.port}"
    script = f"ls -l mount > /dev/null; kill -9 {store.process.pid}; cat mount/a > /dev/null"
    done = serai(room, url, "mount", "--", "sh", "-c", script)
    assert f"mount: {url}/a cannot be read: " in done.stderr


def test_a_source_that_is_silent_is_named_and_that_it_was(room: Room, start_store: Callable[..., Store]) -> None:
    store = start_store()
    (store.room / "a").touch()
    url, pid = f"store://127.0.0.1:{store.port}", store.process.pid
    script = f"ls mount; kill -STOP {pid}; cat mount/b; kill -CONT {pid}"
    done = serai(room, url, "mount", "--deadline", "1s", "--", "sh", "-c", script)
    # By whom the silence is noticed first: its reader, or the connection.
    words = rf"mount: {re.escape(url)}/b cannot be read: .* said nothing (for 1 s|in time)\n"
    assert re.search(words, done.stderr), done.stderr


class Pages(http.server.SimpleHTTPRequestHandler):
    """A directory with its pages, and ranges of files."""

    def send_head(self) -> Any:
        wanted, path = self.headers.get("Range"), Path(self.translate_path(self.path))
        if wanted is None or not path.is_file():
            return super().send_head()
        first, last = map(int, wanted.removeprefix("bytes=").split("-"))
        data = path.read_bytes()
        part = data[first : last + 1]
        self.send_response(206)
        self.send_header("Content-Range", f"bytes {first}-{first + len(part) - 1}/{len(data)}")
        self.send_header("Content-Length", str(len(part)))
        self.end_headers()
        return io.BytesIO(part)

    def log_message(self, *_: object) -> None:
        return


@pytest.mark.parametrize("below", ["", "/", "/d", "/d/"])
def test_a_directory_of_a_web_server_is_mounted(room: Room, below: str) -> None:
    (room.source / "d").mkdir()
    (room.source / "d/a").write_text("hello")
    os.utime(room.source / "d/a", (1_000_000_000, 1_000_000_000))
    served = functools.partial(Pages, directory=str(room.source))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), served) as server:
        threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()
        url = f"http://127.0.0.1:{server.server_address[1]}{below}"
        top = "mount" if "d" in below else "mount/d"
        done = serai(room, url, "mount", "--", "sh", "-c", f"cat {top}/a; stat -c ' %s %Y' {top}/a; ls {top}")
        server.shutdown()
    assert done.stdout == "hello 5 1000000000\na\n", done.stderr


def test_a_shell_is_the_command_of_a_terminal(room: Room) -> None:
    (room.source / "a").write_text("hello")
    master, slave = pty.openpty()
    environment = os.environ | {"SERAI_CACHE": str(room.cache), "SHELL": "/bin/sh"}
    words = [sys.executable, "-m", "serai", "mount", "source", "mount"]
    process = subprocess.Popen(
        words, cwd=room.base, env=environment, stdin=slave, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )
    os.close(slave)
    os.write(master, b"cat mount/a\nexit 6\n")
    out, _ = process.communicate(timeout=120)
    os.close(master)
    assert (out, process.returncode) == (b"hello", 6)


@pytest.mark.parametrize("end", ["interrupt", "unmount"])
def test_everybody_sees_a_public_mount_until_it_is_ended(room: Room, end: str) -> None:
    (room.source / "a").write_text("hello")
    environment = os.environ | {"SERAI_CACHE": str(room.cache)}
    words = [sys.executable, "-m", "serai", "mount", "source", str(room.mount), "--public"]
    process = subprocess.Popen(words, cwd=room.base, env=environment, stderr=subprocess.PIPE, text=True)
    try:
        until(lambda: mounts_at(room.mount) == ["fuse.serai"] or process.poll() is not None, "it is there")
        assert (room.mount / "a").read_text() == "hello"
        (room.mount / "b").write_text("written")
        if end == "interrupt":
            process.send_signal(signal.SIGINT)
        else:
            subprocess.run(["umount", str(room.mount)], check=True)
        assert process.wait(60) == 0
    finally:
        process.kill()
        process.communicate()
        if mounts_at(room.mount):
            subprocess.run(["umount", "-l", str(room.mount)], check=False)
    assert not mounts_at(room.mount)
    assert (room.source / "b").read_text() == "written"


def test_a_mount_whose_server_was_killed_is_told_from_what_is_no_directory(room: Room) -> None:
    words = [sys.executable, "-m", "serai", "mount", "source", str(room.mount), "--public"]
    with subprocess.Popen(words, cwd=room.base, stderr=subprocess.DEVNULL) as process:
        until(lambda: mounts_at(room.mount) == ["fuse.serai"], "it is there")
        process.kill()
    try:
        done = serai(room, "source", "mount", "--", "true")
        assert (done.returncode, "umount mount" in done.stderr) == (2, True)
    finally:
        subprocess.run(["umount", "-l", str(room.mount)], check=False)


def test_what_is_wrong_is_said_at_once(room: Room) -> None:
    (room.source / "a").write_text("x")
    for words, code, said in (
        (("source/no", "mount", "--", "true"), 2, "there is nothing at source/no"),
        (("source/a", "mount", "--", "true"), 2, "mount the directory that it is in"),
        (("source", "nowhere", "--", "true"), 2, "mkdir nowhere"),
        (("nosuch://x/y", "mount", "--", "true"), 2, "nosuch"),
        (("source", "mount", "--deadline", "0s", "--", "true"), 2, "--deadline"),
        (("source", "mount", "--public", "--", "true"), 2, "--public"),
        (("source", "mount", "--", "/no/such/program"), 127, "/no/such/program"),
    ):
        done = serai(room, *words)
        assert done.returncode == code, (words, done)
        assert said in done.stderr, (words, done)
        assert "Traceback" not in done.stderr


def test_why_there_can_be_no_mount_is_said(room: Room) -> None:
    """Where a user may not open the device, and where the kernel gives nobody a user namespace."""
    shut = room.base / "shut"
    os.mknod(shut, 0o020600, os.makedev(10, 229))
    own = room.base / "own"
    own.mkdir()
    shutil.chown(own, NOBODY, NOBODY)
    for one in (room.base, *room.base.parents):
        if one.owner() == "root" and one.name:
            one.chmod(one.stat().st_mode | 0o011)
    before = as_nobody(shut)
    done = room.run("true", python="/usr/bin/python3", before=before, record=None, cache=None, scratch=None)
    assert done.returncode == 125
    assert "chmod 666 /dev/fuse" in done.stderr
    # In a user namespace of its own the limit can be set without touching the machine's.
    drop = "exec setpriv --bounding-set -all --inh-caps -all"
    limit = f'echo 0 > /proc/sys/user/max_user_namespaces && {drop} "$@"'
    none = ["unshare", "-Ur", "sh", "-c", limit, "sh"]
    done = room.run("true", python="/usr/bin/python3", before=none, record=None, cache=None, scratch=None)
    assert done.returncode == 125
    assert "sysctl user.max_user_namespaces" in done.stderr
