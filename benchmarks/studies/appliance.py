"""Put and get of one large file and of many small ones over loopback: the appliance, nginx and a Chirp server, in turn.

All over plain TCP, from files in memory to files in memory, so that what is measured is servers and clients. The same
curl asks the appliance ("serai curl") and nginx ("nginx curl"), one request for each file on one connection; "serai"
is Serai's own client (fsspec's ``put`` and ``get``), which sends many small files in a request, and "serai paths" the
same as it is used on the appliance's own host, where it reads files by their paths; Chirp is asked by chirp_put and
chirp_get. The appliance takes an XXH3 digest of what comes, and Serai's client of what it sends and gets, and they
compare these; the others verify nothing. CPU seconds are those of server and client together. As a program:
``python benchmarks/studies/appliance.py [--rounds N] [--large-mb N]``.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import mmap
import os
import random
import resource
import shutil
import signal
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

Asking: TypeAlias = "Callable[[str], tuple[float, float]]"  # seconds by the clock and of CPU, of what is asked for

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

TARGETS = {  # of "put large", in the servers' directories
    "serai": "store/large2",
    "serai paths": "store/large2",
    "serai curl": "store/large",
    "nginx curl": "nginx/root/large",
    "chirp": "chirp/root/large",
}


def study(arguments: argparse.Namespace) -> list[dict[str, Any]]:
    """Start the three servers once, and ask each in turn, round by round; what curl calls a failure is an error."""
    large, small = (50_000_000, 100) if arguments.quick else (arguments.large_mb * 1_000_000, 1000)
    base = "/dev/shm" if os.path.isdir("/dev/shm") else None
    with tempfile.TemporaryDirectory(prefix="sb-", dir=base) as scratch, contextlib.ExitStack() as stack:
        room = Path(scratch)
        room.chmod(0o755)
        _make(room, large, small)
        peers: dict[str, tuple[str, Asking]] = {}
        for kind, start, names in (
            ("serai", _serai, ("serai", "serai paths", "serai curl")),
            ("peer", _nginx, ("nginx curl",)),
            ("peer", _chirp, ("chirp",)),
        ):
            try:
                asking = stack.enter_context(start(room, small))
            except (OSError, subprocess.SubprocessError) as error:
                asking = [_failing(str(error))] * len(names)
            peers |= {name: (kind, ask) for name, ask in zip(names, asking, strict=True)}
        figures = []
        order = list(peers.items())
        for turn in range(arguments.rounds):
            for what in arguments.what or ("put large", "get large", "put small", "get small"):
                for peer, (kind, ask) in order:
                    _prepare(room, peer, what, large if "large" in what else small * SMALL_BYTES)
                    figure: dict[str, Any] = {"peer": peer, "kind": kind, "what": what, "round": turn}
                    figure |= {"bytes": large, "files": 1} if "large" in what else {"bytes": small * SMALL_BYTES}
                    figure.setdefault("files", small)
                    try:
                        figure["wall_s"], figure["cpu_s"] = ask(what)
                    except (OSError, subprocess.SubprocessError) as error:
                        figure["error"] = str(error)
                    figures.append(figure)
            order.append(order.pop(0))  # who comes first finds memory that nobody has touched for a while
        return figures


def _prepare(room: Path, peer: str, what: str, size: int) -> None:
    """See to it that each finds the same: nothing where the large file will be, and memory that was just used.

    Who overwrites a file in place has its memory at once, and who puts a new one in its place needs other memory. A
    virtual machine may have to get that, and what was not used for seconds, from its host: 2.6 s for each GB here.
    """
    if "large" in what:
        source, target = ("large", TARGETS[peer]) if what == "put large" else (TARGETS[peer], "got")
        (room / target).unlink(missing_ok=True)
        with (room / source).open("rb", buffering=0) as file:
            while file.read(1 << 20):
                pass
    with mmap.mmap(-1, 2 * size) as memory:
        for at in range(0, len(memory), mmap.PAGESIZE):
            memory[at] = 1


def _make(room: Path, large: int, small: int) -> None:
    source = random.Random(1)
    with (room / "large").open("wb") as out:
        for start in range(0, large, 1 << 20):
            out.write(source.randbytes(min(1 << 20, large - start)))
    (room / "small").mkdir()
    for number in range(small):
        (room / f"small/f{number}").write_bytes(source.randbytes(SMALL_BYTES))


def _failing(why: str) -> Asking:
    def ask(_what: str) -> tuple[float, float]:
        raise OSError(why)

    return ask


def _cpu_s(group: int) -> float:
    """What the processes of a group have used, those that have ended too."""
    ticks = 0
    for folder in Path("/proc").iterdir():
        with contextlib.suppress(OSError, ValueError):
            fields = (folder / "stat").read_text().rpartition(")")[2].split() if folder.name.isdigit() else []
            if fields and int(fields[2]) == group:
                ticks += sum(map(int, fields[11:15]))
    return ticks / os.sysconf("SC_CLK_TCK")


def _timed(words: list[str], room: Path, server: int) -> tuple[float, float]:
    """Seconds that a command took, and of CPU that it and a server used."""
    before, used = _cpu_s(server), resource.getrusage(resource.RUSAGE_CHILDREN)
    began = time.perf_counter()
    subprocess.run(words, cwd=room, check=True, timeout=MOST_S, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
    wall = time.perf_counter() - began
    now = resource.getrusage(resource.RUSAGE_CHILDREN)
    mine = now.ru_utime + now.ru_stime - used.ru_utime - used.ru_stime
    return wall, mine + _cpu_s(server) - before


# Serai's client, started once: what it costs to start Python is not what is asked about.
CLIENT = """
import shutil, sys, time
from serai.access.filesystems.store import StoreFileSystem
fs = StoreFileSystem("127.0.0.1", int(sys.argv[1]), direct=sys.argv[2] == "paths")
for line in sys.stdin:
    shutil.rmtree("out", ignore_errors=True)
    began, used = time.perf_counter(), time.process_time()
    match line.strip():
        case "put large": fs.put("large", "/large2")
        case "get large": fs.get("/large2", "got")
        case "put small": fs.put("small/", "/own/", recursive=True)
        case "get small": fs.get("/own/", "out/", recursive=True)
    print(time.perf_counter() - began, time.process_time() - used, flush=True)
