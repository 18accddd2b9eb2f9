"""Which inputs a worker's host opens by a path of its own."""

from __future__ import annotations

from typing import Any

from serai.apps.mapreduce.plan import Input
from serai.apps.workers.locality import Local, Locality, facts_of, served
from serai.apps.workers.stewards import Place
from serai.describe.host import HostFacts, Mount
from serai.describe.mapreduce import HostSpec
from serai.describe.poolfile import site_from_url
from serai.match.any_candidates import Appliance

ROOT = ["/", "ext4", "/dev/sda1", "/"]
NFS = ["/data", "nfs4", "server:/export", "/"]


def who(host: str, boot: str, *mounts: list[str]) -> dict[str, Any]:
    said = {"host": host, "boot": boot, "user": "me", "uid": 1000, "home": "/home/me"}
    return {**said, "mounts": [ROOT, *mounts], "addresses": [f"10.0.0.{len(boot)}"]}


def place(key: str, said: dict[str, Any]) -> Place:
    return Place(HostSpec(site_from_url("local:")), key, key or "local", who=said)


def facts(said: dict[str, Any]) -> HostFacts:
    found = facts_of(said)
    assert found is not None
    return found


def test_the_same_name_is_the_same_host_whatever_it_says() -> None:
    it = Locality([Input("ssh://lab1/x", 1, "lab1", "/x")], {})
    assert it.path(0, place("lab1", {})) == Local("/x")
    assert it.path(0, place("lab2", {})) is None
    assert it.path(0, None) is None
    assert it.near(place("lab1", {})) == {"lab1"}
    assert it.near(place("lab2", {})) == {"lab2"}
    assert it.near(None) == frozenset()


def test_a_host_goes_by_several_names() -> None:
    lab1 = who("node1", "b")
    it = Locality([Input("ssh://lab1/x", 1, "lab1", "/x")], {"lab1": facts(lab1)})
    alias = place("me@node1.lan:22", lab1)
    assert it.path(0, alias) == Local("/x", sure=False)
    assert it.near(alias) == {"me@node1.lan:22", "lab1"}
    assert it.path(0, place("other", who("node2", "other"))) is None


def test_this_machine_reached_over_ssh_is_this_machine() -> None:
    here = {**who("here", "b"), "addresses": []}
    it = Locality([Input("/x", 1, "", "/x")], {"": facts(here)})
    assert it.near(place("127.0.0.1:2222", here)) == {"127.0.0.1:2222", ""}


def test_a_file_system_that_both_have_mounted() -> None:
    inputs = [Input("/data/a", 1, "", "/data/a"), Input("/etc/b", 1, "", "/etc/b")]
    front = {"": facts(who("front", "b", NFS))}
    node = place("lab1", who("node", "other", ["/mnt/shared", "nfs4", "server:/export", "/"]))
    it = Locality(inputs, front)
    assert it.path(0, node) == Local("/mnt/shared/a", sure=False, inode=True)
    assert it.path(1, node) is None
    assert it.near(node) == {"lab1"}, "not all of the front end's files are there"
    assert Locality(inputs[:1], front).near(node) == {"lab1", ""}


def test_what_a_host_has_mounted_is_looked_at_again_when_it_comes_back() -> None:
    it = Locality([Input("/data/a", 1, "", "/data/a")], {"": facts(who("front", "b", NFS))})
    node = place("lab1", who("node", "other", NFS))
    assert it.path(0, node) is not None
    node.who = who("node", "another")
    it.forget(node)
    assert it.path(0, node) is None


def test_what_an_appliance_serves_is_there_on_its_host() -> None:
    inputs = [Input("store://node:9000/b/x", 1, None, None), Input("s3://bucket/y", 1, None, None)]
    found, hosts = served(inputs, [Appliance("node", "/srv/files", "store://node:9000/", "s1")])
    assert found[0].path == "/srv/files/b/x"
    assert found[1] is inputs[1]
    it = Locality(found, hosts)
    assert it.path(0, place("lab1", who("node", "b"))) == Local("/srv/files/b/x", sure=False)
    assert it.path(0, place("lab2", who("other", "b"))) is None
    assert it.path(1, place("lab1", who("node", "b"))) is None


def test_a_host_that_says_too_little_opens_its_own_only() -> None:
    said = who("node", "b")
    for wrong in ({}, {**said, "uid": "me"}, {**said, "mounts": [1]}):
        assert facts_of(wrong) is None
    assert facts(said) == HostFacts(
        "node", "b", "me", 1000, "/home/me", (Mount("/", "ext4", "/dev/sda1"),), ("10.0.0.1",)
    )
