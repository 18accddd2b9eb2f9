from __future__ import annotations

import pytest

from serai.describe.host import HostFacts, Mount
from serai.match.any_candidates import Appliance, Candidate, Proof, candidates, mount_of
from serai.session.url import Url
from serai.travel.porter.surroundings import parse_mounts

ROOT = Mount("/", "ext4", "/dev/sda1")
HERE = HostFacts("front.lab", "boot-1", "me", 1000, "/home/me", (ROOT,), ("10.0.0.1", "2001:db8:0:0:0:0:0:1"))
THERE = HostFacts("lab1", "boot-2", "me", 1000, "/home/me", (ROOT,), ("10.0.0.2",))


def ways(url: str, here: HostFacts = HERE, there: HostFacts | None = THERE, **more: object) -> list[str]:
    return [one.url for one in candidates(Url.parse(url), here, there, **more)]  # type: ignore[arg-type]


def with_mounts(facts: HostFacts, *mounts: Mount) -> HostFacts:
    return HostFacts(
        facts.host, facts.boot, facts.user, facts.uid, facts.home, (*facts.mounts, *mounts), facts.addresses
    )


@pytest.mark.parametrize(
    "url",
    ["any:/x", "any:///x", "any://localhost/x", "any://127.0.0.1/x", "any://[::1]/x", "any://front/x",
     "any://FRONT.lab/x", "any://me@front/x", "any://10.0.0.1/x", "any://[2001:db8::1]/x"],
)  # fmt: skip
def test_a_url_may_name_this_machine(url: str) -> None:
    first = candidates(Url.parse(url), HERE, None)[0]
    assert (first.url, first.proof) == ("local:/x", Proof.ANSWER)


@pytest.mark.parametrize("url", ["any://you@front/x", "any://localhost:2222/x", "any://frontier/x", "any://10.0.0.2/x"])
def test_another_user_and_another_port_are_not_this_machine(url: str) -> None:
    assert ways(url) == [url.replace("any", "ssh")]


def test_an_alias_of_this_machine_is_known_by_its_boot_and_looked_at() -> None:
    same = HostFacts("front.lab", "boot-1", "me", 1000, "/home/me")
    first, second = candidates(Url.parse("any://alias/x"), HERE, same)
    assert (first.url, first.proof, second.url) == ("local:/x", Proof.SAME_INODE, "ssh://alias/x")
    for other in (
        HostFacts("container", "boot-1", "me", 1000, "/home/me"),
        HostFacts("front.lab", "boot-1", "you", 1001, "/home/you"),
        HostFacts("front.lab", "", "me", 1000, "/home/me"),
    ):
        assert ways("any://alias/x", there=other) == ["ssh://alias/x"]


def test_a_mount_that_both_have_is_nearer_than_the_host() -> None:
    here = with_mounts(HERE, Mount("/mnt/data", "nfs4", "server:/export"))
    there = with_mounts(THERE, Mount("/data", "nfs", "server:/export"))
    first, second = candidates(Url.parse("any://lab1/data/a/b"), here, there)
    assert first == Candidate("local:/mnt/data/a/b", first.reason, "", Proof.SAME_INODE, "/data", "/mnt/data")
    assert "server:/export" in first.reason
    assert second.url == "ssh://lab1/data/a/b"
    assert ways("any://lab1/data", here, there)[0] == "local:/mnt/data"
    assert ways("any://lab1/database/a", here, there) == ["ssh://lab1/database/a"]
    assert ways("any://lab1/data/a", here, THERE) == ["ssh://lab1/data/a"]


def test_directories_of_one_source_may_be_mounted_apart() -> None:
    here = with_mounts(HERE, Mount("/sub", "virtiofs", "tag", "/deep/er"))
    there = with_mounts(THERE, Mount("/data", "virtiofs", "tag", "/deep"))
    first = candidates(Url.parse("any://lab1/data/er/x"), here, there)[0]
    assert (first.url, first.proof) == ("local:/sub/x", Proof.SAME_FILE)
    assert ways("any://lab1/data/x", here, there) == ["ssh://lab1/data/x"]


@pytest.mark.parametrize(
    ("kind", "source"), [("ext4", "server:/export"), ("nfs", "another:/export"), ("lustre", "server:/export")]
)
def test_other_sources_and_kinds_are_not_shared(kind: str, source: str) -> None:
    here = with_mounts(HERE, Mount("/mnt", kind, source))
    there = with_mounts(THERE, Mount("/data", "ext4" if kind == "ext4" else "nfs", "server:/export"))
    assert ways("any://lab1/data/x", here, there) == ["ssh://lab1/data/x"]


def test_what_covers_a_mount_hides_it() -> None:
    here = with_mounts(HERE, Mount("/mnt", "nfs", "s:/e"), Mount("/mnt/a", "tmpfs", "tmpfs"))
    there = with_mounts(THERE, Mount("/data", "nfs", "s:/e"))
    assert ways("any://lab1/data/a/x", here, there) == ["ssh://lab1/data/a/x"]
    assert ways("any://lab1/data/b/x", here, there)[0] == "local:/mnt/b/x"


@pytest.mark.parametrize("source", ["lab1:/srv", "me@lab1:/srv", "10.0.0.2:/srv", "[10.0.0.2]:/srv"])
def test_a_directory_of_the_host_may_be_mounted_here(source: str) -> None:
    here = with_mounts(HERE, Mount("/mnt/lab1", "fuse.sshfs", source))
    first = candidates(Url.parse("any://lab1/srv/x"), here, THERE)[0]
    assert (first.url, first.proof, first.there, first.here) == ("local:/mnt/lab1/x", Proof.NAMED, "/srv", "/mnt/lab1")
    assert ways("any://lab1/home/x", here) == ["ssh://lab1/home/x"]


def test_appliances_come_before_the_host_and_schemes_in_their_order() -> None:
    near = [Appliance("lab1", "/data/", "http://near:9000/d"), Appliance("lab2", "/data", "http://far/")]
    assert ways("any://me@lab1:22/data/x", appliances=near, schemes=("ssh", "gsiftp")) == [
        "http://near:9000/d/x", "ssh://me@lab1:22/data/x", "gsiftp://me@lab1:22/data/x"
    ]  # fmt: skip


def test_the_deepest_and_latest_mount_counts() -> None:
    over = Mount("/a", "tmpfs", "second")
    mounts = (ROOT, Mount("/a", "tmpfs", "first"), over, Mount("/a/b/c", "tmpfs", "deep"))
    assert mount_of("/a/b/x", mounts) == over
    assert mount_of("/ab", mounts) == ROOT
    assert mount_of("/a", mounts) == over
    assert mount_of("/x", ()) is None


def test_what_the_kernel_says_of_mounts_is_read() -> None:
    text = (
        "36 35 98:0 / / rw,noatime shared:1 - ext3 /dev/root rw,errors=continue\n"
        "40 36 0:50 /sub /mnt/with\\040blank rw - nfs4 server:/ex\\134port rw,addr=10.0.0.9\n"
        "not a line\n"
    )
    assert parse_mounts(text) == [
        ["/", "ext3", "/dev/root", "/"],
        ["/mnt/with blank", "nfs4", "server:/ex\\port", "/sub"],
    ]
