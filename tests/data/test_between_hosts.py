"""Copies from host to host: directly where they reach each other, else through here; and hosts that break."""

from __future__ import annotations

import os
import threading
import time
from typing import TYPE_CHECKING, Any

import pytest

from serai.access import connections, porter
from serai.data.copying import carrying, opening, ways
from serai.data.transfer import Tally, Wishes, copy, sync

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from serai.testing.lab import Host, Lab

pytestmark = [pytest.mark.lab, pytest.mark.timeout(300)]
R = Wishes(recursive=True)


def forget_hosts() -> None:
    opening._hosts.clear()
    ways._pairs.clear()
    porter.close_all()
    connections.close_all()


@pytest.fixture(autouse=True)
def _every_size_may_go_directly(monkeypatch: pytest.MonkeyPatch, hosts: Lab) -> Iterator[None]:
    monkeypatch.setattr(ways, "DIRECT_FROM", 0)
    monkeypatch.setattr(ways, "DEADLINE_S", 30.0)  # which way it goes is not a matter of how busy this machine is
    yield
    for host in hosts.hosts:
        if host.is_up:
            shell(host, "rm -rf /tmp/*")
    forget_hosts()


def shell(host: Host, command: str) -> str:
    return host.run(["sh", "-c", command], user="user").stdout


def furnish(host: Host) -> None:
    shell(host, "cd /tmp; mkdir -p d/sub; for n in $(seq 300); do echo $n > d/sub/$n; done; ln -s sub d/link")
    shell(host, "cd /tmp; head -c 3000000 /dev/urandom > d/large; head -c 30000000 /dev/urandom > d/alone")


def sums(host: Host, top: str) -> str:
    return shell(host, f"cd {top}; find . -type f | sort | xargs sha256sum; find . -type l -printf '%p %l\n'")


def copied(lab: Lab, source: int, target: int, wishes: Wishes = R) -> list[str]:
    """Copy a tree from one host to another, compare, and give what was noted."""
    notes: list[str] = []
    one, other = lab.hosts[source], lab.hosts[target]
    outcome = copy([f"ssh://{one.name}/tmp/d"], f"ssh://{other.name}/tmp/e", wishes, tally=Tally(notes.append))
    assert outcome.complaints == []
    assert sums(other, "/tmp/e") == sums(one, "/tmp/d")
    return notes


