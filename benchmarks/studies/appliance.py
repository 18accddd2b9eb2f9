"""Put and get of one large file and of many small ones over loopback: the appliance, nginx and a Chirp server, in turn.

The same curl asks the appliance and nginx, on one connection; Chirp is asked by its own commands. Files are in memory,
so that what is measured is the servers. The appliance keeps digests of what it takes; the others do not. As a program:
``python benchmarks/studies/appliance.py [--rounds N] [--large-mb N]``.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import random
import shutil
import signal
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

SMALL_BYTES = 100_000
MOST_S = 120.0
NOBODY = ("setpriv", "--reuid=65534", "--regid=65534", "--clear-groups")  # chirp_server does not work as root
NGINX = """{user}
daemon off; worker_processes 1; pid {room}/pid; error_log {room}/error.log;
events {{ worker_connections 512; }}
http {{ access_log off; sendfile on; client_max_body_size 0; keepalive_requests 1000000;
client_body_temp_path {room}/t1; proxy_temp_path {room}/t2; fastcgi_temp_path {room}/t3; uwsgi_temp_path {room}/t4;
scgi_temp_path {room}/t5;
server {{ listen 127.0.0.1:{port}; root {room}/root;
location / {{ dav_methods PUT DELETE MKCOL COPY MOVE; create_full_put_path on; }} }} }}
"""


def study(arguments: argparse.Namespace) -> list[dict[str, Any]]:
    """Start the three servers once, and ask each in turn, round by round; what curl calls a failure is an error."""
    large, small = (50_000_000, 100) if arguments.quick else (arguments.large_mb * 1_000_000, 1000)
    base = "/dev/shm" if os.path.isdir("/dev/shm") else None
    with tempfile.TemporaryDirectory(prefix="sb-", dir=base) as scratch, contextlib.ExitStack() as stack:
        room = Path(scratch)
        room.chmod(0o755)
        _make(room, large, small)
        peers: dict[str, tuple[str, Callable[[str], float]]] = {}
        for peer, kind, start in (("serai", "serai", _serai), ("nginx", "peer", _nginx), ("chirp", "peer", _chirp)):
            try:
                peers[peer] = (kind, stack.enter_context(start(room, small)))
            except (OSError, subprocess.SubprocessError) as error:
                peers[peer] = (kind, _failing(str(error)))
        figures = []
        for turn in range(arguments.rounds):
            for what in arguments.what or ("put large", "get large", "put small", "get small"):
                for peer, (kind, ask) in peers.items():
                    figure: dict[str, Any] = {"peer": peer, "kind": kind, "what": what, "round": turn}
                    figure |= {"bytes": large, "files": 1} if "large" in what else {"bytes": small * SMALL_BYTES}
                    figure.setdefault("files", small)
                    try:
                        figure["wall_s"] = ask(what)
                    except (OSError, subprocess.SubprocessError) as error:
                        figure["error"] = str(error)
                    figures.append(figure)
        return figures


def _make(room: Path, large: int, small: int) -> None:
    source = random.Random(1)
    with (room / "large").open("wb") as out:
        for start in range(0, large, 1 << 20):
            out.write(source.randbytes(min(1 << 20, large - start)))
    (room / "small").mkdir()
    for number in range(small):
        (room / f"small/f{number}").write_bytes(source.randbytes(SMALL_BYTES))


def _failing(why: str) -> Callable[[str], float]:
    def ask(_what: str) -> float:
        raise OSError(why)

    return ask


def _timed(words: list[str], room: Path) -> float:
    began = time.perf_counter()
    subprocess.run(words, cwd=room, check=True, timeout=MOST_S, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
    return time.perf_counter() - began


def _curl(room: Path, url: str, token: str, small: int) -> Callable[[str], float]:
    """What asks a server over HTTP: one curl for all files."""
    name = url.rpartition(":")[2]
    head = f'silent\nfail\nheader = "Authorization: Bearer {token}"\nheader = "Expect:"\n'
    each = [f"small/f{number}" for number in range(small)]
    lists = {
        "put large": f"upload-file = large\nurl = {url}/large\noutput = /dev/null\n",
        "get large": f"url = {url}/large\noutput = /dev/null\n",
        "put small": "".join(f"upload-file = {one}\nurl = {url}/{one}\noutput = /dev/null\n" for one in each),
        "get small": "".join(f"url = {url}/{one}\noutput = /dev/null\n" for one in each),
    }
    for what, text in lists.items():
        path = room / f"{name} {what}"
        path.touch(mode=0o600)
        path.write_text(head + text)
    subprocess.run(
        ["curl", "-s", "-X", "MKCOL", "-H", f"Authorization: Bearer {token}", f"{url}/small/"],
        check=True,
        timeout=MOST_S,
    )
    return lambda what: _timed(["curl", "-K", f"{name} {what}"], room)


def _port() -> int:
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        port: int = one.getsockname()[1]
        return port


@contextlib.contextmanager
def _server(words: list[str], port: int, env: dict[str, str] | None = None) -> Iterator[None]:
    if shutil.which(words[0], path=f"{os.environ['PATH']}:/usr/sbin") is None:
        raise FileNotFoundError(f"{words[0]} is not installed")
    quiet = subprocess.DEVNULL
    server = subprocess.Popen(words, stdin=quiet, stdout=quiet, stderr=quiet, env=env, start_new_session=True)
    try:
        end = time.monotonic() + 20
        while True:
            with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), timeout=1):
                break
            if time.monotonic() > end or server.poll() is not None:
                raise OSError(f"{words[0]} does not listen")
            time.sleep(0.05)
        yield
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(server.pid, signal.SIGTERM)
        with contextlib.suppress(subprocess.TimeoutExpired):
            server.wait(20)


@contextlib.contextmanager
def _serai(room: Path, small: int) -> Iterator[Callable[[str], float]]:
    port, config = _port(), room / "config"
    (room / "store").mkdir()
    serve = ["store", "serve", str(room / "store"), "--listen", f"127.0.0.1:{port}", "--no-ad"]
    with _server([sys.executable, "-m", "serai", *serve], port, os.environ | {"SERAI_CONFIG": str(config)}):
        token = config / f"stores/127.0.0.1_{port}.token"
        end = time.monotonic() + 10
        while not token.exists() and time.monotonic() < end:
            time.sleep(0.05)
        yield _curl(room, f"http://127.0.0.1:{port}", token.read_text().strip(), small)


@contextlib.contextmanager
def _nginx(room: Path, small: int) -> Iterator[Callable[[str], float]]:
    port, home = _port(), room / "nginx"
    (home / "root").mkdir(parents=True)
    config = home / "conf"
    config.write_text(NGINX.format(room=home, port=port, user="user root;" if os.geteuid() == 0 else ""))
    with _server(["nginx", "-c", str(config)], port):
        yield _curl(room, f"http://127.0.0.1:{port}", "none", small)


@contextlib.contextmanager
def _chirp(room: Path, _small: int) -> Iterator[Callable[[str], float]]:
    port, home = _port(), room / "chirp"
    (home / "root").mkdir(parents=True)
    (home / "root/.__acl").write_text("address:127.0.0.1 rwldax\n")
    words = ["chirp_server", "-r", str(home / "root"), "-y", str(home), "-p", str(port), "-I", "127.0.0.1"]
    words += ["-a", "address", "-u", "127.0.0.1"]
    if os.geteuid() == 0:
        for path in (home, home / "root", home / "root/.__acl"):
            os.chown(path, 65534, 65534)
        words = [*NOBODY, *words]
    where, turns = f"127.0.0.1:{port}", iter(range(1 << 30))
    with _server(words, port):

        def ask(what: str) -> float:
            put, get = ["chirp_put", "-a", "address", "-t", "20"], ["chirp_get", "-a", "address", "-t", "20"]
            if what == "put large":
                return _timed([*put, "large", where, "/large"], room)
            if what == "get large":
                # Not to /dev/null: as root, it would give that the mode of what it got.
                return _timed([*get, where, "/large", f"{room}/got"], room)
            if what == "put small":
                return _timed([*put, "small", where, f"/small{next(turns)}"], room)
            out = room / "out"
            shutil.rmtree(out, ignore_errors=True)
            return _timed([*get, where, "/small0", "out"], room)

        yield ask


def main() -> None:
    """Print the median of each, and its spread."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--large-mb", type=int, default=1000)
    parser.add_argument("--what", action="append", help="only this, such as 'put large'")
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--json", action="store_true")
    arguments = parser.parse_args()
    figures = study(arguments)
    if arguments.json:
        print(json.dumps(figures, indent=1))
        return
    for what in dict.fromkeys(one["what"] for one in figures):
        for peer in dict.fromkeys(one["peer"] for one in figures):
            mine = [one for one in figures if (one["what"], one["peer"]) == (what, peer)]
            times = [one["wall_s"] for one in mine if "wall_s" in one]
            if not times:
                print(f"{what:10} {peer:6} {mine[0]['error']}")
                continue
            middle = statistics.median(times)
            rate = f"{mine[0]['bytes'] / middle / 1e6:,.0f} MB/s"
            print(f"{what:10} {peer:6} {middle:6.2f} s ({min(times):.2f} to {max(times):.2f})  {rate}")


if __name__ == "__main__":
    main()
