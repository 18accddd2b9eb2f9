"""MapReduce over hosts of a laboratory: nothing installed, no shared file system, and one host loses its power."""

from __future__ import annotations

import os
import random
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

import serai
from serai.apps.mapreduce.files import Relay
from serai.apps.mapreduce.inputs import expand
from serai.describe.mapreduce import Commands

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from tests.apps.mapreduce.conftest import Bench

    from serai.apps.mapreduce.run import Running
    from serai.testing.lab.fixtures import LabFactory
    from serai.testing.lab.lab import Lab

MAP = "tr -s ' ' '\\n' | awk 'length { print $0 \"\\t1\" }'"
REDUCE = (
    "LC_ALL=C awk -F '\\t' 'NR > 1 && $1 != w { print w \"\\t\" c; c = 0 } { w = $1; c += $2 }"
    ' END { if (NR) print w "\\t" c }\''
)
# What begins with this waits on its host for as long as the host is held: nothing is over before all have come.
HELD = "/tmp/hold"
HOLD = f"while test -e {HELD}; do sleep 0.05; done; "
pytestmark = [pytest.mark.lab, pytest.mark.timeout(300)]


@pytest.fixture(scope="module")
def trio(lab_factory: LabFactory) -> Lab:
    return lab_factory(3)


@pytest.fixture(autouse=True)
def config(trio: Lab, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setenv("SERAI_SSH_CONFIG", str(trio.ssh_config))
    yield
    let_go(trio)


def hold(trio: Lab) -> None:
    for host in trio.hosts:
        host.run(["touch", HELD], check=True)


def let_go(trio: Lab, *names: str) -> None:
    for host in trio.hosts:
        if host.is_up and (not names or host.name in names):
            host.run(["rm", "-f", HELD], check=True)


def hosts(trio: Lab, workers: int = 2) -> list[tuple[str, int]]:
    return [(f"ssh://{host.name}", workers) for host in trio.hosts]


def happened(running: Running, what: str) -> list[dict[str, Any]]:
    return [event for event in list(running.record.events) if event["what"] == what]


def finish(running: Running, within_s: float = 90.0) -> list[str]:
    assert running.wait(within_s), "it does not end"
    return running.files()


def workers_on(running: Running) -> dict[str, str]:
    """The hosts of workers that have come."""
    return {event["worker"]: event["host"] for event in happened(running, "joined")}


def left_on(trio: Lab, *, processes: bool = True) -> list[str]:
    """What runs have left on hosts."""
    script = "ls -d /tmp/serai-mr-* 2>/dev/null; true" + ("; pgrep -f 'zlib.decompres[s]'; true" if processes else "")
    return [line for host in trio.hosts if host.is_up for line in host.run(["sh", "-c", script]).stdout.splitlines()]


def test_the_example_runs_on_hosts(trio: Lab, bench: Bench, until: Callable[..., Any]) -> None:
    xml = f"""<MRDL>
      <MapReduceSession name="words" combine="yes" partitions="2">
        <TargetHosts>
          <Host arch="any" OS="Linux" workers="2">ssh://{trio.hosts[0].name}</Host>
          <Host arch="any" OS="any" workers="1">any://{trio.hosts[1].name}</Host>
          <Host arch="any" OS="any" workers="1">fork://localhost</Host>
        </TargetHosts>
        <ApplicationBinaries><BinaryImage arch="any" OS="any">wordcount</BinaryImage></ApplicationBinaries>
        <OutputPrefix>out/</OutputPrefix>
        <ApplicationFiles><File>texts/*.txt</File></ApplicationFiles>
      </MapReduceSession>
    </MRDL>"""
    (bench.tmp_path / "session.xml").write_text(xml)
    image = bench.tmp_path / "wordcount"
    go = bench.tmp_path / "go"
    wait = f"until test -e {go}; do sleep 0.05; done"
    image.write_text(f'#!/bin/sh\ncase "$1" in map) {wait}; {MAP};; *) {REDUCE};; esac\n')
    image.chmod(0o755)
    command = [sys.executable, "-m", "serai", "mapreduce", str(bench.tmp_path / "session.xml")]
    events = Path(os.environ["SERAI_STATE"], "mapreduce")
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True) as process:
        until(lambda: sum(one.read_text().count('"joined"') for one in events.glob("*/events.jsonl")) == 4)
        for host in trio.hosts[:2]:
            host.run(["sh", "-c", f"mkdir -p {go.parent} && touch {go}"], check=True)
        go.touch()
        _, said = process.communicate(timeout=120)
    assert process.returncode == 0, said
    bench.check()
    assert "by 4 workers" in said
    until(lambda: not left_on(trio))


