"""Reading through a mount, beside sshfs: a large file from its beginning to its end, and parts of one from far away.

``sequential``: 1 GB over loopback from a real sshd, read once by a program, nothing of it being kept beforehand.
``random``: 20 reads of 1 MB of a file of 300 MB on a laboratory host whose round trip takes 20 ms; ``moved_ratio`` is
the bytes that came over the cable, whatever they were, over those that the program read. As a program:
``python benchmarks/studies/mount.py [--rounds N] [--large-mb N]``.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

READS, READ_BYTES, FILE_BYTES = 20, 1_000_000, 300_000_000
DELAY_MS = 10.0  # each way
MOST_S = 300.0
SEQUENTIAL = """
import sys, time
buffer, size = bytearray(1 << 20), 0
began = time.perf_counter()
with open(sys.argv[1], "rb", buffering=0) as file:
    while count := file.readinto(buffer):
        size += count
print(time.perf_counter() - began, size)
"""
RANDOM = """
import os, sys, time
began, size = time.perf_counter(), 0
fd = os.open(sys.argv[1], os.O_RDONLY)
for start in sys.argv[2:]:
    size += len(os.pread(fd, 1000000, int(start)))
print(time.perf_counter() - began, size)
"""


def study(arguments: argparse.Namespace) -> list[dict[str, Any]]:
    """Both workloads, sshfs and the mount in turn, round by round, in one run."""
    large = 100_000_000 if arguments.quick else getattr(arguments, "large_mb", 1000) * 1_000_000
    figures: list[dict[str, Any]] = []
    base = "/dev/shm" if os.path.isdir("/dev/shm") else None
    with tempfile.TemporaryDirectory(prefix="sb-", dir="/tmp") as scratch, ExitStack() as stack:
        room = Path(scratch)
        data = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="sb-", dir=base)))
        _fill(data / "large", large)
        sshd = stack.enter_context(_sshd(room / "sshd"))
        for turn in range(arguments.rounds):
            for peer, mounted in PEERS.items():
                run = mounted(room, sshd, f"ssh://lab{data}")
                figures.append(_figure(peer, "sequential", turn, lambda run=run: run(SEQUENTIAL, "large")))
        figures += _far(arguments, room)
    for figure in figures:
        print(f"mount: {figure}", file=sys.stderr)
    return figures


def _far(arguments: argparse.Namespace, room: Path) -> list[dict[str, Any]]:
    from serai.testing.lab import Lab  # noqa: PLC0415 - it needs root: the other half does not

    figures = []
    with Lab.up(1) as lab:
        host = lab.hosts[0]
        host.run(["sh", "-c", f"head -c {FILE_BYTES} /dev/urandom > /tmp/large"], check=True, timeout_s=60)
        host.slow(delay_ms=DELAY_MS)
        for turn in range(arguments.rounds):
            source = random.Random(turn)
            starts = [str(source.randrange(FILE_BYTES - READ_BYTES)) for _ in range(READS)]
            for peer, mounted in PEERS.items():
                run = mounted(room, lab.ssh_config, f"ssh://{host.name}/tmp")

                def measure(
                    run: Callable[..., tuple[float, int]] = run, starts: list[str] = starts
                ) -> tuple[float, int, int]:
                    before = _sent(host)
                    wall_s, size = run(RANDOM, "large", *starts)
                    return wall_s, size, _sent(host) - before

                figures.append(_figure(peer, "random", turn, measure))
    return figures


def _figure(peer: str, what: str, turn: int, measure: Callable[[], tuple[Any, ...]]) -> dict[str, Any]:
    kind = "serai" if peer == "serai" else "peer"
    figure: dict[str, Any] = {"peer": peer, "kind": kind, "what": what, "round": turn}
    try:
        wall_s, size, *moved = measure()
    except (OSError, ValueError, subprocess.SubprocessError) as error:
        return figure | {"error": str(error)}
    figure |= {"wall_s": wall_s, "bytes": size, "mb_s": size / wall_s / 1e6}
    return figure | ({"moved_bytes": moved[0], "moved_ratio": moved[0] / size} if moved else {})


def _sent(host: Any) -> int:
    """Bytes that a host has sent through its cable, with all that goes around them."""
    text = host.run(["cat", "/proc/net/dev"], check=True).stdout
    return sum(int(line.split(":")[1].split()[8]) for line in text.splitlines() if ":" in line and " lo:" not in line)


def _fill(path: Path, size: int) -> None:
    source = random.Random(1)
    with path.open("wb") as file:
        for start in range(0, size, 1 << 20):
            file.write(source.randbytes(min(1 << 20, size - start)))


def _free_port() -> int:
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        port: int = one.getsockname()[1]
        return port


@contextmanager
def _sshd(room: Path) -> Iterator[Path]:
    """A real sshd on loopback; gives the ssh_config by which it is ``lab``."""
    program = shutil.which("sshd", path=f"{os.environ['PATH']}:/usr/sbin")
    if program is None:
        raise FileNotFoundError("there is no sshd")
    if os.geteuid() == 0:
        Path("/run/sshd").mkdir(mode=0o755, exist_ok=True)
    room.mkdir()
    for name in ("host", "id"):
        subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(room / name)], check=True)
    port = _free_port()
    kind, blob = (room / "host.pub").read_text().split()[:2]
    (room / "known").write_text(f"[127.0.0.1]:{port} {kind} {blob}\n")
    (room / "sshd_config").write_text(
        f"Port {port}\nListenAddress 127.0.0.1\nHostKey {room}/host\nPidFile none\nAuthorizedKeysFile {room}/id.pub\n"
        "UsePAM no\nStrictModes no\nPermitRootLogin yes\nPasswordAuthentication no\nSubsystem sftp internal-sftp\n"
    )
    (room / "config").write_text(
        f"Host lab\n  HostName 127.0.0.1\n  Port {port}\n  IdentityFile {room}/id\n  IdentitiesOnly yes\n"
        f"  IdentityAgent none\n  UserKnownHostsFile {room}/known\n"
    )
    quiet = subprocess.DEVNULL
    server = subprocess.Popen([program, "-D", "-f", str(room / "sshd_config")], stdin=quiet, stderr=quiet)
    try:
        end = time.monotonic() + 20
        while subprocess.run(["ssh", "-F", room / "config", "lab", "true"], stderr=quiet, check=False).returncode:
            if time.monotonic() > end:
                raise OSError("the sshd does not answer")
            time.sleep(0.1)
        yield room / "config"
    finally:
        server.terminate()
        server.wait(20)


def _serai(room: Path, config: Path, url: str) -> Callable[..., tuple[float, int]]:
    def run(program: str, name: str, *words: str) -> tuple[float, int]:
        with tempfile.TemporaryDirectory(dir=room) as own:
            at = Path(own) / "mount"
            at.mkdir()
            mount = [sys.executable, "-m", "serai", "mount", "-F", str(config), "--cache", "4GB", url, str(at), "--"]
            env = os.environ | {"SERAI_CACHE": f"{own}/cache"}
            return _said([*mount, sys.executable, "-c", program, str(at / name), *words], env)

    return run


def _sshfs(room: Path, config: Path, url: str) -> Callable[..., tuple[float, int]]:
    host, slash, path = url.removeprefix("ssh://").partition("/")

    def run(program: str, name: str, *words: str) -> tuple[float, int]:
        at = room / "sshfs"
        at.mkdir(exist_ok=True)
        subprocess.run(["sshfs", "-F", str(config), f"{host}:{slash}{path}", str(at)], check=True, timeout=MOST_S)
        try:
            return _said([sys.executable, "-c", program, str(at / name), *words], dict(os.environ))
        finally:
            with suppress(subprocess.SubprocessError):
                subprocess.run(["fusermount3", "-u", str(at)], check=True, timeout=20)

    return run


def _said(words: list[str], env: dict[str, str]) -> tuple[float, int]:
    done = subprocess.run(words, env=env, capture_output=True, text=True, timeout=MOST_S, check=False)
    if done.returncode:
        raise OSError(done.stderr[-500:])
    wall_s, size = done.stdout.split()
    return float(wall_s), int(size)


PEERS = {"serai": _serai, "sshfs": _sshfs}


def main() -> None:
    """The study by itself."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--large-mb", type=int, default=1000)
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--json", action="store_true")
    arguments = parser.parse_args()
    figures = study(arguments)
    if arguments.json:
        print(json.dumps(figures, indent=1))
        return
    for what in ("sequential", "random"):
        for peer in PEERS:
            mine = [one for one in figures if one["what"] == what and one["peer"] == peer and "error" not in one]
            if mine:
                times = sorted(one["wall_s"] for one in mine)
                ratios = [f"{one['moved_ratio']:.2f}" for one in mine if "moved_ratio" in one]
                rate = mine[0]["bytes"] / times[len(times) // 2] / 1e6
                print(f"{what:10} {peer:6} {times[len(times) // 2]:6.2f} s  {rate:6.0f} MB/s  moved {ratios}")


if __name__ == "__main__":
    main()
