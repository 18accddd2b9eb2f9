"""What is the Dask engine's own: URLs, TLS, windows, graceful ends, workers that die, and nothing left behind."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import textwrap
import threading
import time
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import pytest
from tests.engines.conftest import await_workers

import serai
from serai.describe.poolfile import site_from_url
from serai.errors import AccessError, HostKeyRefused, HostUnreachable, LoginRefused, NoPython, UsageError
from serai.testing.front_end import FrontEnd
from serai.travel.executor import wire

distributed = pytest.importorskip("distributed")

from serai.dispatch.engines import dask_far  # noqa: E402 - it needs the extra
from serai.dispatch.engines.dask import DaskEngine  # noqa: E402 - the same
from serai.dispatch.engines.dask_link import Cutter  # noqa: E402 - the same

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from concurrent.futures import Future

pytestmark = pytest.mark.dask

_pack: Any = wire.pack


def until(condition: Callable[[], object], what: str, within_s: float = 40.0) -> None:
    end = time.monotonic() + within_s
    while not condition():
        assert time.monotonic() < end, f"{what}: not within {within_s:g} s"
        time.sleep(0.02)


def alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text(encoding="utf-8").rpartition(")")[2].split()[0] not in "ZX"
    except OSError:
        return False


def parent_of(pid: int) -> int:
    return int(Path(f"/proc/{pid}/stat").read_text(encoding="utf-8").rpartition(")")[2].split()[1])


def url_of(cluster: Any, rest: str = "") -> str:
    return str(cluster.scheduler_address).replace("tcp://", "dask://").replace("tls://", "dask+tls://") + rest


@pytest.fixture
def engine() -> Iterator[DaskEngine]:
    engine = DaskEngine()
    yield engine
    engine.close()


@pytest.fixture
def front(engine: DaskEngine, ready: Any) -> Iterator[FrontEnd]:
    with FrontEnd(engine, engine.nodes(site_from_url(url_of(ready)))[0]) as front:
        yield front


@pytest.fixture
def ready(cluster: Any) -> Any:
    """The cluster, with both of its workers."""
    await_workers(cluster)
    return cluster


# ---- URLs and nodes


@pytest.mark.parametrize(
    ("url", "word"),
    [
        ("dask://me@head", "no user"),
        ("dask://head/scratch", "no path"),
        ("dask://head?ca=/etc/hosts", "dask+tls"),
        ("dask+tls://head?ca=/no/such/file", "/no/such/file"),
        ("dask+tls://head?ca=/etc/hosts", "needs an authority"),
        ("dask+tls://head", "needs an authority"),
    ],
)
def test_a_url_that_is_wrong_is_refused_before_anything_is_opened(engine: DaskEngine, url: str, word: str) -> None:
    with pytest.raises(UsageError) as caught:
        engine.nodes(site_from_url(url))
    assert word in str(caught.value)


def test_every_worker_is_a_node_of_one_site(engine: DaskEngine, ready: Any) -> None:
    specs = engine.nodes(site_from_url(url_of(ready)))
    assert {spec.name for spec in specs} == {address.partition("://")[2] for address in ready.scheduler.workers}
    assert len({spec.site for spec in specs}) == 1
    assert [spec.slots for spec in specs] == [1, 1]
    assert all(spec.memory_bytes for spec in specs)
    assert not any(spec.in_place or spec.by_reference for spec in specs)
    said = engine.nodes(site_from_url(url_of(ready, "?slots=3&memory=64MiB&scratch=/var/tmp")))
    assert [(spec.slots, spec.memory_bytes, spec.scratch) for spec in said] == [(3, 64 << 20, "/var/tmp")] * 2


def test_a_cluster_without_workers_says_so(engine: DaskEngine) -> None:
    with (
        distributed.LocalCluster(n_workers=0, dashboard_address=":0", silence_logs=50) as empty,
        pytest.raises(AccessError, match="no workers"),
    ):
        engine.nodes(site_from_url(url_of(empty)))


def test_an_interpreter_that_is_not_there_is_named(engine: DaskEngine, ready: Any) -> None:
    spec = engine.nodes(site_from_url(url_of(ready, "?python=/no/such/python")))[0]
    with pytest.raises(NoPython, match="/no/such/python"):
        engine.connect(spec, lambda _: None)


def test_a_worker_that_has_left_is_unreachable(engine: DaskEngine, ready: Any) -> None:
    spec = engine.nodes(site_from_url(url_of(ready)))[0]
    with FrontEnd(engine, spec) as front:
        os.kill(parent_of(front.check_in()["pid"]), signal.SIGKILL)
        front.wait_end(40)
    with pytest.raises(HostUnreachable, match="left the cluster") as caught:
        engine.connect(spec, lambda _: None)
    assert caught.value.host == spec.name


# ---- what is no Dask scheduler, or not ours


@pytest.mark.parametrize("says", [b"", b"SSH-2.0-OpenSSH_9.2p1 and more that is no frame of Dask's\r\n" * 10])
def test_what_is_no_scheduler_is_refused_in_time(engine: DaskEngine, says: bytes) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        taken: list[socket.socket] = []

        def serve() -> None:
            while True:
                try:
                    one, _ = server.accept()
                except OSError:
                    return
                taken.append(one)
                one.sendall(says)

        threading.Thread(target=serve, daemon=True).start()
        began = time.monotonic()
        with pytest.raises(AccessError) as caught:
            engine.nodes(site_from_url(f"dask://127.0.0.1:{server.getsockname()[1]}"))
        assert time.monotonic() - began < 60
        assert caught.value.host
        assert caught.value.hint
        server.shutdown(socket.SHUT_RDWR)
        for one in taken:
            one.close()


def test_a_scheduler_of_another_authority_is_not_trusted(
    engine: DaskEngine, secure_cluster: Any, certificates: Path
) -> None:
    rest = f"?ca={certificates}/other.pem&cert={certificates}/cert.pem&key={certificates}/key.pem"
    with pytest.raises(HostKeyRefused, match="authority"):
        engine.nodes(site_from_url(url_of(secure_cluster, rest)))


def test_a_scheduler_that_does_not_trust_us_is_named(
    engine: DaskEngine, secure_cluster: Any, certificates: Path
) -> None:
    rest = f"?ca={certificates}/ca.pem&cert={certificates}/other.pem&key={certificates}/other.key"
    with pytest.raises(LoginRefused, match="TLS was refused"):  # an alert or a closed connection, as it happens
        engine.nodes(site_from_url(url_of(secure_cluster, rest)))


def test_a_scheduler_that_wants_tls_does_not_answer_without(engine: DaskEngine, secure_cluster: Any) -> None:
    with pytest.raises(HostUnreachable, match=r"dask\+tls"):
        engine.nodes(site_from_url(url_of(secure_cluster).replace("+tls", "")))


def test_the_configuration_of_dask_gives_the_certificates(
    engine: DaskEngine, secure_cluster: Any, certificates: Path
) -> None:
    import dask  # noqa: PLC0415 - it needs the extra

    tls = "distributed.comm.tls"
    files = {f"{tls}.client.{kind}": f"{certificates}/{kind}.pem" for kind in ("cert", "key")}
    with dask.config.set({f"{tls}.ca-file": f"{certificates}/ca.pem", **files}):
        assert len(engine.nodes(site_from_url(url_of(secure_cluster)))) == 2


# ---- windows


def test_a_front_end_that_takes_nothing_is_not_sent_everything(engine: DaskEngine, ready: Any) -> None:
    spec = engine.nodes(site_from_url(url_of(ready)))[0]
    go_on = threading.Event()
    sizes: list[int] = []
    done = threading.Event()

    def deliver(frame: bytes | None) -> None:
        if frame is None:
            return
        op, _, _, head, body = wire.unpack(frame)  # type: ignore[no-untyped-call, unused-ignore]
        if op == wire.OUTPUT:
            go_on.wait(90)
            sizes.append(len(body))
        if op in {wire.RESULT, wire.LAST} and head.get("ids"):
            done.set()

    link: Any = engine.connect(spec, deliver)
    arrived: list[int] = []
    queue = link._arrived

    def put(data: bytes | None) -> None:
        arrived.append(len(data or b""))
        queue.put(data)

    link._arrived = SimpleNamespace(put=put, get=queue.get)
    try:
        link.send(_pack(wire.HELLO, head={"run": "w", "beat": 60, "silence": 60, "keep": 10, "node": "w"}))
        link.send(_pack(wire.WORK, wire.EVERY_LANE, 1, {"kind": "command"}))
        argv = ["sh", "-c", "head -c 40000000 /dev/zero"]
        link.send(_pack(wire.RUN, 0, 1, {"w": 1, "ids": [1], "argv": [argv]}))

        until(lambda: arrived and sum(arrived) >= dask_far.WINDOW - 2 * dask_far.PIECE, "the window fills")
        assert not done.wait(1.0)
        assert sum(arrived) <= dask_far.WINDOW + 2 * dask_far.PIECE
        go_on.set()
        assert done.wait(90)
        assert sum(sizes) == 40_000_000
    finally:
        go_on.set()
        link.close()


def test_an_agent_that_takes_nothing_stops_the_sender(front: FrontEnd) -> None:
    pid = front.check_in()["pid"]
    os.kill(pid, signal.SIGSTOP)
    sent: list[int] = []
    ended = threading.Event()

    def pour() -> None:
        try:
            while True:
                front.put(1, bytes(wire.CHUNK))
                sent.append(wire.CHUNK)
        except OSError:
            ended.set()

    threading.Thread(target=pour, daemon=True).start()
    until(lambda: sum(sent) >= dask_far.WINDOW // 2, "frames are sent")
    assert not ended.wait(1.0)
    assert sum(sent) <= dask_far.WINDOW + 4 * dask_far.STEP
    front.link.close()
    assert ended.wait(40)
    until(lambda: not alive(pid), "a stopped agent is killed", dask_far.END_S + 10)


def test_frames_are_cut_whatever_the_pieces() -> None:
    frames = [_pack(op, 1, op, {"n": op}, bytes(op * 7)) for op in range(1, 60)]
    stream = b"".join(frames)
    for step in (1, 2, 15, 16, 1000, len(stream)):
        cutter = Cutter()
        found = [frame for at in range(0, len(stream), step) for frame in cutter.cut(stream[at : at + step])]
        assert found == frames
    with pytest.raises(ValueError, match="a frame of"):
        Cutter().cut(b"\xff" * 100)


# ---- ends


def test_a_worker_that_closes_ends_its_agent_and_leaves_nothing(front: FrontEnd, ready: Any) -> None:
    ad = front.check_in()
    front.work(1)
    front.command(1, 1, ["sleep", "300"])
    with distributed.Client(ready.scheduler_address, set_as_default=False) as client:
        client.retire_workers([f"tcp://{front.spec.name}"])
    front.wait_end(40)
    until(lambda: not alive(ad["pid"]), "the agent's end")
    until(lambda: not Path(ad["base"]).exists(), "its directory is gone")
    ready.scale(0)
    until(lambda: not ready.scheduler.workers, "no workers", 120.0)
    ready.scale(2)


def test_an_agent_ends_at_once_when_its_front_end_is_killed(ready: Any) -> None:
    script = """
        import os, sys
        from serai.describe.poolfile import site_from_url
        from serai.dispatch.engines.dask import DaskEngine
        from serai.testing.front_end import FrontEnd
        engine = DaskEngine()
        front = FrontEnd(engine, engine.nodes(site_from_url(sys.argv[1]))[0])
        ad = front.check_in()
        print(ad["pid"], ad["base"], flush=True)
        sys.stdin.read()
    """
    words = [sys.executable, "-c", textwrap.dedent(script), url_of(ready)]
    with subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        pid, base = process.stdout.readline().split()
        assert alive(int(pid))
        process.kill()
    until(lambda: not alive(int(pid)), "the agent's end")
    until(lambda: not Path(base).exists(), "its directory is gone")


def test_a_pool_goes_on_when_a_worker_dies(ready: Any, tmp_path: Path) -> None:
    def where(_: int) -> int:
        import os  # noqa: PLC0415 - the function is sent by value
        import time  # noqa: PLC0415 - the same

        time.sleep(0.02)
        return os.getppid()

    with serai.Pool(url_of(ready), options=serai.Options(runs=tmp_path)) as pool:
        futures: list[Future[int]] = [pool.submit(where, n) for n in range(600)]
        agents: set[int] = set()
        until(lambda: agents.update(f.result() for f in futures if f.done()) or len(agents) == 2, "both work")  # type: ignore[func-returns-value]
        os.kill(parent_of(agents.pop()), signal.SIGKILL)
        assert len([future.result(60) for future in futures]) == 600


def test_nothing_is_left_in_this_process(ready: Any, tmp_path: Path) -> None:
    before = {thread.ident for thread in threading.enumerate()}
    with serai.Pool(url_of(ready), options=serai.Options(runs=tmp_path)) as pool:
        assert pool.submit(abs, -1).result(60) == 1
    names = ("dask-", "carry-")
    until(
        lambda: not [t for t in threading.enumerate() if t.ident not in before and t.name.startswith(names)],
        "the engine's threads end",
    )


def test_workers_do_not_import_serai(front: FrontEnd, ready: Any) -> None:
    front.check_in()

    def modules() -> list[str]:
        import sys  # noqa: PLC0415 - the function is sent by value

        return [name for name in sys.modules if name.split(".")[0] == "serai"]

    with distributed.Client(ready.scheduler_address, set_as_default=False) as client:
        assert client.run(modules, workers=[f"tcp://{front.spec.name}"]) == {f"tcp://{front.spec.name}": []}


@pytest.mark.parametrize("close", ["pool.shutdown()", "pass"])
def test_a_program_ends_without_a_word(ready: Any, tmp_path: Path, close: str) -> None:
    script = f"""
        import sys, pathlib, serai
        pool = serai.Pool(sys.argv[1], options=serai.Options(runs=pathlib.Path(sys.argv[2])))
        future = pool.submit(abs, -5)
        future.add_done_callback(lambda f: print(f.result()))
        {close}
    """
    words = [sys.executable, "-W", "error", "-c", textwrap.dedent(script), url_of(ready), str(tmp_path)]
    done = subprocess.run(words, capture_output=True, text=True, timeout=120, check=False)
    assert (done.stdout, done.stderr, done.returncode) == ("5\n", "", 0)