"""


@contextlib.contextmanager
def _client(room: Path, port: int, server: int, environment: dict[str, str], how: str) -> Iterator[Asking]:
    words = [sys.executable, "-c", CLIENT, str(port), how]
    pipe = subprocess.PIPE
    with subprocess.Popen(words, cwd=room, env=environment, stdin=pipe, stdout=pipe, text=True) as client:
        assert client.stdin is not None
        assert client.stdout is not None
        sending, coming = client.stdin, client.stdout

        def ask(what: str) -> tuple[float, float]:
            before = _cpu_s(server)
            print(what, file=sending, flush=True)
            said = coming.readline().split()
            if not said:
                raise OSError("Serai's client has ended")
            return float(said[0]), float(said[1]) + _cpu_s(server) - before

        yield ask
        sending.close()


def _curl(room: Path, url: str, token: str, small: int, server: int) -> Asking:
    """What asks a server over HTTP: one curl for all files."""
    name = url.rpartition(":")[2]
    head = f'silent\nfail\nheader = "Authorization: Bearer {token}"\nheader = "Expect:"\n'
    each = [f"small/f{number}" for number in range(small)]
    lists = {
        "put large": f"upload-file = large\nurl = {url}/large\noutput = /dev/null\n",
        "get large": f"url = {url}/large\noutput = got\n",
        "put small": "".join(f"upload-file = {one}\nurl = {url}/{one}\noutput = /dev/null\n" for one in each),
        "get small": "create-dirs\n" + "".join(f"url = {url}/{one}\noutput = out/{one}\n" for one in each),
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

    def ask(what: str) -> tuple[float, float]:
        shutil.rmtree(room / "out", ignore_errors=True)
        return _timed(["curl", "-K", f"{name} {what}"], room, server)

    return ask


def _port() -> int:
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        port: int = one.getsockname()[1]
        return port


@contextlib.contextmanager
def _server(words: list[str], port: int, env: dict[str, str] | None = None) -> Iterator[int]:
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
        yield server.pid
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(server.pid, signal.SIGTERM)
        with contextlib.suppress(subprocess.TimeoutExpired):
            server.wait(20)


@contextlib.contextmanager
def _serai(room: Path, small: int) -> Iterator[list[Asking]]:
    port, config = _port(), room / "config"
    (room / "store").mkdir()
    serve = ["store", "serve", str(room / "store"), "--listen", f"127.0.0.1:{port}", "--no-ad"]
    environment = os.environ | {"SERAI_CONFIG": str(config)}
    with _server([sys.executable, "-m", "serai", *serve], port, environment) as server:
        token = config / f"stores/127.0.0.1_{port}.token"
        end = time.monotonic() + 10
        while not token.exists() and time.monotonic() < end:
            time.sleep(0.05)
        by_curl = _curl(room, f"http://127.0.0.1:{port}", token.read_text().strip(), small, server)
        with (
            _client(room, port, server, environment, "wire") as own,
            _client(room, port, server, environment, "paths") as by_path,
        ):
            yield [own, by_path, by_curl]


@contextlib.contextmanager
def _nginx(room: Path, small: int) -> Iterator[list[Asking]]:
    port, home = _port(), room / "nginx"
    (home / "root").mkdir(parents=True)
    config = home / "conf"
    config.write_text(NGINX.format(room=home, port=port, user="user root;" if os.geteuid() == 0 else ""))
    with _server(["nginx", "-c", str(config)], port) as server:
        yield [_curl(room, f"http://127.0.0.1:{port}", "none", small, server)]


@contextlib.contextmanager
def _chirp(room: Path, _small: int) -> Iterator[list[Asking]]:
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
    with _server(words, port) as server:

        def ask(what: str) -> tuple[float, float]:
            put, get = ["chirp_put", "-a", "address", "-t", "20"], ["chirp_get", "-a", "address", "-t", "20"]
            if what == "put large":
                return _timed([*put, "large", where, "/large"], room, server)
            if what == "get large":
                # Not to /dev/null: as root, it would give that the mode of what it got.
                return _timed([*get, where, "/large", f"{room}/got"], room, server)
            if what == "put small":
                return _timed([*put, "small", where, f"/small{next(turns)}"], room, server)
            out = room / "out"
            shutil.rmtree(out, ignore_errors=True)
            return _timed([*get, where, "/small0", "out"], room, server)

        yield [ask]


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
                print(f"{what:10} {peer:11} {mine[0]['error']}")
                continue
            middle, cpu = statistics.median(times), statistics.median(one["cpu_s"] for one in mine if "cpu_s" in one)
            rate = f"{mine[0]['bytes'] / middle / 1e6:6,.0f} MB/s"
            spread = f"({min(times):.2f} to {max(times):.2f})"
            beside = "  ".join(
                _beside(figures, what, peer, other) for other in ("nginx curl", "chirp") if other != peer
            )
            print(f"{what:10} {peer:11} {middle:6.2f} s {spread:16} {rate}  {cpu:5.2f} s of CPU  {beside}")


def _beside(figures: list[dict[str, Any]], what: str, peer: str, other: str) -> str:
    """The rate beside another's: the median of the rounds' ratios, by the clock and by CPU."""
    by: dict[tuple[str, int], dict[str, Any]] = {
        (one["peer"], one["round"]): one for one in figures if one["what"] == what and "wall_s" in one
    }
    pairs = [(by[peer, turn], by[other, turn]) for name, turn in by if name == peer and (other, turn) in by]
    if not pairs:
        return ""
    wall, cpu = (
        statistics.median(theirs[key] / max(mine[key], 0.001) for mine, theirs in pairs) for key in ("wall_s", "cpu_s")
    )
    return f"{other} * {wall:.2f} (CPU {cpu:.2f})"


if __name__ == "__main__":
    main()