def test_what_lies_on_a_host_is_mapped_there(trio: Lab, bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    first = trio.hosts[0]
    for path in sorted(bench.corpus.directory.iterdir()):
        text = path.read_text(encoding="utf-8")
        script = f"mkdir -p /home/{first.user}/texts && cat > /home/{first.user}/texts/{path.name}"
        first.run(["sh", "-c", script], input_text=text, user=first.user, check=True)
    url = f"ssh://{first.name}/home/{first.user}/texts"
    found = expand([f"{url}/*.txt"])
    assert [one.path for one in found] == [f"/home/{first.user}/texts/{number}.txt" for number in range(4)]
    assert [one.host for one in expand([url.replace("ssh://", "any://")])] == [first.name] * 4
    asked: list[Any] = []
    read = Relay.read_input

    def noted(self: Relay, head: dict[str, Any], body: bytes) -> tuple[dict[str, Any], bytes]:
        asked.append(head)
        return read(self, head, body)

    monkeypatch.setattr(Relay, "read_input", noted)
    with bench.running(bench.session(hosts(trio)[:1], inputs=(url,))) as running:
        finish(running)
    bench.check()
    assert not asked, "its own host opens it by its path"
    with bench.running(bench.session([(f"ssh://{trio.hosts[1].name}", 1), ("local:", 1)], inputs=(url,))) as running:
        finish(running)
    bench.check()
    assert asked, "the front end reads it for others"
    asked.clear()
    alias = f"ssh://{first.user}@{first.address}/home/{first.user}/texts"
    with bench.running(bench.session(hosts(trio)[:1], inputs=(alias,))) as running:
        finish(running)
    bench.check()
    assert not asked, "it is the same host by another name"


def test_outputs_may_belong_to_a_host(trio: Lab, bench: Bench) -> None:
    host = trio.hosts[1]
    there = f"ssh://{host.name}/home/{host.user}/counted"
    with bench.running(bench.session(hosts(trio)[:1], output=there)) as running:
        files = finish(running)
    assert files == [f"{there}/part-{number:05}" for number in range(3)]
    text = host.run(["sh", "-c", f"cat /home/{host.user}/counted/part-*"], check=True).stdout
    found = {line.partition("\t")[0]: int(line.partition("\t")[2]) for line in text.splitlines()}
    assert found == dict(bench.corpus.counts)


def test_functions_on_hosts(trio: Lab, bench: Bench) -> None:
    with serai.Pool(str(trio.pool_file)) as pool:
        result = pool.mapreduce(str.split, "sum", bench.corpus.directory, combiner="count", partitions=2)
        assert dict(result) == bench.corpus.counts
        assert result.statistics.workers >= 1


def test_the_second_time_hosts_have_what_they_were_sent(
    trio: Lab, bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[Any] = []
    read = Relay.read_input

    def noted(self: Relay, head: dict[str, Any], body: bytes) -> tuple[dict[str, Any], bytes]:
        asked.append(head["url"])
        return read(self, head, body)

    monkeypatch.setattr(Relay, "read_input", noted)
    for text in bench.corpus.directory.iterdir():
        os.utime(text, (1e9, 1e9))  # what was changed just now is not kept
    with serai.Pool(f"ssh://{trio.hosts[0].name}?slots=2") as pool:
        for _ in range(2):
            result = pool.mapreduce(str.split, "sum", bench.corpus.directory, combiner="count", partitions=2)
            assert dict(result) == bench.corpus.counts
            assert len(set(asked)) == len(asked) == 4
        asked.clear()
        changed = bench.corpus.directory / "2.txt"
        changed.write_text("a caravan\n")
        again = pool.mapreduce(str.split, "sum", bench.corpus.directory, combiner="count", partitions=2)
        assert asked == [str(changed)]
        assert dict(again)["a"] == 1
    with serai.Pool(f"ssh://{trio.hosts[0].name}?slots=1") as pool:
        asked.clear()
        pool.mapreduce(str.split, "sum", bench.corpus.directory, combiner="count", partitions=2)
        assert len(asked) == 4, "another pool knows nothing of it"


def test_a_host_that_loses_its_power_changes_no_byte(trio: Lab, bench: Bench, until: Callable[..., Any]) -> None:
    with bench.running(bench.session()) as running:
        finish(running)
    calm = bench.outputs()
    slow = Commands(HOLD + "sleep 0.3; " + MAP, "sleep 1; " + REDUCE)
    session = bench.session(hosts(trio), program=slow, output=str(bench.tmp_path / "out2"))
    victim = trio.hosts[2]
    hold(trio)
    with bench.running(session) as running:
        until(lambda: len(workers_on(running)) == 6)
        let_go(trio, victim.name)
        until(lambda: [one for one in happened(running, "done") if workers_on(running)[one["worker"]] == victim.name])
        victim.kill()
        let_go(trio)
        try:
            finish(running)
        finally:
            victim.start()
        # Whether it was told by silence or by reduces that could not fetch: what it had made was made again.
        assert happened(running, "reopened")
        assert {workers_on(running)[event["worker"]] for event in happened(running, "lost")} <= {victim.name}
    assert bench.outputs("out2") == calm
    trio_but_one = [line for line in left_on(trio, processes=False) if line]
    assert len(trio_but_one) <= 1, "what lost its power has its room still; nobody else has"
    victim.run(["sh", "-c", "rm -rf /tmp/serai-mr-*"])


def test_the_only_host_may_lose_its_power_and_come_back(
    trio: Lab, bench: Bench, until: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    with bench.running(bench.session()) as running:
        finish(running)
    calm = bench.outputs()
    quick = bench.tmp_path / "ssh_config"  # so that ssh notices a silent host within 3 s
    quick.write_text(f"Host *\n ServerAliveInterval 1\n ServerAliveCountMax 2\nInclude {trio.ssh_config}\n")
    monkeypatch.setenv("SERAI_SSH_CONFIG", str(quick))
    victim = trio.hosts[1]
    slow = Commands("sleep 0.3; " + MAP, "sleep 0.5; " + REDUCE)
    session = bench.session([(f"ssh://{victim.name}", 2)], program=slow, output=str(bench.tmp_path / "out2"))
    with bench.running(session) as running:
        until(lambda: happened(running, "done"))
        victim.kill()
        try:
            until(lambda: happened(running, "again"))
        finally:
            victim.start()
        finish(running)
        assert len(happened(running, "host")) == 2
        said = running.troubles  # perhaps after its silence
        assert any("the connection to it was lost; it is tried again in 1 s" in one for one in said[:2])
    assert bench.outputs("out2") == calm
    victim.run(["sh", "-c", "rm -rf /tmp/serai-mr-*"])


@pytest.mark.parametrize("seed", [3])
def test_whichever_workers_die_on_hosts_no_byte_changes(trio: Lab, bench: Bench, seed: int) -> None:
    with bench.running(bench.session()) as running:
        finish(running)
    calm = bench.outputs()
    draw = random.Random(seed)  # noqa: S311 - kills from a seed
    slow = Commands("sleep 0.2; " + MAP, HOLD + "sleep 0.4; " + REDUCE)
    session = bench.session(hosts(trio), program=slow, output=str(bench.tmp_path / "out2"))
    deaths = 0
    hold(trio)
    with bench.running(session) as running:
        while deaths < 8 and not running.wait(draw.uniform(0.1, 0.5)):
            if deaths == 3:
                let_go(trio)
            with running.desk.changed:
                workers = running.desk.master.workers
                living = [known for name, known in running.desk.known.items() if workers[name].alive]
            if living:
                known = draw.choice(living)
                host = next(host for host in trio.hosts if known.place and host.name == known.place.key)
                deaths += host.run(["kill", "-9", str(known.ad["pid"])]).returncode == 0
        finish(running)
    assert bench.outputs("out2") == calm, f"seed {seed}"
    assert deaths >= 3