def test_hosts_that_reach_each_other_copy_directly(hosts: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    furnish(hosts.hosts[0])
    assert copied(hosts, 0, 1) == ["node1 to node2: directly, from host to host"]
    shell(hosts.hosts[1], "rm -rf /tmp/e")
    for way in ("lots", "large"):  # by now it is known, so nothing at all goes through here
        monkeypatch.delattr(ways.Through, way)
    assert copied(hosts, 0, 1) == ["node1 to node2: directly, from host to host"]


def test_hosts_that_do_not_are_served_through_here(hosts: Lab) -> None:
    furnish(hosts.hosts[1])
    (note,) = copied(hosts, 1, 0)
    assert note.startswith("node2 to node1: through here, because node2 does not reach node1: ")
    assert "Host key verification failed" in note


def test_a_host_with_a_key_that_another_does_not_take_is_served_through_here(hosts: Lab) -> None:
    furnish(hosts.hosts[0])
    (note,) = copied(hosts, 0, 2)
    assert "Permission denied" in note


def test_a_name_that_leads_elsewhere_there_is_not_followed(hosts: Lab) -> None:
    """node1 takes node3 for node2: its files would be written to the wrong host."""
    one, two, three = hosts.hosts
    furnish(one)
    key = shell(one, "cat ~/.ssh/id_ed25519.pub")
    three.run(["sh", "-c", "cat >> /home/user/.ssh/authorized_keys"], user="user", input_text=key)
    config = f"Host node2* {two.address}\\n  HostName node3\\n  HostKeyAlias node3\\n"
    shell(one, f"printf '{config}' > ~/.ssh/config; chmod 600 ~/.ssh/config")
    try:
        (note,) = copied(hosts, 0, 1)
    finally:
        shell(one, "rm ~/.ssh/config")
        shell(three, f"sed -i '\\#{key.split()[1]}#d' ~/.ssh/authorized_keys")
    assert "that name leads to another host or login: node3" in note
    assert shell(three, "ls -A /tmp") == ""


def test_a_way_that_was_cut_costs_its_deadline_and_no_more(hosts: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    one, two, _ = hosts.hosts
    furnish(one)
    monkeypatch.setattr(ways, "DEADLINE_S", 2.0)
    one.run(["ip", "route", "add", "blackhole", f"{two.address}/32"], check=True)
    try:
        began = time.monotonic()
        (note,) = copied(hosts, 0, 1)
        assert time.monotonic() - began < 60  # the system itself tries for two minutes
    finally:
        one.run(["ip", "route", "del", "blackhole", f"{two.address}/32"], check=True)
    assert "through here" in note


def test_a_pair_is_tried_once(hosts: Lab) -> None:
    one, two, _ = hosts.hosts
    furnish(two)
    copied(hosts, 1, 0)
    found = next(iter(ways._pairs.values()))
    assert found.tried
    found.why = "remembered"
    shell(one, "rm -rf /tmp/e")
    (note,) = copied(hosts, 1, 0)
    assert note.endswith("remembered")


def test_on_one_host_its_files_stay_there(hosts: Lab) -> None:
    furnish(hosts.hosts[0])
    assert copied(hosts, 0, 0) == ["node1 to node1: copied on the host itself"]


def test_sync_between_hosts_is_idempotent(hosts: Lab) -> None:
    one, two, _ = hosts.hosts
    furnish(one)
    urls = f"ssh://{one.name}/tmp/d", f"ssh://{two.name}/tmp/e"
    assert sync(*urls).outcome.files == 303
    assert sums(two, "/tmp/e") == sums(one, "/tmp/d")
    assert sync(*urls).plan.empty
    assert sync(*urls, checksum=True).plan.empty


@pytest.mark.parametrize("direction", [(0, 1), (1, 0)], ids=["directly", "through here"])
def test_a_full_disk_is_named_for_each_file_and_the_small_ones_fit(
    hosts: Lab, monkeypatch: pytest.MonkeyPatch, direction: tuple[int, int]
) -> None:
    monkeypatch.setattr(carrying, "STREAMS", 1)  # one after another, the small ones first; else they share what is left
    one, two = (hosts.hosts[number] for number in direction)
    furnish(one)
    two.fill_disk(leave_bytes=4 << 20)
    try:
        outcome = copy([f"ssh://{one.name}/tmp/d"], f"ssh://{two.name}/tmp/e", R)
    finally:
        two.free_disk()
    name = f"error writing 'ssh://{two.name}/tmp/e/%s': No space left on device"
    said = {one.removesuffix(f" (on {two.name})") for one in outcome.complaints}  # as a call's answer puts it
    assert name % "alone" in said
    assert said <= {name % "alone", name % "large"}
    assert shell(two, "ls /tmp/e/sub | wc -l").strip() == "300"
    copied(hosts, *direction, wishes=Wishes(recursive=True, as_file=True))


def test_permission_denied_in_the_middle(hosts: Lab) -> None:
    one, two, _ = hosts.hosts
    furnish(one)
    one.run(["sh", "-c", "chown root /tmp/d/sub/7; chmod 600 /tmp/d/sub/7; mkdir -m 700 /tmp/d/secret"])
    outcome = copy([f"ssh://{one.name}/tmp/d"], f"ssh://{two.name}/tmp/e", R)
    one.run(["sh", "-c", "rm -rf /tmp/d/secret /tmp/d/sub/7"])
    assert sorted(outcome.complaints) == [
        f"'ssh://{one.name}/tmp/d/secret': Permission denied",
        f"cannot open 'ssh://{one.name}/tmp/d/sub/7' for reading: Permission denied",
    ]
    assert shell(two, "ls /tmp/e/sub | wc -l").strip() == "299"


def in_the_middle(meddle: Callable[[], Any]) -> Tally:
    """A tally that does something once when a quarter has gone by."""

    class Meddler(Tally):
        done = False

        def add(self, size: int) -> None:
            super().add(size)
            if self.done_bytes * 4 > self.size and not self.done:
                self.done = True
                meddle()

    return Meddler()


@pytest.mark.parametrize("how", ["its process", "its power"])
def test_a_host_that_dies_in_the_middle_is_named_and_its_file_is_resumed(
    lab_factory: Any, monkeypatch: pytest.MonkeyPatch, how: str
) -> None:
    with lab_factory(2, prefix=f"dying{len(how)}n", disk_bytes=256 << 20) as lab:
        monkeypatch.setenv("SERAI_SSH_CONFIG", str(lab.ssh_config))
        one, two = lab.hosts
        shell(one, "mkdir /tmp/d; head -c 100000000 /dev/urandom > /tmp/d/large; echo x > /tmp/d/small")
        end = "kill -9 $(ps -u user -o pid=,comm= | grep python3 | cut -c1-8)"
        tally = in_the_middle(two.kill if how == "its power" else lambda: shell(two, end))
        outcome = copy([f"ssh://{one.name}/tmp/d"], f"ssh://{two.name}/tmp/e", R, tally=tally)
        assert len(outcome.complaints) in {1, 2}, outcome.complaints
        if how == "its process":
            assert any("; the same command goes on where it stopped" in one for one in outcome.complaints)
        forget_hosts()
        if how == "its power":
            two.start()
        notes: list[str] = []
        again = Wishes(recursive=True, as_file=True)
        assert copy([f"ssh://{one.name}/tmp/d"], f"ssh://{two.name}/tmp/e", again, tally=Tally(notes.append)).ok
        assert any("goes on after" in note for note in notes), notes
        assert sums(two, "/tmp/e") == sums(one, "/tmp/d")
        forget_hosts()


def test_many_hosts_are_read_at_once(hosts: Lab, tmp_path: Any) -> None:
    for host in hosts.hosts:
        shell(host, f"echo {host.name} > /tmp/{host.name}")
    urls = [f"ssh://{host.name}/tmp/{host.name}" for host in hosts.hosts]
    before = threading.active_count()  # other tests of this process may have left some
    assert copy(urls, str(tmp_path)).ok
    assert sorted(os.listdir(tmp_path)) == ["node1", "node2", "node3"]
    assert threading.active_count() - before < 48
